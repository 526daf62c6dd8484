"""What one pass over a database's catalog gives, the same for all databases.

Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..ddl import TrailObject, backend_for
from ..model.history import Trail
from .level import Finding

Place = tuple[str | None, str]
"""A table by real schema and name; no schema on SQLite's main database."""


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table as it stands: ``form`` is ``table``, or what else it is."""

    form: str
    columns: frozenset[str]


@dataclass(slots=True)
class Live:
    """Tables, and the definitions of triggers and functions by kind, schema, table and name."""

    tables: dict[Place, LiveTable] = field(default_factory=dict)
    objects: dict[tuple[str, str | None, str | None, str], str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class CatalogReader(ABC):
    """One database's catalog."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.backend = backend_for(dialect)
        self.default_schema = dialect.default_schema_name

    def schema(self, name: str | None) -> str | None:
        """Give a schema's real name."""
        return name or self.default_schema

    def place(self, table: sa.Table) -> Place:
        """Give where a table should stand."""
        return self.schema(table.schema), table.name

    def expected(self, trail: Trail, tables: Iterable[sa.Table]) -> list[TrailObject]:
        """Give the objects that should stand beside and on the tables."""
        shared = self.backend.shared_objects(trail, {}, self.default_schema)
        capture = self.backend.capture_shared(trail, {}, self.default_schema) if trail.captures else []
        own = [entry for table in tables for entry in self.backend.guard_objects(table, trail, {}, self.default_schema)]
        by_trigger = [
            entry for audited in trail.captured() for entry in self.backend.capture(audited, {}, self.default_schema)
        ]
        return [*shared, *capture, *own, *by_trigger]

    def fires_after(self, definition: str) -> bool:
        """Tell whether a trigger is one that fires after the change, where the order of names counts."""
        return False

    @abstractmethod
    def read(self, connection: Connection, tables: Mapping[Place, sa.Table], data: set[Place]) -> Live:
        """Read what stands there.

        Args:
            connection: to the database.
            tables: the trail's tables by where they should stand.
            data: where the audited tables should stand.
        """

    def partitions(self, connection: Connection, trail: Trail) -> list[Finding]:
        """Say what is not as it should be with the partitions of histories by month."""
        return []

    @abstractmethod
    def rights(self, connection: Connection, trail: Trail, tables: list[sa.Table]) -> list[Finding]:
        """Say who could change the trail."""


def reader_for(dialect: Dialect) -> CatalogReader:
    """Give the reader of a dialect.

    Raises:
        UnauditedWrite: for a database that the library does not know.
    """
    from .drift_mariadb import MariaDBReader
    from .drift_postgresql import PostgreSQLReader
    from .drift_sqlite import SQLiteReader

    readers: dict[str, type[CatalogReader]] = {
        "postgresql": PostgreSQLReader,
        "sqlite": SQLiteReader,
        "mariadb": MariaDBReader,
    }
    return readers[backend_for(dialect).name](dialect)
