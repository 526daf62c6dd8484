"""Where the trail stands: which tables of which trails are in a session's database.

Imports model, ddl, errors and SQLAlchemy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ddl.backend import noted_trails
from ..errors import CaptureMissing, NotAudited
from ..model import AuditedTable, Trail, complete, trail_of
from ..model.history import known_trails
from .entity import Subject, mapper_of, root_of, subject_of, subjects_of
from .rows import Source, source_of


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
        return [_stretch(session, _trail_of(base), None)]
    stretches: dict[str, Stretch] = {}
    taken: set[str] = set()
    for candidate in _candidates(session):
        complete(candidate.metadata)
        stretch = _stretch(session, candidate, taken) if candidate.audited else None
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


def _stretch(session: Session, trail: Trail, taken: set[str] | None) -> Stretch:
    """Give a trail's stretch: with all its tables, or with those that are in the database and not yet ``taken``."""
    tables = list(trail.audited.values())
    if not tables:
        raise NotAudited("nothing of this MetaData is audited: add Audited to its models, or call sa_audit.track()")
    everything = subjects_of(trail, tables)
    source = source_of(session, everything[0].bind_arguments)
    if taken is None:
        return Stretch(source=source, trail=trail, subjects=tuple(everything))
    there = _history_tables(source, trail)
    chosen = []
    for subject in everything:
        names = {part.history.fullname for part in subject.parts}
        if names <= there and names.isdisjoint(taken):
            chosen.append(subject)
            taken |= names
    return Stretch(source=source, trail=trail, subjects=tuple(chosen))


def _history_tables(source: Source, trail: Trail) -> set[str]:
    """Give the full names of the trail's history tables that are in the database."""
    schemas = source.connection.get_execution_options().get("schema_translate_map") or {}
    inspector = sa.inspect(source.connection)
    names: dict[str | None, set[str]] = {}
    there = set()
    for audited in trail.audited.values():
        schema = audited.history.schema
        if schema not in names:
            names[schema] = _table_names(inspector, schemas.get(schema, schema))
        if audited.history.name in names[schema] and _fits(inspector, audited, schemas.get(schema, schema)):
            there.add(audited.history.fullname)
    return there


def _table_names(inspector: sa.Inspector, schema: str | None) -> set[str]:
    """Give the names of the tables of a schema; none if there is no such schema."""
    if schema is not None and schema not in inspector.get_schema_names():
        return set()
    return set(inspector.get_table_names(schema=schema))


def _fits(inspector: sa.Inspector, audited: AuditedTable, schema: str | None) -> bool:
    """Tell whether the database's history table has the columns of the model, and so can be meant by it."""
    present = {column["name"] for column in inspector.get_columns(audited.history.name, schema=schema)}
    return {column.name for column in audited.history.columns} <= present


def _trail_of(base: Any) -> Trail:
    metadata = base if isinstance(base, sa.MetaData) else getattr(base, "metadata", None)
    found = complete(metadata) if isinstance(metadata, sa.MetaData) and trail_of(metadata) is not None else None
    if found is None:
        raise NotAudited(f"base={base!r} has no audited models: give a declarative base or MetaData that has")
    return found
