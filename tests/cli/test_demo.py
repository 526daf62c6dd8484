"""The demo: its story, its file, and the commands that it prints."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from typer.testing import CliRunner, Result

from sa_audit.cli import demo as demo_module
from sa_audit.cli.app import app
from sa_audit.cli.demo_bank import Account, Customer, Money, Status
from sa_audit.query import history, reconcile
from sa_audit.query.timetravel import as_of

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo's file and its story for people."""
    path = tmp_path_factory.mktemp("demo") / "bank.db"
    result = CliRunner().invoke(app, ["demo", "--path", str(path)], env={"COLUMNS": "90"})
    assert result.exit_code == 0, result.output
    return path, result.stdout


def test_tells_a_story(told: tuple[Path, str]) -> None:
    """The story has the history as a table, the quarter's end, the blame, the refusal and the reconciliation."""
    _path, story = told
    flat = " ".join(story.split())
    for part in (
        "The months are simulated",
        "teller:7",
        "status OPEN → FROZEN",
        "(unusual log-ins)",
        "on 2024-03-31",
        "batch:interest",
        "sa_audit: the trail is append-only: UPDATE on account_history refused",
        "sa_audit: the trail is append-only: DELETE on account_history refused",
        "sa_audit: the trail is append-only: UPDATE on audit_transaction refused",
        "reconcile(session, Account)",
        "desk:audit",
    ):
        assert part in flat, part
    assert "\x1b" not in story


def test_fits_the_terminal(told: tuple[Path, str]) -> None:
    """No line is wider than the terminal, but for the commands, which can be copied whole."""
    _path, story = told
    assert all(len(line) <= 90 for line in story.splitlines() if "--url" not in line)


def test_what_it_says_is_so(told: tuple[Path, str]) -> None:
    """The file's tables agree with the story: the account was frozen at the quarter's end and is open now."""
    path, _story = told
    engine = sa.create_engine(f"sqlite:///{path}")
    with as_of(engine, "2024-03-31T23:59:59Z") as past:
        assert past.get_one(Account, 2).status is Status.FROZEN
        assert past.get_one(Customer, 3).name == "Customer C"
    with orm.Session(engine) as session:
        assert session.get_one(Account, 2).status is Status.OPEN
        assert session.get(Customer, 3) is None
        for model in (Account, Customer):
            assert list(reconcile(session, model)) == []
        changes = history(session, Account, 2)
        assert [change.recorded_at for change in changes] == sorted(change.recorded_at for change in changes)
        assert {change.recorded_at.year for change in changes} == {2024}
    engine.dispose()


def test_printed_commands_work(told: tuple[Path, str], run: Run) -> None:
    """Each command that the story prints runs as it is printed."""
    _path, story = told
    lines = story[story.index("Go on with:") :].replace("\\\n", "").splitlines()
    commands = [shlex.split(line) for line in lines if "sa-audit" in line]
    assert [command[1] for command in commands] == ["log", "show", "diff", "as-of", "restore"]
    for command in commands:
        result = run(*command[1:])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip()


def test_json(tmp_path: Path, run: Run) -> None:
    """The summary for machines has the same parts."""
    result = run("demo", "--path", str(tmp_path / "bank.db"), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["changes"] == sum(found["actors"].values())
    assert len(found["refused"]) == 3
    assert [row["identity"] for row in found["reconcile"]] == [[2]]
    pair = found["reconcile"][0]["diff"]["balance"]
    assert float(pair["present"]) == float(pair["recorded"]) + 10_000
    assert found["repair"]["diff"]["balance"] == {"before": pair["present"], "after": pair["recorded"]}
    quarter = {row["then"]["id"]: row["then"]["status"] for row in found["quarter_end"]["rows"]}
    assert quarter == {1: "OPEN", 2: "FROZEN", 3: "OPEN", 4: "OPEN"}
    assert found["quarter_end"]["rows"][3]["now"] is None
    assert set(found["blame"]) == {"id", "customer_id", "kind", "balance", "status"}
    assert found["blame"]["status"]["transaction"]["actor"] == "desk:fraud"


def test_overwrites_nothing(tmp_path: Path, run: Run) -> None:
    """A file that is there stays as it is, the demo's own, too."""
    path = tmp_path / "mine.db"
    path.write_text("precious")
    result = run("demo", "--path", str(path))
    assert result.exit_code == 2
    assert "is there already, and the demo overwrites nothing" in result.stderr
    assert path.read_text() == "precious"


def test_no_directory(tmp_path: Path, run: Run) -> None:
    """A directory that is not there is named."""
    result = run("demo", "--path", str(tmp_path / "none" / "bank.db"))
    assert (result.exit_code, "there is no directory" in result.stderr) == (2, True)


def test_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """If the database should let a forgery pass, the demo says so, and takes its file away."""
    monkeypatch.setattr(demo_module, "FORGERIES", ("SELECT 1",))
    result = run("demo", "--path", str(tmp_path / "bank.db"))
    assert (result.exit_code, "let a forgery of its trail pass" in result.stderr) == (3, True)
    assert list(tmp_path.iterdir()) == []


def test_is_fast(tmp_path: Path, run: Run) -> None:
    """The story takes less than five seconds of work."""
    start = time.process_time()
    assert run("demo", "--path", str(tmp_path / "bank.db")).exit_code == 0
    assert time.process_time() - start < 5


def test_money_is_exact() -> None:
    """An amount with a fraction of a cent is refused, not rounded."""
    dialect = sa.create_engine("sqlite://").dialect
    assert Money().process_bind_param(Decimal("12.50"), dialect) == 1250
    assert Money().process_result_value(1250, dialect) == Decimal("12.50")
    assert Money().process_bind_param(None, dialect) is None
    with pytest.raises(ValueError, match=r"0\.001 is no amount in whole cents"):
        Money().process_bind_param(Decimal("0.001"), dialect)
