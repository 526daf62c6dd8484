"""Domain events: what happened that is not a row.  Imports errors, model, ddl, privacy, and the rest of capture."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Session

from ..ddl.backend import Entry, backend_for, noted_trails
from ..errors import ConfigurationError, NotAudited
from ..model.declaration import complete
from ..model.history import AuditedTable, Trail, audited_of, known_trails, trail_of
from ..model.records import MAX_SUBJECT
from ..privacy.encryption import encrypted, event_place
from .afterwards import write_durably
from .context import current_context, require
from .context_value import frozen_extra, shown
from .failing import fail_closed, missing_tables_named
from .identity import root_of, row_of
from .person_keys import Entries, PersonKeys, secrets_of
from .recording import entry_alone, make_entry, recording_on, target_of

MAX_ACTION = 255
OWN_ACTIONS = "sa_audit."


def record(
    session: Session,
    action: str,
    target: Any = None,
    data: Any = None,
    *,
    durable: bool = False,
    subject: Any = None,
    base: Any = None,
) -> None:
    """Record a domain event: who, when and why come from the context, as for a change.

    ::

        with sa_audit.context(actor="alice"):
            sa_audit.record(session, "payment.processed", target=payment, data={"amount": "12.50"})
            session.commit()

    Args:
        session: in whose transaction the event is written.
        action: what happened, such as ``"payment.processed"``; names that begin with ``sa_audit.`` are the library's.
        target: the object that it happened to; one that has no key yet is flushed first.
        data: a dict of JSON values.
        durable: write it on a connection of its own, so that it survives a rollback.
        subject: whose personal data it holds: the data is encrypted under that person's key, as by ``Encrypt()``.
        base: the declarative base or MetaData whose trail is meant, where several are known and there is no target.

    Raises:
        ConfigurationError: for an argument that can't be used.
        NotAudited: if there is no trail to write to.
        UnusableKey: with a subject, if ``configure(keys=...)`` names no provider, or its key can't be used.
        ActorRequired: if the configuration asks for an actor and there is none; likewise ``ReasonRequired``.
        UnauditedWrite: in AUTOCOMMIT.
        CaptureMissing: if the database has no trail.
    """
    session = _plain(session)
    _check(action, durable)
    said = _json(action, data)
    person = _person(subject, said)
    state = _state_of(target)
    audited = _audited_for(session, state, base)
    if state is not None and state.identity is None and state.session is session:
        session.flush()
    row = row_of(state) if state is not None else dict.fromkeys(("entity", "table_name", "identity"))
    values = {**row, "action": action, "data": said, "durable": int(durable)}
    arguments = {"mapper": state.mapper} if state is not None else {"clause": audited.table}
    connection = session.connection(bind_arguments=arguments)
    configuration = audited.trail.configuration
    require(current_context(), actor=configuration.require_actor, reason=configuration.require_reason)
    audited.trail.used = True
    if person is not None:
        secrets_of(audited.trail)
    if not durable:
        _write(connection, audited, values, person)
        return

    def write(own: Connection, entry: Entry) -> None:
        _insert(own, audited, entry, values, person)

    write_durably(connection, audited, write, persons=() if person is None else (person,))


def record_own(connection: Connection, audited: AuditedTable, action: str, data: Mapping[str, Any]) -> None:
    """Record an event of the trail itself, in the transaction of a connection.

    Args:
        connection: where.
        audited: a table of the trail.
        action: what happened; begins with ``sa_audit.``.
        data: JSON values.

    Raises:
        ActorRequired: if the configuration asks for an actor and there is none; likewise ``ReasonRequired``.
        UnauditedWrite: in AUTOCOMMIT.
        CaptureMissing: if the database has no trail.
    """
    configuration = audited.trail.configuration
    require(current_context(), actor=configuration.require_actor, reason=configuration.require_reason)
    audited.trail.used = True
    nowhere = dict.fromkeys(("entity", "table_name", "identity"))
    _write(connection, audited, {**nowhere, "action": action, "data": dict(data), "durable": 0}, None)


def _write(connection: Connection, audited: AuditedTable, values: dict[str, Any], person: str | None) -> None:
    """Write an event in the transaction of a connection."""
    with fail_closed(connection):
        recording = recording_on(connection)
        target = target_of(audited, connection.get_execution_options())
        entry = make_entry(connection, recording, target)
        with missing_tables_named(connection, target):
            _insert(connection, audited, entry, {**values, "audit_flush": recording.next_flush()}, person)


def _insert(
    connection: Connection, audited: AuditedTable, entry: Entry, values: dict[str, Any], person: str | None
) -> None:
    if person is not None:
        values = {**values, "data": _encrypted(connection, audited, entry, values, person)}
    backend_for(connection.dialect).insert_event(connection, audited.trail, entry, values)


def _encrypted(connection: Connection, audited: AuditedTable, entry: Entry, values: dict[str, Any], person: str) -> str:
    target = target_of(audited, connection.get_execution_options())
    entries = Entries(lambda: entry, lambda own: entry_alone(own, target))
    keys = PersonKeys(connection, audited.trail, target.schemas).of([person], entries)
    place = event_place(entry.id, values["action"], values["table_name"], values["identity"])
    return encrypted(keys[person], place, json.dumps(values["data"], ensure_ascii=False))


# -- arguments -------------------------------------------------------------------------------


def _plain(session: Any) -> Session:
    if isinstance(session, orm.scoped_session):
        session = session()
    if not isinstance(session, Session):
        raise ConfigurationError(
            f"record({type(session).__name__}, ...): give a sqlalchemy.orm.Session; "
            "for an AsyncSession there is sa_audit.asyncio.record"
        )
    return session


def _check(action: Any, durable: Any) -> None:
    if not isinstance(action, str) or not action.strip() or len(action) > MAX_ACTION or "\0" in action:
        raise ConfigurationError(
            f"record(action={shown(action)}): give a name such as 'payment.processed', of at most {MAX_ACTION} "
            "characters"
        )
    if action.startswith(OWN_ACTIONS):
        raise ConfigurationError(
            f"record(action={action!r}): names that begin with {OWN_ACTIONS!r} are the library's own, so take another"
        )
    if not isinstance(durable, bool):
        raise ConfigurationError(f"record(durable={shown(durable)}): give True or False")


def _person(subject: Any, data: Any) -> str | None:
    """Give what names the person in whose key the data is encrypted."""
    if subject is None:
        return None
    if isinstance(subject, bool) or not isinstance(subject, str | int | uuid.UUID):
        raise ConfigurationError(f"record(subject={shown(subject)}): give what names the person, a string or a number")
    person = str(subject)
    if not person or len(person) > MAX_SUBJECT or "\0" in person:
        raise ConfigurationError(
            f"record(subject={shown(subject)}): give what names the person, 1 to {MAX_SUBJECT} characters"
        )
    if data is None:
        raise ConfigurationError(f"record(subject={shown(subject)}) with no data: there is nothing to encrypt")
    return person


def _json(action: str, data: Any) -> Any:
    """Give the data as plain JSON values."""
    if data is None:
        return None
    try:
        frozen = frozen_extra({"data": data})
    except ConfigurationError as error:
        raise ConfigurationError(f"record({action!r}, data={shown(data)}): {error}") from error
    plain = json.loads(json.dumps(frozen["data"], default=dict, allow_nan=False))
    if not isinstance(plain, dict):
        raise ConfigurationError(f"record({action!r}, data={shown(data)}): give a dict of JSON values")
    return plain


def _state_of(target: Any) -> InstanceState[Any] | None:
    if target is None:
        return None
    state = sa.inspect(target, raiseerr=False)
    if not isinstance(state, InstanceState):
        raise ConfigurationError(f"record(target={shown(target)}): give an object of a mapped class")
    return state


def _audited_for(session: Session, state: InstanceState[Any] | None, base: Any) -> AuditedTable:
    """Give an audited table of the trail that an event belongs to: the target's own where it is audited."""
    if state is not None:
        table = root_of(state.mapper).local_table
        own = audited_of(table)
        if own is not None:
            return own
        base = base if base is not None else getattr(table, "metadata", None)
    if base is not None:
        metadata = base if isinstance(base, sa.MetaData) else getattr(base, "metadata", None)
        trail = complete(metadata) if isinstance(metadata, sa.MetaData) and trail_of(metadata) is not None else None
        if trail is None or not trail.audited:
            raise NotAudited(f"{base!r} has no audited models, so there is no trail for the event: add Audited to one")
        return next(iter(trail.audited.values()))
    return next(iter(_only_trail(session).audited.values()))


def _only_trail(session: Session) -> Trail:
    """Give the trail that stands in the session's database, where there is no target that says which."""
    bind = session.bind
    noted = [trail for trail in noted_trails(bind.dialect) if trail.audited] if bind is not None else []
    found = noted or [trail for trail in known_trails() if trail.audited]
    places = {trail.event.fullname for trail in found}
    if not found:
        raise NotAudited("no model is audited, so there is no trail for the event: add Audited to one")
    if len(found) > 1 and (len(places) > 1 or not noted):
        names = "; ".join(sorted(", ".join(sorted(table.fullname for table in trail.audited)) for trail in found))
        raise ConfigurationError(f"several trails are known ({names}): say which one the event is for, by base=")
    return found[0]
