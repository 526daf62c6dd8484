"""Trigger capture in migrations: installed, following its table, switched on and off, and gone with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, Exclude, Mask
from tests.capture.recorded import behind_the_back
from tests.databases import Database
from tests.migrate.project import Project, holds
from tests.migrate.test_follow import owner, recorded, tables, unrecorded

pytestmark = pytest.mark.wide_on("mariadb")

TRIGGER = AuditOptions(capture="trigger")


def captured(*columns: Any, **options: Any) -> sa.MetaData:
    """Give a MetaData with one table of these columns beside its key, recorded by triggers."""
    return tables(*columns, options=TRIGGER, **options)


def raw(engine: sa.Engine, *statements: str) -> None:
    """Write as a program does that knows nothing of the trail."""
    behind_the_back(engine, *statements)


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A project whose database records the rows of an account by itself, and has recorded one."""
    made = Project(tmp_path, database.url, captured(owner()))
    made.migrate()
    engine = sa.create_engine(database.url)
    raw(engine, "INSERT INTO account (id, owner) VALUES (1, 'ann')")
    engine.dispose()
    return made


def step(project: Project, metadata: sa.MetaData, **x: str) -> str:
    """Change the models and migrate, and go back and forth once."""
    project.metadata = metadata
    text = project.migrate(**x)
    project.downgrade()
    project.upgrade()
    project.check()
    return text


