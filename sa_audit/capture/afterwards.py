"""What is written when a transaction is rolled back: events and reads that stood in it, and the attempt itself.

SQLite has one writer, so what must survive a rollback may have to stand in the session's own transaction; it is kept
here and written again once that is gone.  With ``attempts``, the transaction itself leaves an event.
Imports model, ddl, and of capture the recording and the connection of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from ..ddl.backend import Entry, Target, backend_for
from ..model.history import AuditedTable, Trail
from ..model.policy import policy_of
from . import clock
from .context import Context, current_context
from .context_policy import claims_on, context_persons
from .failing import fail_closed, missing_tables_named
from .identity import identity_text
from .own_connection import own_transaction, writable
from .person_keys import Entries, PersonKeys, touched_here
from .recording import (
    Attempt,
    Recording,
    entry_alone,
    make_entry,
    open_savepoints,
    present_recording,
    recording_on,
    target_of,
)

ROLLED_BACK: Final = "sa_audit.rolled_back"
MAX_ROWS: Final = 1000

Write = Callable[[Connection, Entry], None]
"""Writes rows of the trail on a connection, under an entry."""


@dataclass(slots=True)
class Kept:
    """What was written in a transaction that may be rolled back."""

    target: Target
    context: Context
    write: Write
    savepoints: list[str]
    lost: bool = False


def write_durably(
    connection: Connection,
    audited: AuditedTable,
    write: Write,
    *,
    relaxed: bool = False,
    persons: Collection[str] = (),
) -> None:
    """Write rows of the trail so that they survive a rollback of the session's transaction.

    Args:
        connection: the session's.
        audited: a table of the trail, whose schemas hold.
        write: writes them.
        relaxed: whether the commit need not wait for the disk.
        persons: whose keys it needs.  One that the session's transaction has made or destroyed, another connection
            would wait for in vain, so it is written there, and once more if that is rolled back.
    """
    target = target_of(audited, connection.get_execution_options())
    backend = backend_for(connection.dialect)
    needed = {*persons, *context_persons(audited.trail, current_context()).values()}
    waits = not touched_here(connection).isdisjoint(needed)
    if waits or (audited.trail.configuration.record_engine is None and backend.writes_alone(connection)):
        _write_within(connection, target, write)
        return
    _ensure(connection, target, needed)
    _write_alone(connection, target, current_context(), write, relaxed=relaxed)


def _ensure(connection: Connection, target: Target, persons: Collection[str]) -> None:
    """Make sure of keys before the transaction that needs them, so that it waits for nobody who makes one."""
    if persons:
        with own_transaction(connection, target.trail) as own:
            alone = Entries(lambda: entry_alone(own, target), lambda own: entry_alone(own, target))
            PersonKeys(own, target.trail, target.schemas).of(sorted(persons), alone)


def _write_within(connection: Connection, target: Target, write: Write) -> None:
    recording = recording_on(connection)
    with fail_closed(connection):
        entry = make_entry(connection, recording, target)
        with missing_tables_named(connection, target):
            write(connection, entry)
    recording.kept.append(Kept(target, current_context(), write, open_savepoints(connection)))


def _write_alone(
    connection: Connection, target: Target, context: Context, write: Write, *, relaxed: bool = False
) -> None:
    with own_transaction(connection, target.trail, relaxed=relaxed) as own:
        _write(own, target, context, write, None)


def _write(connection: Connection, target: Target, context: Context, write: Write, recording: Recording | None) -> None:
    backend = backend_for(connection.dialect)
    first = recording.first_at(connection, target) if recording is not None else None
    with missing_tables_named(connection, target):
        claims = claims_alone(connection, target, context, first)
        entry = backend.insert_entry(connection, target, claims, first, clock.now())
        write(connection, entry)


def claims_alone(connection: Connection, target: Target, context: Context, first: Entry | None) -> dict[str, Any]:
    """Give what is recorded of a context on a connection of the trail's own."""

    def opened(stripped: Context) -> Entry:
        claims = claims_on(connection, target, stripped, opened, lambda own: entry_alone(own, target))
        return backend_for(connection.dialect).insert_entry(connection, target, claims, first, clock.now())

    return claims_on(connection, target, context, opened, lambda own: entry_alone(own, target))


