"""What was pruned, and what may be: rows of ``audit_prune``, and the conditions that a range of a history has to meet.

The sealer and whoever prunes ask the same questions, each for itself.  Imports model, ddl, proof and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import internal
from ..model.history import AuditedTable, Trail
from ..proof.schema import Descriptor
from .database import CatalogDatabase

ASKED: Final = "sa_audit.prune"
"""The event by which somebody asks that ranges of a history may go."""
DONE: Final = "sa_audit.pruned"
"""The event that says that they went."""
REQUESTED: Final = 4_000
"""How many ranges one request holds at the most."""
CARRIED: Final = 0
"""The ``audit_flush`` of a row that a prune carried forward; flushes and other baselines count from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """A range of a history that may go, as ``audit_prune`` has it.

    Args:
        table: the history, with its schema where it has one.
        leaf: the index of the leaf that says so.
        first: the id of its first row.
        last: that of its last one.
        count: how many rows have a leaf in it.
        root: of those leaves, as hexadecimal digits.
        policy: by which policy.
        approver: who asked for it.
        reason: why.
        request: the id of the event that asked for it.
        before: the moment before which all of its rows were recorded (UTC).
        whole_since: from when on (UTC) every moment of the table can be travelled to again.
        recorded_at: when the sealer wrote it (UTC).
    """

    table: str
    leaf: int
    first: int
    last: int
    count: int
    root: str
    policy: str
    approver: str
    reason: str
    request: int
    before: dt.datetime
    whole_since: dt.datetime
    recorded_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Back to which moment a table can be travelled to, once all that was granted is gone.

    Args:
        since: on the clock (UTC): at that moment and later, every row that may go had been recorded.
        through: of the exact moments, those that see every transaction (on SQLite, every entry) up to this number.
    """

    since: dt.datetime
    through: int

    def and_(self, other: Reach | None) -> Reach:
        """Give what both leave."""
        if other is None:
            return self
        return Reach(since=max(self.since, other.since), through=max(self.through, other.through))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asked for, by one event of the trail; ``reach`` is None where it was asked for as of that event."""

    id: int
    table: str
    ranges: tuple[tuple[int, int], ...]
    rows: int
    policy: str
    approver: str
    reason: str
    before: dt.datetime
    at: dt.datetime
    db_user: str | None
    reach: Reach | None = None


def place_text(connection: Connection, database: CatalogDatabase, history: sa.Table) -> str:
    """Give the name by which ``audit_prune`` knows a history."""
    schema = database.schema(connection, history)
    return f"{schema}.{history.name}" if schema else str(history.name)


def read_prunes(connection: Connection, trail: Trail, place: str | None = None) -> list[Prune]:
    """Read what ``audit_prune`` says, of one history or of all, by leaf."""
    table = trail.prune
    if table is None:
        return []
    statement = sa.select(table).order_by(table.c.leaf)
    if place is not None:
        statement = statement.where(table.c.table_name == place)
    return [
        Prune(
            table=row["table_name"],
            leaf=row["leaf"],
            first=row["first_row"],
            last=row["last_row"],
            count=row["row_count"],
            root=row["root"],
            policy=row["policy"],
            approver=row["approver"],
            reason=row["reason"],
            request=row["request"],
            before=row["recorded_before"],
            whole_since=row["whole_since"],
            recorded_at=row["recorded_at"],
        )
        for row in internal(connection, statement).mappings()
    ]


def prune_of(connection: Connection, trail: Trail, descriptor: Descriptor, row: int) -> Prune | None:
    """Give the prune by which a sealed row may be gone, or None; what ``audit_prune`` says is taken as it is."""
    place = f"{descriptor.schema}.{descriptor.name}" if descriptor.schema else descriptor.name
    found = (each for each in read_prunes(connection, trail, place) if each.first <= row <= each.last)
    return next(found, None)


def anchored_size(connection: Connection, trail: Trail) -> int:
    """Give the greatest size of which the database says that an anchor has taken it, or 0."""
    table = trail.checkpoint
    statement = sa.select(sa.func.max(table.c.size)).where(table.c.anchor.is_not(None))
    return int(internal(connection, statement).scalar() or 0)


