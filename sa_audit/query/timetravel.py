"""``as_of``: a whole session that sees the past, on the user's own classes.

Each audited table that a query touches is replaced, while the query is compiled, by its state at the moment
(:mod:`.past_compiler`).  Sync and async engines and sessions alike.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast, overload

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, scoped_session

from ..errors import ConfigurationError
from .moment import parse_moment
from .past import Past
from .past_session import BorrowingPastSession, PastSession
from .sealed import is_checkpoint, moment_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from ..proof.checkpoint import Checkpoint


@overload
def as_of(
    engine_or_session: Engine | Session | scoped_session[Any], when: Any, *, present: Iterable[Any] = ()
) -> AbstractContextManager[Session]: ...


@overload
def as_of(
    engine_or_session: AsyncEngine | AsyncSession, when: Any, *, present: Iterable[Any] = ()
) -> AbstractAsyncContextManager[AsyncSession]: ...


def as_of(engine_or_session: Any, when: Any, *, present: Iterable[Any] = ()) -> Any:
    """Open a read-only session in which every query sees the database as it was.

    ::

        with sa_audit.as_of(engine, "2026-03-31T23:59:59Z") as past:
            account = past.get(Account, 42)

    Over an engine, the session reads in one REPEATABLE READ, READ ONLY transaction of its own.  Over a session, it
    reads on that session's connections and within its transaction, so that what the session has flushed (which is done
    first, if it has autoflush) but not committed is seen; it leaves that transaction as it is.

    ``session.info["settled"]`` tells whether the state can't change any more: True when no transaction is open that
    could still commit rows recorded up to the moment, False while one is or may be, None where the database doesn't
    tell: MariaDB without the PROCESS privilege; and over a session MariaDB, SQLite, and PostgreSQL above READ
    COMMITTED.  A snapshot and a checkpoint are always settled.

    Not seen: what SQL functions read (of the database or the user), and constructs whose SQL the user's own
    ``@compiles`` functions make.

    Args:
        engine_or_session: an ``Engine`` or ``Session``; or an ``AsyncEngine`` or ``AsyncSession``.
        when: an aware datetime; an ISO 8601 text with offset; a date (the end of that day, UTC); on PostgreSQL a
            snapshot; or a :class:`sa_audit.proof.Checkpoint` of the log in this database, for exactly what was sealed.
        present: mapped classes and tables without history that may be read as they are now.

    Returns:
        A context manager that gives a ``Session``, or an async one that gives an ``AsyncSession``.

    Raises:
        InvalidMoment: for a moment that is naive, unreadable, or in the future; when a query touches a table, for one
            before its records begin.
        ConfigurationError: for another first argument, an audited table in ``present``, or an unknown database.

    In the session, a query raises :class:`NotAudited` for what has no history, and :class:`ReadOnlyPast` for what
    would write, lock, or can't be seen through.
    """
    if isinstance(engine_or_session, scoped_session):
        engine_or_session = engine_or_session()
    if is_checkpoint(when):
        return _as_of_checkpoint(engine_or_session, when, present)
    past = Past(parse_moment(when), present)
    if isinstance(engine_or_session, Engine):
        return _opened(lambda **options: PastSession(past, engine_or_session, **options))
    if isinstance(engine_or_session, Session):
        return _opened(lambda **options: BorrowingPastSession(past, engine_or_session, **options))
    asynchronous = _asynchronous(engine_or_session, past)
    if asynchronous is None:
        raise ConfigurationError(
            f"as_of({engine_or_session!r}, ...): give an Engine, a Session, an AsyncEngine or an AsyncSession"
        )
    return asynchronous


def _as_of_checkpoint(given: Any, checkpoint: Checkpoint, present: Iterable[Any]) -> Any:
    """Give the context manager that first looks the checkpoint up in the log."""
    if isinstance(given, Engine | Session):
        return _opened_at_checkpoint(given, checkpoint, present)
    if isinstance(getattr(given, "sync_engine", None) or getattr(given, "sync_session", None), Engine | Session):
        return _opened_at_checkpoint_async(given, checkpoint, present)
    return as_of(given, dt.datetime.now(dt.UTC), present=present)  # which refuses what is given


@contextmanager
def _opened_at_checkpoint(given: Engine | Session, checkpoint: Checkpoint, present: Iterable[Any]) -> Iterator[Session]:
    if isinstance(given, Session):
        moment = moment_of(given.connection(), checkpoint)
    else:
        with given.connect() as connection:
            moment = moment_of(connection, checkpoint)
    with as_of(given, moment, present=present) as session:
        yield session


@asynccontextmanager
async def _opened_at_checkpoint_async(
    given: AsyncEngine | AsyncSession, checkpoint: Checkpoint, present: Iterable[Any]
) -> AsyncIterator[AsyncSession]:
    if isinstance(getattr(given, "sync_session", None), Session):
        connection = await cast("AsyncSession", given).connection()
        moment = await connection.run_sync(moment_of, checkpoint)
    else:
        async with cast("AsyncEngine", given).connect() as connection:
            moment = await connection.run_sync(moment_of, checkpoint)
    async with as_of(given, moment, present=present) as session:
        yield session


@contextmanager
def _opened(make: Callable[..., PastSession]) -> Iterator[Session]:
    with make() as session:
        session.open()
        yield session


def _asynchronous(given: Any, past: Past) -> AbstractAsyncContextManager[AsyncSession] | None:
    """Give the context manager for an async engine or session; asyncio is imported only where it is in use."""
    engine, session = getattr(given, "sync_engine", None), getattr(given, "sync_session", None)
    if isinstance(engine, Engine) and engine.dialect.is_async:
        return _opened_async(lambda **options: PastSession(past, engine, **options))
    if isinstance(session, Session):
        return _opened_async(lambda **options: BorrowingPastSession(past, session, **options))
    return None


@asynccontextmanager
async def _opened_async(make: Callable[..., PastSession]) -> AsyncIterator[AsyncSession]:
    from sqlalchemy.ext.asyncio import AsyncSession

    async with AsyncSession(sync_session_class=cast(type[Session], make)) as session:
        await session.run_sync(lambda sync: cast(PastSession, sync).open())
        yield session


__all__ = ["as_of"]
