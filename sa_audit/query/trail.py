"""The trail: changes of all tables in one order, page by page, and all that one transaction did.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..capture.identity import identity_text
from ..errors import ConfigurationError, NotAudited
from ..model import Trail
from .change import OPERATIONS, Access, Change, Event, Operation, Page, TransactionInfo, TransactionRecord
from .cursor import Position, format_cursor, parse_cursor
from .entity import mapper_of, root_of
from .horizon import Horizon, horizon_of
from .looks import look
from .records import About, Kind, RecordPlace
from .references import Filter, entries_at, first_entries, references
from .rows import INFO, Source
from .stretches import Stretch, stretches_of
from .window import parse_since, parse_until

Entry = Change | Event | Access


@look
def trail(
    session: Session,
    *,
    actor: str | None = None,
    entity: Any = None,
    identity: Any = None,
    operation: Operation | Literal["event", "read"] | None = None,
    action: str | None = None,
    since: Any = None,
    until: Any = None,
    limit: int = 100,
    after: str | None = None,
    base: Any = None,
) -> Page:
    """Give a page of the trail: what was recorded, of all tables, in the order of ``recorded_at``.

    A page stops before the oldest transaction that is still writing, so that nothing is ever added before a cursor
    that was handed out.  What the session's own transaction has written is shown.

    Args:
        session: where to ask.
        actor: only what this actor did.
        entity: only this class (with its subclasses) or table.
        identity: only the row with this key, and truncates of its table; needs ``entity``.
        operation: only ``"insert"``, ``"update"``, ``"delete"``, ``"baseline"``, ``"truncate"``, ``"event"`` or
            ``"read"``.
        action: only the domain events of this name.
        since: only from this moment on; an aware datetime, an ISO string with offset, or a date in UTC.
        until: only up to this moment; a date includes all of its day.
        limit: how many entries at most, 1 to 10,000.
        after: the ``next`` or ``end`` of an earlier page with the same arguments.
        base: the declarative base or MetaData to ask about; by default all that have tables in the database.

    Returns:
        The page; see :class:`Page`.

    Raises:
        ConfigurationError: for an argument that can't be used.
        NotAudited: if the entity is not audited.
        InvalidMoment: for a bound that is naive or can't be read.
        CaptureMissing: if the database has no trail, or hides when its open writers began.
    """
    _check(actor, operation, action, limit, identity, entity)
    kinds = _kinds(operation, action)
    stretches = stretches_of(session, base, entity)
    subject = stretches[0].subjects[0]
    key = subject.identity(identity) if identity is not None else None
    wanted = Filter(
        actor=actor,
        identity=key,
        operation=next((letter for letter, name in OPERATIONS.items() if name == operation), None),
        names=_names(entity),
        since=parse_since(since),
        until=parse_until(until),
        changes="change" in kinds,
        about=About(
            table=subject.parts[0].audited.table.fullname if entity is not None else None,
            identity=identity_text(subject.parts[0].key, key) if key is not None else None,
            names=_names(entity),
            action=action,
        ),
    )
    position = parse_cursor(after) if after is not None else None
    found: list[tuple[Position, Entry]] = []
    horizons = []
    for stretch in stretches:
        records = [place for kind, place in stretch.record_places.items() if kind in kinds]
        entries, horizon = _read(stretch, wanted, records, position, limit + 1)
        found += entries
        horizons.append(horizon)
    settled = min((horizon for horizon in horizons if horizon is not None), default=None)
    return _page(stretches, found, settled, limit, after)


@look
def transaction(session: Session, transaction_id: int, *, base: Any = None) -> TransactionRecord:
    """Give everything that one database transaction did, whatever its context was at each step.

    Args:
        session: where to ask.
        transaction_id: the id of one of its rows of ``audit_transaction``.
        base: the declarative base or MetaData to ask about; by default all that have tables in the database.

    Returns:
        Who, why and what, in order.

    Raises:
        NotAudited: if there is no such transaction.
        ConfigurationError: if several trails in the database have one with this id; then give ``base``.
        CaptureMissing: if the database has no trail.
    """
    if isinstance(transaction_id, bool) or not isinstance(transaction_id, int):
        raise ConfigurationError(f"transaction {transaction_id!r}: give the id of a transaction, an integer")
    found = []
    for stretch in stretches_of(session, base):
        infos = infos_of(stretch.source, stretch.trail, transaction_id)
        if infos:
            found.append((stretch, infos))
    if not found:
        raise NotAudited(f"there is no transaction {transaction_id} in the trail")
    if len(found) > 1:
        names = ", ".join(stretch.name for stretch, _infos in found)
        raise ConfigurationError(f"transaction {transaction_id} is in several trails ({names}): give base=")
    stretch, infos = found[0]
    records = list(stretch.record_places.values())
    refs = references(stretch.source, stretch.trail, stretch.subjects, [infos[0].id], Filter(), None, None, records)
    found_at = entries_at(stretch.source, refs)
    entries = [found_at[ref] for ref in refs if ref in found_at]
    return TransactionRecord(
        infos=tuple(infos),
        changes=tuple(entry for entry in entries if isinstance(entry, Change)),
        events=tuple(entry for entry in entries if isinstance(entry, Event)),
        reads=tuple(entry for entry in entries if isinstance(entry, Access)),
    )


def infos_of(source: Source, trail: Trail, transaction_id: int) -> list[TransactionInfo]:
    """Give the rows of ``audit_transaction`` of one database transaction, the first one first; empty if unknown."""
    entry, other = trail.transaction, trail.transaction.alias("other")
    first = sa.select(sa.func.coalesce(other.c.first_id, other.c.id)).where(other.c.id == transaction_id)
    statement = (
        sa.select(*(entry.c[name] for name in INFO))
        .where(sa.or_(entry.c.id == first.scalar_subquery(), entry.c.first_id == first.scalar_subquery()))
        .order_by(entry.c.id)
    )
    return [source.info(trail, row) for row in source.execute(statement, trail)]


def _check(actor: Any, operation: Any, action: Any, limit: Any, identity: Any, entity: Any) -> None:
    if actor is not None and not isinstance(actor, str):
        raise ConfigurationError(f"actor={actor!r}: give the name of an actor, a string, as context(actor=) has it")
    known = (*OPERATIONS.values(), "event", "read")
    if operation is not None and operation not in known:
        raise ConfigurationError(f"operation={operation!r}: give one of {', '.join(known)}")
    if action is not None and (not isinstance(action, str) or operation not in (None, "event")):
        raise ConfigurationError(f"action={action!r} with operation={operation!r}: give the name of an event alone")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 10_000:
        raise ConfigurationError(f"limit={limit!r}: give a number from 1 to 10000, and page with after=")
    if identity is not None and entity is None:
        raise ConfigurationError(f"identity={identity!r} needs entity=, the class or table that has the key")


def _kinds(operation: str | None, action: str | None) -> frozenset[Kind]:
    """Give which kinds of entries a question is about."""
    if action is not None or operation == "event":
        return frozenset({"event"})
    if operation == "read":
        return frozenset({"read"})
    return frozenset({"change"}) if operation is not None else frozenset({"change", "event", "read"})


def _names(entity: Any) -> frozenset[str] | None:
    """Give the names of the classes that an entity stands for, where its tables hold rows of others as well."""
    if entity is None or isinstance(entity, sa.Table):
        return None
    mapper = mapper_of(entity)
    if root_of(mapper) is mapper:
        return None
    return frozenset(entry.class_.__name__ for entry in mapper.self_and_descendants)


def _read(
    stretch: Stretch, wanted: Filter, records: Sequence[RecordPlace], position: Position | None, count: int
) -> tuple[list[tuple[Position, Entry]], dt.datetime | None]:
    """Read up to ``count`` entries behind a position, and the moment from which on some may be withheld."""
    source, trail = stretch.source, stretch.trail
    horizon = horizon_of(source.connection)
    until = horizon.before(source.connection, trail.transaction)
    found: list[tuple[Position, Entry]] = []
    begin = (position.at, position.transaction if position.source == stretch.name else 0) if position else None
    while True:
        batch, until = _batch(stretch, wanted, records, begin, until, horizon, count)
        ids = [id_ for id_, _at in batch]
        refs = references(source, trail, stretch.subjects, ids, wanted, position, count, records)
        entries = entries_at(source, refs)
        found += [(ref.position, entries[ref]) for ref in refs if ref in entries and _fits(entries[ref], wanted)]
        if len(found) >= count:
            return found[:count], until
        if len(refs) == count:
            position = refs[-1].position
            begin = (position.at, position.transaction)
        elif len(batch) == count:
            begin = (batch[-1][1], batch[-1][0] + 1)
        else:
            return found, until


def _batch(
    stretch: Stretch,
    wanted: Filter,
    records: Sequence[RecordPlace],
    begin: tuple[dt.datetime, int] | None,
    until: dt.datetime | None,
    horizon: Horizon,
    count: int,
) -> tuple[list[tuple[int, dt.datetime]], dt.datetime | None]:
    """Read the next transactions, none of them at or after the horizon."""
    source, trail = stretch.source, stretch.trail

    def first(until: dt.datetime | None, last: dt.datetime | None = None) -> list[tuple[int, dt.datetime]]:
        return first_entries(source, trail, stretch.subjects, wanted, begin, until, count, last, records)

    batch = first(until)
    if not batch:
        return batch, until
    late = horizon.among(source.connection, trail.transaction, begin[0] if begin else None, batch[-1][1])
    if late is None:
        return first(until, batch[-1][1]), until
    until = min(late, until) if until is not None else late
    return first(until), until


def _fits(change: Entry, wanted: Filter) -> bool:
    names, operation = wanted.names, wanted.operation
    if not isinstance(change, Change):
        return True
    if operation is not None and change.operation != OPERATIONS[operation]:
        return False
    return names is None or change.operation == "truncate" or change.entity in names


def _page(
    stretches: Sequence[Stretch],
    found: list[tuple[Position, Entry]],
    settled: dt.datetime | None,
    limit: int,
    after: str | None,
) -> Page:
    found = sorted(found, key=lambda entry: entry[0].sort_key)
    shown = [entry for entry in found if settled is None or entry[0].at < settled]
    entries, more = shown[:limit], len(shown) > limit
    end = format_cursor(entries[-1][0]) if entries else after
    return Page(
        entries=[entry for _position, entry in entries],
        next=end if more else None,
        end=end,
        withheld=not more and settled is not None and any(_has_later(stretch, settled) for stretch in stretches),
    )


def _has_later(stretch: Stretch, moment: dt.datetime) -> bool:
    entry = stretch.trail.transaction
    statement = sa.select(entry.c.id).where(entry.c.recorded_at >= moment).limit(1)
    return stretch.source.execute(statement, stretch.trail).first() is not None


__all__ = ["infos_of", "trail", "transaction"]