@event.listens_for(Engine, "rollback")
def _rollback(connection: Connection) -> None:
    _after_rollback(connection)


@event.listens_for(Engine, "rollback_twophase")
def _rollback_twophase(connection: Connection, xid: Any, is_prepared: bool) -> None:
    if not is_prepared:
        _after_rollback(connection)


def _after_rollback(connection: Connection) -> None:
    """End the transaction at once, which SQLAlchemy is about to do, and write what is to survive it.

    With a connection that was lost, what is known of its transaction is gone as well.
    """
    recording = None if connection.invalidated else present_recording(connection)
    if recording is None or not (recording.kept or recording.attempts):
        return
    kept, attempts = list(recording.kept), list(recording.attempts.values())
    recording.kept.clear()
    recording.attempts.clear()
    error = recording.error or sys.exc_info()[1]
    if not connection.closed:
        connection.dialect.do_rollback(connection.connection)
    connection = writable(connection)
    for one in kept:
        _write_alone(connection, one.target, one.context, one.write)
    for trail, group in _by_trail(attempts).items():
        _write_alone(connection, group[0].target, group[0].context, _attempt(trail, group, error))


@event.listens_for(Engine, "rollback_savepoint")
def _rollback_savepoint(connection: Connection, name: str, context: Any) -> None:
    recording = None if connection.invalidated else present_recording(connection)
    for one in recording.kept if recording is not None else ():
        one.lost = one.lost or name in one.savepoints


@event.listens_for(Engine, "release_savepoint")
def _release_savepoint(connection: Connection, name: str, context: Any) -> None:
    recording = present_recording(connection)
    for one in recording.kept if recording is not None else ():
        if name in one.savepoints and not one.lost:
            one.savepoints.remove(name)


@event.listens_for(Engine, "commit")
def _commit(connection: Connection) -> None:
    """Write again, into the transaction, what a savepoint took with it."""
    recording = present_recording(connection)
    if recording is None:
        return
    recording.attempts.clear()
    kept = [one for one in recording.kept if one.lost]
    with fail_closed(connection):
        for one in kept:
            _write(connection, one.target, one.context, one.write, recording)
    recording.kept.clear()


@event.listens_for(Engine, "handle_error")
def _handle_error(context: Any) -> None:
    """Keep the error for the event that its transaction may leave."""
    recording = present_recording(context.connection) if context.connection is not None else None
    if recording is not None and recording.attempts:
        recording.error = context.sqlalchemy_exception or context.original_exception


# -- attempts --------------------------------------------------------------------------------


def _by_trail(attempts: Iterable[Attempt]) -> dict[Trail, list[Attempt]]:
    found: dict[Trail, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(attempt.target.trail, []).append(attempt)
    return found


def _attempt(trail: Trail, attempts: list[Attempt], error: BaseException | None) -> Write:
    """Give what writes the event of a rolled-back transaction."""
    rows = [
        {
            "table": attempt.target.audited.table.fullname,
            "identity": identity_text(attempt.target.audited.key, key),
            "operation": operation,
        }
        for attempt in attempts
        for key, operation in attempt.rows.items()
    ]
    only = rows[0] if len(rows) == 1 else None
    values = {
        "action": ROLLED_BACK,
        "entity": None,
        "table_name": only["table"] if only else attempts[0].target.audited.table.fullname,
        "identity": only["identity"] if only else None,
        "data": {
            "tables": [attempt.target.audited.table.fullname for attempt in attempts],
            "rows": rows[:MAX_ROWS],
            "row_count": len(rows),
            "error": _said(error, attempts),
        },
        "durable": 1,
    }

    def write(connection: Connection, entry: Entry) -> None:
        backend_for(connection.dialect).insert_event(connection, trail, entry, values)

    return write


def _said(error: BaseException | None, attempts: list[Attempt]) -> str | None:
    """Give an error as text: without its message where that may hold the value of a column with a policy."""
    if error is None:
        return None
    name = type(error).__name__
    tables = [attempt.target.audited.table for attempt in attempts]
    if any(policy_of(column.info, str(column)) for table in tables for column in table.columns):
        return name
    return f"{name}: {getattr(error, 'orig', None) or error}"[:2000]
