"""Trigger capture: what only the database sees, who it says it was, and what the session does and does not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import sa_audit
from sa_audit import Audited, AuditOptions, Exclude, Mask
from sa_audit.ddl import backend_for
from sa_audit.ddl.events import run
from sa_audit.model import require_audited
from sa_audit.query import history, reconcile
from sa_audit.testing import unguarded
from tests.capture.recorded import behind_the_back, check, entries_of, history_of, ops, rows_of, statements, story


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, capture="trigger", testing=True)


class Account(Audited, Base):
    __tablename__ = "account_bt"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(sa.String(50))
    n: Mapped[int | None]
    pin: Mapped[str | None] = mapped_column(sa.String(50), info={"sa_audit": Mask()})
    seen: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})


class Log(Base):  # not audited
    __tablename__ = "log_bt"

    id: Mapped[int] = mapped_column(primary_key=True)


class StrictBase(DeclarativeBase):
    pass


sa_audit.configure(StrictBase, capture="trigger", require_actor=True, require_reason=True)


class Strict(Audited, StrictBase):
    __tablename__ = "strict_bt"

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int | None]


accounts: Any = Account.__table__
INSERT = "INSERT INTO account_bt (id, owner, n) VALUES (1, 'ann', 1)"


@pytest.fixture
def bank(engine: sa.Engine) -> Iterator[sa.Engine]:
    """An engine to a database with the tables of this module; in the end the trail is compared with them."""
    Base.metadata.create_all(engine)
    yield engine
    check(engine, Base.metadata)


def actors(engine: sa.Engine) -> list[str | None]:
    """Give the actor of each history row."""
    return [row.actor for row in rows_of(engine, Account)]


# -- what is recorded ---------------------------------------------------------------------------


def test_text_is_recorded_with_its_actor(bank: sa.Engine) -> None:
    """Text on a session's connection is recorded, and carries the session's actor."""
    with sa_audit.context(actor="alice", reason="why"), Session(bank) as session:
        session.execute(sa.text(INSERT))
        session.execute(sa.text("UPDATE account_bt SET owner = 'bob' WHERE id = 1"))
        session.connection().exec_driver_sql("DELETE FROM account_bt")
        session.commit()
    assert story(bank, Account, "owner") == [("I", None, "ann"), ("U", {"owner": "ann"}, "bob"), ("D", None, "bob")]
    assert actors(bank) == ["alice"] * 3
    (entry,) = entries_of(bank, Base)
    assert entry.reason == "why"


def test_other_programs_are_recorded(bank: sa.Engine) -> None:
    """What goes past SQLAlchemy is recorded with what the database knows, and no actor."""
    with sa_audit.context(actor="alice"):
        behind_the_back(
            bank, INSERT, "UPDATE account_bt SET n = 2", "UPDATE account_bt SET n = 2", "DELETE FROM account_bt"
        )
    assert story(bank, Account, "n") == [("I", None, 1), ("U", {"n": "1"}, 2), ("D", None, 2)]
    assert actors(bank) == [None] * 3
    if bank.dialect.name != "sqlite":
        assert all(entry.db_user for entry in entries_of(bank, Base))


FORMS: dict[str, Callable[[], Any]] = {
    "an alias": lambda: sa.update(accounts.alias("a")).values(n=7),
    "a lightweight table": lambda: sa.update(sa.table("account_bt", sa.column("n"))).values(n=7),
    "a key set by SQL": lambda: sa.update(accounts).values(id=accounts.c.id + 10, n=7),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_the_session_refuses(bank: sa.Engine, form: str) -> None:
    """What session capture has to refuse is recorded."""
    if form == "an alias" and bank.dialect.name == "sqlite":
        pytest.skip("SQLAlchemy does not render an UPDATE of an alias there")
    with sa_audit.context(actor="alice"), bank.begin() as connection:
        connection.execute(sa.insert(accounts), [{"id": i, "n": i} for i in (1, 2)])
        connection.execute(FORMS[form]())
    with bank.connect() as connection:
        assert connection.scalars(sa.select(accounts.c.n)).all() == [7, 7]
    assert set(actors(bank)) == {"alice"}


@pytest.mark.only_on("postgresql")
def test_a_write_inside_a_read(bank: sa.Engine) -> None:
    """DML in a CTE is recorded."""
    cte = sa.insert(accounts).values(id=1, n=1).returning(accounts.c.id).cte("made")
    with sa_audit.context(actor="alice"), bank.begin() as connection:
        assert connection.scalars(sa.select(cte.c.id)).all() == [1]
    assert actors(bank) == ["alice"]


def test_a_masked_value_is_nowhere(bank: sa.Engine) -> None:
    """The trigger never writes a masked or excluded value; a change of the first is told, of the second is not."""
    behind_the_back(
        bank,
        "INSERT INTO account_bt (id, pin, seen) VALUES (1, 'secret-1', 1)",
        "UPDATE account_bt SET pin = 'secret-2'",
        "UPDATE account_bt SET seen = 2",
        "UPDATE account_bt SET seen = 3, n = 4",
    )
    assert [(row.op, row.before) for row in rows_of(bank, Account)] == [
        ("I", None),
        ("U", {"pin": True}),
        ("U", {"n": None}),
    ]
    with bank.connect() as connection:
        for table in Base.metadata.tables.values():
            if sa_audit.is_trail_table(table):
                assert "secret" not in repr(connection.execute(sa.select(table)).all())


@pytest.mark.needs("truncate-trigger")
def test_truncate(bank: sa.Engine) -> None:
    """TRUNCATE is recorded as such, by whom it was, and the past before it still stands."""
    with sa_audit.context(actor="alice"), Session(bank) as session:
        session.add_all([Account(id=1, owner="ann"), Account(id=2, owner="bob")])
        session.commit()
        session.execute(sa.text("TRUNCATE account_bt"))
        session.commit()
        assert [change.operation for change in history(session, Account, 1)] == ["insert", "truncate"]
        assert list(reconcile(session, Account)) == []
        inserted = history(session, Account, 1)[0].recorded_at
    with sa_audit.as_of(bank, inserted) as past:
        assert past.scalars(sa.select(Account.owner).order_by(Account.id)).all() == ["ann", "bob"]
    assert ops(bank, Account) == "IIT"
    assert actors(bank) == ["alice"] * 3


@pytest.mark.needs("truncate-trigger")
def test_fixtures_can_truncate(bank: sa.Engine) -> None:
    """Inside `unguarded` TRUNCATE leaves no trace, so that fixtures can clear everything; afterwards it does."""
    behind_the_back(bank, INSERT)
    with unguarded(bank):
        behind_the_back(bank, "TRUNCATE account_bt, account_bt_history, audit_transaction")
    assert ops(bank, Account) == ""
    behind_the_back(bank, INSERT, "TRUNCATE account_bt")
    assert ops(bank, Account) == "IT"


# -- who it was ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["commit", "rollback", "close", "error"])
def test_the_actor_does_not_stay_on_the_connection(make_engine: Callable[..., sa.Engine], ending: str) -> None:
    """Whoever gets the connection next is not taken for the one before, however that one's transaction ended."""
    engine = make_engine(pool_size=1, max_overflow=0)
    Base.metadata.create_all(engine)
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add(Account(id=1, n=1))
        session.flush()
        if ending == "error":
            with pytest.raises(sa.exc.DBAPIError):
                session.execute(sa.text("SELECT no_such_column"))
        elif ending in ("commit", "rollback"):
            getattr(session, ending)()
    behind_the_back(engine, "INSERT INTO account_bt (id, n) VALUES (2, 2)")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO account_bt (id, n) VALUES (3, 3)"))
    assert [(row.values["id"], row.actor) for row in rows_of(engine, Account) if row.values["id"] > 1] == [
        (2, None),
        (3, None),
    ]
    assert actors(engine) == [*(["alice"] if ending == "commit" else []), None, None]


