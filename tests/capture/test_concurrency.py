"""Other sessions at work: what they change in between is neither recorded as ours, nor changed by us unrecorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.ddl.backend import INTERNAL
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded, history_of
from tests.databases import Database

pytestmark = pytest.mark.both_captures

METADATA = sa.MetaData()
ITEM = sa.Table(
    "item",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(20), unique=True),
    sa.Column("n", sa.Integer),
)
OTHER = sa.Table("other", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
sa_audit.track(ITEM)


def _fill(session: Session) -> None:
    session.connection().execute(sa.insert(ITEM), [{"id": i, "name": f"i{i}", "n": i} for i in range(1, 6)])
    session.connection().execute(sa.insert(OTHER), [{"id": i, "n": i} for i in range(1, 6)])


@pytest.fixture
def ground(standing: Standing) -> Iterator[Engine]:
    """An engine to the tables, made anew for each test; everything is recorded when the test is over."""
    standing.untouched = False
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    yield engine
    assert_recorded(engine, METADATA)


@contextmanager
def just_before(engine: Engine, kind: str, act: Callable[[Connection], Any]) -> Iterator[None]:
    """Have another session act, and commit, just before the first statement of the user's that begins with a word."""
    done: list[bool] = []

    def hook(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        if not done and sql.lstrip().upper().startswith(kind) and INTERNAL not in context.execution_options:
            done.append(True)
            with sa_audit.context(actor="other"), engine.connect() as other:
                act(other)
                other.commit()

    sa.event.listen(engine, "before_cursor_execute", hook)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", hook)
    assert done


def _insert_six(connection: Connection) -> None:
    connection.execute(sa.insert(ITEM), {"id": 6, "name": "i6", "n": 6})


def _isolated(engine: Engine, level: str) -> Engine:
    return engine.execution_options(isolation_level=level)


MANY = [{"who": 6, "b_n": 60}, {"who": 1, "b_n": 10}]
PHANTOMS: dict[str, tuple[str, Any, Any]] = {
    "update": ("UPDATE", sa.update(ITEM).where(ITEM.c.n > 3).values(n=0), None),
    "update of everything": ("UPDATE", sa.update(ITEM).values(n=0), None),
    "many updates by key": (
        "UPDATE",
        sa.update(ITEM).where(ITEM.c.id == sa.bindparam("who")).values(n=sa.bindparam("b_n")),
        MANY,
    ),
    "many updates by criteria": (
        "UPDATE",
        sa.update(ITEM).where(ITEM.c.n == sa.bindparam("who")).values(n=sa.bindparam("b_n")),
        MANY,
    ),
    "update of keys": ("UPDATE", sa.update(ITEM).values(id=ITEM.c.id + 100), None),
    "delete": ("DELETE", sa.delete(ITEM).where(ITEM.c.n > 3), None),
    "many deletes by key": ("DELETE", sa.delete(ITEM).where(ITEM.c.id == sa.bindparam("who")), MANY),
    "many deletes by criteria": ("DELETE", sa.delete(ITEM).where(ITEM.c.n == sa.bindparam("who")), MANY),
}


@pytest.mark.session_capture("is about the session's narrowing")
@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("case", PHANTOMS)
def test_phantom(ground: Engine, case: str) -> None:
    """A row that another session inserts between the read and the statement is left alone, or the statement fails."""
    verb, statement, parameters = PHANTOMS[case]
    with just_before(ground, verb, _insert_six), ground.connect() as connection:
        connection.execute(statement, parameters)
        connection.commit()
    with ground.connect() as connection:
        assert connection.scalar(sa.select(ITEM.c.n).where(ITEM.c.id == 6)) == 6


@pytest.mark.session_capture("is about the session's narrowing")
@pytest.mark.only_on("mariadb")
@pytest.mark.parametrize("case", ["update", "many updates by key", "many deletes by criteria", "delete"])
def test_phantom_under_read_committed(ground: Engine, case: str) -> None:
    """Where InnoDB locks no gaps, such a row is left alone as well."""
    verb, statement, parameters = PHANTOMS[case]
    engine = _isolated(ground, "READ COMMITTED")
    with just_before(engine, verb, _insert_six), engine.connect() as connection:
        connection.execute(statement, parameters)
        connection.commit()
    with ground.connect() as connection:
        assert connection.scalar(sa.select(ITEM.c.n).where(ITEM.c.id == 6)) == 6


@pytest.mark.session_capture("is about the session's narrowing")
@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("returning", [False, True])
def test_row_that_no_longer_matches(ground: Engine, returning: bool) -> None:
    """A row whose criteria another table's commit made false is not recorded as deleted while it stays."""
    criterion = sa.exists().where(OTHER.c.id == ITEM.c.id, OTHER.c.n > 3)
    statement = sa.delete(ITEM).where(criterion)
    if returning:
        statement = statement.returning(ITEM.c.id)
    interfere = sa.update(OTHER).values(n=0)
    with just_before(ground, "DELETE", lambda other: other.execute(interfere)), ground.connect() as connection:
        with pytest.raises(sa_audit.UnauditedWrite):
            connection.execute(statement)
        connection.rollback()


@pytest.mark.needs("concurrent-writers")
@pytest.mark.parametrize(
    "statement", [sa.update(ITEM).where(ITEM.c.id == 1).values(n=ITEM.c.n + 1), sa.delete(ITEM).where(ITEM.c.n < 3)]
)
def test_waits_for_the_other(ground: Engine, statement: Any) -> None:
    """A statement that waits for another session's lock records the row as that session left it."""
    started, errors = threading.Event(), []

    def work() -> None:
        try:
            with sa_audit.context(actor="second"), ground.connect() as connection:
                started.set()
                connection.execute(statement)
                connection.commit()
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)

    with sa_audit.context(actor="first"), ground.connect() as connection:
        connection.execute(sa.update(ITEM).where(ITEM.c.id == 1).values(n=2))
        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        thread.join(0.3)
        assert thread.is_alive()
        connection.commit()
        thread.join()
    assert not errors
    mine = [row for row in history_of(ground, ITEM) if row.key == (1,)]
    assert [row.actor for row in mine] == ["seed", "first", "second"]
    assert mine[2].op == "D" or mine[2].before == {"n": 2}


