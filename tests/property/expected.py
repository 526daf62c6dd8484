"""What the trail has to answer, worked out from what the oracle says has to be recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from sa_audit import Masked
from tests.property.models import HIERARCHY, ROOTS
from tests.property.oracle import (
    Entity,
    Key,
    Recorded,
    Row,
    Stamp,
    Tables,
    changed_columns,
    exact,
    is_masked,
    recorded_columns,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A change as `history` has to give it."""

    entity: str
    table: str
    identity: Key
    operation: str
    diff: dict[str, tuple[Any, Any]]
    state: dict[str, Any]
    stamp: Stamp


def by_entity(log: Iterable[Recorded]) -> dict[Entity, list[Recorded]]:
    """Give the changes of each entity, in their order."""
    found: dict[Entity, list[Recorded]] = {}
    for change in log:
        found.setdefault(change.entity, []).append(change)
    return found


def expected_history(entity: Entity, log: Sequence[Recorded]) -> list[Expected]:
    """Give the changes of one entity as `history` has to give them: the tables of one flush together."""
    groups: list[list[Recorded]] = []
    for change in log:
        last = groups[-1] if groups else None
        together = last is not None and last[0].stamp == change.stamp and last[0].step == change.step
        if last is not None and together and all(member.table is not change.table for member in last):
            last.append(change)
        else:
            groups.append([change])
    state: Tables = {}
    return [_expected(entity[1], sorted(group, key=_rank), state) for group in groups]


def _rank(change: Recorded) -> int:
    return HIERARCHY.index(change.table) if change.table in HIERARCHY else 0


def _expected(key: Key, group: Sequence[Recorded], state: Tables) -> Expected:
    """Give one change; `state` holds the entity's rows by table, and is carried on."""
    leading = group[0]
    for change in group:
        row = change.after if change.after is not None else change.before
        assert row is not None
        state[change.table] = {key: row}
    mapper = mapper_of(leading.table, [rows[key] for rows in state.values()])
    attributes = shown_state(mapper, {table: rows[key] for table, rows in state.items()})
    diff: dict[str, tuple[Any, Any]] = {}
    for change in group:
        diff |= _pairs(mapper, change)
        if change.op == "D":
            del state[change.table]
    return Expected(
        entity=leading.table.fullname if mapper is None else mapper.class_.__name__,
        table=leading.table.fullname,
        identity=key,
        operation={"I": "insert", "U": "update", "D": "delete"}[leading.op],
        diff=diff,
        state=attributes,
        stamp=leading.stamp,
    )


def _pairs(mapper: Mapper[Any] | None, change: Recorded) -> dict[str, tuple[Any, Any]]:
    columns: Sequence[sa.Column[Any]] = recorded_columns(change.table)
    if change.op == "U" and change.before is not None and change.after is not None:
        columns = changed_columns(change.table, change.before, change.after)
    pairs = {}
    for column in columns:
        name = attribute_of(mapper, column)
        if name is not None:
            pairs[name] = (_shown(column, change.before), _shown(column, change.after))
    return pairs


def _shown(column: sa.Column[Any], row: Row | None) -> Any:
    if row is None:
        return None
    return Masked if is_masked(column) else row[column.key]


def mapper_of(table: sa.Table, rows: Sequence[Row]) -> Mapper[Any] | None:
    """Give the mapper of the class that these rows of one entity make up; None for an association."""
    root = ROOTS[table]
    if root is table:
        return None
    mapper: Mapper[Any] = sa.inspect(root)
    types = [row["type"] for row in rows if "type" in row]
    return mapper.polymorphic_map[types[0]] if types else mapper


@cache
def attribute_of(mapper: Mapper[Any] | None, column: sa.Column[Any]) -> str | None:
    """Give the name of a column's attribute, or None where the class has none."""
    if mapper is None:
        return column.key
    return next((prop.key for prop in mapper.column_attrs if column in prop.columns), None)


def shown_state(mapper: Mapper[Any] | None, rows: Mapping[sa.Table, Row]) -> dict[str, Any]:
    """Give the recorded attributes of an entity from its rows."""
    state: dict[str, Any] = {}
    for table, row in rows.items():
        for column in recorded_columns(table):
            name = attribute_of(mapper, column)
            if name is not None:
                state[name] = _shown(column, row)
    return state


def expected_blame(changes: Sequence[Expected]) -> dict[str, int]:
    """Give for each attribute the position of the change that gave it its present value."""
    blamed: dict[str, int] = {}
    for position, change in enumerate(changes):
        if position and changes[position - 1].operation == "delete":
            blamed = {}  # another life
        blamed |= dict.fromkeys(change.diff, position)
    return blamed


def expected_diff(entity: Entity, log: Sequence[Recorded], one: int, other: int) -> dict[str, tuple[Any, Any]]:
    """Give what differs in an entity between two moments, which saw so many entries of the world's log.

    `log` is the world's whole log.
    """
    logs = ([change for change in log[:length] if change.entity == entity] for length in (one, other))
    first, second = (expected_history(entity, own) for own in logs)
    before, after = _live(first), _live(second)
    pairs = {}
    for name in {**before, **after}:
        pair = before.get(name), after.get(name)
        hidden = Masked in pair and _last_touch(first, name) != _last_touch(second, name)
        if (name in before) != (name in after) or exact(pair[0]) != exact(pair[1]) or hidden:
            pairs[name] = pair
    return pairs


def _live(changes: Sequence[Expected]) -> dict[str, Any]:
    return {} if not changes or changes[-1].operation == "delete" else changes[-1].state


def _last_touch(changes: Sequence[Expected], name: str) -> int:
    return max((place for place, change in enumerate(changes) if name in change.diff), default=-1)
