"""Leaves that no checkpoint has signed: anybody who may write the log can append them, so nothing counts by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from sa_audit.catalog import RowReader, catalog_for, read_tile
from sa_audit.catalog.log import pack_tiles
from sa_audit.errors import SealRefused
from sa_audit.model.history import trail_of
from sa_audit.proof.clusters import Cluster, Loss
from sa_audit.proof.entries import IncarnationEntry, PruneEntry
from sa_audit.proof.types import Digest
from sa_audit.seal import rebase
from sa_audit.seal.building import Facts, Run, Tree, build
from sa_audit.seal.sealer import Sealer
from sa_audit.seal.state import KnownTable, State, StateFile
from tests.verification.models import Base, write
from tests.verification.sealed import Sealed
from tests.verification.test_rows import ENTRIES, HISTORY, copied, row, rows_of


class Killed(BaseException):
    """What nothing in the sealer catches."""


def forge(sealed: Sealed, *, entries: Sequence[bytes] = (), rows: Sequence[int] = (), incarnation: int = 0) -> None:
    """Append a block that is right in all but that nobody has signed it: of entries, or of rows of the history."""
    found = StateFile(sealed.state).read()
    trail = trail_of(Base.metadata)
    assert found is not None
    assert trail is not None
    state = found[0]
    with sealed.unguarded() as connection:
        database = catalog_for(connection.dialect)
        with database.pinned(connection):
            edge = Tree(frontier=state.frontier, blocks=state.blocks)
            edge.edge = {level: read_tile(connection, trail, level, *place) for level, *place in _edge(state)}
            runs = [Run(list(entries))] if entries else []
            if rows:
                known = table_of(state)
                assert known.descriptor is not None
                reader = RowReader(database, known.descriptor)
                condition = f"WHERE r.audit_id IN ({', '.join(map(str, rows))})"
                with closing(reader.entries(connection, condition)) as read:
                    runs += [Run(encoded, known.number, ids) for ids, encoded in read]
            assert state.horizon is not None
            facts = Facts(
                incarnation=state.incarnation + incarnation,
                sealed_at=time.time_ns() // 1000,
                horizon=state.horizon,
                token=state.token,
                fingerprint=state.catalog,
            )
            for built in build(edge, facts, runs, closes=True):
                header = built.header
                values = {"number": header.number, "first_leaf": header.first, "leaves": header.count}
                data = {"entries": built.data, "tiles": pack_tiles(built.tiles)}
                connection.execute(sa.insert(trail.block), {**values, **data})
                for number, (first, last, count) in built.rows.items():
                    place = {"block": header.number, "table_id": number, "leaves": count}
                    connection.execute(sa.insert(trail.sealed), {**place, "first_row": first, "last_row": last})


def _edge(state: State) -> list[tuple[int, int, int]]:
    from sa_audit.proof.tiles import widths

    return list(widths(state.size))


def table_of(state: State) -> KnownTable:
    """Give what the sealer knows of the history."""
    return next(known for known in state.tables.values() if known.descriptor and known.descriptor.name == HISTORY)


@pytest.mark.parametrize("anchored", [True, False])
def test_a_row_that_is_backdated_with_a_leaf(sealed: Sealed, anchored: bool) -> None:
    """A leaf that nobody signed does not make it a sealed one."""
    newest = sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY}")
    sealed.attack(copied(sealed, newest, -5))
    forge(sealed, rows=[-5])
    found = {each for each in sealed.found(anchored=anchored) if each[0] != "continuity"}
    assert found == {("row-backdated", HISTORY, -5)}


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("how", ["lost", "pruned"])
def test_rows_that_are_excused(sealed: Sealed, how: str, anchored: bool) -> None:
    """Who deletes a row can't say by himself that it was lost with another database, or that its time was over."""
    gone, state = row(sealed, 4), StateFile(sealed.state).read()
    assert state is not None
    number = table_of(state[0]).number
    entry: Any
    if how == "lost":
        cluster = partial(Cluster, system="1")
        loss = Loss(table=number, last_row=gone, lost=((gone, gone),))
        entry = IncarnationEntry(
            number=state[0].incarnation + 1, old=cluster(), new=cluster(), tables=(loss,), reason="-", operator="-"
        )
    else:
        entry = PruneEntry(
            table=number,
            first_row=gone,
            last_row=gone,
            count=1,
            root=Digest(bytes(32)),
            policy="-",
            approver="-",
            reason="-",
        )
    sealed.attack(f"DELETE FROM {HISTORY} WHERE audit_id = {gone}")
    forge(sealed, entries=[entry.encode()])
    assert ("row-missing", HISTORY, gone) in sealed.found(anchored=anchored)


def test_a_sealer_that_was_killed_before_it_signed(sealed: Sealed) -> None:
    """Its leaves count for nothing yet: what they speak of is not sealed, and nothing is wrong."""
    write(sealed.engine, 501, 502)

    def on_step(name: str) -> None:
        if name == "committed":
            raise Killed

    before = sealed.verify()
    sealer = Sealer(
        sealed.engine,
        sealed.signer,
        state=sealed.state,
        anchors=sealed.anchors,
        metadata=Base,
        on_step=on_step,
    )
    with pytest.raises(Killed):
        sealer.seal()
    report = sealed.verify()
    assert report.findings == ()
    assert (report.unsealed, report.checked) == (before.unsealed, before.checked)
    assert report.unsealed > 0
    assert report.sealed_until == before.sealed_until
    sealed.seal()
    assert (sealed.verify().findings, sealed.verify().unsealed) == ((), 0)


def test_an_unsigned_tail_hides_nothing_before_it(sealed: Sealed) -> None:
    """Attacks on what is signed are found as without it."""
    sealed.attack(f"UPDATE {ENTRIES} SET actor = 'x' WHERE id = 2")
    forge(sealed, rows=rows_of(sealed, 2))
    assert ("row-changed", ENTRIES, 2) in sealed.found(anchored=False)


@pytest.mark.parametrize("lost", [True, False])
def test_a_rebase_does_not_take_them_over(sealed: Sealed, lost: bool) -> None:
    """Else the next sealing would sign them; without them it goes on.

    Where the sealer's file is lost, PostgreSQL goes by ids from then on, which only the verification before tells.
    """
    newest, blocks = sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY}"), "audit_block"
    sealed.attack(copied(sealed, newest, -5))
    forge(sealed, rows=[-5])
    last = sealed.scalar(f"SELECT max(number) FROM {blocks}")
    if lost:
        sealed.state.unlink()
    with pytest.raises(SealRefused):
        sealed.seal()
    with pytest.raises(SealRefused, match="the rest was appended by somebody without the key"):
        rebase(sealed.engine, state=sealed.state, operator="ops", reason="test", metadata=Base)
    sealed.attack(f"DELETE FROM {blocks} WHERE number = {last}", f"DELETE FROM audit_sealed WHERE block = {last}")
    if lost:
        rebase(sealed.engine, state=sealed.state, operator="ops", reason="test", metadata=Base)
    assert sealed.found(continuity=False) == {("row-backdated", HISTORY, -5)}
    write(sealed.engine, 501, 502)
    sealed.seal()
    assert sealed.verify().unsealed == 0
    if not lost:
        assert sealed.found(continuity=False) == {("row-backdated", HISTORY, -5)}
