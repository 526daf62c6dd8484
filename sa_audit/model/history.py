"""History tables: the shadow of each audited table, built as its model is declared.

The trail of a MetaData stands in ``metadata.info``, the audited table's part in ``Table.info``; nothing is
global.  Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ..errors import ConfigurationError, NotAudited
from .configuration import AuditOptions, Configuration
from .names import MAX_NAME, short_name
from .policy import Exclude, Mask, Policy, policy_of
from .tables import (
    DB_TXID,
    RANDOM_SALT,
    TRAIL_TABLE,
    NextAuditId,
    column_table,
    history_sequence,
    transaction_table,
)
from .types import BigId, Salt, UTCDateTime, plain_type

TRAIL: Final = "sa_audit.trail"
AUDITED: Final = "sa_audit.audited"
RESERVED: Final = (
    "audit_id",
    "audit_tx",
    "audit_txid",
    "audit_op",
    "audit_at",
    "audit_before",
    "audit_salt",
    "audit_flush",
)


@dataclass(frozen=True, slots=True)
class RecordedColumn:
    """One column of an audited table as the history knows it.

    ``recorded`` is the history's column, or None where the policy is a mask.
    """

    source: sa.Column[Any]
    recorded: sa.Column[Any] | None
    policy: Policy | None

    @property
    def name(self) -> str:
        """The column's name in the database."""
        return self.source.name

    @property
    def masked(self) -> bool:
        """Whether only the fact of a change is recorded."""
        return isinstance(self.policy, Mask)


