"""Every query sees in the past what it saw then, on the user's own classes, whatever happened since."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, Excluded, Masked
from sa_audit.query.timetravel import as_of
from tests.standing import Tables

from .timetravel_queries import POSTGRESQL, QUERIES
from .timetravel_zoo import Base, Keeper, pause, populate, upset

pytestmark = pytest.mark.both_captures

Moments = Callable[..., list[dt.datetime]]


class Market(DeclarativeBase):
    pass


class Stall(Audited, Market):
    """One small table, for what needs no zoo."""

    __tablename__ = "stall"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))

    def rename(self, name: str) -> None:
        self.name = name


@pytest.fixture
def zoo(engine: sa.Engine, tables: Tables) -> dict[str, Any]:
    """A zoo that was filled and then upset: what each query gave in between, and the moment of it."""
    tables(engine, Base.metadata)
    queries = QUERIES | (POSTGRESQL if engine.dialect.name == "postgresql" else {})
    with Session(engine) as session:
        populate(session)
    then = {}
    for name, query in queries.items():
        with Session(engine) as session:
            then[name] = query(session)
    moment = pause()
    with Session(engine) as session:
        upset(session)
    return {"engine": engine, "moment": moment, "then": then, "queries": queries}


def test_each_query_sees_what_it_saw_then(zoo: dict[str, Any]) -> None:
    """All kinds of queries and loaders, the types of the values included; and none by chance, as most differ now."""
    changed = 0
    for name, query in zoo["queries"].items():
        with Session(zoo["engine"]) as session:
            changed += query(session) != zoo["then"][name]
        with as_of(zoo["engine"], zoo["moment"]) as past:
            assert query(past) == zoo["then"][name], name
    assert changed > 0.8 * len(zoo["queries"])
    with as_of(zoo["engine"], zoo["moment"]) as past:
        for name, query in zoo["queries"].items():
            past.expunge_all()
            assert query(past) == zoo["then"][name], f"{name}, in one session with the others"
    with Session(zoo["engine"]) as session, as_of(session, zoo["moment"]) as past:
        for name, query in zoo["queries"].items():
            past.expunge_all()
            assert query(past) == zoo["then"][name], f"{name}, over a session"
    _unrecorded_columns_load_as_markers(zoo)
    _cte_may_be_named_like_the_table(zoo)


@pytest.mark.needs("snapshots")
def test_each_query_sees_what_a_snapshot_saw(engine: sa.Engine) -> None:
    """The same at a snapshot of PostgreSQL, taken before the zoo was upset."""
    Base.metadata.create_all(engine)
    queries = QUERIES | POSTGRESQL
    with Session(engine) as session:
        populate(session)
        then = {name: query(session) for name, query in queries.items()}
        snapshot = session.scalar(sa.text("SELECT pg_current_snapshot()::text"))
        session.rollback()
        upset(session)
    with as_of(engine, snapshot) as past:
        assert past.info["settled"] is True
        for name, query in queries.items():
            past.expunge_all()
            assert query(past) == then[name], name


def test_deleted_and_inserted_again(engine: sa.Engine, moments: Moments) -> None:
    """Two lives under one key: each at its time, and nothing in between."""
    first, between, second = moments(
        lambda session: session.add(Stall(id=1, name="one")),
        lambda session: session.delete(session.get_one(Stall, 1)),
        lambda session: session.add(Stall(id=1, name="two")),
    )
    seen = []
    for moment in (first, between, second):
        with as_of(engine, moment) as past:
            seen.append(past.scalars(sa.select(Stall.name)).all())
    assert seen == [["one"], [], ["two"]]


def test_changed_primary_key(engine: sa.Engine, moments: Moments) -> None:
    """A row is under its old key before the change, and under the new one after it, never under both."""

    def move(session: Session) -> None:
        session.get_one(Stall, 1).id = 7

    before, after = moments(lambda session: session.add(Stall(id=1, name="one")), move)
    for moment, identity in ((before, 1), (after, 7)):
        with as_of(engine, moment) as past:
            assert past.scalars(sa.select(Stall.id)).all() == [identity]


def test_nothing_before_the_first_row(engine: sa.Engine) -> None:
    """Between the table's creation and its first row it is empty."""
    Market.metadata.create_all(engine)
    moment = pause()
    with Session(engine) as session:
        session.add(Stall(id=1, name="one"))
        session.commit()
    with as_of(engine, moment) as past:
        assert past.scalars(sa.select(Stall)).all() == []


