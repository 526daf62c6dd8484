"""SQLite: migrations whose refusal is a check constraint, the catalog read from ``sqlite_master``.

Imports of ddl the text helpers only.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.backend import MESSAGE
from ..ddl.sqlite_capture_text import CONTEXT
from ..model.history import AuditedTable, Trail
from .script import Key, Place, Script, bare_object

_HEAD: Final = re.compile(
    r"\s*CREATE\s+TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    r"(?:(?:\"(?:[^\"]|\"\")*\"|\[[^\]]*\]|`[^`]*`|[\w$]+)\s*\.\s*)?"
    r"(?:\"(?:[^\"]|\"\")*\"|\[[^\]]*\]|`[^`]*`|[\w$]+)\s+",
    re.IGNORECASE,
)


class SQLiteScript(Script):
    """Migrations on SQLite."""

    adds_columns_if_missing: ClassVar[bool] = False
    retypes: ClassVar[bool] = False

    def known(self, schema: str | None) -> str | None:
        """Give a schema's name, None for the main one."""
        return None if schema == "main" else schema

    def sequence(self, trail: Trail) -> TrailObject | None:
        """Give nothing: the rowid serves."""
        return None

    # -- the catalog -----------------------------------------------------------------

    def live(self, connection: Connection, schemas: Iterable[str | None]) -> list[TrailObject]:
        """Read the triggers, and whether there is a table in which writers say who they are."""
        found: list[TrailObject] = []
        for schema in schemas:
            parameters = {"schema": schema or "main", "name": CONTEXT}
            if connection.execute(sa.text(self.backend.table_exists), parameters).first() is not None:
                found.append(bare_object("table", schema, CONTEXT))
            found += self._triggers(connection, schema)
        return found

    lifts: ClassVar[bool] = True

    def capturing(self, live: Mapping[Key, TrailObject], places: Container[Place]) -> dict[Key, TrailObject]:
        """Take the triggers with our names on these tables."""
        return {
            key: entry
            for key, entry in live.items()
            if entry.kind == "trigger"
            and entry.name.startswith(f"{entry.table}_capture_")
            and CONTEXT in entry.definition
            and (key[1], key[2]) in places
        }

    def lifted(self, objects: Sequence[TrailObject], closing: Sequence[TrailObject]) -> list[str]:
        """Take the write lock first, so that nobody writes unrecorded until the transaction ends."""
        schemas = dict.fromkeys(entry.schema for entry in objects)
        locks = [f"DELETE FROM {f'{self.quote(schema)}.' if schema else ''}{CONTEXT} WHERE 0" for schema in schemas]
        return [*locks, *super().lifted(objects, closing)]

    def _triggers(self, connection: Connection, schema: str | None) -> list[TrailObject]:
        prefix = f"{self.quote(schema)}." if schema else ""
        statement = f"SELECT name, tbl_name, sql FROM {prefix}sqlite_master WHERE type = 'trigger'"
        return [
            TrailObject(
                kind="trigger",
                schema=schema,
                table=row.tbl_name,
                name=row.name,
                create=(row.sql,),
                drop=(f"DROP TRIGGER IF EXISTS {prefix}{self.quote(row.name)}",),
                definition=_HEAD.sub("", row.sql, count=1).strip(),
            )
            for row in connection.execute(sa.text(statement))
        ]

    def trail_tables(self, connection: Connection, schemas: Iterable[str | None]) -> set[Place]:
        """Look for the guards, since there are no comments here."""
        return {
            (self.known(schema), str(entry.table))
            for schema in schemas
            for entry in self._triggers(connection, schema)
            if entry.table and entry.name == f"{entry.table}_guard_update" and MESSAGE in entry.definition
        }

    # -- steps -----------------------------------------------------------------------

    def create_schema(self, schema: str) -> str:
        """Give a statement that fails with the reason: a schema is an attached file, which only the user can name."""
        return f"PRAGMA {self.quote(schema)}.schema_version"

    def refuse(
        self, histories: Sequence[sa.Table], entries: sa.Table | None, blocks: sa.Table | None = None
    ) -> list[str]:
        """Count into a temporary table whose check is named by what it says."""
        counts = [
            (history.fullname, f"SELECT count(*) FROM {self.name_of(history)}{self.recorded(history)}")
            for history in histories
        ]
        if entries is not None:
            condition = "reason IS NULL OR reason NOT LIKE 'sa_audit: baseline%'"
            counts.append((entries.fullname, f"SELECT count(*) FROM {self.name_of(entries)} WHERE {condition}"))
        if blocks is not None:
            counts.append((blocks.fullname, f"SELECT count(*) FROM {self.name_of(blocks)}"))
        checks = ",\n".join(
            f"    n{number} INTEGER CONSTRAINT {_check(name)}\n        CHECK (n{number} = 0)"
            for number, (name, _count) in enumerate(counts, 1)
        )
        values = ",\n".join(f"    ({count})" for _name, count in counts)
        return [
            "DROP TABLE IF EXISTS temp.sa_audit_recorded",
            f"CREATE TEMPORARY TABLE sa_audit_recorded (\n{checks}\n)",
            f"INSERT INTO sa_audit_recorded SELECT\n{values}",
            "DROP TABLE temp.sa_audit_recorded",
        ]

    def baseline(self, tables: Sequence[AuditedTable], reason: str) -> list[str]:
        """Write the entry, and then the rows of each table; there is no other writer."""
        trail = tables[0].trail
        entries = self.name_of(trail.transaction)
        exists = "\n    OR ".join(f"EXISTS (SELECT 1 FROM {self.name_of(audited.table)})" for audited in tables)
        entry = (
            f"INSERT INTO {entries} (recorded_at, reason)\nSELECT\n"
            "    max(strftime('%Y-%m-%d %H:%M:%f000', 'now'), "
            f"coalesce((SELECT max(recorded_at) FROM {entries}), '')),\n"
            f"    {self.literal(reason)}\nWHERE {exists}"
        )
        return [entry, *(self._rows(audited, entries) for audited in tables)]

    def noted(self, trail: Trail, action: str, reason: str, data: str) -> list[str]:
        """Write the entry, and then the event; there is no other writer."""
        entries = self.name_of(trail.transaction)
        return [
            f"INSERT INTO {entries} (recorded_at, reason)\nSELECT\n"
            "    max(strftime('%Y-%m-%d %H:%M:%f000', 'now'), "
            f"(SELECT max(recorded_at) FROM {entries})),\n"
            f"    {self.literal(reason)}\nWHERE EXISTS (SELECT 1 FROM {entries})",
            self._noted(trail, action, reason, data),
        ]

    def _rows(self, audited: AuditedTable, entries: str) -> str:
        return (
            f"INSERT INTO {self.name_of(audited.history)} (\n{self.copied(audited)}\n)\n"
            f"SELECT\n{self.copies(audited, 't')}\nFROM {self.name_of(audited.table)} AS t\n"
            f"JOIN {entries} AS entry ON entry.id = (SELECT max(id) FROM {entries})"
        )

    def column_of_salt(self, column: sa.Column[Any]) -> sa.Column[Any]:
        """Leave out the default and NOT NULL, with which SQLite adds no column to a table that has rows."""
        return sa.Column(column.name, sa.LargeBinary())

    def defaults_of_salt(self, table: sa.Table) -> list[str]:
        """Write the default into the table's text, which leaves its rows alone, and have all connections read it.

        It is one of the changes that SQLite's documentation of ALTER TABLE allows this way.
        """
        prefix = f"{self.quote(table.schema)}." if table.schema else ""
        return [
            "PRAGMA writable_schema = ON",
            f"UPDATE {prefix}sqlite_master\n"
            "SET sql = replace(sql, 'audit_salt BLOB', 'audit_salt BLOB DEFAULT (randomblob(16))')\n"
            f"WHERE type = 'table' AND name = {self.literal(table.name)} AND sql NOT LIKE '%randomblob(16)%'",
            "PRAGMA writable_schema = RESET",
            f"CREATE TABLE {prefix}sa_audit_salted (x INTEGER)",  # the schema's version tells other connections
            f"DROP TABLE {prefix}sa_audit_salted",
        ]

    def closed(self, table: sa.Table, trail: Trail) -> TrailObject:
        """Refuse INSERT by a trigger."""
        name = f"{table.name}_guard_closed"
        prefix = f"{self.quote(table.schema)}." if table.schema else ""
        message = self.literal(f"{MESSAGE}: INSERT on {table.name} refused")
        return TrailObject(
            kind="trigger",
            schema=table.schema,
            table=table.name,
            name=name,
            create=(
                f"CREATE TRIGGER {prefix}{self.quote(name)} BEFORE INSERT ON {self.quote(table.name)}\n"
                f"BEGIN\n    SELECT RAISE(ABORT, {message});\nEND",
            ),
            drop=(f"DROP TRIGGER IF EXISTS {prefix}{self.quote(name)}",),
            definition="",
        )


def _check(name: str) -> str:
    said = f"sa_audit: {name} holds recorded history and is not dropped; -x sa_audit.downgrade=archive keeps it"
    return '"' + said.replace('"', '""') + '"'
