"""What one pass over a database's catalog gives, the same for all databases.

Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..ddl import TrailObject, backend_for
from ..ddl.backend import SchemaMap
from ..model.history import Trail
from .level import Finding

ObjectKey = tuple[str, str | None, str | None, str]
"""An object by kind, schema, table (or None) and name."""
UNSEEN: Final[ObjectKey] = ("unseen", None, None, "triggers")
"""The fact that an account may not see the triggers of the trail's tables."""
Place = tuple[str | None, str]
"""A table by real schema and name; no schema on SQLite's main database."""


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table as it stands: ``form`` is ``table``, or what else it is."""

    form: str
    columns: frozenset[str]


@dataclass(slots=True)
class Live:
    """Tables, and the definitions of triggers and functions by kind, schema, table and name.

    ``marks`` say when an object was made or replaced, where the database tells; ``oddities`` are what should not be
    there, such as rules and policies, by kind, schema, table and name.  ``facts`` are further ones that were read
    along, for :meth:`CatalogReader.further`.  ``hidden`` says that there are triggers whose text this account may not
    read.
    """

    tables: dict[Place, LiveTable] = field(default_factory=dict)
    objects: dict[ObjectKey, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    marks: dict[ObjectKey, str] = field(default_factory=dict)
    oddities: dict[ObjectKey, str] = field(default_factory=dict)
    facts: dict[ObjectKey, str] = field(default_factory=dict)
    hidden: bool = False

    def take(self, key: ObjectKey, definition: str, mark: str | None = None) -> None:
        """Take an object; of two under one name neither is what it should be."""
        if key in self.objects:
            definition = f"{self.objects[key]}; and another one of that name: {definition}"
        self.objects[key] = definition
        if mark is not None:
            self.marks[key] = max(mark, self.marks.get(key, mark))


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

    def home(self) -> str | None:
        """Give the name that stands for the database itself, which a copy of it need not share; None if none does."""
        return None

    def schema_place(self, connection: Connection, table: sa.Table) -> Place:
        """Give where a table stands for a connection that translates schemas."""
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        return self.schema(schemas.get(table.schema, table.schema)), str(table.name)

    def expected(self, trail: Trail, tables: Iterable[sa.Table]) -> list[TrailObject]:
        """Give the objects that should stand beside and on the tables."""
        return [*self.guards(trail, tables, {}), *self.capture(trail, {})]

    def guards(self, trail: Trail, tables: Iterable[sa.Table], schemas: SchemaMap) -> list[TrailObject]:
        """Give the guards that should stand on the tables, and what they need; they don't depend on any column.

        Args:
            trail: the trail.
            tables: tables of it.
            schemas: by which schemas are translated.
        """
        shared = self.backend.shared_objects(trail, schemas, self.default_schema)
        own = [
            entry
            for table in tables
            for entry in self.backend.guard_objects(table, trail, schemas, self.default_schema)
        ]
        return [*shared, *own]

    def capture(self, trail: Trail, schemas: SchemaMap) -> list[TrailObject]:
        """Give what should record the tables of trigger capture; it depends on their columns."""
        default = self.default_schema
        shared = self.backend.capture_shared(trail, schemas, default) if trail.captures else []
        return [
            *shared,
            *(entry for audited in trail.captured() for entry in self.backend.capture(audited, schemas, default)),
        ]

    def accepted(self, entry: TrailObject) -> frozenset[str]:
        """Give the definitions that a guard may have, at any time and under either way of capture."""
        return frozenset({entry.definition})

    def further(self, connection: Connection, live: Live, tables: Mapping[Place, sa.Table]) -> dict[ObjectKey, str]:
        """Give what else stands in the catalog of the trail's tables: columns, owners, identities.

        Args:
            connection: to the database.
            live: what was read.
            tables: the trail's tables by where they should stand.
        """
        return {}

    def parts(self, connection: Connection, tables: Collection[Place]) -> set[Place]:
        """Give the partitions of tables."""
        return set()

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
