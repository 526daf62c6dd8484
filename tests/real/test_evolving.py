"""A project from each template lives through thirteen changes of its schema, and its past stays what it was.

Each stage is a process of its own, as it is in life: the models change, Alembic writes the migration and runs it,
the application's account writes rows by a session, by Core and with the bare driver, and copies of all tables are
taken.
At every stage every earlier moment's ``as_of`` equals the copies that were taken then.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.databases import Database

PROGRAMS = Path(__file__).parent / "evolving"
STAGES = 14


class Evolving:
    """The project: a directory, the accounts, and what each process is told."""

    def __init__(self, directory: Path, database: Database, template: str) -> None:
        self.directory = directory
        self.database = database
        self.template = template
        self.roles = "roles" in database.capabilities and database.dialect == "postgresql"
        prefix = database.role_prefix
        self.application, self.migrator = f"{prefix}app", f"{prefix}mig"
        for name in ("bank.py", "stage.py"):
            shutil.copy(PROGRAMS / name, directory / name)
        settings = f"[tool.sa_audit]\nurl = {json.dumps(self.text(self.migrator, asynchronous=True))}\n"
        (directory / "pyproject.toml").write_text(f'{settings}models = "bank:Base"\n')

    def text(self, account: str, *, asynchronous: bool = False) -> str:
        """Give an account's URL."""
        url = self.database.url
        if asynchronous and self.template == "async":
            url = next(iter(self.database.async_urls.values()))
        if self.roles:
            url = url.set(username=account)
        return url.render_as_string(hide_password=False)

    def environment(self, stage: int) -> dict[str, str]:
        """Give what a process of a stage is told."""
        told = {
            "BANK_STAGE": str(stage),
            "BANK_DIALECT": self.database.dialect,
            "BANK_MIGRATOR_URL": self.text(self.migrator, asynchronous=True),
            "BANK_MIGRATOR_SYNC_URL": self.text(self.migrator),
            "BANK_APPLICATION_URL": self.text(self.application),
            "PYTHONPATH": str(self.directory),
        }
        if self.roles:
            told |= {"BANK_ROLES": self.database.role_prefix, "BANK_GRANTS": self.application}
        return {**os.environ, **told}

    def run(self, stage: int, *arguments: str) -> str:
        """Run a Python program at a stage, and give what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=self.environment(stage),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"stage {stage}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def begin(self, engine: sa.Engine) -> None:
        """Make the accounts and roles as a DBA does, and the environment of the migrations."""
        if self.roles:
            with engine.begin() as connection:
                for statement in (
                    f'CREATE ROLE "{self.application}" LOGIN',
                    f'CREATE ROLE "{self.migrator}" LOGIN',
                    f'GRANT CREATE ON SCHEMA public TO "{self.migrator}"',
                    f'GRANT CREATE ON DATABASE "{engine.url.database}" TO "{self.migrator}"',
                ):
                    connection.exec_driver_sql(statement)
            url = self.database.url.render_as_string(hide_password=False)
            accounts = ["--application", self.application, "--migrator", self.migrator]
            script = self.run(0, "-m", "sa_audit", "roles", "--url", url, *accounts)
            with engine.begin() as connection:
                connection.exec_driver_sql(script.replace("%", "%%"))
        self.run(0, "-m", "sa_audit", "init", "migrations", "--template", self.template)
        if self.database.dialect == "postgresql":  # the last stage has a table in another schema
            env = self.directory / "migrations" / "env.py"
            text = env.read_text()
            assert text.count("connection=connection, target_metadata=target_metadata,") == 1
            env.write_text(
                text.replace(
                    "connection=connection, target_metadata=target_metadata,",
                    "connection=connection, target_metadata=target_metadata, include_schemas=True,",
                )
            )

    def check(self) -> Any:
        """Give what `sa-audit check` says at the end."""
        url = self.text(self.migrator)
        return json.loads(self.run(STAGES - 1, "-m", "sa_audit", "check", "--json", "--url", url))


@pytest.mark.slow
@pytest.mark.parametrize("template", ["generic", "async", "pyproject"])
def test_the_past_stays_what_it_was(template: str, tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Thirteen changes, three ways to write: every moment's rows are those that were there, and nothing drifts."""
    project = Evolving(tmp_path, database, template)
    project.begin(engine)
    compared = [int(project.run(stage, "stage.py").split()[-1]) for stage in range(STAGES)]
    assert all(later > earlier for earlier, later in itertools.pairwise(compared))
    found = project.check()
    assert [finding for finding in found["findings"] if finding["drift"]] == []
    assert found["level"] == {"postgresql": 3, "mariadb": 1, "mysql": 1, "sqlite": 1}[database.dialect], found
