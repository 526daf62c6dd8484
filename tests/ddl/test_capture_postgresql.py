"""Trigger capture on PostgreSQL: rights, forgery, partitions, other triggers, hostile settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.ddl import TrailObject, backend_for
from sa_audit.ddl.events import run
from sa_audit.ddl.objects import dropped, replacing, spoken
from sa_audit.model import require_audited
from tests.capture.recorded import behind_the_back, check, entries_of, ops, rows_of, story
from tests.databases import Database

pytestmark = [pytest.mark.only_on("postgresql"), pytest.mark.every_server]


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, capture="trigger")


class Account(Audited, Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    n: Mapped[int | None]
    rate: Mapped[float | None]


class Part(Audited, Base):
    __tablename__ = "part"
    __table_args__ = {"postgresql_partition_by": "RANGE (id)"}

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int | None]


@pytest.fixture
def bank(engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine to a database with the tables of this module; in the end the trail is compared with them."""
    Base.metadata.create_all(engine)
    yield engine
    check(engine, Base.metadata)


def objects(engine: sa.Engine) -> list[TrailObject]:
    """Give what captures Account."""
    backend = backend_for(engine.dialect)
    return backend.capture(require_audited(Account.__table__), {}, engine.dialect.default_schema_name)


# -- rights -------------------------------------------------------------------------------------


