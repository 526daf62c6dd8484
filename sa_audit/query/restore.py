"""Bring one row back to what it was, as a new recorded change.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import flag_modified

from ..errors import Conflict, InvalidMoment
from ..model import audited_of
from .entity import Identity, Subject, resolve
from .fold import same
from .history import LATEST, moments, shown, state_after
from .rows import Source, source_of
from .writable import check_erased, check_insertable, check_types, version_of, writable


def restore(session: Session, entity: Any, key: Any, when: Any) -> Any:
    """Bring a row back to its state at a moment, as a new change that is recorded like any other.

    The row is locked, set and flushed; the caller commits.  A row that has been deleted since is inserted again, in
    all tables of its class, and without its class's ``__init__``.  Of a mapped class this goes through the session
    and its objects, so that validators, events and the version counter see it; the version is never set back.
    Masked, digested, excluded and computed columns, and those whose key was destroyed, keep their present value, or get
    their default when the row is inserted.

    Args:
        session: where to restore; it is flushed first.
        entity: a class, mapper or table; or an object, with ``key`` None.
        key: the row's key.
        when: the moment, as :func:`sa_audit.as_of` takes it.

    Returns:
        The object, up to date; of a plain table, the row as a mapping by column names.

    Raises:
        NotAudited: if the row was never recorded, lacks a value that the history does not hold, or has one that was
            recorded while its column had another type.
        InvalidMoment: if the row did not exist at that moment, or it can't be asked about.
        Conflict: if the row belongs to another class now.
        ErasedValue: if the row is gone, and can't be inserted without a value whose key was destroyed.
        CaptureMissing: if the database has no trail.
    """
    subject, identity = resolve(entity, key)
    session.flush()
    source = source_of(session, subject.bind_arguments)
    then, known = moments(source, subject, identity, when, LATEST)
    state = state_after(then)
    if not state:
        why = "having been deleted" if then else f"it was first recorded at {known[0].recorded_at.isoformat()}"
        raise InvalidMoment(
            f"{subject.name} {shown(identity)} did not exist at {when}: {why}; give a moment at which it did"
        )
    check_types(then[-1].former, f"{subject.name} {shown(identity)}")
    if subject.mapper is None:
        return _restore_row(session, source, subject, identity, state)
    return _restore_object(session, source, subject, identity, state, known[-1].state)


def _restore_object(
    session: Session,
    source: Source,
    subject: Subject,
    identity: Identity,
    state: Mapping[str, Any],
    last: Mapping[str, Any],
) -> Any:
    mapper = subject.mapper_for(subject.values(subject.mapper, state))
    if mapper is None or subject.mapper is None:
        raise TypeError(f"{subject.name} has no mapper")
    present = session.get(
        subject.mapper,
        identity,
        populate_existing=True,
        with_for_update={"of": list(subject.mapper.tables)},
        options=[orm.lazyload("*")],
    )
    if present is None:
        return _undelete(session, source, subject, mapper, state, last)
    now = orm.object_mapper(present)
    if now is not mapper:
        raise Conflict(
            f"{subject.name} {shown(identity)} is of class {now.class_.__name__} now and was {mapper.class_.__name__} "
            "then: delete it and restore it afterwards"
        )
    names = subject.names(mapper)
    with session.no_autoflush:  # a deferred column that is loaded in between would split the change in two
        for column, value in writable(subject.values(mapper, state)).items():
            if column is not mapper.version_id_col and not same(getattr(present, names[column]), value):
                setattr(present, names[column], value)
                flag_modified(present, names[column])
    session.flush()
    session.refresh(present)
    return present


def _undelete(
    session: Session,
    source: Source,
    subject: Subject,
    mapper: Mapper[Any],
    state: Mapping[str, Any],
    last: Mapping[str, Any],
) -> Any:
    for table in mapper.tables:
        audited = audited_of(table)
        if audited is not None:
            check_insertable(audited, subject.name, source.connection.dialect)
    check_erased(subject.values(mapper, state), subject.name)
    values, names = writable(subject.values(mapper, state)), subject.names(mapper)
    restored = mapper.class_manager.new_instance()
    for column, value in values.items():
        setattr(restored, names[column], value)
    session.add(restored)
    session.flush()
    _raise_version(session, subject, mapper, restored, last)
    session.refresh(restored)
    return restored


def _raise_version(
    session: Session, subject: Subject, mapper: Mapper[Any], restored: Any, last: Mapping[str, Any]
) -> None:
    """Count on from the last life's version, where a new object's version would begin anew."""
    column = mapper.version_id_col
    version = version_of(mapper, column.table) if isinstance(column, sa.Column) else None
    if version is None or version[1] is None:
        return
    name = subject.names(mapper)[version[0]]
    before, now = last.get(name), sa.inspect(restored).dict.get(name)
    if not isinstance(before, int) or not isinstance(now, int) or now > before:
        return
    table = version[0].table
    key = mapper.primary_key_from_instance(restored)
    part = next(part for part in subject.parts if part.audited.table is table)
    condition = [column == value for column, value in zip(part.key, key, strict=True)]
    session.connection(bind_arguments=subject.bind_arguments).execute(
        sa.update(part.audited.table).where(*condition).values({version[0]: version[1](before)})
    )


def _restore_row(
    session: Session, source: Source, subject: Subject, identity: Identity, state: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write a plain table's row back by Core statements, which are recorded as well."""
    audited = subject.parts[0].audited
    table, connection = audited.table, source.connection
    values = writable(subject.values(None, state))
    condition = [column == value for column, value in zip(audited.key, identity, strict=True)]
    present = connection.execute(sa.select(*values).where(*condition).with_for_update()).first()
    if present is None:
        check_insertable(audited, subject.name, connection.dialect)
        check_erased(subject.values(None, state), subject.name)
        connection.execute(sa.insert(table).values(values))
    else:
        differing = {
            column: value for (column, value), now in zip(values.items(), present, strict=True) if not same(now, value)
        }
        if differing:
            connection.execute(sa.update(table).where(*condition).values(differing))
    session.expire_all()
    return dict(connection.execute(sa.select(table).where(*condition)).mappings().one())
