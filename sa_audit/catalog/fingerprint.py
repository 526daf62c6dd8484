"""The catalog of a trail as facts: each object that keeps the trail append-only, or records, and how it is defined.

The sealer puts their fingerprint into the log; the verifier reads them again.  ``docs/format/entries.md``, "Catalog".
Imports the room's own parts, ddl, model and proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.postgresql_capture_text import CAPTURES
from ..ddl.privileges import trail_tables
from ..model.history import Trail
from ..proof.fingerprint import FactKey
from ..proof.types import Digest
from .database import CatalogDatabase
from .live import CatalogReader, Live, ObjectKey, Place, reader_for


def read_facts(
    connection: Connection, database: CatalogDatabase, trail: Trail, known: Iterable[Place] = ()
) -> dict[FactKey, str | Digest]:
    """Read the facts of a trail's catalog.

    Args:
        connection: in a transaction, its settings pinned.
        database: how to read it.
        trail: the trail, complete.
        known: further tables that the log knows, by schema and name as descriptors say them.
    """
    reader = reader_for(connection.dialect)
    tables = {reader.schema_place(connection, table): table for table in trail_tables(trail)}
    for schema, name in known:
        tables.setdefault((reader.schema(schema), name), sa.Table(name, sa.MetaData(), schema=schema))
    data = {reader.schema_place(connection, table): table.name for table in trail.audited}
    data |= {place: place[1] for place in reader.parts(connection, data)}
    live = reader.read(connection, tables, set(data))
    for schema, name in reader.parts(connection, tables):
        tables.setdefault((schema, name), sa.Table(name, sa.MetaData(), schema=schema))
    facts: dict[ObjectKey, str] = {}
    facts |= {("table", *_apart(place), place[1]): live.tables[place].form for place in tables if place in live.tables}
    for key, definition in _objects(live, tables, data):
        facts[key] = definition
        if key in live.marks:
            facts["mark", *key[1:]] = live.marks[key]
    facts |= live.oddities
    facts |= reader.further(connection, live, tables)
    home = reader.home()
    return {_portable(key, home): _exact(definition) for key, definition in facts.items()}


def _apart(place: Place) -> tuple[str | None, None]:
    return place[0], None


def _objects(
    live: Live, tables: Mapping[Place, sa.Table], data: Mapping[Place, str]
) -> Iterable[tuple[ObjectKey, str]]:
    """Yield the triggers on the trail, the library's own on audited tables, and its functions and procedures."""
    for key, definition in live.objects.items():
        kind, schema, table, name = key
        place = (schema, str(table))
        if kind != "trigger" or place in tables or (place in data and is_capture(data[place], name)):
            yield key, definition


def is_capture(table: str, name: str) -> bool:
    """Tell whether a trigger on an audited table is the library's by its name."""
    return name.startswith((CAPTURES, f"{table}_capture_"))


def _portable(key: ObjectKey, home: str | None) -> FactKey:
    """Give a key without the name of the database itself, as descriptors have it."""
    what, schema, table, name = key
    return what, None if schema == home else _text(schema), _text(table), str(_text(name))


def _text(name: str | None) -> str | None:
    return None if name is None else name.encode(errors="backslashreplace").decode()


def _exact(definition: str) -> str | Digest:
    """Give a definition, or the digest of one that is not UTF-8."""
    raw = definition.encode(errors="surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Digest(hashlib.sha256(raw).digest())


# -- what should be ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a sound catalog has.

    Args:
        guards: by object, the definitions that it may have, whatever columns there are.
        capture: by object, the definition that fits the models as they are.
    """

    guards: Mapping[FactKey, frozenset[str]]
    capture: Mapping[FactKey, str]


def expected_objects(connection: Connection, trail: Trail) -> Expected:
    """Give what a sound catalog of a trail has.

    Args:
        connection: its settings pinned.
        trail: the trail, complete.
    """
    reader = reader_for(connection.dialect)
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    guards = [entry for entry in reader.guards(trail, trail_tables(trail), schemas) if entry.definition]
    capture = [entry for entry in reader.capture(trail, schemas) if entry.definition]
    return Expected(
        guards={_key(reader, entry): reader.accepted(entry) for entry in guards},
        capture={_key(reader, entry): entry.definition for entry in capture},
    )


def _key(reader: CatalogReader, entry: TrailObject) -> FactKey:
    return _portable((entry.kind, reader.schema(entry.schema), entry.table, entry.name), reader.home())
