"""Where the trail stands: which tables of which trails are in a session's database.

Imports model, ddl, errors and SQLAlchemy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ..ddl.backend import noted_trails
from ..errors import CaptureMissing, NotAudited
from ..model import Trail, complete, trail_of
from ..model.history import known_trails
from .entity import Subject, mapper_of, root_of, subject_of, subjects_of
from .records import Kind, RecordPlace
from .rows import Source, source_of

Seen = dict[tuple[Connection, str | None], dict[str, set[str]]]
"""The tables of each schema that was looked at, with their columns: read once, however many trails are asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One ``audit_transaction`` table with the subjects whose entries it holds."""

    source: Source
    trail: Trail
    subjects: tuple[Subject, ...]

    @property
    def name(self) -> str:
        """The full name of its table of entries."""
        return self.trail.transaction.fullname

    @property
    def record_places(self) -> dict[Kind, RecordPlace]:
        """Where its events stand, and its reads, if a model records them."""
        keys = {subject.parts[0].audited.table.fullname: subject.parts[0].key for subject in self.subjects}
        places: dict[Kind, RecordPlace] = {"event": RecordPlace(self.trail, "event", keys)}
        if self.trail.access is not None:
            places["read"] = RecordPlace(self.trail, "read", keys)
        return places


def stretches_of(session: Session, base: Any = None, entity: Any = None) -> list[Stretch]:
    """Give what to read: of an entity, of a base, or of all models that have history tables in the database.

    Where several MetaData describe a history table with the columns that it has, one whose tables were created or
    written through this engine speaks for it, and else the one that was made last.

    Args:
        session: where to read.
        base: a declarative base or MetaData, or None.
        entity: a class, mapper or table, or None.

    Raises:
        NotAudited: if nothing of the kind is recorded.
        CaptureMissing: if the database has none of the tables.
    """
    if entity is not None:
        subject = subject_of(entity if isinstance(entity, sa.Table) else root_of(mapper_of(entity)))
        return [Stretch(source=source_of(session, subject.bind_arguments), trail=subject.trail, subjects=(subject,))]
    if base is not None:
        trail = _trail_of(base)
        source, everything = _all_of(session, trail)
        return [Stretch(source=source, trail=trail, subjects=tuple(everything))]
    stretches: dict[str, Stretch] = {}
    taken: set[str] = set()
    seen: Seen = {}
    for candidate in _candidates(session):
        complete(candidate.metadata)
        stretch = _stretch(session, candidate, taken, seen) if candidate.audited else None
        if stretch is None or not stretch.subjects:
            continue
        known = stretches.get(stretch.name)
        subjects = (*(known.subjects if known else ()), *stretch.subjects)
        stretches[stretch.name] = Stretch(
            source=stretch.source, trail=known.trail if known else stretch.trail, subjects=subjects
        )
    if not stretches:
        raise CaptureMissing(
            "no history table of the models is in the database: import the models, and create the tables with "
            "metadata.create_all() or the migration"
        )
    return list(stretches.values())


def _candidates(session: Session) -> list[Trail]:
    """Give the trails in the order in which they speak for a table: those known to stand here first, newest first."""
    trails = known_trails()
    bind = session.bind
    here = set(noted_trails(bind.dialect)) if bind is not None else set()
    return sorted(trails, key=lambda trail: (trail in here, trail.serial), reverse=True)


def _all_of(session: Session, trail: Trail) -> tuple[Source, list[Subject]]:
    """Give where a trail stands, and all its subjects.

    Raises:
        NotAudited: if it has none.
    """
    tables = list(trail.audited.values())
    if not tables:
        raise NotAudited("nothing of this MetaData is audited: add Audited to its models, or call sa_audit.track()")
    subjects = subjects_of(trail, tables)
    return source_of(session, subjects[0].bind_arguments), subjects


def _stretch(session: Session, trail: Trail, taken: set[str], seen: Seen) -> Stretch:
    """Give a trail's stretch, with those of its tables that are in the database and not yet ``taken``."""
    source, everything = _all_of(session, trail)
    there = _history_tables(source, trail, seen)
    chosen = []
    for subject in everything:
        names = {part.history.fullname for part in subject.parts}
        if names <= there and names.isdisjoint(taken):
            chosen.append(subject)
            taken |= names
    return Stretch(source=source, trail=trail, subjects=tuple(chosen))


def _history_tables(source: Source, trail: Trail, seen: Seen) -> set[str]:
    """Give the full names of the trail's history tables that are in the database, with all the model's columns."""
    schemas = source.connection.get_execution_options().get("schema_translate_map") or {}
    there = set()
    for audited in trail.audited.values():
        history = audited.history
        schema = schemas.get(history.schema, history.schema)
        place = (source.connection, schema)
        if place not in seen:
            seen[place] = _columns(source, schema)
        if {column.name for column in history.columns} <= seen[place].get(history.name, set()):
            there.add(history.fullname)
    return there


def _columns(source: Source, schema: str | None) -> dict[str, set[str]]:
    """Give the names of the columns of each table of a schema; nothing if there is no such schema."""
    inspector = sa.inspect(source.connection)
    if schema is not None and schema not in inspector.get_schema_names():
        return {}
    tables: dict[str, set[str]] = {name: set() for name in inspector.get_table_names(schema=schema)}
    for table, column in source.reader.column_names(source.connection, schema):
        if table in tables:
            tables[table].add(column)
    return tables


def _trail_of(base: Any) -> Trail:
    metadata = base if isinstance(base, sa.MetaData) else getattr(base, "metadata", None)
    found = complete(metadata) if isinstance(metadata, sa.MetaData) and trail_of(metadata) is not None else None
    if found is None:
        raise NotAudited(f"base={base!r} has no audited models: give a declarative base or MetaData that has")
    return found
