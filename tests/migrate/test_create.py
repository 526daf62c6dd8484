"""A generated migration makes the same trail as `create_all()`, as plain SQL."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.proof import Signer
from sa_audit.seal import seal
from tests.databases import Database
from tests.migrate.models import bank, of, use
from tests.migrate.project import Project, differences, holds, refused

pytestmark = pytest.mark.wide_on("mariadb")


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A project without a revision, of the bank's models."""
    return Project(tmp_path, database.url, bank().metadata)


@pytest.fixture
def base(project: Project) -> Any:
    """The bank's base that the project's MetaData belongs to."""
    made = bank()
    project.metadata = made.metadata
    return made


@pytest.mark.every_server
def test_the_migration_makes_what_create_all_makes(
    project: Project, base: Any, engine: sa.Engine, database: Database
) -> None:
    """Columns, defaults, keys, indexes, comments, triggers, functions and sequences are the same."""
    project.migrate()
    migrated = holds(engine, base.metadata)
    engine.dispose()
    database.renew()
    base.metadata.create_all(engine)
    assert holds(engine, base.metadata) == migrated


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_the_trail_stands_in_its_schema_under_any_search_path(project: Project, base: Any, engine: sa.Engine) -> None:
    """A role whose ``search_path`` begins elsewhere makes the trail where its guards are."""
    project.migrate()
    expected = holds(engine, base.metadata)
    project.downgrade("base")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA elsewhere")
    file = next(project.directory.glob("versions/0001_*.py"))
    lines = file.read_text().split("\n")
    first = next(number for number, line in enumerate(lines) if "# -- sa_audit: what the trail" in line)
    lines.insert(first, '    op.execute("SET search_path = elsewhere, public")')
    file.write_text("\n".join(lines))
    project.upgrade()
    assert holds(engine, base.metadata) == expected
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names(schema="elsewhere") == []
        assert sa.inspect(connection).get_sequence_names(schema="elsewhere") == []


@pytest.mark.every_server
def test_nothing_is_left_to_do_after_create_all(base: Any, engine: sa.Engine) -> None:
    """Autogenerate agrees with `create_all()`, with server defaults compared as well."""
    base.metadata.create_all(engine)
    assert differences(engine, base.metadata) == []


def test_changes_are_recorded_on_what_was_migrated(project: Project, base: Any, engine: sa.Engine) -> None:
    """Capture, history and time travel work, and the guards refuse."""
    project.migrate()
    use(engine, base)
    account = of(base, "Account")
    with Session(engine) as session:
        changes = sa_audit.history(session, account, 1)
        assert [(change.operation, change.actor) for change in changes] == [
            ("insert", "teller:1"),
            ("update", "teller:1"),
        ]
        assert changes[1].diff == {"balance": (Decimal("1.50"), Decimal("2.50"))}
        assert list(sa_audit.reconcile(session, account)) == []
    with sa_audit.as_of(engine, changes[0].recorded_at) as past:
        assert past.get(account, 1).balance == Decimal("1.50")
    with Session(engine) as session:
        sa_audit.record(session, "checked", target=session.get_one(account, 1))
        session.commit()
    for table in ("account_history", "audit_transaction", "audit_column", "audit_event"):
        with refused(), engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")


@pytest.mark.every_server
def test_up_down_up(project: Project, base: Any, engine: sa.Engine) -> None:
    """The migration can be undone while nothing was recorded, and be done again, to the same."""
    project.migrate()
    once = holds(engine, base.metadata)
    project.downgrade("base")
    with engine.connect() as connection:
        left = sa.inspect(connection).get_table_names()
    assert left == ["alembic_version"]
    project.upgrade()
    project.check()
    assert holds(engine, base.metadata) == once


