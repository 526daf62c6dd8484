"""Under which names a table's columns were recorded: ``audit_column`` gives each column one id for all its names.

Before-values are JSON, whose members keep the name that the column had at the time.  Pure, but for :func:`renamed` and
:func:`names_of`, which give SQL.  Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from ..model import AuditedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when until when a column had a name; None where no other column ever had it, or where it is open."""

    name: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def holds(self, moment: dt.datetime) -> bool:
        """Tell whether a moment lies in it."""
        return (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """A column of the history that keeps what was recorded while a column had another type.

    Args:
        name: its name there.
        type: its type there.
        until: when the column got the type that followed; None where a downgrade took a newer type back.
    """

    name: str
    type: TypeEngine[Any]
    until: dt.datetime | None


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The names of a table's columns.

    Args:
        spans: for each column, by the name that it has now, its names, oldest first.
        formers: for each column that had other types, by the name that it has now, what keeps their values.
    """

    spans: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    formers: Mapping[str, Sequence[Former]] = field(default_factory=dict)

    def of(self, column: str) -> Sequence[Span]:
        """Give the names of a column, by its present one."""
        return self.spans.get(column) or (Span(name=column),)

    def present(self, name: str, moment: dt.datetime) -> str:
        """Give the name that a column has now.

        Args:
            name: the name that it had.
            moment: when it had it, with zone.
        """
        for column, spans in self.spans.items():
            if any(span.name == name and span.holds(moment) for span in spans):
                return column
        return name


def column_names(present: Iterable[str], rows: Iterable[Any]) -> ColumnNames:
    """Give the names of columns, from the account of them.

    Args:
        present: the names of the columns that the model has.
        rows: id, name and since when (with zone), in the order in which they were written; more is not looked at.
    """
    account: dict[int, list[tuple[str, dt.datetime]]] = {}
    latest: dict[str, int] = {}
    for number, name, since, *_rest in rows:
        names = account.setdefault(number, [])
        if not names or names[-1][0] != name:
            names.append((name, since))
        latest[name] = number
    now = {number: names[-1][0] for number, names in account.items()}
    now |= {
        latest[name]: name for name in present if name in latest
    }  # what a downgrade took back is not in the account
    shared = _shared(account)
    return ColumnNames({now[number]: _spans(names, shared) for number, names in account.items()})


def _shared(account: Mapping[int, Sequence[tuple[str, dt.datetime]]]) -> set[str]:
    """Give the names that more than one column had."""
    owners: dict[str, set[int]] = {}
    for number, names in account.items():
        for name, _since in names:
            owners.setdefault(name, set()).add(number)
    return {name for name, numbers in owners.items() if len(numbers) > 1}


def _spans(names: Sequence[tuple[str, dt.datetime]], shared: set[str]) -> tuple[Span, ...]:
    """Give a column's names, with bounds where another column had the name as well."""
    ends = [*(since for _name, since in names[1:]), None]
    return tuple(
        Span(name=name, since=since, until=end) if name in shared else Span(name=name)
        for (name, since), end in zip(names, ends, strict=True)
    )


def renamed(audited: AuditedTable) -> sa.ColumnElement[bool]:
    """Give the expression that tells whether a column ever had another name or type; asked once for all its uses."""
    column = audited.trail.column
    known = sa.select(column.c.id).where(
        column.c.table_name == audited.table.fullname, column.c.event.in_(["rename", "retype"])
    )
    asked = sa.select(known.exists().label("renamed")).cte("sa_audit_names")
    return sa.select(asked.c.renamed).scalar_subquery()


def names_of(audited: AuditedTable) -> sa.Select[Any]:
    """Give the statement that reads the account of a table's columns: column, name, since when, event, revision, id."""
    column = audited.trail.column
    return (
        sa.select(
            column.c.column_id, column.c.name, column.c.recorded_at, column.c.event, column.c.revision, column.c.id
        )
        .where(column.c.table_name == audited.table.fullname)
        .order_by(column.c.id)
    )
