"""SQLite: guards as triggers, images as raw values, one writer.

Images are read and bound back as SQLite stores them, so nothing is converted on the way.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import AuditedTable, Trail
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    INTERNAL,
    MESSAGE,
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

MAX_PARAMETERS = 30_000


class SQLite(Backend):
    """SQLite 3.35 and later."""

    name = "sqlite"
    locks_rows = False
    row_lock = ""

    # -- guards ------------------------------------------------------------------

    def guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give guards of UPDATE, DELETE and REPLACE, and what fits an inserted row to its transaction."""
        prefix, name, bare = self._names(table, schemas)
        key = self.quote(next(iter(table.primary_key.columns)).name)
        refuse = f"SELECT RAISE(ABORT, '{MESSAGE}: %s on {table.name.replace(chr(39), chr(39) * 2)} refused');"
        statements = [
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_update')} BEFORE UPDATE ON {bare}\n"
            f"BEGIN\n    {refuse % 'UPDATE'}\nEND",
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_delete')} BEFORE DELETE ON {bare}\n"
            f"BEGIN\n    {refuse % 'DELETE'}\nEND",
            f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_replace')} BEFORE INSERT ON {bare}\n"
            f"WHEN EXISTS (SELECT 1 FROM {bare} WHERE {key} = NEW.{key})\n"
            f"BEGIN\n    {refuse % 'REPLACE'}\nEND",
        ]
        if table is not trail.transaction and table is not trail.column:
            statements.append(
                f"CREATE TRIGGER {prefix}{self.quote(f'{table.name}_guard_insert')} BEFORE INSERT ON {bare}\n"
                "WHEN NOT EXISTS (\n    SELECT 1 FROM audit_transaction\n"
                "    WHERE id = NEW.audit_tx AND recorded_at = NEW.audit_at\n)\n"
                "BEGIN\n    SELECT RAISE(ABORT, 'sa_audit: history row without its transaction');\nEND"
            )
        return statements

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the four triggers."""
        prefix, _name, _bare = self._names(table, schemas)
        suffixes = ("guard_update", "guard_delete", "guard_replace", "guard_insert")
        return [f"DROP TRIGGER IF EXISTS {prefix}{self.quote(f'{table.name}_{suffix}')}" for suffix in suffixes]

    def _names(self, table: sa.Table, schemas: SchemaMap) -> tuple[str, str, str]:
        schema = schemas.get(table.schema, table.schema)
        prefix = f"{self.quote(schema)}." if schema else ""
        return prefix, prefix + self.quote(table.name), self.quote(table.name)

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
        options = {INTERNAL: True}
        return bool(connection.exec_driver_sql("PRAGMA foreign_keys", execution_options=options).scalar())

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
        if entry is None:
            if not (batch.inserted or batch.deleted) and not self._any_changed(connection, target, batch):
                return Recorded(None, 0, 0)
            entry = self.insert_entry(connection, target, claims, first, now)
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
            .columns(id=sa.Integer(), recorded_at=UTCDateTime())
        )
        parameters = {**claims, "at": first.recorded_at if first else now, "first_id": first.id if first else None}
        row = internal(connection, statement, parameters).one()
        return Entry(row.id, row.recorded_at)

    def _copy(
        self, connection: Connection, target: Target, op: str, keys: Any, flush: int, entry: Entry
    ) -> int:
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

    def _any_changed(self, connection: Connection, target: Target, batch: Batch) -> bool:
        size = max(1, MAX_PARAMETERS // max(1, len(target.audited.columns)))
        for images in _chunks(batch.images, size):
            sql = f"SELECT 1 FROM ({self._changed_rows(target, len(images))}) LIMIT 1"
            options = {INTERNAL: True}
            if connection.exec_driver_sql(sql, _flat(images), execution_options=options).first() is not None:
                return True
        return False

    def _insert_changed(
        self, connection: Connection, target: Target, images: Any, flush: int, entry: Entry
    ) -> int:
        audited = target.audited
        columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        at = UTCDateTime().bind_processor(self.dialect)
        moment = at(entry.recorded_at) if at else entry.recorded_at
        sql = (
            f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
            f"(audit_tx, audit_op, audit_at, audit_flush, audit_before{columns}) "
            f"SELECT ?, 'U', ?, ?, '{{' || substr(d.b, 2) || '}}'"
            f"{''.join(f', d.{self.quote(column.name)}' for column in audited.recorded)} "
            f"FROM ({self._changed_rows(target, len(images))}) AS d"
        ).replace("\\:", ":")
        parameters = (entry.id, moment, flush, *_flat(images))
        return int(connection.exec_driver_sql(sql, parameters, execution_options={INTERNAL: True}).rowcount)

    def _changed_rows(self, target: Target, count: int) -> str:
        """Give the SELECT of the rows that differ from their ``count`` images, with ``b``, the members that differ."""
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
        members = self._members(audited)
        match = " AND ".join(
            f"t.{self.quote(column.name)} = v.{old}"
            for old, column in zip(names, audited.columns, strict=True)
            if column.name in keys
        )
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        head = f"WITH v({', '.join(names)}) AS (VALUES "
        row = "(" + ", ".join("?" * len(names)) + ")"
        tail = (
            f") SELECT * FROM (SELECT {' || '.join(members) or chr(39) * 2} AS b{columns} "
            f"FROM v JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) WHERE b <> ''"
        )
        return head.replace("\\:", ":"), row, tail.replace("\\:", ":")

    # -- many rows -------------------------------------------------------------------

    def create_stage(self, target: Target, name: str) -> list[str]:
        """Create a temporary table without column types, so that values stay as they are stored."""
        columns = [f"k{i}" for i in range(len(target.audited.key))]
        columns += [f"o{i}" for i in range(len(target.audited.columns))]
        return [f"CREATE TEMPORARY TABLE {name} ({', '.join(columns)})"]

    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images."""
        audited = target.audited
        members = " || ".join(self._members(audited)) or "''"
        match = " AND ".join(f"t.{self.quote(column.name)} = v.k{i}" for i, column in enumerate(audited.key))
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        names = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        return (
            f"SELECT 'U', '{{' || substr(b, 2) || '}}'{names} FROM (SELECT {members} AS b{columns} FROM {name} AS v "
            f"JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) WHERE b <> ''"
        )

    def _members(self, audited: AuditedTable) -> list[str]:
        """Give, for each column that is no key, the SQL of its member of the before-object, empty where unchanged."""
        keys = {column.name for column in audited.key}
        members = []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                continue
            old, new = f"v.o{i}", f"t.{self.quote(column.name)}"
            value = "'true'" if column.masked else json_form(old)
            members.append(
                f"CASE WHEN {old} IS {new} COLLATE BINARY AND typeof({old}) = typeof({new}) THEN '' "
                f"ELSE {self.json_key(column.name)} || {value} END"
            )
        return members


def json_form(value: str) -> str:
    """Give the SQL for a stored value as JSON: exact numbers, text, a blob as an array of one hex string."""
    return (
        f"CASE typeof({value}) WHEN 'null' THEN 'null' WHEN 'integer' THEN {value} "
        f"WHEN 'real' THEN CASE {value} WHEN 9e999 THEN '1e999' WHEN -9e999 THEN '-1e999' "
        f"ELSE printf('%!.17g', {value}) END "
        f"WHEN 'blob' THEN '[\"' || hex({value}) || '\"]' ELSE json_quote({value}) END"
    )


def _flat(images: Any) -> tuple[Any, ...]:
    return tuple(value for image in images for value in image.values)


def _chunks(rows: Any, size: int) -> Any:
    return (rows[start : start + size] for start in range(0, len(rows), size))
