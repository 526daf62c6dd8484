"""Sessions and the state of objects: expired, deferred, merged, detached, versioned; many sessions, and no leak."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, deferred, make_transient, mapped_column, sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import behind_the_back, check, entries_of, history_of, ops, rows_of, story
from tests.standing import Tables

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


class Item(Audited, Base):
    __tablename__ = "item_state"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    n: Mapped[int | None]
    text: Mapped[str | None] = deferred(mapped_column(sa.Text))


class Versioned(Audited, Base):
    __tablename__ = "versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    name: Mapped[str | None] = mapped_column(sa.String(50))

    __mapper_args__ = {"version_id_col": version}


@pytest.fixture
def session(engine: sa.Engine, tables: Tables) -> Iterator[Session]:
    """A session on the tables of this module; at the end the trail is checked against them."""
    tables(engine, Base.metadata)
    with Session(engine) as session:
        yield session
    check(engine, Base.metadata)


def test_expired_attributes(session: Session) -> None:
    """An expired attribute that is set without being loaded has its before-value from the database."""
    item = Item(id=1, name="a", n=1)
    session.add(item)
    session.commit()
    session.expire(item)
    item.name = "b"
    session.commit()
    assert story(session, Item, "name", "n")[-1] == ("U", {"name": "a"}, "b", 1)


def test_deferred_columns(session: Session) -> None:
    """A deferred column that was never loaded is recorded as it is stored, not as NULL."""
    session.add(Item(id=1, name="a", text="long"))
    session.commit()
    session.expunge_all()
    item = session.get_one(Item, 1)
    assert "text" in sa.inspect(item).unloaded
    item.name = "b"
    session.commit()
    assert story(session, Item, "text")[-1] == ("U", {"name": "a"}, "long")
    session.expunge_all()
    session.get_one(Item, 1).text = "longer"
    session.commit()
    assert story(session, Item, "text")[-1] == ("U", {"text": "long"}, "longer")


def test_expire_on_commit_false(engine: sa.Engine) -> None:
    """Objects that keep their values over commits are recorded from the database's, not from theirs."""
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        item = Item(id=1, name="a", n=1)
        session.add(item)
        session.commit()
        behind_the_back(engine, "UPDATE item_state SET n = 77 WHERE id = 1")
        item.name = "b"
        session.commit()
        assert story(session, Item, "name", "n")[-1] == ("U", {"name": "a"}, "b", 77)


def test_another_session_commits_between_load_and_flush(engine: sa.Engine) -> None:
    """Before-values and untouched columns are what was stored when the flush came, not what was loaded."""
    Base.metadata.create_all(engine)
    with Session(engine) as one, Session(engine) as two:
        one.add(Item(id=1, name="a", n=1))
        one.commit()
        mine = one.get_one(Item, 1)
        assert (mine.name, mine.n) == ("a", 1)
        with sa_audit.context(actor="two"):
            theirs = two.get_one(Item, 1)
            theirs.name, theirs.n = "theirs", 2
            two.commit()
        with sa_audit.context(actor="one"):
            mine.name = "mine"
            one.commit()
        assert [(row.op, row.actor, row.before, row.values["name"], row.values["n"]) for row in rows_of(one, Item)] == [
            ("I", None, None, "a", 1),
            ("U", "two", {"name": "a", "n": "1"}, "theirs", 2),
            ("U", "one", {"name": "theirs"}, "mine", 2),
        ]
    check(engine, Base.metadata)


def test_merge(session: Session) -> None:
    """A merged detached object is an insert, an update of what differs, or nothing."""
    session.merge(Item(id=1, name="a", n=1))
    session.commit()
    for _ in range(2):
        session.merge(Item(id=1, name="b", n=1))
        session.commit()
    assert story(session, Item, "name", "n") == [("I", None, "a", 1), ("U", {"name": "a"}, "b", 1)]


def test_make_transient_and_insert_under_another_key(session: Session) -> None:
    """An object made transient and added again is a new row."""
    item = Item(id=1, name="a")
    session.add(item)
    session.commit()
    session.refresh(item)
    make_transient(item)
    item.id = 2
    session.add(item)
    session.commit()
    assert story(session, Item, "id", "name") == [("I", None, 1, "a"), ("I", None, 2, "a")]


def test_deleted_and_inserted_again_in_another_transaction(session: Session) -> None:
    """The same key, twice alive: two lives in one history."""
    for name in ("first", "second"):
        item = Item(id=1, name=name)
        session.add(item)
        session.commit()
        session.delete(item)
        session.commit()
    assert story(session, Item, "name") == [
        ("I", None, "first"),
        ("D", None, "first"),
        ("I", None, "second"),
        ("D", None, "second"),
    ]


