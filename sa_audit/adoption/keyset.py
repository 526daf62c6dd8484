"""Conditions on the keys of an audited table: behind a key, among some keys, and without history.

Imports model, ddl, query and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ..ddl import Backend
from ..model import AuditedTable
from ..query.before import Reader

Key = tuple[Any, ...]
Condition = sa.ColumnElement[bool]


def behind(columns: Sequence[sa.ColumnElement[Any]], key: Key) -> Condition:
    """Give the condition for rows behind a key, in the order of the columns.

    The first column is bounded by itself: no database would use its index for the alternatives alone.
    """
    alternatives = [
        sa.and_(*(columns[j] == key[j] for j in range(i)), columns[i] > key[i]) for i in range(len(columns))
    ]
    return alternatives[0] if len(columns) == 1 else sa.and_(columns[0] >= key[0], sa.or_(*alternatives))


def among(backend: Backend, audited: AuditedTable, alias: str) -> sa.TextClause:
    """Give the condition for the rows with the keys of the parameter ``keys``, where the table has that alias."""
    return sa.text(backend.key_predicate(audited, alias)).bindparams(backend.keys_parameter(audited))


def unrecorded(audited: AuditedTable, rows: sa.FromClause, reader: Reader) -> Condition:
    """Give the condition for rows of which the history has no row at all, not even one before a truncate.

    A scalar subquery, which is looked up row by row: the anti-join of NOT EXISTS is planned by statistics, and those
    of a history that is being filled are wrong.
    """
    known = audited.history.alias("known")
    same = (reader.same_key(known.c[column.key], rows.c[column.key], nullable=False) for column in audited.key)
    return sa.select(known.c.audit_id).where(*same).limit(1).scalar_subquery().is_(None)
