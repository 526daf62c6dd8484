"""`sa-audit prune`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from sa_audit.cli.app import app
from tests.databases import Database

from .declared import Base
from .models import Clinic, audited_of, keep_only

WHO = ("--actor", "archivist", "--reason", "two years are over")


@pytest.fixture
def command(database: Database) -> Iterator[Callable[..., Any]]:
    """Return a function that runs the command and gives what it printed, as JSON if that was asked for."""
    options = audited_of(Base).options

    def invoke(*arguments: str, code: int = 0) -> Any:
        url = database.url.render_as_string(hide_password=False)
        given = ["prune", *arguments, "--url", url, "--models", "tests.retention.declared:Base"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.output

    yield invoke
    audited_of(Base).options = options


def test_both_steps(engine: sa.Engine, tmp_path: Path, command: Callable[..., Any]) -> None:
    """A dry run, the request, the wait, the deletion, and nothing left to do."""
    clinic = Clinic(Base, engine, tmp_path).create()
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"), (3, "Cid"))
    clinic.hold(3)
    clinic.seal()
    keep_only(Base)
    numbers = ("carried", "held", "asked", "waiting", "erased")

    def counts(*arguments: str) -> list[int]:
        (table,) = command(*arguments, "--json")["tables"]
        assert table["table"] == "patient"
        return [table[name] for name in numbers]

    assert counts("--dry-run") == [2, 1, 3, 0, 0]
    assert counts(*WHO) == [2, 1, 3, 0, 0]
    assert "3 rows that were asked for wait for the sealer and an anchor" in command(*WHO)
    clinic.seal()
    assert "3 rows would be deleted" in command("--dry-run")
    assert counts(*WHO) == [0, 0, 0, 0, 3]
    clinic.seal()
    assert clinic.verify().findings == ()


def test_who_and_why_are_asked_for(engine: sa.Engine, tmp_path: Path, command: Callable[..., Any]) -> None:
    """Without them nothing is done, and a wrong time is refused."""
    clinic = Clinic(Base, engine, tmp_path).create()
    clinic.write((1, "Ann"))
    assert "actor" in command("--reason", "x", code=2)
    assert "reason" in command("--actor", "x", code=2)
    assert "--wait 'soon'" in command(*WHO, "--wait", "soon", code=2)
    assert "patient: nothing recorded before" in command(*WHO)
