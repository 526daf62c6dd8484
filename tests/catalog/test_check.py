"""`check`: the catalog is spoiled in each way that hides or allows a change, and the finding names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.catalog.drift import check
from sa_audit.catalog.level import Finding, Report, protection_level
from sa_audit.model import complete
from tests.databases import Database
from tests.migrate.models import bank, of
from tests.migrate.secured import secure


def report(connection: sa.Connection, base: Any) -> Report:
    """Run the check."""
    trail = complete(base.metadata)
    assert trail is not None
    return check(connection, trail)


def kinds(found: Report) -> set[str]:
    """Give the kinds of the differences."""
    return {finding.kind for finding in found.drift}


@pytest.mark.every_server
def test_a_fresh_trail_has_no_drift_and_is_append_only(engine: sa.Engine) -> None:
    """What `create_all()` makes is level 1, and what the next level lacks is said."""
    base = bank()
    base.metadata.create_all(engine)
    with engine.connect() as connection:
        found = report(connection, base)
    assert found.drift == ()
    assert found.level == 1
    assert {finding.blocks for finding in found.findings} == {2, 3}


def test_trigger_capture_has_no_drift_either(engine: sa.Engine) -> None:
    """Its triggers, functions and procedures are known, and only the roles are missing for more than level 1."""
    base = bank()
    sa_audit.configure(base, capture="trigger")
    base.metadata.create_all(engine)
    with engine.connect() as connection:
        found = report(connection, base)
    assert found.drift == ()
    assert {finding.blocks for finding in found.findings} == {2}


def test_levels_are_cumulative() -> None:
    """The lowest level that is blocked counts, remarks don't, and level 4 needs a verifier's word."""
    at = [Finding(kind="k", place="p", message="m", blocks=level) for level in (3, 2, None)]
    assert protection_level(at) == 1
    assert protection_level(at[:1]) == 2
    assert protection_level(at[2:]) == 3
    assert protection_level(at[2:], evident=True) == 4
    assert protection_level(at[:1], evident=True) == 2
    assert protection_level([Finding(kind="k", place="p", message="m", blocks=1)]) == 0


def test_textual_dml_is_named(engine: sa.Engine) -> None:
    """A setting that lets changes pass unrecorded leaves level 0."""
    base = bank()
    sa_audit.configure(base, text_dml="allow")
    base.metadata.create_all(engine)
    with engine.connect() as connection:
        found = report(connection, base)
    assert found.level == 0
    assert "text-dml" in {finding.kind for finding in found.findings}


SILENT = "CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
EMPTY = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"

SPOILED: dict[str, tuple[str, list[str]]] = {
    "guard dropped": ("missing-guard", ["DROP TRIGGER sa_audit_guard_row ON account_history"]),
    "truncate guard dropped": ("missing-guard", ["DROP TRIGGER sa_audit_guard_truncate ON audit_transaction"]),
    "guard disabled": ("altered-guard", ["ALTER TABLE account_history DISABLE TRIGGER sa_audit_guard_row"]),
    "all triggers enabled": ("altered-guard", ["ALTER TABLE account_history ENABLE TRIGGER ALL"]),
    "restore --disable-triggers": (
        "altered-guard",
        ["ALTER TABLE account_history DISABLE TRIGGER ALL", "ALTER TABLE account_history ENABLE TRIGGER ALL"],
    ),
    "guard replaced": (
        "altered-guard",
        [
            "CREATE OR REPLACE TRIGGER sa_audit_guard_row BEFORE DELETE OR UPDATE ON account_history "
            "FOR EACH ROW EXECUTE FUNCTION sa_audit_guard_v1()"
        ],
    ),
    "function body": ("altered-function", [f"CREATE OR REPLACE FUNCTION sa_audit_guard_v1() {EMPTY}"]),
    "function settings": ("altered-function", ["ALTER FUNCTION sa_audit_guard_v1() RESET search_path"]),
    "function security": ("altered-function", ["ALTER FUNCTION sa_audit_history_v1() SECURITY DEFINER"]),
    "foreign trigger": (
        "foreign-trigger",
        [SILENT, "CREATE TRIGGER t BEFORE INSERT ON account_history FOR EACH ROW EXECUTE FUNCTION silent()"],
    ),
    "rule": ("rule", ["CREATE RULE r AS ON INSERT TO account_history DO INSTEAD NOTHING"]),
    "row security": ("policy", ["ALTER TABLE account_history ENABLE ROW LEVEL SECURITY"]),
    "policy": ("policy", ["CREATE POLICY p ON account_history USING (false)"]),
    "child": ("inheritance", ["CREATE TABLE child () INHERITS (account_history)"]),
    "parent": ("parent", ["CREATE TABLE top ()", "ALTER TABLE account_history INHERIT top"]),
    "unlogged": ("replaced-table", ["ALTER TABLE account_history SET UNLOGGED"]),
    "view": (
        "replaced-table",
        ["ALTER TABLE account_history RENAME TO aside", "CREATE VIEW account_history AS SELECT * FROM aside"],
    ),
    "table gone": ("missing-table", ["ALTER TABLE account_history RENAME TO aside"]),
    "column gone": ("missing-column", ["ALTER TABLE account_history RENAME balance TO other"]),
    "unknown column": ("unknown-column", ["ALTER TABLE account ADD secret text"]),
    "partition without guards": (
        "unguarded-partition",
        [
            "ALTER TABLE account_history RENAME TO aside",
            "CREATE TABLE account_history (LIKE aside) PARTITION BY RANGE (audit_at)",
            "CREATE TABLE part PARTITION OF account_history DEFAULT",
        ],
    ),
    "shadow": ("shadowing-table", ["CREATE SCHEMA other", "CREATE TABLE other.account_history (id int)"]),
}


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_what_is_spoiled_on_postgresql_is_named(engine: sa.Engine) -> None:
    """Each trap of the catalog is a finding of its kind, and level 1 is no longer claimed."""
    base = bank()
    base.metadata.create_all(engine)
    with engine.connect() as connection:
        for name, (kind, statements) in SPOILED.items():
            for statement in statements:
                connection.exec_driver_sql(statement)
            found = report(connection, base)
            assert kind in kinds(found), name
            assert found.level == 0, name
            connection.rollback()
        assert report(connection, base).drift == ()


@pytest.mark.only_on("postgresql")
def test_a_trigger_that_fires_before_the_capture_trigger_is_named(engine: sa.Engine) -> None:
    """PostgreSQL fires AFTER triggers by name; one behind ours is nobody's business."""
    base = bank()
    sa_audit.configure(base, capture="trigger")
    base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(SILENT)
        for name in ("A1_early", "late"):
            connection.exec_driver_sql(
                f'CREATE TRIGGER "{name}" AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION silent()'
            )
        (finding,) = report(connection, base).drift
        assert (finding.kind, finding.place) == ("trigger-before-capture", "public.account.A1_early")
        connection.exec_driver_sql('DROP TRIGGER "A1_early" ON account')
        assert report(connection, base).drift == ()
        connection.exec_driver_sql('ALTER TABLE account DISABLE TRIGGER "AA_sa_audit_capture"')
        assert kinds(report(connection, base)) == {"altered-guard"}