def test_deleted_and_inserted_again_in_one_transaction(session: Session) -> None:
    """The same in one transaction, by two flushes."""
    item = Item(id=1, name="first", n=1)
    session.add(item)
    session.commit()
    session.delete(item)
    session.flush()
    session.add(Item(id=1, name="second"))
    session.commit()
    assert story(session, Item, "name", "n") == [
        ("I", None, "first", 1),
        ("D", None, "first", 1),
        ("I", None, "second", None),
    ]


def test_row_switch(session: Session) -> None:
    """A delete and an insert of the same key in one flush are one UPDATE to the database, and are recorded as that."""
    item = Item(id=1, name="first", n=1)
    session.add(item)
    session.commit()
    session.delete(item)
    session.add(Item(id=1, name="second"))
    session.commit()
    n = session.scalar(sa.select(Item.n))
    before = {"name": "first"} | ({} if n == 1 else {"n": "1"})
    assert story(session, Item, "name", "n") == [("I", None, "first", 1), ("U", before, "second", n)]


# -- versions --------------------------------------------------------------------------


def test_version_column_is_recorded(session: Session) -> None:
    """The version counter is a column like others, and rises in the history as in the table."""
    item = Versioned(id=1, name="a")
    session.add(item)
    session.commit()
    item.name = "b"
    session.commit()
    session.delete(item)
    session.commit()
    assert story(session, Versioned, "name", "version") == [
        ("I", None, "a", 1),
        ("U", {"name": "a", "version": "1"}, "b", 2),
        ("D", None, "b", 2),
    ]


@pytest.mark.parametrize("work", ["update", "delete"])
def test_stale_version(engine: sa.Engine, work: str) -> None:
    """A stale write raises what it raises without the library, and nothing of it is recorded."""
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        item = Versioned(id=1, name="a")
        session.add_all([item, Versioned(id=2, name="other")])
        session.commit()
        with Session(engine) as other:
            other.get_one(Versioned, 1).name = "theirs"
            other.commit()
        if work == "update":
            item.name = "mine"
        else:
            session.delete(item)
        with pytest.raises(StaleDataError):
            session.flush()
        session.rollback()
    assert ops(engine, Versioned) == "IIU"
    check(engine, Base.metadata)


def test_stale_delete_in_a_savepoint(engine: sa.Engine) -> None:
    """After a stale delete in a savepoint the transaction goes on, with the record of the rest."""
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        item = Versioned(id=1, name="a")
        session.add(item)
        session.commit()
        with Session(engine) as other:
            other.get_one(Versioned, 1).name = "theirs"
            other.commit()
        session.add(Versioned(id=2, name="kept"))
        session.flush()
        with pytest.raises(StaleDataError), session.begin_nested():  # noqa: PT012 (what the block does before it fails is the test)
            session.delete(item)
            session.flush()
        session.commit()
    assert story(engine, Versioned, "id") == [("I", None, 1), ("U", {"name": "a", "version": "1"}, 1), ("I", None, 2)]
    check(engine, Base.metadata)


# -- several sessions --------------------------------------------------------------------


def test_several_sessions_on_one_connection(engine: sa.Engine) -> None:
    """Two sessions that share a connection share its transaction, and so one entry; both are recorded."""
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        with connection.begin(), Session(connection) as one, Session(connection) as two:
            one.add(Item(id=1, name="one"))
            one.flush()
            two.add(Item(id=2, name="two"))
            two.flush()
            two.get_one(Item, 1).name = "changed by two"
            two.flush()
        assert story(connection, Item, "id", "name") == [
            ("I", None, 1, "one"),
            ("I", None, 2, "two"),
            ("U", {"name": "one"}, 1, "changed by two"),
        ]
        assert len(entries_of(connection, Base)) == 1
    check(engine, Base.metadata)


def test_one_session_with_several_engines(
    engine: sa.Engine, tmp_path: Any, make_engine: Callable[..., sa.Engine]
) -> None:
    """A session bound by class to two databases writes each change where its row is, with an entry in each."""
    second = sa.create_engine(f"sqlite:///{tmp_path / 'second.db'}")
    for bind in (engine, second):
        Base.metadata.create_all(bind)
    with sa_audit.context(actor="alice"), Session(binds={Item: engine, Versioned: second}) as session:
        session.add_all([Item(id=1, name="here"), Versioned(id=1, name="there")])
        session.commit()
        session.get_one(Item, 1).name = "still here"
        session.get_one(Versioned, 1).name = "still there"
        session.commit()
    assert (ops(engine, Item), ops(engine, Versioned)) == ("IU", "")
    assert (ops(second, Item), ops(second, Versioned)) == ("", "IU")
    assert {row.actor for row in rows_of(engine, Item) + rows_of(second, Versioned)} == {"alice"}
    check(engine, Base.metadata, only=[Item.__table__])
    check(second, Base.metadata, only=[Versioned.__table__])
    second.dispose()


