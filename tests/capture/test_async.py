"""Async sessions and connections, with every driver: recorded like others, each task under its own actor."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import check, entries_of, ops, rows_of, story
from tests.databases import Database

pytestmark = pytest.mark.both_captures

MakeAsync = Callable[..., AsyncEngine]


class Base(DeclarativeBase):
    pass


class Item(Audited, Base):
    __tablename__ = "item_async"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    price: Mapped[float | None] = mapped_column(sa.Double)
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan")


class Part(Audited, Base):
    __tablename__ = "part_async"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("item_async.id"))


@pytest.fixture(params=[0, 1], ids=["first driver", "second driver"])
async def async_bind(
    request: pytest.FixtureRequest, database: Database, engine: sa.Engine, make_async_engine: MakeAsync
) -> AsyncIterator[AsyncEngine]:
    """An engine with each async driver of the database, on this module's tables; the trail is checked at the end."""
    drivers = list(database.async_urls)[request.param :]
    if not drivers:
        pytest.skip(f"{database.name} has one async driver")
    Base.metadata.create_all(engine)
    yield make_async_engine(drivers[0])
    check(engine, Base.metadata)


async def test_a_life(async_bind: AsyncEngine, engine: sa.Engine) -> None:
    """Insert, update, savepoint and delete through an AsyncSession."""
    async with AsyncSession(async_bind, expire_on_commit=False) as session:
        with sa_audit.context(actor="alice"):
            session.add(Item(id=1, name="a", price=0.1, parts=[Part(id=1), Part(id=2)]))
            await session.commit()
        with sa_audit.context(actor="bob"):
            item = await session.get_one(Item, 1)
            item.name = "b"
            await session.flush()
            savepoint = await session.begin_nested()
            item.name = "rolled back"
            await session.flush()
            await savepoint.rollback()
            await session.commit()
        with sa_audit.context(actor="carol"):
            await session.delete(await session.get_one(Item, 1, options=[selectinload(Item.parts)]))
            await session.commit()
    assert [(row.op, row.actor, row.values["name"]) for row in rows_of(engine, Item)] == [
        ("I", "alice", "a"),
        ("U", "bob", "b"),
        ("D", "carol", "b"),
    ]
    assert ops(engine, Part) == "IIDD"


async def test_core_statements(async_bind: AsyncEngine, engine: sa.Engine) -> None:
    """Core DML on an async connection, executemany too."""
    table = Item.__table__
    async with async_bind.begin() as connection:
        await connection.execute(sa.insert(table), [{"id": i, "name": str(i)} for i in range(1, 6)])
        await connection.execute(sa.update(table).where(table.c.id > 3).values(name="x"))
        await connection.execute(
            sa.update(table).where(table.c.id == sa.bindparam("key")).values(price=sa.bindparam("p")),
            [{"key": 1, "p": 0.5}, {"key": 2, "p": 1 / 3}],
        )
        await connection.execute(sa.delete(table).where(table.c.id == 5))
    rows = rows_of(engine, Item)
    assert "".join(row.op for row in rows) == "IIIIIUUUUD"
    assert rows[8].values["price"] == 1 / 3


async def test_a_rollback_leaves_nothing(async_bind: AsyncEngine, engine: sa.Engine) -> None:
    """A rolled-back async transaction leaves no history."""
    async with AsyncSession(async_bind) as session:
        session.add(Item(id=1, name="gone"))
        await session.flush()
        await session.rollback()
    assert ops(engine, Item) == ""
    assert entries_of(engine, Base) == []


async def test_tasks_keep_their_actors(async_bind: AsyncEngine, engine: sa.Engine) -> None:
    """Tasks that overlap write under their own contexts, whatever the others say meanwhile."""
    maker = async_sessionmaker(async_bind)
    gate = asyncio.Semaphore(1 if engine.dialect.name == "sqlite" else 4)  # SQLite has one writer at a time

    async def work(number: int) -> None:
        with sa_audit.context(actor=f"task {number}"):
            await asyncio.sleep(0)
            async with gate, maker() as session:
                session.add(Item(id=number, name=f"task {number}"))
                await session.flush()
                await asyncio.sleep(0.001 * (number % 3))
                session.add(Part(id=number, item_id=number))
                await session.commit()

    with sa_audit.context(actor="nobody"):
        await asyncio.gather(*(work(number) for number in range(1, 13)))
    rows = rows_of(engine, Item)
    assert sorted(row.actor or "" for row in rows) == sorted(f"task {number}" for number in range(1, 13))
    assert all(row.actor == row.values["name"] for row in rows)
    assert all(row.actor == f"task {row.values['id']}" for row in rows_of(engine, Part))


async def test_autocommit_is_refused(async_bind: AsyncEngine, engine: sa.Engine, make_async_engine: MakeAsync) -> None:
    """AUTOCOMMIT is seen behind every async driver."""
    automatic = async_bind.execution_options(isolation_level="AUTOCOMMIT")
    async with automatic.connect() as connection:
        with pytest.raises(sa_audit.UnauditedWrite, match="AUTOCOMMIT"):
            await connection.execute(sa.insert(Item.__table__).values(id=1))
    assert ops(engine, Item) == ""


async def test_a_cancelled_task(async_bind: AsyncEngine, engine: sa.Engine) -> None:
    """A task that is cancelled between flush and commit keeps neither change nor record."""
    flushed = asyncio.Event()

    async def work() -> None:
        async with AsyncSession(async_bind) as session:
            session.add(Item(id=1, name="gone"))
            await session.flush()
            flushed.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await flushed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with AsyncSession(async_bind) as session:
        session.add(Item(id=2, name="kept"))
        await session.commit()
    assert story(engine, Item, "id") == [("I", None, 2)]


@pytest.mark.parametrize("way", ["flush", "statement"])
async def test_the_loop_goes_on_while_a_lock_is_waited_for(
    async_bind: AsyncEngine, engine: sa.Engine, way: str
) -> None:
    """Recording waits for a lock as the driver does, and never holds the event loop up."""
    with sa_audit.context(actor="first"), engine.begin() as connection:
        connection.execute(sa.insert(Item).values(id=1, name="a"))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def write() -> None:
        with sa_audit.context(actor="third"):
            async with AsyncSession(async_bind) as session:
                if way == "flush":
                    (await session.get_one(Item, 1)).name = "c"
                else:
                    await session.execute(sa.update(Item).where(Item.id == 1).values(name="c"))
                await session.commit()

    with sa_audit.context(actor="second"), engine.connect() as holder:
        holder.execute(sa.update(Item).where(Item.id == 1).values(name="b"))
        ticker, writer = asyncio.create_task(tick()), asyncio.create_task(write())
        await asyncio.sleep(0.4)
        assert not writer.done()
        assert ticks > 5
        holder.commit()
        await writer
    ticker.cancel()
    assert [(row.actor, row.before) for row in rows_of(engine, Item)] == [
        ("first", None),
        ("second", {"name": "a"}),
        ("third", {"name": "b"}),
    ]


@pytest.mark.only_on("sqlite")
async def test_no_session_is_kept(engine: sa.Engine, make_async_engine: MakeAsync) -> None:
    """A task's session is forgotten when the task is done."""
    Base.metadata.create_all(engine)
    maker = async_sessionmaker(make_async_engine())
    references: list[weakref.ref[Any]] = []

    async def work(number: int) -> None:
        async with maker() as session:
            session.add(Item(id=number))
            await session.commit()
            references.append(weakref.ref(session.sync_session))

    await asyncio.gather(*(asyncio.create_task(work(number)) for number in range(1, 4)))
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
