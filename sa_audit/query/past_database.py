"""What each database needs for a look at the past: the snapshot to read in, the clock, whether a moment is settled.

A wall-clock moment is settled when no transaction is open any more that could still commit rows recorded up to it.
One class for each database; what a database can't tell is None, never a guess.
Imports only errors, the model's tables and the moment.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, NoReturn

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection, StaticPool
from sqlalchemy.types import TypeEngine

from ..errors import ConfigurationError, InvalidMoment
from ..model.tables import BASELINE_BEGUN, BASELINE_DONE, IMPORT_BEGUN, IMPORT_DONE
from .moment import Epoch, LastEntry, Moment, Snapshot, WallClock

_MARIADB_LAG: Final = dt.timedelta(seconds=1)
"""InnoDB may show the list of its transactions as it was a tenth of a second ago; this is on the safe side of it."""


class PastDatabase(ABC):
    """What is common to all; a subclass for each database says the rest."""

    cte_prefixes: tuple[str, ...] = ()
    exact: ClassVar[type[Moment]]
    """The kind of exact moment that the database knows."""
    infers_grouping: ClassVar[bool] = False
    """Whether columns may be left out of GROUP BY if the table's key is in it."""
    connection_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @property
    def state_key(self) -> tuple[Any, ...]:
        """What the text of a state query depends on, beside the table and the kind of moment."""
        return (type(self), self.cte_prefixes)

    def as_live(self, recorded: sa.Column[Any], source: sa.Column[Any]) -> sa.ColumnElement[Any]:
        """Give a recorded column as the database's own type of the live one, where operators need it."""
        return recorded

    def null_of(self, type_: TypeEngine[Any]) -> str:
        """Give SQL for a NULL that stands for a column of that type."""
        return "NULL"

    def accept(self, moment: Moment) -> None:
        """Refuse a kind of moment that the database does not have.

        Raises:
            InvalidMoment: for a snapshot, except on PostgreSQL, and for what another database knows.
        """
        if not isinstance(moment, WallClock | self.exact):
            kind = "a snapshot of PostgreSQL" if isinstance(moment, Snapshot) else "a state of another database"
            raise InvalidMoment(
                f"{str(moment)!r} is {kind}, and this is {self.dialect.name}: "
                "give an aware datetime or an ISO 8601 text with an offset"
            )

    def before_connect(self, engine: Engine) -> None:  # noqa: B027 (nothing to refuse by default)
        """Refuse an engine whose next connection can't be had without harm to others."""

    def before_begin(self, connection: Connection, moment: Moment) -> bool | None:
        """Look for open writers before the snapshot is taken, so that none is missed that commits in between.

        Returns:
            Whether the moment was settled then; None where the database does not tell.
        """
        return None

    def begin(self, dbapi_connection: PoolProxiedConnection) -> None:  # noqa: B027 (nothing to do by default)
        """Begin the transaction that reads; called where SQLAlchemy begins one."""

    @abstractmethod
    def now(self, connection: Connection) -> dt.datetime:
        """Give the time of the clock that the history is recorded by; aware, UTC."""

    def settled(self, connection: Connection, moment: Moment, before: bool | None) -> bool | None:
        """Tell whether no open transaction can still add to the state at a moment that lies in the past.

        Args:
            connection: within the transaction that reads.
            moment: the moment.
            before: what :meth:`before_begin` gave.

        Returns:
            True or False, or None where the database does not tell.
        """
        return before if isinstance(moment, WallClock) else True

    def check_future(self, connection: Connection, moment: Moment) -> None:
        """Refuse a moment that has not come yet.

        Raises:
            InvalidMoment: if it lies in the future of the database's clock.
        """
        now = self.now(connection)
        if isinstance(moment, WallClock) and moment.at > now:
            raise InvalidMoment(
                f"{moment} lies in the future (the database's clock says {now.isoformat()}), and what will be recorded "
                "until then is not known: give a moment that has passed"
            )

    def tracked(self, connection: Connection, columns: sa.Table, names: list[str], moment: Moment) -> dict[str, bool]:
        """Give those of the tables that were tracked at the moment, by the trail's own account of columns.

        Returns:
            For each of them whether its history was complete then, or rows were still being carried in.
        """
        newest = sa.select(columns.c.table_name, columns.c.event, sa.func.max(columns.c.id).label("newest")).where(
            columns.c.table_name.in_(names), self._tracked(columns, moment)
        )
        rows = connection.execute(newest.group_by(columns.c.table_name, columns.c.event)).all()
        ids = {(row.table_name, row.event): row.newest for row in rows}
        return {
            name: all(ids.get((name, begun), 0) <= ids.get((name, done), 0) for begun, done in _STRETCHES)
            for name in {name for name, _event in ids}
        }

    def written(self, connection: Connection, columns: sa.Table, name: str, moment: Moment) -> list[int]:
        """Give the ids of what the account of columns said of a table at the moment."""
        statement = sa.select(columns.c.id).where(columns.c.table_name == name, self._tracked(columns, moment))
        return list(connection.scalars(statement))

    def _tracked(self, columns: sa.Table, moment: Moment) -> sa.ColumnElement[bool]:
        if not isinstance(moment, Snapshot):
            return columns.c.recorded_at <= moment.at
        raise InvalidMoment(f"{moment} is no moment that this database knows: give a time")

    @abstractmethod
    def is_missing_table(self, error: DBAPIError) -> bool:
        """Tell whether an error means that a table does not exist."""