@pytest.mark.session_capture("is about the session's locking read")
@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_upsert_race(ground: Engine, database_dialect: str, level: str) -> None:
    """An upsert that updates a row which was not there when it looked fails, instead of recording it as new."""
    engine = _isolated(ground, level)
    if database_dialect == "postgresql":
        statement: Any = postgresql.insert(ITEM).values(id=7, name="i7", n=70)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"n": statement.excluded.n})
    else:
        statement = mysql.insert(ITEM).values(id=7, name="i7", n=70)
        statement = statement.on_duplicate_key_update(n=statement.inserted.n)

    def interfere(other: Connection) -> None:
        if database_dialect != "postgresql":
            other.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        other.execute(sa.insert(ITEM), {"id": 7, "name": "i7", "n": 7})

    with just_before(engine, "INSERT", interfere), engine.connect() as connection:
        with pytest.raises((sa_audit.UnauditedWrite, sa.exc.OperationalError)):
            connection.execute(statement)
        connection.rollback()


@pytest.fixture
def database_dialect(standing: Standing) -> str:
    """The dialect's name, for statements that are a database's own."""
    return "postgresql" if standing.database.dialect == "postgresql" else "mariadb"


@pytest.mark.needs("concurrent-writers")
def test_writers_at_once(ground: Engine) -> None:
    """Four threads that update the same rows leave one history without gaps."""
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _turn in range(8):
                with sa_audit.context(actor=f"w{number}"), ground.begin() as connection:
                    connection.execute(sa.update(ITEM).where(ITEM.c.id == 1 + number % 2).values(n=ITEM.c.n + 1))
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len([row for row in history_of(ground, ITEM) if row.op == "U"]) == 32


# -- transactions of Core connections ------------------------------------------------------------


def test_failed_statement(ground: Engine) -> None:
    """A statement that fails leaves nothing, and the next one after ROLLBACK TO SAVEPOINT is recorded right."""
    with sa_audit.context(actor="alice"), ground.connect() as connection:
        for statement in (
            sa.insert(ITEM).values(id=1, name="x", n=1),
            sa.update(ITEM).values(name="same"),
            sa.update(ITEM).where(ITEM.c.id == 2).values(id=1),
        ):
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(statement)
        connection.execute(sa.update(ITEM).where(ITEM.c.id == 1).values(n=100))
        connection.commit()
    assert [(row.op, row.before) for row in history_of(ground, ITEM) if row.actor == "alice"] == [("U", {"n": 1})]


