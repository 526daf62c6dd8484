"""Killed at any step: the log goes on as if nothing had happened, and never forks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from sa_audit.anchors import FileAnchor
from sa_audit.proof import Checkpoint, Signer
from sa_audit.seal.sealer import Sealer

from .bank import ORIGIN, Base, Log, add, check_digests, present

pytestmark = pytest.mark.wide_on("mariadb")

Seal = Callable[..., Checkpoint | None]
STEPS = ("written", "pending", "committed", "taken", "signed", "noted", "anchored", "remembered")


class Killed(BaseException):
    """What nothing in the sealer catches."""


def kill_at(step: str, *, times: int = 1) -> Callable[[str], None]:
    """Give a hook that ends the sealing at a step, the so-manieth time that it comes."""
    left = [times]

    def on_step(name: str) -> None:
        left[0] -= name == step
        if not left[0]:
            raise Killed(step)

    return on_step


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_at_each_step(
    bank: sa.Engine, seal: Seal, signer: Signer, anchor: FileAnchor, step: str, times: int
) -> None:
    """The next sealing finishes what was begun, whether it was the key's round or that of the rows."""
    add(bank, 1)
    with pytest.raises(Killed):
        seal(on_step=kill_at(step, times=times))
    add(bank, 2)
    seal()
    log = Log(bank, signer.verifier)
    assert log.rows() == present(bank)
    check_digests(bank, log)
    kept = {(anchored.checkpoint.size, anchored.checkpoint.root) for anchored in anchor.read()}
    assert kept <= {(checkpoint.size, checkpoint.root) for checkpoint in log.checkpoints}
    assert max(kept)[0] == len(log.entries) == log.anchored[-1][0]


def test_an_anchor_that_failed_gets_what_it_lacks(bank: sa.Engine, seal: Seal, anchor: FileAnchor) -> None:
    """Though there is nothing new to seal; until then the sealing says that it failed."""
    add(bank, 1)
    with pytest.raises(Killed):
        seal(on_step=kill_at("noted", times=2))
    assert seal() is None
    assert [anchored.checkpoint.size for anchored in anchor.read()][-1] == len(Log(bank).entries)


CHILD = """
import os, sys
import sqlalchemy as sa
from sa_audit.anchors import FileAnchor
from sa_audit.proof import Signer
from sa_audit.seal.sealer import Sealer
from tests.seal.bank import Base

url, key, state, anchor, step = sys.argv[1:]

def on_step(name):
    if name == step:
        os._exit(9)

Sealer(sa.create_engine(url), Signer.load(key), state=state, anchors=[FileAnchor(anchor)], metadata=Base,
       on_step=on_step).seal()
"""


@pytest.mark.parametrize("step", [pytest.param("written", marks=pytest.mark.slow), "pending", "committed"])
def test_a_process_that_is_gone(
    bank: sa.Engine, seal: Seal, signer: Signer, state: Path, anchor: FileAnchor, tmp_path: Path, step: str
) -> None:
    """A real process ends without a word, its connection and its locks with it."""
    add(bank, 1)
    seal()
    add(bank, 2)
    key = tmp_path / "log.key"
    signer.save(key)
    url = bank.url.render_as_string(hide_password=False)
    arguments = [url, str(key), str(state), str(anchor.path), step]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
    )
    assert done.returncode == 9, done.stderr.decode()
    add(bank, 3)
    assert seal() is not None
    log = Log(bank, signer.verifier)
    assert log.rows() == present(bank)
    assert Sealer(bank, signer, state=state, metadata=Base).seal() is None
    assert signer.name == ORIGIN
