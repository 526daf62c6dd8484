"""`sa-audit verify`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sa_audit.cli.app import app
from sa_audit.proof import Policy, Proof
from tests.verification.sealed import ORIGIN, TOUCHED, Sealed
from tests.verification.test_rows import HISTORY, row

Run = Callable[..., Result]


@pytest.fixture
def sealed(fresh: Sealed) -> Sealed:
    """A trail whose guards nobody has lifted yet, since the command tells of that for ever."""
    return fresh


@pytest.fixture
def run(sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that verifies the trail by the command."""
    monkeypatch.setenv("COLUMNS", "200")
    vkey = tmp_path / "log.vkey"
    vkey.write_text(f"{sealed.signer.verifier}\n")
    url = sealed.database.url.render_as_string(hide_password=False)
    place = ("--url", url, "--models", "tests.verification.models:Base")

    def invoke(*arguments: str, key: Path = vkey) -> Result:
        command = list(arguments) if arguments[:1] == ("prove",) else ["verify", "--vkey", str(key), *arguments]
        result = CliRunner().invoke(app, [*command, *place])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_a_sound_trail(run: Run, sealed: Sealed) -> None:
    """Exit code 0; how much was read, up to when it is sealed and anchored, and what is not."""
    plain = run()
    assert plain.exit_code == 0
    assert "no finding" in plain.output
    assert "not anchored" in plain.output
    result = run("--anchor", f"file:{sealed.directory / 'anchor'}", "--json", "--workers", "2")
    assert result.exit_code == 0
    report = json.loads(result.output)
    expected = sealed.verify()
    assert report == expected.as_json()
    assert (report["ok"], report["findings"], report["unsealed"]) == (True, [], 0)
    assert report["sealed_until"] == report["anchored_until"]
    assert report["checked"] > 80


def test_findings(run: Run, sealed: Sealed) -> None:
    """Exit code 1, and each finding with kind, table, row, expected and got."""
    changed = row(sealed, 5)
    sealed.attack(f"UPDATE {HISTORY} SET label = 'x' WHERE audit_id = {changed}")
    result = run("--json")
    assert result.exit_code == 1
    (finding,) = [each for each in json.loads(result.output)["findings"] if each["kind"] != TOUCHED]
    assert (finding["kind"], finding["table"], finding["row"]) == ("row-changed", HISTORY, changed)
    assert finding["expected"] != finding["got"]
    plain = run()
    assert plain.exit_code == 1
    assert f"{changed}" in plain.output
    assert "row-changed" in plain.output


def test_since(run: Run, sealed: Sealed, tmp_path: Path) -> None:
    """A checkpoint that is held: its own rows are not read again."""
    checkpoint = sealed.verify().checkpoint
    assert checkpoint is not None
    held = tmp_path / "held"
    held.write_text(checkpoint.format())
    report = json.loads(run("--since", str(held), "--json").output)
    assert (report["checked"], report["since"]) == (0, checkpoint.size)
    assert report["since_sealed_until"] == report["sealed_until"]
    assert f"the first {checkpoint.size} leaves" in run("--since", str(held)).output


def test_a_proof(run: Run, sealed: Sealed) -> None:
    """As text that parses, of the last change or the one that is named; a change that is none can't be proven."""
    policy = Policy.of(sealed.signer.verifier)
    last = Proof.parse(run("prove", "Note", "1").output)
    assert last.check(policy).logs == (sealed.signer.verifier,)
    first = run("prove", "Note", "1", "--audit-id", str(row(sealed, 1)), "--json")
    found = json.loads(first.output)
    proof = Proof.parse(found["proof"])
    proof.check(policy)
    assert (found["index"], found["size"]) == (proof.index, proof.checkpoint.size)
    assert proof.index < last.index
    assert run("prove", "Note", "1", "--audit-id", "999").exit_code == 3
    assert run("prove", "Note", "999").exit_code == 3


@pytest.mark.only_on("sqlite")
def test_what_can_not_be_meant_or_run(run: Run, tmp_path: Path) -> None:
    """Exit code 2 for a wrong key, checkpoint or anchor; 3 for an anchor that can't be read."""
    (tmp_path / "empty").write_text("")
    assert run(key=tmp_path / "none").exit_code == 2
    assert run(key=tmp_path / "empty").exit_code == 2
    assert run("--since", str(tmp_path / "none")).exit_code == 2
    assert run("--since", str(tmp_path / "empty")).exit_code == 2
    assert run("--anchor", "carrier pigeon").exit_code == 2
    assert run("--anchor", f"file:{tmp_path}/none").exit_code == 3
    assert ORIGIN in (tmp_path / "log.vkey").read_text()
