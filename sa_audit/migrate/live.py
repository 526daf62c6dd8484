"""What stands in the database that a migration is written for, read when it is asked for.

Imports script, ddl and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.engine.reflection import Inspector

from ..ddl import TrailObject
from .script import Place, Script


class Live:
    """What stands in the database, read when it is asked for.

    Args:
        script: the database's.
        inspector: the one that Alembic has filled already.
        compare_type: Alembic's comparison of a live column's type with a model's.
    """

    def __init__(self, script: Script, inspector: Inspector, compare_type: Callable[..., bool]) -> None:
        self.script = script
        self.inspector = inspector
        self.types_differ = compare_type
        self._schemas: set[str | None] | None = None
        self._tables: dict[str | None, set[str]] = {}
        self._columns: dict[Place, Any] = {}
        self._indexes: dict[Place, Any] = {}

    @property
    def connection(self) -> Connection:
        """The connection that all is read on."""
        return self.inspector.bind  # type: ignore[return-value] # Alembic's is made of a connection

    def has_schema(self, schema: str | None) -> bool:
        """Tell whether there is a schema of that name; None is the default one."""
        if self._schemas is None:
            self._schemas = set(self.inspector.get_schema_names())
        return schema is None or schema in self._schemas

    def has_table(self, place: Place) -> bool:
        """Tell whether there is a table."""
        schema, name = place
        if schema not in self._tables:
            found = self.inspector.get_table_names(schema=schema) if self.has_schema(schema) else []
            self._tables[schema] = set(found)
        return name in self._tables[schema]

    def warm(self, columns: Iterable[Place], indexes: Iterable[Place]) -> None:
        """Read the columns of many tables at once, where they stand, and the indexes of some."""
        for schema, names in self._wanted(columns, self._columns).items():
            found = self.inspector.get_multi_columns(schema=schema, filter_names=names)
            self._columns.update({(schema, name): found[schema, name] for name in names})
        for schema, names in self._wanted(indexes, self._indexes).items():
            known = self.inspector.get_multi_indexes(schema=schema, filter_names=names)
            self._indexes.update({(schema, name): known.get((schema, name), []) for name in names})

    def _wanted(self, places: Iterable[Place], known: Mapping[Place, Any]) -> dict[str | None, list[str]]:
        wanted: dict[str | None, list[str]] = {}
        for place in places:
            if place not in known and self.has_table(place):
                wanted.setdefault(place[0], []).append(place[1])
        return wanted

    def columns(self, place: Place) -> dict[str, Any]:
        """Give a table's columns by name, as the inspector has them."""
        self.warm([place], [])
        return {column["name"]: column for column in self._columns[place]}

    def indexes(self, place: Place) -> dict[tuple[str, ...], str]:
        """Give the name of each of a table's indexes, by its columns."""
        self.warm([], [place])
        return {
            tuple(column for column in index["column_names"] if column is not None): str(index["name"])
            for index in self._indexes[place]
        }

    def comment(self, place: Place) -> str | None:
        """Give a table's comment."""
        schema, name = place
        return self.inspector.get_table_comment(name, schema=schema)["text"]

    def key(self, place: Place) -> str | None:
        """Give the name of a table's primary key."""
        schema, name = place
        return self.inspector.get_pk_constraint(name, schema=schema).get("name")

    def objects(self, schemas: Iterable[str | None]) -> dict[Any, TrailObject]:
        """Give the trail objects of some schemas, by what tells them apart."""
        there = [schema for schema in schemas if self.has_schema(schema)]
        found = self.script.live(self.connection, there) if there else []
        return {self.script.key(entry): entry for entry in found}
