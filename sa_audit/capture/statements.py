"""Core and ORM-enabled UPDATE and DELETE: what they change is read before and recorded after.

Every variant of DML that SQLAlchemy composes arrives here, from ``before_execute``.  A statement changes exactly
the rows that were locked and read: its criteria are narrowed to their keys.  What can't be recorded is refused
before it runs.  Imports model, ddl, and of capture bulk, criteria, foreign keys, recording and statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from . import bulk, foreign_keys
from .criteria import (
    effective_criteria,
    exists_criterion,
    images_of_many,
    narrowed,
    new_key,
    read_keys,
    read_where,
    set_columns,
)
from .recording import lock_writer, read_images
from .statement import Statement, prepare, refuse_silent_conflicts, refuse_unrecordable

SMALL: Final = 1000
"""How many rows a statement may change with their images going through Python."""


def before_update(statement: Statement) -> None:
    """Read what an UPDATE will change, and narrow it to that."""
    refuse_unrecordable(statement)
    refuse_silent_conflicts(statement)
    moved = new_key(statement)
    if statement.many:
        _before_many_updates(statement, moved)
        return
    lock_writer(statement.connection, statement.recording, statement.target)
    if moved is not None:
        _before_move(statement, moved)
        return
    criteria = effective_criteria(statement.element)
    limit = None if statement.audited.protected else SMALL + 1
    images = read_where(statement, criteria, limit=limit)
    if limit is not None and len(images) > SMALL:
        bulk.before_update(statement, exists_criterion(statement.audited.table, criteria))
        return
    reach_update(statement, list(images))
    bulk.narrow(statement, list(images))

    def after(result: Any) -> None:
        check_count(statement, result, len(images), exact=False)
        statement.write(images=list(images.values()))

    statement.after = after


def reach_update(statement: Statement, keys: Sequence[Key]) -> None:
    """Follow foreign keys to the columns that an UPDATE sets; its own rows are recorded by itself."""
    changed = set_columns(statement)
    table = statement.audited.table
    if not foreign_keys.refers(table, changed):
        return
    reached = foreign_keys.reach_update(
        statement.connection, statement.recording, table, keys, statement.options, changed
    )
    reached.leave_out(statement.audited, keys)
    statement.reached.append(reached)


def _before_many_updates(statement: Statement, moved: Sequence[Any] | None) -> None:
    if moved is not None:
        raise UnauditedWrite(
            f"an UPDATE of several rows of parameters that changes the key of {statement.audited.table.fullname} "
            "can't be recorded: execute it row by row"
        )
    lock_writer(statement.connection, statement.recording, statement.target)
    images, closed = images_of_many(statement)
    reach_update(statement, list(images))
    if not closed:
        bulk.narrow(statement, list(images))

    def after(_result: Any) -> None:
        statement.write(images=list(images.values()))

    statement.after = after


def _before_move(statement: Statement, moved: Sequence[Any]) -> None:
    """Record an UPDATE that changes keys: the old identities go, the new ones come."""
    audited = statement.audited
    pairs = read_keys(statement, effective_criteria(statement.element), extra=moved)
    width = len(audited.key)
    old = [row[:width] for row in pairs]
    changed = {row[:width]: row[width:] for row in pairs if row[:width] != row[width:]}
    images = read_images(statement.connection, statement.recording, statement.target, old)
    reach_update(statement, old)
    bulk.narrow(statement, old)
    if changed:
        prepare(statement)
        statement.write(deleted=list(changed))

    def after(result: Any) -> None:
        check_count(statement, result, len(old), exact=bool(changed))
        kept = [image for key, image in images.items() if key not in changed]
        statement.write(images=kept, inserted=list(changed.values()))

    statement.after = after


def before_delete(statement: Statement) -> None:
    """Copy what a DELETE will remove into the history, and narrow it to that."""
    refuse_unrecordable(statement)
    lock_writer(statement.connection, statement.recording, statement.target)
    if statement.many:
        images, closed = images_of_many(statement)
        if not closed:
            bulk.narrow(statement, list(images))
        _record_deleted(statement, list(images), exact=False)
        return
    criteria = effective_criteria(statement.element)
    keys = read_keys(statement, criteria, limit=SMALL + 1)
    if len(keys) <= SMALL:
        statement.element = narrowed(statement.element, statement.audited, keys)
        _record_deleted(statement, keys, exact=True)
    elif statement.audited.protected or any(True for _ in foreign_keys.referring(statement.audited.table, "delete")):
        keys = read_keys(statement, criteria)
        bulk.narrow(statement, keys)
        _record_deleted(statement, keys, exact=True)
    else:
        bulk.before_delete(statement, exists_criterion(statement.audited.table, criteria))


def _record_deleted(statement: Statement, keys: list[Key], *, exact: bool) -> None:
    """Record rows as deleted; afterwards they have to be gone, which the number of deleted rows says if it can."""
    if not keys:
        return
    prepare(statement)
    statement.write(deleted=keys)
    table = statement.audited.table
    reached = foreign_keys.reach_delete(
        statement.connection, statement.recording, table, keys, statement.options, statement.flush
    )
    statement.reached.append(reached)
    if not exact or table in foreign_keys.closure(table):
        # a row that goes with its parent, which the statement deletes as well, is not always counted
        reached.gone.append((statement.target, keys))
        statement.after = lambda result: check_count(statement, result, len(keys), exact=False)
        return

    def after(result: Any) -> None:
        if result.returns_rows or result.rowcount < 0:
            reached.gone.append((statement.target, keys))
        else:
            check_count(statement, result, len(keys), exact=True)

    statement.after = after


def check_count(statement: Statement, result: Any, expected: int, *, exact: bool) -> None:
    """Refuse a statement that changed other rows than were read.

    Raises:
        UnauditedWrite: if the database says so; the transaction is rolled back.
    """
    count = result.rowcount
    if count < 0 or result.returns_rows or statement.many:
        return
    if count > expected or (exact and count != expected):
        raise UnauditedWrite(
            f"{count} rows of {statement.audited.table.fullname} were changed, but {expected} were read and locked: "
            "another transaction came in between, or the criteria give different answers each time; try again, "
            "or select the keys first"
        )
