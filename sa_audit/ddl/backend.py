"""What the library needs of a database, and the text both sides share: quoting, names, literals.

One :class:`Backend` for each database; nothing outside this package asks which database it is.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import json
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from ..errors import UnauditedWrite
from ..model.history import AuditedTable, Trail
from ..model.types import BigId, UTCDateTime
from .capture import CaptureObject

CLAIMS: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr", "context")
MESSAGE: Final = "sa_audit: the trail is append-only"

MARKER: Final = "sa_audit_updated"

SchemaMap = Mapping[str | None, str | None]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A row before a statement: its key as Python values, and each recorded column as the backend reads it."""

    key: Key
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one statement of recording writes of one table.

    ``inserted`` and ``deleted`` are keys of rows that stand in the table now, ``images`` rows as they were.
    """

    inserted: Sequence[Key] = ()
    images: Sequence[Image] = ()
    deleted: Sequence[Key] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """The row of ``audit_transaction`` that history rows belong to."""

    id: int
    recorded_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a statement of recording did: its entry (None if nothing had changed), and rows by kind."""

    entry: Entry | None
    inserted: int
    others: int


@dataclass(frozen=True, slots=True)
class Target:
    """An audited table as one connection writes it: with its schemas translated, and the flush it belongs to."""

    audited: AuditedTable
    schemas: SchemaMap = field(default_factory=dict)

    @property
    def trail(self) -> Trail:
        """The trail of the table's MetaData."""
        return self.audited.trail


