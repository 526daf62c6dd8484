"""One trail compared with the live database: the operations that make the database what the models say.

Alembic's own comparison leaves the trail's tables to this: it would set defaults and constraints in a history, and
drop what the models no longer have.  Imports operations, plain, script, model, ddl, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.engine.reflection import Inspector

from ..ddl import TrailObject
from ..model.history import RESERVED, AuditedTable, Trail
from .operations import (
    AddHistoryColumn,
    AddHistoryIndex,
    Baseline,
    CreateObjects,
    CreateSchema,
    CreateTrail,
    DropObjects,
    NoteColumns,
    Part,
    ReplaceObject,
)
from .plain import plain_column, plain_table
from .script import Note, Place, Script


class Live:
    """What stands in the database, read when it is asked for."""

    def __init__(self, script: Script, inspector: Inspector) -> None:
        self.script = script
        self.inspector = inspector
        self._schemas: set[str | None] | None = None
        self._tables: dict[str | None, set[str]] = {}

    def has_schema(self, schema: str | None) -> bool:
        """Tell whether there is a schema of that name; None is the default one."""
        if self._schemas is None:
            self._schemas = set(self.inspector.get_schema_names())
        return schema is None or schema in self._schemas

    def has_table(self, place: Place) -> bool:
        """Tell whether there is a table."""
        schema, name = place
        if schema not in self._tables:
            found = self.inspector.get_table_names(schema=schema) if self.has_schema(schema) else []
            self._tables[schema] = set(found)
        return name in self._tables[schema]

    def columns(self, place: Place) -> dict[str, Any]:
        """Give a table's columns by name, as the inspector has them."""
        schema, name = place
        return {column["name"]: column for column in self.inspector.get_columns(name, schema=schema)}

    def indexes(self, place: Place) -> set[tuple[str, ...]]:
        """Give the columns of each of a table's indexes."""
        schema, name = place
        return {
            tuple(column for column in index["column_names"] if column is not None)
            for index in self.inspector.get_indexes(name, schema=schema)
        }

    def objects(self, schemas: Iterable[str | None]) -> dict[Any, TrailObject]:
        """Give the trail objects of some schemas, by what tells them apart."""
        there = [schema for schema in schemas if self.has_schema(schema)]
        found = self.script.live(self.inspector.bind, there) if there else []  # type: ignore[arg-type] # a connection
        return {self.script.key(entry): entry for entry in found}


@dataclass(slots=True)
class Result:
    """The operations of one trail, in groups that are run in this order."""

    schemas: list[ops.MigrateOperation] = field(default_factory=list)
    changes: list[ops.MigrateOperation] = field(default_factory=list)
    created: list[ops.MigrateOperation] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    baselines: list[AuditedTable] = field(default_factory=list)


