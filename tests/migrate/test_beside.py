"""Beside other tools of Alembic's: what they find, they still find, and nothing of the trail's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sa_audit
from tests.databases import Database
from tests.migrate.project import Project

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parent.parent.parent


def needs(package: str) -> Any:
    """Skip where a package is not installed."""
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def account(*columns: Any) -> sa.MetaData:
    """Give a MetaData with one audited table."""
    metadata = sa.MetaData()
    table = sa.Table("account", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
    sa_audit.track(table)
    return metadata


@needs("pytest_alembic")
@pytest.mark.parametrize(
    "name",
    [
        "test_single_head_revision",
        "test_upgrade",
        "test_model_definitions_match_ddl",
        "test_up_down_consistency",
    ],
)
def test_pytest_alembic_is_content(tmp_path: Path, database: Database, engine: sa.Engine, name: str) -> None:
    """Its four tests pass on migrations that were generated: two revisions, up, compared, and down."""
    import pytest_alembic
    from pytest_alembic import tests

    project = Project(tmp_path, database.url, account())
    project.migrate()
    project.metadata = account(sa.Column("owner", sa.String(50), server_default="x"))
    project.migrate()
    project.downgrade("base")
    config = project._config()
    check: Callable[[Any], None] = getattr(tests, name)
    with pytest_alembic.runner(config=pytest_alembic.Config(alembic_config=config), engine=engine) as runner:
        check(runner)


UTILS = """
import sys
import sqlalchemy as sa
from pathlib import Path
from alembic_utils.pg_function import PGFunction
from alembic_utils.pg_trigger import PGTrigger
from alembic_utils.pg_view import PGView
from alembic_utils.replaceable_entity import register_entities
from tests.migrate.project import Project
from tests.migrate.test_beside import account

view = PGView("public", "rich", "SELECT id FROM account WHERE balance > 1000")
function = PGFunction("public", "twice(n integer)", "RETURNS integer LANGUAGE sql AS $$ SELECT 2 * n $$")
project = Project(Path(sys.argv[2]), sa.make_url(sys.argv[1]), account(sa.Column("balance", sa.Integer)))
first = project.migrate()
register_entities([view, function], entity_types=[PGFunction, PGTrigger, PGView])
second = project.migrate()
print("view:", "create_entity" in second and "rich" in second and "twice" in second)
print("drops:", "drop_entity" in first.partition("def downgrade")[0] + second.partition("def downgrade")[0])
third = project.migrate()
print("left:", "op." in third.partition("def upgrade():")[2].partition("def downgrade")[0])
"""

ENUMS = """
import sys
import sqlalchemy as sa
from pathlib import Path
import alembic_postgresql_enum
from sqlalchemy.orm import Session
import sa_audit
from tests.migrate.project import Project
from tests.migrate.test_beside import account

def models(*values):
    return account(sa.Column("state", sa.Enum(*values, name="account_state"), nullable=False))

url = sa.make_url(sys.argv[1])
old, new = models("open", "closed"), models("open", "closed", "held")
project = Project(Path(sys.argv[2]), url, old)
project.migrate()
engine = sa.create_engine(url)
with engine.begin() as connection, sa_audit.context(actor="alice"):
    connection.execute(sa.insert(old.tables["account"]).values(id=1, state="open"))
project.metadata = new
text = project.migrate()
print("synced:", "sync_enum_values" in text, "account_history" in text.partition("affected_columns")[2])
with engine.begin() as connection, sa_audit.context(actor="alice"):
    connection.execute(sa.update(new.tables["account"]).values(state="held"))
with Session(engine) as session:
    print("diff:", [each.diff["state"] for each in sa_audit.history(session, new.tables["account"], 1)])
third = project.migrate()
print("left:", "op." in third.partition("def upgrade():")[2].partition("def downgrade")[0])
"""


def ran(program: str, database: Database, place: Path) -> list[str]:
    """Run a program of its own, since these tools register themselves for the whole process, and give what it said."""
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", program, url, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if ": " in line and not line.startswith(("Generating", " "))]


@needs("alembic_utils")
@pytest.mark.only_on("postgresql")
def test_alembic_utils_leaves_the_trail_alone(tmp_path: Path, database: Database) -> None:
    """It makes its view and function, and drops neither the trail's functions nor its triggers."""
    said = ran(UTILS, database, tmp_path)
    assert said == ["view: True", "drops: False", "left: False"]


@needs("alembic_postgresql_enum")
@pytest.mark.only_on("postgresql")
def test_enums_follow(tmp_path: Path, database: Database) -> None:
    """A value is added to an enum, the history goes on, and nothing is left to do."""
    said = ran(ENUMS, database, tmp_path)
    assert said == ["synced: True False", "diff: [(None, 'open'), ('open', 'held')]", "left: False"]
