"""SQLite's catalog, ``sqlite_master``.  Imports ddl, model and SQLAlchemy only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from .level import Finding
from .live import CatalogReader, Live, LiveTable, ObjectKey, Place


class SQLiteReader(CatalogReader):
    """The catalog of a SQLite file."""

    def schema(self, name: str | None) -> str | None:
        """Give an attached database's name, None for the main one."""
        return name or None

    def read(self, connection: Connection, tables: Mapping[Place, sa.Table], data: set[Place]) -> Live:
        """Read tables, columns and triggers of each database that is attached."""
        live = Live()
        for schema in {place[0] for place in (*tables, *data)}:
            prefix = f"{self.backend.quote(schema)}." if schema else ""
            rows = connection.exec_driver_sql(
                "SELECT m.type, m.name, m.tbl_name, m.sql, (SELECT json_group_array(c.name) FROM "
                f"pragma_table_xinfo(m.name, {self.backend.literal(schema or 'main')}) AS c) AS columns "
                f"FROM {prefix}sqlite_master AS m WHERE m.type IN ('table', 'view', 'trigger')".replace("%", "%%")
            )
            for type_, name, table, sql, columns in rows:
                if type_ == "trigger":
                    body = re.sub(r"^CREATE\s+TRIGGER\s+.*?(?=BEFORE |AFTER |INSTEAD )", "", sql, flags=re.DOTALL)
                    live.take(("trigger", schema, table, name), body)
                else:
                    live.tables[schema, name] = LiveTable(type_, frozenset(json.loads(columns)))
        return live

    def further(self, connection: Connection, live: Live, tables: Mapping[Place, sa.Table]) -> dict[ObjectKey, str]:
        """Read each table's own text, which has its keys, and its columns."""
        facts: dict[ObjectKey, str] = {}
        for schema in {place[0] for place in tables}:
            prefix = f"{self.backend.quote(schema)}." if schema else ""
            rows = connection.exec_driver_sql(
                "SELECT m.name, m.sql, c.name, c.type FROM "
                f"{prefix}sqlite_master AS m JOIN pragma_table_xinfo(m.name, "
                f"{self.backend.literal(schema or 'main')}) AS c WHERE m.type IN ('table', 'view')".replace("%", "%%")
            )
            for name, sql, column, type_ in rows:
                if (schema, name) in tables:
                    facts["column", schema, name, column] = type_
                    facts["text", schema, None, name] = sql
        return facts

    def rights(self, connection: Connection, trail: Trail, tables: list[sa.Table]) -> list[Finding]:
        """Say that there are none."""
        return [
            Finding(
                kind="no-roles",
                place="SQLite",
                message="whoever can write the file can change everything in it: SQLite has no roles",
                blocks=2,
                drift=False,
            )
        ]
