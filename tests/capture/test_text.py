"""Textual DML that names an audited table is refused; a textual read, and DML on other tables, is not."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.capture.text import written_tables
from tests.capture.conftest import Standing
from tests.capture.replay import history_of
from tests.capture.twins import AUDITED, PLAIN, fill

WRITES = [
    "INSERT INTO account VALUES (1)",
    "INSERT INTO\n\taccount(id) VALUES (1)",
    "insert or replace into account values (1)",
    "insert account values (1)",
    "insert ignore account set x = 1",
    "insert into main.account default values",
    "insert into account (x) values (1) on conflict do nothing",
    "insert into account select 1",
    "insert /*! ignore */ into account values (1)",
    "replace account values (1)",
    "replace into `account` values (1)",
    "replace low_priority into account values (1)",
    "UPDATE account SET x = 1",
    "update or ignore account set x = 1",
    "UPDATE OR REPLACE main.account SET x = 1",
    "update only account set x = 1",
    "update public.account set x = 1",
    'update "public"."account" set x = 1',
    'update U&"acc\\006fun\\+000074" set x = 1',
    "update 'account' set x = 1",
    "update [account] set x = 1",
    "update account as a set x = 1 from b",
    "update b, account set account.x = 1",
    "update b join account c on b.id = c.id set c.x = 1",
    "update (account join b on true) set x = 1",
    "update /* comment */ account set x = 1",
    "update -- comment\n account set x = 1",
    "update # comment\n account set x = 1",
    "/*! update account set x = 1 */",
    "/*!50000 update account set x = 1 */",
    "/* /* */ update account set x = 1",
    "update b set x = c # 1\n; update account set x = 1",
    "DELETE FROM account",
    "delete from only account where id = 1",
    "delete low_priority quick from account",
    "delete account from account join b on true",
    "delete c from b join account c on b.id = c.id where c.id = 1",
    "delete from c using b join account c on true",
    "with x as (select 1) insert into account select * from x",
    "with x as (delete from account returning *) select * from x",
    "create table b as with x as (delete from account returning *) select * from x",
    "merge into account using b on true when matched then delete",
    "truncate account",
    "truncate table only account",
    "truncate b, account cascade",
    "copy account from stdin",
    "copy account (id, x) from '/tmp/x'",
    "copy public.account from stdin",
    "load data infile 'x' into table account fields terminated by ','",
    "explain analyze update account set x = 1",
    "select 1; delete from account",
    "select 'it\\'s'; update account set x = '--'",
    "do $$ begin update account set x = 1; end $$",
    "DO $x$ begin execute 'delete from account'; end $x$",
    "call wipe('account')",
    "execute immediate 'update account set x = 1'",
    "prepare s from 'update account set x = 1'",
    "begin not atomic update account set x = 1; end",
    "if 1 then delete from account; end if",
    "for i in (select 1) do delete from account; end for",
    "while 0 do update account set x = 1; end while",
    "set statement max_statement_time = 10 for delete from account",
]
READS = [
    "do $$ begin if exists (select from account where x <> 'b') then raise exception 'no'; end if; end $$",
    "select * from account",
    "select * from account for update",
    "select * from account for no key update",
    "select * from account for update of account",
    "select replace(x, 'a', 'b') from account",
    "select 'delete from account'",
    "select 1 from account where note = 'it''s' -- update account set",
    "select * from account -- delete from account",
    "select /* delete from account */ 1",
    'select "update", last_update from account',
    "insert into log select x from account",
    "insert into log (account) values (1)",
    "update log set account = 1",
    "delete from account_history_of_others",
    "lock table account in share mode",
    "copy account to stdout",
    "copy (select * from account) to stdout",
    "create table b (id int references account (id) on delete cascade on update set null)",
    "create trigger t before update on account for each row set new.x = 1",
    "create trigger t after insert or update or delete on account execute function f()",
    "grant insert, update, delete on account to bob",
    "alter table account add x int default 1",
    "drop table account",
    "begin",
]


@pytest.mark.parametrize("sql", WRITES)
def test_writes_are_found(sql: str) -> None:
    """The table that a text writes is among the names that are found."""
    assert "account" in written_tables(sql)
    assert "account" in written_tables(sql.upper())


@pytest.mark.parametrize("sql", READS)
def test_reads_are_let_pass(sql: str) -> None:
    """A text that only reads a table, or defines things, does not count as writing it."""
    assert "account" not in written_tables(sql)
    assert "account" not in written_tables(sql.upper())


def test_long_texts_are_not_remembered() -> None:
    """A text of any length is read, and a long one is not kept."""
    rows = ", ".join(f"({i}, 'it''s')" for i in range(20_000))
    assert written_tables(f"insert into account values {rows}") == {"into", "account"}


WAYS: dict[str, Any] = {
    "text": lambda s, sql: s.connection().execute(sa.text(sql)),
    "session": lambda s, sql: s.execute(sa.text(sql)),
    "driver": lambda s, sql: s.connection().exec_driver_sql(sql),
    "columns": lambda s, sql: s.execute(sa.text(sql).columns(sa.column("id"))),
    "from_statement": lambda s, sql: s.execute(
        sa.select(AUDITED.Account).from_statement(sa.text(sql + " RETURNING *"))
    ),
    "ddl": lambda s, sql: s.connection().execute(sa.DDL(sql)),
    "select": lambda s, sql: s.execute(sa.select(sa.text(f"1; {sql}"))),
    "cte": lambda s, sql: s.execute(sa.select(sa.text(sql + " RETURNING id").columns(sa.column("id")).cte("gone"))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "sql",
    ["UPDATE account SET balance = 0", "DELETE FROM account", "INSERT INTO account (owner, balance) VALUES ('x', 1)"],
)
def test_refused_whatever_way(standing: Standing, way: str, sql: str) -> None:
    """Text that writes an audited table is refused before it runs, whatever way it is executed."""
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    with Session(engine) as session:
        with pytest.raises(sa_audit.UnauditedWrite, match="textual statement that writes the audited table account"):
            WAYS[way](session, sql)
        session.rollback()
        assert session.scalar(sa.select(sa.func.sum(AUDITED.Account.balance))) == 150


@pytest.mark.parametrize(
    "sql", ["SELECT balance FROM account ORDER BY id", "SELECT replace(owner, 'a', 'b') FROM account"]
)
def test_reads_run(standing: Standing, sql: str) -> None:
    """Text that reads an audited table runs, and nothing is recorded."""
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    with Session(engine) as session:
        assert len(session.execute(sa.text(sql)).all()) == 5
        assert len(session.connection().exec_driver_sql(sql).all()) == 5
        entities = sa.select(AUDITED.Account).from_statement(sa.text("SELECT * FROM account"))
        assert len(session.scalars(entities).all()) == 5


def test_text_on_other_tables_runs(standing: Standing) -> None:
    """Text that writes a table which is not audited runs, also where it reads one that is."""
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    with Session(engine) as session:
        session.execute(sa.text("DELETE FROM rate WHERE owner = 'ann'"))
        session.execute(sa.text("INSERT INTO rate (owner, percent) SELECT 'sum', sum(balance) FROM account"))
        assert session.get_one(AUDITED.Rate, "sum").percent == 150
        session.rollback()


def test_allowed(engine: Engine) -> None:
    """With text_dml="allow" text passes, unrecorded; composed statements are recorded as ever."""

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, text_dml="allow")

    class Thing(Audited, Base):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(sa.text("INSERT INTO thing (id) VALUES (1)"))
        session.execute(sa.insert(Thing).values(id=2))
        session.commit()
        assert session.scalars(sa.select(Thing.id).order_by(Thing.id)).all() == [1, 2]
    assert [row.key for row in history_of(engine, Thing)] == [(2,)]


def test_event_that_runs_text_ddl(engine: Engine) -> None:
    """A DDL() that fills an audited table after it was created is refused like any text."""
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table)
    metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite):
        connection.execute(sa.DDL("INSERT INTO t VALUES (1)"))
