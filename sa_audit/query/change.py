"""What the trail answers with: changes, transactions, pages and discrepancies, as frozen values.

Imports model only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..model import Marker

Operation = Literal["insert", "update", "delete", "baseline", "truncate"]

OPERATIONS: Mapping[str, Operation] = {
    "I": "insert",
    "U": "update",
    "D": "delete",
    "B": "baseline",
    "T": "truncate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionInfo:
    """Who and why: one row of ``audit_transaction``.

    A key with a policy (``configure(context=...)``) is decrypted, or shows as its digest, ``Masked`` or ``Erased``.

    Attributes:
        id: the row's id.
        recorded_at: the database's clock at the transaction's first audited write; aware, UTC.
        actor: who the application says it was.
        on_behalf_of: for whom.
        reason: why.
        request_id: in which request.
        remote_addr: from where.
        context: what else the application said, as a JSON object.
        db_user: the database user; None where the database has none.
        first_id: the first row of the same database transaction, if this is a further one (the context had changed).
    """

    id: int
    recorded_at: dt.datetime
    actor: str | None
    on_behalf_of: str | Marker | None
    reason: str | Marker | None
    request_id: str | Marker | None
    remote_addr: str | Marker | None
    context: Mapping[str, Any] | None
    db_user: str | None
    first_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of one entity: a flush's, or a statement's.

    ``diff`` and ``state`` are keyed by mapped attribute names (column names for plain tables) and hold Python values
    of the columns' own types.  A composite shows as the attributes of its columns.  A masked value shows as
    ``Masked``; an excluded column does not show.

    Attributes:
        entity: the name of the class (of the subclass, where the row tells), or of the table.
        table: the full name of the table; of joined inheritance, the one nearest the root that was changed.
        identity: the key's values, in the order of the table's key; empty for a truncate.
        operation: ``"insert" "update" "delete" "baseline" "truncate"``.
        diff: ``{attribute: (before, after)}``; of an insert ``(None, after)``, of a delete ``(before, None)``.
        state: the row after the change; of a delete, the row before.
        recorded_at: the database's clock at the transaction's first audited write; aware, UTC.
        transaction: who and why.
        audit_id: the history row's id: the order of changes to one row.
        former: the attributes whose value in ``state`` is of another type, which the column had when it was recorded.
    """

    entity: str
    table: str
    identity: tuple[Any, ...]
    operation: Operation
    diff: Mapping[str, tuple[Any, Any]]
    state: Mapping[str, Any]
    recorded_at: dt.datetime
    transaction: TransactionInfo
    audit_id: int
    former: frozenset[str] = frozenset()

    @property
    def actor(self) -> str | None:
        """Who the application says it was."""
        return self.transaction.actor

    @property
    def reason(self) -> str | Marker | None:
        """Why, as the application says."""
        return self.transaction.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A domain event: what :func:`sa_audit.record` has written.

    Attributes:
        action: what happened; ``sa_audit.rolled_back`` for a transaction that was rolled back (``attempts``).
        entity: the name of the class of the object that it happened to; None if there is none.
        table: the full name of the table that names the row, or None.
        identity: the key's values; empty if there is no row.
        data: what the application gave, as JSON values; ``Erased`` where the key of its ``subject`` was destroyed.
        durable: whether it was written apart from the session's transaction.
        recorded_at: the database's clock at the transaction's first audited write; aware, UTC.
        transaction: who and why.
        audit_id: the id of its row of ``audit_event``.
    """

    action: str
    entity: str | None
    table: str | None
    identity: tuple[Any, ...]
    data: Mapping[str, Any] | Marker | None
    durable: bool
    recorded_at: dt.datetime
    transaction: TransactionInfo
    audit_id: int

    @property
    def operation(self) -> Literal["event"]:
        """What kind of entry it is."""
        return "event"

    @property
    def actor(self) -> str | None:
        """Who the application says it was."""
        return self.transaction.actor

    @property
    def reason(self) -> str | Marker | None:
        """Why, as the application says."""
        return self.transaction.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A statement that read rows of a model with ``reads``, or a look into the trail of them.

    Attributes:
        entity: the name of the class.
        table: the full name of the table that names the rows.
        rows: the keys of the rows that it showed, as far as they are known.
        columns: the attributes (of plain tables, the columns) that it read; empty for an aggregate over whole rows.
        statement: the fingerprint of its SQL text, ``"sha256:..."``, or for a look into the trail ``"history()"``
            and the like.
        criteria: where the rows are not known, what they were sought by.
        identities: ``"known"``; ``"streamed"``: written as the rows were fetched, so that after a crash some rows
            that were fetched but not yet handed over may be missing; ``"none"``: not known, ``criteria`` stands for it.
        row_count: how many rows the result had; None for a stream.
        recorded_at: the database's clock; aware, UTC.
        transaction: who and why.
        audit_id: the id of its row of ``audit_access``.
        row_ids: the ids of the rows of ``audit_access_row`` that name ``rows``, in their order.
    """

    entity: str
    table: str
    rows: tuple[tuple[Any, ...], ...]
    columns: tuple[str, ...]
    statement: str
    criteria: Any
    identities: Literal["known", "streamed", "none"]
    row_count: int | None
    recorded_at: dt.datetime
    transaction: TransactionInfo
    audit_id: int
    row_ids: tuple[int, ...] = field(default=(), repr=False)

    @property
    def operation(self) -> Literal["read"]:
        """What kind of entry it is."""
        return "read"

    @property
    def identity(self) -> tuple[Any, ...]:
        """The key of the row that it showed, if it showed one; else empty."""
        return self.rows[0] if len(self.rows) == 1 else ()

    @property
    def actor(self) -> str | None:
        """Who the application says it was."""
        return self.transaction.actor

    @property
    def reason(self) -> str | Marker | None:
        """Why, as the application says."""
        return self.transaction.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who read how much of an entity; what :func:`sa_audit.readers` gives.

    Attributes:
        actor: who, as the application says.
        rows: how many different rows were shown to them.
        others: how many rows went into results whose rows are not known, such as those of aggregates.
        statements: how many statements they read by.
        day: on which day, in UTC, if days were asked for.
    """

    actor: str | None
    rows: int
    others: int
    statements: int
    day: dt.date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRecord:
    """Everything that one database transaction did to audited tables.

    Attributes:
        infos: its rows of ``audit_transaction``, the first one first; several if the context changed midway.
        changes: its changes, in their order.
        events: its domain events, in their order.
        reads: the reads that were recorded in it.
    """

    infos: tuple[TransactionInfo, ...]
    changes: tuple[Change, ...]
    events: tuple[Event, ...] = ()
    reads: tuple[Access, ...] = ()

    @property
    def id(self) -> int:
        """The id of its first row of ``audit_transaction``."""
        return self.infos[0].id

    @property
    def recorded_at(self) -> dt.datetime:
        """When it first wrote; aware, UTC."""
        return self.infos[0].recorded_at

    @property
    def actor(self) -> str | None:
        """Who began it, as the application says."""
        return self.infos[0].actor

    @property
    def reason(self) -> str | Marker | None:
        """Why, as the application said first."""
        return self.infos[0].reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the trail.

    Attributes:
        entries: changes, events and reads, oldest first; ``operation`` tells which one is.
        next: the cursor for ``after=`` of the next page; None if there is nothing more to show now.
        end: the cursor behind the last entry, to ask again later; None if the trail has shown nothing yet.
        withheld: whether entries were held back, because a writer that began before them is still open.
    """

    entries: list[Change | Event | Access] = field(default_factory=list)
    next: str | None = None
    end: str | None = None
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """A row whose present state is not the last recorded one: something changed it unrecorded.

    Attributes:
        entity: the name of the class, or of the table.
        table: the full name of the table.
        identity: the key's values, in the order of the table's key.
        kind: ``"changed"``; ``"unrecorded"``: it is there, but the history does not know it, or ends with a delete;
            ``"missing"``: it is gone, but the history does not say so.
        diff: ``{attribute: (recorded, present)}`` of what differs; everything, if the row is known to one side only.
    """

    entity: str
    table: str
    identity: tuple[Any, ...]
    kind: Literal["changed", "unrecorded", "missing"]
    diff: Mapping[str, tuple[Any, Any]]