class Comparison:
    """The comparison of one trail.

    Args:
        script: the database's.
        live: what stands there.
        trail: the trail, complete.
        histories: the audited tables that belong to this migration environment.
        done: places of trail tables that another MetaData's trail has dealt with.
        compare_type: tells whether a live column's type differs from the model's.
    """

    def __init__(
        self,
        script: Script,
        live: Live,
        trail: Trail,
        histories: list[AuditedTable],
        done: set[Place],
        compare_type: Any,
    ) -> None:
        self.script = script
        self.live = live
        self.trail = trail
        self.histories = histories
        self.done = done
        self.compare_type = compare_type

    def operations(self) -> Iterator[ops.MigrateOperation]:
        """Give the operations, in order."""
        if not self.histories:
            return
        result = Result()
        tables = self._tables()
        missing = [table for table in tables if not self.live.has_table(self.script.place(table))]
        present = [table for table in tables if table not in missing]
        self._schemas(tables, result)
        self._objects(present, missing, result)
        for audited in self.histories:
            place = self.script.place(audited.history)
            if audited.history in missing:
                self._new_history(audited, result)
            elif audited.history in present:
                self._columns(audited, place, result)
                self._indexes(audited, place, result)
        yield from [*result.schemas, *result.changes, *result.created]
        if result.notes:
            yield NoteColumns(self.script, self.trail, result.notes)
        if result.baselines:
            yield Baseline(self.script, result.baselines)

    def _tables(self) -> list[sa.Table]:
        """Give the trail's tables that nobody has dealt with yet."""
        tables = []
        for table in [self.trail.transaction, self.trail.column, *(audited.history for audited in self.histories)]:
            place = self.script.place(table)
            if place not in self.done:
                self.done.add(place)
                tables.append(table)
        return tables

    # -- what is missing ---------------------------------------------------------------

    def _schemas(self, tables: list[sa.Table], result: Result) -> None:
        for schema in dict.fromkeys(self.script.known(table.schema) for table in tables):
            if schema is not None and not self.live.has_schema(schema):
                result.schemas.append(CreateSchema(self.script, schema))

    def _objects(self, present: list[sa.Table], missing: list[sa.Table], result: Result) -> None:
        schemas = {self.script.known(table.schema) for table in [*present, *missing, self.trail.transaction]}
        live = self.live.objects(schemas)
        shared = self.script.shared_objects(self.trail)
        guards = [entry for table in present for entry in self.script.objects_of(table, self.trail)]
        lacking = [entry for entry in shared if self.script.key(entry) not in live]
        if self.trail.transaction in missing or (lacking and missing):
            objects, lacking = lacking, []
        else:
            objects = []
        unguarded = [entry for entry in guards if self.script.key(entry) not in live]
        if lacking or unguarded:
            result.changes.append(CreateObjects("guards that are missing", [*lacking, *unguarded]))
        for entry in [*shared, *guards]:
            former = live.get(self.script.key(entry))
            if former is not None and former.definition != entry.definition:
                result.changes.append(ReplaceObject(former, entry))
        self._unexpected(present, guards, live, result)
        if missing:
            parts = [self._part(table) for table in missing]
            result.created.append(CreateTrail(self.script, self.trail, objects, parts))

    def _unexpected(
        self, present: list[sa.Table], guards: list[TrailObject], live: dict[Any, TrailObject], result: Result
    ) -> None:
        places = {self.script.place(table) for table in present}
        expected = {self.script.key(entry) for entry in guards}
        former = [
            entry
            for key, entry in live.items()
            if key not in expected and entry.kind == "trigger" and (key[1], entry.table) in places
        ]
        if former:
            result.changes.append(DropObjects("what an earlier version left", former))

    def _part(self, table: sa.Table) -> Part:
        source = next((audited.table for audited in self.histories if audited.history is table), None)
        title = "who changed audited data, when and why"
        if source is not None:
            title = f"history of {source.fullname}"
        elif table is self.trail.column:
            title = "since when each column is recorded"
        return Part(
            title=title,
            table=plain_table(table, self.script.dialect),
            indexes=tuple(indexes_of(table)),
            objects=tuple(self.script.objects_of(table, self.trail)),
            source=source,
        )

    # -- histories -----------------------------------------------------------------------

    def _new_history(self, audited: AuditedTable, result: Result) -> None:
        result.notes += [
            Note(
                table=audited.table.fullname,
                column_id=number,
                name=column.name,
                type=self._type(column.source),
                event="create",
            )
            for number, column in enumerate(audited.columns, 1)
        ]
        if self.live.has_table(self.script.place(audited.table)):
            result.baselines.append(audited)

    def _columns(self, audited: AuditedTable, place: Place, result: Result) -> None:
        """Add columns that the history lacks; rows need a baseline where a new column already holds values."""
        known = self.live.columns(place)
        source = self.script.place(audited.table)
        there = self.live.columns(source) if self.live.has_table(source) else {}
        for column in audited.recorded:
            if column.recorded is None or column.name in known or column.name in RESERVED:
                continue
            plain = plain_column(column.recorded, self.script.dialect)
            result.changes.append(AddHistoryColumn(self.script, audited.history, plain))
            result.notes.append(
                Note(
                    table=audited.table.fullname,
                    column_id=None,
                    name=column.name,
                    type=self._type(column.source),
                    event="create",
                )
            )
            holds = column.name in there or column.source.server_default is not None
            if holds and there and audited not in result.baselines:
                result.baselines.append(audited)

    def _indexes(self, audited: AuditedTable, place: Place, result: Result) -> None:
        known = self.live.indexes(place)
        for name, columns in indexes_of(audited.history):
            if columns not in known:
                result.changes.append(AddHistoryIndex(audited.history, name, columns))

    def _type(self, column: sa.Column[Any]) -> str:
        return str(column.type.compile(self.script.dialect))


def indexes_of(table: sa.Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give name and columns of each index of a trail table, in the order of the names."""
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield str(index.name), tuple(column.name for column in index.columns)
