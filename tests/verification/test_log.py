"""Attacks on the log, its checkpoints and its keys; where only an anchor can tell, silent without and found with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from sa_audit import anchors
from sa_audit.errors import AnchorUnavailable
from sa_audit.proof import Checkpoint, Signer
from sa_audit.proof.blocks import pack_entries, unpack_entries
from sa_audit.proof.note import SignatureLine
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.verification.models import Base, write
from tests.verification.sealed import ORIGIN, Sealed

LOG = ("audit_block", "audit_sealed", "audit_checkpoint")


def entries_of(sealed: Sealed, block: int) -> list[bytes]:
    """Give the entries of a block."""
    with sealed.engine.connect() as connection:
        statement = sa.text("SELECT entries FROM audit_block WHERE number = :block")
        return unpack_entries(bytes(connection.scalar(statement, {"block": block})))


def put_entries(sealed: Sealed, block: int, entries: list[bytes]) -> None:
    """Put other entries into a block."""
    sealed.attack(
        "UPDATE audit_block SET entries = :entries WHERE number = :block", entries=pack_entries(entries), block=block
    )


def test_an_edited_leaf(sealed: Sealed) -> None:
    """The row does not give it, and the leaves don't give the root."""
    entries = entries_of(sealed, 2)
    put_entries(sealed, 2, [*entries[:-1], entries[-1][:-1] + bytes([entries[-1][-1] ^ 1])])
    tile = {"tile-changed"}  # where the leaf stands in one that is full
    assert sealed.kinds() - tile == {"row-changed", "checkpoint-changed", "log-rewritten"}
    assert sealed.kinds(anchored=False) - tile == {"row-changed", "checkpoint-changed"}


def test_a_row_and_its_leaf(sealed: Sealed) -> None:
    """Who edits both fits them to each other, and not to the signed root."""
    entries = entries_of(sealed, 2)
    put_entries(sealed, 2, entries[:-1])
    found = sealed.found(anchored=False)
    assert ("block-changed", "audit_block", 2) in found
    assert "checkpoint-changed" in {kind for kind, _table, _row in found}


@pytest.mark.parametrize("order", ["swapped", "doubled"])
def test_leaves_in_another_order(sealed: Sealed, order: str) -> None:
    """Swapped, or one of them twice."""
    entries = entries_of(sealed, 3)
    *rest, one, two = entries
    put_entries(sealed, 3, [*rest, two, one] if order == "swapped" else [*rest, two, two])
    found = sealed.kinds()
    assert {"checkpoint-changed", "log-rewritten"} <= found
    if order == "doubled":
        assert "leaf-duplicated" in found


def test_a_leaf_that_is_none(sealed: Sealed) -> None:
    """What can't be read is reported, and the others are checked."""
    entries = entries_of(sealed, 2)
    put_entries(sealed, 2, [*entries[:3], b"\x01", *entries[4:]])
    assert {"leaf-malformed", "checkpoint-changed"} <= sealed.kinds()


@pytest.mark.parametrize("bytes_", ["x'00'", "x''", "x'0005010203'"])
def test_a_block_that_is_none(sealed: Sealed, bytes_: str) -> None:
    """Bytes that are no entries."""
    value = bytes_.replace("x'", r"'\x") if sealed.database.dialect == "postgresql" else bytes_
    sealed.attack(f"UPDATE audit_block SET entries = {value} WHERE number = 2")
    found = sealed.kinds()
    assert found & {"block-malformed", "block-changed"}
    assert {"checkpoint-changed", "log-rewritten"} <= found | {"log-cut"}


def test_a_removed_block(sealed: Sealed) -> None:
    """From the middle."""
    sealed.attack("DELETE FROM audit_block WHERE number = 2")
    found = sealed.kinds()
    assert {"block-missing", "checkpoint-changed", "log-rewritten"} <= found


def test_blocks_in_another_order(sealed: Sealed) -> None:
    """Two blocks that change their numbers."""
    sealed.attack(
        "UPDATE audit_block SET number = -1 WHERE number = 2",
        "UPDATE audit_block SET number = 2 WHERE number = 3",
        "UPDATE audit_block SET number = 3 WHERE number = -1",
    )
    assert {"block-changed", "checkpoint-changed", "log-rewritten"} <= sealed.kinds()


