"""Trigger capture on SQLite: REPLACE, foreign keys, triggers of others, and writers that don't say who they are."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import behind_the_back, check, entries_of, ops, rows_of, story

pytestmark = pytest.mark.only_on("sqlite")


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, capture="trigger")


class Account(Audited, Base):
    __tablename__ = "account"
    __table_args__ = (sa.Index("by_nick", "nick", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(unique=True)
    nick: Mapped[str | None]
    n: Mapped[int | None]
    rate: Mapped[float | None]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("account.id", ondelete="CASCADE"))


class Place(Audited, Base):
    __tablename__ = "place"
    __table_args__ = {"sqlite_with_rowid": False}

    x: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    y: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]


@pytest.fixture
def bank(engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine to a database with the tables of this module; in the end the trail is compared with them."""
    Base.metadata.create_all(engine)
    yield engine
    check(engine, Base.metadata)


ROWS = "INSERT INTO account (id, owner, nick) VALUES (-1, 'zoe', 'z'), (1, 'ann', 'a'), (2, 'bob', 'b')"

REPLACES = {
    "the key": "INSERT OR REPLACE INTO account (id, owner) VALUES (1, 'new')",
    "a unique constraint": "REPLACE INTO account (id, owner) VALUES (9, 'ann')",
    "a unique index": "INSERT OR REPLACE INTO account (nick) VALUES ('b')",
    "several": "INSERT OR REPLACE INTO account (id, owner, nick) VALUES (9, 'ann', 'b')",
    "an update of the key": "UPDATE OR REPLACE account SET id = 2 WHERE id = 1",
    "an update of a unique column": "UPDATE OR REPLACE account SET owner = 'bob' WHERE id = 1",
}


@pytest.mark.parametrize("replace", REPLACES)
def test_replace_is_refused(bank: sa.Engine, replace: str) -> None:
    """REPLACE, whose deletes no trigger sees, is refused where it removes a row."""
    behind_the_back(bank, ROWS)
    with pytest.raises(sqlite3.IntegrityError, match="REPLACE removes rows of account"):
        behind_the_back(bank, REPLACES[replace])
    assert ops(bank, Account) == "III"


@pytest.mark.parametrize("replace", REPLACES)
def test_replace_with_recursive_triggers(bank: sa.Engine, replace: str) -> None:
    """Where the connection has triggers see the deletes of a REPLACE, it is recorded."""
    behind_the_back(bank, ROWS)
    behind_the_back(bank, "PRAGMA recursive_triggers = ON", REPLACES[replace], "PRAGMA recursive_triggers = OFF")
    assert "D" in ops(bank, Account)


def test_what_replaces_nothing_passes(bank: sa.Engine) -> None:
    """Ignored inserts, upserts, and a REPLACE that meets nothing leave nothing behind for the next statement."""
    behind_the_back(
        bank,
        ROWS,
        "INSERT OR IGNORE INTO account (id, owner) VALUES (1, 'ann')",
        "INSERT INTO account (owner) VALUES ('cid')",
        "INSERT INTO account (owner) VALUES ('ann') ON CONFLICT (owner) DO UPDATE SET n = 5",
        "INSERT INTO account (owner) VALUES ('dan')",
        "INSERT OR REPLACE INTO account (owner, nick) VALUES ('eve', 'e')",
        "DELETE FROM account WHERE owner = 'ann'",
        "REPLACE INTO account (id, owner, nick) VALUES (1, 'ann', 'a')",
        "INSERT INTO place (x, y) VALUES (1, 'a')",
        "UPDATE OR REPLACE place SET y = 'b'",
    )
    assert ops(bank, Account) == "IIIIUIIDI"
    assert ops(bank, Place) == "IDI"


def test_a_row_with_the_key_minus_one_is_in_nobodys_way(bank: sa.Engine) -> None:
    """Before an INSERT SQLite shows a key that it is yet to make as -1; a row of that key is not taken for replaced."""
    behind_the_back(bank, ROWS, "INSERT INTO account (owner) VALUES ('new')")
    assert ops(bank, Account) == "IIII"
    with pytest.raises(sqlite3.IntegrityError, match="REPLACE"):
        behind_the_back(bank, "REPLACE INTO account (id) VALUES (-1)")


def test_foreign_keys(bank: sa.Engine) -> None:
    """What foreign keys delete is recorded, to any depth, and only where the connection has switched them on."""
    behind_the_back(bank, "INSERT INTO account (id, parent_id) VALUES (1, NULL), (2, 1), (3, 2), (4, NULL), (5, 4)")
    behind_the_back(bank, "PRAGMA foreign_keys = ON", "DELETE FROM account WHERE id = 1")
    behind_the_back(bank, "PRAGMA foreign_keys = OFF", "DELETE FROM account WHERE id = 4")
    assert sorted(row.values["id"] for row in rows_of(bank, Account) if row.op == "D") == [1, 2, 3, 4]


