"""What the library needs of a database: to guard, to read and to record.

One :class:`Backend` for each database; nothing outside this package asks which database it is.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..errors import UnauditedWrite
from ..model.history import AuditedTable, Trail
from .images import Images
from .objects import TrailObject, statements
from .records import Records
from .values import (
    CLAIMS,
    INTERNAL,
    KEY_LOST,
    KEY_MOVED,
    MARKER,
    MESSAGE,
    OWN,
    AccessRecord,
    Batch,
    DriverRead,
    Entry,
    Image,
    Key,
    Protected,
    Recorded,
    SchemaMap,
    Target,
    claim_parameters,
    internal,
    moment_parameter,
)


class Backend(Records, Images):
    """One database's way to guard, read and record."""

    name: ClassVar[str]

    # -- guards ------------------------------------------------------------------

    @abstractmethod
    def guard_objects(
        self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None
    ) -> list[TrailObject]:
        """Give the objects that make a table of the trail append-only."""

    def shared_objects(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the objects that the guards of all tables need, to be made before the tables."""
        return []

    def partition_objects(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give what makes the partitions of histories by month, where there are any and the database has some."""
        return []

    def guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give the statements that make a table of the trail append-only, one statement each."""
        return statements(self.guard_objects(table, trail, schemas, default_schema))

    @abstractmethod
    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give the statements that lift them, for fixtures in tests."""

    def before_transaction_table(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give statements that create what the guards need, before their tables are made."""
        return statements(self.shared_objects(trail, schemas, default_schema))

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give statements that remove it again, after the last table of the trail was dropped."""
        return [text for entry in self.shared_objects(trail, schemas, default_schema) for text in entry.drop]

    # -- trigger capture -----------------------------------------------------------

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give what all captured tables of a trail use; it is made before their guards."""
        return []

    @abstractmethod
    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give what records one table: made when the table and its history are there."""

    @abstractmethod
    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Give the trigger or table that recording needs and the database lacks, such as "table t"; or None."""

    def misses_table(self, error: BaseException, names: Collection[str]) -> bool:
        """Tell whether a driver's error may be that one of the tables is not there."""
        return any(name in str(error) for name in names)

    def capture_is_late(self, connection: Connection, audited: AuditedTable, schemas: SchemaMap) -> bool:
        """Tell whether triggers of others would come before those that record a table, which is there."""
        return False

    def can_be_told(self, connection: Connection, target: Target) -> bool:
        """Tell whether the database has what is needed to say who writes; asked once a transaction."""
        return True

    @abstractmethod
    def tell(
        self,
        connection: Connection,
        targets: Sequence[Target],
        firsts: Sequence[Entry | None],
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Tell the database who writes from here on, and why, until the transaction ends.

        Args:
            connection: the connection.
            targets: one captured table of each trail in the database.
            firsts: for each of them the transaction's first entry, where the session has written one.
            claims: what the application says: the keys of :data:`CLAIMS`.
            token: names the transaction, for databases that can't tell theirs apart.
            now: the process clock, for databases without a clock in microseconds.
        """

    def tell_ahead(self, claims: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Give the text and parameters of what :meth:`tell` executes, as the driver takes them, where that is all."""
        return None

    def told_first(self, connection: Connection, target: Target, token: str) -> Entry | None:
        """Give the first entry of a transaction that was told of, if a trigger has opened it.

        None also where the database ties the entries of a transaction by itself.
        """
        return None

    def hush(self, connection: Connection, targets: Sequence[Target]) -> None:
        """Take back what was told, before the transaction ends; where the database does not do so by itself."""

    tells_always: ClassVar[bool] = False
    """Whether a transaction is told apart from the next only by what the session says, be it nothing."""

    told_rolls_back: ClassVar[bool] = True
    """Whether what was told inside a savepoint goes with it."""

    selects_write: ClassVar[bool] = True
    """Whether a SELECT can call a function that writes."""

    records_truncate: ClassVar[bool] = True
    """Whether a trigger sees TRUNCATE."""

    # -- state of a connection -----------------------------------------------------

    @abstractmethod
    def in_autocommit(self, connection: Connection) -> bool:
        """Tell whether each statement would commit by itself."""

    def lock_writer(self, connection: Connection, target: Target) -> None:
        """Take the database's write lock where there is only one, so that what is read stays true."""

    def lock_table(self, connection: Connection, target: Target) -> None:
        """Take the lock on a table that the coming DELETE or UPDATE takes, so that its entry is dated after it."""

    relaxed_setting: ClassVar[str | None] = None
    """The statement by which a connection's commits no longer wait for the disk, or None where there is none."""

    reads_while_others_write: ClassVar[bool] = True
    """Whether a result that is not yet read to its end lets another connection commit."""

    streams_beside: ClassVar[bool] = False
    """Whether a connection executes other statements while a result of it is read as a stream."""

    def utc_day(self, moment: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Give the day of a moment of the trail, in UTC, which is what it stands in."""
        return sa.func.date(moment)

    def writes_alone(self, connection: Connection) -> bool:
        """Tell whether no other connection can write while this one's transaction is open."""
        return False

    def stands_alone(self, connection: Connection) -> bool:
        """Tell whether no other connection can reach this one's database."""
        return False

    def cascades(self, connection: Connection) -> bool:
        """Tell whether the database acts on foreign keys by itself on this connection."""
        return True

    locks_in_order: ClassVar[bool] = False
    """Whether rows are locked in the order that a SELECT asks for, and not as they are come by."""

    fresh_isolation: ClassVar[str | None] = None
    """The isolation level at which each statement sees what is committed by then; None where nobody else writes."""

    outlives_failure: ClassVar[bool] = True
    """Whether a transaction can go on after a statement that the database refused."""

    def conflict_clause(self, table: sa.Table) -> str | None:
        """Give the clause of a constraint that removes or skips rows without a word, or None."""
        return None

    # -- recording -----------------------------------------------------------------

    def writes_accesses_at_once(self, trail: Trail) -> bool:
        """Tell whether :meth:`accesses_statement` can write the reads of a trail."""
        return False

    def accesses_statement(
        self, target: Target, claims: Mapping[str, Any], accesses: Sequence[AccessRecord]
    ) -> tuple[str, Any]:
        """Give the one statement that writes reads of one trail under an entry of their own, and gives their ids.

        Args:
            target: a table of the trail, with its schemas.
            claims: what the application says: the keys of :data:`CLAIMS`.
            accesses: at least one.

        Returns:
            Its text and its parameters, as the driver takes them.
        """
        raise NotImplementedError(f"{self.name} writes a read by several statements")

    def other_key(self, audited: AuditedTable, keys: Sequence[Key]) -> str:
        """Give what may be the reason that other rows than those with these keys were inserted, for a message."""
        if not audited.table.primary_key.columns:
            return "is there another row with the same key, since the table has no primary key?"
        return "was a key changed by a trigger or a rule?"

    table_exists: ClassVar[str] = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = :schema AND table_name = :name"
    )

    def read_images(self, connection: Connection, target: Target, keys: Sequence[Key]) -> list[tuple[Any, ...]]:
        """Read rows and lock them: of each found, its key and then the values of its :class:`Image`."""
        memo, cache_key = target.audited.memo, (self, "images", tuple(target.schemas.items()))
        statement = memo.get(cache_key)
        if statement is None:
            statement = memo[cache_key] = self._images_statement(target)
        parameters = {"keys": self.keys_value(target.audited, keys)}
        return [tuple(row) for row in internal(connection, statement, parameters)]

    def images_ahead(self, target: Target, keys: Sequence[Key]) -> DriverRead | None:
        """Give what :meth:`read_images` executes in the driver's own form, where that can be made of it."""
        return None

    def _images_statement(self, target: Target) -> Any:
        audited = target.audited
        parts = self.images_parts(target)
        columns: list[Any] = [sa.column(f"k{i}", column.type) for i, column in enumerate(audited.key)]
        columns += [sa.column(f"o{i}") for i in range(len(self.image_columns(audited, "t")))]
        sql = self.key_predicate(audited, "t").join(parts)
        return sa.text(sql).bindparams(self.keys_parameter(audited)).columns(*columns)

    @abstractmethod
    def record(
        self,
        connection: Connection,
        target: Target,
        batch: Batch,
        *,
        flush: int,
        entry: Entry | None,
        claims: Mapping[str, Any],
        first: Entry | None,
        now: dt.datetime,
    ) -> Recorded:
        """Write the history rows of a batch, and their entry if there is none yet.

        Args:
            connection: the connection that made, or makes, the change.
            target: the table.
            batch: what to record.
            flush: the number for ``audit_flush``.
            entry: the transaction's row for the present context, or None to make one.
            claims: what the application says: the keys of :data:`CLAIMS`.
            first: the first entry of this database transaction, if there is one.
            now: the process clock, for databases without a clock in microseconds.
        """

    def upsert_marker(self, table: sa.Table) -> Any:
        """Give an expression, labelled :data:`MARKER`, by which RETURNING of an upsert tells which rows it updated."""
        return None

    @abstractmethod
    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself, without history rows."""


_NOTED: Final = "_sa_audit_trails"


def note_trail(dialect: Dialect, trail: Trail) -> None:
    """Note that a trail stands in the database of an engine: its tables were created there, or written."""
    noted: weakref.WeakSet[Trail] = dialect.__dict__.setdefault(_NOTED, weakref.WeakSet())
    noted.add(trail)


def noted_trails(dialect: Dialect) -> list[Trail]:
    """Give the trails that are known to stand in the database of an engine.

    Several MetaData of one process can describe tables of the same name, in other databases.
    """
    return list(dialect.__dict__.get(_NOTED, ()))


def is_supported(dialect: Dialect) -> bool:
    """Tell whether there is a backend for a dialect."""
    return dialect.name in ("postgresql", "sqlite") or bool(getattr(dialect, "is_mariadb", False))


def speaks_for(dialect: Dialect, trail: Trail, table: str) -> bool:
    """Tell whether a trail can be meant by a table's full name in the database of an engine.

    One that is known to stand there can; another one only if none of those has a table of that name.
    """
    noted = noted_trails(dialect)
    return trail in noted or not any(
        audited.table.fullname == table for other in noted for audited in other.audited.values()
    )


def backend_for(dialect: Dialect) -> Backend:
    """Give the backend of a dialect; kept on the dialect itself.

    Raises:
        UnauditedWrite: for a database that the library does not know.
    """
    known: Backend | None = dialect.__dict__.get("_sa_audit_backend")
    if known is None:
        known = _make(dialect)
        dialect.__dict__["_sa_audit_backend"] = known
    return known


def _make(dialect: Dialect) -> Backend:
    from .mysql import MariaDB
    from .postgresql import PostgreSQL
    from .sqlite import SQLite

    if dialect.name == "postgresql":
        return PostgreSQL(dialect)
    if dialect.name == "sqlite":
        return SQLite(dialect)
    if dialect.name in ("mysql", "mariadb") and getattr(dialect, "is_mariadb", False):
        return MariaDB(dialect)
    if dialect.name == "mysql":
        raise UnauditedWrite(
            "MySQL is not supported, since nobody has tested the trail on it: use MariaDB, PostgreSQL or SQLite"
        )
    raise UnauditedWrite(
        f"the database {dialect.name!r} is not supported: use PostgreSQL, MariaDB or SQLite for audited tables"
    )


__all__ = [
    "CLAIMS",
    "INTERNAL",
    "KEY_LOST",
    "KEY_MOVED",
    "MARKER",
    "MESSAGE",
    "OWN",
    "AccessRecord",
    "Backend",
    "Batch",
    "DriverRead",
    "Entry",
    "Image",
    "Key",
    "Protected",
    "Recorded",
    "SchemaMap",
    "Target",
    "backend_for",
    "claim_parameters",
    "internal",
    "is_supported",
    "moment_parameter",
    "note_trail",
    "noted_trails",
]
