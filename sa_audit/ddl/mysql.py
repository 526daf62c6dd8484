"""MariaDB: images as text in one JSON document, history by one statement for each kind of row.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

from ..model.history import AuditedTable, RecordedColumn
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    Batch,
    Entry,
    Image,
    Key,
    Recorded,
    Target,
    claim_parameters,
    internal,
    moment_parameter,
)
from .mysql_capture import MariaDBCapture


class MariaDB(MariaDBCapture):
    """MariaDB 10.10 and later, InnoDB tables."""

    name = "mariadb"
    fresh_isolation = "READ COMMITTED"

    # -- images --------------------------------------------------------------------

    def other_key(self, audited: AuditedTable, keys: Sequence[Key]) -> str:
        """Know that 0 asks for a new number."""
        column = audited.table.autoincrement_column
        if column is not None and any(key[audited.key.index(column)] == 0 for key in keys):
            return (
                f"for 0 in the AUTO_INCREMENT column {column.name!r} MariaDB takes the next number, unless sql_mode "
                "has NO_AUTO_VALUE_ON_ZERO: set that, give another key, or declare it with autoincrement=False"
            )
        return super().other_key(audited, keys)

    def look_up(self, audited: AuditedTable) -> str:
        """Force the key's index: InnoDB locks all rows of a small table that it rather reads as a whole."""
        return " FORCE INDEX (PRIMARY)" if audited.table.primary_key.columns else ""

    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Read the recorded columns as texts in one JSON array."""
        return [f"JSON_ARRAY({', '.join(self.staged_columns(audited, alias))})"]

    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Keep each recorded column as text."""
        return [self._text(column, alias) for column in audited.columns]

    protected_chunk = 50  # each look-up reads the document from its beginning

    def insert_absent(self, table: sa.Table, column: str) -> Any:
        """Give the INSERT IGNORE."""
        return mysql.insert(table).prefix_with("IGNORE")

    def current(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Read with a shared lock, since REPEATABLE READ, the default, sees the moment of the first read otherwise."""
        return query.with_for_update(read=True)

    def row_label(self, audited: AuditedTable, alias: str) -> str:
        """Take the hexadecimal digits of each part of the key, which a path can name without quotes."""
        names = (f"{alias}.{self.quote(column.name)}" for column in audited.key)
        parts = ", '_', ".join(f"COALESCE(HEX(CAST({name} AS BINARY)), 'n')" for name in names)
        return f"CONCAT('k', {parts})"

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
            entry = self._entry_if_changed(connection, target, batch, claims, first)
            if entry is None:
                return Recorded(None, 0, 0)
        inserted = sum(
            self._copy(connection, target, "I", batch.inserted[start : start + self.chunk], flush, entry, batch)
            for start in range(0, len(batch.inserted), self.chunk)
        )
        others = sum(
            self._copy(connection, target, "D", batch.deleted[start : start + self.chunk], flush, entry, batch)
            for start in range(0, len(batch.deleted), self.chunk)
        )
        for start in range(0, len(batch.images), self.chunk):
            images = batch.images[start : start + self.chunk]
            statement = self._changed_statement(connection, target, len(images) == 1)
            parameters = {"tx": entry.id, "at": entry.recorded_at, "flush": flush, **_rows(images)}
            others += int(internal(connection, statement, parameters).rowcount)
        return Recorded(entry, inserted, others)

    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself."""
        cache_key = (self, "entry alone", tuple(target.schemas.items()))
        statement = target.audited.memo.get(cache_key)
        if statement is None:
            sql = (
                f"INSERT INTO {self.table_name(target.trail.transaction, target.schemas)} "
                f"(first_id, {', '.join(CLAIMS)}) VALUES (:first_id, {', '.join(':' + name for name in CLAIMS)}) "
                "RETURNING id, recorded_at"
            )
            statement = target.audited.memo[cache_key] = _entry_text(sql)
        row = internal(connection, statement, {**claims, "first_id": first.id if first else None}).one()
        return Entry(row.id, row.recorded_at)

    def _copy(
        self, connection: Connection, target: Target, op: str, keys: Any, flush: int, entry: Entry, batch: Batch
    ) -> int:
        audited = target.audited
        cache_key = (self, "copy", op, tuple(target.schemas.items()))
        statement = audited.memo.get(cache_key)
        if statement is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            sql = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush{columns}) SELECT :tx, '{op}', :at, :flush"
                f"{self.history_values(audited)} "
                f"FROM {self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)} "
                f"WHERE {self.key_predicate(audited, 't')}" + (" FOR UPDATE" if op == "D" else "")
            )
            statement = audited.memo[cache_key] = sa.text(sql).bindparams(
                moment_parameter("at"), sa.bindparam("tx"), sa.bindparam("flush"), self.keys_parameter(audited)
            )
        parameters = {
            "tx": entry.id,
            "at": entry.recorded_at,
            "flush": flush,
            "keys": self.keys_value(audited, keys),
            **_protected(batch),
        }
        return int(internal(connection, statement, parameters).rowcount)

    def _entry_if_changed(
        self, connection: Connection, target: Target, batch: Batch, claims: Mapping[str, Any], first: Entry | None
    ) -> Entry | None:
        """Write an entry if any row differs from its image, by one statement that looks and writes."""
        for start in range(0, len(batch.images), self.chunk):
            images = batch.images[start : start + self.chunk]
            statement = self._entry_statement(connection, target, len(images) == 1)
            first_id = first.id if first else None
            parameters = {**claims, "first_id": first_id, **_rows(images)}
            row = internal(connection, statement, parameters).first()
            if row is not None:
                return Entry(row.id, row.recorded_at)
        return None

    def _entry_statement(self, connection: Connection, target: Target, single: bool) -> Any:
        cache_key = (self, "entry", single, tuple(target.schemas.items()))
        statement = target.audited.memo.get(cache_key)
        if statement is None:
            if single:
                changed = f"{self._single_row(target)} AND NOT ({self._unchanged(target.audited)})"
            else:
                changed = f"DUAL WHERE EXISTS (SELECT 1 FROM ({self._changed_rows(connection, target)}) AS d)"
            sql = (
                f"INSERT INTO {self.table_name(target.trail.transaction, target.schemas)} "
                f"(first_id, {', '.join(CLAIMS)}) SELECT :first_id, {', '.join(':' + name for name in CLAIMS)} "
                f"FROM {changed} RETURNING id, recorded_at"
            )
            statement = target.audited.memo[cache_key] = _entry_text(sql)
        return statement

    def _changed_statement(self, connection: Connection, target: Target, single: bool) -> sa.TextClause:
        audited = target.audited
        cache_key = (self, "changed", single, tuple(target.schemas.items()))
        statement: sa.TextClause | None = audited.memo.get(cache_key)
        if statement is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            sql = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush, audit_before{columns}) "
                "SELECT :tx, 'U', :at, :flush, CONCAT('{', SUBSTR(d.audit_before, 2), '}')"
                f"{''.join(f', d.{self.quote(column.name)}' for column in audited.recorded)} "
                f"FROM ({self._changed_rows(connection, target, single)}) AS d"
            )
            statement = audited.memo[cache_key] = sa.text(sql).bindparams(moment_parameter("at"))
        return statement

    def _changed_rows(self, connection: Connection, target: Target, single: bool = False) -> str:
        """Give the SELECT of the rows that differ from their images, with their before-objects.

        ``single``: the texts of the one image are the parameters ``o0..``, which takes less than a JSON_TABLE.
        """
        audited = target.audited
        image = ":o" if single else "v.o"
        members = ", ".join(self.members(audited, image)) or "''"
        columns = self.history_values(audited, image=lambda place: f"{image}{place}")
        source = self._single_row(target) if single else self._document_rows(connection, target)
        return (
            f"SELECT * FROM (SELECT CONCAT({members}) AS audit_before{columns} FROM {source}) AS c "
            "WHERE c.audit_before <> ''"
        )

    def _single_row(self, target: Target) -> str:
        """Give ``table WHERE key``, for the row whose image is in parameters."""
        audited = target.audited
        match = []
        for i, column in enumerate(audited.columns):
            if column.name in {key.name for key in audited.key}:
                match.append(f"t.{self.quote(column.name)} = {self._key_value(column, f':o{i}')}")
        return (
            f"{self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)} WHERE {' AND '.join(match)}"
        )

    def _document_rows(self, connection: Connection, target: Target) -> str:
        """Give the join of the rows with their images, ``v``, which come as one JSON document."""
        audited = target.audited
        collations = self._collations(connection, target)
        paths, match = [], []
        for i, column in enumerate(audited.columns):
            type_ = "LONGTEXT CHARACTER SET utf8mb4"
            if column.name in {key.name for key in audited.key}:
                type_ = self._key_type(column, collations)
                match.append(f"t.{self.quote(column.name)} = {self._key_value(column, f'v.o{i}')}")
            paths.append(f"o{i} {type_} PATH '$[{i}]'")
        forms = range(len(audited.columns), self.image_width(audited))
        paths += [f"o{i} LONGTEXT CHARACTER SET utf8mb4 PATH '$[{i}]'" for i in forms]
        join = "STRAIGHT_JOIN" if audited.table.primary_key.columns else "JOIN"
        return (
            f"JSON_TABLE(:rows, '$[*]' COLUMNS ({', '.join(paths)})) AS v "
            f"{join} {self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)} "
            f"ON {' AND '.join(match)}"
        )

    def _unchanged(self, audited: AuditedTable) -> str:
        """Give the condition that a row is as its image, which is in parameters."""
        keys = {column.name for column in audited.key}
        same = [
            f":o{i} IS NULL" if column.protected else f"BINARY :o{i} <=> BINARY {self._text(column, 't')}"
            for i, column in enumerate(audited.columns)
            if column.name not in keys
        ]
        return " AND ".join(same) or "TRUE"

    # -- many rows -------------------------------------------------------------------

    def create_stage(self, target: Target, name: str) -> list[str]:
        """Create a temporary table like the images in one statement (ALTER would commit), its keys collated alike."""
        keys = [f"t.{self.quote(column.name)} AS k{i}" for i, column in enumerate(target.audited.key)]
        names = ", ".join(f"k{i}" for i in range(len(keys)))
        texts = ", ".join(f"o{i} LONGTEXT CHARACTER SET utf8mb4" for i in range(len(target.audited.columns)))
        return [
            f"CREATE TEMPORARY TABLE {name} ({texts}, PRIMARY KEY ({names})) ENGINE=InnoDB AS SELECT {', '.join(keys)} "
            f"FROM {self.table_name(target.audited.table, target.schemas)} AS t LIMIT 0"
        ]

    def drop_stage(self, name: str) -> list[str]:
        """Drop the temporary table; without that word it would commit."""
        return [f"DROP TEMPORARY TABLE IF EXISTS {name}"]

    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images."""
        audited = target.audited
        members = ", ".join(self.members(audited)) or "''"
        match = " AND ".join(f"t.{self.quote(column.name)} = v.k{i}" for i, column in enumerate(audited.key))
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        names = "".join(f", c.{self.quote(column.name)}" for column in audited.recorded)
        return (
            f"SELECT 'U' AS audit_op, CONCAT('{{', SUBSTR(c.audit_before, 2), '}}') AS audit_before{names} "
            f"FROM (SELECT CONCAT({members}) AS audit_before{columns} "
            f"FROM {name} AS v JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) AS c "
            "WHERE c.audit_before <> ''"
        )

    def _key_type(self, column: RecordedColumn, collations: Mapping[str, str | None]) -> str:
        collation = collations.get(column.name)
        if collation:
            return f"VARCHAR(768) CHARACTER SET {collation.split('_')[0]} COLLATE {collation}"
        type_ = self.database_type(column.source.type)
        if isinstance(type_, sa.Integer):
            return "BIGINT UNSIGNED" if getattr(type_, "unsigned", False) else "BIGINT"
        return "VARCHAR(768)"

    def _key_value(self, column: RecordedColumn, value: str) -> str:
        if isinstance(self.database_type(column.source.type), sa.LargeBinary | mysql.BINARY | mysql.VARBINARY):
            return f"UNHEX({value})"
        return value

    def _collations(self, connection: Connection, target: Target) -> dict[str, str | None]:
        """Ask once for the collations of text keys: a JSON_TABLE column must have the same to use the index."""
        table = target.audited.table
        if not any(isinstance(self.database_type(key.type), sa.String | sa.Enum) for key in target.audited.key):
            return {}
        schema = target.schemas.get(table.schema, table.schema)
        statement = sa.text(
            "SELECT column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :name"
        )
        rows = internal(connection, statement, {"schema": schema, "name": table.name})
        return {row[0]: row[1] for row in rows}


def _entry_text(sql: str) -> Any:
    """Give the INSERT of an entry, which returns what the database gave it."""
    columns = (sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
    return sa.text(sql).bindparams(*claim_parameters()).columns(*columns)


def _protected(batch: Batch) -> dict[str, Any]:
    """Give the document of protected values as a parameter, if there is one."""
    return {} if batch.protected is None else {"protected": batch.protected}


def _rows(images: Sequence[Image]) -> dict[str, Any]:
    """Give images as parameters: one as its texts, several as one JSON document."""
    if len(images) == 1:
        return {f"o{i}": text for i, text in enumerate(json.loads(images[0].values[0]))}
    return {"rows": "[" + ",".join(image.values[0] for image in images) + "]"}