def test_one_round_trip_for_a_writing_transaction(bank: sa.Engine) -> None:
    """Who and why is said once before the first write, and not in a transaction that only reads."""
    make = sessionmaker(bank)
    with sa_audit.context(actor="alice"), make.begin() as session:
        session.add_all([Account(id=i, n=i) for i in range(1, 4)])
    with statements(bank) as read, sa_audit.context(actor="alice"), make() as session:
        session.get(Account, 1)
        session.scalar(sa.select(sa.func.count()).select_from(Account))
        session.execute(sa.select(sa.func.lower(Account.owner), sa.func.coalesce(Account.n, 0))).all()
        session.commit()
    assert len(read) == 3
    with statements(bank) as plain, make.begin() as session:
        session.get_one(Account, 1).n = 10
    with statements(bank) as written, sa_audit.context(actor="bob"), make() as session:
        session.get_one(Account, 1).n = 11
        session.flush()
        session.get_one(Account, 2).n = 12
        session.execute(sa.text("UPDATE account_bt SET n = 13 WHERE id = 3"))
        session.commit()
    own = [sql for sql in written if "account_bt" not in sql]
    # one to tell, unless it goes along with the first write; where the database does not forget by itself, one to take
    # it back; in SQLite's process one to look
    expected = {"sqlite": 3, "postgresql": 0 if bank.driver == "psycopg" else 1}
    assert len(own) == expected.get(bank.dialect.name, 1)
    assert len(plain) == (5 if bank.dialect.name == "sqlite" else 2)
    assert actors(bank) == ["alice"] * 3 + [None] + ["bob"] * 3


