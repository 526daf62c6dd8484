"""Rebase: sealing goes on in another database, or without the state file, and the log says so for ever."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import sa_audit
from sa_audit.anchors import FileAnchor
from sa_audit.proof import Checkpoint, IncarnationEntry, Signer
from sa_audit.seal.ranges import joined, merged, without
from sa_audit.testing import unguarded

from .bank import Base, Log, add, check_digests, present, trail

Seal = Callable[..., Checkpoint | None]


@pytest.fixture
def sealed(bank: sa.Engine, seal: Seal) -> sa.Engine:
    """A bank with sealed rows and one that is not."""
    add(bank, 1, 2)
    seal()
    add(bank, 3)
    return bank


def rebase(bank: sa.Engine, state: Path) -> None:
    """Rebase, as an operator would."""
    sa_audit.rebase(bank, state=state, operator="olga", reason="moved to another server", metadata=Base)


def moved(state: Path) -> None:
    """Make the state one of another database, as if this one had been restored from it."""
    content = json.loads(state.read_text())
    content["state"]["system"] = "elsewhere"
    state.write_text(json.dumps(content))


def test_a_database_that_moved(sealed: sa.Engine, seal: Seal, signer: Signer, state: Path) -> None:
    """The next sealing writes who said so and why, and seals what was not, each row once."""
    moved(state)
    with pytest.raises(sa_audit.SealRefused):
        seal()
    rebase(sealed, state)
    seal()
    add(sealed, 4)
    seal()
    log = Log(sealed, signer.verifier)
    assert log.rows() == present(sealed)
    check_digests(sealed, log)
    (said,) = log.of(IncarnationEntry)
    assert (said.number, said.operator, said.reason) == (1, "olga", "moved to another server")
    assert said.old.system == "elsewhere"
    assert all(loss.lost == () for loss in said.tables)
    headers = [header.incarnation for header in log.entries if hasattr(header, "closes")]
    assert headers == sorted(headers)
    assert headers[-1] == 1


def test_a_lost_state_file(sealed: sa.Engine, seal: Seal, signer: Signer, state: Path, anchor: FileAnchor) -> None:
    """It is made anew from the log, and the anchor still has its say."""
    state.unlink()
    rebase(sealed, state)
    seal()
    log = Log(sealed, signer.verifier)
    assert log.rows() == present(sealed)
    assert log.of(IncarnationEntry)[0].old.system == "unknown"
    assert [kept.checkpoint.size for kept in anchor.read()][-1] == len(log.entries)


@pytest.mark.only_on("postgresql")
def test_transaction_ids_that_begin_anew(
    sealed: sa.Engine, seal: Seal, signer: Signer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from before have the other cluster's transaction ids, from the future of this one, and are sealed once."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    with unguarded(sealed), sealed.begin() as connection:
        for table, column in (("audit_transaction", "db_txid"), ("account_sealed_history", "audit_txid")):
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} + 1000 WHERE {column} IS NOT NULL")
    moved(state)
    rebase(sealed, state)
    seal()
    for key in range(10, 13):
        add(sealed, key)
        seal()
    assert Log(sealed, signer.verifier).rows() == present(sealed)


def test_rows_that_were_lost_are_named(
    sealed: sa.Engine, seal: Seal, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed rows that a restored database lacks stand in the incarnation."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    with sealed.connect() as connection:
        lost = connection.scalar(sa.text("SELECT max(audit_id) - 1 FROM account_sealed_history"))
    with unguarded(sealed), sealed.begin() as connection:
        connection.execute(sa.text("DELETE FROM account_sealed_history WHERE audit_id = :id"), {"id": lost})
    moved(state)
    rebase(sealed, state)
    seal()
    log = Log(sealed)
    number = next(entry.table for entry in log.descriptors() if entry.name == "account_sealed_history")
    assert {loss.table: loss.lost for loss in log.of(IncarnationEntry)[0].tables}[number] == ((lost, lost),)


def test_a_log_that_lost_its_end_is_refused(
    sealed: sa.Engine, seal: Seal, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves that are gone can't be made up for, whoever says so."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    number = len(Log(sealed).blocks) - 1
    with unguarded(sealed), sealed.begin() as connection:
        connection.execute(sa.delete(trail().block).where(trail().block.c.number == number))
        connection.execute(sa.delete(trail().checkpoint).where(trail().checkpoint.c.size > 2))
    with pytest.raises(sa_audit.SealRefused, match="can't be made up for"):
        rebase(sealed, state)


def test_a_log_that_was_rewritten_is_refused(
    sealed: sa.Engine, seal: Seal, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte of a leaf, at any size that somebody has signed."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    block = Log(sealed).blocks[-1]
    data = block.data[:-1] + bytes((block.data[-1] ^ 1,))
    with unguarded(sealed), sealed.begin() as connection:
        table = trail().block
        connection.execute(sa.update(table).where(table.c.number == block.number).values(entries=data))
    with pytest.raises(sa_audit.SealRefused, match="it was rewritten"):
        rebase(sealed, state)


def test_it_needs_an_operator_and_a_reason(sealed: sa.Engine, state: Path) -> None:
    """Nobody rebases without a word."""
    with pytest.raises(sa_audit.ConfigurationError, match="say who does it"):
        sa_audit.rebase(sealed, state=state, operator="", reason="x")


NUMBERS = st.sets(st.integers(-5, 40))


@given(NUMBERS, NUMBERS)
def test_ranges_are_sets(some: set[int], others: set[int]) -> None:
    """Ranges hold the ids that were put in, joined and without others as sets are."""

    def ids(ranges: tuple[tuple[int, int], ...]) -> set[int]:
        return {number for first, last in ranges for number in range(first, last + 1)}

    a, b = merged((), sorted(some)), merged((), sorted(others))
    assert ids(a) == some
    assert all(first[1] + 1 < then[0] for first, then in itertools.pairwise(a))
    assert ids(joined([*a, *b])) == some | others
    assert joined([*a, *b]) == merged(a, sorted(others)) == merged((), sorted(some | others))
    assert without(a, b) == merged((), sorted(some - others))
