"""The steps of a migration that concern the trail, each with its reverse and its line in ``alembic check``.

A :class:`TrailOperation` says its steps in terms of Alembic's own operations; performing runs them and rendering
prints them, so that a migration holds core calls only.  Imports model, ddl, errors, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations, ops

from ..ddl import TrailObject
from ..ddl.objects import spoken
from ..model.history import AuditedTable, Trail
from ..model.names import short_name
from .script import Note, Script
from .text import escaped, section

DOWNGRADE = "sa_audit.downgrade"


@dataclass(frozen=True, slots=True)
class Remark:
    """Comment lines of a migration."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps of a downgrade, and those with ``alembic -x sa_audit.downgrade=archive``."""

    otherwise: tuple[Step, ...]
    archive: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class IfMissing:
    """A column to add where the database has no ``ADD COLUMN IF NOT EXISTS``."""

    table: sa.Table
    column: str
    step: ops.MigrateOperation


Step = ops.MigrateOperation | Remark | Choice | IfMissing


class ExecuteText(ops.ExecuteSQLOp):
    """One SQL statement, printed so that it can be read."""

    def __init__(self, sql: str) -> None:
        super().__init__(escaped(spoken(sql)))

    def reverse(self) -> ops.MigrateOperation:
        """Give nothing: what is undone is undone by the operation that this is a step of."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say what is run."""
        return ("sa_audit", "execute", self.sqltext)


