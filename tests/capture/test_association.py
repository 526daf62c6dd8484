"""Association tables and plain Core tables, written by Core with no flush before."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sa_audit
from sa_audit import Audited
from tests.capture.conftest import Standing
from tests.capture.recorded import behind_the_back
from tests.capture.replay import assert_recorded, history_of

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


member = sa.Table(
    "member",
    Base.metadata,
    sa.Column("team_id", sa.ForeignKey("team.id"), primary_key=True),
    sa.Column("person_id", sa.ForeignKey("person.id"), primary_key=True),
)
fan = sa.Table(  # without a primary key, so nothing keeps two rows apart but that nobody makes them alike
    "fan",
    Base.metadata,
    sa.Column("team_id", sa.ForeignKey("team.id")),
    sa.Column("person_id", sa.ForeignKey("person.id")),
    sa.Column("since", sa.Integer),
)


class Person(Audited, Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)


class Team(Audited, Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list[Person]] = relationship(secondary=member)
    fans: Mapped[list[Person]] = relationship(secondary=fan)


def _fill(session: Session) -> None:
    session.connection().execute(sa.insert(Person.__table__), [{"id": i} for i in range(1, 4)])
    session.connection().execute(sa.insert(Team.__table__), [{"id": i} for i in range(1, 3)])


@pytest.fixture
def session(standing: Standing) -> Any:
    """A session in which everything is recorded when the test is over, and then rolled back."""
    engine = standing.make(Base.metadata, fill=_fill)
    standing.untouched = False
    with sa_audit.context(actor="alice"), Session(engine) as session:
        yield session
        session.flush()
        assert_recorded(session.connection(), Base.metadata)
        session.rollback()
    standing.untouched = True


def _ops(session: Session, table: sa.Table) -> list[tuple[str, tuple[Any, ...]]]:
    return [(row.op, row.key) for row in history_of(session.connection(), table)]


@pytest.mark.parametrize("way", ["connection", "session"])
def test_insert_and_delete(session: Session, way: str) -> None:
    """A Core INSERT and DELETE on an association table are recorded, with no flush before."""
    execute: Any = session.execute if way == "session" else session.connection().execute
    execute(sa.insert(member), [{"team_id": 1, "person_id": i} for i in (1, 2, 3)])
    execute(sa.insert(member).values(team_id=2, person_id=1))
    execute(
        sa.insert(member).from_select(
            ["team_id", "person_id"], sa.select(sa.literal(2), Person.id).where(Person.id > 1)
        )
    )
    execute(sa.delete(member).where(member.c.person_id == 2))
    assert [op for op, _key in _ops(session, member)] == ["I"] * 6 + ["D"] * 2
    assert {key for op, key in _ops(session, member) if op == "D"} == {(1, 2), (2, 2)}


def test_update_of_a_member(session: Session) -> None:
    """A changed association is a D and an I."""
    session.execute(sa.insert(member).values(team_id=1, person_id=1))
    session.execute(sa.update(member).values(person_id=2))
    assert _ops(session, member) == [("I", (1, 1)), ("D", (1, 1)), ("I", (1, 2))]


def test_relationship_after_core(session: Session) -> None:
    """A relationship that removes and adds what Core wrote is recorded in the same history."""
    session.execute(sa.insert(member).values(team_id=1, person_id=1))
    team = session.get_one(Team, 1)
    team.members.remove(session.get_one(Person, 1))
    session.flush()
    team.members.append(session.get_one(Person, 1))
    session.flush()
    assert _ops(session, member) == [("I", (1, 1)), ("D", (1, 1)), ("I", (1, 1))]


def test_without_primary_key(session: Session) -> None:
    """Rows of a table without primary key are known by their foreign keys."""
    session.execute(sa.insert(fan), [{"team_id": 1, "person_id": i, "since": 2000} for i in (1, 2)])
    session.execute(sa.insert(fan).values(team_id=2, person_id=3))
    session.execute(sa.delete(fan).where(fan.c.person_id == 2))
    assert _ops(session, fan) == [("I", (1, 1)), ("I", (1, 2)), ("I", (2, 3)), ("D", (1, 2))]


ALIKE = "fan has no primary key, and several rows with the same"
EQUAL_ROWS: dict[str, tuple[Any, Any]] = {
    "insert": (sa.insert(fan), [{"team_id": 1, "person_id": 1, "since": n} for n in (3, 4)]),
    "update": (sa.update(fan).where(fan.c.since == 2).values(since=5), None),
    "delete": (sa.delete(fan).where(fan.c.since == 2), None),
    "delete by key": (
        sa.delete(fan).where(fan.c.team_id == sa.bindparam("team"), fan.c.person_id == sa.bindparam("person")),
        [{"team": 1, "person": 1}],
    ),
}


@pytest.mark.session_capture("a trigger records each of them")
@pytest.mark.parametrize("statement", EQUAL_ROWS)
def test_equal_rows_without_primary_key(standing: Standing, statement: str) -> None:
    """Rows that can't be told apart are not recorded one for the other: the write is refused, and nothing is left."""
    engine = standing.make(Base.metadata, fill=_fill)
    standing.untouched = False
    with engine.begin() as connection:
        connection.execute(sa.insert(fan).values(team_id=1, person_id=1, since=1))
    if statement != "insert":
        behind_the_back(engine, "INSERT INTO fan (team_id, person_id, since) VALUES (1, 1, 2)")
    with engine.connect() as connection:
        stored = connection.execute(sa.select(fan).order_by(fan.c.since)).all()
    with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match=ALIKE):
        connection.execute(*EQUAL_ROWS[statement])
    with engine.connect() as connection:
        assert connection.execute(sa.select(fan).order_by(fan.c.since)).all() == stored
    assert "".join(row.op for row in history_of(engine, fan)) == "I"


@pytest.mark.session_capture("a trigger records each of them")
def test_a_row_that_equals_one_without_primary_key(standing: Standing) -> None:
    """A second row like one that is there is refused, and the message says what may be the matter."""
    engine = standing.make(Base.metadata, fill=_fill)
    standing.untouched = False
    with engine.begin() as connection:
        connection.execute(sa.insert(fan).values(team_id=1, person_id=1, since=1))
    with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match="has no primary key"):
        connection.execute(sa.insert(fan).values(team_id=1, person_id=1, since=2))
    assert "".join(row.op for row in history_of(engine, fan)) == "I"


def test_core_table_without_models(session: Session, standing: Standing) -> None:
    """A plain table that was given to track(), in a MetaData of its own, is recorded on a Core connection."""
    metadata = sa.MetaData()
    table = sa.Table("plain", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    sa_audit.track(table)
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"n": i} for i in range(3)])
        connection.execute(sa.update(table).where(table.c.n == 1).values(n=5))
        connection.execute(sa.delete(table).where(table.c.n == 2))
    assert_recorded(engine, metadata)
    assert "".join(row.op for row in history_of(engine, table)) == "IIIUD"
    engine.dispose()
