"""A step: one statement or flush of one session under one context, chosen while it is planned.

A session has a slot; the slot knows the oracle's transaction beside the session's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from sa_audit import Context
from tests.property.models import MADE_KEYS, ROOTS, SPAN, Card, table_of
from tests.property.oracle import Draft, Entity, Key, Recorded, Row, Transaction, World
from tests.property.values import settable, value_of

T = TypeVar("T")

SMALL = 8
"""An example's own keys stand close together, so that they meet again."""


@dataclass
class Slot:
    """A session, with the oracle's side of its transaction while one is open.

    What it has loaded is held fast, so that it stays in the session and grows old.
    """

    session: Session
    transaction: Transaction | None = None
    savepoints: list[Any] = field(default_factory=list)
    loaded: list[Any] = field(default_factory=list)

    def drop_strays(self) -> None:
        """Have the session forget what it had let go of, and a rollback brought back.

        SQLAlchemy puts an object whose key was changed back into the session's identity map, detached, although
        the session was told to expunge it in between; asked for, it raises.
        """
        identities = self.session.identity_map
        for state in [state for state in identities.all_states() if state.session_id is None]:
            identities.safe_discard(state)

    def close(self) -> None:
        """Forget the transaction, which has ended."""
        self.transaction = None
        self.savepoints.clear()
        del self.loaded[: -50 if not self.session.expire_on_commit else None]


@dataclass
class Step:
    """One statement or flush that is being planned and executed.

    Attributes:
        random: what everything is chosen by.
        session: what executes it.
        transaction: the oracle's side.
        context: who does it.
        base: the first of the example's keys.
        taken: entities that other open transactions have written.
        whole: whether related rows can be trusted to be seen as they are.
    """

    random: Random
    session: Session
    transaction: Transaction
    context: Context
    base: int
    taken: set[Entity]
    loaded: list[Any]
    whole: bool = True
    changes: list[Recorded] = field(default_factory=list)
    tables: set[sa.Table] = field(default_factory=set)

    @property
    def world(self) -> World:
        """What is committed."""
        return self.transaction.world

    def draft(self) -> Draft:
        """Begin to plan a statement."""
        return Draft(self.transaction)

    def accept(self, draft: Draft) -> None:
        """Note that a planned statement was executed."""
        self.changes += self.transaction.accept(draft, self.context)
        self.tables |= {table for table, _key in draft.overlay}

    def choose(self, items: Iterable[T]) -> T:
        """Choose one of several."""
        return self.random.choice(list(items))

    def some(self, items: Iterable[T], most: int = 3, least: int = 1) -> list[T]:
        """Choose a few of several, in their order."""
        pool = list(items)
        count = self.random.randint(min(least, len(pool)), min(most, len(pool)))
        return [pool[place] for place in sorted(self.random.sample(range(len(pool)), count))]

    def maybe(self) -> bool:
        """Choose yes or no."""
        return self.random.random() < 0.5

    def value(self, column: sa.Column[Any]) -> Any:
        """Choose a value for a column."""
        return value_of(column, self.random)

    def free(self, draft: Draft, table: sa.Table) -> dict[Key, Row]:
        """Give the rows of a table that no other open transaction has written."""
        rows = draft.rows(table)
        return {key: rows[key] for key in sorted(rows) if (ROOTS[table], key) not in self.taken}

    def new_keys(self, draft: Draft, table: sa.Table, most: int) -> list[Row]:
        """Choose keys that are not there, as values by column key."""
        numbers = range(self.base + 1, self.base + SMALL + 1)
        if table is table_of(Card):
            all_keys: list[Row] = [{"deck": deck, "name": name} for deck in numbers[:3] for name in ("a", "o'b", "é c")]
        else:
            all_keys = [{"id": number} for number in numbers]
        rows = draft.rows(table)
        there = {*rows, *(key for written, key in draft.overlay if written is table)}
        there |= {key for root, key in self.taken if root is ROOTS[table]}
        unused = [key for key in all_keys if tuple(key.values()) not in there]
        return self.some(unused, most) if unused else []

    def values(self, columns: Iterable[sa.Column[Any]], most: int = 3, least: int = 1) -> Row:
        """Choose values for a few of the columns."""
        return {column.key: self.value(column) for column in self.some(columns, most, least)}

    def fill(self, table: sa.Table, names: Iterable[str]) -> Row:
        """Choose values for the columns of these keys."""
        return {name: self.value(table.c[name]) for name in names}

    def names(self, table: sa.Table, most: int = 4) -> list[str]:
        """Choose which columns to fill."""
        return [column.key for column in self.some(settable(table), most, 0)]


def made_by_database(table: sa.Table) -> bool:
    """Tell whether the database makes the table's keys."""
    return table in MADE_KEYS


def within(
    table: sa.Table, base: int, floors: dict[sa.Table, int], history: sa.Table | None = None
) -> sa.ColumnElement[bool]:
    """Give the criterion for the rows of one example in a table, or in its history table."""
    source = table if history is None else history
    if table in floors:
        return source.c.id > floors[table]
    key = source.c[next(iter(table.columns)).key]
    return key.between(base, base + SPAN - 1)
