"""Past statements are compiled once, apart from the live ones, and nothing holds on to engines and sessions."""

from __future__ import annotations

import datetime as dt
import gc
import time
import weakref
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry

from sa_audit import Audited, NotAudited, track
from sa_audit.query.past_compiler import PastCompiler
from sa_audit.query.timetravel import as_of

pytestmark = pytest.mark.wide


class Base(DeclarativeBase):
    pass


class Thing(Audited, Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)


class Plain(Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def memory() -> Iterator[sa.Engine]:
    """A database in memory, with a thing."""
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Thing(id=1))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been compiled for the past."""
    found: list[str] = []
    original = PastCompiler.__init__

    def counted(self: PastCompiler, *args: object, **kw: object) -> None:
        original(self, *args, **kw)
        found.append(self.string)

    monkeypatch.setattr(PastCompiler, "__init__", counted)
    return found


def test_compiled_once(memory: sa.Engine, compiled: list[str]) -> None:
    """One statement serves all moments, past sessions, and engines with options."""
    for number in range(5):
        with as_of(memory.execution_options(number=number), dt.datetime.now(dt.UTC)) as past:
            assert past.scalars(sa.select(Thing.id).where(Thing.id == 1)).all() == [1]
        with Session(memory) as session, as_of(session, dt.datetime.now(dt.UTC)) as past:
            assert past.scalars(sa.select(Thing.id).where(Thing.id == 1)).all() == [1]
    assert len(compiled) == 1


def test_live_and_past_do_not_mix(memory: sa.Engine) -> None:
    """The same statement object, live and past by turns, always reads what it should."""
    statement = sa.select(sa.func.count(Thing.id))
    before = dt.datetime.now(dt.UTC)
    with Session(memory) as session:
        session.add(Thing(id=2))
        session.commit()
    for _turn in range(3):
        with Session(memory) as session:
            assert session.scalar(statement) == 2
        with as_of(memory, before) as past:
            assert past.scalar(statement) == 1


def test_live_cache_is_left_alone(memory: sa.Engine) -> None:
    """Past statements do not push live ones out of their cache."""
    with Session(memory) as session:
        session.scalars(sa.select(Thing.id)).all()
    size = len(memory._compiled_cache)
    with as_of(memory, dt.datetime.now(dt.UTC)) as past:
        for number in range(20):
            past.scalars(sa.select(Thing.id, *[sa.literal(1)] * number)).all()
    assert len(memory._compiled_cache) == size


def test_permission_is_not_cached(memory: sa.Engine) -> None:
    """A statement that one session may run is refused in the next, although it is compiled already."""
    now = dt.datetime.now(dt.UTC)
    with as_of(memory, now, present=[Plain]) as past:
        assert past.scalars(sa.select(Plain)).all() == []
    with as_of(memory, now) as past, pytest.raises(NotAudited):
        past.scalars(sa.select(Plain)).all()


def test_column_added_later(memory: sa.Engine) -> None:
    """A column that joins the table after its past was read is read as well."""
    metadata = sa.MetaData()
    table = sa.Table("growing", metadata, sa.Column("id", sa.Integer, primary_key=True))
    track(table)
    with memory.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE growing (id INTEGER PRIMARY KEY, size INTEGER)")
    now = dt.datetime.now(dt.UTC)
    statement = sa.select(sa.func.count()).select_from(table)
    table.append_column(sa.Column("size", sa.Integer))
    metadata.create_all(memory)
    with memory.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, size=3))
    now = dt.datetime.now(dt.UTC)
    with as_of(memory, now) as past:
        assert past.scalar(statement) == 1
        assert past.execute(sa.select(table).where(table.c.size == 3)).all() == [(1, 3)]


def test_listeners_of_the_engine_still_hear(memory: sa.Engine) -> None:
    """What listens to the user's engine hears past statements too, also if it came later."""
    heard: list[str] = []
    with as_of(memory, dt.datetime.now(dt.UTC)) as past:
        past.scalars(sa.select(Thing.id)).all()
    event.listen(memory, "before_cursor_execute", lambda *args: heard.append(args[2]))
    with as_of(memory, dt.datetime.now(dt.UTC)) as past:
        past.scalars(sa.select(Thing.id)).all()
    assert any("thing_history" in sql for sql in heard)


def test_nothing_is_held() -> None:
    """Neither the engine, nor its dialect, nor a past session outlives its user."""
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with as_of(engine, dt.datetime.now(dt.UTC)) as past:
        past.scalars(sa.select(Thing)).all()
    held = [weakref.ref(item) for item in (engine, engine.dialect, past, past.get_bind())]
    engine.dispose()
    del engine, past
    gc.collect()
    assert [reference() for reference in held] == [None] * 4


def test_no_growth_over_many_sessions(memory: sa.Engine) -> None:
    """A thousand past sessions leave nothing behind."""

    def travel(times: int) -> None:
        for _time in range(times):
            with as_of(memory, dt.datetime.now(dt.UTC)) as past:
                past.get(Thing, 1)

    travel(20)
    gc.collect()
    before = len(gc.get_objects())
    travel(1000)
    gc.collect()
    assert len(gc.get_objects()) - before < 500


def test_many_tables_cost_at_most_twice(memory: sa.Engine) -> None:
    """With 200 audited tables, a compiled past statement takes at most twice the processor time of the live one."""
    mapping = registry()
    classes = []
    for number in range(200):
        columns = (sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
        table = sa.Table(f"many_{number}", mapping.metadata, *columns)
        classes.append(type(f"Many{number}", (), {}))
        mapping.map_imperatively(classes[-1], table)
        track(classes[-1])
    mapping.metadata.create_all(memory)

    def once(session: Session) -> float:
        start = time.process_time()
        for class_ in classes[:30]:
            session.scalars(sa.select(class_).where(class_.id == 1)).all()
        return time.process_time() - start

    with Session(memory) as session, as_of(memory, dt.datetime.now(dt.UTC)) as past:
        rounds = [(once(session), once(past)) for _round in range(40)]  # in turns, so that noise meets both
    live, then = (min(taken) for taken in zip(*rounds[3:], strict=True))
    assert then <= 2 * live
