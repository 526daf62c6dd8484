"""Columns of a history that keep what was recorded while a column had another type, beside the one that is used now.

A migration puts the values of the other type aside under a name of its own (``balance_until_0007``), and on downgrade
those of the newer one (``balance_since_0007``); ``audit_column`` has an event ``retype`` for each.  A history row has
its value in one of them.  Imports the names, model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import InvalidMoment
from ..model import AuditedTable
from ..model.names import short_name
from .names import ColumnNames, Former, column_names

_WORDS = ("until", "since")


def formers_of(
    connection: Connection, audited: AuditedTable, names: ColumnNames, rows: Iterable[Any]
) -> dict[str, tuple[Former, ...]]:
    """Give the columns that keep values of other types, by the present name of the column, oldest first.

    Args:
        connection: where the history stands; asked for its columns if there was such a change.
        audited: the table.
        names: under which names its columns were recorded.
        rows: what :func:`.names.names_of` selects.
    """
    events = [(row[1], row[2], row[4]) for row in rows if row[3] == "retype"]
    if not events:
        return {}
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    schema = translated.get(audited.history.schema, audited.history.schema)
    standing = {
        column["name"]: column["type"]
        for column in sa.inspect(connection).get_columns(audited.history.name, schema=schema)
    }
    found: dict[str, dict[str, Former]] = {}
    for name, at, revision in events:
        for word in _WORDS:
            kept = short_name(f"{name}_{word}_{revision or 'change'}")
            if kept in standing:
                former = Former(name=kept, type=standing[kept], until=at if word == "until" else None)
                found.setdefault(names.present(name, at), {})[kept] = former
    return {column: tuple(kept.values()) for column, kept in found.items()}


def column_of(former: Former) -> sa.ColumnClause[Any]:
    """Give a former column as an expression, in a SELECT from one history only."""
    return sa.column(former.name, former.type)


def recorded_in(
    present: sa.ColumnElement[Any], formers: Sequence[Former], at: sa.ColumnElement[Any], former: Former | None
) -> sa.ColumnElement[bool]:
    """Give the condition that a row was recorded while the column was kept in one of its columns.

    Where all of them are NULL, the moment of the row decides.

    Args:
        present: the column that is used now.
        formers: the others, oldest first.
        at: the row's moment.
        former: one of them, or None for the one that is used now.
    """
    own = present if former is None else column_of(former)
    others = [present, *map(column_of, formers)]
    return sa.or_(own.is_not(None), sa.and_(*(other.is_(None) for other in others), _in_time(formers, at, former)))


def _in_time(formers: Sequence[Former], at: sa.ColumnElement[Any], former: Former | None) -> sa.ColumnElement[bool]:
    ends = [each for each in formers if each.until is not None]
    if former is None:
        return sa.and_(sa.true(), *(at >= end.until for end in ends))
    if former.until is None:
        return sa.false()
    earlier = ends[: ends.index(former)]
    return sa.and_(at < former.until, *(at >= end.until for end in earlier))


def kept_in(name: str, values: Mapping[str, Any], formers: Sequence[Former], at: dt.datetime) -> str:
    """Give the name of the column that a row's value was recorded in; the same decision as :func:`recorded_in`.

    Args:
        name: the column that is used now.
        values: the row's values, by these names.
        formers: the others, oldest first.
        at: the row's moment.
    """
    for kept in (name, *(former.name for former in formers)):
        if values[kept] is not None:
            return kept
    return next((former.name for former in formers if former.until is not None and at < former.until), name)


def formers_at(
    connection: Connection, audited: AuditedTable, rows: Sequence[Any], visible: Iterable[int]
) -> dict[str, Former]:
    """Give for the columns that had another type at a moment, by their present name, what keeps their values of then.

    Args:
        connection: where the history stands.
        audited: the table.
        rows: what :func:`.names.names_of` selects.
        visible: the ids of those that had been written at the moment.

    Raises:
        InvalidMoment: if it is a column of the key, so that the rows of then can't be found by it.
    """
    known = set(visible)
    names = column_names([column.name for column in audited.columns], rows)
    later = formers_of(connection, audited, names, [row for row in rows if row[5] not in known])
    found = {
        column: next(former for former in formers if former.until is not None)
        for column, formers in later.items()
        if any(former.until is not None for former in formers)
    }
    for column in audited.key:
        if column.name in found:
            raise InvalidMoment(
                f"the key {column.name} of table {audited.table.fullname} had another type at that moment: give one "
                f"after {found[column.name].until}, or read {audited.history.fullname} itself"
            )
    return found
