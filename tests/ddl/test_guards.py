"""The database itself refuses to change what is recorded, and to record what is forged."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import check, entries_of, history_of, ops, rows_of, story, trail_at
from tests.databases import Database

REFUSED = (sa.exc.DBAPIError,)


class Base(DeclarativeBase):
    pass


class Account(Audited, Base):
    __tablename__ = "account_g"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))


@pytest.fixture
def recorded(engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine to a database with two history rows and their entries; at the end they are what they were."""
    Base.metadata.create_all(engine)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add(Account(id=1, name="a"))
        session.commit()
        session.get_one(Account, 1).name = "b"
        session.commit()
    before = contents(engine)
    yield engine
    assert contents(engine) == before


def contents(engine: sa.Engine) -> list[Any]:
    """Give everything that the trail's tables hold."""
    trail = trail_at(Base)
    with engine.connect() as connection:
        tables = (history_of(Account), trail.transaction, trail.column)
        return [connection.execute(sa.select(table).order_by(table.c[0])).all() for table in tables]


def trail_tables() -> list[str]:
    """Give the names of all tables of the trail."""
    return [history_of(Account).name, "audit_transaction", "audit_column"]


def attempt(engine: sa.Engine, *texts: str) -> None:
    """Run SQL through the driver, past all hooks, and commit it."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        for text in texts:
            cursor.execute(text)
        connection.commit()
    finally:
        connection.rollback()
        connection.close()


def refused(engine: sa.Engine, *texts: str) -> None:
    """Expect the database to refuse the last of some statements, run through the driver."""
    with pytest.raises(engine.dialect.loaded_dbapi.Error) as caught:
        attempt(engine, *texts)
    assert "sa_audit" in str(caught.value)


@pytest.mark.every_server
@pytest.mark.parametrize("table", trail_tables())
def test_update_and_delete_are_refused(recorded: sa.Engine, table: str) -> None:
    """UPDATE and DELETE fail on every table of the trail, with or without a condition."""
    column = {"audit_transaction": "actor", "audit_column": "name"}.get(table, "name")
    refused(recorded, f"UPDATE {table} SET {column} = 'forged'")
    refused(recorded, f"DELETE FROM {table}")
    key = "audit_id" if table.endswith("_history") else "id"
    refused(recorded, f"DELETE FROM {table} WHERE {key} = 1")


@pytest.mark.every_server
@pytest.mark.needs("truncate-trigger")
@pytest.mark.parametrize("table", trail_tables())
def test_truncate_is_refused(recorded: sa.Engine, table: str) -> None:
    """TRUNCATE fails where triggers can see it, CASCADE or not."""
    refused(recorded, f"TRUNCATE {table}")
    refused(recorded, f"TRUNCATE {table} CASCADE")


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("table", trail_tables())
def test_replace_is_refused(recorded: sa.Engine, table: str) -> None:
    """REPLACE, which deletes without a DELETE trigger, fails on SQLite."""
    refused(recorded, f"REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")
    refused(recorded, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
    key = "audit_id" if table.endswith("_history") else "id"
    refused(recorded, f"UPDATE OR REPLACE {table} SET {key} = {key} + 1")
    refused(
        recorded,
        f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 ON CONFLICT ({key}) DO UPDATE SET {key} = {key} + 1000",
    )


@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize("table", trail_tables())
def test_replace_and_upsert_are_refused(recorded: sa.Engine, table: str) -> None:
    """REPLACE and ON DUPLICATE KEY UPDATE fail on MariaDB."""
    key = "audit_id" if table.endswith("_history") else "id"
    refused(recorded, f"REPLACE INTO {table} SELECT * FROM {table}")
    refused(
        recorded,
        f"INSERT INTO {table} SELECT * FROM {table} AS s ON DUPLICATE KEY UPDATE {table}.{key} = s.{key} + 1000",
    )


@pytest.mark.only_on("mariadb")
def test_an_epoch_can_only_be_closed(engine: sa.Engine) -> None:
    """MariaDB's epochs stay: without them nothing could be recorded, and a closed one is not opened again."""
    Base.metadata.create_all(engine)
    for statement in (
        "DELETE FROM audit_epoch",
        "REPLACE INTO audit_epoch (epoch, closed) VALUES (1, 0)",
        "UPDATE audit_epoch SET epoch = 2",
    ):
        refused(engine, statement)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_epoch (epoch, closed) VALUES (2, 0)")
        connection.exec_driver_sql("UPDATE audit_epoch SET closed = 1 WHERE epoch = 1")
    refused(engine, "UPDATE audit_epoch SET closed = 0 WHERE epoch = 1")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Account(id=77, name="a"))
        session.commit()
    assert entries_of(engine, Base)[-1].db_txid == 2


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_a_superuser_as_replica_is_refused(recorded: sa.Engine) -> None:
    """`session_replication_role = replica`, which switches ordinary triggers off, does not switch the guards off."""
    replica = "SET session_replication_role = replica"
    for table in trail_tables():
        refused(recorded, replica, f"DELETE FROM {table}")
        refused(recorded, replica, f"TRUNCATE {table}")
    attempt(recorded, "RESET session_replication_role")


