"""The trail, page by page, and single transactions."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, CaptureMissing, ConfigurationError, InvalidMoment, NotAudited, context
from sa_audit.query import Change, Page, history, trail, transaction
from tests.capture.recorded import statements
from tests.databases import Database

from .models import Account, Base, Boat, Car, Engineer, Person, Plain, Player, Team, setting

pytestmark = [pytest.mark.both_captures, pytest.mark.wide_on("mariadb")]

Open = Callable[[], Session]


def _all(session: Session, limit: int = 100, **wanted: Any) -> list[Change]:
    entries: list[Change] = []
    after = None
    while True:
        page = trail(session, limit=limit, after=after, **wanted)
        assert len(page.entries) <= limit
        entries += page.entries
        if page.next is None:
            return entries
        after = page.next


def _fill(session: Session) -> None:
    with context(actor="a", reason="one"):
        session.add_all([Account(id=1, owner="ann"), Engineer(id=1, name="eve", skill="c"), Car(id=1), Boat(id=2)])
        session.commit()
    with context(actor="b"):
        session.get_one(Account, 1).balance = Decimal("2.00")
        session.get_one(Engineer, 1).skill = "sql"
        session.flush()
        with context(actor="c"):
            session.get_one(Account, 1).owner = "eve"
            session.flush()
        session.get_one(Engineer, 1).name = "EVE"
        session.flush()
        session.execute(sa.insert(setting), [{"scope": "s", "nom": "a", "valeur": "1"}])
        session.commit()
    with context(actor="a"):
        session.delete(session.get_one(Account, 1))
        session.add(Team(id=1, name="reds", players=[Player(id=1, name="p")]))
        session.commit()


def _shown(changes: list[Change]) -> list[tuple[str, tuple[Any, ...], str, str | None]]:
    return [(change.entity, change.identity, change.operation, change.actor) for change in changes]


@pytest.mark.session_capture("a trigger does not know the flush")
def test_one_order_in_pages_of_any_size(session: Session) -> None:
    """All tables' changes come in one order, each once, whatever the size of the pages."""
    _fill(session)
    entries = _all(session)
    steps = [
        {("Account", "insert", "a"), ("Engineer", "insert", "a"), ("Car", "insert", "a"), ("Boat", "insert", "a")},
        {("Account", "update", "b"), ("Engineer", "update", "b")},
        {("Account", "update", "c")},
        {("Engineer", "update", "b")},
        {("setting", "insert", "b")},
        {("Account", "delete", "a"), ("Team", "insert", "a"), ("Player", "insert", "a"), ("membership", "insert", "a")},
    ]
    found = [(change.entity, change.operation, change.actor) for change in entries]
    for step in steps:
        assert set(found[: len(step)]) == step
        del found[: len(step)]
    assert found == []
    assert [change.recorded_at for change in entries] == sorted(change.recorded_at for change in entries)
    for limit in (1, 2, 3, 7):
        assert _all(session, limit) == entries


def test_entries_are_the_changes_of_the_rows_history(session: Session) -> None:
    """An entry equals the change that the row's history shows."""
    _fill(session)
    assert _all(session, entity=Account) == history(session, Account, 1)
    assert _all(session, entity=Person) == history(session, Person, 1)
    assert _all(session, entity=setting) == history(session, setting, ("s", "a"))


def test_filters(session: Session) -> None:
    """Actor, entity, identity, operation and bounds narrow the trail, alone and together."""
    _fill(session)
    entries = _all(session)
    middle = entries[4].recorded_at
    for limit in (1, 100):
        assert _all(session, limit, actor="c") == [change for change in entries if change.actor == "c"]
        assert _all(session, limit, actor="b") == [change for change in entries if change.actor == "b"]
        assert _all(session, limit, actor="nobody") == []
        assert _all(session, limit, operation="delete") == [c for c in entries if c.operation == "delete"]
        assert _all(session, limit, entity=Engineer) == [c for c in entries if c.entity == "Engineer"]
        assert _all(session, limit, entity=Car) == [c for c in entries if c.entity == "Car"]
        assert _all(session, limit, entity=Account, identity=1) == history(session, Account, 1)
        assert _all(session, limit, entity=Account, identity=9) == []
        assert _all(session, limit, entity=Account, actor="a", operation="delete") == history(session, Account, 1)[-1:]
        assert _all(session, limit, since=middle) == [c for c in entries if c.recorded_at >= middle]
        assert _all(session, limit, until=middle) == [c for c in entries if c.recorded_at <= middle]
    assert _all(session, base=Base) == entries


def test_end_of_a_page_continues_later(session: Session) -> None:
    """The end of the last page is where the next question goes on."""
    assert trail(session) == Page()
    _fill(session)
    page = trail(session)
    assert page.next is None
    assert trail(session, after=page.end).entries == []
    assert trail(session, after=page.end).end == page.end
    session.add(Account(id=9, owner="late"))
    session.commit()
    assert _shown(trail(session, after=page.end).entries) == [("Account", (9,), "insert", None)]


