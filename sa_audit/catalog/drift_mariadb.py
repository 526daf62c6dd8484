"""MariaDB's catalog, ``information_schema``.  Imports ddl, model and SQLAlchemy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.mysql_capture_text import entry_object
from ..model.history import Trail
from .level import Finding
from .live import CatalogReader, Live, LiveTable, Place


class MariaDBReader(CatalogReader):
    """The catalog of a MariaDB server."""

    def read(self, connection: Connection, tables: Mapping[Place, sa.Table], data: set[Place]) -> Live:
        """Read tables, columns and triggers."""
        live = Live()
        schemas = {"schemas": sorted({str(place[0]) for place in (*tables, *data)})}
        columns: dict[Place, set[str]] = {}
        for schema, table, name in connection.execute(_COLUMNS, schemas):
            columns.setdefault((schema, table), set()).add(name)
        for schema, name, type_, engine in connection.execute(_TABLES, schemas):
            form = "table" if type_ == "BASE TABLE" else type_.lower()
            live.tables[schema, name] = LiveTable(form, frozenset(columns.get((schema, name), ())))
            if (schema, name) in tables and form == "table" and engine != "InnoDB":
                live.findings.append(
                    Finding(
                        kind="engine",
                        place=f"{schema}.{name}",
                        message="rows of this engine survive the rollback of their change: use InnoDB",
                        expected="InnoDB",
                        got=engine,
                    )
                )
        for schema, table, name, timing, event, body in connection.execute(_TRIGGERS, schemas):
            live.objects["trigger", schema, table, name] = f"{timing} {event} {body.strip()}"
        for schema, name, body in connection.execute(_PROCEDURES, schemas):
            live.objects["procedure", schema, None, name] = entry_object(schema, name, body.strip()).definition
        return live

    def rights(self, connection: Connection, trail: Trail, tables: list[sa.Table]) -> list[Finding]:
        """Name the accounts whose rights reach the trail, as far as this account sees them."""
        schemas = {"schemas": sorted({str(self.schema(table.schema)) for table in tables})}
        found = [f"{row.grantee}: {row.held}" for row in connection.execute(_RIGHTS, schemas)]
        seen = "; ".join(found) if found else "none that this account can see"
        return [
            Finding(
                kind="rights",
                place=", ".join(schemas["schemas"]),
                message="a right on a database can't be taken away for one table, and DROP alone is enough to TRUNCATE "
                f"history, which no guard sees; accounts that could: {seen}",
                blocks=2,
                drift=False,
            )
        ]


_COLUMNS: Final = sa.text(
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN :schemas"
).bindparams(sa.bindparam("schemas", expanding=True))

_TABLES: Final = sa.text(
    "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA IN :schemas AND TABLE_TYPE <> 'SEQUENCE'"
).bindparams(sa.bindparam("schemas", expanding=True))

_TRIGGERS: Final = sa.text(
    "SELECT TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_STATEMENT"
    " FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN :schemas"
).bindparams(sa.bindparam("schemas", expanding=True))

_PROCEDURES: Final = sa.text(
    "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES"
    " WHERE ROUTINE_SCHEMA IN :schemas AND ROUTINE_TYPE = 'PROCEDURE' AND left(ROUTINE_NAME, 9) = 'sa_audit_'"
).bindparams(sa.bindparam("schemas", expanding=True))

_RIGHTS: Final = sa.text(
    "SELECT grantee, group_concat(DISTINCT privilege_type ORDER BY privilege_type SEPARATOR ', ') AS held FROM ("
    "SELECT GRANTEE AS grantee, PRIVILEGE_TYPE AS privilege_type FROM information_schema.USER_PRIVILEGES"
    " UNION ALL SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES WHERE TABLE_SCHEMA IN :schemas"
    " UNION ALL SELECT p.GRANTEE, p.PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES AS p"
    " JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)"
    " WHERE p.TABLE_SCHEMA IN :schemas AND left(t.TABLE_COMMENT, 9) = 'sa_audit:'"
    ") AS p WHERE privilege_type IN ('UPDATE', 'DELETE', 'DROP', 'ALTER', 'TRIGGER', 'SUPER')"
    " GROUP BY grantee ORDER BY grantee"
).bindparams(sa.bindparam("schemas", expanding=True))