@pytest.mark.only_on("postgresql")
def test_upsert_and_merge_are_refused(recorded: sa.Engine) -> None:
    """ON CONFLICT DO UPDATE and a writable CTE fail on PostgreSQL."""
    refused(
        recorded,
        "INSERT INTO audit_transaction (id, actor) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET actor = 'forged'",
    )
    refused(recorded, "WITH x AS (UPDATE audit_transaction SET actor = 'forged' RETURNING 1) SELECT * FROM x")


def test_sqlalchemy_is_refused_as_well(recorded: sa.Engine) -> None:
    """The library's own tables can't be changed through SQLAlchemy either."""
    past, entries = history_of(Account), trail_at(Base).transaction
    for statement in (
        sa.update(past).values(name="forged"),
        sa.delete(past),
        sa.update(entries).values(actor="forged"),
    ):
        with recorded.connect() as connection, pytest.raises((*REFUSED, sa_audit.AuditError)):
            connection.execute(statement)


# -- forged rows ---------------------------------------------------------------------------


def forge(engine: sa.Engine, **values: Any) -> None:
    """Insert a history row by hand, in a transaction of its own."""
    past = history_of(Account)
    row = {"audit_op": "U", "audit_flush": 1, "id": 1, "name": "forged", **values}
    with engine.begin() as connection:
        connection.execute(sa.insert(past).values(row))


def test_a_history_row_of_no_transaction_is_refused(recorded: sa.Engine) -> None:
    """A history row needs an entry that is there, and the entry's moment."""
    first = entries_of(recorded, Base)[0]
    with pytest.raises(REFUSED):
        forge(recorded, audit_tx=999, audit_at=first.recorded_at)
    with pytest.raises(REFUSED):
        forge(recorded, audit_tx=first.id, audit_at=first.recorded_at + dt.timedelta(microseconds=1))


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_a_change_forged_into_another_transaction_is_refused(recorded: sa.Engine) -> None:
    """On PostgreSQL a history row can belong to the current transaction only, whatever it claims."""
    first = entries_of(recorded, Base)[0]
    with pytest.raises(REFUSED, match="does not belong to the current transaction"):
        forge(recorded, audit_tx=first.id, audit_at=first.recorded_at)
    with pytest.raises(REFUSED, match="does not belong to the current transaction"):
        forge(recorded, audit_tx=first.id, audit_at=first.recorded_at, audit_txid=first.db_txid)


@pytest.mark.only_on("sqlite")
def test_a_change_forged_into_the_past_is_refused(recorded: sa.Engine) -> None:
    """On SQLite a history row can belong to the newest transaction only, and no entry is dated before it."""
    first, last = entries_of(recorded, Base)[0], entries_of(recorded, Base)[-1]
    assert first.id < last.id
    with pytest.raises(REFUSED, match="without its transaction"):
        forge(recorded, audit_tx=first.id, audit_at=first.recorded_at)
    entries = "INSERT INTO audit_transaction (actor, recorded_at, first_id) SELECT 'forged'"
    refused(recorded, f"{entries}, recorded_at, NULL FROM audit_transaction WHERE id = {first.id}")
    refused(recorded, f"{entries}, recorded_at, {first.id} FROM audit_transaction WHERE id = {last.id}")


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_what_the_database_knows_cant_be_written(engine: sa.Engine) -> None:
    """Clock, user, role, address and transaction id of an entry are the database's word, whatever is sent."""
    Base.metadata.create_all(engine)
    entries = trail_at(Base).transaction
    with engine.begin() as connection:
        forged = {
            "recorded_at": dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
            "db_user": "forged",
            "db_role": "forged",
            "db_addr": "6.6.6.6",
            "db_txid": 5,
            "first_id": 5,
        }
        connection.execute(sa.insert(entries).values(actor="alice", **forged))
        user, txid = connection.execute(sa.text("SELECT session_user::text, pg_current_xact_id()::text::bigint")).one()
        (entry,) = connection.execute(sa.select(entries)).all()
        assert (entry.db_user, entry.db_role, entry.db_txid, entry.first_id) == (user, user, txid, None)
        assert entry.db_addr != "6.6.6.6"
        assert abs(dt.datetime.now(dt.UTC) - entry.recorded_at) < dt.timedelta(minutes=5)


