"""``sa-audit witness``: a program that runs, is killed, and goes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from sa_audit.anchors import WitnessAnchor
from sa_audit.cli.failure import WrongUsage
from sa_audit.cli.keygen import PASSWORD
from sa_audit.cli.witness import parse_address
from sa_audit.errors import IntegrityFinding
from sa_audit.proof import Verifier
from sa_audit.proof.keys import COSIGNATURE
from tests.anchors.trees import Tree
from tests.vectors.samples import LOG, ORIGIN

Run = Callable[..., Result]
TREE = Tree()


@pytest.fixture
def place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a witness's key, locked by a password, and a log's verifier key."""
    monkeypatch.setenv(PASSWORD, "correct horse")
    assert run("keygen", "north.example/w", "--witness", "--out", str(tmp_path)).exit_code == 0
    (tmp_path / "log.vkey").write_text(f"{LOG.verifier}\n")
    return tmp_path


def arguments(place: Path, *more: str) -> list[str]:
    """Give the command."""
    key = str(place / "north.example_w.key")
    words = ["witness", "--key", key, "--log", str(place / "log.vkey"), "--state", str(place / "state")]
    return [*words, "--listen", "127.0.0.1:0", *more]


@contextlib.contextmanager
def running(place: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], WitnessAnchor]]:
    """Run the witness as a program, and give it and its client."""
    command = [sys.executable, "-m", "sa_audit", *arguments(place, *more)]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert program.stderr is not None
    try:
        line = program.stderr.readline()
        match = re.search(r" listens at 127\.0\.0\.1:(\d+), for (\S+)$", line)
        assert match is not None, line + program.stderr.read()
        assert match[2] == ORIGIN
        yield program, WitnessAnchor(f"http://127.0.0.1:{match[1]}", vkey=place / "north.example_w.vkey")
    finally:
        program.kill()
        program.wait(30)
        program.stderr.close()


def test_the_key_of_a_witness_has_its_type(place: Path) -> None:
    """So that it can't be taken for a log's."""
    assert Verifier.load(place / "north.example_w.vkey").type == COSIGNATURE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_it_is_told_to_stop(place: Path, number: signal.Signals) -> None:
    """And says what it cosigned."""
    with running(place, "--new") as (program, anchor):
        anchor.put(TREE.checkpoint(5))
        program.send_signal(number)
        assert program.stderr is not None
        said = program.stderr.read()
        assert program.wait(30) == 0
    assert f"127.0.0.1: {ORIGIN}: cosigned size 5" in said
    assert said.endswith("stopping\n")


def test_it_is_killed_and_forgets_nothing(place: Path) -> None:
    """A fork is refused by the next process."""
    with running(place, "--new") as (program, anchor):
        anchor.put(TREE.checkpoint(5))
        program.kill()
        program.wait(30)
    with running(place) as (_program, anchor):
        anchor._kept.path = place / "elsewhere"
        with pytest.raises(IntegrityFinding, match="is a fork"):
            anchor.put(Tree(b"rewritten").checkpoint(5))
        assert anchor.put(TREE.checkpoint(9), prove=TREE.prove(9)).checkpoint.size == 9


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda place: (place / "log.vkey").write_text("junk\n"), 2, "is not a verifier key"),
        (lambda place: (place / "north.example_w.key").unlink(), 2, "can't be read"),
        (lambda place: os.environ.pop(PASSWORD), 2, "password"),
        (lambda place: None, 2, "there is no state"),
    ],
)
def test_what_can_t_be_begun_says_why(
    run: Run, place: Path, change: Callable[[Path], object], code: int, message: str
) -> None:
    """A key that is none, no key, no password, no state: one sentence, and no witness."""
    change(place)
    result = run(*arguments(place))
    assert (result.exit_code, message in " ".join(result.output.split())) == (code, True), result.output
    assert not (place / "state").exists()


def test_an_address_that_is_taken_says_so(run: Run, place: Path) -> None:
    """Exit code 3: it can't run here."""
    with running(place, "--new") as (_program, anchor):
        port = anchor.url.rpartition(":")[2]
        other = arguments(place, "--new")
        other[other.index("--state") + 1] = str(place / "other")
        other[other.index("--listen") + 1] = f"127.0.0.1:{port}"
        result = run(*other)
    assert (result.exit_code, "can't listen at 127.0.0.1" in result.output) == (3, True)


@pytest.mark.parametrize("text", ["", "8713", ":8713", "host:", "host:x", "host:99999", "host:-1"])
def test_an_address_is_host_and_port(text: str) -> None:
    """Anything else is told the form."""
    assert parse_address("[::1]:8713") == ("::1", 8713)
    with pytest.raises(WrongUsage, match="give HOST:PORT"):
        parse_address(text)