@pytest.mark.every_server
def test_downgrade_refuses_to_drop_recorded_rows(project: Project, base: Any, engine: sa.Engine) -> None:
    """Once something is recorded, the downgrade stops at its first statement, and nothing is undone."""
    project.migrate()
    use(engine, base)
    before = holds(engine, base.metadata)
    with refused() as caught:
        project.downgrade("base")
    assert "holds recorded history and is not dropped" in str(caught.value)
    assert "sa_audit.downgrade=archive" in str(caught.value)
    assert holds(engine, base.metadata) == before
    project.check()


def test_downgrade_refuses_to_drop_a_sealed_log(project: Project, base: Any, engine: sa.Engine, tmp_path: Path) -> None:
    """What was sealed and anchored would be missing for ever, even if no change was recorded yet."""
    project.migrate()
    seal(engine, Signer.generate("bank.example/audit"), state=tmp_path / "state", metadata=base)
    with refused() as caught:
        project.downgrade("base")
    assert "audit_block" in str(caught.value)
    project.check()


@pytest.mark.only_on("postgresql")
def test_downgrade_waits_for_what_is_being_recorded(project: Project, base: Any, engine: sa.Engine) -> None:
    """An event that another transaction has recorded, and commits while the downgrade has begun, is not dropped."""
    project.migrate()
    with ThreadPoolExecutor(1) as pool, Session(engine) as session:
        with sa_audit.context(actor="teller:1"):
            sa_audit.record(session, "till.opened", base=base)
        session.flush()
        undone = pool.submit(project.downgrade, "base")
        with engine.connect() as connection:
            waiting = sa.text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('audit_transaction' AS regclass)"
            )
            deadline = time.monotonic() + 30
            while not connection.scalar(waiting) and not undone.done() and time.monotonic() < deadline:
                time.sleep(0.02)
        session.commit()
        with refused() as caught:
            undone.result()
    assert "audit_transaction holds recorded history" in str(caught.value)
    project.check()


@pytest.mark.every_server
def test_downgrade_can_keep_recorded_rows_under_another_name(project: Project, base: Any, engine: sa.Engine) -> None:
    """Archived history keeps its rows, accepts no change and no further row, and a new trail fits beside it."""
    project.migrate()
    use(engine, base)
    project.downgrade("base", archive=True)
    tables = ["account_history_0001", "audit_transaction_0001", "audit_column_0001", "customer_history_0001"]
    with engine.connect() as connection:
        rows = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in tables}
    assert rows["account_history_0001"] == 2
    for name in tables:
        for text in (f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM {name}"):
            with refused(), engine.begin() as connection:
                connection.exec_driver_sql(text)
    project.upgrade()
    project.check()
    use(engine, base, "b")
    with engine.connect() as connection:
        again = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in tables}
    assert again == rows


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_async_drivers_run_it(tmp_path: Path, database: Database, engine: sa.Engine, driver: str) -> None:
    """Each statement stands in a call of its own, as asyncpg demands, in both directions."""
    base = bank()
    project = Project(tmp_path, database.url, base.metadata, async_url=database.async_urls[driver])
    project.migrate()
    project.downgrade("base")
    project.upgrade()
    use(engine, base)
    with refused():
        project.downgrade("base")
    project.downgrade("base", archive=True)


def test_offline_sql_makes_the_same(project: Project, base: Any, engine: sa.Engine, database: Database) -> None:
    """`alembic upgrade --sql` prints what, run as it stands, makes the same trail; so does the way back."""
    project.migrate()
    migrated = holds(engine, base.metadata)
    engine.dispose()
    database.renew()
    up, down = project.sql(), project.sql(down=True)
    run_script(engine, up)
    assert holds(engine, base.metadata) == migrated
    run_script(engine, down)
    with engine.connect() as connection:
        assert [name for name in sa.inspect(connection).get_table_names() if name != "alembic_version"] == []


def run_script(engine: sa.Engine, script: str) -> None:
    """Run a script with many statements, as the database's own client does."""
    connection = engine.raw_connection()
    try:
        driver: Any = connection.driver_connection
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        elif engine.dialect.name == "postgresql":
            driver.execute(script)
        else:
            for statement in _mariadb_statements(script):
                driver.cursor().execute(statement)
        connection.commit()
    finally:
        connection.close()


