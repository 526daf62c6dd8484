"""An audited table: its history table, built as its model is declared, and the columns that it records.

Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from ..errors import ConfigurationError
from .configuration import AuditOptions
from .names import MAX_NAME, short_name
from .policy import Digest, Encrypt, Exclude, Mask, Policy, policy_of
from .stored import StoredDigest, StoredEncrypted, StoredType, check_digestible, declared_type
from .tables import DB_TXID, RANDOM_SALT, TRAIL_TABLE, NextAuditId, PartitionedKey
from .types import BigId, DigestType, EncryptedType, Salt, UTCDateTime, plain_type

if TYPE_CHECKING:
    from .history import Trail

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


@dataclass(frozen=True, slots=True, eq=False)
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

    @property
    def digested(self) -> bool:
        """Whether a keyed digest of the value is recorded."""
        return isinstance(self.policy, Digest)

    @property
    def encrypted(self) -> bool:
        """Whether the value is recorded encrypted."""
        return isinstance(self.policy, Encrypt)

    @property
    def formed(self) -> bool:
        """Whether the history holds another form of the value, which only Python can make of it."""
        return isinstance(self.policy, Digest | Encrypt)

    @property
    def stored(self) -> bool:
        """Whether the column itself holds that form already, for a trigger to copy."""
        return isinstance(self.source.type, StoredType)

    @property
    def protected(self) -> bool:
        """Whether that form has to be made when a row is recorded."""
        return self.formed and not self.stored

    @property
    def declared(self) -> TypeEngine[Any]:
        """The type that the column was declared with."""
        return declared_type(self.source.type)

    @property
    def shown_type(self) -> TypeEngine[Any]:
        """The type by which recorded values are read."""
        if self.formed and self.recorded is not None:
            return self.recorded.type
        return self.source.type


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
    def partitioned(self) -> bool:
        """Whether PostgreSQL keeps the history by month."""
        return (self.options.partition or self.trail.configuration.partition) == "month"

    @property
    def recorded(self) -> list[RecordedColumn]:
        """The recorded columns whose values the history holds."""
        return [column for column in self.columns if column.recorded is not None]

    @property
    def protected(self) -> list[RecordedColumn]:
        """The recorded columns whose form has to be made when a row is recorded."""
        known: list[RecordedColumn] | None = self.memo.get("protected")
        if known is None:
            known = self.memo["protected"] = [column for column in self.columns if column.protected]
        return known

    @property
    def encrypted(self) -> list[RecordedColumn]:
        """The recorded columns whose values the history holds encrypted."""
        return [column for column in self.formed if column.encrypted]

    @property
    def formed(self) -> list[RecordedColumn]:
        """The recorded columns of which the history holds a form, wherever that is made."""
        known: list[RecordedColumn] | None = self.memo.get("formed")
        if known is None:
            known = self.memo["formed"] = [column for column in self.columns if column.formed]
        return known

    @property
    def stored(self) -> list[RecordedColumn]:
        """The recorded columns that hold that form themselves, since a trigger copies it."""
        return [column for column in self.formed if column.stored]

    @property
    def protected_reads(self) -> list[RecordedColumn]:
        """The protected columns, and behind them those that say whose values the encrypted ones are."""
        known: list[RecordedColumn] | None = self.memo.get("protected_reads")
        if known is None:
            subjects = dict.fromkeys(self.subject_of(column) for column in self.protected if column.encrypted)
            known = self.memo["protected_reads"] = [*self.protected, *subjects]
        return known

    @property
    def subjects(self) -> list[RecordedColumn]:
        """The recorded columns that say whose data a row is: those of the policies, and that of the options."""
        found = [self.subject_of(column) for column in self.encrypted]
        found += [each for each in self.columns if each.name == self.options.subject and each.policy is None]
        return list(dict.fromkeys(found))

    def subject_of(self, column: RecordedColumn) -> RecordedColumn:
        """Give the column that says whose value an encrypted one is.

        Raises:
            ConfigurationError: if there is none.
        """
        policy = column.policy
        name = (policy.subject if isinstance(policy, Encrypt) else None) or self.options.subject
        if name is None:
            raise ConfigurationError(
                f"column {column.source} has the policy {policy!r}, and nothing says whose value it is: name a column "
                "of the table by Encrypt(subject=...) or AuditOptions(subject=...)"
            )
        for other in self.columns:
            if other.name == name and other.policy is None:
                return other
        raise ConfigurationError(
            f"column {column.source} has the policy {policy!r}, and {self.table.fullname} records no column {name!r} "
            "without a policy: name the one that says whose value it is"
        )

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
            self._adopt(existing)
        by_month: dict[str, Any] = {"postgresql_partition_by": "RANGE (audit_at)"} if self.partitioned else {}
        history = sa.Table(
            name,
            self.trail.metadata,
            *self._own_columns(name),
            schema=schema,
            sqlite_autoincrement=True,
            mysql_engine="InnoDB",
            mariadb_engine="InnoDB",
            **by_month,
            info={TRAIL_TABLE: "history", AUDITED: self},
            comment=f"sa_audit: history of {self.table.fullname}",
            extend_existing=True,  # a reflected history table is adopted, and takes the types that it is read with
        )
        history.add_is_dependent_on(self.trail.transaction)
        history.add_is_dependent_on(self.trail.column)
        self.history = history
        for column in self.table.columns:
            self.add(column)
        self._index(history)
        return history

    def _adopt(self, existing: sa.Table) -> None:
        """Make ready a reflected history table, to be described anew; refuse any other table of that name."""
        owner = existing.info.get(AUDITED)
        if isinstance(owner, AuditedTable) and owner.table.fullname != self.table.fullname:
            raise ConfigurationError(
                f"{existing.fullname} is the history of {owner.table.fullname} already: "
                f"name that of {self.table.fullname} with AuditOptions(history_table=...)"
            )
        missing = [name for name in RESERVED if name not in existing.c]
        if missing:
            raise ConfigurationError(
                f"table {existing.fullname} is in the way of the history of {self.table.fullname} (it has no column "
                f"{missing[0]!r}): name the history with AuditOptions(history_table=...)"
            )
        existing.indexes.clear()

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
        key = PartitionedKey if self.partitioned else sa.PrimaryKeyConstraint
        return [
            sa.Column(
                "audit_id",
                BigId,
                sequence,
                server_default=NextAuditId(sequence),
                primary_key=True,
                autoincrement=True,
            ),
            sa.Column("audit_tx", BigId, nullable=False),
            sa.Column("audit_txid", BigId, server_default=DB_TXID),
            sa.Column("audit_op", sa.String(1), nullable=False),
            sa.Column("audit_at", UTCDateTime(), nullable=False),
            sa.Column("audit_before", sa.JSON(none_as_null=True)),
            sa.Column("audit_salt", Salt, nullable=False, server_default=RANDOM_SALT),
            sa.Column("audit_flush", sa.Integer()),
            key("audit_id", name=short_name(f"pk_{name}")),
        ]

    def add(self, column: sa.Column[Any]) -> None:
        """Record a column, unless its policy excludes it or it is there already."""
        if column.name.lower() in RESERVED:
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
        elif isinstance(policy, Digest):
            self._add_formed(column, policy, DigestType())
        elif isinstance(policy, Encrypt):
            self._check_encryptable(column, policy)
            self._add_formed(column, policy, EncryptedType())
            self.trail.watch_keys()
        else:
            self.columns.append(RecordedColumn(column, self._shadow(column), policy))
            self.index_foreign_keys()

    def _add_formed(self, column: sa.Column[Any], policy: Policy, type_: TypeEngine[Any]) -> None:
        """Record a column of which the history holds a form."""
        self._check_protected(column, policy)
        column.type = declared_type(column.type)  # a copy of a table brings the other one's along
        known = RecordedColumn(column, self._shadow(column, type_), policy)
        self.columns.append(known)
        if self.by_trigger:
            self._store(known)

    def _check_protected(self, column: sa.Column[Any], policy: Policy) -> None:
        if column.foreign_keys:
            raise ConfigurationError(
                f"column {column} has the policy {policy!r} and a foreign key, which would lead nowhere in the past: "
                "leave the policy out, and keep personal data out of keys"
            )

    def _check_encryptable(self, column: sa.Column[Any], policy: Policy) -> None:
        type_: Any = declared_type(column.type)
        while isinstance(type_, sa.types.TypeDecorator):
            type_ = type_.impl_instance
        plain = isinstance(type_, sa.String | sa.Integer | sa.Date) and not isinstance(type_, sa.Enum)
        if not plain or type_._variant_mapping:
            raise ConfigurationError(
                f"column {column} has the policy {policy!r} and the type {column.type!r}: encrypted are text, whole "
                "numbers and dates; use Mask() or Digest() for other types"
            )

    def check_capture(self) -> None:
        """Have the columns of a table that triggers record hold what the history shall hold, for a trigger has no key.

        Raises:
            ConfigurationError: if the table is in use already, or the values of a column can't be brought into a form.
        """
        for column in self.formed:
            if column.stored == self.by_trigger:
                continue
            mappers = (mapper for registry in self.trail.registries for mapper in registry.mappers)
            if self.trail.used or any(mapper.configured and self.table in mapper.tables for mapper in mappers):
                raise ConfigurationError(
                    f"column {column.source} has the policy {column.policy!r}, and how its table is recorded says what "
                    "it holds: call configure(capture=...) before the mappers are configured and the table is written"
                )
            self._store(column)

    def _store(self, column: RecordedColumn) -> None:
        """Give a column the type that its table's capture asks for."""
        source, declared = column.source, column.declared
        self.memo.clear()
        if not self.by_trigger:
            source.type = declared
        elif column.encrypted:
            source.type = StoredEncrypted(self, column.name, declared)
        else:
            check_digestible(source)
            source.type = StoredDigest(self, column.name, declared)

    def _shadow(self, column: sa.Column[Any], type_: TypeEngine[Any] | None = None) -> sa.Column[Any]:
        pending = type_ is None and isinstance(column.type, sa.types.NullType)
        shadow: sa.Column[Any] = sa.Column(
            column.name,
            type_ if type_ is not None else column.type if pending else plain_type(column.type),
            key=column.key,
            nullable=True,
        )
        self.history.append_column(shadow, replace_existing=True)
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
