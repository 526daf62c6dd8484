"""Trigger capture on MariaDB: variables that stay on a connection, foreign keys, TRUNCATE, autocommit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.query import reconcile
from tests.capture.recorded import behind_the_back, check, entries_of, ops, rows_of, story

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.every_server]


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, capture="trigger")


class Account(Audited, Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(sa.String(20))
    n: Mapped[int | None]
    rate: Mapped[float | None]


class Branch(Base):  # not audited
    __tablename__ = "branch"

    id: Mapped[int] = mapped_column(primary_key=True)


class Desk(Base):  # not audited, goes with its branch
    __tablename__ = "desk"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch_id: Mapped[int | None] = mapped_column(sa.ForeignKey("branch.id", ondelete="CASCADE", onupdate="CASCADE"))


class Clerk(Audited, Base):  # goes with its desk, and with the clerk above
    __tablename__ = "clerk"

    id: Mapped[int] = mapped_column(primary_key=True)
    desk_id: Mapped[int | None] = mapped_column(sa.ForeignKey("desk.id", ondelete="CASCADE", onupdate="CASCADE"))
    spare_id: Mapped[int | None] = mapped_column(sa.ForeignKey("desk.id", ondelete="SET NULL"))
    boss_id: Mapped[int | None] = mapped_column(sa.ForeignKey("clerk.id", ondelete="SET NULL"))


@pytest.fixture
def bank(engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine to a database with the tables of this module; in the end the trail is compared with them."""
    Base.metadata.create_all(engine)
    yield engine
    check(engine, Base.metadata)


def insert(key: int) -> str:
    """Give the text that inserts an account."""
    return f"INSERT INTO account (id) VALUES ({key})"


# -- variables that stay ---------------------------------------------------------------------------

