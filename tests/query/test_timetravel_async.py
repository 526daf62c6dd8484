"""`as_of` over async engines and sessions, with each database's async drivers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from sa_audit import Audited, InvalidMoment, Mask, Masked, NotAudited, ReadOnlyPast
from sa_audit.query.timetravel import as_of
from tests.databases import Database

from .timetravel_zoo import pause


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Owner(Audited, Base):
    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))
    seen: Mapped[dt.datetime | None]
    pin: Mapped[int | None] = mapped_column(info={"sa_audit": Mask()})
    boats: Mapped[list[Boat]] = relationship(order_by="Boat.id")


class Boat(Audited, Base):
    __tablename__ = "boat"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owner.id"))


def fill(engine: sa.Engine) -> tuple[dt.datetime, str | None]:
    """Make an owner with a boat, then change both; give a moment between, and a snapshot where there are any."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        seen = dt.datetime(2026, 1, 2, 3, 4, 5)
        session.add(Owner(id=1, name="ann", seen=seen, pin=5, boats=[Boat(id=1), Boat(id=2)]))
        session.commit()
    snapshot = None
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            snapshot = connection.scalar(sa.text("SELECT pg_current_snapshot()::text"))
    moment = pause()
    with Session(engine) as session:
        ann = session.get_one(Owner, 1)
        ann.name = "changed"
        session.delete(ann.boats[0])
        session.commit()
    return moment, snapshot


async def look(past: AsyncSession) -> None:
    """Look at the past in each of the ways that async sessions have."""
    ann = await past.get_one(Owner, 1)
    assert (ann.name, ann.seen, ann.pin) == ("ann", dt.datetime(2026, 1, 2, 3, 4, 5), Masked)
    assert [boat.id for boat in await ann.awaitable_attrs.boats] == [1, 2]
    past.expunge_all()
    loaded = (await past.scalars(sa.select(Owner).options(selectinload(Owner.boats)))).one()
    assert [boat.id for boat in loaded.boats] == [1, 2]
    stream = await past.stream_scalars(sa.select(Boat.id).order_by(Boat.id).execution_options(yield_per=1))
    assert [number async for number in stream] == [1, 2]
    await past.refresh(loaded)
    connection = await past.connection()
    assert (await connection.execute(sa.select(Owner.name))).scalar_one() == "ann"
    assert await past.run_sync(lambda session: session.scalar(sa.select(sa.func.count(Boat.id)))) == 2


@pytest.fixture(params=[0, 1], ids=["usual driver", "other driver"])
def asynchronous(
    request: pytest.FixtureRequest, database: Database, make_async_engine: Callable[..., AsyncEngine]
) -> AsyncEngine:
    """An async engine with each of the database's drivers."""
    drivers = list(database.async_urls)
    if request.param >= len(drivers):
        pytest.skip(f"{database.name} has one async driver")
    return make_async_engine(drivers[request.param])


async def test_over_an_engine(engine: sa.Engine, asynchronous: AsyncEngine) -> None:
    """All ways to read see the past, at a moment and at a snapshot; the session tells whether it is settled."""
    moment, snapshot = fill(engine)
    for when in filter(None, (moment, snapshot)):
        async with as_of(asynchronous, when) as past:
            await look(past)
            assert past.info["settled"] in (True, False)
        async with as_of(asynchronous, when) as past:
            await look(past)


async def test_over_a_session(engine: sa.Engine, asynchronous: AsyncEngine) -> None:
    """The same over an async session, whose own uncommitted changes are seen and kept."""
    moment, _snapshot = fill(engine)
    async with AsyncSession(asynchronous) as session:
        async with as_of(session, moment) as past:
            await look(past)
        (await session.get_one(Owner, 1)).name = "mine"
        await session.flush()
        async with as_of(session, dt.datetime.now(dt.UTC)) as past:
            assert await past.scalar(sa.select(Owner.name)) == "mine"
        await session.commit()
    async with AsyncSession(asynchronous) as session:
        assert await session.scalar(sa.select(Owner.name)) == "mine"


async def test_refusals(engine: sa.Engine, asynchronous: AsyncEngine) -> None:
    """Writing, text, masked values in use and the future raise as in plain sessions."""
    moment, _snapshot = fill(engine)
    async with as_of(asynchronous, moment) as past:
        for statement in (sa.update(Owner).values(name="x"), sa.text("SELECT 1"), sa.select(Owner).with_for_update()):
            with pytest.raises(ReadOnlyPast):
                await past.execute(statement)
        with pytest.raises(NotAudited):
            await past.execute(sa.select(Owner).where(Owner.pin == 5))
        past.add(Owner(id=2, name="b"))
        with pytest.raises(ReadOnlyPast):
            await past.commit()
    with pytest.raises(InvalidMoment):
        async with as_of(asynchronous, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)):
            pass
