"""The flushes that are at work, and what each of them does on its connections, table by table.

Imports model, ddl, and of capture the recording and the foreign keys.
"""

from __future__ import annotations

import contextvars
import weakref
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session
from sqlalchemy.orm.unitofwork import UOWTransaction

from ..ddl.backend import Image, Key, Target
from ..model.history import AuditedTable
from . import foreign_keys
from .recording import Recording, admit, target_of


@dataclass(slots=True)
class TableFlush:
    """What one flush does to one table: keys asked for, rows as they were, keys of inserted rows in their order."""

    target: Target
    asked: set[Key] = field(default_factory=set)
    images: dict[Key, Image] = field(default_factory=dict)
    inserted: dict[Key, None] = field(default_factory=dict)


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


@dataclass(slots=True, weakref_slot=True, eq=False)
class Flush:
    """One flush of one session."""

    session: weakref.ref[Session]
    work: weakref.ref[UOWTransaction]
    failed: bool = False
    connections: dict[int, ConnectionFlush] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether the flush is at work now, neither finished nor failed nor found empty."""
        session = self.session()
        transaction = getattr(self.work(), "transaction", None)
        return session is not None and transaction is not None and session._transaction is transaction

    def on(self, connection: Connection, audited: AuditedTable) -> ConnectionFlush:
        """Give the connection's part of the flush, admitting the change."""
        recording = admit(connection, audited)
        known = self.connections.get(id(connection))
        if known is None or known.recording is not recording:
            known = ConnectionFlush(connection, recording, recording.next_flush())
            self.connections[id(connection)] = known
        return known


# A flush stands in the attributes of its UOWTransaction, and goes with it, however the flush ends.
FLUSH: Final = "sa_audit.flush"
_flushes: contextvars.ContextVar[tuple[weakref.ref[Flush], ...]] = contextvars.ContextVar(
    "sa_audit_flushes", default=()
)


def before_flush(session: Session, work: UOWTransaction, _instances: Any) -> None:
    """Open the flush; listens on ``Session``."""
    flush = work.attributes[FLUSH] = Flush(weakref.ref(session), weakref.ref(work))
    _flushes.set((*(weakref.ref(outer) for outer in running_flushes()), weakref.ref(flush)))


def running_flushes() -> list[Flush]:
    """Give the flushes that are at work here, the innermost last."""
    flushes = (reference() for reference in _flushes.get())
    return [flush for flush in flushes if flush is not None and flush.running]


def current_flush() -> Flush | None:
    """Give the innermost flush that is at work."""
    flushes = _flushes.get()
    flush = flushes[-1]() if flushes else None
    return flush if flush is not None and flush.running else None


def leave(flush: Flush) -> None:
    """Note that a flush is over."""
    _flushes.set(tuple(weakref.ref(each) for each in running_flushes() if each is not flush))


__all__ = [
    "FLUSH",
    "ConnectionFlush",
    "Flush",
    "TableFlush",
    "before_flush",
    "current_flush",
    "leave",
    "running_flushes",
]
