"""The oracle: what the tables must hold, and what must be recorded, worked out in memory from the operations alone.

It knows what a database does by itself (computed columns, foreign-key actions) and never asks the trail.  A transaction
works on a draft for each statement or flush; what differs between before and after is what has to be recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from json import dumps
from typing import Any, TypeAlias

import sqlalchemy as sa

from sa_audit import Context, Exclude, Mask
from tests.property.models import ROOTS, TABLES, key_columns

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
        changes = [Recorded(*change, stamp, self.steps) for change in draft.changes()]
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
