"""Erasure: the key of a person is destroyed, and with it every recorded value that was encrypted under it.

Imports model, ddl, errors, and of capture the context, the keys of persons and the recording.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ..ddl.backend import internal, noted_trails
from ..errors import ConfigurationError, LegalHold, NotAudited
from ..model.declaration import complete
from ..model.history import AuditedTable, Trail, known_trails, trail_of
from ..model.holds import held_history, held_rows
from . import clock
from .context import current_context, require
from .events import record_own
from .failing import fail_closed, missing_tables_named
from .person_keys import PersonKeys, secrets_of
from .recording import make_entry, recording_on, target_of

ERASED = "sa_audit.erased"
REWRAPPED = "sa_audit.rewrapped"
KEPT = (
    "backups, WAL or binary log archives and replicas hold the wrapped key until they expire, and whoever has the "
    "key-encryption key can open it there",
    "columns without the policy Encrypt(), keys of rows, reasons, contexts and the data of events that were recorded "
    "without subject= are as they were recorded",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What an erasure did, and what it left.

    Attributes:
        subject: the person.
        keys: the names of the keys that were destroyed.
        effective_at: from when on no process holds a key in memory, if the transaction is committed by now.
        remains: where the person's data still are, a sentence each.
    """

    subject: str
    keys: tuple[str, ...]
    effective_at: dt.datetime
    remains: tuple[str, ...]


def erase(session: Session, subject: Any, reason: str | None = None, *, base: Any = None) -> Erasure:
    """Destroy a person's key, so that nobody can read what was encrypted under it: the history's values are ``Erased``.

    The ciphertext stays, so that every proof still verifies; that the key was destroyed, by whom, when and why is
    recorded.  This happens in the session's transaction: commit it.  Delete the person's rows first: a later change of
    one records its values anew, under a new key.

    Args:
        session: in whose transaction the key is destroyed.
        subject: the person, as the column that ``Encrypt(subject=...)`` names has it.
        reason: why; by default that of the context.
        base: the declarative base or MetaData whose trail is meant, where several are known.

    Raises:
        NotAudited: if there is no key of the person, or no model encrypts.
        LegalHold: if the hold of any model's retention holds a row of the person, or of the history of one.
        ConfigurationError: if it is not clear which trail is meant.
        ActorRequired: if the configuration asks for an actor and there is none; likewise ``ReasonRequired``.
        CaptureMissing: if the database has no trail.
    """
    session = _plain(session)
    session.flush()
    audited = _encrypting(session, base)
    trail = audited.trail
    said = reason if reason is not None else current_context().reason
    configuration = trail.configuration
    require(current_context(), actor=configuration.require_actor, reason=configuration.require_reason and said is None)
    connection = session.connection(bind_arguments={"clause": audited.table})
    _refuse_held(connection, trail, str(subject))
    names = _destroy(connection, audited, str(subject), said)
    if not names:
        raise NotAudited(f"there is no key of {str(subject)!r}: nothing is encrypted for that person, or not any more")
    record_own(connection, audited, ERASED, {"keys": names, "reason": said})
    life = dt.timedelta(seconds=secrets_of(trail).life)
    return Erasure(
        subject=str(subject),
        keys=tuple(names),
        effective_at=clock.now() + life,
        remains=(*_rows_left(connection, trail, str(subject)), *KEPT),
    )


def rewrap(session: Session, *, base: Any = None) -> int:
    """Wrap the keys of all persons anew by the provider's current key-encryption key, so that older ones can go.

    Args:
        session: in whose transaction this happens; the caller commits.
        base: as for :func:`erase`.

    Returns:
        How many another one had wrapped.

    Raises:
        NotAudited: if no model encrypts.
        UnusableKey: if a key can't be unwrapped: keep the older key-encryption keys with the provider until then.
    """
    session = _plain(session)
    audited = _encrypting(session, base)
    connection = session.connection(bind_arguments={"clause": audited.table})
    target = target_of(audited, connection.get_execution_options())
    with missing_tables_named(connection, target):
        done = PersonKeys(connection, audited.trail, target.schemas).rewrap()
    if done:
        by = secrets_of(audited.trail).provider.current
        record_own(connection, audited, REWRAPPED, {"keys": done, "by": by})
    return done


def _plain(session: Any) -> Session:
    found: Session = session() if isinstance(session, orm.scoped_session) else session
    return found


def _destroy(connection: Connection, audited: AuditedTable, subject: str, reason: str | None) -> list[str]:
    with fail_closed(connection):
        recording = recording_on(connection)
        target = target_of(audited, connection.get_execution_options())
        audited.trail.used = True
        with missing_tables_named(connection, target):
            keys = PersonKeys(connection, audited.trail, target.schemas)
            return keys.destroy(subject, reason, lambda: make_entry(connection, recording, target))


def _rows_left(connection: Connection, trail: Trail, subject: str) -> list[str]:
    found = []
    for audited in trail.audited.values():
        columns = {audited.subject_of(column).source for column in audited.encrypted}
        for column in columns:
            query = (
                sa.select(sa.func.count()).select_from(audited.table).where(sa.cast(column, sa.String(255)) == subject)
            )
            count = internal(connection, query).scalar_one()
            if count:
                found.append(f"{count} rows of {audited.table.fullname} are there, with {column.name} = {subject!r}")
    return found


def _refuse_held(connection: Connection, trail: Trail, subject: str) -> None:
    """Refuse a person of whom any row, or any row of a history, is under a legal hold.

    A hold names persons by the column that says whose data a row is.
    """
    for audited in trail.audited.values():
        for column in audited.subjects:
            asked = [(audited.table, column.source, held_rows(audited))]
            if column.recorded is not None:
                asked.append((audited.history, column.recorded, held_history(audited, audited.history)))
            for table, subjects, condition in asked:
                if condition is not None and _is_held(connection, table, subjects, subject, condition):
                    raise LegalHold(
                        f"{subject!r} is not erased: rows of {table.fullname} with {subjects.name} = {subject!r} are "
                        f"under the legal hold of {audited.table.fullname}; erase once it has ended"
                    )


def _is_held(connection: Connection, table: sa.Table, subjects: sa.Column[Any], subject: str, condition: Any) -> bool:
    same = sa.cast(subjects, sa.String(255)) == subject
    query = sa.select(sa.literal(1)).select_from(table).where(same, condition).limit(1)
    return internal(connection, query).first() is not None


def _encrypting(session: Session, base: Any) -> AuditedTable:
    """Give a table whose trail has keys of persons."""
    if base is not None:
        metadata = base if isinstance(base, sa.MetaData) else base.metadata
        complete(metadata)
        trails = [trail for trail in [trail_of(metadata)] if trail is not None]
    else:
        noted = noted_trails(session.connection().dialect)
        trails = noted or known_trails()
    tables = [audited for trail in trails if trail.key is not None for audited in trail.audited.values()]
    found = [audited for audited in tables if audited.encrypted] or tables
    if not found:
        raise NotAudited(
            "this trail has neither an encrypted column nor a provider of keys: there is no key to destroy"
        )
    if len({audited.trail for audited in found}) > 1:
        raise ConfigurationError("several trails encrypt values: say which is meant, by base=")
    return found[0]
