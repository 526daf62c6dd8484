"""No late commit is ever skipped: a transaction that ends after others, whatever ids and times its rows have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import BlockEntry, Checkpoint
from sa_audit.testing import unguarded

from .bank import Account, Base, Log, add, present, trail

Seal = Callable[..., Checkpoint | None]


@pytest.mark.needs("concurrent-writers")
@pytest.mark.every_server
def test_a_transaction_that_stays_open_over_many_seals(bank: sa.Engine, seal: Seal) -> None:
    """It is sealed after it has ended, and what came meanwhile is sealed by then as well, each row once."""
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=100))
        slow.flush()
        for key in range(1, 11):
            add(bank, key)
            seal()
        assert (100,) not in {(row,) for name, row in Log(bank).rows() if name == "account_sealed"}
        slow.commit()
    seal()
    assert Log(bank).rows() == present(bank)


@pytest.mark.only_on("postgresql")
def test_a_slow_writer_delays_only_itself(bank: sa.Engine, seal: Seal) -> None:
    """On PostgreSQL the rows of others are sealed while it is open."""
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=100))
        slow.flush()
        add(bank, 1)
        seal()
        assert Log(bank).rows() == present(bank)
        slow.commit()
    assert Log(bank).rows() != present(bank)
    seal()
    assert Log(bank).rows() == present(bank)


@pytest.mark.only_on("mariadb")
def test_a_slow_writer_keeps_its_epoch_open(bank: sa.Engine, seal: Seal) -> None:
    """On MariaDB later rows wait for it, and none of them is lost; writers are not held up."""
    add(bank, 1)
    seal()
    before = len(Log(bank).entries)
    with sa_audit.context(actor="slow"), Session(bank) as slow:
        slow.add(Account(id=100))
        slow.flush()
        for key in (2, 3):
            add(bank, key)
            assert seal() is None
        assert len(Log(bank).entries) == before
        slow.commit()
    seal()
    add(bank, 4)
    seal()
    seal()
    assert Log(bank).rows() == present(bank)


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("two-phase")
def test_a_prepared_transaction(bank: sa.Engine, seal: Seal) -> None:
    """It holds nobody else up, and is sealed once it is committed."""
    with sa_audit.context(actor="slow"), Session(bank, twophase=True) as session:
        session.add(Account(id=100))
        session.prepare()
        add(bank, 1)
        seal()
        assert Log(bank).rows() == present(bank)
        session.commit()
    seal()
    assert Log(bank).rows() == present(bank)


@pytest.mark.only_on("postgresql")
def test_a_row_from_the_future_is_never_sealed(bank: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lifts the guards and gives a row a transaction id above all living ones does not get it sealed."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    add(bank, 1)
    seal()
    with unguarded(bank), bank.begin() as connection:
        connection.execute(sa.insert(trail().transaction).values(actor="forger", db_txid=1 << 40))
    seal()
    assert {row for name, row in present(bank) - Log(bank).rows()} == {2}


@pytest.mark.needs("concurrent-writers")
def test_the_horizon_names_what_is_complete(bank: sa.Engine, seal: Seal) -> None:
    """The header says the snapshot or the epoch of its sealing."""
    add(bank, 1)
    seal()
    kind, _value = Log(bank).of(BlockEntry)[-1].horizon
    assert kind == {"postgresql": "snapshot", "mariadb": "epoch", "mysql": "epoch"}[bank.dialect.name]
    assert Base.metadata is trail().metadata
