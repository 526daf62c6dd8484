"""SQLite: values by their storage class, whatever their column was declared as.

Imports the room's own parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..proof.forms import stored_form
from .database import CatalogDatabase, Convert, LiveColumn


class SQLiteCatalog(CatalogDatabase):
    """SQLite."""

    streams: ClassVar[dict[str, Any]] = {}

    @contextmanager
    def pinned(self, connection: Connection) -> Iterator[None]:
        """Read text that is not UTF-8 as well."""
        driver: Any = connection.connection.driver_connection
        former = driver.text_factory
        driver.text_factory = _text
        try:
            yield
        finally:
            driver.text_factory = former

    def columns(self, connection: Connection, schema: str | None, name: str) -> list[LiveColumn]:
        """Read ``PRAGMA table_xinfo``."""
        statement = sa.text("SELECT name, type FROM pragma_table_xinfo(:name, :schema)")
        rows = connection.execute(statement, {"name": name, "schema": schema or "main"})
        return [LiveColumn(name=row[0], type="stored", sql_type=row[1]) for row in rows]

    def expression(self, type_: str, column: str) -> str:
        """Give the column itself."""
        return column

    def converter(self, type_: str) -> Convert | None:
        """Mark floats, and text that is not UTF-8."""
        return stored_form


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