@pytest.mark.only_on("mariadb")
def test_what_mariadb_knows_cant_be_written(engine: sa.Engine) -> None:
    """Clock, user and epoch of an entry are MariaDB's word; a history row carries its entry's epoch."""
    Base.metadata.create_all(engine)
    entries, past = trail_at(Base).transaction, history_of(Account)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(entries).values(
                actor="alice", recorded_at=dt.datetime(2001, 1, 1, tzinfo=dt.UTC), db_user="forged", db_txid=77
            )
        )
        (entry,) = connection.execute(sa.select(entries)).all()
        assert (entry.db_user, entry.db_txid) == (connection.scalar(sa.text("SELECT USER()")), 1)
        assert abs(dt.datetime.now(dt.UTC) - entry.recorded_at) < dt.timedelta(minutes=5)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add(Account(id=1))
        session.commit()
    with engine.connect() as connection:
        assert connection.scalars(sa.select(past.c.audit_txid)).all() == [1]


def test_the_transaction_id_of_history_rows(recorded: sa.Engine, database: Database) -> None:
    """History rows carry their entry's database transaction id: NULL on SQLite, which has none."""
    past, entries = history_of(Account), trail_at(Base).transaction
    with recorded.connect() as connection:
        pairs = connection.execute(
            sa.select(past.c.audit_txid, entries.c.db_txid).join(entries, past.c.audit_tx == entries.c.id)
        ).all()
    assert all(one == two for one, two in pairs)
    assert {one is None for one, _ in pairs} == {database.dialect == "sqlite"}


# -- drop ----------------------------------------------------------------------------------


def test_drop_all_is_refused_while_there_is_history(recorded: sa.Engine) -> None:
    """`drop_all()`, and `drop()` of one table, are refused before anything is gone."""
    with pytest.raises(sa_audit.AuditError, match="holds recorded history and is not dropped"):
        Base.metadata.drop_all(recorded)
    for table in (history_of(Account), trail_at(Base).transaction):
        with pytest.raises(sa_audit.AuditError, match="not dropped"):
            table.drop(recorded)
    assert sa.inspect(recorded).has_table("account_g")


def test_an_empty_trail_can_be_dropped(engine: sa.Engine) -> None:
    """Where nothing was recorded, `drop_all()` removes everything, and `create_all()` makes it again."""
    for _ in range(2):
        Base.metadata.create_all(engine)
        Base.metadata.drop_all(engine)
        assert not sa.inspect(engine).has_table("audit_transaction")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Account(id=1))
        session.commit()
    assert ops(engine, Account) == "I"


def test_create_all_twice(recorded: sa.Engine) -> None:
    """A second `create_all()` changes nothing and raises nothing."""
    Base.metadata.create_all(recorded)
    refused(recorded, f"DELETE FROM {history_of(Account).name}")


def test_two_trails_in_one_database(engine: sa.Engine) -> None:
    """Models of two bases share the trail's fixed tables; dropping the empty one does not unguard the other."""

    class Other(DeclarativeBase):
        pass

    class Second(Audited, Other):
        __tablename__ = "second"

        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    Other.metadata.create_all(engine)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add_all([Account(id=1, name="a"), Second(id=1)])
        session.commit()
    assert (ops(engine, Account), ops(engine, Second)) == ("I", "I")
    check(engine, Base.metadata)
    check(engine, Other.metadata)
    with pytest.raises(sa_audit.AuditError):
        Other.metadata.drop_all(engine)
    refused(engine, f"DELETE FROM {history_of(Account).name}")


