"""The unit of work: what a flush inserts, updates and deletes, recorded as one flush.

A flush reads the rows that it will update in one locking SELECT per table, at its first UPDATE of that table, when
all hooks have run; it copies the rows that it will delete into the history just before the DELETE; after the flush
one INSERT ... SELECT per table records what was inserted, and what differs from what was read.
Imports model, ddl, and of capture the flushes, the recording, what goes ahead and the foreign keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.orm.unitofwork import UOWTransaction

from ..ddl.backend import Batch, Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import foreign_keys
from .ahead import goes_ahead, require_sent, send, wait
from .failing import fail_closed
from .flushes import FLUSH, ConnectionFlush, Flush, TableFlush, before_flush, current_flush, leave, running_flushes
from .keys import inserted_keys, labelled_keys, moved_keys
from .recording import (
    Ahead,
    Recording,
    lock_writer,
    read_images,
    write,
)


def after_flush(session: Session, work: UOWTransaction) -> None:
    """Record the flush; listens on ``Session``."""
    mine: Flush | None = work.attributes.pop(FLUSH, None)
    if mine is None:
        return
    leave(mine)
    for part in mine.connections.values():
        with fail_closed(part.connection):
            _refuse_failed(mine)
            for table in part.tables.values():
                _record_table(part, table)
            _settle(part)


def _refuse_failed(flush: Flush) -> None:
    """Refuse a flush that went on after one of its statements had failed, and so may not have done what it recorded.

    Raises:
        UnauditedWrite: if somebody caught that error.
    """
    if flush.failed:
        raise UnauditedWrite(
            "a statement of this flush failed and the error was caught inside it, so what is recorded may not have "
            "happened: let the error end the flush"
        )


def _record_table(part: ConnectionFlush, table: TableFlush) -> None:
    """Record what the flush has done to a table so far; what it does from here on is read anew."""
    send(part.connection, part.recording)
    batch = Batch(inserted=list(table.inserted), images=list(table.images.values()))
    table.asked.clear()
    table.images.clear()
    table.inserted.clear()
    if batch.inserted or batch.images:
        write(part.connection, part.recording, table.target, batch, part.number)


def _settle(part: ConnectionFlush) -> None:
    reached, part.reached = part.reached, []
    for entry in reached:
        foreign_keys.settle(part.connection, part.recording, entry, part.number)


def record_so_far(connection: Connection, audited: AuditedTable, besides: Flush | None = None) -> None:
    """Record what running flushes have done to the rows that another statement is about to touch.

    A mapper event may run SQL inside a flush, or flush another session: its change begins where the flush's ends.

    Args:
        connection: the connection of the statement.
        audited: the table that it writes.
        besides: the flush whose own statement it is.

    Raises:
        UnauditedWrite: if one of them is about to change the same rows by a statement that has begun.
    """
    for flush in running_flushes():
        part = flush.connections.get(id(connection))
        if flush is not besides and part is not None:
            touched = {audited.table} | foreign_keys.closure(audited.table)
            _refuse_in_between(flush, part.recording, touched)
            _record_reached(part, touched)


def _refuse_in_between(flush: Flush, recording: Recording, tables: set[sa.Table]) -> None:
    """Refuse what would change rows that a flush's statement has had read, and not changed yet.

    Raises:
        UnauditedWrite: naming the table.
    """
    for _element, job in recording.pending:
        if isinstance(job, tuple) and job[1] is flush and not flush.failed and job[0] != "insert":
            table = job[2].table
            if table in tables:
                raise UnauditedWrite(
                    f"rows of {table.fullname} are written by an event listener between the reading of the rows that "
                    "a flush changes and the change itself, which could then not be told from that: write them in "
                    "before_flush or after_flush"
                )


def _record_reached(part: ConnectionFlush, tables: set[sa.Table]) -> None:
    for table in part.tables.values():
        if table.target.audited.table in tables:
            _record_table(part, table)
    _settle(part)


def before_insert(flush: Flush, connection: Connection, audited: AuditedTable, options: Any) -> None:
    """Admit a flush's INSERT."""
    flush.on(connection, audited).of(audited, options)