def test_truncate_hides_all_older_rows(engine: sa.Engine, moments: Moments) -> None:
    """A 'T' row ends every row before it; rows inserted after it are there."""
    history = Market.metadata.tables["stall_history"]
    transaction = Market.metadata.tables["audit_transaction"]

    def truncate(session: Session) -> None:
        session.add(Stall(id=2, name="two"))
        session.flush()
        newest = session.execute(sa.select(transaction).order_by(transaction.c.id.desc()).limit(1)).one()
        values = {"audit_tx": newest.id, "audit_op": "T", "audit_at": newest.recorded_at}
        session.connection().execute(sa.insert(history).values(values))

    before, after, later = moments(
        lambda session: session.add(Stall(id=1, name="one")),
        truncate,
        lambda session: session.add(Stall(id=3, name="three")),
    )
    seen = []
    for moment in (before, after, later):
        with as_of(engine, moment) as past:
            seen.append(sorted(past.scalars(sa.select(Stall.id))))
    assert seen == [[1], [], [3]]


def _unrecorded_columns_load_as_markers(zoo: dict[str, Any]) -> None:
    """Masked and excluded columns give their marker, never None and never a value: in entities, columns, subqueries."""
    inner = sa.select(Keeper).where(Keeper.id == 1).subquery()
    nested = sa.select(Keeper.pin.label("secret"), Keeper.opened).cte("nested")
    statements = (
        sa.select(Keeper.pin, Keeper.opened),
        sa.select(Keeper.pin.label("p"), Keeper.opened.label("o")),
        sa.select(inner.c.pin, inner.c.opened),
        sa.select(nested.c.secret, nested.c.opened),
        sa.union_all(sa.select(Keeper.pin, Keeper.opened), sa.select(Keeper.pin, Keeper.opened)),
    )
    with as_of(zoo["engine"], zoo["moment"]) as past:
        ann = past.get_one(Keeper, 1)
        assert (ann.pin, ann.opened) == (Masked, Excluded)
        for statement in statements:
            assert set(map(tuple, past.execute(statement))) == {(Masked, Excluded)}


def _cte_may_be_named_like_the_table(zoo: dict[str, Any]) -> None:
    """A user's CTE may be called like the table it reads, and shadows it outside of itself only."""
    mine = sa.select(Keeper.id, Keeper.full_name.label("called")).where(Keeper.id < 3).cte("keeper")
    with as_of(zoo["engine"], zoo["moment"]) as past:
        found = [tuple(row) for row in past.execute(sa.select(mine.c.id, mine.c.called).order_by(mine.c.id))]
    assert found == [(1, "ann"), (2, "bob")]


def test_parameter_named_like_the_librarys_own(engine: sa.Engine, moments: Moments) -> None:
    """A caller can't move the moment by a parameter of the library's own name."""
    first, last = moments(lambda s: s.add(Stall(id=1, name="a")), lambda s: s.get_one(Stall, 1).rename("b"))
    with as_of(engine, first) as past:
        assert past.execute(sa.select(Stall.name), {"sa_audit_moment": last}).scalar_one() == "a"


@pytest.fixture
def moments(engine: sa.Engine, tables: Tables) -> Moments:
    """A function that commits each of some changes and gives a moment after each."""
    tables(engine, Market.metadata)

    def run(*changes: Callable[[Session], Any]) -> list[dt.datetime]:
        found = []
        for change in changes:
            with Session(engine) as session:
                change(session)
                session.commit()
            found.append(pause())
        return found

    return run
