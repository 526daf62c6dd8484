"""What a flush does through relationships: association rows, orphans, nulled keys, cycles, the database's cascades."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, backref, mapped_column, relationship

import sa_audit
from sa_audit import Audited
from sa_audit.model import audited_of
from tests.capture.recorded import check, ops, rows_of, statements, story, table_of, without_looks

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("person_id", sa.ForeignKey("person.id"), primary_key=True),
    sa.Column("team_id", sa.ForeignKey("team.id"), primary_key=True),
)
liking = sa.Table(  # without a primary key
    "liking",
    Base.metadata,
    sa.Column("person_id", sa.ForeignKey("person.id")),
    sa.Column("team_id", sa.ForeignKey("team.id")),
)


class Team(Base):
    __tablename__ = "team"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Person(Audited, Base):
    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    teams: Mapped[list[Team]] = relationship(secondary=membership, backref=backref("people"))
    likes: Mapped[list[Team]] = relationship(secondary=lambda: liking)


class Node(Audited, Base):
    __tablename__ = "node"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("node.id", ondelete="CASCADE"))
    favourite_id: Mapped[int | None] = mapped_column(sa.ForeignKey("node.id", name="fk_node_favourite"))
    children: Mapped[list[Node]] = relationship(
        foreign_keys=[parent_id], back_populates="parent", passive_deletes="all"
    )
    parent: Mapped[Node | None] = relationship(foreign_keys=[parent_id], remote_side=[id], back_populates="children")
    favourite: Mapped[Node | None] = relationship(foreign_keys=[favourite_id], remote_side=[id], post_update=True)


class Order(Audited, Base):
    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship(cascade="all, delete-orphan")
    notes: Mapped[list[Note]] = relationship()
    stamps: Mapped[list[Stamp]] = relationship(passive_deletes=True)


class Line(Audited, Base):
    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(50))
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("order.id"))


class Note(Audited, Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(sa.ForeignKey("order.id"))


class Stamp(Audited, Base):
    __tablename__ = "stamp"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(sa.String(50))
    order_id: Mapped[int | None] = mapped_column(sa.ForeignKey("order.id", ondelete="SET NULL"))


def create(engine: sa.Engine, *classes: Any) -> None:
    """Create these classes' tables, their histories and the trail's own."""
    tables = [table_of(entry) for entry in classes]
    audited = [audited_of(table) for table in tables]
    trail = next(entry.trail for entry in audited if entry is not None)
    histories = [entry.history for entry in audited if entry is not None]
    Base.metadata.create_all(engine, tables=[trail.transaction, trail.column, *tables, *histories])


@pytest.fixture
def enforced(engine: sa.Engine) -> None:
    """Have SQLite act on foreign keys, which the others always do."""

    def switch_on(driver: Any, _record: Any) -> None:
        cursor = driver.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", switch_on)


def verify(engine: sa.Engine, *classes: Any) -> None:
    """Check the trail of these classes against the live tables."""
    check(engine, Base.metadata, only=[table_of(entry) for entry in classes])


# -- many to many ------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["teams", "likes"])
def test_association_rows_come_and_go(engine: sa.Engine, attribute: str) -> None:
    """Rows of an association table are recorded as I and D, with a primary key or without one."""
    table = membership if attribute == "teams" else liking
    create(engine, Person, Team, table)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        red, blue = Team(id=1, name="red"), Team(id=2, name="blue")
        person = Person(id=1, name="p")
        getattr(person, attribute).append(red)
        session.add_all([person, red, blue])
        session.commit()
        setattr(person, attribute, [blue])
        session.commit()
        assert sorted(story(session, table, "person_id", "team_id")[1:]) == [("D", None, 1, 1), ("I", None, 1, 2)]
        assert ops(session, Person) == "I"
        getattr(person, attribute).clear()
        session.commit()
        assert story(session, table, "team_id")[-1] == ("D", None, 2)
        assert {row.actor for row in rows_of(session, table)} == {"alice"}
    verify(engine, Person, table)


def test_remove_and_add_again_in_one_transaction(engine: sa.Engine) -> None:
    """An association row that goes and comes back within one transaction has each step recorded."""
    create(engine, Person, Team, membership)
    with Session(engine) as session:
        person = Person(id=1, name="p", teams=[Team(id=1, name="red")])
        session.add(person)
        session.commit()
        team = person.teams[0]
        person.teams.remove(team)
        session.flush()
        person.teams.append(team)
        session.commit()
        assert ops(session, membership) == "IDI"
    verify(engine, Person, membership)


def test_association_changed_from_the_unaudited_side(engine: sa.Engine) -> None:
    """The backref's owner is not audited, but the association is."""
    create(engine, Person, Team, membership)
    with Session(engine) as session:
        team = Team(id=1, name="red")
        session.add_all([team, Person(id=1, name="a"), Person(id=2, name="b")])
        session.commit()
        team.people.extend(session.scalars(sa.select(Person)).all())  # type: ignore[attr-defined]
        session.commit()
        session.delete(team)
        session.commit()
        rows = rows_of(session, membership)
        assert "".join(row.op for row in rows) == "IIDD"
        assert {row.values["person_id"] for row in rows if row.op == "D"} == {1, 2}
    verify(engine, Person, membership)


