"""MariaDB's catalog, ``information_schema``.  Imports ddl, model and SQLAlchemy only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..ddl import TrailObject
from ..ddl.backend import SchemaMap
from ..ddl.mysql_capture_text import entry_object
from ..ddl.objects import spoken
from ..model.history import Trail
from .level import Finding
from .live import UNSEEN, CatalogReader, Live, LiveTable, ObjectKey, Place


class MariaDBReader(CatalogReader):
    """The catalog of a MariaDB server."""

    def read(self, connection: Connection, tables: Mapping[Place, sa.Table], data: set[Place]) -> Live:
        """Read tables, columns and triggers."""
        live = Live()
        schemas = {"schemas": sorted({str(place[0]) for place in (*tables, *data)})}
        columns: dict[Place, set[str]] = {}
        for schema, table, name, type_, collation in connection.execute(_COLUMNS, schemas):
            columns.setdefault((schema, table), set()).add(name)
            live.facts["column", schema, table, name] = f"{type_} collate {collation}" if collation else type_
        for schema, name, type_, engine in connection.execute(_TABLES, schemas):
            if type_ == "BASE TABLE" and engine is not None:
                live.facts["engine", schema, None, name] = engine
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
        for schema, table, name, timing, event, body, created, definer in connection.execute(_TRIGGERS, schemas):
            if body is None:
                live.hidden = True
            else:
                live.take(("trigger", schema, table, name), f"{timing} {event} {body.strip()}", str(created))
                live.facts["owner", schema, table, name] = definer
        for schema, name, body in connection.execute(_PROCEDURES, schemas):
            live.objects["procedure", schema, None, name] = entry_object(schema, name, body.strip()).definition
        return live

    def home(self) -> str | None:
        """Give the database's name."""
        return self.default_schema

    def guards(self, trail: Trail, tables: Iterable[sa.Table], schemas: SchemaMap) -> list[TrailObject]:
        """Add those of the epochs, which come with their table."""
        entries = super().guards(trail, tables, schemas)
        return [*entries, *(guard for entry in entries for guard in epoch_guards(entry))]

    def parts(self, connection: Connection, tables: Collection[Place]) -> set[Place]:
        """Look at the epochs as well, which are no table of the models."""
        return {(schema, EPOCHS) for schema, name in tables if name == "audit_transaction"}

    def further(self, connection: Connection, live: Live, tables: Mapping[Place, sa.Table]) -> dict[ObjectKey, str]:
        """Give columns, engines, and the definers of all triggers; say so if this account may not see triggers."""
        facts = {key: fact for key, fact in live.facts.items() if key[0] == "owner" or _table_of(key) in tables}
        if live.hidden or (not _has_triggers(live) and self._is_hidden(connection, tables)):
            facts[UNSEEN] = "the account has no TRIGGER right on the trail's tables"
        return facts

    def _is_hidden(self, connection: Connection, tables: Mapping[Place, sa.Table]) -> bool:
        """Ask for one of the guards by its name: the server says that it is not there, or that one may not see it."""
        schema = next((schema for schema, name in tables if name == "audit_transaction"), None)
        name = f"{self.backend.quote(str(schema))}.{self.backend.quote('audit_transaction_guard_update')}"
        try:
            connection.exec_driver_sql(f"SHOW CREATE TRIGGER {name}".replace("%", "%%"))
        except DBAPIError as error:
            return getattr(error.orig, "args", (None,))[0] != _NO_SUCH_TRIGGER
        return False

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


def _table_of(key: ObjectKey) -> Place:
    _what, schema, table, name = key
    return schema, name if table is None else table


def _has_triggers(live: Live) -> bool:
    return any(key[0] == "trigger" for key in live.objects)


def epoch_guards(entry: TrailObject) -> Iterator[TrailObject]:
    """Give the guards of the epochs out of the statements that make their table."""
    for text in entry.create if entry.kind == "table" else ():
        found = _EPOCH_GUARD.match(spoken(text))
        if found is not None:
            yield TrailObject(
                kind="trigger",
                schema=entry.schema,
                table=EPOCHS,
                name=found[1],
                create=(),
                drop=(),
                definition=f"BEFORE {found[2]} {found[3]}",
            )


EPOCHS: Final = "audit_epoch"
_EPOCH_GUARD: Final = re.compile(
    r"(?s)CREATE TRIGGER IF NOT EXISTS .*?`?(audit_epoch_guard_[a-z]+)`? BEFORE ([A-Z]+) ON .*? FOR EACH ROW\n(.*)"
)
_NO_SUCH_TRIGGER: Final = 1360


def _in_schemas(sql: str) -> sa.TextClause:
    return sa.text(sql).bindparams(sa.bindparam("schemas", expanding=True))


_COLUMNS: Final = _in_schemas(
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA IN :schemas"
)

_TABLES: Final = _in_schemas(
    "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA IN :schemas AND TABLE_TYPE <> 'SEQUENCE'"
)

_TRIGGERS: Final = _in_schemas(
    "SELECT TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_STATEMENT,"
    " CREATED, DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN :schemas"
)

_PROCEDURES: Final = _in_schemas(
    "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES"
    " WHERE ROUTINE_SCHEMA IN :schemas AND ROUTINE_TYPE = 'PROCEDURE'"
    " AND ROUTINE_DEFINITION IS NOT NULL AND left(ROUTINE_NAME, 9) = 'sa_audit_'"
)

_RIGHTS: Final = _in_schemas(
    "SELECT grantee, group_concat(DISTINCT privilege_type ORDER BY privilege_type SEPARATOR ', ') AS held FROM ("
    "SELECT GRANTEE AS grantee, PRIVILEGE_TYPE AS privilege_type FROM information_schema.USER_PRIVILEGES"
    " UNION ALL SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES WHERE TABLE_SCHEMA IN :schemas"
    " UNION ALL SELECT p.GRANTEE, p.PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES AS p"
    " JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)"
    " WHERE p.TABLE_SCHEMA IN :schemas AND left(t.TABLE_COMMENT, 9) = 'sa_audit:'"
    ") AS p WHERE privilege_type IN ('UPDATE', 'DELETE', 'DROP', 'ALTER', 'TRIGGER', 'SUPER')"
    " GROUP BY grantee ORDER BY grantee"
)
