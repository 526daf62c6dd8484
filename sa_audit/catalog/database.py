"""How each database gives the rows of a trail in canonical forms: the types of columns, and SQL for their forms.

One class for each database, chosen by name.  ``docs/format/canonical.md`` says what the forms are.
Imports SQLAlchemy and errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine

from ..ddl.backend import INTERNAL, backend_for
from ..errors import ConfigurationError

BATCH: Final = 5_000
"""The rows that are fetched at a time."""
Convert = Callable[[Any], Any]
"""Gives the form of a value that is not NULL, from what the SQL expression gave."""


def by_itself(engine: Engine) -> Engine:
    """Give the engine for what the library reads to seal, verify and prune, which is nobody's look at the data."""
    return engine.execution_options(**{INTERNAL: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveColumn:
    """A column as it stands in the database: its name, the type of its form, and the database's name of its type."""

    name: str
    type: str
    sql_type: str


class CatalogDatabase(ABC):
    """One database's way to be read for the log."""

    streams: ClassVar[dict[str, Any]] = {"stream_results": True, "yield_per": BATCH}
    page: ClassVar[int | None] = None
    """The rows that are read at once where a connection can't write while it streams, or None."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.spelling = backend_for(dialect)

    @property
    def reads_ahead(self) -> bool:
        """Whether :meth:`batches` fetches while the caller works, and lets the connection be used meanwhile."""
        return False

    @contextmanager
    def pinned(self, connection: Connection) -> Iterator[None]:
        """Pin the settings that change what is read, within a transaction.

        Args:
            connection: in a transaction, which has to end with the block.
        """
        yield

    def schema(self, connection: Connection, table: sa.Table) -> str | None:
        """Give the real schema that a table stands in, or None where it is the database itself."""
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        return schemas.get(table.schema, table.schema)

    def name_of(self, schema: str | None, name: str) -> str:
        """Give a table's qualified and quoted name, for :func:`sqlalchemy.text`."""
        quoted = self.spelling.quote(name)
        return f"{self.spelling.quote(schema)}.{quoted}" if schema else quoted

    def batches(
        self, connection: Connection, select: str, parameters: Mapping[str, Any], *, size: int = BATCH
    ) -> Generator[Sequence[Any], None, None]:
        """Yield the rows of a SELECT as they come, some thousand at a time.

        Args:
            connection: in a transaction, with pinned settings.
            select: the statement, for :func:`sqlalchemy.text`.
            parameters: its parameters.
            size: how many rows at a time.

        Raises:
            DBAPIError: if the database refuses to give them.
        """
        streams = {**self.streams, "yield_per": size} if self.streams else {}
        with connection.execute(sa.text(select), dict(parameters), execution_options=streams) as result:
            yield from result.partitions(size)

    @abstractmethod
    def columns(self, connection: Connection, schema: str | None, name: str) -> list[LiveColumn]:
        """Give a table's columns in their order; none if there is no such table."""

    @abstractmethod
    def expression(self, type_: str, column: str) -> str:
        """Give SQL for the form of a column, or for what :meth:`converter` makes the form of."""

    def unusual(self, type_: str, column: str) -> str | None:
        """Give SQL that is true for the values that alone need :meth:`converter`, or None if all of the type do."""
        return None

    def converter(self, type_: str) -> Convert | None:
        """Give what makes the form of a value, or None where the expression gives it."""
        return None


def catalog_for(dialect: Dialect) -> CatalogDatabase:
    """Give the class for a dialect.

    Raises:
        ConfigurationError: for a database that the library does not know.
    """
    if dialect.name == "postgresql":
        from .postgresql import PostgreSQLCatalog

        return PostgreSQLCatalog(dialect)
    if dialect.name == "sqlite":
        from .sqlite import SQLiteCatalog

        return SQLiteCatalog(dialect)
    if dialect.name in ("mysql", "mariadb") and getattr(dialect, "is_mariadb", False):
        from .mariadb import MariaDBCatalog

        return MariaDBCatalog(dialect)
    raise ConfigurationError(f"the log can't be kept on {dialect.name!r}: use PostgreSQL, MariaDB or SQLite")
