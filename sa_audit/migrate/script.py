"""What a migration's SQL needs of a database: the text of each step, and the trail objects that stand there now.

One :class:`Script` for each database; nothing else in this package asks which database it is.
Imports model, ddl, errors and SQLAlchemy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..ddl import Backend, TrailObject, backend_for
from ..ddl.objects import Kind, dropped, spoken, statements
from ..model.history import AuditedTable, RecordedColumn, Trail
from ..model.log import PRUNE
from .plain import named_schema
from .text import wrapped

Place = tuple[str | None, str]
"""A table by schema and name, the schema None where it is the connection's default one."""

Key = tuple[str, str | None, str | None, str]
"""What tells a trail object from the others: kind, schema as in a place, table and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A row of ``audit_column``.

    Args:
        table: the audited table's full name.
        column_id: its column's number, or None to take the next free one.
        name: the column.
        type: its type as the database names it.
        event: ``create``, ``rename``, ``retype`` or ``drop``.
        former: the name under which the column has its number already, or None.
    """

    table: str
    column_id: int | None
    name: str
    type: str
    event: str
    former: str | None = None


class Script(ABC):
    """One database's SQL for migrations."""

    adds_columns_if_missing: ClassVar[bool] = True
    retypes: ClassVar[bool] = True
    index_names_are_per_table: ClassVar[bool] = False
    partitions: ClassVar[bool] = False
    """Whether histories can be kept by month."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.backend: Backend = backend_for(dialect)
        self.default_schema = dialect.default_schema_name

    # -- names -------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """Quote an identifier, for SQL that is escaped as a whole later."""
        return spoken(self.backend.quote(name))

    def name_of(self, table: sa.Table) -> str:
        """Give a table's qualified and quoted name."""
        return spoken(self.backend.table_name(table, {}))

    def literal(self, text: str | None) -> str:
        """Give a string as a SQL literal."""
        return "NULL" if text is None else spoken(self.backend.literal(text))

    def place(self, table: sa.Table) -> Place:
        """Give where a table stands, None for the default schema."""
        return self.known(table.schema), table.name

    def known(self, schema: str | None) -> str | None:
        """Give a schema's name, None for the default one."""
        return None if schema == self.default_schema else schema

    def key(self, entry: TrailObject) -> Key:
        """Give what tells an object from the others, read or expected."""
        return entry.kind, self.known(entry.schema), entry.table, entry.name

    # -- objects -------------------------------------------------------------------

    def objects_of(self, table: sa.Table, trail: Trail) -> list[TrailObject]:
        """Give the objects that should stand on a table of the trail."""
        return self.backend.guard_objects(table, trail, {}, self.default_schema)

    def shared_objects(self, trail: Trail) -> list[TrailObject]:
        """Give the objects that should stand beside the tables, in the order in which they are made."""
        sequence = self.sequence(trail)
        shared = self.backend.shared_objects(trail, {}, self.default_schema)
        capture = self.backend.capture_shared(trail, {}, self.default_schema) if trail.captures else []
        return [*([sequence] if sequence else []), *shared, *capture]

    def make_partitions(self, audited: AuditedTable) -> str | None:
        """Give the statement that makes and guards the partitions of a history; None where it has none."""
        return None

    def capture_of(self, audited: AuditedTable) -> list[TrailObject]:
        """Give the objects that should record a table by triggers, in the order in which they are made."""
        return self.backend.capture(audited, {}, self.default_schema)

    @abstractmethod
    def capturing(self, live: Mapping[Key, TrailObject], places: Container[Place]) -> dict[Key, TrailObject]:
        """Give those of the live objects that record tables by triggers, in the order in which they are made.

        Args:
            live: what stands in the database.
            places: the tables.
        """

    lifts: ClassVar[bool] = False
    """Whether a table can't be changed while triggers that record it stand on it."""

    def restates(self, entry: TrailObject) -> bool:
        """Tell whether an object can be replaced while others use it, and the table has columns that it has not."""
        return False

    def lifted(self, objects: Sequence[TrailObject], closing: Sequence[TrailObject]) -> list[str]:
        """Give the statements that take capture objects away, some only until they are set again."""
        return dropped(objects)

    def set_again(self, objects: Sequence[TrailObject], closing: Sequence[TrailObject]) -> list[str]:
        """Give the statements that make capture objects, some in place of what :meth:`lifted` left there."""
        return statements(objects)

    def sequence(self, trail: Trail) -> TrailObject | None:
        """Give the sequence of ``audit_id``, where there is one."""
        name = trail.sequence.name
        schema = trail.sequence.schema or named_schema(self.dialect)
        full = f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)
        return TrailObject(
            kind="sequence",
            schema=self.known(schema),
            name=name,
            create=(self.create_sequence(full),),
            drop=(self.drop_sequence(full),),
            definition="",
            shared=True,
        )

    def create_sequence(self, name: str) -> str:
        """Give the statement that makes the sequence of ``audit_id``, unless another trail has made it."""
        return f"CREATE SEQUENCE IF NOT EXISTS {name} START WITH 1"

    def drop_sequence(self, name: str) -> str:
        """Give the statement that drops it."""
        return f"DROP SEQUENCE IF EXISTS {name}"

    @abstractmethod
    def live(self, connection: Connection, schemas: Iterable[str | None]) -> list[TrailObject]:
        """Read the trail objects of some schemas from the catalog: their definitions, and text to make them again."""

    @abstractmethod
    def trail_tables(self, connection: Connection, schemas: Iterable[str | None]) -> set[Place]:
        """Give the tables of trails that stand in some schemas, also those that no model has any more."""

    def live_sequences(self, connection: Connection, schemas: Iterable[str | None]) -> list[TrailObject]:
        """Give the sequences of ``audit_id`` that stand in some schemas."""
        inspector = sa.inspect(connection)
        return [
            bare_object("sequence", self.known(schema), name)
            for schema in schemas
            for name in inspector.get_sequence_names(schema=schema)
            if name == "audit_id_seq"
        ]

    def put_aside(
        self, former: Sequence[TrailObject], table: sa.Table, trail: Trail
    ) -> tuple[Sequence[TrailObject], Sequence[TrailObject]]:
        """Give the objects to drop before a table is renamed to be kept, and those to create after it.

        Args:
            former: the objects that stand on it.
            table: the table under its new name, to which nothing is added any more.
            trail: its trail.
        """
        guards = [entry for entry in self.objects_of(table, trail) if not entry.name.endswith("_insert")]
        return former, [*guards, self.closed(table, trail)]

    def carried(
        self, former: Sequence[TrailObject], now: Sequence[TrailObject]
    ) -> tuple[Sequence[TrailObject], Sequence[TrailObject]]:
        """Give the objects to drop before a table is renamed to be used on, and those to create after it."""
        return former, now

    # -- steps ---------------------------------------------------------------------

    def create_schema(self, schema: str) -> str:
        """Give the statement that makes a schema for the trail."""
        return f"CREATE SCHEMA IF NOT EXISTS {self.quote(schema)}"

    def lock(self, tables: Sequence[sa.Table]) -> list[str]:
        """Give the statements that keep writers off audited tables until the transaction ends."""
        return []

    @abstractmethod
    def refuse(
        self, histories: Sequence[sa.Table], entries: sa.Table | None, blocks: sa.Table | None = None
    ) -> list[str]:
        """Give the statements that fail if any of the tables holds more than a baseline, or anything was sealed.

        Args:
            histories: history tables, and ``audit_prune``, which has to hold nothing at all.
            entries: ``audit_transaction``, if that is to go too.
            blocks: ``audit_block``, if that is to go too.
        """

    def recorded(self, table: sa.Table) -> str:
        """Give the WHERE, if there is one, that finds what of a table is recorded for good."""
        return "" if table.name == PRUNE else " WHERE audit_op <> 'B'"

    @abstractmethod
    def baseline(self, tables: Sequence[AuditedTable], reason: str) -> list[str]:
        """Give the statements that record the rows that stand in audited tables, under one entry.

        Args:
            tables: the audited tables, all of one trail.
            reason: what the entry says.
        """

    @abstractmethod
    def noted(self, trail: Trail, action: str, reason: str, data: str) -> list[str]:
        """Give the statements that write an event of the trail's own, if anything was ever recorded in it.

        Args:
            trail: the trail.
            action: the event's.
            reason: what its entry says.
            data: the event's, as JSON text.
        """

    def _noted(self, trail: Trail, action: str, reason: str, data: str) -> str:
        """Give the statement that writes the event under the newest entry with its reason."""
        entries = self.name_of(trail.transaction)
        return (
            f"INSERT INTO {self.name_of(trail.event)} (audit_tx, audit_at, action, data, durable)\n"
            f"SELECT entry.id, entry.recorded_at, {self.literal(action)}, {self.literal(data)}, 0\n"
            f"FROM {entries} AS entry\n"
            f"WHERE entry.reason = {self.literal(reason)} AND entry.id = (SELECT max(id) FROM {entries}"
            f" WHERE reason = {self.literal(reason)})"
        )

    def column_of_salt(self, column: sa.Column[Any]) -> sa.Column[Any]:
        """Give ``audit_salt`` as it can be added to a table that has rows."""
        return column

    def defaults_of_salt(self, table: sa.Table) -> list[str]:
        """Give the statements by which ``audit_salt`` gets its default after it was added, where it has none yet."""
        return []

    @abstractmethod
    def closed(self, table: sa.Table, trail: Trail) -> TrailObject:
        """Give the guard against any INSERT, for a table that was put aside."""

    def notes(self, trail: Trail, notes: Sequence[Note], revision: str | None) -> list[str]:
        """Give the statements that write into ``audit_column`` which columns the history has from now on."""
        known = [note for note in notes if note.column_id is not None]
        rest = [self._numbered(trail, note, revision) for note in notes if note.column_id is None]
        return [*([self._listed(trail, known, revision)] if known else []), *rest]

    def _listed(self, trail: Trail, notes: Sequence[Note], revision: str | None) -> str:
        rows = [
            f"    ({self.literal(note.table)}, {note.column_id}, {self.literal(note.name)}, {self.literal(note.type)}, "
            f"{self.literal(note.event)}, {self.literal(revision)})"
            for note in notes
        ]
        return (
            f"INSERT INTO {self.name_of(trail.column)}\n"
            "    (table_name, column_id, name, type, event, revision)\nVALUES\n" + ",\n".join(rows)
        )

    def _numbered(self, trail: Trail, note: Note, revision: str | None) -> str:
        table = self.name_of(trail.column)
        number, where = "coalesce(max(column_id), 0) + 1", ""
        if note.former is not None:
            number, where = "coalesce(max(column_id), 0)", f" AND name = {self.literal(note.former)}"
        return (
            f"INSERT INTO {table}\n    (table_name, column_id, name, type, event, revision)\n"
            f"SELECT {self.literal(note.table)}, {number}, {self.literal(note.name)},\n"
            f"    {self.literal(note.type)}, {self.literal(note.event)}, {self.literal(revision)}\n"
            f"FROM {table} WHERE table_name = {self.literal(note.table)}{where}"
        )

    def moved(self, trail: Trail, former: str, now: str) -> str:
        """Give the statement that carries the account of columns over to a table's new name."""
        table = self.name_of(trail.column)
        columns = "column_id, name, type, event, revision, recorded_at"
        return (
            f"INSERT INTO {table}\n    (table_name, {columns})\n"
            f"SELECT {self.literal(now)}, {columns}\nFROM {table} WHERE table_name = {self.literal(former)} ORDER BY id"
        )

    def rename_index(self, table: sa.Table, former: str, name: str) -> str | None:
        """Give the statement that renames an index, None where its name need not change."""
        return None

    def rename_key(self, table: sa.Table, former: str, name: str) -> str | None:
        """Give the statement that renames a primary key, None where it has no name of its own."""
        return None

    # -- parts of them -----------------------------------------------------------------

    def copied(self, audited: AuditedTable, indent: str = "    ") -> str:
        """Give the column list of a baseline's INSERT."""
        names = [self.quote(column.name) for column in audited.recorded]
        return wrapped(["audit_tx", "audit_at", "audit_op", "audit_flush", *names], indent)

    def copies(self, audited: AuditedTable, alias: str, indent: str = "    ") -> str:
        """Give the expressions of a baseline's SELECT."""
        values = [
            self._last_form(audited, column, alias) if column.formed else f"{alias}.{self.quote(column.name)}"
            for column in audited.recorded
        ]
        return wrapped(["entry.id", "entry.recorded_at", "'B'", "1", *values], indent)

    def _last_form(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        """Give what the history holds of a protected value already, since the database can't make it."""
        same = " AND ".join(f"h.{self.quote(key.name)} = {alias}.{self.quote(key.name)}" for key in audited.key)
        return (
            f"(SELECT h.{self.quote(column.name)} FROM {self.name_of(audited.history)} AS h "
            f"WHERE {same} ORDER BY h.audit_id DESC LIMIT 1)"
        )


def bare_object(kind: Kind, schema: str | None, name: str) -> TrailObject:
    """Give an object of which only its being there is known."""
    return TrailObject(kind=kind, schema=schema, name=name, create=(), drop=(), definition="", shared=True)


def script_for(dialect: Dialect) -> Script:
    """Give the script of a dialect.

    Raises:
        UnauditedWrite: for a database that the library does not know.
    """
    from .script_mariadb import MariaDBScript
    from .script_postgresql import PostgreSQLScript
    from .script_sqlite import SQLiteScript

    scripts: dict[str, type[Script]] = {
        "postgresql": PostgreSQLScript,
        "sqlite": SQLiteScript,
        "mariadb": MariaDBScript,
    }
    return scripts[backend_for(dialect).name](dialect)