def after_insert(flush: Flush, connection: Connection, audited: AuditedTable, options: Any, result: Any) -> None:
    """Note the keys that a flush's INSERT made."""
    part = flush.on(connection, audited)
    part.recording.changed = True
    part.of(audited, options).inserted.update(dict.fromkeys(inserted_keys(audited, result)))


def before_update(
    flush: Flush,
    connection: Connection,
    audited: AuditedTable,
    rows: Sequence[dict[str, Any]],
    options: Any,
) -> None:
    """Read the rows that a flush's UPDATE will change, and all others of the table that the flush knows of."""
    part = flush.on(connection, audited)
    table = part.of(audited, options)
    keys = labelled_keys(audited, rows)
    moved = moved_keys(audited, rows, keys)
    if moved and table.asked:
        _record_table(part, table)
    wanted = [key for key in keys if key not in table.asked and key not in table.inserted]
    if wanted:
        if not table.asked:
            known = {*wanted, *table.inserted}
            wanted += [key for key in _known_keys(flush, connection, audited) if key not in known]
        lock_writer(connection, part.recording, table.target)
        if moved or not _read_ahead(part, table, wanted):
            table.images.update(read_images(connection, part.recording, table.target, wanted))
        table.asked.update(wanted)
    if moved:
        _move(part, table, moved, options)


def _read_ahead(part: ConnectionFlush, table: TableFlush, keys: Sequence[Key]) -> bool:
    """Have rows read in one round trip with the statement that is about to be executed, where that can be done."""
    if not goes_ahead(part.connection):
        return False
    read = part.recording.backend.images_ahead(table.target, keys)
    if read is None:
        return False
    part.recording.tries(table.target, "change", keys)
    images = table.images
    ahead = Ahead(read.sql, read.parameters, lambda cursor: images.update(read.images(cursor)))
    wait(part.connection, part.recording, ahead)
    return True


def reach_referring(
    flush: Flush,
    connection: Connection,
    audited: AuditedTable,
    element: Any,
    rows: Sequence[dict[str, Any]],
    options: Any,
) -> None:
    """Read what a flush's UPDATE of columns that others refer to will do to their rows."""
    names = {getattr(name, "key", name) for name in element._values or {}}.union(*rows)
    changed = {column.name for column in audited.table.columns if column.key in names}
    changed -= {column.name for column in audited.key}
    if not foreign_keys.refers(audited.table, changed):
        return
    part = flush.on(connection, audited)
    _record_reached(part, foreign_keys.closure(audited.table) - {audited.table})
    keys = labelled_keys(audited, rows)
    reached = foreign_keys.reach_update(connection, part.recording, audited.table, keys, options, changed)
    reached.leave_out(audited, keys)
    part.reached.append(reached)


def settle(flush: Flush, connection: Connection, audited: AuditedTable) -> None:
    """Record what the database did by foreign keys in a flush's statement, before the next one changes the rows."""
    part = flush.on(connection, audited)
    require_sent(part.recording)
    part.recording.changed = True
    _settle(part)


def refuse_unknown_key(audited: AuditedTable, element: Any) -> None:
    """Refuse a flush's UPDATE that sets a key to a SQL expression.

    Raises:
        UnauditedWrite: naming the column.
    """
    for column in audited.key:
        if column in (element._values or {}):
            raise UnauditedWrite(
                f"the key {column} is set to a SQL expression, whose value is not known before it is written, so the "
                "row could not be followed: select the new key first"
            )


def _move(part: ConnectionFlush, table: TableFlush, moved: dict[Key, Key], options: Any) -> None:
    """Record rows whose key changes: the old identity goes now, the new one comes after the flush."""
    audited = table.target.audited
    present = [key for key in moved if key in table.images]
    write(part.connection, part.recording, table.target, Batch(deleted=present), part.number)
    part.reached.append(foreign_keys.reach_update(part.connection, part.recording, audited.table, present, options))
    for key in present:
        del table.images[key]
    table.inserted.update(dict.fromkeys(moved[key] for key in present))


