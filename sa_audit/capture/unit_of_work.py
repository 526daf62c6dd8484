"""The unit of work: what a flush inserts, updates and deletes, recorded as one flush.

A flush reads the rows that it will update in one locking SELECT per table, at its first UPDATE of that table, when
all hooks have run; it copies the rows that it will delete into the history just before the DELETE; after the flush
one INSERT ... SELECT per table records what was inserted, and what differs from what was read.
Imports model, ddl, and of capture the recording and the foreign keys.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.unitofwork import UOWTransaction

from ..ddl.backend import Batch, Image, Key, Target
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import foreign_keys
from .keys import inserted_keys, labelled_keys, moved_keys
from .recording import (
    Recording,
    admit,
    fail_closed,
    lock_writer,
    read_images,
    target_of,
    write,
)


@dataclass(slots=True)
class TableFlush:
    """What one flush does to one table: keys asked for, rows as they were, keys of inserted rows."""

    target: Target
    asked: set[Key] = field(default_factory=set)
    images: dict[Key, Image] = field(default_factory=dict)
    inserted: list[Key] = field(default_factory=list)


@dataclass(slots=True)
class ConnectionFlush:
    """What one flush does on one connection."""

    connection: Connection
    recording: Recording
    number: int
    tables: dict[AuditedTable, TableFlush] = field(default_factory=dict)
    reached: list[foreign_keys.Reached] = field(default_factory=list)

    def of(self, audited: AuditedTable, options: Any) -> TableFlush:
        """Give the table's part of the flush."""
        known = self.tables.get(audited)
        if known is None:
            known = self.tables[audited] = TableFlush(target_of(audited, options))
        return known


@dataclass(slots=True)
class Flush:
    """One flush of one session."""

    session: weakref.ref[Session]
    work: UOWTransaction
    connections: dict[int, ConnectionFlush] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether the flush is at work now, neither finished nor failed nor found empty."""
        session = self.session()
        transaction = getattr(self.work, "transaction", None)
        return session is not None and transaction is not None and session._transaction is transaction

    def on(self, connection: Connection, audited: AuditedTable) -> ConnectionFlush:
        """Give the connection's part of the flush, admitting the change."""
        recording = admit(connection, audited)
        known = self.connections.get(id(connection))
        if known is None or known.recording is not recording:
            known = ConnectionFlush(connection, recording, recording.next_flush())
            self.connections[id(connection)] = known
        return known


_flushes: contextvars.ContextVar[tuple[Flush, ...]] = contextvars.ContextVar("sa_audit_flushes", default=())


def before_flush(session: Session, work: UOWTransaction, _instances: Any) -> None:
    """Open the flush; listens on ``Session``."""
    running = tuple(flush for flush in _flushes.get() if flush.running)
    _flushes.set((*running, Flush(weakref.ref(session), work)))


def current_flush() -> Flush | None:
    """Give the innermost flush that is at work."""
    flushes = _flushes.get()
    return flushes[-1] if flushes and flushes[-1].running else None


def after_flush(session: Session, work: UOWTransaction) -> None:
    """Record the flush; listens on ``Session``."""
    flushes = _flushes.get()
    mine = next((flush for flush in flushes if flush.work is work), None)
    if mine is None:
        return
    _flushes.set(tuple(flush for flush in flushes if flush is not mine and flush.running))
    for part in mine.connections.values():
        with fail_closed(part.connection):
            _record(part)


def _record(part: ConnectionFlush) -> None:
    for table in part.tables.values():
        batch = Batch(inserted=table.inserted, images=list(table.images.values()))
        if batch.inserted or batch.images:
            write(part.connection, part.recording, table.target, batch, part.number)
    for reached in part.reached:
        foreign_keys.settle(part.connection, part.recording, reached, part.number)


def before_insert(flush: Flush, connection: Connection, audited: AuditedTable, options: Any) -> None:
    """Admit a flush's INSERT."""
    flush.on(connection, audited).of(audited, options)


def after_insert(flush: Flush, connection: Connection, audited: AuditedTable, options: Any, result: Any) -> None:
    """Note the keys that a flush's INSERT made."""
    part = flush.on(connection, audited)
    part.of(audited, options).inserted += inserted_keys(audited, result)


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
    wanted = [key for key in keys if key not in table.asked]
    if wanted:
        if not table.asked:
            known = set(wanted)
            wanted += [key for key in _known_keys(flush, connection, audited) if key not in known]
        lock_writer(connection, part.recording, table.target)
        table.images.update(read_images(connection, part.recording, table.target, wanted))
        table.asked.update(wanted)
    moved = moved_keys(audited, rows, keys)
    if moved:
        _move(part, table, moved, options)


def _move(part: ConnectionFlush, table: TableFlush, moved: dict[Key, Key], options: Any) -> None:
    """Record rows whose key changes: the old identity goes now, the new one comes after the flush."""
    audited = table.target.audited
    present = [key for key in moved if key in table.images]
    write(part.connection, part.recording, table.target, Batch(deleted=present), part.number)
    part.reached.append(
        foreign_keys.reach_update(part.connection, part.recording, audited.table, present, options)
    )
    for key in present:
        del table.images[key]
        table.inserted.append(moved[key])


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
    lock_writer(connection, part.recording, table.target)
    copied = write(connection, part.recording, table.target, Batch(deleted=list(keys)), part.number)
    part.reached.append(
        foreign_keys.reach_delete(connection, part.recording, audited.table, keys, options, part.number)
    )
    for key in keys:
        table.images.pop(key, None)
    return copied


def _known_keys(flush: Flush, connection: Connection, audited: AuditedTable) -> list[Key]:
    """Give the keys of this table's rows that the flush will save, so that one SELECT reads them all."""
    session = flush.session()
    keys: list[Key] = []
    for state, (is_delete, list_only) in list(flush.work.states.items()):
        if is_delete or list_only or state.key is None:
            continue
        mapper: Mapper[Any] = state.manager.mapper
        columns = mapper._pks_by_table.get(audited.table)
        if columns is None or session is None or not _same_bind(session, mapper, connection):
            continue
        key = _identity_of(state, mapper, audited)
        if key is not None:
            keys.append(key)
    return keys


def _identity_of(state: InstanceState[Any], mapper: Mapper[Any], audited: AuditedTable) -> Key | None:
    """Give a state's key in one of its tables, from its identity: no attribute is loaded for it."""
    names = [mapper._columntoproperty[column].key for column in mapper.primary_key]
    by_name = dict(zip(names, state.key[1], strict=True)) if state.key is not None else {}
    key = tuple(by_name.get(mapper._columntoproperty[column].key) for column in audited.key)
    return None if None in key else key


def _same_bind(session: Session, mapper: Mapper[Any], connection: Connection) -> bool:
    """Tell whether the mapper's rows stand behind this connection; a sharded session answers by the DML itself."""
    if session.connection_callable is not None:
        return False
    bind = session.get_bind(mapper)
    return bind is connection or getattr(bind, "engine", bind) is connection.engine


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
    "current_flush",
]
