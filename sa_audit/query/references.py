"""Which history rows a question about the trail is about, and the changes that they are.

The way goes by transactions, in the order of their moments, to the rows of each: both have an index.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy as sa

from ..model import Trail
from .change import Access, Change, Event
from .cursor import Position
from .entity import Identity, Part, Subject
from .fold import changes_by_identity, fold
from .records import About, RecordPlace
from .rows import KEYS_PER_STATEMENT, HistoryRow, Source, key_condition, read, rows_of

TABLES_PER_STATEMENT = 100
Bound = tuple[dt.datetime, int]
Place = tuple[Subject, Part] | tuple[None, RecordPlace]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a question asks for; None: anything.

    Attributes:
        actor: of the transaction row.
        identity: of the entity.
        operation: its letter.
        names: of classes.
        since: from when, included.
        until: to when, included.
        changes: whether changes are asked for.
        about: what is asked for of events and reads.
    """

    actor: str | None = None
    identity: Identity | None = None
    operation: str | None = None
    names: frozenset[str] | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    changes: bool = True
    about: About = field(default_factory=About)


@dataclass(frozen=True, slots=True)
class Reference:
    """A history row that may be an entry, by its place; or an event or read, which has no subject."""

    position: Position
    subject: Subject | None = field(compare=False)
    part: Part | RecordPlace = field(compare=False)


def first_entries(
    source: Source,
    trail: Trail,
    subjects: Sequence[Subject],
    wanted: Filter,
    begin: Bound | None,
    before: dt.datetime | None,
    count: int,
    until: dt.datetime | None = None,
    records: Sequence[RecordPlace] = (),
) -> list[tuple[int, dt.datetime]]:
    """Give the next transactions that fit, by the id and moment of their first rows.

    Args:
        source: where to read.
        trail: the trail.
        subjects: whose changes are asked for.
        wanted: what is asked for.
        begin: the moment and id to begin with, included.
        before: the moment to stop before.
        count: how many at most.
        until: the moment to stop behind.
        records: the events and reads that are asked for as well.
    """
    entry = trail.transaction
    conditions: list[sa.ColumnElement[bool]] = [entry.c.first_id.is_(None)]
    if begin is not None:
        at, id_ = begin
        conditions += [entry.c.recorded_at >= at, sa.or_(entry.c.recorded_at > at, entry.c.id >= id_)]
    if before is not None:
        conditions.append(entry.c.recorded_at < before)
    if wanted.since is not None:
        conditions.append(entry.c.recorded_at >= wanted.since)
    for bound in (until, wanted.until):
        if bound is not None:
            conditions.append(entry.c.recorded_at <= bound)
    if wanted.actor is not None:
        further = entry.alias("further")
        conditions.append(
            sa.or_(
                entry.c.actor == wanted.actor,
                sa.exists().where(further.c.first_id == entry.c.id, further.c.actor == wanted.actor),
            )
        )
    narrow = len(subjects) == 1 and (wanted.identity is not None or len(trail.audited) > len(subjects[0].parts))
    if narrow or not wanted.changes:
        selects = [place.transactions(wanted.about) for place in records]
        selects += _transactions_of(trail, subjects[0], wanted) if wanted.changes else []
        conditions.append(entry.c.id.in_(sa.union_all(*selects)) if selects else sa.false())
    statement = (
        sa.select(entry.c.id, entry.c.recorded_at)
        .where(*conditions)
        .order_by(entry.c.recorded_at, entry.c.id)
        .limit(count)
    )
    return [(row.id, row.recorded_at) for row in source.execute(statement, trail)]


def _transactions_of(trail: Trail, subject: Subject, wanted: Filter) -> list[sa.Select[Any]]:
    """Give the SELECTs of the first rows of all transactions that changed a subject."""
    entry = trail.transaction.alias("changed")
    first = sa.func.coalesce(entry.c.first_id, entry.c.id)
    selects = []
    for part in subject.parts:
        statement = sa.select(first).where(entry.c.id == part.history.c.audit_tx)
        if wanted.identity is not None:
            statement = statement.where(key_condition(part, [wanted.identity]))
        if wanted.operation is not None:
            statement = statement.where(part.history.c.audit_op == wanted.operation)
        selects.append(statement)
    return selects


def references(
    source: Source,
    trail: Trail,
    subjects: Sequence[Subject],
    transactions: Sequence[int],
    wanted: Filter,
    after: Position | None,
    count: int | None,
    records: Sequence[RecordPlace] = (),
) -> list[Reference]:
    """Give the history rows of some transactions, and their events and reads, in the trail's order.

    Args:
        source: where to read.
        trail: the trail.
        subjects: whose rows.
        transactions: the ids of the transactions' first rows.
        wanted: what is asked for.
        after: the position to begin behind.
        count: how many at most; None for all.
        records: the events and reads that are asked for as well.
    """
    if not transactions:
        return []
    entry = trail.transaction
    conditions = [sa.or_(entry.c.id.in_(transactions), entry.c.first_id.in_(transactions))]
    if wanted.actor is not None:
        conditions.append(entry.c.actor == wanted.actor)
    chosen = (
        sa.select(entry.c.id, entry.c.recorded_at, sa.func.coalesce(entry.c.first_id, entry.c.id).label("first"))
        .where(*conditions)
        .cte("chosen")
    )
    places: list[Place] = [(None, place) for place in records]
    if wanted.changes:
        places += [(subject, part) for subject in subjects for part in subject.parts]
    found: list[Reference] = []
    for start in range(0, len(places), TABLES_PER_STATEMENT):
        found += _read_places(source, trail, places[start : start + TABLES_PER_STATEMENT], chosen, wanted, after, count)
    found.sort(key=lambda reference: reference.position.sort_key)
    return found if count is None else found[:count]