def test_a_doubled_block(sealed: Sealed) -> None:
    """The last one, again."""
    last = sealed.scalar("SELECT max(number) FROM audit_block")
    sealed.attack(
        "INSERT INTO audit_block (number, first_leaf, leaves, entries, tiles) "
        f"SELECT number + 1, first_leaf + leaves, leaves, entries, tiles FROM audit_block WHERE number = {last}"
    )
    assert {"leaf-duplicated", "block-changed"} <= sealed.kinds(anchored=False)


def test_what_a_block_says_of_itself(sealed: Sealed) -> None:
    """Its first leaf, its tiles, and the index of its rows."""
    sealed.attack("UPDATE audit_block SET first_leaf = first_leaf + 1 WHERE number = 2")
    assert sealed.found() == {("block-changed", "audit_block", 2)}
    sealed.undo()
    value = r"'\x80'" if sealed.database.dialect == "postgresql" else "x'81'"
    sealed.attack(f"UPDATE audit_block SET tiles = {value.replace('80', '81')} WHERE number = 2")
    assert sealed.found() == {("tile-changed", "audit_block", 2)}
    sealed.undo()
    sealed.attack("UPDATE audit_sealed SET last_row = last_row + 1 WHERE block = 2")
    assert sealed.found() == {("index-changed", "audit_sealed", 2)}


def test_an_index_of_no_block(sealed: Sealed) -> None:
    """Rows of the index behind the last block."""
    sealed.attack("INSERT INTO audit_sealed (block, table_id, first_row, last_row, leaves) VALUES (99, 1, 1, 1, 1)")
    assert sealed.found() == {("index-changed", "audit_sealed", 99)}


# -- checkpoints -------------------------------------------------------------------------


def test_an_edited_checkpoint(sealed: Sealed) -> None:
    """One that is not signed any more, and one that can't be read."""
    size = sealed.scalar("SELECT max(size) FROM audit_checkpoint")
    sealed.attack(
        f"UPDATE audit_checkpoint SET note = replace(note, '\n{size}\n', '\n{size - 1}\n') WHERE size = {size}"
    )
    found = sealed.found(anchored=False)
    assert {("checkpoint-unsigned", "audit_checkpoint", size - 1)} <= found
    sealed.attack(f"UPDATE audit_checkpoint SET note = 'x' WHERE size = {size}")
    assert ("checkpoint-malformed", "audit_checkpoint", size) in sealed.found(anchored=False)


def test_removed_checkpoints(sealed: Sealed) -> None:
    """The last one: silent without an anchor, found with it; all of them: found."""
    size = sealed.scalar("SELECT max(size) FROM audit_checkpoint")
    sealed.attack(f"DELETE FROM audit_checkpoint WHERE size = {size}")
    assert sealed.found(anchored=False) == set()
    assert sealed.found() == {("checkpoint-missing", "audit_checkpoint", size)}
    sealed.attack("DELETE FROM audit_checkpoint")
    assert ("log-missing", "audit_checkpoint", None) in sealed.found(anchored=False)


def test_the_tail_with_its_log(sealed: Sealed) -> None:
    """Rows, leaves and checkpoints of the last sealing: silent without an anchor, found with it."""
    cut_off(sealed)
    assert sealed.found(anchored=False) == set()
    assert {"log-cut", "checkpoint-missing"} == sealed.kinds()


def test_an_older_copy(sealed: Sealed) -> None:
    """The whole database as it was: silent without an anchor, found with it."""
    write(sealed.engine, 101, 103)
    sealed.seal()
    kept = sealed.directory / "anchor.after"
    shutil.copyfile(sealed.directory / "anchor", kept)
    sealed.undo()
    shutil.copyfile(kept, sealed.directory / "anchor")
    assert sealed.found(anchored=False) == set()
    assert {"log-cut", "checkpoint-missing"} == sealed.kinds()


def test_no_log_at_all(sealed: Sealed) -> None:
    """Who removes the whole log leaves rows that nobody vouches for."""
    sealed.attack(*(f"DELETE FROM {name}" for name in LOG))
    assert sealed.found(anchored=False) == {("log-missing", "audit_checkpoint", None)}
    assert {"log-cut", "checkpoint-missing", "log-missing"} == sealed.kinds()
    assert sealed.verify(anchored=False).unsealed > 0


# -- keys --------------------------------------------------------------------------------


def test_everything_rewritten_with_another_key(sealed: Sealed) -> None:
    """Of the same name: its signatures don't count."""
    reseal(sealed, Signer.generate(ORIGIN))
    assert sealed.kinds(anchored=False) == {"checkpoint-unsigned", "log-missing"}


