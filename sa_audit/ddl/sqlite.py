"""SQLite: guards as triggers, images as raw values, one writer.

Images are read and bound back as SQLite stores them, so nothing is converted on the way.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from ..model.history import AuditedTable
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    OWN,
    Batch,
    Entry,
    Image,
    Key,
    Recorded,
    Target,
)
from .sqlite_capture import SQLiteCapture

MAX_PARAMETERS = 30_000
MOMENT, DOCUMENT = UTCDateTime(), sa.JSON(none_as_null=True)
FIRST = 10  # images among which there is nearly always one that has changed, if any has


class SQLite(SQLiteCapture):
    """SQLite 3.37 and later."""

    name = "sqlite"
    locks_rows = False
    row_lock = ""
    table_exists = "SELECT 1 FROM pragma_table_list WHERE schema = :schema AND name = :name"

    # -- images --------------------------------------------------------------------

    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Read each recorded column as it is stored."""
        return [f"{alias}.{self.quote(column.name)}" for column in audited.columns]

    def read_images(self, connection: Connection, target: Target, keys: Sequence[Key]) -> list[tuple[Any, ...]]:
        """Read rows by the driver itself, in half the time: nothing but the keys has a type here."""
        audited, cache_key = target.audited, (self, "images", tuple(target.schemas.items()))
        known = audited.memo.get(cache_key)
        if known is None:
            head, tail = (part.replace("\\:", ":") for part in self.images_parts(target))
            readers = [_result_processor(self, column.type) for column in audited.key]
            known = audited.memo[cache_key] = (head, tail, readers)
        head, tail, readers = known
        predicate, values = self._keys(audited, keys)
        result: Any = connection.exec_driver_sql(head + predicate + tail, tuple(values), execution_options=OWN)
        rows: list[tuple[Any, ...]] = result.cursor.fetchall()
        result.close()
        for i, read in enumerate(readers):
            if read is not None:
                rows = [(*row[:i], read(row[i]), *row[i + 1 :]) for row in rows]
        return rows

    def image_values(self, image: Image) -> list[Any]:
        """Take the values as they are stored."""
        return list(image.values)

    def image_of(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Take the values as they are stored."""
        return tuple(values)

    def insert_absent(self, table: sa.Table, column: str) -> Any:
        """Give the INSERT ... ON CONFLICT DO NOTHING."""
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[table.c[column]])

    def with_document(self, query: sa.Select[Any], document: str) -> sa.Select[Any]:
        """Name the document as a table."""
        return query.add_cte(sa.select(sa.literal(document).label("document")).cte("sa_audit_protected"))

    def protected_text(self, value: Any) -> str | None:
        """Give hexadecimal digits of a blob, and of a number the text that says it exactly."""
        if value is None or isinstance(value, str):
            return value
        return value.hex().upper() if isinstance(value, bytes) else repr(value)

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
            self._copy(connection, target, "I", keys, flush, entry, batch.protected)
            for keys in _chunks(batch.inserted, self.chunk)
        )
        others = sum(
            self._copy(connection, target, "D", keys, flush, entry, batch.protected)
            for keys in _chunks(batch.deleted, self.chunk)
        )
        size = max(1, MAX_PARAMETERS // max(1, self.image_width(target.audited)))
        for images in _chunks(batch.images, size):
            others += self._insert_changed(connection, target, images, flush, entry)
        return Recorded(entry, inserted, others)

    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself; its moment never precedes the one before it."""
        sql, parameters = self._entry_statement(target, claims, first, now)
        return self._entry(connection.exec_driver_sql(sql, parameters, execution_options=OWN).one())

    def _entry(self, row: Any) -> Entry:
        return Entry(row[0], self._read(MOMENT, row[1]))

    def _entry_statement(
        self,
        target: Target,
        claims: Mapping[str, Any],
        first: Entry | None,
        now: dt.datetime,
        condition: str = "",
        parameters: Iterable[Any] = (),
    ) -> tuple[str, tuple[Any, ...]]:
        table = self.table_name(target.trail.transaction, target.schemas).replace("\\:", ":")
        moment = "?" if first else f"max(?, coalesce((SELECT max(recorded_at) FROM {table}), ''))"
        sql = (
            f"INSERT INTO {table} (recorded_at, first_id, {', '.join(CLAIMS)}) "
            f"SELECT {moment}, ?{', ?' * len(CLAIMS)}{condition} RETURNING id, recorded_at"
        )
        values = [self._stored(MOMENT, first.recorded_at if first else now), first.id if first else None]
        values += [self._stored(DOCUMENT, claims[name]) if name == "context" else claims[name] for name in CLAIMS]
        return sql, (*values, *parameters)

    def _copy(
        self,
        connection: Connection,
        target: Target,
        op: str,
        keys: Any,
        flush: int,
        entry: Entry,
        protected: str | None,
    ) -> int:
        audited = target.audited
        head = audited.memo.get((self, "copy", op, tuple(target.schemas.items())))
        if head is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            head = audited.memo[self, "copy", op, tuple(target.schemas.items())] = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush{columns}) {_document(audited)}SELECT ?, '{op}', ?, ?"
                f"{self.history_values(audited)} "
                f"FROM {self.table_name(audited.table, target.schemas)} AS t WHERE "
            ).replace("\\:", ":")
        predicate, values = self._keys(audited, keys)
        own = () if protected is None else (protected,)
        parameters = (*own, entry.id, self._stored(MOMENT, entry.recorded_at), flush, *values)
        return int(connection.exec_driver_sql(head + predicate, parameters, execution_options=OWN).rowcount)

    def _keys(self, audited: AuditedTable, keys: Sequence[Key]) -> tuple[str, list[Any]]:
        """Give ``t.key IN (...)`` for the driver, with its parameters."""
        known = audited.memo.get((self, "keys"))
        if known is None:
            names = [f"t.{self.quote(column.name)}" for column in audited.key]
            left = names[0] if len(names) == 1 else f"({', '.join(names)})"
            row = "?" if len(names) == 1 else f"({', '.join('?' * len(names))})"
            processors = [_bind_processor(self, column.type) for column in audited.key]
            known = audited.memo[self, "keys"] = (left.replace("\\:", ":"), row, processors)
        left, row, processors = known
        rows = ", ".join([row] * len(keys))
        predicate = f"{left} IN ({rows})" if len(processors) == 1 else f"{left} IN (VALUES {rows})"
        pairs = (zip(processors, key, strict=True) for key in keys)
        return predicate, [value if process is None else process(value) for pair in pairs for process, value in pair]

    def _stored(self, type_: TypeEngine[Any], value: Any) -> Any:
        """Give a value as a type stores it, for statements that go to the driver as they stand."""
        process = _bind_processor(self, type_)
        return process(value) if process is not None else value

    def _read(self, type_: TypeEngine[Any], value: Any) -> Any:
        """Give a stored value as a type reads it."""
        process = _result_processor(self, type_)
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
        size = max(1, MAX_PARAMETERS // max(1, self.image_width(target.audited)))
        for images in (batch.images[:FIRST], *_chunks(batch.images[FIRST:], size)):
            condition = f" WHERE EXISTS (SELECT 1 FROM ({self._changed_rows(target, len(images))}))"
            values = chain(*(image.values for image in images))
            sql, parameters = self._entry_statement(target, claims, first, now, condition, values)
            row = connection.exec_driver_sql(sql, parameters, execution_options=OWN).first()
            if row is not None:
                return self._entry(row)
        return None

    def _insert_changed(
        self,
        connection: Connection,
        target: Target,
        images: Any,
        flush: int,
        entry: Entry,
    ) -> int:
        audited, cache_key = target.audited, (self, "insert changed", tuple(target.schemas.items()))
        head = audited.memo.get(cache_key)
        if head is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            head = audited.memo[cache_key] = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush, audit_before{columns}) "
                f"SELECT ?, 'U', ?, ?, '{{' || substr(d.audit_before, 2) || '}}'"
                f"{''.join(f', d.{self.quote(column.name)}' for column in audited.recorded)} FROM ("
            ).replace("\\:", ":")
        sql = f"{head}{self._changed_rows(target, len(images))}) AS d"
        parameters = (
            entry.id,
            self._stored(MOMENT, entry.recorded_at),
            flush,
            *chain(*(image.values for image in images)),
        )
        return int(connection.exec_driver_sql(sql, parameters, execution_options=OWN).rowcount)

    def _changed_rows(self, target: Target, count: int) -> str:
        """Give the SELECT of the rows that differ from their ``count`` images, with their before-objects."""
        audited = target.audited
        cache_key = (self, "changed", tuple(target.schemas.items()))
        parts = audited.memo.get(cache_key)
        if parts is None:
            parts = audited.memo[cache_key] = self._changed_parts(target)
        head, row, tail = parts
        return f"{head}{', '.join([row] * count)}{tail}"

    def _changed_parts(self, target: Target) -> tuple[str, str, str]:
        audited = target.audited
        keys = {column.name for column in audited.key}
        names = [f"o{i}" for i in range(self.image_width(audited))]
        members = self.members(audited)
        match = " AND ".join(
            f"t.{self.quote(column.name)} = v.o{i}" for i, column in enumerate(audited.columns) if column.name in keys
        )
        columns = self.history_values(audited, image=lambda place: f"v.o{place}")
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
            f"SELECT 'U' AS audit_op, '{{' || substr(audit_before, 2) || '}}' AS audit_before{names} "
            f"FROM (SELECT {members} AS audit_before{columns} FROM {name} AS v "
            f"JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) WHERE audit_before <> ''"
        )


def _bind_processor(backend: SQLite, type_: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    return type_.dialect_impl(backend.dialect).bind_processor(backend.dialect)


def _result_processor(backend: SQLite, type_: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    return type_.dialect_impl(backend.dialect).result_processor(backend.dialect, None)


def _document(audited: AuditedTable) -> str:
    """Give what names the document of protected values, the statement's first parameter."""
    return "WITH sa_audit_protected(document) AS (VALUES (?)) " if audited.protected else ""


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
