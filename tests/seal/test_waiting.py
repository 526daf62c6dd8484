"""Waiting for the seal."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import Checkpoint

from .bank import Account, Log, add

Seal = Callable[..., Checkpoint | None]


def test_a_sealed_transaction_is_found_at_once(bank: sa.Engine, seal: Seal) -> None:
    """The checkpoint that is given covers it, and an anchor has taken it."""
    add(bank, 1)
    checkpoint = seal()
    assert checkpoint is not None
    with Session(bank) as session:
        session.get_one(Account, 1)
        found = sa_audit.await_sealed(session, 1, timeout=5)
    assert found.size == checkpoint.size == Log(bank).anchored[-1][0]


def test_it_waits_until_the_sealer_comes(bank: sa.Engine, seal: Seal) -> None:
    """The wait ends soon after the sealing, without any lock in its way."""
    seal()
    add(bank, 1)
    timer = threading.Timer(0.2, seal)
    with Session(bank) as session:
        session.get_one(Account, 1)
        session.rollback()
        timer.start()
        found = sa_audit.await_sealed(session, 1, timeout=20)
    timer.join()
    assert found.size == len(Log(bank).entries)


def test_it_gives_up(bank: sa.Engine, seal: Seal) -> None:
    """The error says what is lacking: the seal, or the anchor's token."""
    add(bank, 1)
    with Session(bank) as session:
        with pytest.raises(sa_audit.SealTimeout, match="was not sealed within"):
            sa_audit.await_sealed(session, 1, timeout=0)
        seal(anchors=())
        with pytest.raises(sa_audit.SealTimeout, match="was not signed and anchored"):
            sa_audit.await_sealed(session, 1, timeout=0)
        assert sa_audit.await_sealed(session, 1, timeout=0, anchored=False).size > 0
