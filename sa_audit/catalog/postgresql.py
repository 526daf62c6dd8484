"""PostgreSQL: forms made by the server, under settings that are pinned for the transaction.

Imports the room's own parts.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from .database import BATCH, CatalogDatabase, Convert, LiveColumn

_TYPES: Final = {
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "numeric": "decimal",
    "float8": "float64",
    "float4": "float32",
    "bool": "bool",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "name": "text",
    "citext": "text",
    "json": "json",
    "jsonb": "json",
    "bytea": "bytes",
    "uuid": "uuid",
    "bit": "bits",
    "varbit": "bits",
    "timestamptz": "instant",
    "timestamp": "datetime",
    "date": "date",
    "time": "time",
    "timetz": "timetz",
    "interval": "interval",
}
"""By ``typname``; all others, arrays among them, are printed."""

_FUTURE: Final = (1 << 63) - 1
_PAST: Final = -(1 << 63)
_MICROSECONDS: Final = "CAST(extract(epoch FROM {0}) * 1000000 AS bigint)"
_INFINITE: Final = (
    f"CASE WHEN isfinite({{0}}) THEN {{1}} WHEN {{0}} IS NULL THEN NULL WHEN {{0}} > now() THEN {_FUTURE} "
    f"ELSE CAST('{_PAST}' AS bigint) END"
)
_EXPRESSIONS: Final = {
    "decimal": "CAST(trim_scale({0}) AS text)",
    "float64": r"CASE WHEN {0} = 'NaN' THEN CAST('\x7ff8000000000000' AS bytea) ELSE float8send({0}) END",
    "float32": r"CASE WHEN {0} = 'NaN' THEN CAST('\x7fc00000' AS bytea) ELSE float4send({0}) END",
    "json": "CAST({0} AS text)",
    "text": "CAST({0} AS text)",
    "enum": "CAST({0} AS text)",
    "uuid": "uuid_send({0})",
    "bits": "CAST({0} AS text)",
    "instant": _INFINITE.replace("{1}", _MICROSECONDS),
    "datetime": _INFINITE.replace("{1}", _MICROSECONDS),
    "date": _INFINITE.replace("{1}", "CAST({0} - DATE '1970-01-01' AS bigint)"),
    "time": _MICROSECONDS,
    "timetz": "timetz_send({0})",
    "interval": "interval_send({0})",
    "printed": "CAST({0} AS text)",
}
_SETTINGS: Final = {
    "search_path": "pg_catalog, pg_temp",
    "row_security": "off",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
_PIN: Final = sa.text(
    "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items())
)


_CURSORS: Final = itertools.count(1)


class PostgreSQLCatalog(CatalogDatabase):
    """PostgreSQL, from 13 on."""

    @property
    def reads_ahead(self) -> bool:
        """Whether psycopg is the driver, of which threads may share a connection."""
        return self.dialect.driver == "psycopg" and not self.dialect.is_async

    @contextmanager
    def pinned(self, connection: Connection) -> Iterator[None]:
        """Pin the settings until the transaction ends; a row-security policy that would hide rows raises.

        Tables without a schema are read, meanwhile, from the connection's default one by its name.
        """
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        default = connection.dialect.default_schema_name or "public"
        connection.execution_options(schema_translate_map={**schemas, None: schemas.get(None) or default})
        try:
            connection.execute(_PIN)
            yield
        finally:
            connection.execution_options(schema_translate_map=schemas)

    def schema(self, connection: Connection, table: sa.Table) -> str | None:
        """Give the real schema: names are not looked up by any search path."""
        return super().schema(connection, table) or connection.dialect.default_schema_name or "public"

    def batches(
        self, connection: Connection, select: str, parameters: Mapping[str, Any], *, size: int = BATCH
    ) -> Generator[Sequence[Any], None, None]:
        """Fetch through psycopg itself where it is the driver: in binary, and without an object for each row.

        A thread fetches the next batch while the caller works on one, since half of the time goes by in waiting for
        the server.  What the caller sends over the connection meanwhile comes behind that fetch, by the driver's lock.
        """
        if not self.reads_ahead:
            yield from super().batches(connection, select, parameters, size=size)
            return
        statement = str(sa.text(select).compile(dialect=self.dialect))
        driver: Any = connection.connection.driver_connection
        try:
            with (
                driver.cursor(name=f"sa_audit_{next(_CURSORS)}", binary=True) as cursor,
                ThreadPoolExecutor(1, "sa_audit-fetch") as ahead,
            ):
                cursor.execute(statement, dict(parameters))
                following = ahead.submit(cursor.fetchmany, size)
                while rows := following.result():
                    following = ahead.submit(cursor.fetchmany, size)
                    yield rows
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(statement, dict(parameters), error) from error

    def columns(self, connection: Connection, schema: str | None, name: str) -> list[LiveColumn]:
        """Read ``pg_attribute``."""
        rows = connection.execute(_COLUMNS, {"schema": schema, "name": name})
        return [
            LiveColumn(
                name=row.name,
                type="enum" if row.kind == "e" else _TYPES.get(row.type, "printed"),
                sql_type=row.sql_type,
            )
            for row in rows
        ]

    def expression(self, type_: str, column: str) -> str:
        """Let the server make the form; what it can't give as one value is sent as bytes."""
        return _EXPRESSIONS.get("printed" if type_.endswith("[]") else type_, "{0}").format(column)

    def unusual(self, type_: str, column: str) -> str | None:
        """Tell infinite moments."""
        return f"NOT isfinite({column})" if type_ in ("instant", "datetime", "date") else None

    def converter(self, type_: str) -> Convert | None:
        """Convert infinite moments, and what was sent as bytes."""
        return _CONVERTERS.get(type_)


def _moment(value: int) -> Any:
    if value == _FUTURE:
        return "Infinity"
    return "-Infinity" if value == _PAST else value


def _timetz(value: bytes) -> Any:
    microseconds, west = struct.unpack(">qi", value)
    return (microseconds, -west)


def _interval(value: bytes) -> Any:
    microseconds, days, months = struct.unpack(">qii", value)
    return (months, days, microseconds)


_CONVERTERS: Final[dict[str, Convert]] = {
    "instant": _moment,
    "datetime": _moment,
    "date": _moment,
    "timetz": _timetz,
    "interval": _interval,
}
_COLUMNS: Final = sa.text(
    """
SELECT a.attname AS name, t.typname AS type, t.typtype AS kind, format_type(a.atttypid, a.atttypmod) AS sql_type
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
 WHERE n.nspname = :schema AND c.relname = :name
 ORDER BY a.attnum
"""
).columns(name=sa.Text(), type=sa.Text(), kind=sa.Text(), sql_type=sa.Text())