def requests(connection: Connection, database: CatalogDatabase, trail: Trail) -> list[Request]:
    """Give what members of the owner asked for since the last that was fulfilled, the newest request of each history.

    Args:
        connection: in a transaction.
        database: how to read it.
        trail: the trail.
    """
    prune, event, entry = trail.prune, trail.event, trail.transaction
    if prune is None or not database.columns(connection, database.schema(connection, prune), prune.name):
        return []
    fulfilled = sa.select(sa.func.max(prune.c.request)).scalar_subquery()
    statement = (
        sa.select(event.c.audit_id, event.c.audit_at, event.c.data, entry.c.actor, entry.c.reason, entry.c.db_user)
        .join(entry, entry.c.id == event.c.audit_tx)
        .where(event.c.action == ASKED, event.c.audit_id > sa.func.coalesce(fulfilled, -1))
        .order_by(event.c.audit_id)
    )
    found: dict[str, Request] = {}
    for row in internal(connection, statement):
        request = _request(row)
        if request is not None and is_of_owner(connection, trail, request.db_user):
            found[request.table] = request
    return sorted(found.values(), key=lambda request: request.id)


def _request(row: Any) -> Request | None:
    match row.data:
        case {
            "history": str(table),
            "ranges": [*ranges],
            "policy": str(policy),
            "before": str(before),
            "rows": int(rows),
        } if len(ranges) <= REQUESTED:
            pairs = [(first, last) for first, last in ranges if isinstance(first, int) and isinstance(last, int)]
            return Request(
                id=row.audit_id,
                table=table,
                ranges=tuple(pairs),
                rows=rows,
                policy=policy,
                approver=row.actor or "",
                reason=row.reason or "",
                before=dt.datetime.fromisoformat(before),
                at=row.audit_at,
                db_user=row.db_user,
                reach=reach_in(row.data),
            )
    return None


def reach_in(data: Any) -> Reach | None:
    """Read the reach that a request says it leaves; None for one that was made before requests said so."""
    match data:
        case {"reach": {"since": str(since), "through": int(through)}}:
            return Reach(since=dt.datetime.fromisoformat(since), through=through)
    return None


def granted_reach(connection: Connection, trail: Trail, places: Sequence[str]) -> tuple[int, Reach, bool] | None:
    """Give what the prunes that were granted leave of a history, or None if there was none.

    Each request says what it leaves together with those before it, so the last one speaks for all.

    Args:
        connection: in a transaction.
        trail: the trail.
        places: the names by which ``audit_prune`` knows the history.

    Returns:
        The request's id; the reach; and whether the request says it, and not only that it was made.
    """
    prune, event = trail.prune, trail.event
    assert prune is not None  # noqa: S101 - the caller has looked
    last = internal(connection, sa.select(sa.func.max(prune.c.request)).where(prune.c.table_name.in_(places))).scalar()
    if last is None:
        return None
    columns = (event.c.data, event.c.audit_at, event.c.audit_txid, event.c.audit_tx)
    row = internal(connection, sa.select(*columns).where(event.c.audit_id == last)).one()
    said = reach_in(row.data)
    number = row.audit_txid if row.audit_txid is not None else row.audit_tx
    return int(last), said or Reach(since=row.audit_at, through=number), said is not None


def is_of_owner(connection: Connection, trail: Trail, account: str | None) -> bool:
    """Tell whether an account, which left a request, is a member of the owner's role, where there are roles.

    Who asked is the database's word; the application may write events, and could name them like the library's own.
    """
    roles = trail.configuration.roles
    if roles is None or connection.dialect.name != "postgresql":
        return True
    asked = {"account": account, "owner": roles.owner}
    return bool(internal(connection, sa.text(_MEMBER), asked).scalar())


_MEMBER: Final = (
    "SELECT EXISTS (SELECT FROM pg_roles AS r JOIN pg_roles AS o ON o.rolname = :owner"
    " WHERE r.rolname = :account AND pg_has_role(r.oid, o.oid, 'MEMBER'))"
)

# -- what a range has to meet ----------------------------------------------------------------


