"""Hooks of the application that change objects, run SQL or flush in the middle of a flush: each change has its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, UOWTransaction, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import check, ops, rows_of, story
from tests.standing import Tables

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


class Item(Audited, Base):
    __tablename__ = "item_hook"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    n: Mapped[int | None]
    stamp: Mapped[int | None] = mapped_column(onupdate=sa.text("7 + 1"))


class Token(Audited, Base):
    __tablename__ = "token_hook"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(50))


class Owner(Audited, Base):
    __tablename__ = "owner_hook"

    id: Mapped[int] = mapped_column(primary_key=True)


class Owned(Audited, Base):
    __tablename__ = "owned_hook"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owner_hook.id"))


@pytest.fixture
def session(engine: sa.Engine, tables: Tables) -> Iterator[Session]:
    """A session on the tables of this module; at the end the trail is checked against them."""
    tables(engine, Base.metadata)
    with Session(engine) as session:
        yield session
    check(engine, Base.metadata)


def test_a_hook_after_ours_changes_an_object(session: Session) -> None:
    """What a user's `before_flush` hook changes is part of the flush, though it runs after the library's."""
    item = Item(name="a", n=1)
    session.add(item)
    session.commit()

    @event.listens_for(session, "before_flush")
    def touch(session: Session, work: UOWTransaction, _instances: Any) -> None:
        for changed in list(session.dirty):
            changed.n = 99
        session.add(Item(name="made by the hook"))

    item.name = "b"
    session.commit()
    event.remove(session, "before_flush", touch)
    assert story(session, Item, "name", "n")[1:] in (
        [("U", {"name": "a", "n": "1", "stamp": None}, "b", 99), ("I", None, "made by the hook", None)],
        [("I", None, "made by the hook", None), ("U", {"name": "a", "n": "1", "stamp": None}, "b", 99)],
    )


def test_a_hook_that_changes_another_object(session: Session) -> None:
    """An object that was clean before the hook is recorded, too."""
    first, second = Item(name="first", n=1), Item(name="second", n=1)
    session.add_all([first, second])
    session.commit()

    @event.listens_for(session, "before_flush")
    def touch(session: Session, work: UOWTransaction, _instances: Any) -> None:
        second.n = 2

    first.n = 2
    session.commit()
    event.remove(session, "before_flush", touch)
    assert sorted(row.values["name"] for row in rows_of(session, Item) if row.op == "U") == ["first", "second"]


def test_after_update_event_writes_the_same_row(session: Session) -> None:
    """Core SQL of a mapper event on the row that the flush has just updated: two changes, each with its own before."""
    item = Item(name="a", n=1)
    session.add(item)
    session.commit()

    @event.listens_for(Item, "after_update")
    def count(_mapper: Any, connection: sa.Connection, target: Item) -> None:
        connection.execute(sa.update(Item.__table__).where(Item.id == target.id).values(n=Item.n + 1, stamp=None))

    try:
        item.name = "b"
        session.commit()
    finally:
        event.remove(Item, "after_update", count)
    assert story(session, Item, "name", "n", "stamp")[1:] == [
        ("U", {"name": "a", "stamp": None}, "b", 1, 8),
        ("U", {"n": "1", "stamp": "8"}, "b", 2, None),
    ]


def test_after_insert_event_writes_the_same_row(session: Session) -> None:
    """The insert is recorded as it was, before the event's statement changes the row."""

    @event.listens_for(Item, "after_insert")
    def number(_mapper: Any, connection: sa.Connection, target: Item) -> None:
        connection.execute(sa.update(Item.__table__).where(Item.id == target.id).values(n=100, stamp=None))

    try:
        session.add(Item(name="a"))
        session.commit()
    finally:
        event.remove(Item, "after_insert", number)
    assert story(session, Item, "name", "n") == [("I", None, "a", None), ("U", {"n": None}, "a", 100)]


def test_after_insert_event_deletes_the_row(session: Session) -> None:
    """A row that an event's statement deletes again within the flush had a short life, and it is recorded."""

    @event.listens_for(Item, "after_insert")
    def drop(_mapper: Any, connection: sa.Connection, target: Item) -> None:
        connection.execute(sa.delete(Item.__table__).where(Item.id == target.id))

    try:
        session.add(Item(id=1, name="a"))
        session.commit()
    finally:
        event.remove(Item, "after_insert", drop)
    assert story(session, Item, "name") == [("I", None, "a"), ("D", None, "a")]


def test_event_writes_a_row_that_the_flush_updates_later(session: Session) -> None:
    """The flush's own change begins from what the event's statement left."""
    first, second = Item(id=1, name="first", n=1), Item(id=2, name="second", n=1)
    session.add_all([first, second])
    session.commit()

    @event.listens_for(Item, "before_update")
    def count(_mapper: Any, connection: sa.Connection, target: Item) -> None:
        if target is first:
            connection.execute(sa.update(Item.__table__).where(Item.id == 2).values(n=50, stamp=None))

    try:
        first.name, second.name = "1st", "2nd"
        session.commit()
    finally:
        event.remove(Item, "before_update", count)
    assert [entry for entry in story(session, Item, "id", "name", "n") if entry[2] == 2][1:] == [
        ("U", {"n": "1"}, 2, "second", 50),
        ("U", {"name": "second", "stamp": None}, 2, "2nd", 50),
    ]


