"""What is committed is sealed, once, in a log that holds together by its format alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.catalog import find_leaf, read_tile
from sa_audit.proof import BlockEntry, Checkpoint, KeyEntry, SchemaEntry, Signer, check_inclusion, leaf_hash
from sa_audit.proof.merkle import check_consistency, consistency_proof, inclusion_proof
from sa_audit.proof.tiles import NodesOfTiles
from sa_audit.seal import building
from sa_audit.testing import unguarded

from .bank import Account, Base, Branch, Log, add, check_digests, described, present, trail

Seal = Callable[..., Checkpoint | None]


@pytest.mark.every_server
def test_every_committed_row_is_sealed_once(bank: sa.Engine, seal: Seal, signer: Signer) -> None:
    """Entries, history and the account of columns are leaves, each once, under the key that signs."""
    add(bank, 1, 2)
    first = seal()
    assert first is not None
    log = Log(bank, signer.verifier)
    assert log.rows() == present(bank)
    check_digests(bank, log)
    assert (log.checkpoints[-1], log.checkpoints[-1].size) == (first, first.size)
    with sa_audit.context(actor="bob"), Session(bank) as session:
        session.get_one(Account, 1).owner = "bob"
        session.delete(session.get_one(Account, 2))
        session.add(Branch(id=7, name="Oslo"))
        session.commit()
    second = seal()
    assert second is not None
    log = Log(bank, signer.verifier)
    assert log.rows() == present(bank)
    check_digests(bank, log)
    assert log.anchored[-1][0] == second.size > first.size
    assert [event.verifier for event in log.of(KeyEntry)] == [str(signer.verifier)]


def test_nothing_new_makes_no_leaf(bank: sa.Engine, seal: Seal) -> None:
    """Without a new row there is no block and no checkpoint."""
    add(bank, 1)
    seal()
    before = len(Log(bank).entries)
    assert seal() is None
    assert len(Log(bank).entries) == before


def test_a_rollback_leaves_no_trace(bank: sa.Engine, seal: Seal) -> None:
    """What is rolled back is not sealed, and the gap in the ids is nothing to speak of."""
    seal()
    with Session(bank) as session:
        session.add(Account(id=1))
        session.flush()
        session.rollback()
    add(bank, 2)
    seal()
    log = Log(bank)
    assert log.rows() == present(bank)


def test_an_empty_trail_has_its_key_and_columns_sealed(bank: sa.Engine, seal: Seal) -> None:
    """The first leaves hold the key, before any row."""
    checkpoint = seal()
    assert checkpoint is not None
    log = Log(bank)
    assert isinstance(log.entries[1], KeyEntry)
    assert log.entries[1].size == log.checkpoints[0].size
    assert log.rows() == present(bank)


def test_the_last_block_of_a_sealing_closes(
    bank: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch, signer: Signer
) -> None:
    """Many blocks make one sealing, of which only the last one says that all is sealed."""
    monkeypatch.setattr(building, "LEAVES", 16)
    add(bank, *range(1, 101))
    seal()
    log = Log(bank, signer.verifier)
    headers = log.of(BlockEntry)
    assert len(headers) > 7
    assert [header.closes for header in headers] == [False] * (len(headers) - 1) + [True]
    assert max(header.count for header in headers) == 16
    assert log.rows() == present(bank)
    check_digests(bank, log)


def test_large_rows_fill_a_block_before_its_leaves_do(
    bank: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block has a limit of bytes as well."""
    monkeypatch.setattr(building, "BYTES", 400)
    add(bank, *range(1, 21))
    seal()
    log = Log(bank)
    assert len(log.blocks) > 5
    assert log.rows() == present(bank)


def test_tiles_prove_every_leaf(bank: sa.Engine, seal: Seal) -> None:
    """Inclusion and consistency are proved from the tiles that were kept, over the edges of tiles and blocks."""
    first = None
    for start in range(0, 600, 100):
        add(bank, *range(start + 1, start + 101))
        first = first or seal()
        last = seal() if start else first
    assert first is not None
    assert last is not None
    log = Log(bank)
    with bank.connect() as connection:
        nodes = NodesOfTiles(last.size, lambda level, index, width: read_tile(connection, trail(), level, index, width))
        for index in (0, 1, 255, 256, 511, 512, last.size - 2, last.size - 1):
            path = inclusion_proof(index, last.size, nodes)
            check_inclusion(index, last.size, leaf_hash(log.data[index]), path, last.root)
        path = consistency_proof(first.size, last.size, nodes)
        check_consistency(first.size, last.size, first.root, last.root, path)


