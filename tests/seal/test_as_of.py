"""A checkpoint is an exact moment of the past."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import Checkpoint
from sa_audit.proof.types import Digest
from sa_audit.query.moment import Epoch, LastEntry

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


def test_a_checkpoint_of_another_log(bank: sa.Engine, seal: Seal) -> None:
    """A size at which this log has signed nothing is refused."""
    add(bank, 1)
    checkpoint = seal()
    assert checkpoint is not None
    other = Checkpoint(origin=checkpoint.origin, size=checkpoint.size + 1, root=checkpoint.root)
    with pytest.raises(sa_audit.InvalidMoment, match="is not of the log in this database"):
        keys(bank, other)
    forged = Checkpoint(origin=checkpoint.origin, size=checkpoint.size, root=Digest(bytes(32)))
    with pytest.raises(sa_audit.InvalidMoment, match="is not of the log in this database"):
        keys(bank, forged)


def test_exactly_what_was_sealed(bank: sa.Engine, seal: Seal) -> None:
    """What came after a checkpoint is not seen, changes and deletions neither, and their past values come back."""
    add(bank, 1, 2)
    first = seal()
    with sa_audit.context(actor="bob"), Session(bank) as session:
        session.get_one(Account, 1).balance = Decimal("7.50")
        session.delete(session.get_one(Account, 2))
        session.commit()
    add(bank, 3)
    assert first is not None
    second = seal()
    assert second is not None
    with Session(bank) as session, session.begin():
        session.add(Account(id=4))  # neither committed nor sealed
        session.flush()
        assert keys(session, first) == [1, 2]
        assert keys(session, second) == [1, 3]
        session.rollback()
    with sa_audit.as_of(bank, first) as past:
        assert past.info["settled"] is True
        assert past.get_one(Account, 1).balance == Decimal("1.10")
    with Session(bank) as session:
        changed = sa_audit.diff(session, Account, 1, first, second)
    assert changed == {"balance": (Decimal("1.10"), Decimal("7.50"))}


async def test_async(bank: sa.Engine, seal: Seal, make_async_engine: Callable[..., AsyncEngine]) -> None:
    """An async engine and session look the checkpoint up by themselves."""
    add(bank, 1)
    checkpoint = seal()
    add(bank, 2)
    engine = make_async_engine()
    async with sa_audit.as_of(engine, checkpoint) as past:
        assert list(await past.scalars(sa.select(Account.id))) == [1]
    async with AsyncSession(engine) as session, sa_audit.as_of(session, checkpoint) as past:
        assert list(await past.scalars(sa.select(Account.id))) == [1]


def test_a_kind_of_another_database(bank: sa.Engine) -> None:
    """An exact moment is refused where it means nothing."""
    moments = [Epoch(number=1, at=dt.datetime.now(dt.UTC)), LastEntry(number=1, at=dt.datetime.now(dt.UTC))]
    known = {"mysql": Epoch, "mariadb": Epoch, "sqlite": LastEntry}.get(bank.dialect.name)
    for moment in moments:
        if type(moment) is known:
            continue
        with (
            pytest.raises(sa_audit.InvalidMoment, match="is a state of another database"),
            sa_audit.as_of(bank, moment),
        ):
            pass
