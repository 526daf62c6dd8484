"""A checkpoint is a moment of the past, exact on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import Checkpoint
from sa_audit.proof.types import Digest

from .bank import Account, add

Seal = Callable[..., Checkpoint | None]


def keys(place: sa.Engine | Session, checkpoint: Checkpoint) -> list[int]:
    """Give the accounts that were there."""
    with sa_audit.as_of(place, checkpoint) as past:
        return list(past.scalars(sa.select(Account.id).order_by(Account.id)))


@pytest.mark.only_on("postgresql")
def test_what_was_sealed_then(bank: sa.Engine, seal: Seal) -> None:
    """A writer that was open then is not seen, though it began first, and one that ended is."""
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=100))
        slow.flush()
        add(bank, 1)
        first = seal()
        slow.commit()
    add(bank, 2)
    second = seal()
    assert first is not None
    assert second is not None
    assert keys(bank, first) == [1]
    with Session(bank) as session:
        assert keys(session, second) == [1, 2, 100]


@pytest.mark.only_on("postgresql")
def test_a_checkpoint_of_another_log(bank: sa.Engine, seal: Seal) -> None:
    """A size at which this log has signed nothing is refused."""
    add(bank, 1)
    checkpoint = seal()
    assert checkpoint is not None
    other = Checkpoint(origin=checkpoint.origin, size=checkpoint.size + 1, root=checkpoint.root)
    with pytest.raises(sa_audit.InvalidMoment, match="no checkpoint of size"):
        keys(bank, other)
    forged = Checkpoint(origin=checkpoint.origin, size=checkpoint.size, root=Digest(bytes(32)))
    with pytest.raises(sa_audit.InvalidMoment, match="with the root 0000"):
        keys(bank, forged)


@pytest.mark.only_on("sqlite", "mariadb")
def test_other_databases_say_so(bank: sa.Engine, seal: Seal) -> None:
    """They have no snapshots."""
    add(bank, 1)
    checkpoint = seal()
    assert checkpoint is not None
    with pytest.raises(sa_audit.InvalidMoment, match="on PostgreSQL only"):
        keys(bank, checkpoint)