def test_trails_that_write_in_one_transaction(engine: sa.Engine) -> None:
    """Models of two bases, written by turns in one transaction, share its entries: one for each context."""
    other = sa.Table("third", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(other)
    Base.metadata.create_all(engine)
    other.metadata.create_all(engine)
    account = Account.__table__
    with sa_audit.context(actor="alice"), engine.begin() as connection:
        connection.execute(sa.insert(account).values(id=1, name="a"))
        connection.execute(sa.insert(other).values(id=1))
        with sa_audit.context(reason="second thought"):
            connection.execute(sa.insert(other).values(id=2))
            connection.execute(sa.update(account).values(name="b"))
        connection.execute(sa.insert(other).values(id=3))
    first, second = entries_of(engine, Base)
    assert (first.reason, first.first_id, second.reason, second.first_id) == (None, None, "second thought", first.id)
    assert [row.tx for row in rows_of(engine, Account)] == [first.id, second.id]
    assert [row.tx for row in rows_of(engine, other)] == [first.id, second.id, first.id]


# -- least privilege -------------------------------------------------------------------------


@pytest.mark.only_on("postgresql")
@pytest.mark.both_captures(always=True)
def test_an_entry_costs_the_same_after_many_others(engine: sa.Engine) -> None:
    """A transaction's earlier entries are found by its id alone, also where the server has no statistics yet.

    PostgreSQL joined two indexes then, one of which gives every entry there is.
    """
    Base.metadata.create_all(engine)
    read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_audit_transaction_{0}'"
    with engine.connect() as connection:
        for statement in (
            "ALTER TABLE audit_transaction DISABLE TRIGGER sa_audit_insert",
            "INSERT INTO audit_transaction (db_txid) SELECT -number FROM generate_series(1, 20000) AS number",
            "ALTER TABLE audit_transaction ENABLE TRIGGER sa_audit_insert",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
        before = flushed(connection, *(read.format(name) for name in ("first_id", "recorded_at")))
    for number in range(1, 21):
        with sa_audit.context(actor="alice"), Session(engine) as session:
            session.add(Account(id=number, name="a"))
            session.commit()
    with engine.connect() as connection:
        after = flushed(connection, *(read.format(name) for name in ("first_id", "recorded_at")))
    assert after == before


def flushed(connection: sa.Connection, *queries: str) -> list[int]:
    """Give what the server has counted, once everything of this connection is in it."""
    connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
    connection.commit()
    return [int(connection.exec_driver_sql(query).scalar_one()) for query in queries]


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_least_privilege(database: Database, engine: sa.Engine, make_engine: Callable[..., sa.Engine]) -> None:
    """A role that may only insert into and read the trail can record every kind of change, and nothing more."""
    Base.metadata.create_all(engine)
    role = f"{database.role_prefix}application"
    with engine.begin() as connection:
        for statement in (
            f'CREATE ROLE "{role}" NOLOGIN',
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON account_g TO "{role}"',
            f'GRANT SELECT, INSERT ON account_g_history, audit_transaction TO "{role}"',
            f'GRANT USAGE ON SEQUENCE audit_id_seq TO "{role}"',
            f'GRANT SELECT ON audit_column TO "{role}"',
        ):
            connection.exec_driver_sql(statement)
    restricted = make_engine()

    @sa.event.listens_for(restricted, "connect")
    def become(driver: Any, _record: Any) -> None:
        with driver.cursor() as cursor:
            cursor.execute(f'SET ROLE "{role}"')
        driver.commit()

    with sa_audit.context(actor="alice"), Session(restricted) as session:
        assert session.scalar(sa.text("SELECT current_user")) == role
        session.add(Account(id=1, name="a"))
        session.commit()
        session.get_one(Account, 1).name = "b"
        session.commit()
        session.execute(sa.update(Account).values(name="c"))
        session.execute(sa.insert(Account).values(id=2, name="d"))
        session.commit()
        session.delete(session.get_one(Account, 1))
        session.execute(sa.delete(Account).where(Account.id == 2))
        session.commit()
    assert [entry[0] for entry in story(engine, Account)] == ["I", "U", "U", "I", "D", "D"]
    assert {row.actor for row in rows_of(engine, Account)} == {"alice"}
    assert {entry.db_role for entry in entries_of(engine, Base)} == {role}
    for statement in (
        "UPDATE audit_transaction SET actor = 'x'",
        "DELETE FROM account_g_history",
        "TRUNCATE audit_transaction",
    ):
        with pytest.raises(restricted.dialect.loaded_dbapi.Error, match="permission denied"):
            attempt(restricted, statement)
    check(engine, Base.metadata)


@pytest.mark.only_on("mariadb")
@pytest.mark.needs("roles")
def test_least_privilege_on_mariadb(
    database: Database, engine: sa.Engine, make_engine: Callable[..., sa.Engine]
) -> None:
    """A MariaDB user that may only insert into and read the trail can record every kind of change."""
    Base.metadata.create_all(engine)
    user, schema = f"{database.role_prefix}app", database.url.database
    with engine.begin() as connection:
        for statement in (
            f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{schema}`.account_g TO '{user}'@'%'",
            f"GRANT SELECT, INSERT ON `{schema}`.account_g_history TO '{user}'@'%'",
            f"GRANT SELECT, INSERT ON `{schema}`.audit_transaction TO '{user}'@'%'",
            f"GRANT SELECT, INSERT ON `{schema}`.audit_id_seq TO '{user}'@'%'",
        ):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    restricted = sa.create_engine(database.url.set(username=user, password="secret"))
    try:
        with sa_audit.context(actor="alice"), Session(restricted) as session:
            session.add(Account(id=1, name="a"))
            session.commit()
            session.get_one(Account, 1).name = "b"
            session.commit()
            session.delete(session.get_one(Account, 1))
            session.commit()
    finally:
        restricted.dispose()
    assert ops(engine, Account) == "IUD"
    assert all(str(entry.db_user).startswith(user) for entry in entries_of(engine, Base))
