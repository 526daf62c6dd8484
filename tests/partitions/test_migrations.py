"""Histories by month in generated migrations: made, followed, given to the owner, and taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import ConfigurationError
from sa_audit.cli.partitions import make_partitions
from sa_audit.model import complete
from sa_audit.testing import unguarded
from tests.databases import Database
from tests.migrate.project import Project
from tests.migrate.secured import Secured, secure

from .models import findings, ledger, months, partition, run, use, where

pytestmark = pytest.mark.only_on("postgresql")


@pytest.mark.every_server
def test_a_migration_makes_and_follows_a_history_by_month(
    tmp_path: Path, database: Database, engine: sa.Engine
) -> None:
    """As plain SQL, with nothing left to do; a column that comes is recorded, and going back refuses to lose rows."""
    base = ledger(testing=True)
    project = Project(tmp_path, database.url, base.metadata)
    text = project.migrate()
    assert "postgresql_partition_by='RANGE (audit_at)'" in text
    assert "SELECT public.sa_audit_partitions_v1('public.booking_history', 'booking_history', 3)" in text
    use(engine, base)
    assert set(where(engine)) == {partition(months(0)[0])}
    base.model.__table__.append_column(sa.Column("kind", sa.String(9)))
    assert "drop_table" not in project.migrate().partition("def downgrade")[0]
    with sa_audit.context(actor="clerk"), engine.begin() as connection:
        connection.execute(sa.insert(base.model.__table__).values(id=2, text="c", kind="k"))
    with engine.connect() as connection:
        kinds = connection.scalars(sa.text("SELECT kind FROM booking_history ORDER BY audit_id"))
        assert list(kinds) == [None, None, "k"]
    assert findings(engine, base) == set()
    project.downgrade()
    with pytest.raises(sa.exc.DBAPIError, match="holds recorded history"):
        project.downgrade()
    project.downgrade(archive=True)
    project.upgrade()
    project.check()
    use(engine, base, 3)
    assert set(where(engine)) == {f"{partition(months(0)[0])}_1"}
    assert findings(engine, base) == set()


def test_what_create_all_makes_has_nothing_left_to_migrate(
    tmp_path: Path, database: Database, engine: sa.Engine
) -> None:
    """The same tables, keys and objects; and what holds no rows can go."""
    base = ledger(testing=True)
    base.metadata.create_all(engine)
    Project(tmp_path, database.url, base.metadata).check()
    with unguarded(engine):
        base.metadata.drop_all(engine)
    project = Project(tmp_path / "two", database.url, base.metadata)
    project.migrate()
    project.downgrade()
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
        assert (
            connection.scalar(sa.text("SELECT count(*) FROM pg_proc WHERE proname LIKE 'sa!_audit%' ESCAPE '!'")) == 0
        )


@pytest.mark.slow
def test_a_change_of_capture_guards_the_partitions_again(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """From triggers to sessions and back, each partition has the insert guard of the day."""
    first = ledger(testing=True, capture="trigger")
    project = Project(tmp_path, database.url, first.metadata)
    project.migrate()
    use(engine, first)
    for number, capture in enumerate(("session", "trigger", "session"), 2):
        base = ledger(testing=True, capture=capture)
        project.metadata = base.metadata
        project.migrate()
        use(engine, base, number)
        assert findings(engine, base) == set(), capture
    with Session(engine) as session:
        assert [len(sa_audit.history(session, base.model, key)) for key in (1, 2, 3, 4)] == [2, 2, 2, 2]


def test_the_form_of_a_history_can_t_be_changed(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Both ways are refused, and the way out is named."""
    plain = sa.MetaData()
    sa_audit.track(
        sa.Table("booking", plain, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(40)))
    )
    by_month = ledger(testing=True)
    project = Project(tmp_path, database.url, plain)
    project.migrate()
    project.metadata = by_month.metadata
    with pytest.raises(ConfigurationError, match="booking_history is a plain table"):
        project.revision()
    run(engine, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    by_month.metadata.create_all(engine)
    other = Project(tmp_path / "other", database.url, plain)
    with pytest.raises(ConfigurationError, match="booking_history is kept by month"):
        other.revision()


@pytest.fixture(params=["session", "trigger"])
def secured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> Secured:
    """The ledger with roles, migrated by the migrator, where default privileges give the application everything."""
    place = secure(tmp_path, database, engine, connect_as, ledger(), schema="trail", capture=request.param)
    app, migrator = place.names
    place.run(f'ALTER DEFAULT PRIVILEGES FOR ROLE "{migrator}" GRANT ALL ON TABLES TO "{app}"')
    place.project.migrate()
    place.grant_data()
    return place


@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_partitions_belong_to_the_owner_and_give_no_rights(secured: Secured) -> None:
    """The application records into them and can't name one; the migrator makes the next ones, and moves rows."""
    engine, base = secured.application, secured.base
    use(engine, base)
    trail = complete(base.metadata)
    assert trail is not None
    made = make_partitions(secured.migrator, trail, months=5).tables[0].made
    assert list(made) == months(5)[4:]
    assert findings(secured.engine, base) == set()
    secured.project.check()
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'trail'"
    with secured.engine.connect() as connection:
        assert list(connection.scalars(sa.text(owners))) == [secured.roles.owner]
    name = f"trail.{partition(months(0)[0])}"
    for statement in (
        f"SELECT * FROM {name}",
        f"INSERT INTO {name} (audit_op) VALUES ('I')",
        f"TRUNCATE {name}",
        "TRUNCATE trail.booking_history_default",
        "SELECT trail.sa_audit_partitions_v1('trail.booking_history', 'x', 9)",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
            run(engine, statement)
    with pytest.raises(sa.exc.DBAPIError, match="must be owner"):
        run(engine, f"ALTER TABLE trail.booking_history DETACH PARTITION {name}")
    secured.run(f'GRANT TRUNCATE ON {name} TO "{secured.names[0]}"')
    assert {("partition-rights", name), ("could-change", secured.names[0])} <= findings(secured.engine, base)
    make_partitions(secured.migrator, trail)
    assert findings(secured.engine, base) == set()
    _move_as_the_migrator(secured)


def _move_as_the_migrator(secured: Secured) -> None:
    """Membership in the owner's role is enough, and the moved rows' partition is like the others."""
    base: Any = secured.base
    this = months(0)[0]
    secured.run(f"DROP TABLE trail.{partition(this)}")
    use(secured.application, base, 2)
    trail = complete(base.metadata)
    assert trail is not None
    with sa_audit.context(actor="dba"):
        done = make_partitions(secured.migrator, trail, move=True).tables[0]
    assert dict(done.moved) == {this: 2}
    assert findings(secured.engine, base) == set()
    use(secured.application, base, 3)