def test_the_context_changes_midway(bank: sa.Engine) -> None:
    """Each change is its own actor's, and an actor who comes back has one entry."""
    with Session(bank) as session:
        for key, actor in enumerate(["ann", "bob", "ann", None], 1):
            with sa_audit.context(actor=actor):
                session.execute(sa.text(f"INSERT INTO account_bt (id) VALUES ({key})"))
        session.commit()
    assert actors(bank) == ["ann", "bob", "ann", None]
    entries = entries_of(bank, Base)
    assert [entry.actor for entry in entries] == ["ann", "bob", None]
    assert [entry.first_id for entry in entries] == [None, entries[0].id, entries[0].id]
    assert len({entry.recorded_at for entry in entries}) == 1


@pytest.mark.parametrize("first", [True, False])
def test_savepoints(bank: sa.Engine, first: bool) -> None:
    """What is said inside a savepoint goes with it, and so does an entry that was born there."""
    with sa_audit.context(actor="ann"), Session(bank) as session:
        session.begin()
        if first:
            session.execute(sa.text("INSERT INTO account_bt (id) VALUES (1)"))
        with sa_audit.context(actor="eve"):
            nested = session.begin_nested()
            session.execute(sa.text("INSERT INTO account_bt (id) VALUES (2)"))
            nested.rollback()
        session.execute(sa.text("INSERT INTO account_bt (id) VALUES (3)"))
        with sa_audit.context(actor="bob"), session.begin_nested():
            session.execute(sa.text("INSERT INTO account_bt (id) VALUES (4)"))
        session.execute(sa.text("INSERT INTO account_bt (id) VALUES (5)"))
        session.commit()
    found = [(row.values["id"], row.actor) for row in rows_of(bank, Account)]
    assert found == [*([(1, "ann")] if first else []), (3, "ann"), (4, "bob"), (5, "ann")]
    assert sorted(entry.actor for entry in entries_of(bank, Base)) == ["ann", "bob"]


def test_everything_that_a_context_says(bank: sa.Engine) -> None:
    """All fields and any JSON arrive as they were said."""
    said: dict[str, Any] = {
        "actor": 'o\'neil \\ "x" ü:y %s',
        "on_behalf_of": "b",
        "reason": "line\nbreak",
        "request_id": "r",
        "remote_addr": "2001:db8::1",
        "deep": {"list": [1, 2.5, None, True, "ü"]},
    }
    with sa_audit.context(**said), Session(bank) as session:
        session.add(Account(id=1))
        session.commit()
    (entry,) = entries_of(bank, Base)
    assert {name: getattr(entry, name) for name in said if name != "deep"} == {
        name: value for name, value in said.items() if name != "deep"
    }
    assert entry.context == {"deep": said["deep"]}