@pytest.mark.needs("concurrent-writers")
def test_nothing_appears_behind_a_reader(session: Session, open_session: Open) -> None:
    """A page stops before the oldest open writer, and shows what it withheld once the writer is done."""
    session.add(Account(id=1, owner="first"))
    session.commit()
    slow = open_session()
    slow.add(Account(id=2, owner="slow"))
    slow.flush()
    quick = open_session()
    quick.add(Account(id=3, owner="quick"))
    quick.commit()
    page = trail(open_session())
    assert [change.identity for change in page.entries] == [(1,)]
    assert page.withheld
    assert page.next is None
    slow.commit()
    rest = trail(open_session(), after=page.end)
    assert [change.identity for change in rest.entries] == [(2,), (3,)]
    assert not rest.withheld


@pytest.mark.needs("concurrent-writers")
def test_a_reader_follows_many_writers(bank: sa.Engine) -> None:
    """A reader who follows the trail while others write sees each entry once, in order."""
    done = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for turn in range(12):
                with Session(bank) as session:
                    session.add(Account(id=100 * number + turn, owner="x"))
                    session.flush()
                    session.add(Player(id=100 * number + turn, name="x"))
                    session.commit()
        except BaseException as error:
            failures.append(error)
            raise

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
    reader = threading.Thread(target=lambda: [writer.join() for writer in writers] and done.set())
    for thread in (*writers, reader):
        thread.start()
    seen: list[Change] = []
    after = None
    while True:
        last = done.is_set()
        with Session(bank) as session:
            page = trail(session, limit=5, after=after)
        seen += page.entries
        after = page.end
        if last and page.next is None and not page.withheld:
            break
    reader.join()
    assert not failures
    with Session(bank) as session:
        assert seen == _all(session)
    assert len(seen) == 72


@pytest.mark.needs("roles", "snapshots")
def test_hidden_writers_are_told(session: Session, bank: sa.Engine, database: Database) -> None:
    """A role that may not see when an open writer began gets no page that could miss its entries."""
    role = f"{database.role_prefix}reader"
    with bank.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    session.add(Account(id=1, owner="open"))
    session.flush()
    reader = sa.create_engine(bank.url.set(username=role))
    try:
        with Session(reader) as own, pytest.raises(CaptureMissing, match="GRANT pg_read_all_stats"):
            trail(own, base=Base)
        session.commit()
        with Session(reader) as own:
            assert _shown(trail(own, base=Base).entries) == [("Account", (1,), "insert", None)]
    finally:
        reader.dispose()


@pytest.mark.needs("two-phase", "snapshots")
def test_prepared_writers_are_told(bank: sa.Engine, open_session: Open) -> None:
    """A prepared transaction, whose start nobody knows, is named."""
    writer = Session(bank, twophase=True)
    writer.add(Account(id=1, owner="prepared"))
    writer.prepare()
    try:
        with pytest.raises(CaptureMissing, match=r"prepared transaction .* commit it or roll it back"):
            trail(open_session())
    finally:
        writer.commit()
        writer.close()
    assert len(trail(open_session()).entries) == 1


@pytest.mark.needs("concurrent-writers")
def test_a_writer_that_is_newer_than_all_others(session: Session, open_session: Open) -> None:
    """A writer is seen that began after, and wrote before, a transaction that has ended."""
    early = open_session()
    early.add(Plain(id=1))
    early.flush()
    session.add(Account(id=2, owner="open"))
    session.flush()
    early.add(Account(id=1, owner="late in an early transaction"))
    early.commit()
    page = trail(open_session())
    assert page.entries == []
    assert page.withheld
    session.commit()
    assert [change.identity for change in trail(open_session()).entries] == [(2,), (1,)]


@pytest.mark.needs("concurrent-writers")
def test_readers_with_an_old_snapshot(bank: sa.Engine, session: Session, open_session: Open) -> None:
    """A snapshot shows nothing behind which a writer that it found open has committed since."""
    session.add(Account(id=1, owner="slow"))
    session.flush()
    quick = open_session()
    quick.add(Account(id=2, owner="quick"))
    quick.commit()
    with Session(bank.execution_options(isolation_level="REPEATABLE READ")) as reader:
        assert reader.get(Account, 2) is not None
        session.commit()
        page = trail(reader, base=Base)
        assert page.entries == []
        assert page.withheld
        reader.rollback()
        assert [change.identity for change in trail(reader, base=Base).entries] == [(1,), (2,)]


_SLOW_ANALYZE = """
CREATE FUNCTION slow_for_autovacuum(id integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'autovacuum worker') THEN
    PERFORM pg_current_xact_id(), pg_sleep(30);
  END IF;
  RETURN id;
END $$;
CREATE TABLE analyzed (id integer) WITH (autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0);
CREATE INDEX ON analyzed (slow_for_autovacuum(id));
INSERT INTO analyzed SELECT generate_series(1, 1000)
"""