@pytest.mark.every_server
def test_a_migration_installs_what_create_all_does(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """The catalog is the same, object by object, and nothing of it is left by the way back."""
    metadata = captured(owner(), sa.Column("rate", sa.Float()))
    project = Project(tmp_path, database.url, metadata)
    project.migrate()
    by_migration = holds(engine, metadata)
    project.downgrade("base")
    metadata.create_all(engine)
    assert by_migration == holds(engine, metadata)


def test_the_way_back_leaves_nothing(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Triggers, functions and the table of who writes are gone, and come again."""
    project = Project(tmp_path, database.url, captured(owner()))
    project.migrate()
    project.downgrade("base")
    with engine.connect() as connection:
        names = set(sa.inspect(connection).get_table_names())
    assert names <= {"alembic_version"}
    project.upgrade()
    raw(engine, "INSERT INTO account (id, owner) VALUES (1, 'ann')")
    assert recorded(engine, "owner") == [("I", "ann")]


def test_rows_that_are_there_make_a_baseline(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """The triggers stand before the rows are copied, so that none comes in between."""
    project = Project(tmp_path, database.url, tables(owner(), track=False))
    project.migrate()
    raw(engine, "INSERT INTO account (id, owner) VALUES (1, 'ann')")
    project.metadata = captured(owner())
    text = project.migrate()
    assert text.index("TRIGGER") < text.index("-- sa_audit: baseline")
    raw(engine, "UPDATE account SET owner = 'bob'")
    assert recorded(engine, "owner") == [("B", "ann"), ("U", "bob")]
    assert unrecorded(engine, project.metadata) == []


CHANGES: dict[str, tuple[list[sa.Column[Any]], str, list[Any]]] = {
    "added": (
        [owner(), sa.Column("branch", sa.String(20))],
        "UPDATE account SET branch = 'Oslo'",
        [("I", "ann", None), ("U", "ann", "Oslo")],
    ),
    "renamed": (
        [sa.Column("branch", sa.String(50), info={"sa_audit.renamed_from": "owner"})],
        "UPDATE account SET branch = 'Oslo'",
        [("I", "ann"), ("U", "Oslo")],
    ),
    "dropped": ([sa.Column("branch", sa.String(20))], "UPDATE account SET branch = 'x'", [("I", None), ("U", "x")]),
    "masked": (
        [sa.Column("owner", sa.String(50), info={"sa_audit": Mask()})],
        "UPDATE account SET owner = 'secret'",
        [("I", "ann"), ("U", None)],
    ),
    "excluded": (
        [sa.Column("owner", sa.String(50), info={"sa_audit": Exclude()})],
        "UPDATE account SET owner = 's'",
        [("I", "ann")],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_capture_follows_its_table(project: Project, engine: sa.Engine, change: str) -> None:
    """What the database records after a change of the model is what the model says; a downgrade records as before."""
    columns, write, expected = CHANGES[change]
    metadata = captured(*(column._copy() for column in columns))
    project.metadata = metadata
    project.migrate()
    project.downgrade()
    raw(engine, "INSERT INTO account (id, owner) VALUES (2, 'former')", "DELETE FROM account WHERE id = 2")
    project.upgrade()
    project.check()
    raw(engine, write)
    names = ["owner" if change in ("masked", "excluded") else "branch"]
    if change == "added":
        names = ["owner", "branch"]
    found = [row for row in recorded(engine, "id", *names) if row[1] == 1]
    assert [(op, *values) for op, _id, *values in found] == expected
    former = [row[0] for row in recorded(engine, "id") if row[1] == 2]
    assert former == ["I", "D"]
    if change not in ("masked", "excluded"):
        assert unrecorded(engine, metadata) == []


def test_a_renamed_table_is_recorded_on(project: Project, engine: sa.Engine) -> None:
    """Triggers and history go by the new name, and by the old one after a downgrade."""
    options = AuditOptions(capture="trigger", renamed_from="account")
    metadata = tables(owner(), name="konto", options=options)
    step(project, metadata)
    raw(engine, "UPDATE konto SET owner = 'bob'")
    assert recorded(engine, "owner", table="konto_history") == [("I", "ann"), ("U", "bob")]
    assert unrecorded(engine, metadata, "konto") == []
    project.downgrade()
    raw(engine, "UPDATE account SET owner = 'cy'")
    assert recorded(engine, "owner")[-1] == ("U", "cy")


def test_capture_is_switched(project: Project, engine: sa.Engine) -> None:
    """From triggers to the session and back: there is one writer at any time, and the history goes on."""
    metadata = tables(owner())
    step(project, metadata)
    raw(engine, "UPDATE account SET owner = 'unseen'", "UPDATE account SET owner = 'ann'")
    with engine.begin() as connection, sa_audit.context(actor="alice"):
        connection.execute(sa.update(metadata.tables["account"]).values(owner="bob"))
    metadata = captured(owner())
    step(project, metadata)
    raw(engine, "UPDATE account SET owner = 'cy'")
    assert recorded(engine, "owner") == [("I", "ann"), ("U", "bob"), ("U", "cy")]
    with sa_audit.context(actor="alice"), engine.begin() as connection:
        connection.execute(sa.update(metadata.tables["account"]).values(owner="di"))
    with Session(engine) as session:
        changes = sa_audit.history(session, metadata.tables["account"], 1)
    assert [change.actor for change in changes] == [None, "alice", None, "alice"]
    assert unrecorded(engine, metadata) == []


@pytest.mark.parametrize("how", ["untracked", "dropped"])
def test_what_is_not_audited_any_more_is_not_recorded(project: Project, engine: sa.Engine, how: str) -> None:
    """The triggers go, the history stays; a downgrade brings them back."""
    project.metadata = tables(owner(), track=False) if how == "untracked" else sa.MetaData()
    project.revision()
    project.upgrade()
    if how == "untracked":
        raw(engine, "UPDATE account SET owner = 'unseen'")
    assert recorded(engine, "owner") == [("I", "ann")]
    project.check()
    project.downgrade()
    raw(engine, "INSERT INTO account (id, owner) VALUES (2, 'bob')")
    assert recorded(engine, "owner") == [("I", "ann"), ("I", "bob")]


def test_a_missing_trigger_comes_back(project: Project, engine: sa.Engine) -> None:
    """`alembic check` sees that a trigger is gone, and the next revision makes it again."""
    with engine.connect() as connection:
        kind = connection.dialect.name
    drop = {
        "postgresql": 'DROP TRIGGER "AA_sa_audit_capture" ON account',
        "sqlite": "DROP TRIGGER account_capture_update",
    }.get(kind, "DROP TRIGGER account_capture_update")
    raw(engine, drop)
    project.migrate()
    raw(engine, "UPDATE account SET owner = 'bob'")
    assert recorded(engine, "owner") == [("I", "ann"), ("U", "bob")]


@pytest.mark.only_on("mariadb")
def test_writes_are_refused_while_a_table_changes(project: Project, engine: sa.Engine) -> None:
    """No transaction holds DDL together on MariaDB: a trigger keeps writers off until the table is recorded again."""
    project.metadata = captured(owner(), sa.Column("branch", sa.String(20)))
    text = project.revision()
    assert text.index("a migration of this table is under way") < text.index("add_column(")
    project.upgrade()
    project.downgrade()
    raw(engine, "UPDATE account SET owner = 'bob'")
    assert recorded(engine, "owner") == [("I", "ann"), ("U", "bob")]


def test_foreign_keys_are_followed(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Rows that a foreign key removes are recorded, also when the key came by a later migration, or went again."""

    def models(key: bool) -> sa.MetaData:
        metadata = sa.MetaData()
        sa.Table("bank", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
        foreign = [sa.ForeignKey("bank.id", ondelete="CASCADE", name="fk_account_bank")] if key else []
        columns = [sa.Column("id", sa.Integer, primary_key=True), sa.Column("bank_id", sa.Integer, *foreign)]
        sa_audit.track(sa.Table("account", metadata, *columns), TRIGGER)
        return metadata

    project = Project(tmp_path, database.url, models(key=False))
    project.migrate()
    raw(engine, "INSERT INTO bank (id) VALUES (1)", "INSERT INTO account (id, bank_id) VALUES (1, 1)")
    project.metadata = models(key=True)
    project.migrate()
    pragma = ["PRAGMA foreign_keys = ON"] if engine.dialect.name == "sqlite" else []
    raw(engine, *pragma, "DELETE FROM bank")
    assert recorded(engine, "id") == [("I", 1), ("D", 1)]
    project.downgrade()
    raw(engine, "INSERT INTO bank (id) VALUES (2)", "INSERT INTO account (id, bank_id) VALUES (2, 2)")
    raw(engine, "DELETE FROM bank")
    assert recorded(engine, "id")[2:] == [("I", 2)]
