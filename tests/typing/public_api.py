"""What a type checker has to find out about the public names.  It is checked, and never run.

`mypy --strict tests/typing` fails where a type is another one than asserted, or an ignore is needless.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
import sa_audit.asyncio
import sa_audit.testing
from sa_audit import Audited, AuditOptions, Exclude, Mask
from sa_audit.proof import Proof


class Base(DeclarativeBase):
    pass


class Account(Audited, Base):
    __tablename__ = "account"
    __audit__ = AuditOptions(fk_indexes=False, history_table="past")

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    seen: Mapped[dt.datetime | None] = mapped_column(info={"sa_audit": Exclude()})
    pin: Mapped[str | None] = mapped_column(info={"sa_audit": Mask()})


def declare(table: sa.Table) -> None:
    """The mixin leaves the attributes' types alone; configuring takes a base or a MetaData."""
    assert_type(Account(id=1, owner="ann").owner, str)
    sa_audit.track(table, AuditOptions())
    sa_audit.configure(Base, require_actor=True, text_dml="allow")
    sa_audit.configure(Base.metadata)
    sa_audit.configure(Base, text_dml="log")  # type: ignore[arg-type]
    sa_audit.configure(Base, capture="magic")  # type: ignore[arg-type]
    AuditOptions(reads="often")  # type: ignore[arg-type]
    assert_type(sa_audit.is_trail_table(table), bool)


@sa_audit.context(actor="alice")
def plain(number: int) -> str:
    """A decorated function keeps its signature."""
    return str(number)


@sa_audit.context(actor="alice")
async def coroutine(number: int) -> str:
    """So does a coroutine function."""
    return str(number)


@sa_audit.context(actor="alice")
def generator(number: int) -> Iterator[int]:
    """So does a generator function."""
    yield number


@sa_audit.context(actor="alice")
async def async_generator(number: int) -> AsyncIterator[int]:
    """So does an async generator function."""
    yield number


async def say() -> None:
    """The context, and what it decorates."""
    with sa_audit.context(actor="alice", on_behalf_of="bob", branch="Oslo") as held:
        assert_type(held, sa_audit.Context)
        assert_type(held.actor, str | None)
    assert_type(sa_audit.current_context().to_dict(), dict[str, Any])
    assert_type(sa_audit.Context.from_dict({"actor": "alice"}), sa_audit.Context)
    sa_audit.context(actor=7)  # type: ignore[arg-type]
    assert_type(plain(1), str)
    assert_type(await coroutine(1), str)
    assert_type(generator(1), Iterator[int])
    assert_type(async_generator(1), AsyncIterator[int])
    plain("1")  # type: ignore[arg-type]


def ask(session: Session, account: Account) -> None:
    """The questions, and their answers."""
    changes = sa_audit.history(session, account, since="2026-01-01T00:00:00Z", attribute="owner")
    assert_type(changes, list[sa_audit.Change])
    change = changes[0]
    assert_type(change.diff, Mapping[str, tuple[Any, Any]])
    assert_type(change.identity, tuple[Any, ...])
    assert_type(change.recorded_at, dt.datetime)
    assert_type(change.transaction, sa_audit.TransactionInfo)
    assert_type(change.actor, str | None)
    change.actor = "somebody else"  # type: ignore[misc]
    if change.operation == "created":  # type: ignore[comparison-overlap]
        return
    assert_type(sa_audit.blame(session, Account, 1), dict[str, sa_audit.Change])
    assert_type(sa_audit.diff(session, Account, 1, dt.date.today(), "2026-01-01T00:00:00Z"), dict[str, tuple[Any, Any]])
    page = sa_audit.trail(session, actor="alice", operation="update", limit=10)
    assert_type(page.entries, list[sa_audit.Change | sa_audit.Event | sa_audit.Access])
    assert_type(page.next, str | None)
    sa_audit.trail(session, operation="created")  # type: ignore[arg-type]
    assert_type(sa_audit.transaction(session, 1), sa_audit.TransactionRecord)
    assert_type(sa_audit.reconcile(session, Account), Iterator[sa_audit.Discrepancy])
    assert_type(sa_audit.history_class(Account), type[Any])
    assert_type(sa_audit.revert(session, 1), int)
    assert_type(sa_audit.erase(session, 1, reason="asked for"), sa_audit.Erasure)
    (read, *_others) = sa_audit.reads(session, Account, 1, since="2026-03-01", until=dt.date(2026, 3, 31))
    assert_type(read, sa_audit.Access)
    assert_type(read.row_ids, tuple[int, ...])
    (reader, *_more) = sa_audit.readers(session, Account, at_least=201, per="day")
    assert_type(reader, sa_audit.Reader)
    assert_type(reader.day, dt.date | None)
    sa_audit.readers(session, Account, per="week")  # type: ignore[arg-type]
    assert_type(sa_audit.prove(session, read, row=1), Proof)
    sa_audit.restore(session, Account, 1, dt.datetime.now(dt.UTC))


async def travel(engine: sa.Engine, session: Session, async_engine: AsyncEngine, async_session: AsyncSession) -> None:
    """A past session is an ordinary one, of the kind of what it was opened over."""
    assert_type(sa_audit.prune(engine, dry_run=True), list[sa_audit.Pruned])
    for given in (engine, session):
        with sa_audit.as_of(given, "2026-01-01T00:00:00Z", present={Account}) as past:
            assert_type(past, Session)
            assert_type(past.get(Account, 1), Account | None)
    async with sa_audit.as_of(async_engine, dt.date(2026, 1, 1)) as later:
        assert_type(later, AsyncSession)
    async with sa_audit.as_of(async_session, dt.date(2026, 1, 1)) as later:
        assert_type(later, AsyncSession)
    with sa_audit.testing.unguarded(engine):
        pass


async def ask_and_wait(session: AsyncSession) -> None:
    """The awaitable twins give what their namesakes give; what iterates there is a list."""
    assert_type(await sa_audit.asyncio.history(session, Account, 1), list[sa_audit.Change])
    assert_type(await sa_audit.asyncio.blame(session, Account, 1), dict[str, sa_audit.Change])
    assert_type(await sa_audit.asyncio.trail(session), sa_audit.Page)
    assert_type(await sa_audit.asyncio.transaction(session, 1), sa_audit.TransactionRecord)
    assert_type(await sa_audit.asyncio.reconcile(session, Account), list[sa_audit.Discrepancy])
    assert_type(await sa_audit.asyncio.revert(session, 1), int)
    assert_type(await sa_audit.asyncio.erase(session, 1, "asked for"), sa_audit.Erasure)
    assert_type(await sa_audit.asyncio.reads(session, Account, 1), list[sa_audit.Access])
    assert_type(await sa_audit.asyncio.readers(session, Account, per="day"), list[sa_audit.Reader])