@pytest.mark.parametrize(
    "statement", [sa.insert(ITEM).values(id=9, name="x", n=1), sa.update(ITEM).values(n=1), sa.delete(ITEM)]
)
@pytest.mark.parametrize("where", ["connection", "engine"])
def test_autocommit_is_refused(ground: Engine, where: str, statement: Any) -> None:
    """In AUTOCOMMIT, where a change could be kept without its record, nothing is written."""
    engine = _isolated(ground, "AUTOCOMMIT") if where == "engine" else ground
    with engine.connect() as connection:
        if where == "connection":
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(sa_audit.UnauditedWrite, match="AUTOCOMMIT"):
            connection.execute(statement)
    with ground.connect() as connection:
        assert connection.execute(sa.select(ITEM.c.id, ITEM.c.n)).all() == [(i, i) for i in range(1, 6)]


@pytest.mark.parametrize(
    "statement", [sa.insert(ITEM).values(id=9, name="x", n=1), sa.update(ITEM).values(n=1), sa.delete(ITEM)]
)
def test_rollback(ground: Engine, statement: Any) -> None:
    """A rollback takes data and record back."""
    with sa_audit.context(actor="alice"), ground.connect() as connection:
        connection.execute(statement)
        connection.rollback()
    assert all(row.actor == "seed" for row in history_of(ground, ITEM))


@pytest.mark.session_capture("is about the session's own reads in between")
@pytest.mark.parametrize(
    "options", [{"stream_results": True}, {"yield_per": 2}, {"stream_results": True, "max_row_buffer": 1}]
)
@pytest.mark.parametrize("kind", ["insert", "delete"])
def test_streamed_results(ground: Engine, options: dict[str, Any], kind: str) -> None:
    """A result that the user streams gives all its rows, although recording ran in between."""
    if ground.dialect.name == "postgresql":
        pytest.skip("PostgreSQL's drivers stream SELECT only")
    rows = [{"id": i, "name": f"n{i}", "n": i} for i in range(20, 27)]
    statement: Any = sa.insert(ITEM).values(rows).returning(ITEM.c.n)
    if kind == "delete":
        statement = sa.delete(ITEM).returning(ITEM.c.n)
    with ground.connect() as connection:
        result = connection.execution_options(**options).execute(statement)
        connection.execute(sa.update(ITEM).values(n=0))
        assert len(result.all()) == (7 if kind == "insert" else 5)
        connection.commit()


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 2}])
def test_connection_that_streams(ground: Engine, options: dict[str, Any]) -> None:
    """Recording reads its own rows at once on a connection whose SELECTs are streamed."""
    with ground.connect().execution_options(**options) as connection:
        connection.execute(
            sa.update(ITEM).where(ITEM.c.id < 4).values(n=0),
            execution_options={"stream_results": False, "yield_per": None},
        )
        connection.commit()


@pytest.mark.needs("concurrent-writers")
async def test_driver_without_row_counts(database: Database, make_async_engine: Callable[..., AsyncEngine]) -> None:
    """With each async driver, also one that counts no rows of an executemany, statements are recorded exactly."""
    for driver in database.async_urls:
        engine = make_async_engine(driver)
        async with engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        async with engine.begin() as connection:
            await connection.execute(sa.insert(ITEM), [{"id": i, "name": f"i{i}", "n": i} for i in range(1, 6)])
            by_key = sa.update(ITEM).where(ITEM.c.id == sa.bindparam("who")).values(n=sa.bindparam("b_n"))
            await connection.execute(by_key, [{"who": i, "b_n": 50 + i} for i in (1, 2, 99)])
            by_name = sa.update(ITEM).where(ITEM.c.name == sa.bindparam("who")).values(n=sa.bindparam("b_n"))
            await connection.execute(by_name, [{"who": f"i{i}", "b_n": 60 + i} for i in (3, 99)])
            await connection.execute(sa.delete(ITEM).where(ITEM.c.id == sa.bindparam("who")), [{"who": 1}, {"who": 98}])
            await connection.execute(sa.update(ITEM).values(id=ITEM.c.id + 10))
            await connection.execute(sa.delete(ITEM).where(ITEM.c.id == 12))
            await connection.run_sync(lambda sync: assert_recorded(sync, METADATA))
            assert (await connection.execute(sa.select(ITEM.c.id, ITEM.c.n).order_by(ITEM.c.id))).all() == [
                (13, 63),
                (14, 4),
                (15, 5),
            ]
            await connection.rollback()