def _mariadb_statements(script: str) -> list[str]:
    """Split at the blank lines that Alembic prints between statements, since bodies hold semicolons."""
    parts = [part.strip().removesuffix(";") for part in script.split(";\n\n")]
    lines = ["\n".join(line for line in part.splitlines() if not line.startswith("--")) for part in parts]
    return [text.strip() for text in lines if text.strip()]


def test_the_migration_needs_no_sa_audit(project: Project) -> None:
    """The file imports Alembic, SQLAlchemy and the standard library, and loads where the library is not installed."""

    class Base(DeclarativeBase):
        pass

    class Account(Audited, Base):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)

    project.metadata = Base.metadata
    project.revision()
    (file,) = project.directory.glob("versions/*.py")
    program = (
        "import runpy, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'sa_audit': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"print(sorted(runpy.run_path({str(file)!r}))[-1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "upgrade"), done.stderr


def test_a_changed_guard_is_found_and_mended(project: Project, base: Any, engine: sa.Engine) -> None:
    """A guard that was taken away is missing in `alembic check`, and the next revision brings it back."""
    project.migrate()
    before = holds(engine, base.metadata)
    names = {
        "sqlite": "DROP TRIGGER account_history_guard_delete",
        "postgresql": "DROP TRIGGER sa_audit_guard_row ON account_history",
        "mysql": "DROP TRIGGER account_history_guard_delete",
    }
    with engine.begin() as connection:
        connection.exec_driver_sql(names["mysql" if engine.dialect.name == "mariadb" else engine.dialect.name])
    with pytest.raises(CommandError, match="guard"):
        project.check()
    project.migrate()
    assert holds(engine, base.metadata) == before
    project.downgrade()
    assert holds(engine, base.metadata) == before  # going back takes no guard away


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
@pytest.mark.parametrize(
    "spoiled",
    [
        "ALTER TABLE account_history ENABLE TRIGGER sa_audit_guard_row",
        "ALTER TABLE account_history DISABLE TRIGGER sa_audit_guard_truncate",
        "CREATE OR REPLACE FUNCTION sa_audit_guard_v1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "ALTER FUNCTION sa_audit_history_v1() RESET ALL",
    ],
)
def test_a_spoiled_object_is_found_and_mended(project: Project, base: Any, engine: sa.Engine, spoiled: str) -> None:
    """A guard that no longer is ALWAYS, and a function with another body or setting, are replaced."""
    project.migrate()
    before = holds(engine, base.metadata)
    with engine.begin() as connection:
        connection.exec_driver_sql(spoiled)
    wrong = holds(engine, base.metadata)
    assert wrong != before
    project.migrate()
    assert holds(engine, base.metadata) == before
    project.downgrade()
    assert holds(engine, base.metadata) == wrong  # the text that was read from the database comes back


def test_perform_runs_what_is_printed(base: Any, engine: sa.Engine, database: Database) -> None:
    """The operations can be run without a file, with the same result."""
    from alembic.autogenerate import produce_migrations
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": base.metadata})
        script = produce_migrations(context, base.metadata)
        operations = Operations(context)
        for operation in script.upgrade_ops.ops:
            operations.invoke(operation)
    assert differences(engine, base.metadata) == []
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        for operation in script.downgrade_ops.ops:
            operations.invoke(operation)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_the_plugin_can_be_named_and_left_out(base: Any, engine: sa.Engine) -> None:
    """`autogenerate_plugins` accepts the name, and `~sa_audit` switches the library off."""
    on = differences(engine, base.metadata, autogenerate_plugins=["alembic.autogenerate.*", "sa_audit"])
    assert "create_trail" in [entry[1] for entry in on if isinstance(entry, tuple) and entry[0] == "sa_audit"]
    off = differences(engine, base.metadata, autogenerate_plugins=["alembic.autogenerate.*", "~sa_audit"])
    assert not any(entry[0] == "sa_audit" for entry in off if isinstance(entry, tuple))