UNCAPTURED: dict[str, list[str]] = {
    "capture off": ['ALTER TABLE low DISABLE TRIGGER "AA_sa_audit_capture"'],
    "every trigger off": ["ALTER TABLE low DISABLE TRIGGER ALL"],
    "not under replication": ['ALTER TABLE low ENABLE TRIGGER "AA_sa_audit_capture"'],
    "off further below": ['ALTER TABLE high_most DISABLE TRIGGER "AA_sa_audit_capture"'],
    "a child by inheritance": ["CREATE TABLE child () INHERITS (plain)"],
}


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_a_partition_that_nobody_records_is_named(engine: sa.Engine) -> None:
    """Capture that is off on one partition, at any level, is a finding; partitions as they come are none."""

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, capture="trigger")

    class Parted(Audited, Base):
        __tablename__ = "parted"
        __table_args__ = {"postgresql_partition_by": "RANGE (id)"}
        id: Mapped[int] = mapped_column(primary_key=True)

    class Plain(Audited, Base):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id)",
            "CREATE TABLE high_most PARTITION OF high DEFAULT",
        ):
            connection.exec_driver_sql(statement)
    with engine.connect() as connection:
        assert report(connection, Base).drift == ()
        for name, statements in UNCAPTURED.items():
            for statement in statements:
                connection.exec_driver_sql(statement)
            found = report(connection, Base)
            assert kinds(found) == {"uncaptured-partition"}, name
            assert found.level == 0, name
            connection.rollback()