class AuditedTable:
    """An audited table with its history table, options and recorded columns."""

    def __init__(
        self, trail: Trail, table: sa.Table, options: AuditOptions, key: tuple[sa.Column[Any], ...] = ()
    ) -> None:
        self._mapped_key = key
        self.trail = trail
        self.table = table
        self.options = options
        self.excluded: list[sa.Column[Any]] = []
        self.columns: list[RecordedColumn] = []
        self.memo: dict[Any, Any] = {}
        self._indexed: set[tuple[str, ...]] = set()
        self.history = self._build()

    def __repr__(self) -> str:
        return f"<AuditedTable {self.table.fullname} -> {self.history.fullname}>"

    @property
    def key(self) -> tuple[sa.Column[Any], ...]:
        """The columns that identify a row: the primary key, that of the mapper, or all foreign keys."""
        if self.table.primary_key.columns:
            return tuple(self.table.primary_key.columns)
        return self._mapped_key or tuple(column for column in self.table.columns if column.foreign_keys)

    @property
    def by_trigger(self) -> bool:
        """Whether the database's triggers write the history of this table, and not the session."""
        return (self.options.capture or self.trail.configuration.capture) == "trigger"

    @property
    def recorded(self) -> list[RecordedColumn]:
        """The recorded columns whose values the history holds."""
        return [column for column in self.columns if column.recorded is not None]

    def _build(self) -> sa.Table:
        self._check()
        name = self.options.history_table or f"{self.table.name}_history"
        if len(name.encode()) > MAX_NAME:
            raise ConfigurationError(
                f"the history table of {self.table.fullname} would be called {name!r}, which is longer than "
                f"{MAX_NAME} bytes: give a shorter one with AuditOptions(history_table=...)"
            )
        schema = self.trail.configuration.schema or self.table.schema
        full = f"{schema}.{name}" if schema else name
        existing = self.trail.metadata.tables.get(full)
        if existing is not None:
            return self._adopt(existing)
        history = sa.Table(
            name,
            self.trail.metadata,
            *self._own_columns(name),
            schema=schema,
            sqlite_autoincrement=True,
            mysql_engine="InnoDB",
            mariadb_engine="InnoDB",
            info={TRAIL_TABLE: "history", AUDITED: self},
            comment=f"sa_audit: history of {self.table.fullname}",
        )
        history.add_is_dependent_on(self.trail.transaction)
        history.add_is_dependent_on(self.trail.column)
        self.history = history
        for column in self.table.columns:
            self.add(column)
        self._index(history)
        return history

    def _adopt(self, history: sa.Table) -> sa.Table:
        """Take a reflected history table for ours; refuse any other table of that name."""
        missing = [name for name in RESERVED if name not in history.c]
        if missing:
            raise ConfigurationError(
                f"table {history.fullname} is in the way of the history of {self.table.fullname} (it has no column "
                f"{missing[0]!r}): name the history with AuditOptions(history_table=...)"
            )
        history.info.setdefault(TRAIL_TABLE, "history")
        history.info[AUDITED] = self
        self.history = history
        for column in self.table.columns:
            self.add(column)
        return history

    def _check(self) -> None:
        if not self.key:
            raise ConfigurationError(
                f"table {self.table.fullname} has no primary key, so its rows can't be told apart: give it one"
            )
        for column in self.key:
            policy = policy_of(column.info, str(column))
            if policy is not None:
                raise ConfigurationError(
                    f"column {column} is part of the primary key and has the policy {policy!r}: "
                    "a row of the history could not be told from another, so leave the policy out"
                )

    def _own_columns(self, name: str) -> list[sa.schema.SchemaItem]:
        sequence = self.trail.sequence
        return [
            sa.Column(
                "audit_id",
                BigId,
                sequence,
                server_default=NextAuditId(sequence),
                autoincrement=True,
                nullable=False,
            ),
            sa.Column("audit_tx", BigId, nullable=False),
            sa.Column("audit_txid", BigId, server_default=DB_TXID),
            sa.Column("audit_op", sa.String(1), nullable=False),
            sa.Column("audit_at", UTCDateTime(), nullable=False),
            sa.Column("audit_before", sa.JSON(none_as_null=True)),
            sa.Column("audit_salt", Salt, nullable=False, server_default=RANDOM_SALT),
            sa.Column("audit_flush", sa.Integer()),
            sa.PrimaryKeyConstraint("audit_id", name=short_name(f"pk_{name}")),
        ]

    def add(self, column: sa.Column[Any]) -> None:
        """Record a column, unless its policy excludes it or it is there already."""
        if column.name in RESERVED:
            raise ConfigurationError(
                f"column {column} has a name that the history keeps for itself: "
                f"call it something else than {', '.join(RESERVED)}"
            )
        if any(column.name == known.name for known in self.columns) or column in self.excluded:
            return
        self.memo.clear()
        policy = policy_of(column.info, str(column))
        if isinstance(policy, Exclude):
            self.excluded.append(column)
        elif isinstance(policy, Mask):
            self.columns.append(RecordedColumn(column, None, policy))
        else:
            self.columns.append(RecordedColumn(column, self._shadow(column), policy))
            self.index_foreign_keys()

    def _shadow(self, column: sa.Column[Any]) -> sa.Column[Any]:
        known = self.history.c.get(column.name)
        if known is not None:
            return known
        pending = isinstance(column.type, sa.types.NullType)
        shadow: sa.Column[Any] = sa.Column(
            column.name, column.type if pending else plain_type(column.type), key=column.key, nullable=True
        )
        self.history.append_column(shadow)
        if pending:
            self.trail.pending.append((self, column, shadow))
        return shadow

    def _index(self, history: sa.Table) -> None:
        key = [column.key for column in self.key]
        sa.Index(short_name(f"ix_{history.name}_row"), *(history.c[name] for name in key), history.c.audit_id)
        sa.Index(short_name(f"ix_{history.name}_audit_tx"), history.c.audit_tx)
        self.index_foreign_keys()

    def index_foreign_keys(self) -> None:
        """Index the columns of each foreign key in the history, so that a lazy load in the past is a look-up."""
        if not self.options.fk_indexes or not self.history.indexes:
            return
        for constraint in self.table.foreign_key_constraints:
            keys = tuple(constraint.column_keys)
            if keys in self._indexed or not all(key in self.history.c for key in keys):
                continue
            if tuple(key.key for key in self.key)[: len(keys)] == keys:
                continue
            self._indexed.add(keys)
            names = "_".join(self.history.c[key].name for key in keys)
            sa.Index(short_name(f"ix_{self.history.name}_{names}"), *(self.history.c[key] for key in keys))


