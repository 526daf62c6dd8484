"""Up to when the trail is settled: the oldest writer that is still open may yet add entries after that.

One function for each database, chosen by name; nothing else in this package asks which database it is.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import CaptureMissing
from ..model.types import UTCDateTime

Window = tuple[dt.datetime | None, dt.datetime]
_XMIN = sa.text(
    "SELECT s.xid::text AS xid, a.xact_start, p.gid"
    " FROM (SELECT pg_snapshot_xip(pg_current_snapshot()) AS xid) AS s"
    " LEFT JOIN pg_stat_activity AS a ON a.backend_xid::text = mod(s.xid::text::numeric, 4294967296)::text"
    " LEFT JOIN pg_prepared_xacts AS p ON p.transaction::text = mod(s.xid::text::numeric, 4294967296)::text"
).columns(xid=sa.Text(), xact_start=UTCDateTime(), gid=sa.Text())


def open_since(connection: Connection, entries: sa.Table, window: Window) -> dt.datetime | None:
    """Give a moment such that no open transaction will add entries recorded before it; None if none is open.

    What the connection's own transaction has written does not count.

    Args:
        connection: the connection that has read the window.
        entries: the table ``audit_transaction``.
        window: the moments between which entries were read: after the first, up to the last.

    Raises:
        CaptureMissing: if the database hides when its open transactions began.
    """
    return _HORIZONS[connection.dialect.name](connection, entries, window)


def _postgresql(connection: Connection, entries: sa.Table, window: Window) -> dt.datetime | None:
    """Take the start of the oldest transaction in progress that has an id, as only those write.

    ``recorded_at`` is the clock at a transaction's first audited write, so it is not before the transaction's start.
    """
    starts = []
    for xid, started, gid in connection.execute(_XMIN):
        if started is None:
            hidden = f"the prepared transaction {gid!r}" if gid else f"transaction {xid}"
            raise CaptureMissing(
                f"when {hidden} began is hidden from this role, and it may yet add entries before those shown: "
                + ("commit it or roll it back" if gid else "GRANT pg_read_all_stats to the role that reads the trail")
            )
        starts.append(started)
    return min(starts, default=None)


def _sqlite(connection: Connection, entries: sa.Table, window: Window) -> dt.datetime | None:
    """Give None: the one writer's entries are never before those that were committed earlier."""
    return None


def _mariadb(connection: Connection, entries: sa.Table, window: Window) -> dt.datetime | None:
    """Look, uncommitted rows included, for entries in the window that this connection does not see.

    Needs no privilege but SELECT; ``information_schema.innodb_trx`` would need PROCESS, and is cached.
    """
    after, until = window
    within = sa.and_(*([entries.c.recorded_at >= after] if after is not None else []), entries.c.recorded_at <= until)
    count = sa.select(sa.func.count(), sa.func.max(entries.c.id)).where(within)
    schemas = connection.get_execution_options().get("schema_translate_map")
    options: dict[str, Any] = {"schema_translate_map": schemas} if schemas else {}
    with connection.engine.connect() as dirty:
        dirty = dirty.execution_options(isolation_level="READ UNCOMMITTED", **options)
        if tuple(dirty.execute(count).one()) == tuple(connection.execute(count).one()):
            return None
        rows = sa.select(entries.c.id, entries.c.recorded_at).where(within)
        everything = {row.id: row.recorded_at for row in dirty.execute(rows)}
    seen = set(connection.scalars(sa.select(entries.c.id).where(within)))
    return min((moment for id_, moment in everything.items() if id_ not in seen), default=None)


_HORIZONS: dict[str, Callable[[Connection, sa.Table, Window], dt.datetime | None]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "mysql": _mariadb,
    "mariadb": _mariadb,
}
