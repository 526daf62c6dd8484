"""How far the rows of a database can be sealed, so that no late commit is ever skipped.

One class for each database, chosen by name.  Imports the room's own parts and errors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..errors import SealerBusy, SealRefused
from ..model.history import Trail
from ..proof.entries import Horizon
from .database import CatalogDatabase
from .tables import SealedTable

EPOCHS: Final = 3
"""How many epochs are closed at once at most: that of a slow writer, that behind it, and the present one."""
DRAIN: Final = 0.5
"""Seconds for which the writers of MariaDB's open epoch are waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which database this is, by its own word."""

    system: str
    timeline: int | None = None
    position: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What stands behind FROM to read the rows that are committed and not yet sealed, and its parameters.

    ``joined`` says that a row is found by its entry only, so that there is none where no entry is to be sealed.
    """

    condition: str
    parameters: dict[str, Any] = field(default_factory=dict)
    joined: bool = False


class HorizonDatabase(ABC):
    """One database's way to tell what is complete."""

    renumbers: ClassVar[bool] = False
    """Whether transaction ids begin anew, or are used again, in a restored or promoted database."""

    def __init__(self, database: CatalogDatabase) -> None:
        self.database = database

    @contextmanager
    def sealing(self, engine: Engine, trail: Trail) -> Iterator[Connection]:
        """Give a connection on which no other sealer can seal, outside of a transaction.

        Raises:
            SealerBusy: if another sealer is at work.
        """
        with engine.connect() as connection:
            yield connection

    def prepare(self, connection: Connection, trail: Trail) -> None:  # noqa: B027 (nothing to do by default)
        """Close what has to be closed before the rows are read; may commit."""

    @abstractmethod
    def begin(self, connection: Connection, trail: Trail) -> None:
        """Begin the transaction that reads and writes, before settings are pinned in it."""

    def settle(self, connection: Connection, trail: Trail) -> None:
        """Begin a transaction in which no writer of the trail is under way, and none begins, as far as that matters."""
        self.begin(connection, trail)

    @abstractmethod
    def identity(self, connection: Connection) -> Identity:
        """Say which database this is."""

    @abstractmethod
    def horizon(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give the horizon of the transaction: what it can see is all that is committed up to there.

        Args:
            connection: in the transaction, its settings pinned.
            trail: the trail.
            tables: the full names of the sealed tables, quoted, by their numbers in the log.
        """

    def reach(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give a horizon that covers all that is committed, though it may not be complete yet; see :meth:`horizon`."""
        return self.horizon(connection, trail, tables)

    @abstractmethod
    def stretch(
        self, sealed: SealedTable, number: int, entries: str, since: Horizon | None, until: Horizon
    ) -> Stretch | None:
        """Give the rows of a table between two horizons, or None if its rows don't tell.

        Args:
            sealed: the table.
            number: its number in the log.
            entries: the quoted name of ``audit_transaction``.
            since: the horizon up to which everything is sealed, or None for the beginning.
            until: the one to seal up to.
        """

    def holder(self, connection: Connection) -> str | None:
        """Say who holds the horizon back, or None if nobody does, or the database does not tell."""
        return None


def by_transaction(sealed: SealedTable, entries: str, covered: str, parameters: dict[str, Any]) -> Stretch:
    """Give what finds the rows whose transaction is covered; ``{0}`` in it stands for the transaction's id.

    The index that finds them is that of ``audit_transaction``; the guards let no row belong to another transaction's.
    """
    txid = f"r.{sealed.txid}"
    if "audit_tx" not in sealed.table.c:
        return Stretch(condition=f"WHERE {covered.format(txid)}", parameters=parameters)
    condition = f"JOIN {entries} AS e ON e.id = r.audit_tx AND e.db_txid = {txid} WHERE {covered.format('e.db_txid')}"
    return Stretch(condition=condition, parameters=parameters, joined=True)


class PostgreSQLHorizon(HorizonDatabase):
    """PostgreSQL: what the present snapshot sees and that of the last block did not.

    A long writer delays only its own rows, and so does a prepared transaction or one in another database.
    """

    renumbers: ClassVar[bool] = True

    @contextmanager
    def sealing(self, engine: Engine, trail: Trail) -> Iterator[Connection]:
        """Hold an advisory lock for as long as the connection is used."""
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            schema = self.database.schema(connection, trail.block)
            key = {"key": f"sa_audit seal {schema}.{trail.block.name}"}
            got = connection.scalar(sa.text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key)
            connection.rollback()
            if not got:
                raise SealerBusy("another sealer is at work on this database: let one seal, and stop the other")
            try:
                yield connection
            finally:
                if not connection.invalidated:
                    connection.rollback()
                    connection.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)
                    connection.commit()

    def begin(self, connection: Connection, trail: Trail) -> None:
        """Have the commit flushed, and applied on standbys where there are any that are waited for."""
        connection.execute(_SYNCHRONOUS)

    def settle(self, connection: Connection, trail: Trail) -> None:
        """Lock ``audit_transaction``, so that every transaction with a row in it has ended.

        Raises:
            SealRefused: if the role may not.
        """
        entries = self.database.name_of(self.database.schema(connection, trail.transaction), trail.transaction.name)
        try:
            connection.execute(sa.text(f"LOCK TABLE {entries} IN SHARE MODE"))
        except DBAPIError as error:
            connection.rollback()
            if getattr(error.orig, "sqlstate", None) != "42501":
                raise
            raise SealRefused(
                f"rebase has to lock {entries} for a moment, which this role may not: run it as the table's owner"
            ) from error

    def identity(self, connection: Connection) -> Identity:
        """Ask for the cluster's identifier, and the timeline that it writes: a promoted standby differs in it."""
        row = connection.execute(_IDENTITY).one()
        return Identity(system=row.system, timeline=row.timeline, position=row.position, snapshot=row.snapshot)

    def horizon(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give the transaction's snapshot."""
        text: str = connection.execute(sa.text("SELECT CAST(pg_current_snapshot() AS text)")).scalar_one()
        return ("snapshot", text)

    def stretch(
        self, sealed: SealedTable, number: int, entries: str, since: Horizon | None, until: Horizon
    ) -> Stretch | None:
        """Compare snapshots; a transaction id that the present one does not know is left for the verifier to find."""
        if sealed.txid is None:
            return None
        covered, parameters = _VISIBLE.format("until"), {"until": until[1]}
        if since is not None:
            covered += f" AND {{0}} >= :oldest AND NOT {_VISIBLE.format('since')}"
            parameters |= {"since": since[1], "oldest": int(str(since[1]).partition(":")[0])}
        return by_transaction(sealed, entries, covered, parameters)

    def holder(self, connection: Connection) -> str | None:
        """Look for the oldest transaction that has an id of its own, of a session or prepared."""
        row = connection.execute(_HOLDER).first()
        return None if row is None else f"{row.name}, since {row.since:%Y-%m-%d %H:%M:%S}"


class MariaDBHorizon(HorizonDatabase):
    """MariaDB: epochs, which writers share and the sealer closes once none of them is left.

    The rows of later epochs wait for the oldest one that is open.
    """

    @contextmanager
    def sealing(self, engine: Engine, trail: Trail) -> Iterator[Connection]:
        """Hold a named lock for as long as the connection is used.

        Raises:
            SealRefused: on a cluster with several primaries, whose locks are each node's own.
        """
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            if connection.scalar(sa.text("SELECT @@wsrep_on")) in (1, "ON", "1"):
                raise SealRefused(
                    "this is a Galera cluster, whose nodes don't share the locks by which late commits are waited for: "
                    "the log can't be kept on it"
                )
            schema = self.database.schema(connection, trail.block)
            key = {"schema": schema, "lock": "sa_audit seal "}
            name = "left(concat(:lock, sha1(coalesce(:schema, DATABASE()))), 64)"
            got = connection.scalar(sa.text(f"SELECT GET_LOCK({name}, 0)"), key)
            connection.rollback()
            if not got:
                raise SealerBusy("another sealer is at work on this database: let one seal, and stop the other")
            try:
                yield connection
            finally:
                if not connection.invalidated:
                    connection.rollback()
                    connection.execute(sa.text(f"SELECT RELEASE_LOCK({name})"), key)
                    connection.rollback()

    def prepare(self, connection: Connection, trail: Trail) -> None:
        """Have writers go on in a new epoch, and close the open ones as soon as their own are done, if they are soon.

        Raises:
            SealRefused: if there is no open epoch.
        """
        epochs = self._epochs(connection, trail)
        until = time.monotonic() + DRAIN
        for _turn in range(EPOCHS):
            epoch = self._oldest_used(connection, trail, epochs)
            if epoch is None:
                return
            while not self._close(connection, epochs, epoch):
                if time.monotonic() >= until:
                    return
                time.sleep(0.01)

    def _oldest_used(self, connection: Connection, trail: Trail, epochs: str) -> int | None:
        """Give the oldest open epoch, once there is another behind it; None if it is the last and nobody used it."""
        entries = self.database.name_of(self.database.schema(connection, trail.transaction), trail.transaction.name)
        open_ = connection.scalars(sa.text(f"SELECT epoch FROM {epochs} WHERE closed = 0 ORDER BY epoch")).all()
        if not open_:
            raise SealRefused("audit_epoch has no open epoch: was a row of it removed? writers are refused meanwhile")
        oldest = int(open_[0])
        if len(open_) == 1:
            used = sa.text(f"SELECT 1 FROM {entries} WHERE db_txid = :epoch LIMIT 1")
            if connection.scalar(used, {"epoch": oldest}) is None:
                connection.rollback()
                return None
            connection.execute(sa.text(f"INSERT INTO {epochs} (epoch, closed) VALUES (:next, 0)"), {"next": oldest + 1})
        connection.commit()
        return oldest

    def _close(self, connection: Connection, epochs: str, epoch: int) -> bool:
        """Close an epoch, unless a writer is still in it; never waits, since a writer would wait behind."""
        lock = sa.text(f"SELECT closed FROM {epochs} WHERE epoch = :epoch FOR UPDATE NOWAIT")
        try:
            connection.execute(lock, {"epoch": epoch})
        except DBAPIError as error:
            connection.rollback()
            if getattr(error.orig, "args", (None,))[0] == _LOCKED:
                return False
            raise
        connection.execute(sa.text(f"UPDATE {epochs} SET closed = 1 WHERE epoch = :epoch"), {"epoch": epoch})
        connection.commit()
        return True

    def _epochs(self, connection: Connection, trail: Trail) -> str:
        return self.database.name_of(self.database.schema(connection, trail.transaction), "audit_epoch")

    def begin(self, connection: Connection, trail: Trail) -> None:
        """Take the snapshot now."""
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def identity(self, connection: Connection) -> Identity:
        """Ask for the server's own id, where it has one, and else for where its data is."""
        row = connection.execute(sa.text("SHOW VARIABLES LIKE 'server_uid'")).first()
        if row is not None:
            return Identity(system=str(row[1]))
        place = connection.execute(sa.text("SELECT concat(@@hostname, ':', @@port, @@datadir)")).scalar_one()
        return Identity(system=str(place))

    def horizon(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give the last epoch before the oldest one that is open."""
        epochs = self._epochs(connection, trail)
        oldest = connection.execute(sa.text(f"SELECT min(epoch) FROM {epochs} WHERE closed = 0")).scalar_one()
        return ("epoch", int(oldest) - 1)

    def reach(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give the last epoch, open or not."""
        last = connection.execute(sa.text(f"SELECT max(epoch) FROM {self._epochs(connection, trail)}")).scalar_one()
        return ("epoch", int(last))

    def stretch(
        self, sealed: SealedTable, number: int, entries: str, since: Horizon | None, until: Horizon
    ) -> Stretch | None:
        """Compare epochs."""
        if sealed.txid is None:
            return None
        parameters = {"since": since[1] if since is not None else -1, "until": until[1]}
        covered = "{0} > :since AND {0} <= :until"
        return by_transaction(sealed, entries, covered, parameters)


class SQLiteHorizon(HorizonDatabase):
    """SQLite: there is one writer, so the ids say it all once the write lock is taken."""

    def begin(self, connection: Connection, trail: Trail) -> None:
        """Take the write lock, waiting as long as the connection's busy timeout says."""
        connection.begin()
        driver: Any = connection.connection.driver_connection
        if driver.in_transaction:  # the BEGIN of an engine with a recipe of its own
            blocks = self.database.name_of(self.database.schema(connection, trail.block), trail.block.name)
            connection.exec_driver_sql(f"DELETE FROM {blocks} WHERE 0")
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def identity(self, connection: Connection) -> Identity:
        """Say that it is a file: one copy of it can't be told from another but by its log."""
        return Identity(system="sqlite")

    def horizon(self, connection: Connection, trail: Trail, tables: Mapping[int, str]) -> Horizon:
        """Give the last row of each table."""
        rows = []
        for number, name in sorted(tables.items()):
            last = connection.execute(sa.text(f"SELECT max(rowid) FROM {name}")).scalar()
            if last is not None:
                rows.append((number, int(last)))
        return ("rowid", tuple(rows))

    def stretch(
        self, sealed: SealedTable, number: int, entries: str, since: Horizon | None, until: Horizon
    ) -> Stretch | None:
        """Compare ids."""
        first = dict(since[1]).get(number) if since is not None and since[0] == "rowid" else None
        last = dict(until[1]).get(number) if until[0] == "rowid" else None
        bounds = {"last": last if last is not None else -(1 << 63)}
        if first is None:
            return Stretch(condition="WHERE r.rowid <= :last", parameters=bounds)
        return Stretch(condition="WHERE r.rowid > :first AND r.rowid <= :last", parameters={**bounds, "first": first})


def horizon_for(database: CatalogDatabase) -> HorizonDatabase:
    """Give the class for a database."""
    known: dict[str, type[HorizonDatabase]] = {
        "postgresql": PostgreSQLHorizon,
        "mysql": MariaDBHorizon,
        "mariadb": MariaDBHorizon,
        "sqlite": SQLiteHorizon,
    }
    return known[database.dialect.name](database)


_LOCKED: Final = 1205
_VISIBLE: Final = "pg_visible_in_snapshot(CAST(CAST({{0}} AS text) AS xid8), CAST(:{0} AS pg_snapshot))"
_SYNCHRONOUS: Final = sa.text(
    "SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_standby_names') = ''"
    " THEN 'on' ELSE 'remote_apply' END, true)"
)
_IDENTITY: Final = sa.text(
    "SELECT CAST(system_identifier AS text) AS system,"
    " CAST(CAST('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS bit(32)) AS bigint) AS timeline,"
    " CAST(pg_current_wal_lsn() AS text) AS position, CAST(pg_current_snapshot() AS text) AS snapshot"
    " FROM pg_control_system()"
).columns(system=sa.Text(), timeline=sa.BigInteger(), position=sa.Text(), snapshot=sa.Text())
_HOLDER: Final = sa.text(
    """
SELECT held.name, held.since FROM (
    SELECT 'process ' || pid || ' of ' || coalesce(usename, '?') AS name, xact_start AS since
      FROM pg_stat_activity
     WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
       AND backend_type IS DISTINCT FROM 'autovacuum worker'
    UNION ALL
    SELECT 'the prepared transaction ' || gid, prepared FROM pg_prepared_xacts WHERE database = current_database()
) AS held
 WHERE held.since IS NOT NULL ORDER BY held.since LIMIT 1
"""
).columns(name=sa.Text(), since=sa.DateTime(timezone=True))