def before_delete(
    flush: Flush,
    connection: Connection,
    audited: AuditedTable,
    rows: Sequence[dict[str, Any]],
    options: Any,
    keys: Sequence[Key],
) -> int:
    """Copy the rows that a flush's DELETE will remove; give their number."""
    part = flush.on(connection, audited)
    table = part.of(audited, options)
    if not table.inserted.keys().isdisjoint(keys) or not table.images.keys().isdisjoint(keys):
        _record_table(part, table)
    acted_on = foreign_keys.closure(audited.table)
    if acted_on:
        _record_reached(part, acted_on)
    lock_writer(connection, part.recording, table.target)
    copied = write(connection, part.recording, table.target, Batch(deleted=list(keys)), part.number)
    part.reached.append(
        foreign_keys.reach_delete(connection, part.recording, audited.table, keys, options, part.number)
    )
    return copied


def _known_keys(flush: Flush, connection: Connection, audited: AuditedTable) -> list[Key]:
    """Give the keys of this table's rows that the flush will save, so that one SELECT reads them all."""
    session, work = flush.session(), flush.work()
    if session is None or work is None:
        return []
    keys: list[Key] = []
    places: dict[Mapper[Any], tuple[int, ...] | None] = {}
    for state, (is_delete, list_only) in list(work.states.items()):
        if is_delete or list_only or state.key is None:
            continue
        mapper: Mapper[Any] = state.manager.mapper
        if mapper not in places:
            places[mapper] = _key_places(session, mapper, audited, connection)
        place = places[mapper]
        if place is not None:
            identity = state.key[1]
            keys.append(tuple([identity[index] for index in place]))
    return [key for key in keys if None not in key]


def _key_places(
    session: Session, mapper: Mapper[Any], audited: AuditedTable, connection: Connection
) -> tuple[int, ...] | None:
    """Tell where in a mapper's identities one of its tables' keys stands, so that no attribute is loaded for it.

    Returns:
        None if the mapper has no such table on this connection, or its identity does not hold the table's key.
    """
    if audited.table not in mapper._pks_by_table or not _same_bind(session, mapper, connection):
        return None
    names = [mapper._columntoproperty[column].key for column in mapper.primary_key]
    wanted = [mapper._columntoproperty[column].key for column in audited.key]
    return tuple(names.index(name) for name in wanted) if set(wanted) <= set(names) else None


def _same_bind(session: Session, mapper: Mapper[Any], connection: Connection) -> bool:
    """Tell whether the mapper's rows stand behind this connection; a sharded session answers by the DML itself."""
    if session.connection_callable is not None:
        return False
    bind = session.get_bind(mapper)
    return bind is connection or getattr(bind, "engine", bind) is connection.engine


def check_version(audited: AuditedTable, copied: int, deleted: int) -> None:
    """Refuse a DELETE that asked for versions of rows which are no longer theirs, as the ORM would by itself.

    Raises:
        StaleDataError: if fewer rows were deleted; the flush rolls back what it recorded.
    """
    if 0 <= deleted < copied:
        raise StaleDataError(
            f"DELETE statement on table {audited.table.fullname!r} expected to delete {copied} row(s); "
            f"{deleted} were matched"
        )


def check_deleted(audited: AuditedTable, copied: int, deleted: int) -> None:
    """Refuse a DELETE that removed other rows than were copied.

    Raises:
        UnauditedWrite: if the numbers differ.
    """
    if deleted >= 0 and deleted != copied:
        raise UnauditedWrite(
            f"{deleted} rows of {audited.table.fullname} were deleted, but {copied} were recorded: "
            "another transaction changed them in between, so try again"
        )


__all__ = [
    "Flush",
    "after_flush",
    "after_insert",
    "before_delete",
    "before_flush",
    "before_insert",
    "before_update",
    "check_deleted",
    "check_version",
    "current_flush",
    "reach_referring",
    "record_so_far",
    "refuse_unknown_key",
    "settle",
]
