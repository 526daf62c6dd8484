"""PostgreSQL: migrations in DO blocks and writable CTEs, the catalog read in two queries.  Imports of ddl the texts."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.postgresql_capture_text import CAPTURES
from ..ddl.postgresql_functions import catalog_definition, trigger_definition, trigger_function
from ..ddl.postgresql_partitions import NAME, PARTITIONED, partitions_definition
from ..model.history import AuditedTable, Trail
from .script import Key, Place, Script

HINT: Final = "To keep it under another name: alembic -x sa_audit.downgrade=archive downgrade ..."


class PostgreSQLScript(Script):
    """Migrations on PostgreSQL."""

    partitions: ClassVar[bool] = True

    def make_partitions(self, audited: AuditedTable) -> str | None:
        """Call the function of the trail's."""
        for entry in self.objects_of(audited.history, audited.trail):
            if entry.kind == "partitions":
                return entry.create[0]
        return None

    def name_of(self, table: sa.Table) -> str:
        """Give a table's name with its schema, also the default one, as the guards have it."""
        return f"{self.quote(table.schema or self.default_schema or 'public')}.{self.quote(table.name)}"

    def create_sequence(self, name: str) -> str:
        """Make the sequence as ``create_all()`` does, uncached."""
        return f"CREATE SEQUENCE IF NOT EXISTS {name} AS BIGINT START WITH 1"

    def drop_sequence(self, name: str) -> str:
        """Drop it, unless history that was put aside still draws on it."""
        return (
            f"DO $sa_audit$\nBEGIN\n    DROP SEQUENCE IF EXISTS {name};\nEXCEPTION\n"
            "    WHEN dependent_objects_still_exist THEN\n"
            "        NULL; -- another trail, or one that was put aside, has it for its default\nEND\n$sa_audit$"
        )

    # -- the catalog -----------------------------------------------------------------

    def live(self, connection: Connection, schemas: Iterable[str | None]) -> list[TrailObject]:
        """Read functions, triggers and sequences; ours are told by their names."""
        schemas = list(schemas)
        wanted = {schema or self.default_schema for schema in schemas}
        functions = [self._function(row) for row in connection.execute(_FUNCTIONS) if row.schema in wanted]
        triggers = [self._trigger(row) for row in connection.execute(_TRIGGERS) if row.schema in wanted]
        partitions = [
            TrailObject(
                kind="partitions",
                schema=row.schema,
                table=row.name,
                name=NAME,
                create=(),
                drop=(),
                definition=partitions_definition(has_default=row.has_default),
            )
            for row in connection.exec_driver_sql(PARTITIONED)
            if row.schema in wanted
        ]
        return [*self.live_sequences(connection, schemas), *functions, *triggers, *partitions]

    def _function(self, row: sa.Row[tuple[object, ...]]) -> TrailObject:
        name = f"{self.quote(row.schema)}.{self.quote(row.name)}({row.arguments})"
        security = "definer" if row.definer else "invoker"
        return TrailObject(
            kind="function",
            schema=row.schema,
            name=row.name,
            create=(
                row.text.rstrip().replace("$function$", "$sa_audit$"),
                *([f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC"] if row.definer else []),
            ),
            drop=(f"DROP FUNCTION IF EXISTS {name}",),
            definition=catalog_definition(row.body, security, list(row.settings or ())),
            shared=True,
        )

    def _trigger(self, row: sa.Row[tuple[object, ...]]) -> TrailObject:
        on = f"{self.quote(row.schema)}.{self.quote(row.table_name)}"
        name = self.quote(row.name)
        enable = {"A": "ENABLE ALWAYS", "D": "DISABLE", "R": "ENABLE REPLICA"}.get(row.enabled)
        function = f"{row.function_schema}.{row.function}"
        return TrailObject(
            kind="trigger",
            schema=row.schema,
            table=row.table_name,
            name=row.name,
            create=(row.text, *([f"ALTER TABLE {on} {enable} TRIGGER {name}"] if enable else [])),
            drop=(f"DROP TRIGGER IF EXISTS {name} ON {on}",),
            definition=trigger_definition(row.code, row.enabled, function, row.new_table),
        )

    def capturing(self, live: Mapping[Key, TrailObject], places: Container[Place]) -> dict[Key, TrailObject]:
        """Take the triggers with our names on these tables, and before them the functions that they call."""
        triggers = {
            key: entry
            for key, entry in live.items()
            if entry.kind == "trigger" and entry.name.startswith(CAPTURES) and (key[1], key[2]) in places
        }
        called = {trigger_function(entry.definition) for entry in triggers.values()}
        functions = {
            key: entry
            for key, entry in live.items()
            if entry.kind == "function" and f"{entry.schema}.{entry.name}" in called
        }
        return functions | triggers

    def restates(self, entry: TrailObject) -> bool:
        """Replace functions, whose bodies are only read when they run."""
        return entry.kind == "function"

    def put_aside(
        self, former: Sequence[TrailObject], table: sa.Table, trail: Trail
    ) -> tuple[Sequence[TrailObject], Sequence[TrailObject]]:
        """Leave the guards, which move along with their table and have no name of it in them."""
        return [entry for entry in former if entry.name == "sa_audit_insert"], [self.closed(table, trail)]

    def carried(
        self, former: Sequence[TrailObject], now: Sequence[TrailObject]
    ) -> tuple[Sequence[TrailObject], Sequence[TrailObject]]:
        """Leave all of them."""
        return (), ()

    def trail_tables(self, connection: Connection, schemas: Iterable[str | None]) -> set[Place]:
        """Ask for the comment by which the tables are marked."""
        wanted = {schema or self.default_schema for schema in schemas}
        return {(self.known(row.schema), row.name) for row in connection.execute(_MARKED) if row.schema in wanted}

    # -- steps -----------------------------------------------------------------------

    def lock(self, tables: Sequence[sa.Table]) -> list[str]:
        """Lock in SHARE ROW EXCLUSIVE mode, which readers don't notice."""
        names = ", ".join(self.name_of(table) for table in tables)
        return [f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"] if names else []

    def refuse(
        self, histories: Sequence[sa.Table], entries: sa.Table | None, blocks: sa.Table | None = None
    ) -> list[str]:
        """Raise in a DO block."""
        tests = [
            (history.fullname, f"EXISTS (SELECT FROM {self.name_of(history)}{self.recorded(history)})")
            for history in histories
        ]
        if entries is not None:
            tests.append(
                (
                    entries.fullname,
                    f"EXISTS (SELECT FROM {self.name_of(entries)} WHERE reason IS NULL OR reason NOT LIKE "
                    "'sa_audit: baseline%')",
                )
            )
        if blocks is not None:
            tests.append((blocks.fullname, f"EXISTS (SELECT FROM {self.name_of(blocks)})"))
        raises = "\n".join(
            f"    IF {condition} THEN\n"
            f"        RAISE EXCEPTION 'sa_audit: {_raised(name)} holds recorded history and is not dropped'\n"
            f"            USING HINT = '{HINT}';\n"
            "    END IF;"
            for name, condition in tests
        )
        return [f"DO $sa_audit$\nBEGIN\n{raises}\nEND\n$sa_audit$"]

    def baseline(self, tables: Sequence[AuditedTable], reason: str) -> list[str]:
        """Write the entry and all rows in one statement; the rows are locked FOR SHARE, so that none is stale."""
        trail = tables[0].trail
        exists = "\n        OR ".join(f"EXISTS (SELECT FROM {self.name_of(audited.table)})" for audited in tables)
        entry = (
            f"WITH entry AS (\n    INSERT INTO {self.name_of(trail.transaction)} (reason)\n"
            f"    SELECT {self.literal(reason)}\n    WHERE {exists}\n    RETURNING id, recorded_at\n)"
        )
        parts = [
            f", rows_{number} AS (\n{self._rows(audited, '    ')}\n)" for number, audited in enumerate(tables[:-1], 1)
        ]
        return [f"{entry}{''.join(parts)}\n{self._rows(tables[-1], '')}"]

    def noted(self, trail: Trail, action: str, reason: str, data: str) -> list[str]:
        """Write both in one statement."""
        entries = self.name_of(trail.transaction)
        return [
            f"WITH entry AS (\n    INSERT INTO {entries} (reason)\n    SELECT {self.literal(reason)}\n"
            f"    WHERE EXISTS (SELECT FROM {entries})\n    RETURNING id, recorded_at\n)\n"
            f"INSERT INTO {self.name_of(trail.event)} (audit_tx, audit_at, action, data, durable)\n"
            f"SELECT entry.id, entry.recorded_at, {self.literal(action)}, CAST({self.literal(data)} AS json), 0\n"
            "FROM entry"
        ]

    def _rows(self, audited: AuditedTable, margin: str) -> str:
        into = f"{margin}INSERT INTO {self.name_of(audited.history)} ("
        return (
            f"{into}\n{self.copied(audited, margin + '    ')}\n{margin})\n"
            f"{margin}SELECT\n{self.copies(audited, 't', margin + '    ')}\n"
            f"{margin}FROM {self.name_of(audited.table)} AS t CROSS JOIN entry\n{margin}FOR SHARE OF t"
        )

    def closed(self, table: sa.Table, trail: Trail) -> TrailObject:
        """Refuse INSERT by the guard function."""
        schema = table.schema or self.default_schema or "public"
        guard = f"{self.quote(trail.transaction.schema or self.default_schema or 'public')}.sa_audit_guard_v1"
        name = self.name_of(table)
        return TrailObject(
            kind="trigger",
            schema=schema,
            table=table.name,
            name="sa_audit_closed",
            create=(
                f"CREATE TRIGGER sa_audit_closed BEFORE INSERT ON {name}\n"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {guard}()",
                f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER sa_audit_closed",
            ),
            drop=(f"DROP TRIGGER IF EXISTS sa_audit_closed ON {name}",),
            definition="",
        )

    def rename_index(self, table: sa.Table, former: str, name: str) -> str | None:
        """Rename the index, whose name is unique in its schema."""
        schema = self.quote(table.schema or self.default_schema or "public")
        return f"ALTER INDEX {schema}.{self.quote(former)} RENAME TO {self.quote(name)}"

    def rename_key(self, table: sa.Table, former: str, name: str) -> str | None:
        """Rename the constraint, whose index has a name that is unique in its schema."""
        return f"ALTER TABLE {self.name_of(table)} RENAME CONSTRAINT {self.quote(former)} TO {self.quote(name)}"


def _raised(name: str) -> str:
    return name.replace("'", "''").replace("%", "%%")


_FUNCTIONS = sa.text(
    "SELECT n.nspname AS schema, p.proname AS name, p.prosrc AS body, p.prosecdef AS definer, p.proconfig AS settings,"
    " pg_get_functiondef(p.oid) AS text, pg_get_function_identity_arguments(p.oid) AS arguments"
    " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " WHERE starts_with(p.proname, 'sa_audit_') AND p.prokind = 'f'"
)

_TRIGGERS = sa.text(
    "SELECT n.nspname AS schema, c.relname AS table_name, t.tgname AS name, CAST(t.tgtype AS integer) AS code,"
    " CAST(t.tgenabled AS text) AS enabled, CAST(t.tgnewtable AS text) AS new_table,"
    " f.nspname AS function_schema, p.proname AS function, pg_get_triggerdef(t.oid) AS text"
    " FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS f ON f.oid = p.pronamespace"
    f" WHERE NOT t.tgisinternal AND (starts_with(t.tgname, 'sa_audit_') OR starts_with(t.tgname, '{CAPTURES}'))"
)

_MARKED = sa.text(
    "SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND starts_with(obj_description(c.oid, 'pg_class'), 'sa_audit:')"
)
