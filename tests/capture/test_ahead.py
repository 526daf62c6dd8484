"""What goes ahead of a statement in one round trip with it: where it may, and what is left when one of them fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import UnauditedWrite
from sa_audit.capture import ahead
from tests.capture.recorded import statements
from tests.capture.replay import assert_recorded
from tests.standing import Tables

pytestmark = [pytest.mark.both_captures(always=True), pytest.mark.only_on("postgresql")]


class Base(DeclarativeBase):
    """Declared once: the tests have tables of their own."""


class Till(sa_audit.Audited, Base):
    """What is changed."""

    __tablename__ = "till"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(20), unique=True)
    cash: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}


@pytest.fixture(name="made")
def _made(tables: Tables, engine: sa.Engine) -> sa.Engine:
    tables(engine, Base.metadata)
    with Session(engine) as session:
        session.add_all([Till(id=number, name=f"till {number}") for number in range(1, 4)])
        session.commit()
    return engine


@pytest.fixture(name="tills")
def _tills(made: sa.Engine) -> Iterator[sa.Engine]:
    yield made
    with Session(made) as session, sa_audit.context(actor="the last"):
        session.get_one(Till, 3).cash += 1
        session.commit()
        assert sa_audit.history(session, Till, 3)[-1].actor == "the last"
    assert_recorded(made, Base.metadata)


def test_one_round_trip(tills: sa.Engine) -> None:
    """Neither the reading of the row nor the telling of the actor is a statement that is waited for."""
    with statements(tills) as sent, sa_audit.context(actor="a"), Session(tills) as session:
        session.get_one(Till, 1).cash = 5
        session.commit()
    assert not [sql for sql in sent if "set_config" in sql or "FOR NO KEY UPDATE" in sql]
    with Session(tills) as session:
        last = sa_audit.history(session, Till, 1)[-1]
    assert (last.actor, last.diff["cash"]) == ("a", (0, 5))


def test_the_statement_fails(tills: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Its own error is raised, nothing else is said, and the savepoint and the connection are as good as before."""
    with caplog.at_level(logging.WARNING), sa_audit.context(actor="b"), Session(tills) as session:
        session.get_one(Till, 2).cash = 7
        session.flush()
        with pytest.raises(sa.exc.IntegrityError, match="unique"), session.begin_nested():
            session.get_one(Till, 1).name = "till 2"
        session.get_one(Till, 1).name = "another"
        session.commit()
        assert [change.diff for change in sa_audit.history(session, Till, 1)[1:]] == [
            {"name": ("till 1", "another"), "version": (1, 2)}
        ]
    assert caplog.records == []


@pytest.mark.session_capture
def test_the_reading_fails(tills: sa.Engine, make_engine: Callable[..., sa.Engine]) -> None:
    """A row that somebody else holds is waited for as long as the session says, and nothing is half done."""
    impatient = make_engine(connect_args={"options": "-c lock_timeout=50"})
    with Session(tills) as holder, Session(impatient) as session:
        holder.execute(sa.select(Till.id).where(Till.id == 1).with_for_update())
        session.get_one(Till, 1).cash = 9
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            session.flush()
        session.rollback()
        holder.rollback()
        session.get_one(Till, 1).cash = 9
        session.commit()


def test_the_connection_is_lost(tills: sa.Engine) -> None:
    """The pool makes another one."""
    with Session(tills) as session:
        till = session.get_one(Till, 1)
        with tills.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
            other.execute(sa.select(sa.func.pg_terminate_backend(pid)))
        till.cash = 1
        with pytest.raises(sa.exc.OperationalError):
            session.flush()
        session.rollback()
        session.get_one(Till, 1).cash = 2
        session.commit()


def test_many_rows(tills: sa.Engine) -> None:
    """What the driver executes many times, or with an expression, has the rows read before it all the same."""
    with Session(tills) as session:
        for till in session.scalars(sa.select(Till)):
            till.cash = till.id * 10
        session.flush()
        session.get_one(Till, 2).cash = sa.cast(Till.cash + 1, sa.Integer)
        session.commit()
        assert [change.state["cash"] for change in sa_audit.history(session, Till, 2)] == [0, 20, 21]


def test_a_cursor_that_fills_in_parameters(tills: sa.Engine, make_engine: Callable[..., sa.Engine]) -> None:
    """It sends text, which can't stand in a pipeline."""
    from psycopg import ClientCursor

    engine = make_engine(connect_args={"cursor_factory": ClientCursor})
    with sa_audit.context(actor="c"), Session(engine) as session:
        session.get_one(Till, 1).cash = 3
        session.commit()
        last = sa_audit.history(session, Till, 1)[-1]
    assert (last.actor, last.diff["cash"]) == ("c", (0, 3))


@pytest.mark.session_capture
def test_a_listener_that_executes_by_itself(tills: sa.Engine) -> None:
    """What went past the reading is refused, since nobody knows what the row was."""

    def execute(cursor: Any, sql: str, parameters: Any, context: Any) -> bool:
        if sql.startswith("UPDATE"):
            cursor.execute(sql, parameters)
            return True
        return False

    sa.event.remove(sa.Engine, "do_execute", ahead._do_execute)
    sa.event.listen(sa.Engine, "do_execute", execute)  # as if it had been there before the library was imported
    sa.event.listen(sa.Engine, "do_execute", ahead._do_execute, insert=True)
    try:
        with Session(tills) as session:
            session.get_one(Till, 1).cash = 5
            with pytest.raises(UnauditedWrite, match="do_execute"):
                session.flush()
    finally:
        sa.event.remove(sa.Engine, "do_execute", execute)
    with Session(tills) as session:
        assert session.get_one(Till, 1).cash == 0