class Trail:
    """The trail of one MetaData: its configuration, fixed tables and audited tables."""

    def __init__(self, metadata: sa.MetaData, configuration: Configuration) -> None:
        self.metadata = metadata
        self.configuration = configuration
        self.audited: dict[sa.Table, AuditedTable] = {}
        self.pending: list[tuple[AuditedTable, sa.Column[Any], sa.Column[Any]]] = []
        self.used = False
        self.captures = False
        """Whether triggers write the history of any of its tables."""
        self.serial = next(_serials)
        self._make_tables()

    def captured(self) -> list[AuditedTable]:
        """Give the audited tables whose history is written by triggers."""
        return [audited for audited in list(self.audited.values()) if audited.by_trigger]

    def _make_tables(self) -> None:
        schema = self.configuration.schema or self.metadata.schema
        self.sequence = history_sequence(self.metadata, schema)
        self.transaction = transaction_table(self.metadata, schema)
        self.column = column_table(self.metadata, schema)
        self.transaction.info[TRAIL] = self.column.info[TRAIL] = self

    def track(
        self, table: sa.Table, options: AuditOptions | None = None, key: tuple[sa.Column[Any], ...] = ()
    ) -> AuditedTable:
        """Audit a table; the same call again gives the same.

        Args:
            table: the table.
            options: how it is recorded.
            key: the columns that a mapper takes for the primary key of a table that has none.

        Raises:
            ConfigurationError: for a trail table, a table with no key, or other options than before.
        """
        if TRAIL_TABLE in table.info:
            raise ConfigurationError(f"{table.fullname} is a table of the trail itself, and is not audited")
        known = self.audited.get(table)
        if known is not None:
            if options is not None and options != known.options:
                raise ConfigurationError(f"{table.fullname} is audited already, with {known.options!r}")
            return known
        audited = AuditedTable(self, table, options or AuditOptions(), key)
        self.audited[table] = audited
        self.captures = self.captures or audited.by_trigger
        table.info = {**table.info, AUDITED: audited}
        return audited

    def settle(self) -> None:
        """Give recorded foreign-key columns their type, once the column that they refer to is known."""
        for entry in list(self.pending):
            audited, source, shadow = entry
            if not isinstance(source.type, sa.types.NullType):
                shadow.type = plain_type(source.type)
                self.pending.remove(entry)
                audited.memo.clear()
        for audited in self.audited.values():
            audited.index_foreign_keys()

    def reconfigure(self, configuration: Configuration) -> None:
        """Take another configuration; a new schema rebuilds the tables, unless they are in use.

        Raises:
            ConfigurationError: if the schema changes after the history tables were used.
        """
        moved = configuration.schema != self.configuration.schema
        if moved and self.used:
            raise ConfigurationError(
                f"configure(schema={configuration.schema!r}) comes too late: the history tables are in use; "
                "call it before the tables are created, mapped or written"
            )
        self.configuration = configuration
        self.captures = bool(self.captured())
        if not moved:
            return
        tracked = [(audited.table, audited.options, audited.history) for audited in self.audited.values()]
        for _table, _options, history in tracked:
            self.metadata.remove(history)
        self.metadata.remove(self.transaction)
        self.metadata.remove(self.column)
        self.metadata._sequences.pop(self.sequence._key, None)
        self.audited.clear()
        self.pending.clear()
        self._make_tables()
        for table, options, _history in tracked:
            self.track(table, options)


_trails: weakref.WeakSet[Trail] = weakref.WeakSet()
_serials = itertools.count()


def known_trails() -> list[Trail]:
    """Give the trails of this process.

    A textual statement names tables but no MetaData, so they have to be found without one; held weakly.
    """
    return list(_trails)


def trail_of(metadata: sa.MetaData) -> Trail | None:
    """Give the trail of a MetaData, or None if nothing of it is audited."""
    return metadata.info.get(TRAIL)


def ensure_trail(metadata: sa.MetaData) -> Trail:
    """Give the trail of a MetaData, made now if there is none."""
    trail = trail_of(metadata)
    if trail is None:
        trail = metadata.info[TRAIL] = Trail(metadata, Configuration())
        _trails.add(trail)
    return trail


def audited_of(table: Any) -> AuditedTable | None:
    """Give the audited side of a table, or None.

    Annotated forms count as their original.  A copy in another MetaData (``Table.to_metadata()``) took the mark
    along with ``Table.info``; it is audited in its own MetaData from here on.
    """
    info = getattr(table, "info", None)
    if not info or TRAIL_TABLE in info:
        return None
    audited: AuditedTable | None = info.get(AUDITED)
    if audited is None or audited.table is table:
        return audited
    original = table._deannotate() if isinstance(table, sa.Table) else table
    if original is audited.table or not isinstance(original, sa.Table):
        return audited
    return ensure_trail(original.metadata).track(original, audited.options)


def require_audited(table: sa.Table) -> AuditedTable:
    """Give the audited side of a table.

    Raises:
        NotAudited: if it has none.
    """
    audited = audited_of(table)
    if audited is None:
        raise NotAudited(f"table {table.fullname} is not audited: add Audited to its model, or call sa_audit.track()")
    return audited


def is_trail_table(table: sa.Table) -> bool:
    """Tell whether a table belongs to the trail: a history table or one of the fixed ones."""
    return TRAIL_TABLE in table.info


def iter_audited(metadata: sa.MetaData) -> Iterator[AuditedTable]:
    """Iterate over the audited tables of a MetaData."""
    trail = trail_of(metadata)
    return iter(list(trail.audited.values())) if trail is not None else iter(())


__all__ = [
    "AUDITED",
    "RESERVED",
    "TRAIL",
    "AuditedTable",
    "RecordedColumn",
    "Trail",
    "audited_of",
    "ensure_trail",
    "is_trail_table",
    "iter_audited",
    "known_trails",
    "require_audited",
    "trail_of",
]
