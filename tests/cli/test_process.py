"""The program itself, as the shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from typer.testing import Result

from .conftest import MODELS
from .ledger import Item

ROOT = Path(__file__).parent.parent.parent


class TestProcess:
    """The program itself, as the shell runs it."""

    def test_settings_of_the_project(self, sqlite_url: str, tmp_path: Path) -> None:
        """URL and models come from pyproject.toml, upward from the working directory, whose modules are found."""
        below = tmp_path / "project" / "below"
        below.mkdir(parents=True)
        (below.parent / "pyproject.toml").write_text(
            f'[tool.sa_audit]\nurl = "{sqlite_url}"\nmodels = "my_models:Base"\n'
        )
        (below.parent / "my_models.py").write_text("from tests.cli.ledger import Base\n")
        done = program("log", "--json", cwd=below)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith('{\n  "entries": []')

    def test_environment(self, sqlite_url: str, tmp_path: Path) -> None:
        """SA_AUDIT_URL serves where --url is not given."""
        done = program("log", "--models", MODELS, cwd=tmp_path, SA_AUDIT_URL=sqlite_url)
        assert (done.returncode, done.stdout) == (0, "no entry\n")

    def test_narrow_character_set(self, sqlite_url: str, tmp_path: Path) -> None:
        """What the terminal's character set lacks is escaped; it does not end the program."""
        engine = sa.create_engine(sqlite_url)
        with orm.Session(engine) as session:
            session.add(Item(name="Ærø", price=1))
            session.commit()
        engine.dispose()
        where = ("--url", sqlite_url, "--models", MODELS)
        done = program("show", "Item", "1", *where, cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (done.returncode, r"\xc6r\xf8" in done.stdout) == (0, True)
        done = program("show", "Item", "1", "--json", *where, cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (done.returncode, r"\u00c6r\u00f8" in done.stdout) == (0, True)

    def test_without_the_extra(self, tmp_path: Path) -> None:
        """Without typer the program says how to get it, and exits with 3."""
        (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
        done = program("log", cwd=tmp_path, first=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == "sa-audit needs typer to run: pip install 'sa-audit[cli]'\n"

    @pytest.mark.parametrize("command", ["demo", "log", "show", "diff", "as-of", "restore"])
    def test_help(self, command: str, run: Callable[..., Result]) -> None:
        """Each command explains itself."""
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout


def program(*arguments: str, cwd: Path, first: Path | None = None, **environment: str) -> Any:
    """Run ``python -m sa_audit`` as a process of its own."""
    paths = [str(path) for path in (first, ROOT) if path is not None]
    kept = {name: value for name, value in os.environ.items() if name not in ("SA_AUDIT_URL", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "sa_audit", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
