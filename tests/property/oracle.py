"""The oracle: what the tables must hold, and what must be recorded, worked out in memory from the operations alone.

It knows what a database does by itself (computed columns, foreign-key actions) and never asks the trail.  A transaction
works on a draft for each statement or flush; what differs between before and after is what has to be recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from json import dumps
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from sa_audit import Context, Exclude, Mask, Masked
from tests.property.models import HIERARCHY, ROOTS, TABLES, key_columns

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = dict[str, Any]
"""Values by the keys of the columns; never changed in place."""
Tables: TypeAlias = dict[sa.Table, dict[Key, Row]]
Entity: TypeAlias = tuple[Any, Key]
"""What `ROOTS` gives for a table, and the key."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who did it in which transaction: what has to be one row of `audit_transaction`."""

    transaction: int
    context: Context


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change of one row of one table by one statement or flush."""

    table: sa.Table
    key: Key
    op: str
    before: Row | None
    after: Row | None
    stamp: Stamp
    step: int

    @property
    def entity(self) -> Entity:
        return ROOTS[self.table], self.key


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


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of the past: what the tables held, and how much of the log had been committed."""

    when: Any
    tables: Tables
    recorded: int


def exact(value: Any) -> Any:
    """Give a value in a form that is equal for the same value of the same type only."""
    if isinstance(value, Mapping):
        return "json", dumps(dict(value))
    return type(value).__name__, str(value) if isinstance(value, Decimal) else repr(value)


def is_masked(column: sa.Column[Any]) -> bool:
    """Tell whether only the fact of a change is recorded."""
    return isinstance(column.info.get("sa_audit"), Mask)


def key_of(table: sa.Table, row: Row) -> Key:
    """Give the key of a row."""
    return tuple(row[column.key] for column in key_columns(table))


class World:
    """What is committed: the tables, everything that was recorded, and the moments to come back to."""

    def __init__(self) -> None:
        self.tables: Tables = {table: {} for table in TABLES}
        self.log: list[Recorded] = []
        self.moments: list[Moment] = []
        self.commits = 0
        self.transactions = 0

    def remember(self, when: Any, before: tuple[Tables, int] | None = None) -> None:
        """Note a moment, at which the tables are as they are now, or as they were before."""
        tables, recorded = before if before is not None else (self.tables, len(self.log))
        self.moments.append(Moment(when, tables, recorded))


@dataclass
class Transaction:
    """An open transaction: what it has written, what has to be recorded of it, and its savepoints."""

    world: World
    number: int = 0
    overlay: dict[tuple[sa.Table, Key], Row | None] = field(default_factory=dict)
    log: list[Recorded] = field(default_factory=list)
    savepoints: list[tuple[dict[tuple[sa.Table, Key], Row | None], int]] = field(default_factory=list)
    steps: int = 0
    alone: bool = True

    def __post_init__(self) -> None:
        self.world.transactions += 1
        self.number = self.world.transactions
        self.began = self.world.commits

    @property
    def touched(self) -> set[Entity]:
        """The entities that it has written."""
        return {(ROOTS[table], key) for table, key in self.overlay}

    def rows(self, table: sa.Table) -> dict[Key, Row]:
        """Give the rows of a table as a statement of this transaction meets them."""
        rows = dict(self.world.tables[table])
        for (written, key), row in self.overlay.items():
            if written is table:
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        return rows

    def mark(self) -> None:
        """Set a savepoint."""
        self.savepoints.append((dict(self.overlay), len(self.log)))

    def release(self) -> None:
        """Release the innermost savepoint."""
        self.savepoints.pop()

    def back(self) -> None:
        """Roll back to the innermost savepoint."""
        self.overlay, length = self.savepoints.pop()
        del self.log[length:]

    def accept(self, draft: Draft, context: Context) -> list[Recorded]:
        """Take what a statement or flush has done, and give what has to be recorded of it."""
        self.steps += 1
        stamp = Stamp(self.number, context)
        changes = [
            Recorded(table, key, op, before, after, stamp, self.steps) for table, key, op, before, after in draft.changes()
        ]
        self.overlay |= draft.overlay
        self.log += changes
        return changes

    def commit(self) -> None:
        """Make it part of the world."""
        tables = {table: self.rows(table) for table in TABLES}
        self.world.tables = tables
        self.world.log += self.log
        self.world.commits += 1