@pytest.mark.parametrize("given", [{}, {"actor": " "}, {"actor": "ann"}, {"reason": "why"}])
def test_the_database_asks_for_an_actor_and_a_reason(engine: sa.Engine, given: dict[str, str]) -> None:
    """Where they are required the database refuses a change without them, also after a change that had them."""
    StrictBase.metadata.create_all(engine)
    with sa_audit.context(**given), Session(engine) as session:
        with pytest.raises(sa.exc.DBAPIError, match=r"sa_audit: a change with no (actor|reason)"):
            session.execute(sa.text("INSERT INTO strict_bt (id) VALUES (1)"))
        session.rollback()
        session.add(Strict(id=1))
        with pytest.raises((sa_audit.ActorRequired, sa_audit.ReasonRequired)):
            session.flush()
    with Session(engine) as session:
        with sa_audit.context(actor="ann", reason="why"):
            session.execute(sa.text("INSERT INTO strict_bt (id) VALUES (1)"))
        with sa_audit.context(**given), pytest.raises(sa.exc.DBAPIError, match="sa_audit: a change with no"):
            session.execute(sa.text("UPDATE strict_bt SET n = 1"))
    driver = engine.raw_connection()
    with pytest.raises(engine.dialect.loaded_dbapi.Error, match="sa_audit: a change with no actor"):
        driver.cursor().execute("INSERT INTO strict_bt (id) VALUES (1)")
    driver.rollback()
    driver.close()
    assert ops(engine, Strict) == ""
    with sa_audit.context(actor="ann", reason="why"), Session(engine) as session:
        session.add(Strict(id=1))
        session.commit()
    assert ops(engine, Strict) == "I"


# -- what is refused ---------------------------------------------------------------------------------


FORGOTTEN: dict[str, Callable[[Session], Any]] = {
    "flush": lambda session: (session.add(Account(id=1)), session.flush()),
    "core": lambda session: session.execute(sa.insert(accounts).values(id=1)),
    "text": lambda session: session.execute(sa.text("INSERT INTO account_bt (id) VALUES (1)")),
    "another name": lambda session: session.execute(sa.insert(sa.table("account_bt", sa.column("id"))).values(id=1)),
}


