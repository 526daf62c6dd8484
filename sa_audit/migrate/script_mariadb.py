"""MariaDB: migrations in compound statements, the catalog read from ``information_schema``.

DDL is not transactional here, so what can refuse stands first.  Imports of ddl the text helpers only.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.backend import MESSAGE
from ..ddl.mysql_capture_text import ENTRY, LIST, entry_object, list_object, recorded_table
from ..model.history import AuditedTable, Trail
from ..model.names import short_name
from .script import Key, Place, Script, bare_object


class MariaDBScript(Script):
    """Migrations on MariaDB."""

    index_names_are_per_table: ClassVar[bool] = True

    # -- the catalog -----------------------------------------------------------------

    def live(self, connection: Connection, schemas: Iterable[str | None]) -> list[TrailObject]:
        """Read sequences, the epochs, the routines of trigger capture and triggers."""
        schemas = list(schemas)
        names = [schema or self.default_schema for schema in schemas]
        inspector = sa.inspect(connection)
        epochs = [
            bare_object("table", schema, "audit_epoch")
            for schema in schemas
            if inspector.has_table("audit_epoch", schema=schema)
        ]
        triggers = [self._trigger(row) for row in connection.execute(_TRIGGERS, {"schemas": names})]
        found = connection.execute(_ROUTINES, {"schemas": names, "names": [ENTRY, LIST]})
        routines = [self._routine(row) for row in found]
        return [*self.live_sequences(connection, schemas), *epochs, *routines, *triggers]

    def _routine(self, row: sa.Row[tuple[object, ...]]) -> TrailObject:
        schema = self.known(row.schema_name)
        name = f"{self.quote(schema)}.{row.name}" if schema else row.name
        return (entry_object if row.name == ENTRY else list_object)(schema, name, row.body.strip())

    def capturing(self, live: Mapping[Key, TrailObject], places: Container[Place]) -> dict[Key, TrailObject]:
        """Take the triggers with our mark that record these tables, and those that stand in for their foreign keys."""
        found = {}
        for key, entry in live.items():
            schema, table = key[1], recorded_table(entry.definition, entry.table)
            if entry.kind == "trigger" and table is not None and (schema, table) in places:
                found[key] = entry
        return found

    def lifted(self, objects: Sequence[TrailObject], closing: Sequence[TrailObject]) -> list[str]:
        """Let a trigger of the same name refuse writes meanwhile: no transaction holds DDL together here."""
        kept = {entry.place for entry in closing}
        return [
            text for entry in reversed(objects) for text in ([_closed(entry)] if entry.place in kept else entry.drop)
        ]

    def set_again(self, objects: Sequence[TrailObject], closing: Sequence[TrailObject]) -> list[str]:
        """Replace what refuses writes at one stroke."""
        kept = {entry.place for entry in closing}
        return [
            text.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1) if entry.place in kept else text
            for entry in objects
            for text in entry.create
        ]

    def _trigger(self, row: sa.Row[tuple[object, ...]]) -> TrailObject:
        schema = self.known(row.schema_name)
        prefix = f"{self.quote(schema)}." if schema else ""
        quoted = f"{prefix}{self.quote(row.name)}"
        return TrailObject(
            kind="trigger",
            schema=schema,
            table=row.table_name,
            name=row.name,
            create=(
                f"CREATE TRIGGER {quoted} {row.timing} {row.event} ON {prefix}{self.quote(row.table_name)} "
                f"FOR EACH ROW\n{row.body.strip()}",
            ),
            drop=(f"DROP TRIGGER IF EXISTS {quoted}",),
            definition=f"{row.timing} {row.event} {row.body.strip()}",
        )

    def trail_tables(self, connection: Connection, schemas: Iterable[str | None]) -> set[Place]:
        """Ask for the comment by which the tables are marked."""
        names = [schema or self.default_schema for schema in schemas]
        return {(self.known(row.schema_name), row.name) for row in connection.execute(_MARKED, {"schemas": names})}

    # -- steps -----------------------------------------------------------------------

    def refuse(
        self, histories: Sequence[sa.Table], entries: sa.Table | None, blocks: sa.Table | None = None
    ) -> list[str]:
        """Signal in a compound statement."""
        tests = [
            (history.fullname, f"EXISTS (SELECT 1 FROM {self.name_of(history)}{self.recorded(history)})")
            for history in histories
        ]
        if entries is not None:
            condition = "reason IS NULL OR reason NOT LIKE 'sa_audit: baseline%'"
            tests.append((entries.fullname, f"EXISTS (SELECT 1 FROM {self.name_of(entries)} WHERE {condition})"))
        if blocks is not None:
            tests.append((blocks.fullname, f"EXISTS (SELECT 1 FROM {self.name_of(blocks)})"))
        signals = "\n".join(
            f"    IF {condition} THEN\n        SIGNAL SQLSTATE '45000'\n            SET MESSAGE_TEXT = "
            f"{self.literal(_said(name))};\n    END IF;"
            for name, condition in tests
        )
        return [f"BEGIN NOT ATOMIC\n{signals}\nEND"]

    def baseline(self, tables: Sequence[AuditedTable], reason: str) -> list[str]:
        """Write the entry, and then the rows of each table, which are read under shared locks."""
        trail = tables[0].trail
        entries = self.name_of(trail.transaction)
        exists = "\n    OR ".join(f"EXISTS (SELECT 1 FROM {self.name_of(audited.table)})" for audited in tables)
        entry = f"INSERT INTO {entries} (reason)\nSELECT {self.literal(reason)} FROM DUAL\nWHERE {exists}"
        return [entry, *(self._rows(audited, entries) for audited in tables)]

    def noted(self, trail: Trail, action: str, reason: str, data: str) -> list[str]:
        """Write the entry, and then the event."""
        entries = self.name_of(trail.transaction)
        return [
            f"INSERT INTO {entries} (reason)\nSELECT {self.literal(reason)} FROM DUAL\n"
            f"WHERE EXISTS (SELECT 1 FROM {entries})",
            self._noted(trail, action, reason, data),
        ]

    def _rows(self, audited: AuditedTable, entries: str) -> str:
        return (
            f"INSERT INTO {self.name_of(audited.history)} (\n{self.copied(audited)}\n)\n"
            f"SELECT\n{self.copies(audited, 't')}\nFROM {self.name_of(audited.table)} AS t\n"
            f"JOIN {entries} AS entry ON entry.id = LAST_INSERT_ID()\nLOCK IN SHARE MODE"
        )

    def closed(self, table: sa.Table, trail: Trail) -> TrailObject:
        """Refuse INSERT by a trigger."""
        name = short_name(f"{table.name}_guard_closed")
        prefix = f"{self.quote(table.schema)}." if table.schema else ""
        message = self.literal(f"{MESSAGE}: INSERT on {table.name} refused"[:128])
        return TrailObject(
            kind="trigger",
            schema=table.schema,
            table=table.name,
            name=name,
            create=(
                f"CREATE TRIGGER {prefix}{self.quote(name)} BEFORE INSERT ON {self.name_of(table)} FOR EACH ROW\n"
                f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {message}",
            ),
            drop=(f"DROP TRIGGER IF EXISTS {prefix}{self.quote(name)}",),
            definition="",
        )


def _said(name: str) -> str:
    return (f"sa_audit: {name} holds recorded history and is not dropped; -x sa_audit.downgrade=archive keeps it")[:128]


def _closed(entry: TrailObject) -> str:
    """Give the trigger that refuses what another of its name records."""
    head = entry.create[0].partition("\n")[0].replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1)
    return f"{head}\nSIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: a migration of this table is under way'"


_ROUTINES = sa.text(
    "SELECT ROUTINE_SCHEMA AS schema_name, ROUTINE_NAME AS name, ROUTINE_DEFINITION AS body"
    " FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA IN :schemas AND ROUTINE_NAME IN :names"
).bindparams(sa.bindparam("schemas", expanding=True), sa.bindparam("names", expanding=True))

_TRIGGERS = sa.text(
    "SELECT TRIGGER_SCHEMA AS schema_name, EVENT_OBJECT_TABLE AS table_name, TRIGGER_NAME AS name,"
    " ACTION_TIMING AS timing, EVENT_MANIPULATION AS event, ACTION_STATEMENT AS body"
    " FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN :schemas"
).bindparams(sa.bindparam("schemas", expanding=True))

_MARKED = sa.text(
    "SELECT TABLE_SCHEMA AS schema_name, TABLE_NAME AS name FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA IN :schemas AND TABLE_TYPE = 'BASE TABLE' AND left(TABLE_COMMENT, 9) = 'sa_audit:'"
).bindparams(sa.bindparam("schemas", expanding=True))