def test_a_row_finds_its_leaf(bank: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By table and id, among many blocks; a row that is not sealed has none."""
    monkeypatch.setattr(building, "LEAVES", 16)
    add(bank, *range(1, 101))
    seal()
    log = Log(bank)
    number = next(entry.table for entry in log.descriptors() if entry.name == "account_sealed_history")
    with bank.connect() as connection:
        ids = connection.scalars(sa.text("SELECT audit_id FROM account_sealed_history ORDER BY audit_id")).all()
        for row in (ids[0], ids[50], ids[99]):
            found = find_leaf(connection, trail(), number, row)
            assert found is not None
            index, entry = found
            assert log.data[index] == entry
            assert log.entries[index].row == row
        assert find_leaf(connection, trail(), number, ids[99] + 1) is None


def test_a_new_column_makes_a_new_descriptor(bank: sa.Engine, seal: Seal) -> None:
    """Rows that come after it are sealed under it, those before stay under theirs; ids don't change."""
    add(bank, 1)
    seal()
    first = described(bank, "account_sealed_history")
    with bank.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE account_sealed_history ADD COLUMN note VARCHAR(20)")
    add(bank, 2)
    seal()
    log = Log(bank)
    assert log.rows() == present(bank)
    ours = [entry for entry in log.descriptors() if entry.name == "account_sealed_history"]
    assert [set(first.columns) <= set(entry.columns) for entry in ours] == [True, True]
    assert [column.name for column in set(ours[1].columns) - set(ours[0].columns)] == ["note"]
    check_digests(bank, log)
    assert len(log.of(SchemaEntry)) == len({entry.digest for entry in log.descriptors()})


def test_a_column_that_was_put_aside_keeps_its_id(bank: sa.Engine, seal: Seal) -> None:
    """A migration that retypes a column keeps the former values under another name: they keep their id."""
    with sa_audit.context(actor="alice"), Session(bank) as session:
        session.add(Branch(id=5, name="a"))
        session.commit()
    seal()
    with bank.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE branch_sealed_history RENAME COLUMN name TO name_until_0002")
        connection.exec_driver_sql("ALTER TABLE branch_sealed_history ADD COLUMN name VARCHAR(10)")
    with sa_audit.context(actor="alice"), Session(bank) as session:
        session.add(Branch(id=1, name="5"))
        session.commit()
    seal()
    with bank.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE branch_sealed_history RENAME COLUMN name TO name_since_0002")
        connection.exec_driver_sql("ALTER TABLE branch_sealed_history RENAME COLUMN name_until_0002 TO name")
    with sa_audit.context(actor="alice"), Session(bank) as session:
        session.add(Branch(id=2, name="x"))
        session.commit()
    seal()
    ours = [
        {column.name: column.id for column in entry.columns if column.id > 0}
        for entry in Log(bank).descriptors()
        if entry.name == "branch_sealed_history"
    ]
    assert ours == [
        {"id": 1, "name": 2},
        {"id": 1, "name_until_0002": 2, "name": 3},
        {"id": 1, "name": 2, "name_since_0002": 3},
    ]


def test_a_renamed_history_keeps_its_number(bank: sa.Engine, seal: Seal) -> None:
    """A history that a migration has renamed goes on under the number that it had."""
    add(bank, 1)
    seal()
    number = next(entry.table for entry in Log(bank).descriptors() if entry.name == "account_sealed_history")
    metadata = sa.MetaData()
    table = sa.Table("customer_sealed", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table)
    with bank.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE account_sealed_history RENAME TO customer_sealed_history")
    with bank.begin() as connection:
        table.create(connection)
        connection.execute(sa.insert(table).values(id=9))
    seal(metadata=metadata)
    with bank.connect() as connection:
        last = connection.scalar(sa.text("SELECT max(audit_id) FROM customer_sealed_history"))
        assert find_leaf(connection, trail(), number, last) is not None


def test_unguarded_tests_can_clear_the_log(bank: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's tables are append-only, and a user's test may lift that as for the rest of the trail."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    add(bank, 1)
    seal()
    for table in (trail().block, trail().sealed, trail().checkpoint):
        with pytest.raises(sa.exc.DBAPIError, match="sa_audit"), bank.begin() as connection:
            connection.execute(sa.delete(table))
    with pytest.raises(sa_audit.TrailNotEmpty):
        trail().block.drop(bank)
    with unguarded(bank):
        Base.metadata.drop_all(bank)


def test_the_call_for_users(bank: sa.Engine, signer: Signer, tmp_path: object) -> None:
    """`sa_audit.seal` is one sealing, by the contract's arguments."""
    add(bank, 1)
    checkpoint = sa_audit.seal(bank, signer, state=f"{tmp_path}/s.json")
    assert checkpoint is not None
    assert Log(bank, signer.verifier).checkpoints[-1] == checkpoint
