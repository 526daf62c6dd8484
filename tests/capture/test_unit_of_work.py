"""What a flush inserts, updates and deletes is recorded as it is stored, whatever made the values."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.capture.clock import simulated
from sa_audit.query import history
from tests.capture.recorded import check, entries_of, ops, rows_of, statements, story, without_looks
from tests.standing import Tables

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


class Item(Audited, Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    n: Mapped[int | None]
    stamp: Mapped[int | None] = mapped_column(onupdate=sa.text("7 + 1"))


class Doubled(Audited, Base):
    __tablename__ = "doubled"

    id: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    n: Mapped[int]
    twice: Mapped[int] = mapped_column(sa.Computed("n * 2", persisted=True))
    kind: Mapped[str] = mapped_column(sa.String(20), server_default="plain")
    note: Mapped[str | None] = mapped_column(sa.String(20), server_default="none yet")


class Token(Audited, Base):
    __tablename__ = "token"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    text: Mapped[str] = mapped_column(sa.Text)


@pytest.fixture
def session(engine: sa.Engine, tables: Tables) -> Any:
    """A session on the tables of this module; at the end the trail is checked against them."""
    tables(engine, Base.metadata)
    with Session(engine) as session:
        yield session
    check(engine, Base.metadata)


def test_insert_update_delete(session: Session) -> None:
    """The three operations, each with the row after, and an update with what it replaced."""
    with sa_audit.context(actor="alice"):
        item = Item(name="a", n=1)
        session.add(item)
        session.commit()
        item.name = "b"
        session.commit()
    with sa_audit.context(actor="bob"):
        session.delete(item)
        session.commit()
    assert story(session, Item, "name", "n") == [
        ("I", None, "a", 1),
        ("U", {"name": "a", "stamp": None}, "b", 1),
        ("D", None, "b", 1),
    ]
    assert [row.actor for row in rows_of(session, Item)] == ["alice", "alice", "bob"]
    assert len({row.tx for row in rows_of(session, Item)}) == 3


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("microsecond", [0, 1, 120, 999999])
def test_any_microsecond_is_a_moment(session: Session, microsecond: int) -> None:
    """On SQLite, whose clock is the process's, entry and history rows write the same moment in the same form."""
    moment = dt.datetime(2026, 3, 31, 23, 59, 59, microsecond, tzinfo=dt.UTC)
    with simulated(lambda: moment):
        session.add(Item(id=1, name="a"))
        session.commit()
        session.get_one(Item, 1).name = "b"
        session.flush()
        session.get_one(Item, 1).name = "c"
        session.commit()
    assert {row.at for row in rows_of(session, Item)} == {moment}
    assert ops(session, Item) == "IUU"


@pytest.mark.only_on("sqlite")
def test_a_clock_that_goes_backwards(session: Session) -> None:
    """An entry is never dated before the newest one, whatever the process's clock says."""
    noon = dt.datetime(2026, 3, 31, 12, tzinfo=dt.UTC)
    for number, hours in enumerate((0, -3, -1, 2), start=1):
        moment = noon + dt.timedelta(hours=hours)
        with simulated(lambda moment=moment: moment), sa_audit.context(actor="alice"):  # type: ignore[misc] # a default
            session.add(Item(id=number, name="a"))
            session.flush()
            with sa_audit.context(actor="bob"):
                session.add(Item(id=100 + number, name="a"))
                session.commit()
    assert [entry.recorded_at for entry in entries_of(session, Base)] == [noon] * 6 + [noon + dt.timedelta(hours=2)] * 2


@pytest.mark.session_capture("counts the flushes of the session")
def test_each_flush_is_a_change_of_its_own(session: Session) -> None:
    """Flushes of one transaction are not merged; they share the entry and its moment."""
    item = Item(name="a")
    session.add(item)
    session.flush()
    for name in ("b", "c", "b"):
        item.name = name
        session.flush()
    session.commit()
    rows = rows_of(session, Item)
    assert [(row.op, row.values["name"]) for row in rows] == [("I", "a"), ("U", "b"), ("U", "c"), ("U", "b")]
    assert len({row.flush for row in rows}) == 4
    assert len({(row.tx, row.at) for row in rows}) == 1


def test_null_and_value_both_ways(session: Session) -> None:
    """A changed NULL is present as null, and a value that becomes NULL is recorded."""
    item = Item(n=None)
    session.add(item)
    session.commit()
    item.n = 0
    session.commit()
    item.n = None
    session.commit()
    assert [(b and b["n"], n) for _, b, n in story(session, Item, "n")] == [(None, None), (None, 0), ("0", None)]
    assert ops(session, Item) == "IUU"


def test_falsy_values_are_values(session: Session) -> None:
    """0, the empty string and None are told apart, before and after."""
    item = Item(name="", n=0)
    session.add(item)
    session.commit()
    item.name, item.n = None, 5
    session.commit()
    change = history(session, Item, item.id)[-1]
    assert dict(change.diff)["name"] == ("", None)
    assert dict(change.diff)["n"] == (0, 5)


def test_sql_expression_as_a_value(session: Session) -> None:
    """`obj.n = Model.n + 1` is recorded with the values that the database read and stored."""
    item = Item(name="a", n=41)
    session.add(item)
    session.commit()
    item.n = Item.n + 1
    session.commit()
    assert story(session, Item, "n") == [("I", None, 41), ("U", {"n": "41", "stamp": None}, 42)]