@pytest.fixture
def application(bank: sa.Engine, database: Database, make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """An engine of a role that may write the tables and has no right at all on the trail."""
    role = f"{database.role_prefix}app"
    behind_the_back(
        bank,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER ON account, part TO {role}",
    )
    return sa.create_engine(database.url.set(username=role))


@pytest.mark.needs("roles")
def test_no_right_on_the_trail_is_needed(bank: sa.Engine, application: sa.Engine) -> None:
    """A role without any right on the trail is recorded under its own name, and its role if it takes one."""
    role = application.url.username
    with sa_audit.context(actor="alice"), Session(application) as session:
        session.add(Account(id=1, owner="ann"))
        session.commit()
        session.execute(sa.text("TRUNCATE account"))
        session.commit()
    behind_the_back(bank, f"SET ROLE {role}", "INSERT INTO account (id) VALUES (2)", "RESET ROLE")
    application.dispose()
    assert ops(bank, Account) == "ITI"
    found = [(entry.actor, entry.db_user, entry.db_role) for entry in entries_of(bank, Base)]
    assert found == [("alice", role, role)] * 2 + [(None, bank.url.username, role)]
    assert all(entry.db_addr for entry in entries_of(bank, Base))


REPLICA = "SET session_replication_role = replica"
ATTACKS = {
    "history": "INSERT INTO account_history (audit_tx, audit_op, audit_at) VALUES (1, 'I', now())",
    "entry": "INSERT INTO audit_transaction (actor) VALUES ('mallory')",
    "entry function": "SELECT sa_audit_entry_v1(false, false)",
    "capture function": "SELECT sa_audit_capture_account_history()",
    "attach": "CREATE TEMPORARY TABLE account (id int, owner text, n int, rate float);"
    "CREATE TRIGGER t AFTER INSERT ON pg_temp.account FOR EACH ROW EXECUTE FUNCTION sa_audit_capture_account_history()",
    "disable": 'ALTER TABLE account DISABLE TRIGGER "AA_sa_audit_capture"',
    "drop": 'DROP TRIGGER "AA_sa_audit_capture" ON account',
    "replica": REPLICA,
}


@pytest.mark.needs("roles")
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_of_the_application(bank: sa.Engine, application: sa.Engine, attack: str) -> None:
    """The application's role can neither write the trail, nor open entries, attach the function or switch it off."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        behind_the_back(application, ATTACKS[attack])
    application.dispose()
    assert ops(bank, Account) == ""


def test_the_function_records_no_other_table(bank: sa.Engine) -> None:
    """Even who may attach the capture function can't write the history from a table of his own."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not the table that this function records"):
        behind_the_back(
            bank,
            "CREATE TEMPORARY TABLE account (LIKE public.account)",
            "CREATE TRIGGER t AFTER INSERT ON pg_temp.account FOR EACH ROW "
            "EXECUTE FUNCTION public.sa_audit_capture_account_history()",
            "INSERT INTO pg_temp.account (id) VALUES (1)",
        )
    assert ops(bank, Account) == ""


FORGED = {
    "another's entry": ["SELECT set_config('sa_audit.entry', '1', true)"],
    "another's entry, for ever": ["SELECT set_config('sa_audit.entry', '1', false)"],
    "claims without the instant": ["SELECT set_config('sa_audit.claims', '{\"actor\": \"eve\"}', false)"],
    "claims of another instant": [
        "SELECT set_config('sa_audit.claims', '20200101000000000000{\"actor\": \"eve\"}', false)"
    ],
    "empty settings": ["SELECT set_config('sa_audit.claims', '', false), set_config('sa_audit.entry', '', false)"],
}


@pytest.mark.parametrize("forgery", FORGED)
def test_settings_can_not_forge(bank: sa.Engine, forgery: str) -> None:
    """A change can't be put into another transaction's entry, nor do settings that were left behind name anybody."""
    with sa_audit.context(actor="alice"), Session(bank) as session:
        session.add(Account(id=1))
        session.commit()
    behind_the_back(bank, *FORGED[forgery], "INSERT INTO account (id) VALUES (2)")
    assert [row.actor for row in rows_of(bank, Account)] == ["alice", None]
    assert len(entries_of(bank, Base)) == 2


def test_what_one_transaction_said_does_not_hold_in_the_next(bank: sa.Engine) -> None:
    """Claims that stay in the session, because somebody set them for longer, hold in their own transaction only."""
    said = (
        "SELECT set_config('sa_audit.claims', to_char(transaction_timestamp() AT TIME ZONE 'UTC', "
        "'YYYYMMDDHH24MISSUS') || '{\"actor\": \"alice\"}', false)"
    )
    behind_the_back(bank, said, "INSERT INTO account (id) VALUES (1)", "COMMIT", "INSERT INTO account (id) VALUES (2)")
    assert [row.actor for row in rows_of(bank, Account)] == ["alice", None]


def test_any_program_can_say_who_it_is(bank: sa.Engine) -> None:
    """`sa_audit_context_v1` is for programs without SQLAlchemy; it holds to the end of the transaction."""
    behind_the_back(
        bank,
        'SELECT sa_audit_context_v1(\'{"actor": "cron", "context": {"job": 7}}\')',
        "INSERT INTO account (id) VALUES (1)",
        "COMMIT",
        "INSERT INTO account (id) VALUES (2)",
    )
    assert [(entry.actor, entry.context) for entry in entries_of(bank, Base)] == [("cron", {"job": 7}), (None, None)]


def test_history_rows_of_others_are_refused(bank: sa.Engine) -> None:
    """A row that is inserted into the history by hand must belong to the writer's own transaction."""
    behind_the_back(bank, "INSERT INTO account (id) VALUES (1)")
    copy = (
        "INSERT INTO account_history (audit_tx, audit_op, audit_at, id) "
        "SELECT id, 'B', recorded_at, 5 FROM audit_transaction"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="does not belong to the current transaction"):
        behind_the_back(bank, copy)
    assert ops(bank, Account) == "I"


def test_the_triggers_hold_under_replication_role(bank: sa.Engine) -> None:
    """`session_replication_role = replica`, which silences ordinary triggers, does not silence these."""
    behind_the_back(
        bank,
        "SET session_replication_role = replica",
        "INSERT INTO account (id) VALUES (1)",
        "TRUNCATE account",
        "RESET ALL",
    )
    assert ops(bank, Account) == "IT"


@pytest.mark.parametrize("how", ["trigger", "rule", "policy"])
def test_a_silenced_history_is_an_error(engine: sa.Engine, how: str) -> None:
    """Where something keeps rows out of the history, the change fails."""
    Base.metadata.create_all(engine)
    if how == "trigger":
        behind_the_back(
            engine,
            "CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER hush BEFORE INSERT ON account_history FOR EACH ROW EXECUTE FUNCTION hush()",
        )
    elif how == "rule":
        behind_the_back(engine, "CREATE RULE hush AS ON INSERT TO account_history DO INSTEAD NOTHING")
    else:
        behind_the_back(engine, "CREATE RULE hush AS ON INSERT TO audit_transaction DO INSTEAD NOTHING")
    with pytest.raises(psycopg.Error):
        behind_the_back(engine, "INSERT INTO account (id) VALUES (1)")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM account")) == 0


# -- ways in that only the database sees --------------------------------------------------------------


def test_copy(bank: sa.Engine) -> None:
    """COPY is recorded."""
    driver: Any = bank.raw_connection()
    with driver.cursor().copy("COPY account (id, owner) FROM STDIN") as copy:
        copy.write("1\tann\n2\tbob\n")
    driver.commit()
    driver.close()
    assert story(bank, Account, "id", "owner") == [("I", None, 1, "ann"), ("I", None, 2, "bob")]


def test_writes_through_a_view_a_function_and_a_merge(bank: sa.Engine, database: Database) -> None:
    """What functions and views write is recorded, with the actor of the session that called them."""
    behind_the_back(
        bank,
        "CREATE VIEW rich AS SELECT * FROM account",
        "CREATE FUNCTION pay() RETURNS int LANGUAGE sql AS 'UPDATE account SET n = n + 1 RETURNING n'",
    )
    with sa_audit.context(actor="ann"), Session(bank) as session:
        session.execute(sa.text("INSERT INTO rich (id, n) VALUES (1, 1)"))
        session.commit()
        assert session.scalar(sa.select(sa.func.pay())) == 2
        session.commit()
        if database.version >= (15,):
            session.execute(
                sa.text("MERGE INTO account a USING (SELECT 1 AS id) s ON a.id = s.id WHEN MATCHED THEN DELETE")
            )
            session.commit()
    behind_the_back(bank, "DROP VIEW rich", "DROP FUNCTION pay")
    assert ops(bank, Account) == ("IUD" if database.version >= (15,) else "IU")
    assert {row.actor for row in rows_of(bank, Account)} == {"ann"}


def test_partitions(bank: sa.Engine) -> None:
    """Rows of partitions, also of later ones and of those written by their own name, are the table's."""
    behind_the_back(
        bank,
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (10)",
        "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20)",
        "INSERT INTO part (id, n) VALUES (1, 1)",
        "INSERT INTO part_2 (id, n) VALUES (10, 1)",
        "UPDATE part_1 SET n = 2",
        "UPDATE part SET id = 11 WHERE id = 1",
        "DELETE FROM part_2 WHERE id = 10",
    )
    assert [(row.op, row.values["id"], row.values["n"]) for row in rows_of(bank, Part)] == [
        ("I", 1, 1),
        ("I", 10, 1),
        ("U", 1, 2),
        ("D", 1, 2),
        ("I", 11, 2),
        ("D", 10, 1),
    ]
    behind_the_back(bank, REPLICA, "UPDATE part_2 SET n = 3", "TRUNCATE part", "RESET ALL")
    assert ops(bank, Part) == "IIUDIDUT"


# -- other triggers, and settings ----------------------------------------------------------------------

TRIGGERS = """
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN UPDATE account SET n = coalesce(n, 0) + 1 WHERE id = NEW.id AND n IS DISTINCT FROM 5; RETURN NULL; END $$;
CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN UPDATE account SET owner = 'touched' WHERE id <> NEW.id AND pg_trigger_depth() = 1; RETURN NULL; END $$
"""


@pytest.fixture
def meddled(bank: sa.Engine) -> sa.Engine:
    """The database with functions for triggers of a user."""
    behind_the_back(bank, *TRIGGERS.strip().split(";\nCREATE FUNCTION others")[:1])
    behind_the_back(bank, "CREATE FUNCTION others" + TRIGGERS.strip().split(";\nCREATE FUNCTION others")[1])
    return bank


def test_a_trigger_that_changes_the_same_row(meddled: sa.Engine) -> None:
    """What a user's trigger changes again is recorded after what it followed, row by row."""
    behind_the_back(
        meddled,
        "CREATE TRIGGER a_more AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION more()",
        "INSERT INTO account (id) VALUES (1), (2), (3)",
    )
    assert sorted(story(meddled, Account, "id", "n"), key=lambda row: row[2]) == [
        step for key in (1, 2, 3) for step in (("I", None, key, None), ("U", {"n": None}, key, 1))
    ]


def test_a_trigger_that_overtakes(meddled: sa.Engine) -> None:
    """A trigger that changes its statement's rows before these are recorded is refused: the order would be lost."""
    behind_the_back(
        meddled,
        "INSERT INTO account (id, n) VALUES (1, 1), (2, 1)",
        "CREATE TRIGGER others AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION others()",
    )
    with pytest.raises(psycopg.Error, match=r"changed a row of .* again"):
        behind_the_back(meddled, "UPDATE account SET n = 2")
    behind_the_back(meddled, "UPDATE account SET n = 3 WHERE id = 1")
    assert story(meddled, Account, "id", "owner", "n")[2:] == [
        ("U", {"n": "1"}, 1, None, 3),
        ("U", {"owner": None}, 2, "touched", 1),
    ]


def test_hostile_settings(bank: sa.Engine) -> None:
    """No setting of a session makes what is recorded another."""
    behind_the_back(
        bank,
        "CREATE SCHEMA evil",
        "CREATE TABLE evil.audit_transaction (id bigint, db_txid bigint, recorded_at timestamptz)",
        "CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT '1'$$",
        "SET search_path = evil, public",
        "SET extra_float_digits = -10",
        "SET DateStyle = 'German'",
        "INSERT INTO public.account (id, rate) VALUES (1, '0.30000000000000004')",
        "UPDATE public.account SET rate = 0",
        "RESET ALL",
        "DROP SCHEMA evil CASCADE",
    )
    assert [row.before for row in rows_of(bank, Account)] == [None, {"rate": "0.30000000000000004"}]


# -- the objects -----------------------------------------------------------------------------------------


def test_drop_and_create_again(bank: sa.Engine) -> None:
    """What the drop texts leave is a table that nothing records; the create texts bring it all back, also twice."""
    with bank.begin() as connection:
        run(connection, dropped(objects(bank)))
        found = connection.execute(sa.text("SELECT 1 FROM pg_proc WHERE proname ~ 'sa_audit_capture_account'")).all()
        assert found == []
        for _ in range(2):
            run(connection, replacing(objects(bank)))
    behind_the_back(bank, "INSERT INTO account (id) VALUES (1)")
    assert ops(bank, Account) == "I"


def test_drop_all_leaves_nothing(engine: sa.Engine) -> None:
    """After `drop_all` no function of the trail is left."""
    Base.metadata.create_all(engine)
    Base.metadata.drop_all(engine)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT proname FROM pg_proc WHERE proname ~ 'sa_audit'")).all() == []


def test_a_table_made_anew_is_captured(bank: sa.Engine) -> None:
    """A table that is dropped and created again, while its history stays, has its triggers again."""
    table: Any = Account.__table__
    table.drop(bank)
    table.create(bank)
    behind_the_back(bank, "INSERT INTO account (id) VALUES (1)")
    assert ops(bank, Account) == "I"


def test_the_function_is_hardened(bank: sa.Engine) -> None:
    """The capture function runs as its owner, with a fixed search path, and nobody else may call it."""
    with bank.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT p.prosecdef, p.proconfig, has_function_privilege('public', p.oid, 'EXECUTE') "
                "FROM pg_proc p WHERE p.proname ~ 'sa_audit_capture'"
            )
        ).all()
    assert len(rows) == 2
    for definer, settings, public in rows:
        assert (definer, public) == (True, False)
        assert "search_path=pg_catalog, pg_temp" in settings
    text = spoken("\n".join(replacing(objects(bank))))
    assert "\t" not in text
    assert "\\" not in text
    assert '"""' not in text