class Backend(ABC):
    """One database's way to guard, read and record."""

    name: ClassVar[str]
    chunk: ClassVar[int] = 1000

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    # -- text ------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """Quote an identifier for use in :func:`sqlalchemy.text`."""
        quoted = self.dialect.identifier_preparer.quote(name)
        if "%" in name:
            quoted = quoted.replace("%%", "%")
        return quoted.replace(":", "\\:")

    def table_name(self, table: sa.Table, schemas: SchemaMap) -> str:
        """Give a table's quoted name, its schema translated."""
        schema = schemas.get(table.schema, table.schema)
        return f"{self.quote(schema)}.{self.quote(table.name)}" if schema else self.quote(table.name)

    def literal(self, text: str) -> str:
        """Give a string as a SQL literal for use in :func:`sqlalchemy.text`."""
        return "'" + text.replace("'", "''").replace(":", "\\:") + "'"

    def json_key(self, name: str) -> str:
        """Give ``,"name":`` as a SQL literal: the start of one member of a before-object."""
        return self.literal("," + json.dumps(name, ensure_ascii=False) + ":")

    def type_name(self, type_: TypeEngine[Any]) -> str:
        """Give the database's name of a type, for a CAST in :func:`sqlalchemy.text`."""
        return self.dialect.type_compiler_instance.process(type_).replace(":", "\\:")

    def database_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any]:
        """Give the type that the database sees behind decorators and variants."""
        return type_._unwrapped_dialect_impl(self.dialect)

    # -- guards ------------------------------------------------------------------

    @abstractmethod
    def guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give the statements that make a table of the trail append-only, one statement each."""

    @abstractmethod
    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give the statements that lift them, for fixtures in tests."""

    def before_transaction_table(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give statements that create what the guards need, before their tables are made."""
        return []

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give statements that remove it again, after the last table of the trail was dropped."""
        return []

    # -- trigger capture -----------------------------------------------------------

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give what all captured tables of a trail use; it is made before their guards."""
        return []

    @abstractmethod
    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give what records one table: made when the table and its history are there."""

    @abstractmethod
    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Give the trigger or table that recording needs and the database lacks, such as "table t"; or None."""

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
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Tell the database who writes from here on, and why, until the transaction ends.

        Args:
            connection: the connection.
            targets: one captured table of each trail in the database.
            claims: what the application says: the keys of :data:`CLAIMS`.
            token: names the transaction, for databases that can't tell theirs apart.
            now: the process clock, for databases without a clock in microseconds.
        """

    def hush(self, connection: Connection, targets: Sequence[Target]) -> None:  # noqa: B027 (nothing by default)
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

    def lock_writer(self, connection: Connection, target: Target) -> None:  # noqa: B027 (nothing to do by default)
        """Take the database's write lock where there is only one, so that what is read stays true."""

    def lock_table(self, connection: Connection, target: Target) -> None:  # noqa: B027 (nothing to do by default)
        """Take the lock on a table that the coming DELETE or UPDATE takes, so that its entry is dated after it."""

    def cascades(self, connection: Connection) -> bool:
        """Tell whether the database acts on foreign keys by itself on this connection."""
        return True

    locks_in_order: ClassVar[bool] = False
    """Whether rows are locked in the order that a SELECT asks for, and not as they are come by."""

    outlives_failure: ClassVar[bool] = True
    """Whether a transaction can go on after a statement that the database refused."""

    def conflict_clause(self, table: sa.Table) -> str | None:
        """Give the clause of a constraint that removes or skips rows without a word, or None."""
        return None

    # -- recording -----------------------------------------------------------------

    locks_rows: ClassVar[bool] = True
    row_lock: ClassVar[str] = " FOR UPDATE"
    table_exists: ClassVar[str] = (
        "SELECT 1 FROM information_schema.tables WHERE table_schema = :schema AND table_name = :name"
    )

    def look_up(self, audited: AuditedTable) -> str:
        """Give what stands behind a table's alias to have rows looked up by key, so that no others are locked."""
        return ""

    @abstractmethod
    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Give the SQL expressions that an :class:`Image` is read with, for a table or alias of that quoted name."""

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

    def settings_expression(self, audited: AuditedTable) -> str | None:
        """Give a SQL expression that pins settings which would falsify images, until the transaction ends.

        It has to be evaluated before them: as a scalar subquery in WHERE, since a target list has no sure order.
        """
        return None

    @abstractmethod
    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself, without history rows."""

    # -- many rows -------------------------------------------------------------------

    @abstractmethod
    def create_stage(self, target: Target, name: str) -> list[str]:
        """Give the statements that create a temporary table for images: columns ``k0..`` and ``o0..``."""

    def drop_stage(self, name: str) -> list[str]:
        """Give the statements that drop such a table if it is there, without ending the transaction."""
        return [f"DROP TABLE IF EXISTS {name}"]

    @abstractmethod
    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images: operation, before-object, columns."""

    @abstractmethod
    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Give the SQL expressions that a stage keeps of a row, one for each recorded column."""

    def stage(self, audited: AuditedTable, name: str) -> sa.TableClause:
        """Give a stage as a table to write expressions with."""
        keys = [sa.column(f"k{i}", column.type) for i, column in enumerate(audited.key)]
        images: list[Any] = [sa.column(f"o{i}") for i in range(len(audited.columns))]
        return sa.table(name, *keys, *images)

    def stage_rows(self, target: Target, name: str, condition: Any) -> Any:
        """Give the INSERT that reads, locks and stages the rows of a condition."""
        audited = target.audited
        source = self.table_name(audited.table, target.schemas).replace("\\:", ":")
        images: list[Any] = [
            sa.literal_column(text.replace("\\:", ":")) for text in self.staged_columns(audited, source)
        ]
        stage = self.stage(audited, name)
        query = sa.select(*audited.key, *images).select_from(audited.table).where(condition)
        if self.locks_rows:
            query = query.with_for_update(of=audited.table, key_share=True)
        return sa.insert(stage).from_select(list(stage.c), query)

    def record_staged(self, connection: Connection, target: Target, name: str, flush: int, entry: Entry) -> int:
        """Record the rows that differ from their staged images; give their number."""
        audited = target.audited
        columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        sql = (
            f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
            f"(audit_tx, audit_at, audit_flush, audit_op, audit_before{columns}) "
            f"SELECT :tx, :at, :flush, r.* FROM ({self.staged_rows(connection, target, name)}) AS r"
        )
        statement = sa.text(sql).bindparams(
            moment_parameter("at"), sa.bindparam("tx", type_=BigId), sa.bindparam("flush", type_=sa.Integer())
        )
        parameters = {"tx": entry.id, "at": entry.recorded_at, "flush": flush}
        return int(internal(connection, statement, parameters).rowcount)

    def any_staged(self, connection: Connection, target: Target, name: str) -> bool:
        """Tell whether any row differs from its staged image."""
        sql = f"SELECT 1 FROM ({self.staged_rows(connection, target, name)}) AS r LIMIT 1"
        return internal(connection, sa.text(sql)).first() is not None

    def copy_where(self, target: Target, condition: Any, flush: int, entry: Entry) -> Any:
        """Give the INSERT that copies the rows of a condition into the history as deleted."""
        audited = target.audited
        names = ["audit_tx", "audit_op", "audit_at", "audit_flush"]
        query = (
            sa.select(
                sa.literal(entry.id, sa.BigInteger()),
                sa.literal("D", sa.String()),
                sa.literal(entry.recorded_at, UTCDateTime()),
                sa.literal(flush, sa.Integer()),
                *(column.source for column in audited.recorded),
            )
            .select_from(audited.table)
            .where(condition)
        )
        if self.locks_rows:
            query = query.with_for_update(of=audited.table)
        columns = [audited.history.c[name] for name in names]
        columns += [column.recorded for column in audited.recorded if column.recorded is not None]
        return sa.insert(audited.history).from_select(columns, query, include_defaults=False)

    def key_predicate(self, audited: AuditedTable, alias: str) -> str:
        """Give ``alias.key IN :keys`` for a bound expanding parameter."""
        names = [f"{alias}.{self.quote(column.name)}" for column in audited.key]
        left = names[0] if len(names) == 1 else "(" + ", ".join(names) + ")"
        return f"{left} IN :keys"

    def keys_parameter(self, audited: AuditedTable) -> sa.BindParameter[Any]:
        """Give the expanding parameter for :meth:`key_predicate`."""
        types = [column.type for column in audited.key]
        type_: TypeEngine[Any] = types[0] if len(types) == 1 else sa.types.TupleType(*types)
        return sa.bindparam("keys", expanding=True, type_=type_)

    def keys_value(self, audited: AuditedTable, keys: Sequence[Key]) -> list[Any]:
        """Give keys in the shape that :meth:`keys_parameter` takes."""
        return [key[0] for key in keys] if len(audited.key) == 1 else [tuple(key) for key in keys]


def claim_parameters() -> list[sa.BindParameter[Any]]:
    """Give the typed parameters of an entry's claims."""
    return [sa.bindparam(name, type_=sa.JSON(none_as_null=True) if name == "context" else sa.Text()) for name in CLAIMS]


def moment_parameter(name: str) -> sa.BindParameter[Any]:
    """Give a typed parameter for a moment."""
    return sa.bindparam(name, type_=UTCDateTime())


def internal(connection: Connection, statement: Any, parameters: Any = None) -> Any:
    """Execute a statement of the library itself, which the hooks let pass."""
    return connection.execute(statement, parameters, execution_options=OWN)


INTERNAL: Final = "sa_audit_internal"
OWN: Final[Mapping[str, Any]] = {INTERNAL: True, "stream_results": False, "yield_per": None}
"""Execution options of the library's own statements, whatever the user set for his."""


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
