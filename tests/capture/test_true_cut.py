"""Whoever holds all audited tables still and reads the clock sees what the past shows at that clock."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited

pytestmark = [pytest.mark.only_on("postgresql"), pytest.mark.every_server]


class Base(DeclarativeBase):
    """The models of this file."""


class Parent(Audited, Base):
    """What others refer to."""

    __tablename__ = "cut_parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))


class Child(Audited, Base):
    """What goes with its parent."""

    __tablename__ = "cut_child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(sa.ForeignKey("cut_parent.id", ondelete="CASCADE"))


def insert(session: Session) -> None:
    """Insert by the unit of work."""
    session.add(Parent(id=5000, name="new"))


def update(session: Session) -> None:
    """Update by the unit of work."""
    session.get_one(Parent, 1).name = "changed"


def delete(session: Session) -> None:
    """Delete by the unit of work."""
    session.delete(session.get_one(Parent, 2000))


def delete_with_children(session: Session) -> None:
    """Delete a row that takes others with it."""
    session.delete(session.get_one(Parent, 1))


def move(session: Session) -> None:
    """Change a key by the unit of work."""
    session.get_one(Parent, 2000).id = 5000


def core_delete(session: Session) -> None:
    """Delete by a statement."""
    session.execute(sa.delete(Parent).where(Parent.id == 2000))


def core_move(session: Session) -> None:
    """Change a key by a statement."""
    session.execute(sa.update(Parent).where(Parent.id == 2000).values(id=5000))


def bulk_delete(session: Session) -> None:
    """Delete more rows than go through Python."""
    session.execute(sa.delete(Child))


CHANGES: list[Callable[[Session], None]] = [
    *(insert, update, delete, delete_with_children, move),
    *(core_delete, core_move, bulk_delete),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_past_is_what_share_locks_showed(engine: sa.Engine, change: Callable[[Session], None]) -> None:
    """A change that waits for SHARE locks on the audited tables is dated after the clock that their holder reads."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(Parent), [{"id": number, "name": "p"} for number in range(1, 2001)])
        connection.execute(sa.insert(Child), [{"id": number, "parent_id": 1} for number in range(1, 1501)])
    holder = engine.connect()
    holder.execute(sa.text("LOCK TABLE cut_parent, cut_child IN SHARE MODE"))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with Session(engine) as session:
                change(session)
                session.commit()
        except Exception as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    _wait_for_lock(engine)
    now = holder.scalar(sa.select(sa.func.clock_timestamp()))
    assert isinstance(now, dt.datetime)
    seen = [holder.execute(query).all() for query in _queries()]
    holder.close()
    writer.join(20)
    assert not writer.is_alive()
    assert not failures
    with sa_audit.as_of(engine, now) as past:
        assert [past.execute(query).all() for query in _queries()] == seen
    with engine.connect() as connection:
        assert [connection.execute(query).all() for query in _queries()] != seen


def _queries() -> list[sa.Select[tuple[int, ...]]]:
    return [sa.select(Parent.id, Parent.name).order_by(Parent.id), sa.select(Child.id).order_by(Child.id)]  # type: ignore[list-item]


def _wait_for_lock(engine: sa.Engine) -> None:
    """Wait until the writer waits for a table."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
    for _attempt in range(400):
        with engine.connect() as connection:
            if connection.scalar(waiting):
                return
        time.sleep(0.02)
    raise AssertionError("the writer did not wait for the locks")
