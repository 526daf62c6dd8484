"""The ground that the other tests stand on: empty databases, kept apart, and none silently left out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from tests import databases
from tests.databases import CAPABILITIES, Database


def _tables(engine: sa.Engine) -> list[str]:
    return sa.inspect(engine).get_table_names()


@pytest.mark.every_server
@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(engine: sa.Engine, turn: int) -> None:
    """What one test leaves, the next one on the same database does not find."""
    assert _tables(engine) == []
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE leftover (id INTEGER PRIMARY KEY)"))
    assert _tables(engine) == ["leftover"]


def test_an_open_transaction_does_not_block_the_next_test(database: Database, engine: sa.Engine) -> None:
    """A connection that a test forgot is ended when the database is emptied."""
    forgotten = engine.connect()
    forgotten.execute(sa.text("CREATE TABLE leftover (id INTEGER PRIMARY KEY)"))
    forgotten.execute(sa.text("INSERT INTO leftover VALUES (1)"))
    database.renew()
    forgotten.invalidate()
    forgotten.close()
    assert _tables(engine) == []


@pytest.mark.needs("two-phase")
def test_a_forgotten_prepared_transaction_does_not_block_the_next_test(
    database: Database, make_engine: Callable[..., sa.Engine]
) -> None:
    """A transaction that was prepared and never finished is rolled back when the database is emptied."""
    engine = make_engine()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE leftover (id INTEGER PRIMARY KEY)"))
    connection = engine.connect()
    transaction = connection.begin_twophase()
    connection.execute(sa.text("INSERT INTO leftover VALUES (1)"))
    transaction.prepare()
    connection.invalidate()
    database.renew()
    assert _tables(make_engine()) == []


@pytest.mark.needs("roles")
def test_roles_are_dropped_with_the_database(database: Database, make_engine: Callable[..., sa.Engine]) -> None:
    """A role with the database's prefix is gone afterwards, whatever it owned."""
    create = sa.text(f"CREATE ROLE {database.role_prefix}clerk")
    for _ in range(2):
        engine = make_engine()
        with engine.begin() as connection:
            connection.execute(create)
            connection.execute(sa.text("CREATE TABLE leftover (id INTEGER PRIMARY KEY)"))
            connection.execute(sa.text(f"GRANT SELECT ON leftover TO {database.role_prefix}clerk"))
        database.renew()
    assert _tables(make_engine()) == []


@pytest.mark.needs("schemas")
@pytest.mark.parametrize("turn", [1, 2])
def test_the_other_schema_is_empty_too(engine: sa.Engine, other_schema: str, turn: int) -> None:
    """A second schema is made for the test and goes with it."""
    assert sa.inspect(engine).get_table_names(other_schema) == []
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {other_schema}.leftover (id INTEGER PRIMARY KEY)"))


@pytest.mark.only_on("postgresql")
def test_what_stands_outside_the_schemas_is_cleared_too(
    database: Database, make_engine: Callable[..., sa.Engine]
) -> None:
    """An event trigger or a database's own setting leads to a new database."""
    with make_engine().begin() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {database.url.database} SET work_mem = '1MB'"))
    database.renew()
    with make_engine().begin() as connection:
        setting = sa.text(
            "SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database"
            " WHERE datname = current_database())"
        )
        assert connection.execute(setting).scalar_one() == 0


async def test_async_engines_of_every_driver_work(
    database: Database, make_async_engine: Callable[..., AsyncEngine]
) -> None:
    """Each driver named in `async_urls` reaches the same database."""
    for driver in database.async_urls:
        async with make_async_engine(driver).connect() as connection:
            assert (await connection.execute(sa.text("SELECT 1"))).scalar_one() == 1


@pytest.mark.parametrize("capability", sorted(CAPABILITIES))
def test_each_capability_is_had_by_some_database(
    capability: str, find_database: Callable[[str, Path], Database], tmp_path: Path
) -> None:
    """No test is skipped everywhere because of a capability that is misspelt or that nothing gives."""
    found = [find_database(name, tmp_path) for name in databases.parameters(every_server=False)]
    assert any(capability in database.capabilities for database in found)


def _run_pytest(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    test = f"{Path(__file__)}::test_each_test_gets_an_empty_database"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "-q", "-rs", "-k", "postgresql-1", test],
        env={**os.environ, "SA_AUDIT_TEST_POSTGRESQL": "postgresql://nobody@127.0.0.1:1/none", **environment},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
    )


def test_a_database_that_is_not_there_is_skipped_with_its_reason() -> None:
    """Whoever has no such server sees what was left out, and why."""
    run = _run_pytest({"SA_AUDIT_TEST_REQUIRE": ""})
    assert run.returncode == 0
    assert "1 skipped" in run.stdout
    assert "no PostgreSQL answers at" in run.stdout


def test_a_required_database_that_is_not_there_fails_the_test() -> None:
    """Where a database is required, its absence can't pass for success."""
    run = _run_pytest({"SA_AUDIT_TEST_REQUIRE": "sqlite,postgresql"})
    assert run.returncode == 1
    assert "postgresql is required: no PostgreSQL answers at" in run.stdout


def test_what_asks_and_proves_is_loaded_when_it_is_used() -> None:
    """A process that only records loads neither, and finds every public name all the same."""
    program = """
        import sys
        import sa_audit
        loaded = [name for name in ("query", "verification", "catalog") if f"sa_audit.{name}" in sys.modules]
        assert not loaded, loaded
        assert set(sa_audit.__all__) <= set(dir(sa_audit))
        for name in sa_audit.__all__:
            getattr(sa_audit, name)
        assert callable(sa_audit.seal)
        try:
            sa_audit.histroy
        except AttributeError as error:
            assert "histroy" in str(error)
        else:
            raise AssertionError("a name that is not there was found")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
