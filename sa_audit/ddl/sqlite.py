"""SQLite: guards as triggers, images as raw values, one writer.

Images are read and bound back as SQLite stores them, so nothing is converted on the way.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from ..model.history import AuditedTable, Trail
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    MESSAGE,
    OWN,
    Backend,
    Batch,
    Entry,
    Recorded,
    SchemaMap,
    Target,
    claim_parameters,
    internal,
    moment_parameter,
)
from .capture import CaptureObject, dropped
from .sqlite_capture import (
    CONTEXT,
    SUFFIXES,
    hush_text,
    refuse_elsewhere,
    shared_objects,
    table_objects,
    tell_text,
)

MAX_PARAMETERS = 30_000


class SQLite(Backend):
    """SQLite 3.37 and later."""

    name = "sqlite"
    locks_rows = False
    row_lock = ""
    table_exists = "SELECT 1 FROM pragma_table_list WHERE schema = :schema AND name = :name"

    # -- guards ------------------------------------------------------------------

    def guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give guards of UPDATE, DELETE and REPLACE, and what fits an inserted row to its transaction."""
        prefix, bare = self._names(table, schemas)
        key = self.quote(next(iter(table.primary_key.columns)).name)
        said = table.name.replace("'", "''")
        refuse = {
            event: f"SELECT RAISE(ABORT, '{MESSAGE}: {event} on {said} refused');"
            for event in ("UPDATE", "DELETE", "REPLACE")
        }
        statements = [
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_update')} BEFORE UPDATE ON {bare}\n"
            f"BEGIN\n    {refuse['UPDATE']}\nEND",
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_delete')} BEFORE DELETE ON {bare}\n"
            f"BEGIN\n    {refuse['DELETE']}\nEND",
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_replace')} BEFORE INSERT ON {bare}\n"
            f"WHEN EXISTS (SELECT 1 FROM {bare} WHERE {key} = NEW.{key})\n"
            f"BEGIN\n    {refuse['REPLACE']}\nEND",
        ]
        if table is not trail.transaction and table is not trail.column:
            statements.append(
                f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_insert')} BEFORE INSERT ON {bare}\n"
                "WHEN NOT EXISTS (\n    SELECT 1 FROM audit_transaction\n"
                "    WHERE id = NEW.audit_tx AND recorded_at = NEW.audit_at\n)\n"
                "BEGIN\n    SELECT RAISE(ABORT, 'sa_audit: history row without its transaction');\nEND"
            )
        return statements

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the table in which writers said who they are."""
        return dropped(self.capture_shared(trail, schemas, default_schema))

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the four triggers."""
        prefix, _bare = self._names(table, schemas)
        suffixes = ("guard_update", "guard_delete", "guard_replace", "guard_insert")
        return [f"DROP TRIGGER IF EXISTS {prefix}{self.quote(f'{table.name}_{suffix}')}" for suffix in suffixes]

    def _names(self, table: sa.Table, schemas: SchemaMap) -> tuple[str, str]:
        schema = schemas.get(table.schema, table.schema)
        prefix = f"{self.quote(schema)}." if schema else ""
        return prefix, self.quote(table.name)

    # -- trigger capture -----------------------------------------------------------

    tells_always = True
    selects_write = False

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give the table in which a writer says who he is."""
        return shared_objects(self._names(trail.transaction, schemas)[0])

    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give a table's triggers."""
        tables = (audited.table, audited.history, audited.trail.transaction)
        own, *others = (schemas.get(table.schema, table.schema) for table in tables)
        refuse_elsewhere(audited, own, *others)
        return table_objects(self, audited, self._names(audited.table, schemas)[0])

    def capture_is_late(self, connection: Connection, audited: AuditedTable, schemas: SchemaMap) -> bool:
        """Tell whether triggers of the table were made after ours: SQLite fires the newest first."""
        prefix, _name = self._names(audited.table, schemas)
        mine = [f"{audited.table.name}_capture_{suffix}" for suffix in SUFFIXES]
        statement = sa.text(
            f"SELECT 1 FROM {prefix}sqlite_master AS s WHERE s.type = 'trigger' AND s.tbl_name = :name "
            f"AND substr(s.name, 1, length(:start)) <> :start AND s.rowid > (SELECT min(m.rowid) "
            f"FROM {prefix}sqlite_master AS m WHERE m.type = 'trigger' AND m.name IN :mine) LIMIT 1"
        ).bindparams(sa.bindparam("mine", expanding=True))
        parameters = {"name": audited.table.name, "mine": mine, "start": f"{audited.table.name}_capture_"}
        return internal(connection, statement, parameters).first() is not None

    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Look for the triggers, and for the tables that they write."""
        audited = target.audited
        prefix, _name = self._names(audited.table, target.schemas)
        wanted = [f"table {table.name}" for table in (audited.trail.transaction, audited.history)]
        wanted += [f"table {CONTEXT}", *(f"trigger {audited.table.name}_capture_{suffix}" for suffix in SUFFIXES)]
        statement = sa.text(f"SELECT type || ' ' || name FROM {prefix}sqlite_master WHERE type IN ('table', 'trigger')")
        found = set(internal(connection, statement).scalars())
        return next((name for name in wanted if name not in found), None)

    def can_be_told(self, connection: Connection, target: Target) -> bool:
        """Look for the table in which a writer says who he is."""
        schema = target.trail.transaction.schema
        parameters = {"schema": target.schemas.get(schema, schema) or "main", "name": CONTEXT}
        return internal(connection, sa.text(self.table_exists), parameters).first() is not None

    def tell(
        self,
        connection: Connection,
        targets: Sequence[Target],
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Take the write lock, and write down who and why; the moment is that of the transaction's first write."""
        for target in targets:
            self.lock_writer(connection, target)
            table = f"{self._names(target.trail.transaction, target.schemas)[0]}{CONTEXT}"
            text = tell_text(table, self.table_name(target.trail.transaction, target.schemas))
            statement = sa.text(text).bindparams(moment_parameter("said_at"), *claim_parameters())
            internal(connection, statement, {**claims, "token": token, "said_at": now()})

    def hush(self, connection: Connection, targets: Sequence[Target]) -> None:
        """Take it back, since the row would be committed."""
        for target in targets:
            table = f"{self._names(target.trail.transaction, target.schemas)[0]}{CONTEXT}"
            internal(connection, sa.text(hush_text(table)))

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

    # -- images --------------------------------------------------------------------

    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Read each recorded column as it is stored."""
        return [f"{alias}.{self.quote(column.name)}" for column in audited.columns]

    # -- recording -------------------------------------------------------------------

    def record(
        self,
        connection: Connection,
        target: Target,
        batch: Batch,
        *,
        flush: int,
        entry: Entry | None,
        claims: Mapping[str, Any],
        first: Entry | None,
        now: dt.datetime,
    ) -> Recorded:
        """Write the entry, if there is none yet, and then each kind of row by one statement."""
        if entry is None and (batch.inserted or batch.deleted):
            entry = self.insert_entry(connection, target, claims, first, now)
        elif entry is None:
            entry = self._entry_if_changed(connection, target, batch, claims, first, now)
            if entry is None:
                return Recorded(None, 0, 0)
        inserted = sum(
            self._copy(connection, target, "I", keys, flush, entry) for keys in _chunks(batch.inserted, self.chunk)
        )
        others = sum(
            self._copy(connection, target, "D", keys, flush, entry) for keys in _chunks(batch.deleted, self.chunk)
        )
        size = max(1, MAX_PARAMETERS // max(1, len(target.audited.columns)))
        for images in _chunks(batch.images, size):
            others += self._insert_changed(connection, target, images, flush, entry)
        return Recorded(entry, inserted, others)

    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself; its moment never precedes the one before it."""
        table = self.table_name(target.trail.transaction, target.schemas)
        names = ", ".join(CLAIMS)
        moment = ":at" if first is not None else f"max(:at, coalesce((SELECT max(recorded_at) FROM {table}), ''))"
        statement = (
            sa.text(
                f"INSERT INTO {table} (recorded_at, first_id, {names}) "
                f"VALUES ({moment}, :first_id, {', '.join(':' + name for name in CLAIMS)}) RETURNING id, recorded_at"
            )
            .bindparams(moment_parameter("at"), sa.bindparam("first_id"), *claim_parameters())
            .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        )
        parameters = {**claims, "at": first.recorded_at if first else now, "first_id": first.id if first else None}
        row = internal(connection, statement, parameters).one()
        return Entry(row.id, row.recorded_at)

    def _copy(self, connection: Connection, target: Target, op: str, keys: Any, flush: int, entry: Entry) -> int:
        audited = target.audited
        cache_key = (self, "copy", op, tuple(target.schemas.items()))
        statement = audited.memo.get(cache_key)
        if statement is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            sql = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush{columns}) SELECT :tx, '{op}', :at, :flush"
                f"{''.join(f', t.{self.quote(column.name)}' for column in audited.recorded)} "
                f"FROM {self.table_name(audited.table, target.schemas)} AS t WHERE {self.key_predicate(audited, 't')}"
            )
            statement = audited.memo[cache_key] = sa.text(sql).bindparams(
                moment_parameter("at"), sa.bindparam("tx"), sa.bindparam("flush"), self.keys_parameter(audited)
            )
        parameters = {
            "tx": entry.id,
            "at": entry.recorded_at,
            "flush": flush,
            "keys": self.keys_value(audited, keys),
        }
        return int(internal(connection, statement, parameters).rowcount)

    def _stored(self, type_: TypeEngine[Any], value: Any) -> Any:
        """Give a value as a type stores it, for statements that go to the driver as they stand."""
        process = type_.dialect_impl(self.dialect).bind_processor(self.dialect)
        return process(value) if process is not None else value

    def _read(self, type_: TypeEngine[Any], value: Any) -> Any:
        """Give a stored value as a type reads it."""
        process = type_.dialect_impl(self.dialect).result_processor(self.dialect, None)
        return process(value) if process is not None else value

    def _entry_if_changed(
        self,
        connection: Connection,
        target: Target,
        batch: Batch,
        claims: Mapping[str, Any],
        first: Entry | None,
        now: dt.datetime,
    ) -> Entry | None:
        """Write an entry if any row differs from its image, by one statement that looks and writes."""
        table = self.table_name(target.trail.transaction, target.schemas).replace("\\:", ":")
        values = [self._stored(UTCDateTime(), first.recorded_at if first else now), first.id if first else None]
        values += [
            self._stored(sa.JSON(none_as_null=True), claims[name]) if name == "context" else claims[name]
            for name in CLAIMS
        ]
        moment = "?" if first else f"max(?, coalesce((SELECT max(recorded_at) FROM {table}), ''))"
        size = max(1, MAX_PARAMETERS // max(1, len(target.audited.columns)))
        for images in _chunks(batch.images, size):
            sql = (
                f"INSERT INTO {table} (recorded_at, first_id, {', '.join(CLAIMS)}) "
                f"SELECT {moment}, ?{', ?' * len(CLAIMS)} "
                f"WHERE EXISTS (SELECT 1 FROM ({self._changed_rows(target, len(images))})) RETURNING id, recorded_at"
            )
            parameters = (*values, *_flat(images))
            row = connection.exec_driver_sql(sql, parameters, execution_options=OWN).first()
            if row is not None:
                return Entry(row[0], self._read(UTCDateTime(), row[1]))
        return None

    def _insert_changed(self, connection: Connection, target: Target, images: Any, flush: int, entry: Entry) -> int:
        audited = target.audited
        columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        moment = self._stored(UTCDateTime(), entry.recorded_at)
        sql = (
            f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
            f"(audit_tx, audit_op, audit_at, audit_flush, audit_before{columns}) "
            f"SELECT ?, 'U', ?, ?, '{{' || substr(d.audit_before, 2) || '}}'"
            f"{''.join(f', d.{self.quote(column.name)}' for column in audited.recorded)} "
            f"FROM ({self._changed_rows(target, len(images))}) AS d"
        ).replace("\\:", ":")
        parameters = (entry.id, moment, flush, *_flat(images))
        return int(connection.exec_driver_sql(sql, parameters, execution_options=OWN).rowcount)

    def _changed_rows(self, target: Target, count: int) -> str:
        """Give the SELECT of the rows that differ from their ``count`` images, with their before-objects."""
        audited = target.audited
        cache_key = (self, "changed", tuple(target.schemas.items()))
        parts = audited.memo.get(cache_key)
        if parts is None:
            parts = audited.memo[cache_key] = self._changed_parts(target)
        head, row, tail = parts
        return head + ", ".join([row] * count) + tail

    def _changed_parts(self, target: Target) -> tuple[str, str, str]:
        audited = target.audited
        keys = {column.name for column in audited.key}
        names = [f"o{i}" for i in range(len(audited.columns))]
        members = self.members(audited)
        match = " AND ".join(
            f"t.{self.quote(column.name)} = v.{old}"
            for old, column in zip(names, audited.columns, strict=True)
            if column.name in keys
        )
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        head = f"WITH v({', '.join(names)}) AS (VALUES "
        row = "(" + ", ".join("?" * len(names)) + ")"
        tail = (
            f") SELECT * FROM (SELECT {' || '.join(members) or chr(39) * 2} AS audit_before{columns} FROM v "
            f"{_look_up(audited)} {self.table_name(audited.table, target.schemas)} AS t ON {match}) "
            "WHERE audit_before <> ''"
        )
        return head.replace("\\:", ":"), row, tail.replace("\\:", ":")

    # -- many rows -------------------------------------------------------------------

    def create_stage(self, target: Target, name: str) -> list[str]:
        """Create a temporary table without types but for the keys, so that values stay as they are stored."""
        names = ", ".join(f"k{i}" for i in range(len(target.audited.key)))
        columns = [f"k{i} {self.type_name(column.type)}" for i, column in enumerate(target.audited.key)]
        columns += [f"o{i}" for i in range(len(target.audited.columns))]
        return [f"CREATE TEMPORARY TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({names}))"]

    def drop_stage(self, name: str) -> list[str]:
        """Drop the temporary table."""
        return [f"DROP TABLE IF EXISTS temp.{name}"]

    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Keep each recorded column as it is stored."""
        return self.image_columns(audited, alias)

    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images."""
        audited = target.audited
        members = " || ".join(self.members(audited)) or "''"
        match = " AND ".join(f"t.{self.quote(column.name)} = v.k{i}" for i, column in enumerate(audited.key))
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        names = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        return (
            f"SELECT 'U', '{{' || substr(audit_before, 2) || '}}'{names} "
            f"FROM (SELECT {members} AS audit_before{columns} FROM {name} AS v "
            f"JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) WHERE audit_before <> ''"
        )

    def members(self, audited: AuditedTable, old_row: str = "", new_row: str = "t") -> list[str]:
        """Give, for each column that is no key, the SQL of its member of the before-object, empty where unchanged.

        Args:
            audited: the table.
            old_row: the alias of the row before; by default its values are ``v.o0``, ``v.o1`` and so on.
            new_row: the alias of the row after.
        """
        keys = {column.name for column in audited.key}
        members = []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                continue
            name = self.quote(column.name)
            old, new = f"{old_row}.{name}" if old_row else f"v.o{i}", f"{new_row}.{name}"
            value = "'true'" if column.masked else json_form(old)
            members.append(
                f"CASE WHEN {old} IS {new} COLLATE BINARY AND typeof({old}) = typeof({new}) THEN '' "
                f"ELSE {self.json_key(column.name)} || {value} END"
            )
        return members


def json_form(value: str) -> str:
    """Give the SQL for a stored value as JSON: exact numbers, text, a blob as an array of one hex string.

    SQLite's own text of a real is not exact far from 1, so there it is an array of two integers, m and e: m * 2 ** e.
    """
    return (
        f"CASE typeof({value}) WHEN 'null' THEN 'null' WHEN 'integer' THEN {value} "
        f"WHEN 'real' THEN CASE WHEN abs({value}) = 9e999 THEN iif({value} > 0, '1e999', '-1e999') "
        f"WHEN {value} = 0 OR abs({value}) BETWEEN 1e-90 AND 1e90 THEN printf('%!.17g', {value}) "
        f"ELSE {_mantissa_and_exponent(value)} END "
        f"WHEN 'blob' THEN '[\"' || hex({value}) || '\"]' ELSE json_quote({value}) END"
    )


def _mantissa_and_exponent(value: str) -> str:
    large = "abs(m) >= 9007199254740992.0"
    return (
        f"(WITH RECURSIVE s(m, e) AS (SELECT {value}, 0 UNION ALL "
        f"SELECT iif({large}, m / 2.0, m * 2.0), iif({large}, e + 1, e - 1) "
        f"FROM s WHERE {large} OR m <> CAST(m AS INTEGER)) "
        "SELECT '[' || CAST(m AS INTEGER) || ',' || e || ']' FROM s ORDER BY abs(e) DESC LIMIT 1)"
    )


def _flat(images: Any) -> tuple[Any, ...]:
    return tuple(value for image in images for value in image.values)


def _chunks(rows: Any, size: int) -> Any:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _look_up(audited: AuditedTable) -> str:
    """Give the join that looks rows up image by image, where the key has an index; SQLite keeps this order."""
    return "CROSS JOIN" if audited.table.primary_key.columns else "JOIN"


def begin_before_savepoint(connection: Connection) -> None:
    """Begin a transaction before its first savepoint, which the driver would not, so that RELEASE would commit it.

    Other databases, also those that the library does not know, are left alone.
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not getattr(driver, "in_transaction", True):
        cursor = connection.connection.cursor()
        try:
            cursor.execute("BEGIN")
        finally:
            cursor.close()
