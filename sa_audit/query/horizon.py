"""Up to when the trail is settled: the oldest writer that is still open may yet add entries after that.

One class for each database, chosen by name; nothing else in this package asks which database it is.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
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

    def before(self, connection: Connection) -> dt.datetime | None:
        """Give, before entries are read, a moment such that no open transaction will add entries before it.

        None if there is none open, or the database tells only by :meth:`among`.

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
    """PostgreSQL: the start of the oldest transaction in progress that has an id, as only those write.

    An entry's moment is the clock at its transaction's first audited write, so it is not before the transaction's
    start; and what begins after this statement has later entries than the statement's start.
    """

    def before(self, connection: Connection) -> dt.datetime | None:
        """See :meth:`Horizon.before`; prepared transactions hide their start, and so do other roles' sessions."""
        rows = connection.execute(_OPEN).all()
        now: dt.datetime = rows[0].now
        for _attempt in range(ATTEMPTS):
            if all(row.status == "in progress" for row in rows if _is_hidden(row)):
                break
            rows = connection.execute(_OPEN).all()
            now = rows[0].now
        for row in filter(_is_hidden, rows):
            raise CaptureMissing(_hidden_message(row))
        starts: list[dt.datetime] = [row.xact_start for row in rows if row.xid is not None and row.here]
        return min([now, *starts])


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
        schemas = connection.get_execution_options().get("schema_translate_map")
        options: dict[str, Any] = {"schema_translate_map": schemas} if schemas else {}
        with connection.engine.connect() as plain:
            dirty = plain.execution_options(isolation_level="READ UNCOMMITTED", **options)
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


def _is_hidden(row: Any) -> bool:
    return row.xid is not None and row.here and row.xact_start is None


def _hidden_message(row: Any) -> str:
    if row.status != "in progress":
        return (
            f"transaction {row.xid} was open when this session's transaction began and has ended since, so that its "
            "entries can't be seen: end the session's transaction and ask again"
        )
    if row.gid is not None:
        return (
            f"the prepared transaction {row.gid!r} may yet add entries before those to be shown, and when it began is "
            "not known: commit it or roll it back"
        )
    return (
        f"transaction {row.xid} may yet add entries before those to be shown, and when it began is hidden from this "
        "role: GRANT pg_read_all_stats to the role that reads the trail"
    )


_OPEN = sa.text(
    """
SELECT statement_timestamp() AS now, CAST(open.xid AS text) AS xid, activity.xact_start, prepared.gid,
       pg_xact_status(open.xid) AS status,
       coalesce(activity.datname, prepared.database, current_database()) = current_database() AS here
  FROM (SELECT 1) AS one
  LEFT JOIN pg_snapshot_xip(pg_current_snapshot()) AS open(xid) ON true
  LEFT JOIN pg_stat_activity AS activity
    ON CAST(CAST(activity.backend_xid AS text) AS bigint) = (CAST(CAST(open.xid AS text) AS bigint) & 4294967295)
  LEFT JOIN pg_prepared_xacts AS prepared
    ON CAST(CAST(prepared.transaction AS text) AS bigint) = (CAST(CAST(open.xid AS text) AS bigint) & 4294967295)
"""
).columns(now=UTCDateTime(), xid=sa.Text(), xact_start=UTCDateTime(), gid=sa.Text(), status=sa.Text())