def test_a_trigger_that_comes_first(bank: sa.Engine) -> None:
    """A trigger that changes the row before it is recorded is refused, until `create_all` has ours come first."""
    touch = (
        "CREATE TRIGGER touch AFTER UPDATE OF n ON account BEGIN UPDATE account SET nick = 't' WHERE id = NEW.id; END"
    )
    behind_the_back(bank, "INSERT INTO account (id, n) VALUES (1, 1)", touch)
    with pytest.raises(sqlite3.IntegrityError, match="a trigger changed a row of account again"):
        behind_the_back(bank, "UPDATE account SET n = 2")
    Base.metadata.create_all(bank)
    behind_the_back(bank, "UPDATE account SET n = 2")
    assert story(bank, Account, "n", "nick") == [
        ("I", None, 1, None),
        ("U", {"n": "1"}, 2, None),
        ("U", {"nick": None}, 2, "t"),
    ]
    with bank.connect() as connection:
        before = connection.execute(sa.text("SELECT name, rowid FROM sqlite_master")).all()
        Base.metadata.create_all(connection)
        assert connection.execute(sa.text("SELECT name, rowid FROM sqlite_master")).all() == before


def test_a_trigger_of_another_table(bank: sa.Engine) -> None:
    """What a trigger writes in an audited table is recorded under the statement's entry."""
    behind_the_back(
        bank, "CREATE TRIGGER follow AFTER INSERT ON place BEGIN INSERT INTO account (n) VALUES (NEW.x); END"
    )
    with sa_audit.context(actor="ann"), Session(bank) as session:
        session.add(Place(x=7, y="a"))
        session.commit()
    assert [(row.op, row.values["n"], row.actor) for row in rows_of(bank, Account)] == [("I", 7, "ann")]
    assert len(entries_of(bank, Base)) == 1


def test_each_statement_of_an_unknown_writer_is_an_entry(bank: sa.Engine) -> None:
    """Statements of a program that says nothing have entries of their own, all rows of one the same."""
    behind_the_back(bank, "INSERT INTO account (id) VALUES (1), (2)")
    time.sleep(0.01)
    behind_the_back(bank, "UPDATE account SET n = id")
    assert len(entries_of(bank, Base)) == 2
    assert [row.tx for row in rows_of(bank, Account)] == [1, 1, 2, 2]
    moments = [entry.recorded_at for entry in entries_of(bank, Base)]
    assert moments == sorted(moments)


def test_the_drivers_own_commit(bank: sa.Engine) -> None:
    """What a session said is taken back at its end also when the driver's connection was committed behind it."""
    with sa_audit.context(actor="ann"), bank.connect() as connection:
        connection.execute(sa.text("INSERT INTO account (id) VALUES (1)"))
        connection.connection.driver_connection.commit()  # type: ignore[union-attr]
        connection.commit()
    behind_the_back(bank, "INSERT INTO account (id) VALUES (2)")
    assert [row.actor for row in rows_of(bank, Account)] == ["ann", None]


def test_last_insert_rowid_is_the_users(bank: sa.Engine) -> None:
    """Recording does not disturb what SQLite tells of the statement: the key, and the number of rows."""
    connection = bank.raw_connection()
    cursor = connection.cursor()
    cursor.execute("INSERT INTO account (id) VALUES (41)")
    cursor.execute("INSERT INTO account (n) VALUES (1), (2)")
    assert (cursor.lastrowid, cursor.rowcount) == (43, 2)
    cursor.execute("DELETE FROM account WHERE id > 41")
    assert cursor.rowcount == 2
    connection.commit()
    connection.close()


def test_reals_far_from_one(bank: sa.Engine) -> None:
    """A real whose decimal form SQLite does not know exactly is exact in the before-value."""
    value = 1.7976931348623157e308
    behind_the_back(bank, f"INSERT INTO account (id, rate) VALUES (1, {value!r})", "UPDATE account SET rate = 1.5e-300")
    with Session(bank) as session:
        changes = sa_audit.history(session, Account, 1)
    assert dict(changes[1].diff) == {"rate": (value, 1.5e-300)}


def test_drop_all_leaves_nothing(engine: sa.Engine) -> None:
    """After `drop_all` the database is empty."""
    Base.metadata.create_all(engine)
    Base.metadata.drop_all(engine)
    with engine.connect() as connection:
        names = connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE name <> 'sqlite_sequence'")).all()
    assert names == []