SQLITE = {
    "guard dropped": ("missing-guard", ["DROP TRIGGER account_history_guard_delete"]),
    "guard changed": (
        "altered-guard",
        [
            "DROP TRIGGER account_history_guard_delete",
            "CREATE TRIGGER account_history_guard_delete BEFORE DELETE ON account_history WHEN 0 BEGIN SELECT 1; END",
        ],
    ),
    "foreign trigger": (
        "foreign-trigger",
        ["CREATE TRIGGER t BEFORE INSERT ON account_history BEGIN SELECT RAISE(IGNORE); END"],
    ),
    "table recreated by batch": (
        "missing-guard",
        [
            "CREATE TABLE fresh AS SELECT * FROM account_history",
            "DROP TABLE account_history",
            "ALTER TABLE fresh RENAME TO account_history",
        ],
    ),
    "view": (
        "replaced-table",
        ["ALTER TABLE account_history RENAME TO aside", "CREATE VIEW account_history AS SELECT * FROM aside"],
    ),
}

MARIADB = {
    "guard dropped": ("missing-guard", ["DROP TRIGGER account_history_guard_delete"]),
    "guard changed": (
        "altered-guard",
        [
            "DROP TRIGGER account_history_guard_delete",
            "CREATE TRIGGER account_history_guard_delete BEFORE DELETE ON account_history FOR EACH ROW SET @x = 1",
        ],
    ),
    "foreign trigger": (
        "foreign-trigger",
        ["CREATE TRIGGER t BEFORE INSERT ON account_history FOR EACH ROW SET NEW.audit_op = 'U'"],
    ),
    "engine": ("engine", ["ALTER TABLE account_history ENGINE=MyISAM"]),
}


@pytest.mark.only_on("sqlite", "mariadb")
def test_what_is_spoiled_elsewhere_is_named(engine: sa.Engine, database: Database) -> None:
    """Dropped and changed guards, foreign triggers and replaced tables are findings of their kinds."""
    spoiled = SQLITE if database.dialect == "sqlite" else MARIADB
    for name, (kind, statements) in spoiled.items():
        base = bank()
        base.metadata.create_all(engine)
        with engine.connect() as connection:
            assert report(connection, base).drift == (), name
            for statement in statements:
                connection.exec_driver_sql(statement)
            found = report(connection, base)
            assert kind in kinds(found), name
            assert found.level == 0, name
        engine.dispose()
        database.renew()


RIGHTS = {
    "a grant": ("could-change", 'GRANT UPDATE ON {history} TO "{app}"'),
    "a grant to everybody": ("excess-right", "GRANT DELETE ON {history} TO PUBLIC"),
    "the owner": ("owner", 'ALTER TABLE {history} OWNER TO "{mig}"'),
    "a function's owner": ("owner", 'ALTER FUNCTION audit.sa_audit_guard_v1() OWNER TO "{app}"'),
    "a function for everybody": ("excess-right", "GRANT EXECUTE ON FUNCTION audit.sa_audit_guard_v1() TO PUBLIC"),
    "a right that is missing": ("missing-right", 'REVOKE INSERT (audit_op) ON {history} FROM "{write}"'),
    "membership": ("could-change", 'GRANT "{owner}" TO "{app}"'),
    "a table's right for the writer": ("excess-right", 'GRANT INSERT ON {history} TO "{write}"'),
}


@pytest.mark.parametrize("capture", ["session", "trigger"])
@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_roles_give_level_2_and_triggers_level_3(
    capture: str,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> None:
    """What a migration with roles makes has no drift; the level is that of its capture; spoiled rights are named."""
    secured = secure(tmp_path, database, engine, connect_as, bank(), schema="audit", capture=capture)
    secured.project.migrate()
    secured.grant_data()
    with sa_audit.context(actor="a"), secured.application.begin() as connection:
        connection.execute(sa.insert(of(secured.base, "Customer").__table__).values(id=1, name="a"))
    names = {"history": "audit.account_history", "app": secured.names[0], "mig": secured.names[1]}
    names |= {"owner": secured.roles.owner, "write": secured.roles.writer}
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM audit.customer_history")) == 1
        found = report(connection, secured.base)
        assert found.drift == ()
        assert found.level == (2 if capture == "session" else 3)
        for name, (kind, statement) in RIGHTS.items():
            if capture == "trigger" and "missing" in name:
                continue  # there the writer needs none
            connection.exec_driver_sql(statement.format(**names))
            spoiled = report(connection, secured.base)
            assert kind in kinds(spoiled), name
            assert spoiled.level == 1, name
            connection.rollback()