def test_after_flush_hook_with_core_sql(session: Session) -> None:
    """Core SQL of an `after_flush` hook is a change of its own, after the flush's."""
    item = Item(name="a", n=1)
    session.add(item)
    session.commit()

    @event.listens_for(session, "after_flush")
    def count(session: Session, work: UOWTransaction) -> None:
        session.connection().execute(sa.update(Item.__table__).values(n=Item.n + 1, stamp=None))

    item.name = "b"
    session.commit()
    event.remove(session, "after_flush", count)
    assert story(session, Item, "name", "n")[1:] == [
        ("U", {"name": "a", "stamp": None}, "b", 1),
        ("U", {"n": "1", "stamp": "8"}, "b", 2),
    ]


def test_after_flush_postexec_hook_that_flushes(session: Session) -> None:
    """A hook that changes objects after the flush makes a second flush, recorded as such."""
    item = Item(name="a", n=1)
    session.add(item)
    session.commit()

    @event.listens_for(session, "after_flush_postexec")
    def follow(session: Session, work: UOWTransaction) -> None:
        if item.n == 1:
            item.n = 2

    item.name = "b"
    session.commit()
    event.remove(session, "after_flush_postexec", follow)
    assert [(row.op, row.values["name"], row.values["n"]) for row in rows_of(session, Item)] == [
        ("I", "a", 1),
        ("U", "b", 1),
        ("U", "b", 2),
    ]


def test_a_flush_inside_a_flush_of_another_session(session: Session, engine: sa.Engine) -> None:
    """A mapper event that flushes another session on the same connection: both are recorded, in their order."""
    item = Item(id=1, name="a", n=1)
    session.add(item)
    session.commit()

    @event.listens_for(Item, "after_update")
    def log(_mapper: Any, connection: sa.Connection, target: Item) -> None:
        with Session(connection) as other:
            other.add(Token(text="inner"))
            other.flush()

    try:
        item.name = "b"
        session.commit()
    finally:
        event.remove(Item, "after_update", log)
    assert ops(session, Item) == "IU"
    assert story(session, Token, "text") == [("I", None, "inner")]
    assert rows_of(session, Token)[0].tx == rows_of(session, Item)[1].tx


@pytest.mark.session_capture("triggers record it")
@pytest.mark.parametrize("work", ["flush", "core insert", "core update", "core delete"])
def test_a_listener_that_replaces_the_statement(engine: sa.Engine, work: str) -> None:
    """A user's `before_execute` listener that puts another statement in place of the recorded one is refused."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Item(id=1, name="a"))
        session.commit()
        statements = {
            "core insert": sa.insert(Item.__table__).values(id=2, name="b"),
            "core update": sa.update(Item.__table__).values(name="b"),
            "core delete": sa.delete(Item.__table__),
        }
        if work == "flush":
            session.add(Item(id=2, name="b"))
        with replacing(engine), pytest.raises(sa_audit.UnauditedWrite, match="before_execute listener replaced"):
            session.flush() if work == "flush" else session.execute(statements[work])
        session.rollback()
        assert session.scalars(sa.select(Item.name)).all() == ["a"]
    check(engine, Base.metadata)


@contextmanager
def replacing(engine: sa.Engine) -> Iterator[None]:
    """Have each DML statement replaced by a copy of it, after the library has seen it."""

    def replace(_connection: Any, element: Any, multiparams: Any, params: Any, _options: Any) -> Any:
        return (element._clone() if isinstance(element, sa.UpdateBase) else element), multiparams, params

    event.listen(engine, "before_execute", replace, retval=True)
    try:
        yield
    finally:
        event.remove(engine, "before_execute", replace)


def test_a_statement_that_failed_inside_the_flush(engine: sa.Engine) -> None:
    """A delete by key of a hook that fails and whose error is caught can't leave a record of what did not happen."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda driver, _record: driver.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Item(id=1, name="a"), Owner(id=1)])
        session.flush()
        session.add(Owned(id=1, owner_id=1))
        session.commit()
        item = session.get_one(Item, 1)

        @event.listens_for(Item, "after_update")
        def drop(_mapper: Any, connection: sa.Connection, target: Item) -> None:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.execute(sa.delete(Owner.__table__).where(Owner.id == sa.bindparam("key")), {"key": 1})

        try:
            item.name = "b"
            with contextlib.suppress(sa.exc.SQLAlchemyError, sa_audit.UnauditedWrite):
                session.commit()
            session.rollback()
        finally:
            event.remove(Item, "after_update", drop)
    check(engine, Base.metadata)


@pytest.mark.session_capture
@pytest.mark.parametrize("work", ["update", "delete"])
def test_a_listener_that_writes_the_rows_of_a_statement_that_has_begun(session: Session, work: str) -> None:
    """They have been read and not been changed yet: what either of the two did could not be told."""
    session.add_all([Item(id=1, name="a", n=1), Token(id=1, text="t")])
    session.commit()

    def write(connection: sa.Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool) -> None:
        if sql.startswith(("UPDATE item_hook", "DELETE FROM item_hook")) and not context.execution_options.get("own"):
            connection.execute(sa.update(Token).values(text="seen"))
            connection.execute(sa.update(Item.__table__).values(n=2), execution_options={"own": True})

    event.listen(session.get_bind(), "before_cursor_execute", write)
    try:
        item = session.get_one(Item, 1)
        if work == "update":
            item.name = "b"
        else:
            session.delete(item)
        with pytest.raises(sa_audit.UnauditedWrite, match="item_hook are written by an event listener"):
            session.commit()
    finally:
        event.remove(session.get_bind(), "before_cursor_execute", write)
    session.rollback()
    item = session.get_one(Item, 1)
    assert (item.name, item.n) == ("a", 1)
    item.name = "c"
    session.commit()