@pytest.mark.only_on("postgresql")
def test_autovacuum_withholds_nothing(bank: sa.Engine, session: Session) -> None:
    """A page does not stop at autovacuum, whose transactions last for as long as a table takes and add no entries."""
    with bank.execution_options(isolation_level="AUTOCOMMIT").connect() as other:
        if other.exec_driver_sql("SHOW autovacuum_naptime").scalar_one() != "1s":
            pytest.skip("autovacuum comes by too rarely on this server")
        other.exec_driver_sql(_SLOW_ANALYZE)
        worker = _wait_for(other, "backend_type = 'autovacuum worker' AND backend_xid IS NOT NULL")
        try:
            session.add(Account(id=1, owner="during"))
            session.commit()
            page = trail(session)
            assert [change.identity for change in page.entries] == [(1,)]
            assert not page.withheld
        finally:
            ended = other.exec_driver_sql(f"SELECT pg_terminate_backend({worker}, 10000)").scalar_one()
        assert ended, "autovacuum was at work all the time"


def _wait_for(connection: sa.Connection, condition: str) -> int:
    """Wait for a process in this database, and give its number."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    for _attempt in range(600):
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        pid: int | None = connection.exec_driver_sql(query).scalar()
        if pid is not None:
            return pid
        time.sleep(0.05)
    raise AssertionError(f"no process came: {condition}")


def test_own_changes_are_shown(session: Session, open_session: Open) -> None:
    """What the session's own transaction has written is shown to it, and to nobody else."""
    session.add(Account(id=1, owner="mine"))
    session.flush()
    assert _shown(trail(session).entries) == [("Account", (1,), "insert", None)]
    session.rollback()
    assert trail(open_session()).entries == []


def test_other_models_in_the_process(session: Session) -> None:
    """Of MetaData that describe the same history table, the one known to stand in the database speaks for it."""
    _fill(session)
    entries = _all(session)

    class OtherBase(DeclarativeBase):
        pass

    class Elsewhere(Audited, OtherBase):
        __tablename__ = "elsewhere"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Renamed(Audited, OtherBase):
        __tablename__ = "player"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert _all(session) == entries
    assert _all(session, base=Base) == entries
    assert OtherBase.metadata.info["sa_audit.trail"].audited  # its tables are in the way of nothing


def _declare(name: str) -> Any:
    class Stranger(DeclarativeBase):
        pass

    class Row(Audited, Stranger):
        __tablename__ = name

        id: Mapped[int] = mapped_column(primary_key=True)

    return Stranger


def test_the_catalog_is_read_once(session: Session, bank: sa.Engine) -> None:
    """However many models the process knows whose tables are elsewhere, a page takes the same statements."""
    _fill(session)
    page = trail(session)
    with statements(bank) as few:
        assert trail(session) == page
    strangers = [_declare(f"stranger_{number}") for number in range(20)]
    with statements(bank) as many:
        assert trail(session) == page
    assert len(many) == len(few)
    assert len(strangers) == 20


@pytest.mark.session_capture("a trigger does not know the flush")
def test_transaction(session: Session) -> None:
    """A transaction shows all that it did, in order, and each of its contexts."""
    _fill(session)
    first, second = history(session, Account, 1)[1:3]
    record = transaction(session, second.transaction.id)
    assert record == transaction(session, first.transaction.id, base=Base)
    assert [info.actor for info in record.infos] == ["b", "c"]
    assert (record.id, record.actor, record.reason) == (first.transaction.id, "b", None)
    assert [change.actor for change in record.changes] == ["b", "b", "c", "b", "b"]
    assert record.changes[2] == second
    assert {info.recorded_at for info in record.infos} == {record.recorded_at}
    with pytest.raises(NotAudited, match="no transaction 999"):
        transaction(session, 999)


def test_arguments_that_are_refused(session: Session) -> None:
    """Each argument that can't be used is named with the way out."""
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"operation": "upsert"}, ConfigurationError, "'upsert': give one of insert"),
        ({"action": "paid", "operation": "insert"}, ConfigurationError, "name of an event alone"),
        ({"actor": 5}, ConfigurationError, "actor=5: give the name of an actor"),
        ({"limit": 0}, ConfigurationError, "limit=0"),
        ({"limit": True}, ConfigurationError, "limit=True"),
        ({"identity": 1}, ConfigurationError, "needs entity"),
        ({"after": "x"}, ConfigurationError, "no cursor"),
        ({"after": "bnVsbA"}, ConfigurationError, "no cursor"),
        ({"after": 5}, ConfigurationError, "no cursor"),
        ({"entity": Plain}, NotAudited, "Plain is not audited"),
        ({"base": sa.MetaData()}, NotAudited, "no audited models"),
        ({"since": dt.datetime(2026, 1, 1)}, InvalidMoment, "since"),
        ({"entity": Account, "identity": (1, 2)}, NotAudited, r"key \(id\)"),
    ]
    for arguments, error, says in cases:
        with pytest.raises(error, match=says):
            trail(session, **arguments)
    with pytest.raises(ConfigurationError, match="an integer"):
        transaction(session, "1")  # type: ignore[arg-type]


def test_database_without_trail(engine: sa.Engine) -> None:
    """An empty database has no trail, rather than an empty one."""
    with Session(engine) as session:
        with pytest.raises(CaptureMissing, match="create_all"):
            trail(session)
        with pytest.raises(CaptureMissing, match="audit_transaction"):
            trail(session, base=Base)