def test_sql_expression_on_an_unloaded_object(session: Session) -> None:
    """The before-value comes from the database when memory has none."""
    session.add(Item(id=1, name="a", n=41))
    session.commit()
    session.expunge_all()
    item = session.get_one(Item, 1)
    session.expire(item)
    item.n = Item.n + 1
    session.commit()
    assert story(session, Item, "n")[-1] == ("U", {"n": "41", "stamp": None}, 42)


def test_sql_expression_on_insert(session: Session) -> None:
    """Values made by expressions at INSERT are recorded as stored, the key too."""
    session.add(Item(id=sa.select(sa.literal(40) + 2).scalar_subquery(), n=sa.literal(3) * 3))
    session.commit()
    assert story(session, Item, "id", "n") == [("I", None, 42, 9)]


def test_onupdate_expression_is_recorded(session: Session) -> None:
    """A SQL-expression `onupdate` that the ORM never sees is part of the change."""
    item = Item(name="a")
    session.add(item)
    session.commit()
    item.name = "b"
    session.commit()
    assert story(session, Item, "stamp")[-1] == ("U", {"name": "a", "stamp": None}, 8)


def test_values_made_by_the_database(session: Session) -> None:
    """Identity, server defaults and computed columns, at INSERT and at UPDATE."""
    row = Doubled(n=2)
    session.add(row)
    session.commit()
    row.n = 5
    session.commit()
    assert story(session, Doubled, "n", "twice", "kind") == [
        ("I", None, 2, 4, "plain"),
        ("U", {"n": "2", "twice": "4"}, 5, 10, "plain"),
    ]


def test_null_in_a_column_with_a_server_default_is_null(session: Session) -> None:
    """The history has no defaults of its own: NULL stays NULL."""
    row = Doubled(n=1, note=None)
    session.add(row)
    session.commit()
    stored = session.scalar(sa.select(Doubled.note))
    assert story(session, Doubled, "note") == [("I", None, stored)]
    row.note = "x"
    session.commit()
    row.note = sa.null()
    session.commit()
    assert story(session, Doubled, "note")[-1] == ("U", {"note": "x"}, None)


def test_many_rows_in_one_flush(session: Session) -> None:
    """Inserts, updates and deletes of many rows in one flush are all there."""
    session.add_all([Item(id=i, name=str(i), n=i) for i in range(1, 251)])
    session.commit()
    for item in session.scalars(sa.select(Item)).all():
        if item.id % 2:
            item.n = item.id * 10
        else:
            session.delete(item)
    session.commit()
    rows = rows_of(session, Item)
    assert {row.values["id"]: row.values["n"] for row in rows if row.op == "U"} == {i: i * 10 for i in range(1, 251, 2)}
    assert {row.values["id"] for row in rows if row.op == "D"} == set(range(2, 251, 2))
    assert len(rows) == 500


def test_uuid_keys_made_in_python(session: Session) -> None:
    """Keys that are not integers find their rows again."""
    token = Token(text="a")
    session.add(token)
    session.commit()
    token.text = "b"
    session.commit()
    assert story(session, Token, "id", "text") == [("I", None, token.id, "a"), ("U", {"text": "a"}, token.id, "b")]


# -- cost -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 40])
def test_statements_per_flush(session: Session, engine: sa.Engine, count: int) -> None:
    """At most one statement for the transaction and two for each touched table, whatever the number of rows."""
    items = [Item(id=i, name="a", n=0) for i in range(1, 1 + count)]
    doubles = [Doubled(n=i) for i in range(count)]
    session.add_all(items + doubles)
    with statements(engine) as sent:
        session.commit()
    assert len([sql for sql in sent if "_history" in sql or "audit_transaction" in sql]) <= 1 + 2 * 2
    session.scalars(sa.select(Item)).all()
    session.scalars(sa.select(Doubled)).all()
    for item in items:
        item.n = item.id
    for double in doubles:
        double.n += 1
    with statements(engine) as sent:
        session.commit()
    plain = [sql for sql in sent if sql.lstrip().upper().startswith("UPDATE")]
    sent = without_looks(sent)
    assert len(sent) - len(plain) <= 1 + 2 * 2 + _refreshes(sent), sent
    session.scalars(sa.select(Item)).all()
    for item in items:
        session.delete(item)
    with statements(engine) as sent:
        session.commit()
    own = [sql for sql in without_looks(sent) if not sql.lstrip().upper().startswith("DELETE FROM")]
    assert len(own) <= 1 + 2, sent


def _refreshes(sent: list[str]) -> int:
    """Count the ORM's own reads of computed columns after an UPDATE, where there is no RETURNING."""
    return len([sql for sql in sent if "doubled.twice AS" in sql or "item.stamp AS" in sql])


def test_read_only_transactions_send_nothing_more(session: Session, engine: sa.Engine) -> None:
    """Reading costs no statement of the library's, and no entry."""
    session.add(Item(id=1, name="a"))
    session.commit()
    with statements(engine) as sent:
        assert session.get_one(Item, 1).name == "a"
        session.commit()
    assert len(sent) == 1
    assert len(entries_of(session, Base)) == 1


def test_an_empty_commit_sends_nothing(session: Session, engine: sa.Engine) -> None:
    """A session that changed nothing leaves no entry."""
    with statements(engine) as sent:
        session.commit()
    assert sent == []
    assert entries_of(session, Base) == []
