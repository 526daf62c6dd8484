"""Up to when the trail is settled: the oldest writer that is still open may yet add entries after that.

One class for each database, chosen by name; nothing else in this package asks which database it is.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import CaptureMissing
from ..model.types import UTCDateTime

ATTEMPTS = 20


class Horizon:
    """One database's way to see its open writers.

    What the reading connection's own transaction has written does not count: nobody writes it behind its back.
    """

    def before(self, connection: Connection, entries: sa.Table) -> dt.datetime | None:
        """Give, before entries are read, a moment such that no open transaction will add entries before it.

        None if there is none open, or the database tells only by :meth:`among`.

        Args:
            connection: the connection that will read.
            entries: the table ``audit_transaction``.

        Raises:
            CaptureMissing: if the database hides when its open transactions began.
        """
        return None

    def among(
        self, connection: Connection, entries: sa.Table, after: dt.datetime | None, until: dt.datetime
    ) -> dt.datetime | None:
        """Look for open entries in a stretch of the trail, which is read again afterwards.

        Args:
            connection: the connection that reads.
            entries: the table ``audit_transaction``.
            after: the beginning of the stretch, included; None for that of the trail.
            until: its end, included.

        Returns:
            The moment of the earliest entry in it that is not committed, or None.
        """
        return None


class SQLiteHorizon(Horizon):
    """SQLite has one writer, whose entries are never before those that were committed earlier."""


class PostgreSQLHorizon(Horizon):
    """PostgreSQL: the start of the oldest transaction that holds the lock on an id of its own, as only those write.

    An entry's moment is the clock at its transaction's first audited write, when it holds that lock; so it is not
    before the transaction's start, and what takes a lock after this look has later entries than the look's start.
    (The snapshot's list of transactions would not do: it leaves out those that are newer than the last one to end.)
    Autovacuum's workers take such a lock too, to write statistics of the tables that they analyze, and add no entries.
    """

    def before(self, connection: Connection, entries: sa.Table) -> dt.datetime | None:
        """See :meth:`Horizon.before`; prepared transactions hide their start, and so do other roles' sessions."""
        rows = self._look(connection)
        for _attempt in range(ATTEMPTS):
            if not any(row.pid is not None and not row.hidden and row.xact_start is None for row in rows):
                break
            rows = self._look(connection)
        for row in rows:
            if row.locked and row.xact_start is None:
                raise CaptureMissing(_hidden_message(row))
        moments: list[dt.datetime] = [rows[0].now, *(row.xact_start for row in rows if row.locked)]
        if rows[0].isolation != "read committed":
            moments += self._ended_since(connection, entries)
        return min(moments)

    def _look(self, connection: Connection) -> Sequence[sa.Row[Any]]:
        """Look at the locks and at who holds them, as they are now: the list is kept for a transaction otherwise."""
        connection.execute(_FORGET)
        return connection.execute(_OPEN).all()

    def _ended_since(self, connection: Connection, entries: sa.Table) -> list[dt.datetime]:
        """Ask another connection for entries that were committed after this transaction's snapshot was taken."""
        snapshot, oldest = connection.execute(_SNAPSHOT).one()
        with connection.engine.connect() as plain:
            fresh = plain.execution_options(isolation_level="READ COMMITTED", **_schemas(connection))
            newer = sa.and_(entries.c.db_txid >= oldest, _UNSEEN.bindparams(snapshot=snapshot))
            moment = fresh.scalar(sa.select(sa.func.min(entries.c.recorded_at)).where(newer))
        return [] if moment is None else [moment]


class MariaDBHorizon(Horizon):
    """MariaDB: entries are there to be seen, uncommitted, by another connection of the engine.

    That needs no privilege but SELECT; ``information_schema.innodb_trx`` would need PROCESS, and is cached.
    """

    def among(
        self, connection: Connection, entries: sa.Table, after: dt.datetime | None, until: dt.datetime
    ) -> dt.datetime | None:
        """See :meth:`Horizon.among`."""
        bounds = [entries.c.recorded_at <= until]
        if after is not None:
            bounds.append(entries.c.recorded_at >= after)
        count = sa.select(sa.func.count()).select_from(entries).where(*bounds)
        rows = sa.select(entries.c.id, entries.c.recorded_at).where(*bounds)
        with connection.engine.connect() as plain:
            dirty = plain.execution_options(isolation_level="READ UNCOMMITTED", **_schemas(connection))
            number = dirty.scalar(count)
            if number == connection.scalar(count):
                return None
            everything = dirty.execute(rows).all()
        seen = set(connection.scalars(sa.select(entries.c.id).where(*bounds)))
        return min((row.recorded_at for row in everything if row.id not in seen), default=None)


def horizon_of(connection: Connection) -> Horizon:
    """Give the horizon of a connection's database."""
    known: dict[str, type[Horizon]] = {
        "postgresql": PostgreSQLHorizon,
        "mysql": MariaDBHorizon,
        "mariadb": MariaDBHorizon,
    }
    return known.get(connection.dialect.name, SQLiteHorizon)()


def _schemas(connection: Connection) -> dict[str, Any]:
    schemas = connection.get_execution_options().get("schema_translate_map")
    return {"schema_translate_map": schemas} if schemas else {}


def _hidden_message(row: Any) -> str:
    if row.gid is not None:
        return (
            f"the prepared transaction {row.gid!r} may yet add entries before those to be shown, and when it began is "
            "not known: commit it or roll it back"
        )
    return (
        f"process {row.pid} may yet add entries before those to be shown, and when its transaction began is hidden "
        "from this role: GRANT pg_read_all_stats to the role that reads the trail"
    )


_FORGET = sa.text("SELECT pg_stat_clear_snapshot()")

_OPEN = sa.text(
    """
SELECT statement_timestamp() AS now, current_setting('transaction_isolation') AS isolation,
       open.locked, open.pid, open.gid, open.xact_start, open.hidden
  FROM (SELECT 1) AS one
  LEFT JOIN (
    SELECT true AS locked, held.pid, prepared.gid, activity.xact_start,
           activity.query = '<insufficient privilege>' AS hidden
      FROM pg_locks AS held
      LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
      LEFT JOIN pg_prepared_xacts AS prepared ON held.pid IS NULL AND prepared.transaction = held.transactionid
     WHERE held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted
       AND held.pid IS DISTINCT FROM pg_backend_pid()
       AND activity.backend_type IS DISTINCT FROM 'autovacuum worker'
       AND coalesce(activity.datname, prepared.database, current_database()) = current_database()
  ) AS open ON true
"""
).columns(
    now=UTCDateTime(),
    isolation=sa.Text(),
    locked=sa.Boolean(),
    pid=sa.Integer(),
    gid=sa.Text(),
    xact_start=UTCDateTime(),
    hidden=sa.Boolean(),
)

_SNAPSHOT = sa.text(
    "SELECT CAST(pg_current_snapshot() AS text) AS snapshot,"
    " CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS oldest"
).columns(snapshot=sa.Text(), oldest=sa.BigInteger())

_UNSEEN = sa.text("NOT pg_visible_in_snapshot(CAST(CAST(db_txid AS text) AS xid8), CAST(:snapshot AS pg_snapshot))")
