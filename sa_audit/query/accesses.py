"""Who looked at a row, and who read how much.

Imports model, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..capture.identity import identity_text
from ..errors import ConfigurationError, NotAudited
from .change import Access, Reader
from .entity import Subject, mapper_of, resolve, root_of, subject_of
from .records import RecordPlace
from .rows import source_of
from .window import parse_since, parse_until


def reads(session: Session, entity: Any, key: Any = None, *, since: Any = None, until: Any = None) -> list[Access]:
    """Give the statements that showed a row, oldest first: who looked at it, when, why, and at which attributes.

    Statements whose rows are not known, such as aggregates, are not among them:
    ``trail(entity=..., operation="read")`` shows those as well.

    Args:
        session: where to ask.
        entity: an object, a class or an audited table.
        key: the key of the row, unless an object is given.
        since: only from this moment on; an aware datetime, an ISO string with offset, or a date in UTC.
        until: only up to this moment; a date includes all of its day.

    Raises:
        NotAudited: if reads of the entity are not recorded.
        InvalidMoment: for a bound that is naive or can't be read.
        CaptureMissing: if the database has no trail.
    """
    subject, identity = resolve(entity, key)
    place = _place(subject)
    shown = place.shown
    conditions = [
        shown.c.table_name == _table(subject),
        shown.c.identity == identity_text(subject.parts[0].key, identity),
        *_within(shown.c.audit_at, since, until),
    ]
    source = source_of(session, subject.bind_arguments)
    found = place.read(source, [place.table.c.audit_id.in_(sa.select(shown.c.access_id).where(*conditions))])
    return list(found)


def readers(session: Session, entity: Any, *, since: Any = None, until: Any = None, at_least: int = 1) -> list[Reader]:
    """Give who read how many rows of an entity, most first: "everyone who opened more than 200 charts".

    Args:
        session: where to ask.
        entity: a class or an audited table.
        since: as in :func:`reads`.
        until: as in :func:`reads`.
        at_least: only those who were shown at least so many rows, known ones and others together.

    Raises:
        NotAudited: if reads of the entity are not recorded.
        InvalidMoment: for a bound that is naive or can't be read.
        ConfigurationError: for ``at_least`` that is no number from 0 on.
        CaptureMissing: if the database has no trail.
    """
    number: Any = at_least
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigurationError(f"at_least={at_least!r}: give a number of rows, from 0 on")
    subject = subject_of(entity if isinstance(entity, sa.Table) else root_of(mapper_of(entity)))
    place = _place(subject)
    entry, access, shown = subject.trail.transaction, place.table, place.shown
    source = source_of(session, subject.bind_arguments)
    others = sa.func.sum(sa.case((access.c.identities == "none", access.c.row_count), else_=sa.literal(0)))
    statements = (
        sa.select(entry.c.actor, sa.func.count().label("statements"), others.label("others"))
        .select_from(access.join(entry, entry.c.id == access.c.audit_tx))
        .where(access.c.table_name == _table(subject), *_within(access.c.audit_at, since, until))
        .group_by(entry.c.actor)
    )
    rows = (
        sa.select(entry.c.actor, sa.func.count(sa.distinct(shown.c.identity)).label("shown"))
        .select_from(shown.join(entry, entry.c.id == shown.c.audit_tx))
        .where(shown.c.table_name == _table(subject), *_within(shown.c.audit_at, since, until))
        .group_by(entry.c.actor)
    )
    counted = {row.actor: int(row.shown) for row in source.execute(rows, subject.trail)}
    found = [
        Reader(actor=row.actor, rows=counted.get(row.actor, 0), others=int(row.others or 0), statements=row.statements)
        for row in source.execute(statements, subject.trail)
    ]
    wanted = (reader for reader in found if reader.rows + reader.others >= at_least)
    return sorted(wanted, key=lambda reader: (-reader.rows - reader.others, str(reader.actor)))


def _place(subject: Subject) -> RecordPlace:
    if not any(part.audited.options.reads for part in subject.parts):
        raise NotAudited(
            f"reads of {subject.name} are not recorded: set __audit__ = AuditOptions(reads=True) on its model"
        )
    return RecordPlace(subject.trail, "read", {_table(subject): subject.parts[0].key})


def _table(subject: Subject) -> str:
    """Give the full name of the table that names the rows of a subject."""
    return subject.parts[0].audited.table.fullname


def _within(column: Any, since: Any, until: Any) -> list[sa.ColumnElement[bool]]:
    begin, end = parse_since(since), parse_until(until)
    bounds = [] if begin is None else [column >= begin]
    return bounds if end is None else [*bounds, column <= end]
