"""``sa-audit seal`` and ``rebase``: once, as a service that a signal stops, and after the state file was lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

import sa_audit
from sa_audit.anchors import FileAnchor
from sa_audit.cli.keygen import PASSWORD
from sa_audit.cli.sealing import seconds
from sa_audit.proof import Signer
from sa_audit.testing import unguarded

from .conftest import MODELS, Ledger
from .ledger import Item

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a sealing: an encrypted key, a state file and an anchor."""
    monkeypatch.setenv(PASSWORD, "secret")
    Signer.generate("bank.example/audit").save(tmp_path / "log.key", "secret")
    return [
        *("--key", str(tmp_path / "log.key"), "--state", str(tmp_path / "state")),
        *("--anchor", f"file:{tmp_path}/anchor"),
    ]


def test_it_seals_once(ledger_database: Ledger, options: list[str], tmp_path: Path) -> None:
    """It says how far the log goes and that nothing is left; then, that there is nothing to seal."""
    done = ledger_database.json("seal", *options)
    assert done["sealed"] is True
    assert done["unsealed"] == {"rows": 0, "since": None, "held_by": None}
    kept = [anchored.checkpoint for anchored in FileAnchor(tmp_path / "anchor").read()]
    assert (kept[-1].size, kept[-1].root.hex()) == (done["size"], done["root"])
    assert ledger_database.json("seal", *options)["sealed"] is False
    assert "nothing to seal" in ledger_database("seal", *options)


def test_check_verifies_with_a_key(
    ledger_database: Ledger, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealed and anchored trail has nothing against level 4; without an anchor, or with a changed row, it has."""
    ledger_database("seal", *options)
    key = Signer.load(tmp_path / "log.key", "secret")
    (tmp_path / "log.vkey").write_text(f"{key.verifier}\n")
    vkey, uri = ["--vkey", str(tmp_path / "log.vkey")], options[options.index("--anchor") + 1]

    def lacking(*arguments: str, code: int = 0) -> list[tuple[str, int]]:
        found = json.loads(ledger_database("check", "--json", *vkey, *arguments, code=code))
        return [(one["kind"], one["blocks"]) for one in found["findings"] if one["blocks"] == 4]

    assert lacking() == [("not-anchored", 4)]
    assert lacking("--anchor", uri) == []
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    with unguarded(ledger_database.engine), ledger_database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_transaction SET reason = 'another one' WHERE id = 1")
    assert lacking("--anchor", uri, code=1) != []


def test_a_refusal_is_a_sentence(ledger_database: Ledger, options: list[str], tmp_path: Path) -> None:
    """And the way out of it is a rebase, which says who and why."""
    ledger_database("seal", *options)
    (tmp_path / "state").unlink()
    assert "state file is not there" in ledger_database("seal", *options, code=3)
    said = ledger_database("rebase", "--state", str(tmp_path / "state"), "--actor", "olga", "--reason", "disk failed")
    assert "the next sealing says so" in " ".join(said.split())
    assert ledger_database.json("seal", *options)["sealed"] is True


def test_a_stolen_key_is_revoked(ledger_database: Ledger, options: list[str], tmp_path: Path) -> None:
    """Once another key signs; the log says so, and the stolen key is refused from then on."""
    old = Signer.load(tmp_path / "log.key", "secret")
    (tmp_path / "old.vkey").write_text(f"{old.verifier}\n")
    new = Signer.generate("bank.example/audit")
    new.save(tmp_path / "new.key", "secret")
    both, rest = ["--key", str(tmp_path / "new.key"), *options], options[2:]
    revoke = ["revoke", "--vkey", str(tmp_path / "old.vkey"), "--state", str(tmp_path / "state"), "--actor", "olga"]
    revoke += ["--reason", "laptop stolen", "--stolen-at", "2026-03-31T20:00:00Z"]
    size = str(ledger_database.json("seal", *options)["size"])
    assert "only key that signs" in " ".join(ledger_database(*revoke, "--size", size, code=3).split())
    size = str(ledger_database.json("seal", *both)["size"])
    assert "--stolen-at 'today'" in ledger_database(*revoke, "--stolen-at", "today", "--size", size, code=2)
    ledger_database(*revoke, "--size", size)
    assert "does not come back" in " ".join(ledger_database("seal", *both, code=3).split())
    assert ledger_database.json("seal", "--key", str(tmp_path / "new.key"), *rest)["sealed"] is True
    (tmp_path / "both.policy").write_text(f"log {old.verifier}\nlog {new.verifier}\nquorum none\n")
    report = ledger_database.json("verify", "--vkey", str(tmp_path / "both.policy"))
    assert report["findings"] == []


def test_it_wants_a_time_that_is_one(ledger_database: Ledger, options: list[str]) -> None:
    """Two seconds, half a second, five minutes; nothing else."""
    assert [seconds(text) for text in ("2s", "500ms", "5m", "1h", "0.5")] == [2, 0.5, 300, 3600, 0.5]
    assert "--every '2 days'" in ledger_database("seal", *options, "--every", "2 days", code=2)
    assert "--every '0s'" in ledger_database("seal", *options, "--every", "0s", code=2)


def test_a_wrong_password_is_said(ledger_database: Ledger, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stays closed, and nothing is sealed."""
    monkeypatch.setenv(PASSWORD, "wrong")
    ledger_database("seal", *options, code=2)


def test_the_service_seals_until_it_is_stopped(ledger_database: Ledger, options: list[str], tmp_path: Path) -> None:
    """What is written while it runs is sealed soon, and SIGTERM ends it with code 0."""
    command = [sys.executable, "-m", "sa_audit", "seal", *options, "--every", "50ms", "--json"]
    place = ["--url", ledger_database.url, "--models", MODELS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, *place], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            _wait_for(lambda: _sealed(tmp_path) > 0)
            first = _sealed(tmp_path)
            with sa_audit.context(actor="clerk:1"), orm.Session(ledger_database.engine) as session:
                session.get_one(Item, 1).price = 99
                session.commit()
                number = session.scalar(sa.text("SELECT max(id) FROM audit_transaction"))
                assert sa_audit.await_sealed(session, number, timeout=20).size > first
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert '"sealed": true' in output.decode()
    assert json.loads((tmp_path / "state").read_text())["pending"] is None


def _sealed(directory: Path) -> int:
    state = directory / "state"
    return int(json.loads(state.read_text())["state"]["size"]) if state.is_file() else 0


def _wait_for(condition: object) -> None:
    until = time.monotonic() + 20
    while not condition():  # type: ignore[operator]  # a function of no arguments
        assert time.monotonic() < until
        time.sleep(0.05)
