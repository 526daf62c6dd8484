"""The unsealed window: how many rows, since when, and who holds it open."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.catalog import Unsealed
from sa_audit.proof import Checkpoint, Signer
from sa_audit.seal.sealer import Sealer

from .bank import Account, Base, add

Seal = Callable[..., Checkpoint | None]
Window = Callable[[], Unsealed]


@pytest.fixture
def window(bank: sa.Engine, signer: Signer, state: Path) -> Window:
    """Return a function that looks at the window."""
    return Sealer(bank, signer, state=state, metadata=Base).window


def test_it_counts_committed_rows(bank: sa.Engine, seal: Seal, window: Window) -> None:
    """An entry and its history rows count until they are sealed, with the age of the oldest."""
    seal()
    assert window() == Unsealed(rows=0, since=None, held_by=None)
    add(bank, 1, 2)
    add(bank, 3)
    found = window()
    assert (found.rows, found.held_by) == (5, None)
    assert found.since is not None
    assert dt.timedelta(0) <= found.age(dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    seal()
    assert window() == Unsealed(rows=0, since=None, held_by=None)


def test_before_the_first_sealing_all_is_unsealed(bank: sa.Engine, window: Window) -> None:
    """Without a state nothing is sealed."""
    add(bank, 1)
    assert window().rows >= 2


@pytest.mark.only_on("postgresql")
def test_it_names_who_is_writing(bank: sa.Engine, seal: Seal, window: Window) -> None:
    """The process, or the prepared transaction."""
    seal()
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=1))
        slow.flush()
        found = window()
    assert found.rows == 0
    assert found.held_by is not None
    assert found.held_by.startswith("process ")


@pytest.mark.only_on("mariadb")
def test_rows_behind_a_slow_writer_are_counted(bank: sa.Engine, seal: Seal, window: Window) -> None:
    """What waits for the open epoch is committed, and unsealed."""
    seal()
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=1))
        slow.flush()
        add(bank, 2)
        seal()
        assert window().rows == 2