def bound_of(connection: Connection, audited: AuditedTable, cutoff: dt.datetime) -> int | None:
    """Give the id before which every row of a history was recorded before a moment; None if there is none.

    Ids of one row's changes ascend with them, and moments need not: so what goes is what stands before the first row
    that has to stay, and never a later change of a row without an earlier one.
    """
    history = audited.history
    kept = sa.select(history.c.audit_id).where(history.c.audit_at >= cutoff).order_by(history.c.audit_id).limit(1)
    first = internal(connection, kept).scalar()
    if first is not None:
        return int(first)
    last = internal(connection, sa.select(sa.func.max(history.c.audit_id))).scalar()
    return None if last is None else int(last) + 1


def is_newest(audited: AuditedTable, rows: Any) -> sa.ColumnElement[bool]:
    """Give the condition that a row of a history is the last word on a row that is there.

    Args:
        audited: whose history.
        rows: the history, or an alias of it.
    """
    later, cut = audited.history.alias("later"), audited.history.alias("cut")
    emptied = sa.select(sa.func.max(cut.c.audit_id)).where(cut.c[audited.key[0].key].is_(None), cut.c.audit_op == "T")
    return sa.and_(
        rows.c.audit_op.in_(["I", "U", "B"]),
        sa.not_(
            sa.exists(sa.literal(1)).where(
                *(same_key(later, rows, column.key, nullable=not column.primary_key) for column in audited.key),
                later.c.audit_id > rows.c.audit_id,
            )
        ),
        rows.c.audit_id > sa.func.coalesce(emptied.correlate(None).scalar_subquery(), -1),
    )


def is_needed(audited: AuditedTable, rows: Any, bound: int) -> sa.ColumnElement[bool]:
    """Give the condition that a row of a history says what was there when the first row from a bound on was recorded.

    The state of a table at any later moment needs it, unless the next row of its key is what a prune carried forward:
    that one holds the same values.

    Args:
        audited: whose history.
        rows: the history, or an alias of it; its rows below the bound.
        bound: the bound.
    """
    later, following, cut = (audited.history.alias(name) for name in ("later", "following", "cut"))
    keys = [(column.key, not column.primary_key) for column in audited.key]
    emptied = sa.select(sa.func.max(cut.c.audit_id)).where(
        cut.c[audited.key[0].key].is_(None), cut.c.audit_op == "T", cut.c.audit_id < bound
    )
    carried = (
        sa.select(sa.case((is_carried(following), 1), else_=0))
        .where(*(same_key(following, rows, key, nullable=nullable) for key, nullable in keys))
        .where(following.c.audit_id > rows.c.audit_id)
        .order_by(following.c.audit_id)
        .limit(1)
    )
    return sa.and_(
        rows.c.audit_op.in_(["I", "U", "B"]),
        sa.not_(
            sa.exists(sa.literal(1)).where(
                *(same_key(later, rows, key, nullable=nullable) for key, nullable in keys),
                later.c.audit_id > rows.c.audit_id,
                later.c.audit_id < bound,
            )
        ),
        rows.c.audit_id > sa.func.coalesce(emptied.correlate(None).scalar_subquery(), -1),
        sa.func.coalesce(carried.correlate(rows).scalar_subquery(), 0) == 0,
    )


def is_carried(rows: Any) -> sa.ColumnElement[bool]:
    """Give the condition that a row of a history is one that a prune carried forward."""
    return sa.and_(rows.c.audit_op == "B", rows.c.audit_flush == CARRIED)


def same_key(one: Any, other: Any, key: str, *, nullable: bool) -> sa.ColumnElement[bool]:
    """Give the condition that two rows of a history have the same value in a column of the key."""
    left, right = one.c[key], other.c[key]
    same: sa.ColumnElement[bool] = left == right
    return sa.or_(same, sa.and_(left.is_(None), right.is_(None))) if nullable else same


def first_within(
    connection: Connection,
    audited: AuditedTable,
    ranges: Sequence[tuple[int, int]],
    condition: Callable[[Any], sa.ColumnElement[bool]],
) -> int | None:
    """Give the id of a row of a history that stands in one of some ranges and meets a condition; or None."""
    rows = audited.history.alias("r")
    for first, last in ranges:
        statement = sa.select(rows.c.audit_id).where(rows.c.audit_id.between(first, last), condition(rows)).limit(1)
        found = internal(connection, statement).scalar()
        if found is not None:
            return int(found)
    return None