class PastPostgreSQL(PastDatabase):
    """PostgreSQL: snapshots are exact moments, and each knows the transactions that were open."""

    exact = Snapshot
    infers_grouping: ClassVar[bool] = True
    connection_options: ClassVar[dict[str, Any]] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        version = getattr(dialect, "server_version_info", None) or (0,)
        self.cte_prefixes = ("NOT MATERIALIZED",) if version >= (12,) else ()

    def as_live(self, recorded: sa.Column[Any], source: sa.Column[Any]) -> sa.ColumnElement[Any]:
        """Cast to enumerated types, which have operators and an order of their own."""
        return sa.cast(recorded, source.type) if _is_enumerated(source.type, self.dialect) else recorded

    def null_of(self, type_: TypeEngine[Any]) -> str:
        """Give a NULL of the type, which a UNION or a subquery needs to fit together."""
        if isinstance(type_, sa.types.NullType):
            return "NULL"
        return f"CAST(NULL AS {self.dialect.type_compiler_instance.process(type_)})"

    def now(self, connection: Connection) -> dt.datetime:
        """Ask ``clock_timestamp()``."""
        now: dt.datetime = connection.execute(sa.select(sa.func.clock_timestamp(type_=_AWARE))).scalar_one()
        return now.astimezone(dt.UTC)

    def check_future(self, connection: Connection, moment: Moment) -> None:
        """Refuse a snapshot, too, that this server has not reached (most likely one of another server)."""
        super().check_future(connection, moment)
        if isinstance(moment, Snapshot) and not connection.scalar(
            sa.text(_SNAPSHOT_REACHED), {"snapshot": moment.text}
        ):
            raise InvalidMoment(
                f"the snapshot {moment.text!r} lies in the future of this server: give one that was taken on it"
            )

    def before_begin(self, connection: Connection, moment: Moment) -> bool | None:
        """Look at the server's activity; a transaction whose begin can't be seen counts as older than the moment."""
        if not isinstance(moment, WallClock):
            return True
        statement = sa.text(_SETTLED).bindparams(sa.bindparam("moment", moment.at, type_=_AWARE))
        return bool(connection.scalar(statement))

    def settled(self, connection: Connection, moment: Moment, before: bool | None) -> bool | None:
        """Look now, if that was not done before, and if the queries to come take newer snapshots."""
        if before is not None or not isinstance(moment, WallClock):
            return True if before is None else before
        if connection.scalar(sa.text("SELECT current_setting('transaction_isolation')")) != "read committed":
            return None
        return self.before_begin(connection, moment)

    def _tracked(self, columns: sa.Table, moment: Moment) -> sa.ColumnElement[bool]:
        if isinstance(moment, Snapshot):
            return sa.text(_ROW_IN_SNAPSHOT).bindparams(snapshot=moment.text)  # type: ignore[return-value]
        return super()._tracked(columns, moment)

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Read the SQLSTATE: undefined table or schema."""
        return (getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)) in ("42P01", "3F000")


class PastMariaDB(PastDatabase):
    """MariaDB: a consistent snapshot, and InnoDB's list of transactions if the role may read it."""

    exact = Epoch

    def before_begin(self, connection: Connection, moment: Moment) -> bool | None:
        """Read InnoDB's list of transactions; None where the role has no PROCESS privilege."""
        if not isinstance(moment, WallClock):
            return True
        try:
            row = connection.execute(sa.text(_INNODB_WRITERS), {"moment": moment.at.replace(tzinfo=None)}).one()
        except DBAPIError as error:
            if connection.invalidated or not _is_privilege_error(error):
                raise
            return None
        return not row.writers and moment.at <= row.now.replace(tzinfo=dt.UTC) - _MARIADB_LAG

    def begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Start one read-only transaction whose snapshot is taken now."""
        _send(dbapi_connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        _send(dbapi_connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def now(self, connection: Connection) -> dt.datetime:
        """Ask ``UTC_TIMESTAMP(6)``."""
        now: dt.datetime = connection.execute(sa.text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return now.replace(tzinfo=dt.UTC)

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Read the error number: unknown table or database."""
        return _number(error) in (1146, 1049)


