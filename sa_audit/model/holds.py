"""Legal holds: the condition of a model's retention, asked of its rows or of rows of its history.

Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from ..errors import ConfigurationError
from .audited import AuditedTable

Condition = sa.ColumnElement[bool]


def held_rows(audited: AuditedTable) -> Condition | None:
    """Give the condition for the rows of a table that are held, or None if the model knows no hold.

    Raises:
        ConfigurationError: if the hold gives no condition, or one that names no column of the table.
    """
    hold = audited.options.retention.hold if audited.options.retention is not None else None
    if hold is None:
        return None
    condition = hold() if callable(hold) and not hasattr(hold, "__clause_element__") else hold
    condition = condition.__clause_element__() if hasattr(condition, "__clause_element__") else condition
    if not isinstance(condition, sa.ColumnElement):
        raise ConfigurationError(
            f"the hold of {audited.table.fullname} gives {condition!r}: give a condition on the model's columns"
        )
    if not any(_of(element, audited) is not None for element in visitors.iterate(condition)):
        raise ConfigurationError(
            f"the hold of {audited.table.fullname} names no column of that table, so it is the same for all rows: "
            "compare one of them, such as the key"
        )
    return condition


def held_history(audited: AuditedTable, history: sa.FromClause) -> Condition | None:
    """Give the condition for the rows of a history, or of an alias of it, that are held; None if there is no hold.

    Raises:
        ConfigurationError: as :func:`held_rows`, and for a column that the history does not hold as it is.
    """
    condition = held_rows(audited)
    if condition is None:
        return None

    def replace(element: Any, **_kw: Any) -> Any:
        if isinstance(element, sa.Select) and audited.table in _own_sources(element):
            return element  # it has rows of the table of its own
        column = _of(element, audited)
        return None if column is None else history.c[_recorded(audited, column).key]

    found: Condition = visitors.replacement_traverse(condition, {}, replace)
    return found


def _of(element: Any, audited: AuditedTable) -> sa.Column[Any] | None:
    """Give the column of the audited table that an element is, also where the ORM has annotated it."""
    if not isinstance(element, sa.Column):
        return None
    for column in audited.table.columns:
        if column is element or (element.key == column.key and _plain(element.table) is audited.table):
            return column
    return None


def _plain(table: Any) -> Any:
    return table._deannotate() if hasattr(table, "_deannotate") else table


def _own_sources(select: sa.Select[Any]) -> list[Any]:
    """Give the tables that a SELECT names in its own FROM, and not only by a column that it compares."""
    named = [*select._from_obj, *select.columns_clause_froms]
    return [_plain(source) for entry in named for source in (entry, *getattr(entry, "_from_objects", ()))]


def _recorded(audited: AuditedTable, column: sa.Column[Any]) -> sa.Column[Any]:
    for known in audited.columns:
        if known.source is column and known.recorded is not None and not known.protected:
            return known.recorded
    raise ConfigurationError(
        f"the hold of {audited.table.fullname} compares {column.name}, whose values its history does not hold as they "
        "are: compare another column, such as the key"
    )
