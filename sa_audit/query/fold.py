"""From history rows to changes: pure, without a connection.

The rows of a joined-inheritance entity that one flush wrote in its several tables are one change.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from ..model import Excluded, Masked
from .change import OPERATIONS, Change
from .entity import Identity, Part, Subject
from .rows import HistoryRow

Values = dict[sa.Column[Any], Any]
Pairs = dict[str, tuple[Any, Any]]


def changes_by_identity(
    subject: Subject, rows: Iterable[HistoryRow], order: Callable[[HistoryRow], Any]
) -> dict[Identity, list[Change]]:
    """Give the changes of each entity, oldest first.

    Args:
        subject: whose rows they are.
        rows: all history rows of these entities, and all truncates of their tables.
        order: what sorts them.
    """
    own: dict[Identity, list[HistoryRow]] = {}
    truncates = []
    for row in rows:
        if row.op == "T":
            truncates.append(row)
        else:
            own.setdefault(row.identity, []).append(row)
    return {identity: fold(subject, identity, sorted([*mine, *truncates], key=order)) for identity, mine in own.items()}


def fold(subject: Subject, identity: Identity, rows: Sequence[HistoryRow]) -> list[Change]:
    """Give the changes of one entity.

    Args:
        subject: what it is.
        identity: its key, for changes whose rows have none (a truncate).
        rows: its history rows, in order.
    """
    life = Life(subject)
    return [life.change(identity, group) for group in groups(rows)]


def groups(rows: Iterable[HistoryRow]) -> list[list[HistoryRow]]:
    """Give the rows of each flush together, until a table repeats."""
    found: list[list[HistoryRow]] = []
    for row in rows:
        if found and _together(found[-1], row):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _together(group: Sequence[HistoryRow], row: HistoryRow) -> bool:
    first = group[0]
    same_flush = first.info.id == row.info.id and first.flush == row.flush
    return same_flush and "T" not in (first.op, row.op) and all(member.part is not row.part for member in group)


class Life:
    """An entity's recorded state while its changes pass by."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.state: dict[Part, Values] = {}
        self.former: dict[Part, frozenset[sa.Column[Any]]] = {}

    def change(self, identity: Identity, rows: Sequence[HistoryRow]) -> Change:
        """Take the rows of one change, and give it."""
        leading = min(rows, key=lambda row: row.part.rank)
        earlier = dict(self.state)
        for row in rows:
            self.state[row.part] = row.values
            self.former[row.part] = row.former
        shown = {} if leading.op == "T" else self.state
        mapper = self.subject.mapper_for(_merged(shown.values()))
        state = self._attributes(mapper, shown)
        diff: Pairs = {}
        for row in sorted(rows, key=lambda row: row.part.rank):
            diff |= _diff(row, earlier.get(row.part), self.subject.names(mapper), state)
            if row.op in "DT":
                self.state.pop(row.part, None)
        if leading.op == "T":
            self.state.clear()
        return Change(
            entity=mapper.class_.__name__ if mapper is not None else self.subject.name,
            table=leading.part.audited.table.fullname,
            identity=leading.identity or identity,
            operation=OPERATIONS[leading.op],
            diff=diff,
            state=state,
            recorded_at=leading.info.recorded_at,
            transaction=leading.info,
            audit_id=leading.audit_id,
            former=self._former(mapper, state),
        )

    def _former(self, mapper: Mapper[Any] | None, state: dict[str, Any]) -> frozenset[str]:
        names = self.subject.names(mapper)
        columns = (column for columns in self.former.values() for column in columns)
        return frozenset(names[column] for column in columns if state.get(names[column]) is not None)

    def _attributes(self, mapper: Mapper[Any] | None, state: dict[Part, Values]) -> dict[str, Any]:
        names = self.subject.names(mapper)
        own = self.subject.mapped(mapper)
        attributes: dict[str, Any] = {}
        for part in sorted(state, key=lambda part: part.rank):
            for column in part.audited.columns:
                value = Masked if column.masked else state[part][column.source]
                if column.source in own or (value is not None and value is not Masked):
                    attributes.setdefault(names[column.source], value)
        return attributes


def _merged(states: Iterable[Values]) -> Values:
    merged: Values = {}
    for values in states:
        merged |= values
    return merged


def _diff(row: HistoryRow, earlier: Values | None, names: dict[sa.Column[Any], str], state: dict[str, Any]) -> Pairs:
    """Give one row's part of a change's diff; ``state`` tells which attributes the entity has."""
    columns = {column.name: column for column in row.part.audited.columns}
    pairs: Pairs = {}
    if row.op == "U":
        for name, before in row.before.items():
            column = columns.get(name)
            if column is None:
                pairs[name] = (before, Excluded)
            else:
                pairs[names[column.source]] = (before, Masked if column.masked else row.values[column.source])
        return pairs
    for column in columns.values():
        name = names[column.source]
        if name not in state:
            continue
        value = Masked if column.masked else row.values[column.source]
        if row.op == "D":
            pairs[name] = (value, None)
        elif row.op == "I" or earlier is None:
            pairs[name] = (None, value)
        elif column.masked or not same(earlier[column.source], value):
            pairs[name] = (value if column.masked else earlier[column.source], value)
    return pairs


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are the same as recorded: 1.0 and 1.00 are not, NaN and NaN are."""
    if left is None or right is None:
        return left is right
    if isinstance(left, float | Decimal) and isinstance(right, float | Decimal):
        return str(left) == str(right)
    try:
        return bool(left == right)
    except (TypeError, ValueError):
        return repr(left) == repr(right)