def test_many_associations_cost_few_statements(engine: sa.Engine) -> None:
    """Clearing 80 links takes one statement for the transaction and two for the table."""
    create(engine, Person, Team, membership)
    with Session(engine) as session:
        person = Person(id=1, name="p", teams=[Team(id=i, name=str(i)) for i in range(1, 81)])
        session.add(person)
        session.commit()
        assert len(person.teams) == 80
        person.teams.clear()
        with statements(engine) as sent:
            session.commit()
        assert len([sql for sql in without_looks(sent) if "DELETE" not in sql.split()[0]]) <= 1 + 2, sent
    verify(engine, Person, membership)


# -- one to many -------------------------------------------------------------------------


def test_delete_orphan_children(engine: sa.Engine) -> None:
    """A child that is an orphan is in none of `new`, `dirty` and `deleted`, but its delete is recorded."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        order = Order(id=1, lines=[Line(id=1, text="a"), Line(id=2, text="b")])
        session.add(order)
        session.commit()
        order.lines.pop(0)
        session.commit()
        assert story(session, Line, "id", "text", "order_id")[-1] == ("D", None, 1, "a", 1)
        session.delete(order)
        session.commit()
        assert ops(session, Line) == "IIDD"
        assert ops(session, Order) == "ID"
    verify(engine, Order, Line)


def test_an_orphan_that_was_changed_before(engine: sa.Engine) -> None:
    """What a child was changed to before it became an orphan was never stored, and is not recorded."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        order = Order(id=1, lines=[Line(id=1, text="a")])
        session.add(order)
        session.commit()
        line = order.lines.pop()
        line.text = "never stored"
        session.commit()
        assert story(session, Line, "text") == [("I", None, "a"), ("D", None, "a")]
    verify(engine, Order, Line)


def test_nulled_foreign_keys(engine: sa.Engine) -> None:
    """Children whose foreign key the flush sets to NULL, loaded or not, are recorded as updates."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        session.add(Order(id=1, notes=[Note(id=1), Note(id=2)]))
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Order, 1))
        session.commit()
        assert story(session, Note, "order_id")[2:] == [("U", {"order_id": "1"}, None)] * 2
        assert ops(session, Order) == "ID"
    verify(engine, Order, Note)


def test_a_child_moves_to_another_parent(engine: sa.Engine) -> None:
    """Moving a child changes its foreign key, and nothing of the parents."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        first, second = Order(id=1, notes=[Note(id=1)]), Order(id=2)
        session.add_all([first, second])
        session.commit()
        second.notes.append(first.notes.pop())
        session.commit()
        assert story(session, Note, "order_id") == [("I", None, 1), ("U", {"order_id": "1"}, 2)]
        assert ops(session, Order) == "II"
    verify(engine, Order, Note)


# -- self-referential, cycles --------------------------------------------------------------


@pytest.mark.session_capture("a trigger sees each statement of a flush")
def test_post_update_cycle(engine: sa.Engine) -> None:
    """Rows that refer to each other are inserted and then updated by one flush: one change of each, as stored."""
    create(engine, Node)
    with Session(engine) as session:
        a, b = Node(id=1, name="a"), Node(id=2, name="b")
        a.favourite, b.favourite = b, a
        session.add_all([a, b])
        session.commit()
        assert story(session, Node, "id", "favourite_id") == [("I", None, 1, 2), ("I", None, 2, 1)]
    verify(engine, Node)


def test_post_update_before_a_delete(engine: sa.Engine) -> None:
    """A flush that sets a foreign key to NULL and then deletes the row leaves no gap between the two."""
    create(engine, Node)
    with Session(engine) as session:
        a, b = Node(id=1, name="a"), Node(id=2, name="b")
        a.favourite, b.favourite = b, a
        session.add_all([a, b])
        session.commit()
        session.delete(a)
        session.delete(b)
        session.commit()
        rows = rows_of(session, Node)
        assert sorted(row.values["id"] for row in rows if row.op == "D") == [1, 2]
    verify(engine, Node)


