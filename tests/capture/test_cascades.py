"""What the database does by itself through foreign keys is recorded like what the statement does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded, history_of

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


def _key(target: str, **options: Any) -> Any:
    return mapped_column(sa.ForeignKey(target, **options))


class Owner(Audited, Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(sa.String(10), unique=True)


class House(Audited, Base):  # goes with its owner
    __tablename__ = "house"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = _key("owner.id", ondelete="cascade")
    agent_id: Mapped[int | None] = _key("owner.id", ondelete="SET NULL")
    keeper_id: Mapped[int | None] = _key("owner.id", ondelete="SET NULL")


class Room(Audited, Base):  # goes with its house; its code follows the owner's
    __tablename__ = "room"
    id: Mapped[int] = mapped_column(primary_key=True)
    house_id: Mapped[int | None] = _key("house.id", ondelete="CASCADE")
    code: Mapped[str | None] = mapped_column(
        sa.String(10), sa.ForeignKey("owner.code", onupdate="CASCADE", ondelete="SET NULL"), unique=True
    )


class Chair(Audited, Base):  # its code follows the room's, which follows the owner's
    __tablename__ = "chair"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(
        sa.String(10), sa.ForeignKey("room.code", onupdate="CASCADE", ondelete="SET NULL")
    )
    note: Mapped[str | None] = mapped_column(sa.String(10))


class Garden(Base):  # not audited, between an owner and his trees
    __tablename__ = "garden"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = _key("owner.id", ondelete="CASCADE")


class Tree(Audited, Base):
    __tablename__ = "tree"
    id: Mapped[int] = mapped_column(primary_key=True)
    garden_id: Mapped[int | None] = _key("garden.id", ondelete="CASCADE", onupdate="CASCADE")
    other_id: Mapped[int | None] = _key("garden.id", ondelete="SET NULL")


class Node(Audited, Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = _key("node.id", ondelete="CASCADE")
    name: Mapped[str | None] = mapped_column(sa.String(10), unique=True)
    like: Mapped[str | None] = mapped_column(
        sa.String(10), sa.ForeignKey("node.name", onupdate="CASCADE", ondelete="SET NULL")
    )


membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("owner_id", sa.ForeignKey("owner.id", ondelete="CASCADE")),
    sa.Column("garden_id", sa.ForeignKey("garden.id", ondelete="CASCADE")),
)
sa_audit.track(membership)


def _fill(session: Session) -> None:
    execute = session.connection().execute

    def put(table: Any, *rows: dict[str, Any]) -> None:
        execute(sa.insert(getattr(table, "__table__", table)), list(rows))

    put(Owner, *({"id": i, "code": f"c{i}"} for i in (1, 2, 3)))
    put(
        House,
        {"id": 1, "owner_id": 1, "agent_id": 2, "keeper_id": 2},
        {"id": 2, "owner_id": 1, "agent_id": 1, "keeper_id": 3},
        {"id": 3, "owner_id": 2, "agent_id": 1, "keeper_id": 1},
    )
    put(
        Room,
        *({"id": i, "house_id": house, "code": code} for i, house, code in [(1, 1, "c3"), (2, 3, "c1"), (3, 2, None)]),
    )
    put(Chair, {"id": 1, "code": "c3", "note": "a"}, {"id": 2, "code": "c1", "note": "b"})
    put(Garden, {"id": 1, "owner_id": 1}, {"id": 2, "owner_id": 2})
    put(
        Tree, *({"id": i, "garden_id": g, "other_id": o} for i, g, o in [(1, 1, 2), (2, 2, 1), (3, 2, 2), (4, None, 1)])
    )
    for i, parent, like in [(1, None, None), (2, 1, None), (3, 2, "n1"), (4, 3, "n1"), (5, None, "n2"), (6, 5, "n1")]:
        put(Node, {"id": i, "parent_id": parent, "name": f"n{i}", "like": like})
    put(membership, {"owner_id": 1, "garden_id": 2}, {"owner_id": 2, "garden_id": 1}, {"owner_id": 1, "garden_id": 1})


@pytest.fixture
def session(standing: Standing) -> Any:
    """A session with foreign keys on, in which everything is recorded when the test is over, and then rolled back."""
    engine = standing.make(Base.metadata, fill=_fill)
    standing.untouched = False
    with engine.connect() as connection:
        if standing.database.dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.commit()
        with sa_audit.context(actor="alice"), Session(connection) as session:
            yield session
            session.flush()
            assert_recorded(session.connection(), Base.metadata)
            session.rollback()
        if standing.database.dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
    standing.untouched = True


def _ops(session: Session, table: Any) -> str:
    """Give what alice did to a table: the operations in their order of keys."""
    rows = [row for row in history_of(session.connection(), table) if row.actor == "alice"]
    return " ".join(f"{row.op}{'.'.join(map(str, row.key))}" for row in sorted(rows, key=lambda row: row.key))


DELETES: dict[str, Callable[[Session], Any]] = {
    "core": lambda s: s.connection().execute(sa.delete(Owner.__table__).where(Owner.id == 1)),
    "core, many": lambda s: s.connection().execute(
        sa.delete(Owner.__table__).where(Owner.id == sa.bindparam("i")), [{"i": 1}, {"i": 99}]
    ),
    "orm": lambda s: s.execute(sa.delete(Owner).where(Owner.id == 1)),
    "flush": lambda s: (s.delete(s.get_one(Owner, 1)), s.flush()),
}


@pytest.mark.session_capture("a trigger sees each foreign key's own change")
@pytest.mark.parametrize("way", DELETES)
def test_delete_reaches_all(session: Session, way: str) -> None:
    """A DELETE is followed to all its ends, also through a table that is not audited, and each row is recorded once."""
    DELETES[way](session)
    assert _ops(session, Owner) == "D1"
    assert _ops(session, House) == "D1 D2 U3"
    assert _ops(session, Room) == "D1 U2 D3"
    assert _ops(session, Chair) == "U1 U2"
    assert _ops(session, Tree) == "D1 U2 U4"
    assert _ops(session, membership) == "D1.1 D1.2 D2.1"


@pytest.mark.session_capture("a trigger sees each foreign key's own change")
def test_children_of_what_goes(session: Session) -> None:
    """A row that refers twice to what goes is one change."""
    session.execute(sa.delete(Owner).where(Owner.id == 2))
    changes = [row for row in history_of(session.connection(), House) if row.actor == "alice" and row.op == "U"]
    assert [row.before for row in changes] == [{"agent_id": 2, "keeper_id": 2}]


@pytest.mark.session_capture("a trigger sees each foreign key's own change")
@pytest.mark.parametrize("way", ["core", "flush"])
def test_self_reference(session: Session, way: str) -> None:
    """A tree goes with its root, to any depth."""
    if way == "core":
        session.execute(sa.delete(Node).where(Node.id == 1))
    else:
        session.delete(session.get_one(Node, 1))
        session.flush()
    assert _ops(session, Node) == "D1 D2 D3 D4 U5 U6"


@pytest.mark.session_capture("a trigger sees each foreign key's own change")
def test_parent_and_child_in_one_statement(session: Session) -> None:
    """A DELETE that names a row and one that goes with it anyway records each once."""
    session.execute(sa.delete(Node).where(Node.id.in_([1, 2, 5])))
    assert _ops(session, Node) == "D1 D2 D3 D4 D5 D6"


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
@pytest.mark.parametrize("way", ["core", "orm", "flush", "executemany"])
def test_update_of_a_referred_column(session: Session, way: str) -> None:
    """ON UPDATE CASCADE is followed from table to table, from a column that is no key."""
    if way == "core":
        session.connection().execute(sa.update(Owner.__table__).where(Owner.id == 1).values(code="x"))
    elif way == "orm":
        session.execute(sa.update(Owner).where(Owner.id == 1).values(code="x"))
    elif way == "flush":
        session.get_one(Owner, 1).code = "x"
        session.flush()
    else:
        statement = sa.update(Owner.__table__).where(Owner.id == sa.bindparam("i"))
        session.connection().execute(statement.values(code=sa.bindparam("c")), [{"i": 1, "c": "x"}, {"i": 2, "c": "y"}])
    assert _ops(session, Owner) == ("U1" if way != "executemany" else "U1 U2")
    assert _ops(session, Room) == "U2"
    assert _ops(session, Chair) == "U2"


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
def test_update_of_parent_and_child_in_one_flush(session: Session) -> None:
    """A child that the flush changes after the database did has both changes."""
    session.get_one(Owner, 1).code = "x"
    session.get_one(Chair, 2).note = "new"
    session.get_one(Chair, 1).note = "too"
    session.flush()
    assert sorted(_ops(session, Chair).split()) == ["U1", "U2", "U2"]


@pytest.mark.session_capture("a trigger sees each foreign key's own change")
@pytest.mark.only_on("postgresql", "sqlite")
def test_update_of_a_referred_column_in_the_same_table(session: Session) -> None:
    """A row that the statement changes, and the database as well, is one change."""
    session.execute(sa.update(Node).values(name=Node.name + "x"))
    assert _ops(session, Node) == "U1 U2 U3 U4 U5 U6"


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do unseen", on="mariadb")
def test_key_that_would_take_others_along(session: Session) -> None:
    """A new key of a row that others refer to by ON UPDATE CASCADE is recorded with them."""
    session.connection().execute(sa.delete(membership))
    session.connection().execute(sa.update(Tree.__table__).values(other_id=None))
    session.connection().execute(sa.update(Garden.__table__).where(Garden.id == 2).values(id=20))
    moved = [row for row in history_of(session.connection(), Tree) if row.before == {"garden_id": 2}]
    assert [row.key for row in moved] == [(2,), (3,)]


UNAUDITED: dict[str, Callable[[Session], Any]] = {
    "core": lambda s: s.connection().execute(sa.delete(Garden.__table__).where(Garden.id == 1)),
    "core, many": lambda s: s.connection().execute(
        sa.delete(Garden.__table__).where(Garden.owner_id == sa.bindparam("o")), [{"o": 1}, {"o": 99}]
    ),
    "core, by key": lambda s: s.connection().execute(
        sa.delete(Garden.__table__).where(Garden.id == sa.bindparam("o")), [{"o": 1}, {"o": 99}]
    ),
    "orm": lambda s: s.execute(sa.delete(Garden).where(Garden.owner_id == 1)),
    "flush": lambda s: (s.delete(s.get_one(Garden, 1)), s.flush()),
}


@pytest.mark.parametrize("way", UNAUDITED)
def test_delete_of_an_unaudited_parent(session: Session, way: str) -> None:
    """Rows that go with a row which is not audited itself are recorded."""
    UNAUDITED[way](session)
    assert _ops(session, Tree) == "D1 U2 U4"
    assert _ops(session, membership) == "D1.1 D2.1"


def test_foreign_keys_off(standing: Standing) -> None:
    """Where SQLite does not act on foreign keys, nothing is recorded of rows that stay."""
    if standing.database.dialect != "sqlite":
        pytest.skip("only SQLite can be told not to act on foreign keys")
    engine = standing.make(Base.metadata, fill=_fill)
    standing.untouched = False
    with Session(engine) as session:
        session.execute(sa.delete(Owner).where(Owner.id == 1))
        session.execute(sa.delete(Garden).where(Garden.id == 1))
        assert_recorded(session.connection(), Base.metadata)
        assert _ops(session, House) == ""
        session.rollback()
    standing.untouched = True


@pytest.fixture
def strict(engine: Engine) -> Engine:
    """An engine on which SQLite acts on foreign keys, too."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _record: driver.execute("PRAGMA foreign_keys = ON"))
    return engine


