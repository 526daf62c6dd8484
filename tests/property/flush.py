"""A flush under way: what the draft, the session and the objects have in common.

Each change is planned on the draft at the same time as it is made on the objects.  What an UPDATE will set is read off
the objects' pending attributes, since an object may be older than its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from tests.property.models import (
    ROOTS,
    Base,
    table_of,
)
from tests.property.oracle import Draft, Entity, Key, Row
from tests.property.steps import Step
from tests.property.values import settable


class Abandoned(Exception):
    """A step has failed as it had to; its transaction is to be rolled back."""


@dataclass
class Flush:
    """A flush under way.

    Attributes:
        step: the step.
        draft: what it will do.
        used: entities that it changes already; each is changed in one way only.
        later: plans that need keys which the flush will make.
        stale: whether it rests on a version that has passed, so that it has to fail.
    """

    step: Step
    draft: Draft
    used: set[Entity] = field(default_factory=set)
    later: list[Callable[[], None]] = field(default_factory=list)
    stale: bool = False

    def free(self, model: type[Base]) -> dict[Key, Row]:
        """Give the rows of a model that are there, and that nothing has hold of."""
        table = table_of(model)
        rows = self.step.free(self.draft, table)
        return {key: row for key, row in rows.items() if (ROOTS[table], key) not in self.used}

    def parents(self, model: type[Base]) -> list[int]:
        """Give the keys that a new reference to a model may name."""
        before = self.step.transaction.rows(table_of(model))
        return [key[0] for key in self.step.free(self.draft, table_of(model)) if key in before]

    def use(self, table: sa.Table, key: Key) -> None:
        """Note that the entity is changed by this flush."""
        self.used.add((ROOTS[table], key))

    def hold(self, rows: Iterable[tuple[sa.Table, Key]]) -> bool:
        """Note that these rows are changed as well; True, and nothing noted, if something has hold of one already."""
        entities = {(ROOTS[table], key) for table, key in rows}
        if entities & (self.used | self.step.taken):
            return True
        self.used |= entities
        return False

    def forget(self, mapper: Mapper[Any], key: Key) -> None:
        """Have the session forget the object that it may have under a key, which is to be another's."""
        known = self.step.session.identity_map.get(mapper.identity_key_from_primary_key(key))
        if known is not None:
            self.step.session.expunge(known)

    def finish(self) -> None:
        """Flush, and note what was planned."""
        self.step.session.flush()
        for plan in self.later:
            plan()
        self.step.accept(self.draft)

    def load(self, model: type[Base], key: Key) -> Any:
        """Give the object of a row, or None where the session can't see it."""
        session = self.step.session
        mapper = mapper_of_row(model, self.draft.rows(table_of(model))[key])
        known = session.identity_map.get(mapper.identity_key_from_primary_key(key))
        if known is not None and type(known) is not mapper.class_:
            session.expunge(known)
        found = session.get(model, key)
        self.step.loaded.append(found)
        return found


def mapper_of_row(model: type[Base], row: Row) -> Mapper[Any]:
    """Give the mapper of the class that a row says it is of."""
    mapper: Mapper[Any] = sa.inspect(model)
    return mapper.polymorphic_map[row["type"]] if "type" in row else mapper


def columns_of(mapper: Mapper[Any]) -> list[sa.Column[Any]]:
    """Give the columns of a class that can be set to anything."""
    mapped = {column for prop in mapper.column_attrs for column in prop.columns}
    tables = [table for table in mapper.tables if isinstance(table, sa.Table)]
    return [column for table in tables for column in settable(table) if column in mapped]


def attributes(mapper: Mapper[Any], columns: dict[sa.Column[Any], Any]) -> dict[str, Any]:
    """Give values by attribute names."""
    return {mapper.get_property_by_column(column).key: value for column, value in columns.items()}


def draw_columns(step: Step, mapper: Mapper[Any], most: int, least: int = 0) -> dict[sa.Column[Any], Any]:
    """Draw values for a few columns of a class."""
    return {column: step.value(column) for column in step.some(columns_of(mapper), most, least)}