class Draft:
    """What one statement or flush does to the tables, actions of the database included."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.overlay: dict[tuple[sa.Table, Key], Row | None] = {}
        self.moved: set[tuple[sa.Table, Key]] = set()

    def rows(self, table: sa.Table) -> dict[Key, Row]:
        """Give the rows of a table as they are by now."""
        rows = self.transaction.rows(table)
        for (written, key), row in self.overlay.items():
            if written is table:
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        return rows

    def insert(self, table: sa.Table, row: Row) -> None:
        """Insert a row; what is not given becomes its default, or NULL."""
        complete = {column.key: _default(column) for column in table.columns} | row
        key = key_of(table, complete)
        assert key not in self.rows(table), f"the plan inserts {key} into {table.name} twice"
        self.overlay[table, key] = _computed(table, complete)

    def update(self, table: sa.Table, key: Key, values: Row, *, by_sqlalchemy: bool = True) -> None:
        """Update a row; a change of its key moves it."""
        old = self.rows(table)[key]
        row = _computed(table, {**old, **values})
        if by_sqlalchemy and "touched" in row and "touched" not in values:
            row["touched"] += 1
        new = key_of(table, row)
        if new != key:
            self.overlay[table, key] = None
            self.moved |= {(table, key), (table, new)}
            self._follow(table, old, row)
        self.overlay[table, new] = row

    def delete(self, table: sa.Table, key: Key) -> None:
        """Delete a row, with what the database deletes or empties along with it."""
        row = self.rows(table)[key]
        self.overlay[table, key] = None
        for constraint, child, referring in self.referring(table, row):
            if constraint.ondelete == "CASCADE":
                self.delete(constraint.table, child)
            elif constraint.ondelete == "SET NULL":
                empty = dict.fromkeys(constraint.column_keys)
                self.overlay[constraint.table, child] = {**referring, **empty}

    def _follow(self, table: sa.Table, old: Row, new: Row) -> None:
        for constraint, child, referring in self.referring(table, old):
            if constraint.onupdate == "CASCADE":
                moved = {element.parent.key: new[element.column.key] for element in constraint.elements}
                self.overlay[constraint.table, child] = {**referring, **moved}

    def referring(self, table: sa.Table, row: Row) -> Iterable[tuple[sa.ForeignKeyConstraint, Key, Row]]:
        """Give the rows that refer to a row."""
        for other in TABLES:
            for constraint in other.foreign_key_constraints:
                if constraint.referred_table is not table:
                    continue
                for key, referring in self.rows(other).items():
                    if all(referring[e.parent.key] == row[e.column.key] for e in constraint.elements):
                        yield constraint, key, referring

    def changes(self) -> Iterable[tuple[sa.Table, Key, str, Row | None, Row | None]]:
        """Give what differs between before and after, in columns that are recorded."""
        earlier = {table: self.transaction.rows(table) for table, _key in self.overlay}
        for (table, key), after in self.overlay.items():
            before = earlier[table].get(key)
            if (table, key) in self.moved and before is not None and after is not None:
                yield table, key, "D", before, None
                yield table, key, "I", None, after
            elif before is None and after is not None:
                yield table, key, "I", None, after
            elif before is not None and after is None:
                yield table, key, "D", before, None
            elif before is not None and after is not None and changed_columns(table, before, after):
                yield table, key, "U", before, after


@cache
def recorded_columns(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    """Give the columns whose change has to be recorded."""
    return tuple(column for column in table.columns if not isinstance(column.info.get("sa_audit"), Exclude))


def changed_columns(table: sa.Table, before: Row, after: Row) -> list[sa.Column[Any]]:
    """Give the recorded columns that differ."""
    return [c for c in recorded_columns(table) if exact(before[c.key]) != exact(after[c.key])]


def left_out(table: sa.Table, row: Row) -> Row:
    """Give the row without what the ORM leaves out of an INSERT: None where the database has a default."""
    return {name: value for name, value in row.items() if value is not None or table.c[name].server_default is None}


def _default(column: sa.Column[Any]) -> Any:
    if column.server_default is not None and isinstance(column.server_default, sa.DefaultClause):
        return int(str(column.server_default.arg))
    return column.default.arg if isinstance(column.default, sa.ColumnDefault) else None


def _computed(table: sa.Table, row: Row) -> Row:
    if "doubled" not in table.c:
        return dict(row)
    return {**row, "doubled": None if row["count"] is None else row["count"] * 2}


# -- what has to be answered ---------------------------------------------------------------


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
    columns = recorded_columns(change.table)
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
    first, second = (
        expected_history(entity, [change for change in log[:length] if change.entity == entity]) for length in (one, other)
    )
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
