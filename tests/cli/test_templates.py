"""The Alembic templates, used as a new project uses them: no edit between the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

MODELS = """
import sa_audit
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Account(sa_audit.Audited, Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


def run(directory: Path, *arguments: str, code: int = 0) -> str:
    """Run a module's command line in a directory and give what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "SA_AUDIT_URL"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("template", "way"),
    [
        ("generic", "sa-audit"),
        pytest.param("generic", "alembic", marks=pytest.mark.wide),
        *(
            pytest.param(template, way, marks=pytest.mark.wide)
            for template in ("async", "pyproject")
            for way in ("sa-audit", "alembic")
        ),
    ],
)
def test_a_new_project_needs_no_edit(tmp_path: Path, template: str, way: str) -> None:
    """Init, revision, upgrade, check and downgrade run one after the other."""
    driver = "sqlite+aiosqlite" if template == "async" else "sqlite"
    settings = f'[tool.sa_audit]\nurl = "{driver}:///bank.db"\nmodels = "bank:Base"\n'
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / "bank.py").write_text(MODELS)
    if way == "sa-audit":
        run(tmp_path, "sa_audit", "init", "migrations", "--template", template)
    else:
        path = run(tmp_path, "sa_audit", "template-path", template).strip()
        run(tmp_path, "alembic", "init", "-t", path, "migrations")
    run(tmp_path, "alembic", "revision", "--autogenerate", "-m", "audit")
    run(tmp_path, "alembic", "upgrade", "head")
    run(tmp_path, "alembic", "check")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'bank.db'}")
    with engine.connect() as connection:
        assert sa.inspect(connection).has_table("account_history")
    engine.dispose()
    assert "CREATE TRIGGER" in run(tmp_path, "alembic", "upgrade", "head", "--sql")
    run(tmp_path, "alembic", "downgrade", "base")


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    """A template that is none, and a directory that is in use, are errors of usage that say so."""
    assert "'flask' is no template: give one of generic" in run(tmp_path, "sa_audit", "template-path", "flask", code=2)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "mine").touch()
    assert "not empty" in run(tmp_path, "sa_audit", "init", "migrations", code=2)
    (tmp_path / "file").touch()
    said = run(tmp_path, "sa_audit", "init", "file", code=2)
    assert "file can't be made a directory of migrations" in said
    assert "Traceback" not in said
