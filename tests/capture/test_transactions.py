"""Nothing is recorded unless it is committed, and nothing is committed unless it is recorded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import behind_the_back, check, entries_of, ops, rows_of, story
from tests.standing import Tables

pytestmark = pytest.mark.both_captures

Make = Callable[..., sa.Engine]


class Base(DeclarativeBase):
    pass


class Item(Audited, Base):
    __tablename__ = "item_tx"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))


@pytest.fixture
def session(engine: sa.Engine, tables: Tables) -> Iterator[Session]:
    """A session on the table of this module; at the end the trail is checked against it."""
    tables(engine, Base.metadata)
    with Session(engine) as session:
        yield session
    check(engine, Base.metadata)
    assert {row.tx for row in rows_of(engine, Item)} == {entry.id for entry in entries_of(engine, Base)}


def names(session: Session) -> list[str | None]:
    """Give the names that are stored now."""
    return list(session.scalars(sa.select(Item.__table__.c.name).order_by(Item.__table__.c.id)))


# -- rollback ----------------------------------------------------------------------------


def test_a_rollback_leaves_nothing(session: Session) -> None:
    """A rolled-back transaction leaves no history row and no entry."""
    session.add(Item(id=1, name="kept"))
    session.commit()
    session.add(Item(id=2, name="gone"))
    session.get_one(Item, 1).name = "gone"
    session.flush()
    session.rollback()
    assert story(session, Item, "name") == [("I", None, "kept")]
    assert len(entries_of(session, Base)) == 1


def test_after_a_rollback_the_next_transaction_has_its_own_entry(session: Session) -> None:
    """What was known of a rolled-back transaction is forgotten."""
    with sa_audit.context(actor="first"):
        session.add(Item(id=1, name="gone"))
        session.flush()
        session.rollback()
        session.add(Item(id=1, name="kept"))
        session.commit()
    with sa_audit.context(actor="second"):
        session.get_one(Item, 1).name = "changed"
        session.commit()
    assert [(row.op, row.actor, row.values["name"]) for row in rows_of(session, Item)] == [
        ("I", "first", "kept"),
        ("U", "second", "changed"),
    ]


@pytest.mark.parametrize("first_outside", [True, False])
def test_a_savepoint_that_rolls_back(session: Session, first_outside: bool) -> None:
    """It takes exactly its own rows along, also when the entry itself was born inside."""
    with sa_audit.context(actor="alice"):
        if first_outside:
            session.add(Item(id=1, name="before"))
            session.flush()
        savepoint = session.begin_nested()
        session.add(Item(id=2, name="inside"))
        session.flush()
        savepoint.rollback()
        session.add(Item(id=3, name="after"))
        session.commit()
    expected = ["before", "after"] if first_outside else ["after"]
    assert [(row.values["name"], row.actor) for row in rows_of(session, Item)] == [(name, "alice") for name in expected]
    assert len(entries_of(session, Base)) == 1
    assert names(session) == expected


def test_an_object_touched_again_after_its_savepoint_rolled_back(session: Session) -> None:
    """The second change of the object starts from what was before the savepoint."""
    item = Item(id=1, name="a")
    session.add(item)
    session.commit()
    with pytest.raises(ZeroDivisionError), session.begin_nested():  # noqa: PT012 (what the block does before it fails is the test)
        item.name = "inside"
        session.flush()
        raise ZeroDivisionError
    item.name = "b"
    session.commit()
    assert story(session, Item, "name") == [("I", None, "a"), ("U", {"name": "a"}, "b")]


def test_nested_savepoints(session: Session) -> None:
    """Savepoints in savepoints, released and rolled back, the outer one after the inner one was released."""
    with session.begin_nested():
        session.add(Item(id=1, name="one"))
        with session.begin_nested():
            session.add(Item(id=2, name="two"))
        inner = session.begin_nested()
        session.add(Item(id=3, name="gone"))
        session.flush()
        inner.rollback()
    outer = session.begin_nested()
    session.add(Item(id=4, name="gone"))
    session.flush()
    with session.begin_nested():
        session.add(Item(id=5, name="gone, though released"))
    outer.rollback()
    session.add(Item(id=6, name="six"))
    session.commit()
    assert [row.values["name"] for row in rows_of(session, Item)] == ["one", "two", "six"] == names(session)


def test_an_entry_born_in_a_released_savepoint_goes_with_the_outer_one(session: Session) -> None:
    """The entry of an inner savepoint that was released belongs to the outer one, and goes with it."""
    outer = session.begin_nested()
    with session.begin_nested():
        session.add(Item(id=1, name="gone"))
    session.add(Item(id=2, name="gone"))
    session.flush()
    outer.rollback()
    with sa_audit.context(actor="alice"):
        session.add(Item(id=3, name="kept"))
        session.commit()
    assert [(row.values["name"], row.actor) for row in rows_of(session, Item)] == [("kept", "alice")]


def test_a_failed_flush_in_a_savepoint(session: Session) -> None:
    """An IntegrityError inside a savepoint loses only the savepoint; what follows is recorded."""
    session.add(Item(id=1, name="kept"))
    session.flush()
    with pytest.raises(sa.exc.IntegrityError), session.begin_nested():  # noqa: PT012 (what the block does before it fails is the test)
        session.add(Item(id=2, name="gone"))
        session.flush()
        session.execute(sa.insert(Item.__table__).values(id=1, name="twice"))
    session.add(Item(id=3, name="also kept"))
    session.commit()
    assert [row.values["name"] for row in rows_of(session, Item)] == ["kept", "also kept"]


def test_a_savepoint_of_the_connection(engine: sa.Engine) -> None:
    """Savepoints of a Core connection, the first thing of its transaction."""
    Base.metadata.create_all(engine)
    table = Item.__table__
    with engine.begin() as connection:
        savepoint = connection.begin_nested()
        connection.execute(sa.insert(table).values(id=1, name="gone"))
        savepoint.rollback()
        with connection.begin_nested():
            connection.execute(sa.insert(table).values(id=2, name="kept"))
    with engine.connect() as connection:
        with pytest.raises(ZeroDivisionError), connection.begin_nested():  # noqa: PT012 (what the block does before it fails is the test)
            connection.execute(sa.update(table).values(name="gone"))
            raise ZeroDivisionError
        connection.rollback()
    assert story(engine, Item, "id", "name") == [("I", None, 2, "kept")]
    check(engine, Base.metadata)


def test_a_session_in_a_test_suite(engine: sa.Engine) -> None:
    """`join_transaction_mode="create_savepoint"`: commits inside a transaction that is rolled back at last."""
    Base.metadata.create_all(engine)
    connection = engine.connect()
    transaction = connection.begin()
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add(Item(id=1, name="a"))
        session.commit()
        session.get_one(Item, 1).name = "rolled back"
        session.flush()
        session.rollback()
        session.get_one(Item, 1).name = "b"
        session.commit()
        assert story(connection, Item, "name") == [("I", None, "a"), ("U", {"name": "a"}, "b")]
    transaction.rollback()
    connection.close()
    assert ops(engine, Item) == ""
    assert entries_of(engine, Base) == []


# -- the context changes -------------------------------------------------------------------


def test_the_context_changes_midway(session: Session) -> None:
    """A further entry is made for the new context, tied to the first and of the same moment; going back makes none."""
    with sa_audit.context(actor="alice", reason="one"):
        session.add(Item(id=1, name="a"))
        session.flush()
        with sa_audit.context(actor="bob"):
            session.add(Item(id=2, name="b"))
            session.flush()
        session.add(Item(id=3, name="c"))
        session.commit()
    assert [row.actor for row in rows_of(session, Item)] == ["alice", "bob", "alice"]
    first, second = entries_of(session, Base)
    assert (first.first_id, second.first_id) == (None, first.id)
    assert first.recorded_at == second.recorded_at
    assert first.recorded_at.tzinfo is not None
    assert abs(dt.datetime.now(dt.UTC) - first.recorded_at) < dt.timedelta(minutes=5)
    assert {row.at for row in rows_of(session, Item)} == {first.recorded_at}


def test_the_context_changes_midway_by_an_update(session: Session) -> None:
    """The same where the further entry is made for an update."""
    session.add(Item(id=1, name="a"))
    session.commit()
    with sa_audit.context(actor="alice", desk=7):
        session.get_one(Item, 1).name = "b"
        session.flush()
    with sa_audit.context(actor="bob", desk=[8, None]):
        session.get_one(Item, 1).name = "c"
        session.flush()
    session.commit()
    _, first, second = entries_of(session, Base)
    assert (first.context, second.context) == ({"desk": 7}, {"desk": [8, None]})
    assert second.first_id == first.id
    assert second.recorded_at == first.recorded_at


def test_a_first_entry_that_was_rolled_back_is_not_referred_to(session: Session) -> None:
    """The next entry is the first one, if the first was rolled back with its savepoint."""
    savepoint = session.begin_nested()
    with sa_audit.context(actor="gone"):
        session.add(Item(id=1, name="gone"))
        session.flush()
    savepoint.rollback()
    with sa_audit.context(actor="alice"):
        session.add(Item(id=2, name="a"))
        session.flush()
    with sa_audit.context(actor="bob"):
        session.add(Item(id=3, name="b"))
        session.flush()
    session.commit()
    first, second = entries_of(session, Base)
    assert (first.actor, first.first_id, second.actor, second.first_id) == ("alice", None, "bob", first.id)


def test_entries_of_separate_transactions_are_not_tied(session: Session) -> None:
    """Each transaction begins anew, on the same connection too."""
    for number, actor in enumerate(("alice", "bob", "alice"), 1):
        with sa_audit.context(actor=actor):
            session.add(Item(id=number, name=actor))
            session.commit()
    assert [(entry.actor, entry.first_id) for entry in entries_of(session, Base)] == [
        ("alice", None),
        ("bob", None),
        ("alice", None),
    ]
    moments = [entry.recorded_at for entry in entries_of(session, Base)]
    assert moments == sorted(moments)


# -- two phases ----------------------------------------------------------------------------


@pytest.mark.needs("two-phase")
@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_two_phase(engine: sa.Engine, ending: str) -> None:
    """A prepared transaction keeps or loses its record with its data."""
    Base.metadata.create_all(engine)
    with sa_audit.context(actor="alice"), Session(engine, twophase=True) as session:
        session.add(Item(id=1, name="a"))
        session.flush()
        session.prepare()
        getattr(session, ending)()
    assert [row.actor for row in rows_of(engine, Item)] == (["alice"] if ending == "commit" else [])
    check(engine, Base.metadata)


@pytest.mark.needs("two-phase")
def test_a_failed_record_in_two_phases(engine: sa.Engine) -> None:
    """The unrecorded change of a two-phase transaction is gone, too."""
    Base.metadata.create_all(engine)
    behind_the_back(engine, "DROP TABLE item_tx_history")
    with Session(engine, twophase=True) as session:
        session.add(Item(id=1, name="a"))
        with pytest.raises(sa_audit.CaptureMissing):
            session.flush()
        session.rollback()
        assert names(session) == []


# -- SQLite ----------------------------------------------------------------------------------


def begin_recipe(engine: sa.Engine) -> None:
    """Take BEGIN into SQLAlchemy's hands, as its documentation says for Python's sqlite3."""

    @sa.event.listens_for(engine, "connect")
    def connect(driver: Any, _record: Any) -> None:
        driver.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("recipe", [True, False])
def test_sqlite_savepoints(engine: sa.Engine, recipe: bool) -> None:
    """Savepoints keep and lose what they should, with SQLAlchemy's BEGIN recipe and without it."""
    if recipe:
        begin_recipe(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        savepoint = session.begin_nested()
        session.add(Item(id=1, name="gone"))
        session.flush()
        savepoint.rollback()
        with session.begin_nested():
            session.add(Item(id=2, name="gone at last"))
        session.rollback()
        with session.begin_nested():
            session.add(Item(id=3, name="kept"))
        session.commit()
        assert names(session) == ["kept"]
    assert story(engine, Item, "id") == [("I", None, 3)]
    check(engine, Base.metadata)


@pytest.mark.only_on("sqlite")
def test_sqlite_in_memory() -> None:
    """A database in memory, of one connection, is recorded like others."""
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Item(id=1, name="a"))
        session.commit()
    assert ops(engine, Item) == "I"
    engine.dispose()