def test_everything_rewritten_under_the_same_key_id(sealed: Sealed) -> None:
    """A line that belongs to the trusted key by name and id, and was made by another."""
    reseal(sealed, Signer.generate(ORIGIN))
    with sealed.unguarded() as connection:
        table = next(each for each in sealed.tables() if each.name == "audit_checkpoint")
        for row in connection.execute(sa.select(table.c.id, table.c.note)).all():
            note = Checkpoint.parse(row.note)
            lines = tuple(
                SignatureLine(name=line.name, key_id=sealed.signer.verifier.key_id, signature=line.signature)
                for line in note.signatures
            )
            forged = replace(note, signatures=lines).format()
            connection.execute(sa.update(table).where(table.c.id == row.id).values(note=forged))
    assert sealed.kinds(anchored=False) == {"checkpoint-unsigned", "log-missing"}


def test_everything_rewritten_with_the_true_key(sealed: Sealed) -> None:
    """Stolen: silent without an anchor, found with it."""
    sealed.attack("UPDATE note_history SET label = 'forged' WHERE id = 3")
    reseal(sealed, sealed.signer)
    assert sealed.found(anchored=False) == set()
    assert sealed.kinds() == {"log-rewritten", "log-cut", "checkpoint-missing"}


def test_a_key_that_nobody_trusts(sealed: Sealed) -> None:
    """The reader's key decides, not the database's."""
    report = sealed.verify(policy=Signer.generate(ORIGIN).verifier)
    assert {each.kind for each in report.findings} == {"checkpoint-unsigned", "anchor-unsigned", "log-missing"}
    assert report.checkpoint is None
    assert report.sealed_until is None


# -- anchors -----------------------------------------------------------------------------


def test_an_edited_anchor(sealed: Sealed) -> None:
    """A record that does not follow the one before."""
    path = sealed.directory / "anchor"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\n\xe2\x80\x94", b"\n\xe2\x80\x93", 1))
    assert "anchor-malformed" in sealed.kinds()


def test_an_anchor_that_can_not_be_read(sealed: Sealed, tmp_path: Path) -> None:
    """It can't run: nothing is passed over."""
    with pytest.raises(AnchorUnavailable):
        verify(sealed.engine, sealed.signer.verifier, anchors=[anchors.open(f"file:{tmp_path}/none")], metadata=Base)


# -- what was done -----------------------------------------------------------------------


def cut_off(sealed: Sealed) -> None:
    """Remove the last sealing: its rows, its blocks, its checkpoints."""
    with sealed.engine.connect() as connection:
        sizes = connection.scalars(sa.text("SELECT DISTINCT size FROM audit_checkpoint ORDER BY size")).all()
    size = sizes[-2]
    transaction = sealed.scalar("SELECT max(id) FROM audit_transaction") - 2
    sealed.attack(
        f"DELETE FROM note_history WHERE audit_tx > {transaction}",
        f"DELETE FROM tag_history WHERE audit_tx > {transaction}",
        f"DELETE FROM audit_transaction WHERE id > {transaction}",
        f"DELETE FROM audit_sealed WHERE block IN (SELECT number FROM audit_block WHERE first_leaf >= {size})",
        f"DELETE FROM audit_block WHERE first_leaf >= {size}",
        f"DELETE FROM audit_checkpoint WHERE size > {size}",
    )


def reseal(sealed: Sealed, signer: Signer) -> None:
    """Remove the log, and seal everything anew, with a state of one's own."""
    sealed.attack(*(f"DELETE FROM {name}" for name in LOG))
    seal(sealed.engine, signer, state=sealed.directory / f"state.{signer.verifier.key_id.hex()}", metadata=Base)
    (sealed.directory / f"state.{signer.verifier.key_id.hex()}").unlink()


@pytest.mark.parametrize("table", LOG)
def test_a_table_of_the_log_that_is_gone(sealed: Sealed, table: str) -> None:
    """It is named, and nothing is said to have been checked."""

    def rename(one: str, other: str) -> None:
        with sealed.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {one} RENAME TO {other}"))

    rename(table, "away")
    try:
        assert ("log-missing", table, None) in sealed.found()
        report = sealed.verify()
        assert (report.ok, report.checked, report.checkpoint) == (False, 0, None)
    finally:
        rename("away", table)