class PastSQLite(PastDatabase):
    """SQLite: one writer at a time, and the process clock."""

    exact = LastEntry

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        version = getattr(dialect, "server_version_info", None) or sqlite3.sqlite_version_info
        self.cte_prefixes = ("NOT MATERIALIZED",) if version >= (3, 35) else ()

    def before_connect(self, engine: Engine) -> None:
        """Refuse a pool of one connection for all, while somebody is in a transaction on it.

        Raises:
            ConfigurationError: then, since the look at the past would end that transaction.
        """
        record = engine.pool.__dict__.get("connection") if isinstance(engine.pool, StaticPool) else None
        if record is not None and _in_transaction(record.driver_connection):
            _refuse_shared()

    def before_begin(self, connection: Connection, moment: Moment) -> bool | None:
        """Try for the write lock, without waiting, to see whether a writer is open."""
        if _in_transaction(connection.connection.driver_connection):
            _refuse_shared()
        return _write_lock_is_free(connection) if isinstance(moment, WallClock) else True

    def begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Begin explicitly: sqlite3 by itself begins no transaction for a SELECT."""
        if not _in_transaction(dbapi_connection.driver_connection):
            _send(dbapi_connection, "BEGIN")

    def now(self, connection: Connection) -> dt.datetime:
        """Read the process clock, which SQLite uses as well."""
        return dt.datetime.now(dt.UTC)

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Read the message, the only thing that SQLite gives."""
        return "no such table" in str(error.orig) or "unknown database" in str(error.orig)


_STRETCHES: Final = ((BASELINE_BEGUN, BASELINE_DONE), (IMPORT_BEGUN, IMPORT_DONE))

_DATABASES: Final[dict[str, type[PastDatabase]]] = {
    "postgresql": PastPostgreSQL,
    "mysql": PastMariaDB,
    "mariadb": PastMariaDB,
    "sqlite": PastSQLite,
}


