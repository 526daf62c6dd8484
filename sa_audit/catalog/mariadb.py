"""MariaDB: forms made by the server as far as it can, in UTC.

Imports the room's own parts.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import CatalogDatabase, Convert, LiveColumn

_TYPES: Final = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), "int"),
    "bit": "int",
    "decimal": "decimal",
    "double": "float64",
    "float": "float32",
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "bytes"),
    "enum": "enum",
    "uuid": "uuid",
    "timestamp": "instant",
    "datetime": "datetime",
    "date": "date",
    "time": "time",
}
"""By ``DATA_TYPE``; all others are printed."""
_NEVER: Final = -(1 << 62)
"""What is sent for a date that is none, such as 0000-00-00."""
_EXPRESSIONS: Final = {
    "int": "CAST({0} AS CHAR)",
    "decimal": "CAST({0} AS CHAR)",
    "float64": "CAST({0} AS CHAR)",
    "float32": "CAST({0} + 0e0 AS CHAR)",
    "uuid": "CAST({0} AS CHAR)",
    "instant": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0})",
    "datetime": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0})",
    "date": "DATEDIFF({0}, '1970-01-01')",
    "time": "CAST(TIME_TO_SEC({0}) * 1000000 AS SIGNED)",
    "printed": "CAST({0} AS CHAR)",
}


class MariaDBCatalog(CatalogDatabase):
    """MariaDB."""

    streams: ClassVar[dict[str, Any]] = {}
    page: ClassVar[int | None] = 10_000

    @contextmanager
    def pinned(self, connection: Connection) -> Iterator[None]:
        """Read in UTC; the session's own zone comes back at the end."""
        zone = connection.exec_driver_sql("SELECT @@SESSION.time_zone").scalar_one()
        connection.exec_driver_sql("SET SESSION time_zone = '+00:00'")
        try:
            yield
        finally:
            connection.execute(sa.text("SET SESSION time_zone = :zone"), {"zone": zone})

    def columns(self, connection: Connection, schema: str | None, name: str) -> list[LiveColumn]:
        """Read ``information_schema.columns``."""
        rows = connection.execute(_COLUMNS, {"schema": schema, "name": name})
        return [LiveColumn(name=row[0], type=_TYPES.get(row[1], "printed"), sql_type=row[2]) for row in rows]

    def expression(self, type_: str, column: str) -> str:
        """Let the server make the form, or an exact text of it."""
        made = _EXPRESSIONS.get(type_, "{0}").format(column)
        if type_ in ("instant", "datetime", "date"):
            return f"CASE WHEN {column} IS NULL THEN NULL ELSE coalesce({made}, {_NEVER}) END"
        return f"CAST({column} AS UNSIGNED)" if type_ == "bits" else made

    def converter(self, type_: str) -> Convert | None:
        """Convert exact texts."""
        return _CONVERTERS.get(type_)


def _float64(value: str) -> bytes:
    return struct.pack(">d", float(value))


def _float32(value: str) -> bytes:
    return struct.pack(">f", float(value))


def _decimal(value: str) -> str:
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    return "0" if value in ("-0", "") else value


def _moment(value: int) -> Any:
    return "-Infinity" if value == _NEVER else value


_CONVERTERS: Final[dict[str, Convert]] = {
    "int": int,
    "decimal": _decimal,
    "float64": _float64,
    "float32": _float32,
    "uuid": lambda value: uuid.UUID(value).bytes,
    "instant": _moment,
    "datetime": _moment,
    "date": _moment,
}
_COLUMNS: Final = sa.text(
    "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = coalesce(:schema, DATABASE()) AND TABLE_NAME = :name ORDER BY ORDINAL_POSITION"
)
