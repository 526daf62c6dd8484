"""What can't be recorded is refused, and catching the refusal can't keep the change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import behind_the_back, check, entries_of, ops, story
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


def names(session: Session) -> list[str | None]:
    """Give the names that are stored now."""
    return list(session.scalars(sa.select(Item.__table__.c.name).order_by(Item.__table__.c.id)))


def test_require_actor_and_reason(engine: sa.Engine) -> None:
    """A change with no actor, or no reason, is refused before anything is written; one with both passes."""

    class Strict(DeclarativeBase):
        pass

    sa_audit.configure(Strict, require_actor=True, require_reason=True)

    class Row(Audited, Strict):
        __tablename__ = "strict_row"

        id: Mapped[int] = mapped_column(primary_key=True)

    Strict.metadata.create_all(engine)
    for missing, given in (
        (sa_audit.ActorRequired, {"reason": "why"}),
        (sa_audit.ReasonRequired, {"actor": "who"}),
        (sa_audit.ActorRequired, {"actor": "", "reason": "why"}),
    ):
        with Session(engine) as session:
            session.add(Row(id=1))
            try:
                scope = sa_audit.context(**given)
            except sa_audit.AuditError:
                continue
            with scope, pytest.raises(missing):
                session.commit()
        with engine.begin() as connection, sa_audit.context(**given), pytest.raises(missing):
            connection.execute(sa.insert(Row.__table__).values(id=1))
        with engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(Row)) == 0
    with sa_audit.context(actor="who", reason="why"), Session(engine) as session:
        session.add(Row(id=1))
        session.commit()
    assert ops(engine, Row) == "I"


@pytest.mark.parametrize("where", ["engine", "connection"])
def test_autocommit_is_refused(engine: sa.Engine, make_engine: Make, where: str) -> None:
    """In AUTOCOMMIT a change could be kept without its record, so it is refused before it runs."""
    Base.metadata.create_all(engine)
    if where == "engine":
        automatic = make_engine(isolation_level="AUTOCOMMIT")
    else:
        automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    table = Item.__table__
    for statement in (sa.insert(table).values(id=1, name="a"), sa.update(table).values(name="b"), sa.delete(table)):
        with automatic.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match="AUTOCOMMIT"):
            connection.execute(statement)
    with Session(automatic) as session:
        session.add(Item(id=1, name="a"))
        with pytest.raises(sa_audit.UnauditedWrite, match="AUTOCOMMIT"):
            session.commit()
    with Session(engine) as session:
        assert names(session) == []
    assert ops(engine, Item) == ""


def test_commit_as_you_go(engine: sa.Engine) -> None:
    """A Core connection whose transaction the audited statement itself begins, again and again."""
    Base.metadata.create_all(engine)
    table = Item.__table__
    with engine.connect() as connection:
        connection.execute(sa.insert(table).values(id=1, name="a"))
        connection.commit()
        connection.execute(sa.update(table).values(name="b"))
        connection.commit()
        connection.execute(sa.update(table).values(name="gone"))
        connection.rollback()
        connection.execute(sa.delete(table))
        connection.commit()
    assert story(engine, Item, "name") == [("I", None, "a"), ("U", {"name": "a"}, "b"), ("D", None, "b")]
    assert len(entries_of(engine, Base)) == 3


@pytest.mark.parametrize("missing", ["item_tx_history", "audit_transaction"])
@pytest.mark.parametrize("work", ["insert", "update", "delete", "core"])
def test_a_missing_trail_is_named(engine: sa.Engine, missing: str, work: str) -> None:
    """A forgotten migration raises `CaptureMissing`; the change is gone, and catching the error can't keep it."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Item(id=1, name="a"))
        session.commit()
        behind_the_back(engine, f"DROP TABLE {missing}")
        item = session.get_one(Item, 1)
        if work == "insert":
            session.add(Item(id=2, name="b"))
        elif work == "update":
            item.name = "b"
        elif work == "delete":
            session.delete(item)
        with pytest.raises(sa_audit.CaptureMissing, match=missing):
            session.execute(sa.insert(Item.__table__).values(id=3)) if work == "core" else session.flush()
        with pytest.raises(sa.exc.SQLAlchemyError):
            session.execute(sa.select(1))
        session.rollback()
        assert names(session) == ["a"]


def test_catching_the_error_cant_keep_the_change(engine: sa.Engine) -> None:
    """When recording fails after the change, the whole transaction is gone; going on with it is an error."""
    Base.metadata.create_all(engine)
    behind_the_back(engine, "DROP TABLE item_tx_history")
    table = Item.__table__
    with engine.connect() as connection:
        with pytest.raises(sa_audit.CaptureMissing):
            connection.execute(sa.insert(table).values(id=1, name="unrecorded"))
        with pytest.raises(sa.exc.InvalidRequestError):
            connection.execute(sa.select(table))
        with pytest.raises(sa.exc.InvalidRequestError):
            connection.commit()
        connection.rollback()
        assert connection.scalars(sa.select(table.c.id)).all() == []


def test_a_failed_record_inside_a_savepoint_ends_the_root(engine: sa.Engine) -> None:
    """A savepoint around the failing change does not save the transaction."""
    Base.metadata.create_all(engine)
    behind_the_back(engine, "DROP TABLE item_tx_history")
    with Session(engine) as session:
        session.begin()
        with pytest.raises(sa_audit.CaptureMissing), session.begin_nested():  # noqa: PT012 (what the block does before it fails is the test)
            session.add(Item(id=1, name="unrecorded"))
            session.flush()
        with pytest.raises(sa.exc.SQLAlchemyError):
            session.execute(sa.select(1))
        session.rollback()
        assert names(session) == []


@pytest.mark.session_capture("triggers record what is refused there")
def test_the_session_is_usable_after_a_refusal(session: Session) -> None:
    """After a refused change and a rollback, the next change is recorded as ever."""
    session.add(Item(id=1, name="a"))
    session.commit()
    item = session.get_one(Item, 1)
    item.id = Item.id + 1
    with pytest.raises(sa_audit.UnauditedWrite):
        session.flush()
    session.rollback()
    item.name = "b"
    session.commit()
    assert story(session, Item, "name") == [("I", None, "a"), ("U", {"name": "a"}, "b")]