ENDINGS = {
    "commit": ["COMMIT"],
    "rollback": ["ROLLBACK"],
    "begin": ["BEGIN"],
    "xa": ["COMMIT", "XA START 'x'"],
    "autocommit": ["COMMIT", "SET autocommit = 1"],
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_one_transaction_said_does_not_hold_in_the_next(bank: sa.Engine, ending: str) -> None:
    """Variables survive COMMIT and ROLLBACK; who they name is not believed in another transaction."""
    with sa_audit.context(actor="alice"), bank.connect() as connection:
        connection.execute(sa.text(insert(1)))
        cursor = connection.connection.cursor()
        for text in ENDINGS[ending]:
            cursor.execute(text)
        cursor.execute("SELECT @sa_audit_claims")
        assert "alice" in cursor.fetchone()[0]
        cursor.execute(insert(2))
        if ending == "xa":
            for text in ("XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"):
                cursor.execute(text)
        cursor.execute("SET autocommit = 0")
        connection.commit()
    found = {row.values["id"]: row.actor for row in rows_of(bank, Account)}
    assert found == {**({} if ending == "rollback" else {1: "alice"}), 2: None}
    entries = entries_of(bank, Base)
    assert all(entry.first_id is None for entry in entries)


def test_text_that_ends_a_transaction(bank: sa.Engine) -> None:
    """A session that commits by text goes on to be recorded under its actor, as another transaction."""
    with sa_audit.context(actor="alice"), bank.connect() as connection:
        connection.execute(sa.text(insert(1)))
        connection.exec_driver_sql("COMMIT")
        connection.execute(sa.text(insert(2)))
        connection.commit()
    assert [row.actor for row in rows_of(bank, Account)] == ["alice", "alice"]
    assert [entry.first_id for entry in entries_of(bank, Base)] == [None, None]


def test_a_clock_that_stands_still(bank: sa.Engine) -> None:
    """Statements of two transactions are not taken for one where the session's clock was set."""
    behind_the_back(
        bank, "SET timestamp = 1000000000", insert(1), "COMMIT", insert(2), "COMMIT", "SET timestamp = DEFAULT"
    )
    assert len({row.tx for row in rows_of(bank, Account)}) == 2


def test_unknown_writers(bank: sa.Engine) -> None:
    """A program that says nothing has one entry for each transaction, and in autocommit one for each statement."""
    behind_the_back(
        bank, insert(1), insert(2), "UPDATE account SET n = 1", "COMMIT", "DELETE FROM account WHERE id = 1"
    )
    assert [row.tx for row in rows_of(bank, Account)] == [1, 1, 1, 1, 2]
    behind_the_back(
        bank,
        "SET autocommit = 1",
        "INSERT INTO account (id) VALUES (3), (4)",
        "UPDATE account SET n = 5",
        "SET autocommit = 0",
    )
    assert [row.tx for row in rows_of(bank, Account)][5:] == [3, 3, 4, 4, 4]


def test_any_program_can_say_who_it_is(bank: sa.Engine) -> None:
    """The two variables that a session sets can be set by any other program, for its transaction."""
    tell = (
        'SET @sa_audit_claims = \'{"actor": "cron"}\', @sa_audit_said_in = (SELECT CAST(SUM(variable_value) AS CHAR) '
        "FROM information_schema.session_status WHERE variable_name IN ('COM_BEGIN', 'COM_COMMIT', 'COM_ROLLBACK', "
        "'COM_XA_START', 'COM_XA_PREPARE', 'COM_XA_COMMIT', 'COM_XA_ROLLBACK'))"
    )
    behind_the_back(bank, tell, insert(1), "COMMIT", insert(2))
    assert [row.actor for row in rows_of(bank, Account)] == ["cron", None]


# -- what the engine hides from triggers ------------------------------------------------------------

PLACES = (
    "INSERT INTO branch (id) VALUES (1), (2)",
    "INSERT INTO desk (id, branch_id) VALUES (1, 1), (2, 2)",
    "INSERT INTO clerk (id, desk_id, spare_id) VALUES (1, 1, 2), (2, 2, 1), (3, 1, 1)",
)


def test_cascades_are_recorded(bank: sa.Engine) -> None:
    """What foreign keys would do is recorded, also through tables that are not audited, whoever deletes."""
    behind_the_back(bank, *PLACES)
    with sa_audit.context(actor="ann"), Session(bank) as session:
        session.execute(sa.text("DELETE FROM branch WHERE id = 1"))
        session.commit()
    found = [(row.op, row.values["id"], row.values["spare_id"]) for row in rows_of(bank, Clerk) if row.actor == "ann"]
    assert ("U", 2, None) in found
    assert {key for op, key, _spare in found if op == "D"} == {1, 3}
    with bank.connect() as connection:
        assert connection.scalars(sa.select(Clerk.id)).all() == [2]


REFUSED = {
    "a key that others refer to": "UPDATE branch SET id = 9 WHERE id = 1",
    "a row of the same table": "DELETE FROM clerk WHERE id = 1",
}


@pytest.mark.parametrize("statement", REFUSED)
def test_what_a_trigger_can_not_do_in_their_place_is_refused(bank: sa.Engine, statement: str) -> None:
    """ON UPDATE actions, and actions within one table, are refused where there is a row that they would change."""
    behind_the_back(bank, *PLACES, "UPDATE clerk SET boss_id = 1 WHERE id = 2")
    with pytest.raises(pymysql.err.OperationalError, match="would change rows unseen"):
        behind_the_back(bank, REFUSED[statement])
    behind_the_back(
        bank, "UPDATE clerk SET boss_id = NULL", "DELETE FROM clerk WHERE id = 1", "INSERT INTO branch VALUES (7)"
    )
    behind_the_back(bank, "UPDATE branch SET id = 8 WHERE id = 7")


def test_foreign_keys_off(bank: sa.Engine) -> None:
    """Where the connection has switched foreign keys off, nothing is done in their place."""
    behind_the_back(bank, *PLACES)
    behind_the_back(bank, "SET foreign_key_checks = 0", "DELETE FROM desk WHERE id = 1", "SET foreign_key_checks = 1")
    assert "D" not in ops(bank, Clerk)


def test_a_foreign_key_that_the_models_do_not_know(bank: sa.Engine) -> None:
    """A foreign key of the database alone, which would change rows unseen, is found before a session writes."""
    behind_the_back(
        bank, "ALTER TABLE account ADD CONSTRAINT unseen FOREIGN KEY (n) REFERENCES branch (id) ON DELETE SET NULL"
    )
    with Session(bank) as session:
        session.add(Account(id=1))
        with pytest.raises(sa_audit.CaptureMissing, match="account_n_capture_delete_by_key"):
            session.flush()


def test_truncate(engine: sa.Engine) -> None:
    """TRUNCATE, which no trigger sees, is refused in a session, and otherwise found by `reconcile`."""
    Base.metadata.create_all(engine)
    behind_the_back(engine, insert(1))
    with Session(engine) as session:
        with pytest.raises(sa_audit.UnauditedWrite, match="account"):
            session.execute(sa.text("TRUNCATE TABLE account"))
        session.rollback()
        assert list(reconcile(session, Account)) == []
    behind_the_back(engine, "TRUNCATE TABLE account")
    with Session(engine) as session:
        assert [(found.kind, found.identity) for found in reconcile(session, Account)] == [("missing", (1,))]


# -- the rest ----------------------------------------------------------------------------------------


def test_replace_and_load(bank: sa.Engine) -> None:
    """REPLACE is a delete and an insert, and both are recorded; so are upserts."""
    behind_the_back(
        bank,
        insert(1),
        "REPLACE INTO account (id, n) VALUES (1, 2)",
        "INSERT INTO account (id, n) VALUES (1, 3) ON DUPLICATE KEY UPDATE n = 4",
        "INSERT IGNORE INTO account (id, n) VALUES (1, 5)",
    )
    assert story(bank, Account, "n") == [("I", None, None), ("D", None, None), ("I", None, 2), ("U", {"n": "2"}, 4)]


def test_case_is_a_change(bank: sa.Engine) -> None:
    """Texts that the collation holds equal differ."""
    behind_the_back(
        bank,
        "INSERT INTO account (id, owner) VALUES (1, 'ann')",
        "UPDATE account SET owner = 'ANN'",
        "UPDATE account SET owner = 'ANN'",
    )
    assert story(bank, Account, "owner") == [("I", None, "ann"), ("U", {"owner": "ann"}, "ANN")]
    with Session(bank) as session:
        for actor in ("ann", "ANN"):
            with sa_audit.context(actor=actor):
                session.execute(sa.text(f"UPDATE account SET owner = '{actor}!'"))
        session.commit()
    assert [entry.actor for entry in entries_of(bank, Base)] == [None, "ann", "ANN"]


def test_last_insert_id_is_the_users(bank: sa.Engine) -> None:
    """Recording does not disturb what the server tells of the statement."""
    connection: Any = bank.raw_connection()
    cursor = connection.cursor()
    cursor.execute(insert(41))
    cursor.execute("INSERT INTO account (n) VALUES (1)")
    assert (cursor.lastrowid, cursor.rowcount) == (42, 1)
    cursor.execute("SELECT LAST_INSERT_ID()")
    assert cursor.fetchone() == (42,)
    assert cursor.execute("DELETE FROM account") == 2
    connection.commit()
    connection.close()


def test_drop_all_leaves_nothing(engine: sa.Engine) -> None:
    """After `drop_all` no routine and no trigger is left."""
    Base.metadata.create_all(engine)
    Base.metadata.drop_all(engine)
    with engine.connect() as connection:
        for text in (
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()",
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
        ):
            assert connection.execute(sa.text(text)).all() == []