@pytest.mark.session_capture("triggers record it")
def test_foreign_key_of_the_database_only(strict: Engine) -> None:
    """A row that the model says goes with its parent, and the database keeps, stops the statement."""
    metadata = sa.MetaData()
    parent = sa.Table("parent", metadata, sa.Column("id", sa.Integer, primary_key=True))
    child = sa.Table(
        "child", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("parent_id", sa.Integer)
    )
    sa_audit.track(parent)
    sa_audit.track(child)
    metadata.create_all(strict)
    child.append_constraint(sa.ForeignKeyConstraint(["parent_id"], ["parent.id"], ondelete="CASCADE"))
    metadata.info.pop("sa_audit.referring", None)
    with strict.begin() as connection:
        connection.execute(sa.insert(parent), {"id": 1})
        connection.execute(sa.insert(child), {"id": 1, "parent_id": 1})
    with strict.connect() as connection:
        with pytest.raises(sa_audit.UnauditedWrite, match="not the one of the model"):
            connection.execute(sa.delete(parent))
        connection.rollback()
        assert_recorded(connection, metadata)


@pytest.mark.parametrize("savepoint", [True, False])
@pytest.mark.parametrize("way", ["key", "delete", "parent", "many"])
def test_refused_by_the_database(strict: Engine, way: str, savepoint: bool) -> None:
    """A DELETE or key change that a foreign key forbids leaves nothing in the history, whoever catches its error."""
    metadata = sa.MetaData()
    parent = sa.Table("parent", metadata, sa.Column("id", sa.Integer, primary_key=True))
    middle = sa.Table(
        "middle", metadata, sa.Column("id", sa.ForeignKey("parent.id", ondelete="CASCADE"), primary_key=True)
    )
    child = sa.Table(
        "child",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("middle_id", sa.ForeignKey("middle.id")),
    )
    for table in (middle, child) if way == "parent" else (parent, middle, child):
        sa_audit.track(table)
    metadata.create_all(strict)
    rows = [{"id": i} for i in range(1, 1200 if way == "many" else 3)]
    with strict.begin() as connection:
        connection.execute(sa.insert(parent), rows)
        connection.execute(sa.insert(middle), rows)
        connection.execute(sa.insert(child), {"id": 1, "middle_id": 2})
    statement = sa.update(middle).where(middle.c.id == 2).values(id=1) if way == "key" else sa.delete(middle)
    if way == "parent":
        statement = sa.delete(parent)
    with sa_audit.context(actor="bob"), strict.connect() as connection:
        with pytest.raises(sa.exc.DBAPIError), connection.begin_nested() if savepoint else nullcontext():
            connection.execute(statement)
        if savepoint or strict.dialect.name != "postgresql":
            connection.execute(sa.insert(child), {"id": 2, "middle_id": 1})
        connection.commit()
    assert_recorded(strict, metadata)
    bobs = [
        row.op
        for table in metadata.sorted_tables
        if table in (middle, child)
        for row in history_of(strict, table)
        if row.actor == "bob"
    ]
    assert bobs == (["I"] if savepoint or strict.dialect.name != "postgresql" else [])
