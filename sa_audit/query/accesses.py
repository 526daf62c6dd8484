"""Who looked at a row, and who read how much.

Imports model, ddl, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..capture.identity import identity_text
from ..ddl.backend import backend_for
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


def readers(
    session: Session,
    entity: Any,
    *,
    since: Any = None,
    until: Any = None,
    at_least: int = 1,
    per: Literal["day"] | None = None,
) -> list[Reader]:
    """Give who read how many rows of an entity, most first: "everyone who opened more than 200 charts in a day".

    Args:
        session: where to ask.
        entity: a class or an audited table.
        since: as in :func:`reads`.
        until: as in :func:`reads`.
        at_least: only those who were shown at least so many rows, known ones and others together.
        per: ``"day"`` counts each day, in UTC, by itself; None all of the time.

    Raises:
        NotAudited: if reads of the entity are not recorded.
        InvalidMoment: for a bound that is naive or can't be read.
        ConfigurationError: for ``at_least`` that is no number from 0 on, or another ``per``.
        CaptureMissing: if the database has no trail.
    """
    number: Any = at_least
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigurationError(f"at_least={at_least!r}: give a number of rows, from 0 on")
    if per not in (None, "day"):
        raise ConfigurationError(f"per={per!r}: give 'day', or leave it out for all of the time")
    subject = subject_of(entity if isinstance(entity, sa.Table) else root_of(mapper_of(entity)))
    place = _place(subject)
    source = source_of(session, subject.bind_arguments)
    entry, access, shown = subject.trail.transaction, place.table, place.shown

    def counted(table: sa.Table, *counts: sa.ColumnElement[Any]) -> sa.Select[Any]:
        day = backend_for(source.connection.dialect).utc_day(table.c.audit_at) if per else sa.null()
        return (
            sa.select(entry.c.actor, sa.type_coerce(day, sa.Date()).label("day"), *counts)
            .select_from(table.join(entry, entry.c.id == table.c.audit_tx))
            .where(table.c.table_name == _table(subject), *_within(table.c.audit_at, since, until))
            .group_by(entry.c.actor, *([day] if per else []))
        )

    others = sa.func.sum(sa.case((access.c.identities == "none", access.c.row_count), else_=sa.literal(0)))
    rows = counted(shown, sa.func.count(sa.distinct(shown.c.identity)).label("shown"))
    known = {(row.actor, row.day): int(row.shown) for row in source.execute(rows, subject.trail)}
    statements = counted(access, sa.func.count().label("statements"), others.label("others"))
    found = [
        Reader(
            actor=row.actor,
            rows=known.get((row.actor, row.day), 0),
            others=int(row.others or 0),
            statements=row.statements,
            day=row.day,
        )
        for row in source.execute(statements, subject.trail)
    ]
    wanted = (reader for reader in found if reader.rows + reader.others >= at_least)
    return sorted(wanted, key=lambda reader: (-reader.rows - reader.others, str(reader.actor), str(reader.day)))


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
