"""SQLite: guards as triggers, and the state of a connection.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from .backend import KEY_LOST, KEY_MOVED, MESSAGE, OWN, Backend, SchemaMap, Target
from .objects import TrailObject, spoken
from .pruning import allowed, is_pruned, place_of

_NEWEST = (
    "SELECT coalesce(n.first_id, n.id) AS first, n.recorded_at FROM audit_transaction AS n ORDER BY n.id DESC LIMIT 1"
)
_UNFIT_ENTRY = (
    f"EXISTS (\n    SELECT 1 FROM ({_NEWEST}) AS last\n"
    "    WHERE NEW.recorded_at < last.recorded_at OR NEW.first_id <> last.first\n)",
    "an entry can only follow the newest one",
)
_UNFIT_ROW = (
    "NOT EXISTS (\n    SELECT 1 FROM audit_transaction AS e\n"
    "    WHERE e.id = NEW.audit_tx AND e.recorded_at = NEW.audit_at\n"
    f"    AND coalesce(e.first_id, e.id) = (SELECT last.first FROM ({_NEWEST}) AS last)\n)",
    "history row without its transaction",
)
"""What the guards of inserted rows refuse, and how they say it.

There is one writer, so a row can belong to the newest transaction only, and nothing is dated before it.
"""


class SQLiteGuards(Backend):
    """What keeps a trail on SQLite append-only."""

    # -- guards ------------------------------------------------------------------

    def guard_objects(
        self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None
    ) -> list[TrailObject]:
        """Give guards of UPDATE, DELETE and REPLACE, and what fits an inserted row to its transaction."""
        if table is trail.person_key:
            return self._key_guards(table, schemas)
        _prefix, bare = self._names(table, schemas)
        names = [self.quote(column.name) for column in table.primary_key.columns]
        same = " AND ".join(f"{name} = NEW.{name}" for name in names)
        said = table.name.replace("'", "''")
        refuse = {
            event: f"BEGIN\n    SELECT RAISE(ABORT, '{MESSAGE}: {event} on {said} refused');\nEND"
            for event in ("UPDATE", "DELETE", "REPLACE")
        }
        passing = f"\nWHEN NOT {allowed(self.literal(place_of(table, schemas)))}" if is_pruned(table) else ""
        bodies = {
            "guard_update": f"BEFORE UPDATE ON {bare}\n{refuse['UPDATE']}",
            "guard_delete": f"BEFORE DELETE ON {bare}{passing}\n{refuse['DELETE']}",
            "guard_replace": (
                f"BEFORE INSERT ON {bare}\nWHEN EXISTS (SELECT 1 FROM {bare} WHERE {same})\n{refuse['REPLACE']}"
            ),
        }
        unfit = _UNFIT_ENTRY if table is trail.transaction else _UNFIT_ROW if table not in trail.fixed else None
        if unfit is not None:
            condition, words = unfit
            bodies["guard_insert"] = (
                f"BEFORE INSERT ON {bare}\nWHEN {condition}\nBEGIN\n    SELECT RAISE(ABORT, 'sa_audit: {words}');\nEND"
            )
        return [self._guard(table, schemas, suffix, body) for suffix, body in bodies.items()]

    def _key_guards(self, table: sa.Table, schemas: SchemaMap) -> list[TrailObject]:
        """Let a key be wrapped anew, and destroyed once that is recorded; a second one of a person is left out."""
        _prefix, bare = self._names(table, schemas)
        bodies = {
            "guard_update": (
                f"BEFORE UPDATE ON {bare}\nWHEN NEW.name IS NOT OLD.name OR NEW.subject IS NOT OLD.subject\n"
                f"BEGIN\n    SELECT RAISE(ABORT, '{KEY_MOVED}');\nEND"
            ),
            "guard_delete": (
                f"BEFORE DELETE ON {bare}\nWHEN NOT EXISTS (\n    SELECT 1 FROM audit_key AS k "
                "WHERE k.name = OLD.name AND k.event = 'destroyed'\n)\n"
                f"BEGIN\n    SELECT RAISE(ABORT, '{KEY_LOST}');\nEND"
            ),
            "guard_replace": (
                f"BEFORE INSERT ON {bare}\n"
                f"WHEN EXISTS (SELECT 1 FROM {bare} WHERE name = NEW.name OR subject = NEW.subject)\n"
                "BEGIN\n    SELECT RAISE(IGNORE);\nEND"
            ),
        }
        return [self._guard(table, schemas, suffix, body) for suffix, body in bodies.items()]

    def _guard(self, table: sa.Table, schemas: SchemaMap, suffix: str, body: str) -> TrailObject:
        prefix, _bare = self._names(table, schemas)
        name = f"{table.name}_{suffix}"
        quoted = self.quote(name)
        return TrailObject(
            kind="trigger",
            schema=schemas.get(table.schema, table.schema),
            table=table.name,
            name=name,
            create=(f"CREATE TRIGGER {prefix}{quoted} {body}",),
            drop=(f"DROP TRIGGER IF EXISTS {prefix}{quoted}",),
            definition=spoken(body),
        )

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the four triggers."""
        prefix, _bare = self._names(table, schemas)
        suffixes = ("guard_update", "guard_delete", "guard_replace", "guard_insert")
        return [f"DROP TRIGGER IF EXISTS {prefix}{self.quote(f'{table.name}_{suffix}')}" for suffix in suffixes]

    def _names(self, table: sa.Table, schemas: SchemaMap) -> tuple[str, str]:
        schema = schemas.get(table.schema, table.schema)
        prefix = f"{self.quote(schema)}." if schema else ""
        return prefix, self.quote(table.name)

    # -- state ---------------------------------------------------------------------

    def in_autocommit(self, connection: Connection) -> bool:
        """Tell AUTOCOMMIT from a driver that begins by itself, or by the BEGIN recipe."""
        driver = connection.connection.driver_connection
        if getattr(driver, "in_transaction", False):
            return False
        if getattr(driver, "autocommit", None) is True:
            return True
        return driver is not None and driver.isolation_level is None

    def lock_writer(self, connection: Connection, target: Target) -> None:
        """Take the write lock, waiting as long as the connection's busy timeout says."""
        table = self.table_name(target.trail.transaction, target.schemas)
        driver = connection.connection.driver_connection
        cursor = connection.connection.cursor()
        try:
            if getattr(driver, "in_transaction", False):
                cursor.execute(f"DELETE FROM {table} WHERE 0")
            else:
                cursor.execute("BEGIN IMMEDIATE")
        finally:
            cursor.close()

    reads_while_others_write = False
    texts_source = "(SELECT value AS t FROM json_each(:texts)) AS v"

    def writes_alone(self, connection: Connection) -> bool:
        """A transaction that the driver has begun may hold the only write lock, or keep others from it."""
        return bool(getattr(connection.connection.driver_connection, "in_transaction", False))

    def stands_alone(self, connection: Connection) -> bool:
        """A database in memory belongs to its connection."""
        url = connection.engine.url
        return url.database in (None, "", ":memory:") or "mode=memory" in f"{url.database}{url.query}"

    def cascades(self, connection: Connection) -> bool:
        """Foreign keys act on SQLite only where the connection has switched them on."""
        options = OWN
        return bool(connection.exec_driver_sql("PRAGMA foreign_keys", execution_options=options).scalar())

    def conflict_clause(self, table: sa.Table) -> str | None:
        """Look for ON CONFLICT clauses of the table's constraints that neither raise nor roll everything back."""
        for entry in (*table.columns, *table.constraints):
            for name, value in entry.dialect_options["sqlite"].items():
                if name.startswith("on_conflict") and str(value).upper() in ("REPLACE", "IGNORE", "FAIL"):
                    return f"ON CONFLICT {str(value).upper()}"
        return None
