"""Options of one model, and the configuration of one MetaData.  Imports names, policies, errors and SQLAlchemy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa

from ..errors import ConfigurationError
from .names import is_name
from .policy import Digest, Encrypt, Exclude, Mask, Policy

Capture = Literal["session", "trigger"]
PROVIDES: Final = ("current", "digest_keys", "unwrap", "wrap")
"""What a provider of keys has; :class:`sa_audit.privacy.KeyProvider` says what of."""

Reads = Literal[False, True, "durable", "relaxed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long the history of a model is kept: :func:`sa_audit.prune` takes away what is older.

    ::

        AuditOptions(
            retention=Retention(keep=timedelta(days=730), hold=lambda: Patient.id.in_(select(LegalHold.patient_id)))
        )

    A hold is asked of each row as it is, and of each row of its history as it was then.  Where any of them answers
    yes, nothing of that row's history is pruned, also if the row itself is deleted; and a person whose rows are held
    is not erased.

    Args:
        keep: the time after which a row of the history may be pruned.
        hold: a condition on the model's own columns (further tables by subqueries), or a function that gives it, which
            may name the model before it is there; None if nothing is ever held.

    Raises:
        ConfigurationError: for a ``keep`` that is no time, or none above zero.
    """

    keep: dt.timedelta
    hold: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        keep: Any = self.keep
        if not isinstance(keep, dt.timedelta) or keep <= dt.timedelta(0):
            raise ConfigurationError(f"Retention(keep={self.keep!r}): give a datetime.timedelta above zero")
        condition = isinstance(self.hold, sa.ColumnElement) or hasattr(self.hold, "__clause_element__")
        if self.hold is not None and not callable(self.hold) and not condition:
            raise ConfigurationError(
                f"Retention(hold={self.hold!r}): give a condition on the model's columns, or a function that gives it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What is recorded of one model; None inherits from the configuration of its MetaData.

    Args:
        capture: ``"session"`` (SQLAlchemy's hooks record) or ``"trigger"`` (the database's own triggers do).
        reads: record reads, too: True or ``"durable"`` commits the record of a read before its rows are handed over,
            ``"relaxed"`` does not wait for the disk (on PostgreSQL; elsewhere it is the same).
        attempts: leave a durable event of each transaction with changes of the model that is rolled back.
        subject: the column that says whose data a row is, for ``Encrypt()`` columns that don't say it themselves.
        retention: how long the history is kept, see :class:`Retention`; None keeps all of it for ever.
        partition: ``"month"`` to have PostgreSQL keep the history in partitions, one for each month of UTC; on other
            databases it changes nothing.
        fk_indexes: index the columns of every foreign key in the history, so that a lazy load in the past is fast.
        history_table: the name of the history table, by default the table's own with ``_history`` behind it.
        renamed_from: the table's name before it was renamed (used by migrations).

    Raises:
        ConfigurationError: for a value that is not one of these, or that this release can't honour.
    """

    capture: Capture | None = None
    reads: Reads = False
    attempts: bool = False
    subject: str | None = None
    retention: Retention | None = None
    partition: Literal["month"] | None = None
    fk_indexes: bool = True
    history_table: str | None = None
    renamed_from: str | None = None

    def __post_init__(self) -> None:
        _check_capture(self.capture, "AuditOptions")
        if self.reads not in (False, True, "durable", "relaxed"):
            raise ConfigurationError(f"AuditOptions(reads={self.reads!r}): give False, True, 'durable' or 'relaxed'")
        if not isinstance(self.attempts, bool):
            raise ConfigurationError(f"AuditOptions(attempts={self.attempts!r}): give True or False")
        if self.subject is not None and not is_name(self.subject):
            raise ConfigurationError(f"AuditOptions(subject={self.subject!r}): give the name of a column")
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise ConfigurationError(f"AuditOptions(retention={self.retention!r}): give sa_audit.Retention(keep=...)")
        _check_partition(self.partition, "AuditOptions")
        for name in ("history_table", "renamed_from"):
            given = getattr(self, name)
            if given is not None and not is_name(given):
                raise ConfigurationError(f"AuditOptions({name}={given!r}): give a name, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The database roles that a migration grants to; ``sa-audit roles`` prints the SQL that makes them.

    Args:
        owner: owns the schema, tables, sequences and functions of the trail; nobody logs in as it.
        writer: records changes; the application's account is a member.
        reader: asks; auditors are members.
        sealer: seals; the sealer's account is a member.
        eraser: destroys keys of persons and wraps them anew, and records that as a member of the writer; whoever erases
            is a member.

    Raises:
        ConfigurationError: for a name that is empty, longer than 63 bytes, or given twice.
    """

    owner: str = "sa_audit_owner"
    writer: str = "sa_audit_writer"
    reader: str = "sa_audit_reader"
    sealer: str = "sa_audit_sealer"
    eraser: str = "sa_audit_eraser"

    def __post_init__(self) -> None:
        names = (self.owner, *self.groups)
        for name in names:
            if not is_name(name) or "\0" in name or len(name.encode()) > 63:
                raise ConfigurationError(f"Roles with the name {name!r}: give a name of 1 to 63 bytes")
        if len(set(names)) < len(names):
            raise ConfigurationError(f"Roles{names!r}: give five different names")

    @property
    def groups(self) -> tuple[str, ...]:
        """All but the owner."""
        return (self.writer, self.reader, self.sealer, self.eraser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings of one MetaData's trail; see :func:`sa_audit.configure` for their meaning."""

    schema: str | None = None
    capture: Capture = "session"
    require_actor: bool = False
    require_reason: bool = False
    text_dml: Literal["refuse", "allow"] = "refuse"
    roles: Roles | None = None
    partition: Literal["month"] | None = None
    keys: Any = None
    context: Mapping[str, Policy] = field(default_factory=dict)
    record_engine: Any = None
    looks: bool = False
    testing: bool = False

    def __post_init__(self) -> None:
        _check_capture(self.capture, "configure")
        _check_partition(self.partition, "configure")
        if self.schema is not None and not is_name(self.schema):
            raise ConfigurationError(f"configure(schema={self.schema!r}): give the name of a schema, or leave it out")
        if self.text_dml not in ("refuse", "allow"):
            raise ConfigurationError(f"configure(text_dml={self.text_dml!r}): give 'refuse' or 'allow'")
        for name in ("require_actor", "require_reason", "looks", "testing"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"configure({name}={getattr(self, name)!r}): give True or False")
        if self.roles is not None and not isinstance(self.roles, Roles):
            raise ConfigurationError(f"configure(roles={self.roles!r}): give sa_audit.Roles(...)")
        _check_context(self.context)
        engine = self.record_engine
        if engine is not None and not isinstance(getattr(engine, "sync_engine", engine), sa.Engine):
            raise ConfigurationError(f"configure(record_engine={engine!r}): give a sqlalchemy Engine or AsyncEngine")
        if self.keys is not None and not all(hasattr(self.keys, name) for name in PROVIDES):
            raise ConfigurationError(
                f"configure(keys={type(self.keys).__name__}) has not {', '.join(PROVIDES)}: give a "
                "sa_audit.KeyProvider, such as sa_audit.privacy.FileKeys(path)"
            )


def _check_capture(capture: object, where: str) -> None:
    if capture not in (None, "session", "trigger"):
        raise ConfigurationError(f"{where}(capture={capture!r}): give 'session' or 'trigger'")


def _check_partition(partition: object, where: str) -> None:
    if partition not in (None, "month"):
        raise ConfigurationError(f"{where}(partition={partition!r}): give 'month', or leave it out")


def _check_context(context: object) -> None:
    if not isinstance(context, Mapping):
        raise ConfigurationError(f"configure(context={context!r}): give a dict of policies by keys of the context")
    for name, policy in context.items():
        said = f"configure(context={{{name!r}: {policy!r}}})"
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{said}: give the key of a context, such as 'remote_addr'")
        if name == "actor":
            raise ConfigurationError(
                f"{said}: a trail has to say who, and asks by it, so the actor has no policy: give a pseudonymous id"
            )
        if not isinstance(policy, Exclude | Mask | Digest | Encrypt):
            raise ConfigurationError(f"{said}: give an instance of a policy, such as sa_audit.Mask()")
        if isinstance(policy, Encrypt) and policy.subject in (None, name):
            raise ConfigurationError(
                f"{said}: name the key of the context that says whose value it is, such as Encrypt('actor')"
            )