def _read_places(
    source: Source,
    trail: Trail,
    places: Sequence[Place],
    chosen: sa.CTE,
    wanted: Filter,
    after: Position | None,
    count: int | None,
) -> Iterator[Reference]:
    name = trail.transaction.fullname
    rows = sa.union_all(*(_place(number, part, chosen, wanted) for number, (_s, part) in enumerate(places))).subquery()
    at, first, flush, audit_id, table, _place_number = rows.c
    statement = sa.select(*rows.c).order_by(at, first, flush, audit_id, table)
    if after is not None:
        statement = statement.where(_behind(after, name, at, [first, flush, audit_id, table]))
    if count is not None:
        statement = statement.limit(count)
    for row in source.execute(statement, trail):
        subject, part = places[row.place]
        position = Position(
            at=row.recorded_at,
            source=name,
            transaction=row.first,
            flush=row.flush,
            audit_id=row.audit_id,
            table=row.history_table,
        )
        yield Reference(position, subject, part)


def _behind(
    after: Position, name: str, at: sa.ColumnElement[Any], rest: list[sa.ColumnElement[Any]]
) -> sa.ColumnElement[bool]:
    """Give the condition that a row comes behind a position, which may be one of another ``audit_transaction``."""
    if after.source != name:
        return at >= after.at if name > after.source else at > after.at
    values = (after.transaction, after.flush, after.audit_id, after.table)
    bound = [sa.literal(value, column.type) for value, column in zip(values, rest, strict=True)]
    return sa.or_(at > after.at, sa.and_(at == after.at, sa.tuple_(*rest) > sa.tuple_(*bound)))


def _place(number: int, part: Part | RecordPlace, chosen: sa.CTE, wanted: Filter) -> sa.Select[Any]:
    if isinstance(part, RecordPlace):
        return part.place(number, chosen, wanted.about)
    history = part.history
    statement = sa.select(
        chosen.c.recorded_at,
        chosen.c.first,
        sa.func.coalesce(history.c.audit_flush, sa.literal_column("0"), type_=sa.Integer()).label("flush"),
        history.c.audit_id,
        sa.literal(history.fullname, sa.Text()).label("history_table"),
        sa.literal_column(str(number), sa.Integer()).label("place"),
    ).select_from(history.join(chosen, chosen.c.id == history.c.audit_tx))
    if wanted.identity is not None:
        statement = statement.where(key_condition(part, [wanted.identity]))
    if wanted.operation is not None:
        statement = statement.where(history.c.audit_op == wanted.operation)
    return statement


def entries_at(source: Source, refs: Sequence[Reference]) -> dict[Reference, Change | Event | Access]:
    """Give the entries that references stand for; a row that is part of another row's change has none."""
    by_place: dict[RecordPlace, list[Reference]] = {}
    for reference in refs:
        if isinstance(reference.part, RecordPlace):
            by_place.setdefault(reference.part, []).append(reference)
    found: dict[Reference, Change | Event | Access] = {}
    for place, own in by_place.items():
        entries = place.entries(source, [reference.position.audit_id for reference in own])
        found |= {reference: entries[reference.position.audit_id] for reference in own}
    return found | _changes_at(source, refs)


def _changes_at(source: Source, refs: Sequence[Reference]) -> dict[Reference, Change]:
    by_part: dict[Part, list[Reference]] = {}
    for reference in refs:
        if isinstance(reference.part, Part):
            by_part.setdefault(reference.part, []).append(reference)
    found: dict[tuple[str, int], Change] = {}
    for part, own in by_part.items():
        subject = cast(Subject, own[0].subject)
        rows = _rows(source, part, own)
        if len(subject.parts) == 1:
            changes = [change for row in rows for change in fold(subject, row.identity, [row])]
        else:
            changes = _whole_entities(source, subject, rows)
        found |= {(change.table, change.audit_id): change for change in changes}
    keys = {ref: (ref.part.audited.table.fullname, ref.position.audit_id) for ref in refs if isinstance(ref.part, Part)}
    return {ref: found[key] for ref, key in keys.items() if key in found}


def _rows(source: Source, part: Part, refs: Sequence[Reference]) -> list[HistoryRow]:
    ids = [reference.position.audit_id for reference in refs]
    rows: list[HistoryRow] = []
    for start in range(0, len(ids), KEYS_PER_STATEMENT):
        chunk = ids[start : start + KEYS_PER_STATEMENT]
        rows += read(source, part, part.history.c.audit_id.in_(chunk))
    return rows


def _whole_entities(source: Source, subject: Subject, rows: Sequence[HistoryRow]) -> list[Change]:
    """Fold the whole history of the entities, since a change of one table shows the state in all."""
    truncates = [change for row in rows if row.op == "T" for change in fold(subject, (), [row])]
    identities = list(dict.fromkeys(row.identity for row in rows if row.op != "T"))
    if not identities:
        return truncates
    by_identity = changes_by_identity(subject, rows_of(source, subject, identities), source.order)
    changes = (change for found in by_identity.values() for change in found)
    return truncates + [change for change in changes if change.operation != "truncate"]