def past_database(dialect: Dialect) -> PastDatabase:
    """Give what a dialect needs for a look at the past; after its first connect.

    Raises:
        ConfigurationError: for MySQL, and for a database that the library does not know.
    """
    known = _DATABASES.get(dialect.name)
    if known is None or (known is PastMariaDB and not getattr(dialect, "is_mariadb", False)):
        raise ConfigurationError(
            f"as_of() does not know the database {dialect.name!r}: use PostgreSQL, MariaDB or SQLite"
        )
    return known(dialect)


_AWARE: Final = sa.DateTime(timezone=True)

_SNAPSHOT_REACHED: Final = (
    "SELECT pg_snapshot_xmax(CAST(CAST(:snapshot AS text) AS pg_snapshot)) <= pg_snapshot_xmax(pg_current_snapshot())"
)

# A row's xmin has 32 bits: the 64-bit number that ends so is the one within 2^31 of the present; a row that is older
# than that would count as newer than the snapshot, which refuses rather than guesses.
_ROW_IN_SNAPSHOT: Final = """
pg_visible_in_snapshot(
  (SELECT CAST(CAST(horizon - ((horizon - CAST(CAST(xmin AS text) AS bigint)) & 4294967295) AS text) AS xid8)
   FROM (SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) + 2147483648) AS next(horizon)),
  CAST(CAST(:snapshot AS text) AS pg_snapshot))"""

# Nobody else in this database has a transaction id, unless its transaction began after the moment; nor is anybody
# within a statement, begun by the moment, that may be about to get one; nor has anybody prepared a transaction.
_SETTLED: Final = """
SELECT :moment <= clock_timestamp() AND NOT EXISTS (
  SELECT FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND (
    (backend_xid IS NOT NULL AND NOT coalesce(xact_start > :moment, false))
    OR (backend_xid IS NULL AND coalesce(backend_type, 'client backend') = 'client backend'
        AND coalesce(state, 'active') = 'active' AND coalesce(query_start, :moment) <= :moment
        AND :moment > clock_timestamp() - interval '1 minute'))
) AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())"""

# The begin is given in the server's local time, which is ambiguous for an hour of the year: hence two hours to spare.
_INNODB_WRITERS: Final = (
    "SELECT UTC_TIMESTAMP(6) AS now, "
    "(SELECT count(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID() "
    "AND (trx_rows_modified > 0 OR trx_tables_locked > 0 OR trx_lock_structs > 0) "
    "AND NOT coalesce(CONVERT_TZ(trx_started, 'SYSTEM', '+00:00') > :moment + INTERVAL 2 HOUR, FALSE)) AS writers"
)


def _is_enumerated(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    database_type = type_._unwrapped_dialect_impl(dialect)
    if isinstance(database_type, sa.ARRAY):
        return _is_enumerated(database_type.item_type, dialect)
    return isinstance(database_type, sa.Enum) and bool(database_type.native_enum)


def _number(error: DBAPIError) -> Any:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def _is_privilege_error(error: DBAPIError) -> bool:
    return _number(error) in (1227, 1142, 1044)


def _in_transaction(driver: Any) -> bool:
    return bool(getattr(driver, "in_transaction", False)) and getattr(driver, "autocommit", None) is not False


def _refuse_shared() -> NoReturn:
    raise ConfigurationError(
        "as_of() would get from the engine's pool a connection that is in the middle of a transaction (the pool shares "
        "one connection, as for ':memory:'): give the session instead of the engine"
    )


def _send(connection: PoolProxiedConnection, sql: str) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
    finally:
        cursor.close()


def _write_lock_is_free(connection: Connection) -> bool | None:
    cursor = connection.connection.cursor()
    try:
        cursor.execute("PRAGMA busy_timeout")
        waits = int((cursor.fetchone() or (0,))[0])
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            cursor.execute("BEGIN IMMEDIATE")
        except connection.dialect.loaded_dbapi.OperationalError as error:
            return False if "locked" in str(error) else None
        else:
            cursor.execute("ROLLBACK")
            return True
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {waits}")
    finally:
        cursor.close()


__all__ = ["PastDatabase", "past_database"]