class RenameTable(ops.RenameTableOp):
    """A table's new name, with both directions."""

    def reverse(self) -> RenameTable:
        """Give the way back."""
        return RenameTable(self.new_table_name, self.table_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say which table gets which name."""
        return ("sa_audit", "rename_table", self.schema, self.table_name, self.new_table_name)


class RenameColumn(ops.AlterColumnOp):
    """A column's new name, with both directions."""

    def __init__(self, table: str, former: str, name: str, *, schema: str | None, column: sa.Column[Any]) -> None:
        default = column.server_default
        super().__init__(
            table,
            former,
            schema=schema,
            existing_type=column.type,
            existing_nullable=column.nullable,
            existing_server_default=default if isinstance(default, sa.DefaultClause) else False,
            existing_comment=column.comment,
            modify_name=name,
        )
        self.column = column

    def has_changes(self) -> bool:
        """Tell that it changes something."""
        return True

    def reverse(self) -> RenameColumn:
        """Give the way back."""
        name = self.modify_name or self.column_name
        return RenameColumn(self.table_name, name, self.column_name, schema=self.schema, column=self.column)

    def to_diff_tuple(self) -> Any:
        """Say which column gets which name."""
        return [("sa_audit", "rename_column", self.schema, self.table_name, self.column_name, self.modify_name)]


class TrailOperation(ops.MigrateOperation):
    """The root of what the library adds to a migration."""

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Give what it does.

        Args:
            revision: the identifier of the migration, where it is known.
        """
        raise NotImplementedError

    def reverse(self) -> ops.MigrateOperation:
        """Give what undoes it; as a rule nothing, since nothing that is recorded is taken back."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say what it does, for ``alembic check``."""
        raise NotImplementedError


class Nothing(TrailOperation):
    """The reverse of what stays."""

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Give nothing."""
        return iter(())

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say so."""
        return ("sa_audit", "nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A table of the trail that a migration creates.

    Args:
        title: what its section is called.
        table: its plain form.
        indexes: name and columns of each index.
        objects: what stands on it.
        source: the audited table, for a history.
    """

    title: str
    table: sa.Table
    indexes: tuple[tuple[str, tuple[str, ...]], ...]
    objects: tuple[TrailObject, ...]
    source: sa.Table | None = None


class CreateSchema(TrailOperation):
    """The trail's own schema.  It stays on downgrade, since it may hold what was put aside."""

    def __init__(self, script: Script, schema: str) -> None:
        self.script = script
        self.schema = schema

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create it."""
        yield Remark((section("the schema of the trail"),))
        yield ExecuteText(self.script.create_schema(self.schema))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the schema."""
        return ("sa_audit", "create_schema", self.schema)


class CreateObjects(TrailOperation):
    """Trail objects that are missing."""

    def __init__(self, title: str, objects: Sequence[TrailObject]) -> None:
        self.title = title
        self.objects = tuple(objects)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create each."""
        yield Remark((section(self.title),))
        for entry in self.objects:
            yield from map(ExecuteText, entry.create)

    def reverse(self) -> ops.MigrateOperation:
        """Drop them; a guard that was missing stays, since nothing may be unguarded by going back."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "create", *(entry.label for entry in self.objects))


class ReplaceObject(TrailOperation):
    """A trail object that is not what it should be; the former text comes back on downgrade."""

    def __init__(self, former: TrailObject, now: TrailObject) -> None:
        self.former = former
        self.now = now

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Drop what is there, and create what should be; a function is replaced, since triggers depend on it."""
        yield Remark((section(f"{self.now.kind} {self.now.label} again"),))
        if self.now.kind != "function":
            yield from map(ExecuteText, self.former.drop)
        yield from map(ExecuteText, self.now.create)

    def reverse(self) -> ReplaceObject:
        """Give the way back to the text that was read from the database."""
        return ReplaceObject(self.now, self.former)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the object, and what it was and is to be."""
        return ("sa_audit", "replace", self.now.label, self.former.definition, self.now.definition)


class DropObjects(TrailOperation):
    """Trail objects of an earlier state; they come back on downgrade."""

    def __init__(self, title: str, objects: Sequence[TrailObject]) -> None:
        self.title = title
        self.objects = tuple(objects)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Drop each."""
        yield Remark((section(self.title),))
        for entry in self.objects:
            yield from map(ExecuteText, entry.drop)

    def reverse(self) -> ops.MigrateOperation:
        """Create them as they were."""
        return CreateObjects(self.title, self.objects)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "drop", *(entry.label for entry in self.objects))


class CreateTrail(TrailOperation):
    """Tables of the trail with their indexes and guards, and what they need."""

    def __init__(self, script: Script, trail: Trail, objects: Sequence[TrailObject], parts: Sequence[Part]) -> None:
        self.script = script
        self.trail = trail
        self.objects = tuple(objects)
        self.parts = tuple(parts)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create everything."""
        if self.objects:
            yield Remark((section("what the trail's tables need"),))
            for entry in self.objects:
                yield from map(ExecuteText, entry.create)
        for part in self.parts:
            yield Remark((section(part.title),))
            yield ops.CreateTableOp.from_table(part.table)
            for name, columns in part.indexes:
                yield ops.CreateIndexOp(name, part.table.name, list(columns), schema=part.table.schema, unique=False)
            for entry in part.objects:
                yield from map(ExecuteText, entry.create)

    def reverse(self) -> DropTrail:
        """Give the downgrade, which drops no recorded history."""
        return DropTrail(self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "create_trail", *(part.table.fullname for part in self.parts))


class DropTrail(TrailOperation):
    """The downgrade of :class:`CreateTrail`: drops what holds no recorded row, or puts everything aside."""

    def __init__(self, created: CreateTrail) -> None:
        self.created = created

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Refuse first, unless everything is to be put aside."""
        yield Remark(
            (
                section("the trail"),
                "# It is dropped only while it holds nothing but baselines.  To keep recorded history under other",
                f"# names instead, closed to changes: alembic -x {DOWNGRADE}=archive downgrade ...",
            )
        )
        yield Choice(tuple(self._drop()), tuple(self._archive(revision or "archived")))

    def _drop(self) -> Iterator[Step]:
        script, parts = self.created.script, self.created.parts
        histories = [part for part in parts if part.source is not None]
        entries = next((part.table for part in parts if part.table.name == self.created.trail.transaction.name), None)
        yield from map(ExecuteText, script.lock([part.source for part in histories if part.source is not None]))
        yield from map(ExecuteText, script.refuse([part.table for part in histories], entries))
        for part in reversed(parts):
            yield ops.DropTableOp(part.table.name, schema=part.table.schema)
        for entry in reversed(self.created.objects):
            yield from map(ExecuteText, entry.drop)

    def _archive(self, revision: str) -> Iterator[Step]:
        for part in reversed(self.created.parts):
            yield from put_aside(self.created.script, self.created.trail, part, revision)

    def reverse(self) -> CreateTrail:
        """Give what it undoes."""
        return self.created

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "drop_trail", *(part.table.fullname for part in self.created.parts))


def put_aside(script: Script, trail: Trail, part: Part, revision: str) -> Iterator[Step]:
    """Give the steps that keep a table of the trail under another name, closed to further rows.

    Its indexes and its key are renamed too where their names would be in the way of new ones.
    """
    table = under_name(part.table, short_name(f"{part.table.name}_{revision}"))
    drops, creates = script.put_aside(part.objects, table, trail)
    for entry in drops:
        yield from map(ExecuteText, entry.drop)
    yield RenameTable(part.table.name, table.name, schema=table.schema)
    yield from renamed_names(
        script, table, [(name, short_name(f"{name}_{revision}"), columns) for name, columns in part.indexes]
    )
    key = part.table.primary_key.name
    text = script.rename_key(table, str(key), short_name(f"{key}_{revision}")) if isinstance(key, str) else None
    yield from map(ExecuteText, [text] if text else [])
    for entry in creates:
        yield from map(ExecuteText, entry.create)


def renamed_names(
    script: Script, table: sa.Table, indexes: Iterable[tuple[str, str, tuple[str, ...]]]
) -> Iterator[Step]:
    """Give the steps that rename indexes: by a statement, or where there is none, by making them anew."""
    for former, name, columns in indexes:
        if script.index_names_are_per_table or former == name:
            continue
        text = script.rename_index(table, former, name)
        if text is not None:
            yield ExecuteText(text)
            continue
        yield ops.DropIndexOp(former, table.name, schema=table.schema)
        yield ops.CreateIndexOp(name, table.name, list(columns), schema=table.schema, unique=False)


def under_name(table: sa.Table, name: str) -> sa.Table:
    """Give a table of the trail with the same key under another name."""
    key = [column.name for column in table.primary_key.columns]
    columns = [sa.Column(column, sa.BigInteger()) for column in key]
    return sa.Table(name, sa.MetaData(), *columns, sa.PrimaryKeyConstraint(*key), schema=table.schema)


class Baseline(TrailOperation):
    """The rows that stand in audited tables, recorded as found and not as made."""

    def __init__(self, script: Script, tables: Sequence[AuditedTable]) -> None:
        self.script = script
        self.tables = tuple(tables)

    @property
    def names(self) -> list[str]:
        """The audited tables' full names."""
        return [audited.table.fullname for audited in self.tables]

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Copy the rows."""
        yield Remark((section("baseline, the rows that stand in the tables now"),))
        reason = "sa_audit: baseline" + (f", revision {revision}" if revision else "")
        yield from map(ExecuteText, self.script.baseline(self.tables, reason))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "baseline", *self.names)


class NoteColumns(TrailOperation):
    """The account of the columns that the history has from this revision on."""

    def __init__(self, script: Script, trail: Trail, notes: Sequence[Note]) -> None:
        self.script = script
        self.trail = trail
        self.notes = tuple(notes)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Write the notes."""
        yield Remark((section("which columns are recorded from now on"),))
        yield from map(ExecuteText, self.script.notes(self.trail, self.notes, revision))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the columns."""
        return ("sa_audit", "note", *(f"{note.table}.{note.name}" for note in self.notes))


class AddHistoryColumn(TrailOperation):
    """A further column of a history.  It stays on downgrade, since it may hold recorded values."""

    def __init__(self, script: Script, table: sa.Table, column: sa.Column[Any]) -> None:
        self.script = script
        self.table = table
        self.column = column

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Add it, unless an earlier upgrade has."""
        add = ops.AddColumnOp(self.table.name, self.column, schema=self.table.schema)
        if not self.script.adds_columns_if_missing:
            yield IfMissing(self.table, self.column.name, add)
            return
        add.if_not_exists = True
        yield add

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the column."""
        return ("sa_audit", "add_history_column", self.table.fullname, self.column.name, self.column.type)


class AddHistoryIndex(TrailOperation):
    """A further index of a history."""

    def __init__(self, table: sa.Table, name: str, columns: Sequence[str]) -> None:
        self.table = table
        self.name = name
        self.columns = tuple(columns)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create it, unless an earlier upgrade has."""
        yield ops.CreateIndexOp(
            self.name,
            self.table.name,
            list(self.columns),
            schema=self.table.schema,
            unique=False,
            if_not_exists=True,
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the index."""
        return ("sa_audit", "add_history_index", self.table.fullname, self.name)


def perform(operations: Operations, operation: TrailOperation) -> None:
    """Run the steps of an operation, as the file that is rendered from it would."""
    for step in operation.steps(None):
        _run(operations, step)


def _run(operations: Operations, step: Step) -> None:
    if isinstance(step, ops.MigrateOperation):
        operations.invoke(step)
    elif isinstance(step, Choice):
        for entry in step.archive if _archives(operations) else step.otherwise:
            _run(operations, entry)
    elif isinstance(step, IfMissing) and not _has_column(operations, step):
        operations.invoke(step.step)


def _archives(operations: Operations) -> bool:
    environment = operations.migration_context.environment_context
    given: Any = environment.get_x_argument(as_dictionary=True) if environment is not None else {}
    return bool(given.get(DOWNGRADE) == "archive")


def _has_column(operations: Operations, step: IfMissing) -> bool:
    if operations.migration_context.as_sql:
        return False
    inspector = sa.inspect(operations.get_bind())
    columns = inspector.get_columns(step.table.name, schema=step.table.schema)
    return step.column in {column["name"] for column in columns}
