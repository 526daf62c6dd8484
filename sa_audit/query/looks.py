"""A look into the trail of a model with ``reads`` is a read itself: one entry for each call of a public function.

Imports model, capture and SQLAlchemy only.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import orm
from sqlalchemy.orm import Session

from ..capture.access import BATCH, is_quiet, quietly
from ..capture.access_plan import identified_by
from ..capture.access_writing import write_access_rows, write_accesses
from ..capture.identity import identity_text
from ..ddl.backend import AccessRecord, backend_for, speaks_for
from ..errors import AuditError
from ..model import AuditedTable
from ..model.history import Trail, reading
from .change import Access, Change, Discrepancy, Event, Page, TransactionRecord
from .entity import Identity, Subject, resolve

P = ParamSpec("P")
R = TypeVar("R")
Found = TypeVar("Found", bound=Discrepancy)
Shown = dict[AuditedTable, dict[str, None]]


def look(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function that shows what the trail holds: record that it was asked, before it gives."""

    @functools.wraps(function)
    def looked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not reading or is_quiet():
            return function(*args, **kwargs)
        with quietly():
            result = function(*args, **kwargs)
        session: Any = args[0]
        session = session() if isinstance(session, orm.scoped_session) else session
        subject, identity = _asked(args[1:3])
        shown = _shown(result, session, None if subject is None else subject.parts[0].audited.trail)
        if subject is not None:
            _add_asked(shown, subject, identity)
        if shown:
            _record(session, function.__name__, shown)
        return result

    return looked


def look_through(session: Session, name: str, subject: Subject, found: Generator[Found, None, None]) -> Iterator[Found]:
    """Iterate over what a public function finds; record that it was asked, and each row before it is handed over.

    Args:
        session: where it is asked.
        name: of the function.
        subject: what about.
        found: what it finds, read as it goes on: :class:`~.change.Discrepancy`.
    """
    audited = next((part.audited for part in subject.parts if part.audited.options.reads), None)
    with contextlib.closing(found):
        yield from found if audited is None or is_quiet() else _recorded(session, name, subject, audited, found)


def _recorded(
    session: Session, name: str, subject: Subject, audited: AuditedTable, found: Iterator[Found]
) -> Iterator[Found]:
    connection = session.connection(bind_arguments=subject.bind_arguments)
    size = BATCH if backend_for(connection.dialect).reads_while_others_write else None
    batch = _next(found, size)
    more = size is not None and len(batch) == size
    access = _access(audited, f"{name}()", _texts(audited, batch), "streamed" if more else "known")
    relaxed = audited.options.reads == "relaxed"
    (identity,) = write_accesses(connection, audited, [access], relaxed=relaxed)
    yield from batch
    while more:
        batch = _next(found, size)
        more = bool(batch)
        rows = (audited.trail, identity, access.values["table_name"], _texts(audited, batch))
        write_access_rows(connection, audited, [rows], relaxed=relaxed)
        yield from batch


def _next(found: Iterator[Found], size: int | None) -> list[Found]:
    with quietly():
        return list(itertools.islice(found, size))


def _texts(audited: AuditedTable, found: Iterable[Discrepancy]) -> list[str]:
    key = identified_by(audited)[2]
    identities = (one.identity for one in found if None not in one.identity)
    return list(dict.fromkeys(identity_text(key, identity) for identity in identities))


def _access(audited: AuditedTable, statement: str, texts: list[str], known: str) -> AccessRecord:
    entity, table, _key = identified_by(audited)
    values = {
        "entity": entity,
        "table_name": table,
        "columns": None,
        "statement": statement,
        "criteria": None,
        "identities": known,
        "row_count": len(texts) if known == "known" else None,
    }
    return AccessRecord(audited.trail, values, texts)


def _shown(result: Any, session: Session, trail: Trail | None) -> Shown:
    """Give the rows of models with ``reads`` that a result tells about: of those of a trail, where one was asked."""
    shown: Shown = {}
    for entry in _entries(result):
        if isinstance(entry, Change | Event | Access) and entry.table is not None:
            _add(shown, session, trail, entry.table, getattr(entry, "rows", None) or [entry.identity])
    return shown


def _entries(result: Any) -> Iterator[Any]:
    if isinstance(result, Page):
        yield from result.entries
    elif isinstance(result, TransactionRecord):
        yield from (*result.changes, *result.events, *result.reads)
    elif isinstance(result, Mapping):
        yield from result.values()
    elif isinstance(result, list):
        yield from result


def _add(
    shown: Shown, session: Session, asked: Trail | None, table: str, identities: Iterable[tuple[Any, ...]]
) -> None:
    for trail in reading.trails() if asked is None else [asked]:
        for audited in trail.audited.values():
            if audited.options.reads and audited.table.fullname == table and _is_meant(session, audited):
                known = shown.setdefault(audited, {})
                _entity, _table, key = identified_by(audited)
                known.update((identity_text(key, identity), None) for identity in identities if identity)


def _is_meant(session: Session, audited: AuditedTable) -> bool:
    """Tell whether a table can be the one of its name in the session's database, where several models have one."""
    bind = session.get_bind(clause=audited.table)
    return speaks_for(bind.dialect, audited.trail, audited.table.fullname)


def _asked(arguments: tuple[Any, ...]) -> tuple[Subject | None, Identity]:
    """Give the model and the row that a call was about, if it was about one."""
    entity, key = (*arguments, None, None)[:2]
    try:
        return resolve(entity, key)
    except AuditError:
        return None, ()


def _add_asked(shown: Shown, subject: Subject, identity: Identity) -> None:
    """Add the row that was asked about, of which nothing may be known."""
    audited = next((part.audited for part in subject.parts if part.audited.options.reads), None)
    if audited is not None:
        shown.setdefault(audited, {})[identity_text(subject.parts[0].key, identity)] = None


def _record(session: Session, name: str, shown: Shown) -> None:
    first = next(iter(shown))
    connection = session.connection(bind_arguments={"clause": first.table})
    accesses = [_access(audited, f"{name}()", list(texts), "known") for audited, texts in shown.items()]
    relaxed = all(audited.options.reads == "relaxed" for audited in shown)
    write_accesses(connection, first, accesses, relaxed=relaxed)