def test_a_table_of_that_name_in_another_database(engine: sa.Engine) -> None:
    """A table of this database that is not audited has the name of one that is, in a database not used here."""
    elsewhere, here = sa.MetaData(), sa.MetaData()
    sa_audit.configure(elsewhere, capture="trigger")
    sa_audit.configure(here, capture="trigger")
    namesake = sa.Table("namesake", elsewhere, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(namesake)
    plain = sa.Table("namesake", here, sa.Column("id", sa.Integer, primary_key=True))
    recorded = sa.Table("recorded", here, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(recorded)
    here.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(plain), {"id": 1})
        connection.execute(sa.text("INSERT INTO namesake (id) VALUES (2)"))
        connection.execute(sa.insert(recorded), {"id": 1})
    with engine.connect() as connection:
        assert connection.scalars(sa.select(plain.c.id).order_by(plain.c.id)).all() == [1, 2]
        assert [op for (op,) in connection.execute(sa.text("SELECT audit_op FROM recorded_history"))] == ["I"]


@pytest.mark.parametrize("way", FORGOTTEN)
def test_a_forgotten_migration(engine: sa.Engine, way: str) -> None:
    """A table whose trigger is not there is not written in silence, whichever way a session writes it."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        objects = backend_for(engine.dialect).capture(require_audited(accounts), {}, engine.dialect.default_schema_name)
        for entry in objects:
            if entry.kind == "trigger":
                run(connection, entry.drop)
    with Session(engine) as session, pytest.raises(sa_audit.CaptureMissing, match="account_bt"):
        FORGOTTEN[way](session)
    with Session(engine) as session:
        assert session.scalars(sa.select(Account.id)).all() == []


@pytest.mark.parametrize("missing", ["audit_transaction", "account_bt_history"])
def test_a_table_of_the_trail_went_missing(engine: sa.Engine, missing: str) -> None:
    """The table that the trigger could not write is named, although the triggers are there."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Account(id=1))
        session.commit()
    behind_the_back(engine, f"DROP TABLE {missing}")
    with Session(engine) as session:
        with pytest.raises(sa_audit.CaptureMissing, match=missing):
            session.execute(sa.insert(accounts).values(id=2))
        session.rollback()
        assert session.scalars(sa.select(Account.id)).all() == [1]


def test_a_forgotten_migration_of_what_a_foreign_key_reaches(engine: sa.Engine) -> None:
    """The parent is not written either, since the rows that go with it would not be recorded."""
    base, parent, child = mixed("session", "trigger")
    base.metadata.create_all(engine)
    objects = backend_for(engine.dialect).capture(require_audited(child.__table__), {}, None)
    with engine.begin() as connection:
        for entry in objects:
            if entry.kind == "trigger":
                run(connection, entry.drop)
    with Session(engine) as session, pytest.raises(sa_audit.CaptureMissing, match="child_bt"):
        session.execute(sa.delete(parent))


def test_autocommit(make_engine: Callable[..., sa.Engine]) -> None:
    """In AUTOCOMMIT the actor could not be recorded, so a text that has one is refused; one that has none is not."""
    engine = make_engine(isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    for actor, statement in (("ann", sa.text(INSERT)), (None, sa.insert(accounts).values(id=1))):
        with sa_audit.context(actor=actor), engine.connect() as connection:  # noqa: SIM117 (the error is expected inside)
            with pytest.raises(sa_audit.UnauditedWrite, match="AUTOCOMMIT"):
                connection.execute(statement)
    with engine.connect() as connection:
        connection.execute(sa.text(INSERT))
        connection.execute(sa.text("UPDATE account_bt SET n = 2"))
    assert story(engine, Account, "n") == [("I", None, 1), ("U", {"n": "1"}, 2)]
    assert len(entries_of(engine, Base)) == 2
    assert actors(engine) == [None, None]


# -- both ways in one trail ----------------------------------------------------------------------------


def mixed(parent: Any, child: Any) -> Any:
    """Declare two tables of one trail, each captured in its own way, the child's rows going with the parent's."""

    class MixedBase(DeclarativeBase):
        pass

    class Parent(Audited, MixedBase):
        __tablename__ = "parent_bt"
        __audit__ = AuditOptions(capture=parent)
        id: Mapped[int] = mapped_column(primary_key=True)
        n: Mapped[int | None]

    class Child(Audited, MixedBase):
        __tablename__ = "child_bt"
        __audit__ = AuditOptions(capture=child)
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("parent_bt.id", ondelete="CASCADE"))

    return MixedBase, Parent, Child


@pytest.mark.parametrize("way", ["core", "flush", "text"])
@pytest.mark.parametrize(("one", "other"), [("session", "trigger"), ("trigger", "session"), ("trigger", "trigger")])
def test_each_table_has_one_writer(engine: sa.Engine, one: str, other: str, way: str) -> None:
    """A cascade from a table captured one way to one captured the other is recorded once."""
    base, parent, child = mixed(one, other)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _record: driver.execute("PRAGMA foreign_keys = ON"))
    base.metadata.create_all(engine)
    with sa_audit.context(actor="ann"), Session(engine) as session:
        session.add(parent(id=1, n=1))
        session.flush()
        session.add_all([child(id=1, parent_id=1), child(id=2, parent_id=1)])
        session.flush()
        session.get_one(parent, 1).n = 2
        session.flush()
        if way == "flush":
            session.delete(session.get_one(parent, 1))
            session.flush()
        elif way == "core":
            session.execute(sa.delete(parent))
        elif "session" in (one, other):
            with pytest.raises(sa_audit.UnauditedWrite):
                session.execute(sa.text("DELETE FROM child_bt" if other == "session" else "DELETE FROM parent_bt"))
            return
        else:
            session.execute(sa.text("DELETE FROM parent_bt"))
        session.commit()
    assert (ops(engine, parent), ops(engine, child)) == ("IUD", "IIDD")
    assert {row.actor for row in rows_of(engine, child)} == {"ann"}
    assert len({entry.first_id or entry.id for entry in entries_of(engine, base)}) == 1
    check(engine, base.metadata)


def test_rows_carry_no_flush(bank: sa.Engine) -> None:
    """The database does not know of flushes, so it does not tell of any."""
    with Session(bank) as session:
        session.add(Account(id=1))
        session.commit()
    with bank.connect() as connection:
        assert connection.scalars(sa.select(history_of(Account).c.audit_flush)).all() == [None]
