"""PostgreSQL: guards in PL/pgSQL, images as text, history by one statement.

Images are read as text and compared as text, bytewise, so that 1.0 and 1.00, or 24:00 and one day, differ.
Every text can be cast back to its column's type.  Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from ..model.history import AuditedTable, RecordedColumn, Trail
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    MARKER,
    Batch,
    DriverRead,
    Entry,
    Image,
    Key,
    Recorded,
    Target,
    claim_parameters,
    internal,
    moment_parameter,
)
from .postgresql_access import PostgreSQLAccess
from .postgresql_records import writes_by_functions
from .postgresql_types import text_form

MAX_JSONB = 64_000_000
"""Length of images up to which they are sent as jsonb, which finds members three times as fast, and ends at 256 MB."""


class PostgreSQL(PostgreSQLAccess):
    """PostgreSQL 13 and later."""

    name = "postgresql"
    fresh_isolation = "READ COMMITTED"
    outlives_failure = False
    locks_in_order = True
    row_lock = " FOR NO KEY UPDATE"
    relaxed_setting = "SET synchronous_commit = off"
    streams_beside = True

    # -- images --------------------------------------------------------------------

    def upsert_marker(self, table: sa.Table) -> Any:
        """A row that an upsert inserted has no xmax; one that it updated was locked first."""
        name = self.dialect.identifier_preparer.quote(table.name)
        return (sa.literal_column(f"{name}.xmax") != sa.literal_column("0")).label(MARKER)

    def settings_expression(self, audited: AuditedTable) -> str | None:
        """Pin what would make a float's text lossy, or that of dates inside arrays and the like ambiguous."""
        memo, cache_key = audited.memo, (self, "settings")
        if cache_key not in memo:
            pinned = (f"pg_catalog.set_config('{k}', {v}, true)" for k, v in self.settings(audited).items())
            memo[cache_key] = " || ".join(pinned) or None
        expression: str | None = memo[cache_key]
        return expression

    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Read the recorded columns as texts in one JSON array."""
        texts = ", ".join(self.staged_columns(audited, alias))
        return [f"CAST(pg_catalog.array_to_json(ARRAY[{texts}]) AS text)"]

    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Keep each recorded column as text."""
        return [self._image(column, alias) for column in audited.columns]

    def _image(self, column: RecordedColumn, alias: str) -> str:
        text = text_form(self.database_type(column.source.type), f"{alias}.{self.quote(column.name)}")
        return f"pg_catalog.md5({text})" if column.masked else text

    def insert_absent(self, table: sa.Table, column: str) -> Any:
        """Give the INSERT ... ON CONFLICT DO NOTHING."""
        return pg.insert(table).on_conflict_do_nothing(index_elements=[table.c[column]])

    def among(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        """Give the values as an array, so that the statement's text does not grow with them, and look each one up."""
        texts = pg.ARRAY(sa.Text())
        return column.in_(sa.select(sa.func.unnest(sa.cast(sa.bindparam(name, type_=texts), texts))))

    def person_text(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        """Give its text."""
        return self._image(column, alias)

    def joined(self, *texts: str) -> str:
        """Put bars between them."""
        return " || ".join(texts)

    def insert_wrapped(
        self, connection: Connection, trail: Trail, made: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Write them by one statement, from an array for each column."""
        keys: Any = trail.person_key
        statement = trail.memo.get((self, "keys"))
        if statement is None:
            types = {column.name: pg.ARRAY(_unlimited(column.type)) for column in keys.c}
            arrays = [sa.cast(sa.bindparam(name, type_=type_), type_) for name, type_ in types.items()]
            rows = sa.func.unnest(*arrays).table_valued(*types).render_derived()
            insert = self.insert_absent(keys, "subject").from_select(list(types), sa.select(*rows.c))
            statement = trail.memo[self, "keys"] = insert
        values = {column.name: [row[column.name] for row in made] for column in keys.c}
        connection.execute(statement, values, execution_options=options)

    def row_label(self, audited: AuditedTable, alias: str) -> str:
        """Take the texts of the key as a row; no setting changes them."""
        key = (
            text_form(self.database_type(column.type), f"{alias}.{self.quote(column.name)}") for column in audited.key
        )
        return f"CAST(ROW({', '.join(key)}) AS text)"

    def protected_member(self, audited: AuditedTable, alias: str, member: str) -> str:
        """Look it up in the binary form, by search, which the statement makes once and names as a table."""
        return f"(((SELECT document FROM sa_audit_protected) -> {self.row_label(audited, alias)}) ->> '{member}')"

    def with_document(self, query: sa.Select[Any], document: str) -> sa.Select[Any]:
        """Name the document as a table."""
        made = sa.cast(sa.literal(document, sa.Text()), pg.JSONB(none_as_null=True)).label("document")
        return query.add_cte(sa.select(made).cte("sa_audit_protected"))

    def key_predicate(self, audited: AuditedTable, alias: str) -> str:
        """Give keys of one column as an array, whose text and parameters don't grow with it."""
        if len(audited.key) > 1:
            return super().key_predicate(audited, alias)
        column = audited.key[0]
        return f"{alias}.{self.quote(column.name)} = ANY (CAST(:keys AS {self._array_type(column)}))"

    def keys_parameter(self, audited: AuditedTable) -> sa.BindParameter[Any]:
        """Give the array of keys of one column, or else the expanding parameter."""
        if len(audited.key) > 1:
            return super().keys_parameter(audited)
        return sa.bindparam("keys", type_=pg.ARRAY(audited.key[0].type))

    def images_ahead(self, target: Target, keys: Sequence[Key]) -> DriverRead | None:
        """Give the SELECT of rows by a key of one column, which is an array and needs no text of its own.

        Equal keys of a table without a primary key have to be refused before anything is changed.
        """
        audited = target.audited
        if len(audited.key) > 1 or not audited.table.primary_key.columns or len(keys) > self.chunk:
            return None
        memo, cache_key = audited.memo, (self, "images ahead", tuple(target.schemas.items()))
        known = memo.get(cache_key)
        if known is None:
            compiled = self._images_statement(target).compile(dialect=self.dialect)
            prepare = self.keys_parameter(audited).type.dialect_impl(self.dialect).bind_processor(self.dialect)
            known = memo[cache_key] = (compiled.string, prepare, functools.partial(self._images_of, audited.key[0]))
        sql, prepare, images = known
        values = [key[0] for key in keys]
        return DriverRead(sql, {"keys": prepare(values) if prepare is not None else values}, images)

    def _images_of(self, column: sa.Column[Any], cursor: Any) -> dict[Key, Image]:
        """Read images off the driver's cursor."""
        process = column.type.dialect_impl(self.dialect).result_processor(self.dialect, cursor.description[0].type_code)
        images: dict[Key, Image] = {}
        for value, *rest in cursor.fetchall():
            key = (value if process is None else process(value),)
            images[key] = Image(key, tuple(rest))
        return images

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
        """Write entry and history rows in one statement, one round trip."""
        audited = target.audited
        kinds = (("I", batch.inserted), ("U", batch.images), ("D", batch.deleted))
        parts = "".join(kind for kind, rows in kinds if rows)
        images = "[" + ",".join(image.values[0] for image in batch.images) + "]"
        document = "jsonb" if len(images) < MAX_JSONB else "json"
        statement = self._statement(target, parts, document, known=entry is not None)
        parameters: dict[str, Any] = {"flush": flush}
        if entry is None:
            parameters.update(claims)
        else:
            parameters.update(tx=entry.id, at=entry.recorded_at)
        for prefix, keys in (("i", batch.inserted), ("d", batch.deleted)):
            if keys:
                for index in range(len(audited.key)):
                    parameters[f"{prefix}{index}"] = [key[index] for key in keys]
        if batch.images:
            parameters["images"] = images
        if batch.protected is not None:
            parameters["protected"] = batch.protected
        row = internal(connection, statement, parameters).one()
        made = entry if entry is not None else (Entry(row.tx, row.recorded_at) if row.tx is not None else None)
        return Recorded(made, row.inserted, row.others)

    def _statement(self, target: Target, parts: str, document: str, *, known: bool) -> sa.TextualSelect:
        memo = target.audited.memo
        cache_key = (self, "record", parts, document, known, tuple(target.schemas.items()))
        statement: sa.TextualSelect | None = memo.get(cache_key)
        if statement is None:
            statement = memo[cache_key] = self._build(target, parts, document, known=known)
        return statement

    def _build(self, target: Target, parts: str, document: str, *, known: bool) -> sa.TextualSelect:
        audited, schemas = target.audited, target.schemas
        columns = [self.quote(column.name) for column in audited.recorded]
        selects: list[str] = []
        parameters: list[sa.BindParameter[Any]] = [sa.bindparam("flush", type_=sa.Integer())]
        document_table = ""
        if audited.protected and parts != "U":
            parameters.append(sa.bindparam("protected", type_=sa.Text()))
            document_table = "sa_audit_protected AS MATERIALIZED (SELECT CAST(:protected AS jsonb) AS document), "
        for part in parts:
            sql, binds = self._part(part, audited, self.table_name(audited.table, schemas), document)
            selects.append(sql)
            parameters += binds
        transaction = self.table_name(target.trail.transaction, schemas)
        if known:
            entry = "sa_audit_entry AS (SELECT CAST(:tx AS bigint) AS id, CAST(:at AS timestamptz) AS recorded_at)"
            parameters += [sa.bindparam("tx", type_=sa.BigInteger()), moment_parameter("at")]
        else:
            names = ", ".join(CLAIMS)
            values = ", ".join(f"CAST(:{name} AS {'json' if name == 'context' else 'text'})" for name in CLAIMS)
            entry = (
                f"sa_audit_entry AS (INSERT INTO {transaction} ({names}) SELECT {values} "
                "WHERE EXISTS (SELECT 1 FROM sa_audit_rows) RETURNING id, recorded_at)"
            )
            parameters += claim_parameters()
        history = self.table_name(audited.history, schemas)
        target_columns = "".join(f", {name}" for name in columns)
        sql = (
            f"WITH {document_table}sa_audit_rows AS MATERIALIZED ({' UNION ALL '.join(selects)}), {entry}, "
            f"sa_audit_done AS (INSERT INTO {history} (audit_tx, audit_op, audit_at, audit_before, audit_flush"
            f"{target_columns}) SELECT e.id, r.audit_op, e.recorded_at, r.audit_before, CAST(:flush AS integer)"
            f"{''.join(f', r.{name}' for name in columns)} FROM sa_audit_rows r CROSS JOIN sa_audit_entry e "
            "RETURNING audit_tx, audit_at, audit_op) "
            "SELECT max(audit_tx) AS tx, max(audit_at) AT TIME ZONE 'UTC' AS recorded_at, "
            "count(*) FILTER (WHERE audit_op = 'I') AS inserted, "
            "count(*) FILTER (WHERE audit_op <> 'I') AS others FROM sa_audit_done"
        )
        return (
            sa.text(sql)
            .bindparams(*parameters)
            .columns(
                sa.column("tx", sa.BigInteger()),
                sa.column("recorded_at", UTCDateTime()),
                sa.column("inserted", sa.BigInteger()),
                sa.column("others", sa.BigInteger()),
            )
        )

    def _part(
        self, part: str, audited: AuditedTable, table: str, document: str
    ) -> tuple[str, list[sa.BindParameter[Any]]]:
        if part == "U":
            columns = self.history_values(audited, image=lambda place: f"(v.o0 ->> {place})")
            positions = {column.name: i for i, column in enumerate(audited.columns)}
            match = " AND ".join(
                f"t.{self.quote(key.name)} = CAST(v.o0 ->> {positions[key.name]} AS {self.type_name(key.type)})"
                for key in audited.key
            )
            rows = looked_up(audited, table, match)
            images = f"{document}_array_elements(CAST(:images AS {document})) AS v(o0) {rows}"
            return changed_rows(self, audited, columns, images), [sa.bindparam("images", type_=sa.Text())]
        columns = self.history_values(audited)
        prefix = part.lower()
        arrays = [f"CAST(:{prefix}{i} AS {self._array_type(column)})" for i, column in enumerate(audited.key)]
        binds = [sa.bindparam(f"{prefix}{i}", type_=pg.ARRAY(column.type)) for i, column in enumerate(audited.key)]
        names = ", ".join(f"k{i}" for i in range(len(audited.key)))
        match = " AND ".join(f"t.{self.quote(column.name)} = k.k{i}" for i, column in enumerate(audited.key))
        rows = looked_up(audited, table, match, lock=part == "D")
        sql = (
            f"(SELECT '{part}' AS audit_op, CAST(NULL AS json) AS audit_before{columns} "
            f"FROM unnest({', '.join(arrays)}) AS k({names}) {rows})"
        )
        return sql, binds

    def _array_type(self, column: sa.Column[Any]) -> str:
        return self.type_name(column.type) + "[]"

    def create_stage(self, target: Target, name: str) -> list[str]:
        """Create a temporary table like the images, gone with the transaction."""
        keys = [f"t.{self.quote(column.name)} AS k{i}" for i, column in enumerate(target.audited.key)]
        images = [f"CAST(NULL AS text) AS o{i}" for i in range(len(target.audited.columns))]
        settings = self.settings_expression(target.audited)
        return [
            *([f"SELECT {settings}"] if settings else []),
            f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {', '.join(keys + images)} "
            f"FROM {self.table_name(target.audited.table, target.schemas)} AS t LIMIT 0",
        ]

    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images."""
        audited = target.audited
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        match = " AND ".join(f"t.{self.quote(column.name)} = v.k{i}" for i, column in enumerate(audited.key))
        rows = f"JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}"
        return changed_rows(self, audited, columns, f"{name} AS v {rows}", staged=True)

    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself, or have it written where the application may not."""
        if writes_by_functions(target.trail):
            return self.open_entry(connection, target.trail, claims)
        names = ", ".join(CLAIMS)
        statement = (
            sa.text(
                f"INSERT INTO {self.table_name(target.trail.transaction, target.schemas)} ({names}) "
                f"VALUES ({', '.join(':' + name for name in CLAIMS)}) "
                "RETURNING id, recorded_at AT TIME ZONE 'UTC' AS recorded_at"  # read alike under any DateStyle
            )
            .bindparams(*claim_parameters())
            .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        )
        row = internal(connection, statement, dict(claims)).one()
        return Entry(row.id, row.recorded_at)


def _unlimited(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give a type without its length, which a cast would cut values to."""
    return sa.LargeBinary() if isinstance(type_, sa.LargeBinary) else sa.Text()


def looked_up(audited: AuditedTable, table: str, match: str, *, lock: bool = False) -> str:
    """Give the join to the rows of a table, looked up one by one where the key has an index.

    The planner can't know how few keys there are, and would rather read the whole of a small table.
    """
    if not audited.table.primary_key.columns:
        return f"JOIN {table} AS t ON {match}" + (" FOR UPDATE OF t" if lock else "")
    locking = " FOR UPDATE" if lock else ""
    return f"CROSS JOIN LATERAL (SELECT t.* FROM {table} AS t WHERE {match} OFFSET 0{locking}) AS t"


def changed_rows(backend: PostgreSQL, audited: AuditedTable, columns: str, images: str, *, staged: bool = False) -> str:
    """Give the SELECT of the rows that differ from their images, with what differs as a before-object.

    ``images`` is the FROM clause that gives the rows as ``t`` and their images as one JSON array ``v.o0``, or staged
    as the texts ``v.o0``, ``v.o1`` and so on.
    """
    keys = {column.name for column in audited.key}
    members = []
    for i, column in enumerate(audited.columns):
        if column.name in keys:
            continue
        if column.protected:
            members.append(f"coalesce({backend.json_key(column.name)} || (v.o0 ->> {i}), '')")
            continue
        old = f"v.o{i}" if staged else f"(v.o0 ->> {i})"
        member = f"coalesce(CAST(to_json({old}) AS text), 'null')" if staged else f"CAST(v.o0 -> {i} AS text)"
        value = "'true'" if column.masked else member
        now = backend._image(column, "t")
        members.append(
            f'CASE WHEN {old} IS DISTINCT FROM {now} COLLATE "C" '
            f"THEN {backend.json_key(column.name)} || {value} ELSE '' END"
        )
    if not members:
        members = ["''"]
    return (
        "(SELECT 'U' AS audit_op, CAST('{' || substr(d.b, 2) || '}' AS json) AS audit_before"
        f"{columns} FROM {images} "
        f"CROSS JOIN LATERAL (SELECT {' || '.join(members)} AS b OFFSET 0) AS d WHERE d.b <> '')"
    )
