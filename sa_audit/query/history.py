"""What happened to one row: its history, who gave each column its value, and what differs between two moments.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..errors import NotAudited
from ..model import AuditedTable
from .at import visibility
from .change import Change
from .entity import Identity, Subject, resolve
from .fold import fold, same
from .looks import look
from .pruned import refuse_pruned_since
from .rows import Source, rows_of, source_of
from .window import parse_since, parse_until

LATEST: Final = object()
"""In place of a moment: whatever is recorded. None is not it, so that a caller's missing moment is refused."""


@look
def history(
    session: Session,
    entity: Any,
    key: Any = None,
    *,
    since: Any = None,
    until: Any = None,
    attribute: str | None = None,
) -> list[Change]:
    """Give the changes of one row, oldest first.

    What the session has not flushed yet is not recorded, and not shown; what it flushed and has not committed is.

    Args:
        session: where to ask.
        entity: an object (loaded, detached or deleted), or a class, mapper or table.
        key: the row's key, unless an object is given: a scalar, a tuple in the order of the key, or a dict by name.
        since: leave out changes recorded before; an aware datetime, an ISO string with offset, or a date in UTC.
        until: leave out changes recorded after; a date includes all of its day.
        attribute: leave out changes that did not touch this attribute; a composite stands for its columns.

    Returns:
        One change per flush and entity (with joined inheritance, of all its tables); empty for a key that was
        never recorded.  Every truncate of the table is among them.

    Raises:
        NotAudited: if nothing of the kind is recorded, or the key has not its shape.
        InvalidMoment: for a bound that is naive or can't be read.
        PrunedHistory: if ``since`` lies before rows of the history that were pruned, or nothing is left and rows were.
        CaptureMissing: if the database has no trail.

    What was pruned is not among the changes: the first of those that are left then is no insert.

    Example::

        for change in history(session, Account, 42):
            print(change.recorded_at, change.actor, change.operation, dict(change.diff))
    """
    subject, identity = resolve(entity, key)
    start, end = parse_since(since), parse_until(until)
    wanted = subject.attribute_columns(attribute) if attribute is not None else None
    source = source_of(session, subject.bind_arguments)
    changes = _changes(source, subject, identity)
    if start is not None or not changes:
        with source.named_if_missing(subject.parts[0].audited.trail):
            refuse_pruned_since(source.connection, subject.parts[0].audited, start)
    return [
        change
        for change in changes
        if (start is None or change.recorded_at >= start)
        and (end is None or change.recorded_at <= end)
        and (wanted is None or change.operation == "truncate" or not wanted.isdisjoint(change.diff))
    ]


@look
def blame(session: Session, entity: Any, key: Any = None) -> dict[str, Change]:
    """Give the change that gave each attribute of a row its present value.

    Args:
        session: where to ask.
        entity: an object, or a class, mapper or table.
        key: the row's key, unless an object is given.

    Returns:
        The changes by attribute; of a deleted row, the delete for each; empty for a key that was never recorded.

    Raises:
        NotAudited: if nothing of the kind is recorded, or the key has not its shape.
        CaptureMissing: if the database has no trail.
    """
    return blame_of(history(session, entity, key))


def blame_of(changes: list[Change]) -> dict[str, Change]:
    """Give the last change of each attribute, of one row's changes in their order."""
    blamed: dict[str, Change] = {}
    gone = False
    for change in changes:
        if change.operation == "truncate":
            blamed = dict.fromkeys(blamed, change)
        elif gone and change.operation in ("insert", "baseline"):
            blamed = dict.fromkeys(change.diff, change)
        else:
            blamed |= dict.fromkeys(change.diff, change)
        gone = change.operation in ("delete", "truncate")
    return blamed


@look
def diff(session: Session, entity: Any, key: Any, earlier: Any, later: Any) -> dict[str, tuple[Any, Any]]:
    """Give what differs in a row between two moments.

    Args:
        session: where to ask.
        entity: a class, mapper or table; or an object, with ``key`` None.
        key: the row's key.
        earlier: a moment, as :func:`sa_audit.as_of` takes it.
        later: another one.

    Returns:
        ``{attribute: (then, now)}`` of the attributes that differ; None where there was no row.  A masked
        attribute that was changed in between shows as ``(Masked, Masked)``.

    Raises:
        NotAudited: if the row was never recorded.
        InvalidMoment: for a moment that is naive, can't be read, or lies before the records of the table begin.
        CaptureMissing: if the database has no trail.
    """
    subject, identity = resolve(entity, key)
    source = source_of(session, subject.bind_arguments)
    then, now = moments(source, subject, identity, earlier, later)
    before, after = state_after(then), state_after(now)
    blame_then, blame_now = blame_of(then), blame_of(now)
    differing: dict[str, tuple[Any, Any]] = {}
    for name in {**before, **after}:
        pair = before.get(name), after.get(name)
        touched = before and after and name in blame_now and blame_then.get(name) != blame_now[name]
        if (name in before) != (name in after) or not same(*pair) or (touched and _masked(subject, name)):
            differing[name] = pair
    return differing


def moments(source: Source, subject: Subject, identity: Identity, *whens: Any) -> list[list[Change]]:
    """Give a row's changes as far as each of some moments can see them; ``LATEST``: all of them.

    Raises:
        NotAudited: if the row was never recorded.
        InvalidMoment: for a moment that can't be asked about.
    """
    visible = [visibility(source, subject, when) if when is not LATEST else _everything for when in whens]
    rows = rows_of(source, subject, [identity], lambda part: [criterion(part.audited) for criterion in visible])
    if all(row.op == "T" for row in rows):
        raise NotAudited(f"{subject.name} {shown(identity)} was never recorded: there is no history of it")
    return [
        fold(subject, identity, sorted((row for row in rows if row.flags[number]), key=source.order))
        for number in range(len(whens))
    ]


def _everything(audited: AuditedTable) -> sa.ColumnElement[bool]:
    return sa.true()


def shown(identity: Identity) -> str:
    """Give a key for a message."""
    return repr(identity[0]) if len(identity) == 1 else repr(identity)


def _changes(source: Source, subject: Subject, identity: Identity) -> list[Change]:
    rows = rows_of(source, subject, [identity])
    if all(row.op == "T" for row in rows):
        return []
    return fold(subject, identity, sorted(rows, key=source.order))


def state_after(changes: list[Change]) -> dict[str, Any]:
    """Give the state after the last of a row's changes; empty if there is no row then."""
    if not changes or changes[-1].operation in ("delete", "truncate"):
        return {}
    return dict(changes[-1].state)


def _masked(subject: Subject, name: str) -> bool:
    return any(
        column.masked and subject.names(mapper)[column.source] == name
        for mapper in subject.mappers or (None,)
        for part in subject.parts
        for column in part.audited.columns
    )
