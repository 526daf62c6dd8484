"""``sa-audit keygen``: two files, a password from somewhere, and nothing overwritten."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sa_audit.cli.keygen import PASSWORD, file_stem
from sa_audit.proof import Checkpoint, Policy, Signer, Verifier, leaf_hash, tree_root

NAME = "bank.example/audit"
STEM = "bank.example_audit"

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)


def test_it_makes_a_key_that_signs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one file signs, the other verifies."""
    monkeypatch.setenv(PASSWORD, "correct horse")
    result = run("keygen", NAME, "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    signer = Signer.load(tmp_path / f"{STEM}.key", "correct horse")
    verifier = Verifier.load(tmp_path / f"{STEM}.vkey")
    checkpoint = Checkpoint(origin=NAME, size=1, root=tree_root([leaf_hash(b"a")])).sign(signer)
    assert Policy.of(verifier).check(checkpoint).logs == (verifier,)
    assert stat.S_IMODE((tmp_path / f"{STEM}.key").stat().st_mode) == 0o600
    assert str(verifier) in result.output
    assert "correct horse" not in result.output
    assert "the signing key, encrypted" in " ".join(result.output.split())


def test_it_says_in_json_what_it_made(run: Run, tmp_path: Path) -> None:
    """Paths, verifier, and whether the key is encrypted."""
    result = run("keygen", NAME, "--out", str(tmp_path), "--no-password", "--json")
    assert json.loads(result.output) == {
        "name": NAME,
        "key": str(tmp_path / f"{STEM}.key"),
        "vkey": str(tmp_path / f"{STEM}.vkey"),
        "verifier": str(Verifier.load(tmp_path / f"{STEM}.vkey")),
        "encrypted": False,
    }
    assert Signer.load(tmp_path / f"{STEM}.key").name == NAME


def test_an_open_key_is_made_only_if_asked_for(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a password nor a terminal: refused, as are both a password and the wish for none."""
    result = run("keygen", NAME, "--out", str(tmp_path))
    assert (result.exit_code, "set SA_AUDIT_KEY_PASSWORD" in result.output) == (2, True)
    monkeypatch.setenv(PASSWORD, "x")
    result = run("keygen", NAME, "--out", str(tmp_path), "--no-password")
    assert (result.exit_code, "unset one of them" in result.output) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["key", "vkey"])
def test_nothing_is_overwritten(run: Run, tmp_path: Path, ending: str) -> None:
    """Neither file, and no half of a pair is left."""
    (tmp_path / f"{STEM}.{ending}").write_text("kept")
    result = run("keygen", NAME, "--out", str(tmp_path), "--no-password")
    assert (result.exit_code, "no key is overwritten" in result.output) == (2, True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_a_name_that_can_not_be_is_refused(run: Run, tmp_path: Path) -> None:
    """With the rule, and no file."""
    for name in ("", "a b", "a+b"):
        result = run("keygen", name, "--out", str(tmp_path), "--no-password")
        assert (result.exit_code, "can't be a key's name" in result.output) == (2, True)
    assert run("keygen", NAME, "--out", str(tmp_path / "nowhere"), "--no-password").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("bank.example/audit", "bank.example_audit"),
        ("audit", "audit"),
        ("../../etc", "_._.._etc"),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("caf\u00e9", "caf_"),
        ("a:b\\c", "a_b_c"),
    ],
)
def test_no_name_leaves_its_directory(name: str, stem: str) -> None:
    """A file's name holds no slash, begins with no dot and no hyphen."""
    assert file_stem(name) == stem


def test_it_asks_who_sits_at_the_terminal(tmp_path: Path) -> None:
    """Twice, and without showing what is typed."""
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-m", "sa_audit", "keygen", NAME, "--out", str(tmp_path)]
    program = subprocess.Popen(
        command, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True, close_fds=True
    )
    os.close(other_end)
    shown = b""
    for _ in range(2):
        shown += _until(terminal, b": ")
        time.sleep(0.2)  # the prompt stands before the echo is switched off
        os.write(terminal, b"typed in\n")
    while chunk := _read(terminal):
        shown += chunk
    os.close(terminal)
    assert program.wait(30) == 0, shown
    assert b"typed in" not in shown
    assert Signer.load(tmp_path / f"{STEM}.key", "typed in").name == NAME


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # what Linux says when the other end is closed
        return b""


def _until(terminal: int, end: bytes) -> bytes:
    shown = b""
    while not shown.endswith(end):
        chunk = _read(terminal)
        assert chunk, shown
        shown += chunk
    return shown