@pytest.mark.session_capture("a trigger sees each statement of a flush")
def test_update_and_post_update_of_one_row(engine: sa.Engine) -> None:
    """A row that one flush writes twice has one change, from what it was to what it is."""
    create(engine, Node)
    with Session(engine) as session:
        a, b = Node(id=1, name="a"), Node(id=2, name="b")
        session.add_all([a, b])
        session.commit()
        a.name, a.favourite = "A", b
        session.commit()
        assert [row.before for row in rows_of(session, Node) if row.op == "U"] == [{"name": "a", "favourite_id": None}]
    verify(engine, Node)


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
@pytest.mark.usefixtures("enforced")
def test_cascades_of_the_database(engine: sa.Engine) -> None:
    """Descendants that ON DELETE CASCADE removes, loaded by nobody, are recorded."""
    create(engine, Node)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add_all([Node(id=1), Node(id=2, parent_id=1), Node(id=3, parent_id=2), Node(id=4)])
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Node, 1))
        session.commit()
        gone = [(row.values["id"], row.actor) for row in rows_of(session, Node) if row.op == "D"]
        assert sorted(gone) == [(1, "alice"), (2, "alice"), (3, "alice")]
    verify(engine, Node)


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
@pytest.mark.usefixtures("enforced")
def test_a_child_changed_and_cascaded_by_one_flush(engine: sa.Engine) -> None:
    """A child that the flush updates, and that the parent's delete takes along: its update, then its delete."""
    create(engine, Node)
    with Session(engine) as session:
        session.add_all([Node(id=1, name="a"), Node(id=2, name="b", parent_id=1)])
        session.commit()
        parent, child = session.get_one(Node, 1), session.get_one(Node, 2)
        child.name = "B"
        session.delete(parent)
        session.flush()
        session.expunge_all()
        session.commit()
        assert [entry for entry in story(session, Node, "id", "name") if entry[2] == 2] == [
            ("I", None, 2, "b"),
            ("U", {"name": "b"}, 2, "B"),
            ("D", None, 2, "B"),
        ]
    verify(engine, Node)


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
@pytest.mark.usefixtures("enforced")
def test_a_child_inserted_and_cascaded_by_one_flush(engine: sa.Engine) -> None:
    """A child that the flush inserts under the parent that it deletes has a short life."""
    create(engine, Node)
    with Session(engine) as session:
        session.add(Node(id=1, name="a"))
        session.commit()
        session.add(Node(id=2, name="b", parent_id=1))
        session.delete(session.get_one(Node, 1))
        session.flush()
        session.expunge_all()
        session.commit()
        assert [entry for entry in story(session, Node, "id", "name") if entry[2] == 2] == [
            ("I", None, 2, "b"),
            ("D", None, 2, "b"),
        ]
    verify(engine, Node)


@pytest.mark.only_on("sqlite")
def test_cascades_that_sqlite_does_not_do(engine: sa.Engine) -> None:
    """Without PRAGMA foreign_keys nothing cascades, and nothing is recorded as cascaded."""
    create(engine, Node)
    with Session(engine) as session:
        session.add_all([Node(id=1), Node(id=2, parent_id=1)])
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Node, 1))
        session.commit()
        assert [row.values["id"] for row in rows_of(session, Node) if row.op == "D"] == [1]
    verify(engine, Node)


@pytest.mark.usefixtures("enforced")
def test_set_null_of_the_database(engine: sa.Engine) -> None:
    """ON DELETE SET NULL changes rows that the flush never saw; they are recorded."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        session.add(Order(id=1, stamps=[Stamp(id=1, text="a"), Stamp(id=2, text="b")]))
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Order, 1))
        session.commit()
        assert story(session, Stamp, "order_id")[2:] == [("U", {"order_id": "1"}, None)] * 2
    verify(engine, Order, Stamp)


@pytest.mark.usefixtures("enforced")
def test_a_row_changed_and_nulled_by_one_flush(engine: sa.Engine) -> None:
    """A row that the flush updates and that the database then changes: what is stored, and no gap."""
    create(engine, Order, Line, Note, Stamp)
    with Session(engine) as session:
        session.add(Order(id=1, stamps=[Stamp(id=1, text="a"), Stamp(id=2, text="b")]))
        session.commit()
        session.expunge_all()
        session.get_one(Stamp, 1).text = "A"
        session.delete(session.get_one(Order, 1))
        session.commit()
        last = [row for row in rows_of(session, Stamp) if row.values["id"] == 1][-1]
        assert (last.values["text"], last.values["order_id"]) == ("A", None)
    verify(engine, Order, Stamp)