def test_a_session_of_a_sessionmaker_and_a_subclass(engine: sa.Engine) -> None:
    """No session has to be registered, of whatever class it is."""
    Base.metadata.create_all(engine)

    class Mine(Session):
        pass

    for number, factory in enumerate((sessionmaker(engine), sessionmaker(engine, class_=Mine)), 1):
        with factory.begin() as session:
            session.add(Item(id=number, name="a"))
    assert ops(engine, Item) == "II"
    check(engine, Base.metadata)


def test_threads(engine: sa.Engine) -> None:
    """Each thread's changes carry its own actor."""
    Base.metadata.create_all(engine)
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                with sa_audit.context(actor=f"thread {number}"), Session(engine) as session:
                    session.add(Item(id=number * 100 + step, name=f"thread {number}"))
                    session.commit()
        except Exception as error:  # noqa: BLE001 (the main thread looks at it)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = rows_of(engine, Item)
    assert len(rows) == 20
    assert all(row.actor == row.values["name"] for row in rows)
    check(engine, Base.metadata)


# -- memory ------------------------------------------------------------------------------


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("ending", ["committed", "rolled back", "failed", "empty"])
def test_a_closed_session_is_forgotten(engine: sa.Engine, ending: str) -> None:
    """Nothing of the library keeps a session, its objects or its connection alive, however its flush ended."""
    Base.metadata.create_all(engine)
    references = _use_a_session(engine, ending)
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def _use_a_session(engine: sa.Engine, ending: str) -> list[weakref.ref[Any]]:
    with Session(engine) as session:
        item = Item(id=1, name="a")
        session.add(item)
        session.flush()
        if ending == "committed":
            session.commit()
        elif ending == "failed":
            session.expunge(item)
            session.add(Item(id=1, name="again"))
            with pytest.raises(sa.exc.IntegrityError):
                session.flush()
        elif ending == "empty":
            session.commit()
            item.name = item.name
            session.flush()
        return [weakref.ref(session), weakref.ref(item)]


@pytest.mark.session_capture("one of the ways to end is a refusal of it")
@pytest.mark.parametrize("count", [700, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_leak_over_many_sessions(count: int) -> None:
    """The number of living objects and allocated blocks does not follow the number of sessions, however they end."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)

    def work(numbers: range) -> tuple[int, int]:
        for number in numbers:
            with sa_audit.context(actor=f"user {number}"), Session(engine) as session:
                _end_somehow(session, number)
        gc.collect()
        return len(gc.get_objects()), sys.getallocatedblocks()

    work(range(100))
    before = work(range(100, 200))
    after = work(range(200, 200 + count))
    assert after[0] - before[0] < 300
    assert after[1] - before[1] < 1500
    with engine.connect() as connection:
        committed = connection.scalar(sa.select(sa.func.count()).select_from(history_of(Item)))
    assert committed == sum(OUTCOMES[number % len(OUTCOMES)] for number in range(200 + count))
    engine.dispose()


OUTCOMES = (2, 0, 1, 0, 2)
"""How many history rows each way of ending a session leaves."""


def _end_somehow(session: Session, number: int) -> None:
    """Write and commit, roll back, roll back to a savepoint, fail, or write by Core."""
    way = number % len(OUTCOMES)
    session.add(Item(name="a"))
    session.flush()
    if way == 0:
        with session.begin_nested():
            session.add(Item(name="b"))
    elif way == 1:
        session.rollback()
    elif way == 2:
        savepoint = session.begin_nested()
        session.add(Item(name="b"))
        session.flush()
        savepoint.rollback()
    elif way == 3:
        with pytest.raises(sa_audit.UnauditedWrite):
            session.execute(sa.text("DELETE FROM item_state"))
        session.rollback()
    else:
        session.execute(sa.insert(Item).values(name="c"))
    session.commit()


def test_cost_does_not_follow_the_identity_map(engine: sa.Engine) -> None:
    """A flush reads the rows that it changes, not all that are loaded."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Item(id=i, name="a") for i in range(1, 301)])
        session.commit()
        items = session.scalars(sa.select(Item)).all()
        items[7].name = "b"
        asked: list[Any] = []

        def note(_connection: Any, _cursor: Any, _sql: str, parameters: Any, *_rest: Any) -> None:
            asked.append(parameters)

        sa.event.listen(engine, "before_cursor_execute", note)
        session.commit()
        sa.event.remove(engine, "before_cursor_execute", note)
        assert all(len(parameters) < 30 for parameters in asked)
    assert ops(engine, Item) == "I" * 300 + "U"
