"""A witness cosigns what the sealer makes, as the log grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from sa_audit.errors import AnchorUnavailable
from sa_audit.proof import Checkpoint, Signer
from sa_audit.seal.sealer import Sealer
from sa_audit.verification import verify
from tests.anchors.running import Running
from tests.vectors.samples import NORTH

from .bank import Base, add

Seal = Callable[..., Checkpoint | None]


@pytest.fixture
def north(tmp_path: Path, signer: Signer) -> Running:
    """A witness of the log."""
    return Running(tmp_path, NORTH, (signer.verifier,))


def test_it_cosigns_as_the_log_grows(bank: sa.Engine, seal: Seal, signer: Signer, north: Running) -> None:
    """Each checkpoint continues the one before, also over more than one tile."""
    with north.serve():
        for keys in (range(1, 4), range(4, 5), range(5, 400)):
            add(bank, *keys)
            checkpoint = seal(anchors=[north.anchor()])
            latest = north.anchor().latest()
            assert checkpoint is not None
            assert latest is not None
            assert latest.checkpoint.text == checkpoint.text
        assert verify(bank, signer.verifier, anchors=[north.anchor()], metadata=Base).findings == ()


def test_what_it_missed_it_gets_later(bank: sa.Engine, seal: Seal, signer: Signer, state: Path, north: Running) -> None:
    """A witness that was away is given what the log has become, by a proof from what it knows."""
    with north.serve():
        add(bank, 1)
        seal(anchors=[north.anchor()])
        away = north.anchor()
    add(bank, 2)
    with pytest.raises(AnchorUnavailable):
        Sealer(bank, signer, state=state, anchors=[away], metadata=Base).seal()
    add(bank, 3)
    with north.serve():
        add(bank, 4)
        checkpoint = seal(anchors=[north.anchor()])
        latest = north.anchor().latest()
    assert checkpoint is not None
    assert latest is not None
    assert latest.checkpoint.size == checkpoint.size
