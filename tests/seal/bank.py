"""The models of these tests, what writes them, and the log read by the format alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.catalog import RowReader, blocks, catalog_for, describe, sealed_tables
from sa_audit.model import Trail
from sa_audit.proof import (
    BlockEntry,
    Checkpoint,
    Descriptor,
    Policy,
    RowEntry,
    SchemaEntry,
    Verifier,
    decode_entry,
    leaf_hash,
    tree_root,
)
from sa_audit.proof.blocks import unpack_entries
from tests.capture.recorded import trail_at

ORIGIN = "bank.example/audit"


class Base(DeclarativeBase):
    """The models' base."""


class Account(Audited, Base):
    """An account with a column of most kinds."""

    __tablename__ = "account_sealed"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(sa.String(50))
    balance: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    rate: Mapped[float | None]
    opened: Mapped[dt.date | None]
    raw: Mapped[bytes | None]


class Branch(Audited, Base):
    """A second audited table."""

    __tablename__ = "branch_sealed"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))


def add(bank: sa.Engine, *keys: int, actor: str = "alice") -> None:
    """Add accounts in one transaction."""
    with sa_audit.context(actor=actor), Session(bank) as session:
        session.add_all(
            Account(
                id=key,
                owner=f"owner {key}",
                balance=Decimal("1.10"),
                rate=0.1,
                opened=dt.date(2026, 1, 1),
                raw=b"\x00\xff",
            )
            for key in keys
        )
        session.commit()


def trail() -> Trail:
    """Give the models' trail."""
    return trail_at(Base)


class Log:
    """The log as it stands in the database, read by ``docs/format`` and checked to hold together.

    Args:
        bank: the database.
        verifier: a key of the log.
    """

    def __init__(self, bank: sa.Engine, *verifiers: Verifier) -> None:
        with bank.connect() as connection:
            self.blocks = list(blocks(connection, trail()))
            table = trail().checkpoint
            rows = connection.execute(sa.select(table).order_by(table.c.id)).all()
        self.data = [entry for block in self.blocks for entry in unpack_entries(block.data)]
        self.entries = [decode_entry(entry) for entry in self.data]
        self.checkpoints = [Checkpoint.parse(row.note) for row in rows if row.anchor is None]
        self.anchored = [(row.size, row.anchor) for row in rows if row.anchor is not None]
        self._check(verifiers)

    def _check(self, verifiers: Iterable[Verifier]) -> None:
        size = 0
        for number, block in enumerate(self.blocks):
            header = self.entries[size]
            assert isinstance(header, BlockEntry)
            assert (header.number, header.first, header.count) == (number, size, block.count)
            assert (block.number, block.first) == (number, size)
            counts: dict[int, int] = {}
            for entry in self.entries[size + 1 : size + block.count]:
                assert not isinstance(entry, BlockEntry)
                if isinstance(entry, RowEntry):
                    counts[entry.table] = counts.get(entry.table, 0) + 1
            assert header.tables == tuple(sorted(counts.items()))
            size += block.count
        assert size == len(self.entries)
        hashes = list(map(leaf_hash, self.data))
        policy = Policy.of(*verifiers) if verifiers else None
        for checkpoint in self.checkpoints:
            assert checkpoint.root == tree_root(hashes[: checkpoint.size])
            if policy is not None:
                policy.check(checkpoint)
        assert not self.checkpoints or self.checkpoints[-1].size == size

    def of(self, kind: type[Any]) -> list[Any]:
        """Give the entries of a kind."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def rows(self) -> set[tuple[str, int]]:
        """Give the sealed rows by table and id, each once."""
        names = {descriptor.table: descriptor.name for descriptor in self.descriptors()}
        rows = [(names[entry.table], entry.row) for entry in self.of(RowEntry)]
        assert len(rows) == len(set(rows))
        return set(rows)

    def descriptors(self) -> list[Descriptor]:
        """Give the descriptors, in order."""
        return [Descriptor.decode(entry.descriptor) for entry in self.of(SchemaEntry)]


def present(bank: sa.Engine) -> set[tuple[str, int]]:
    """Give the committed rows of all sealed tables, by table and id."""
    found = set()
    with bank.connect() as connection:
        for sealed in sealed_tables(trail()):
            key = next(iter(sealed.table.primary_key.columns))
            found |= {(sealed.table.name, row) for row in connection.scalars(sa.select(key))}
    return found


def check_digests(bank: sa.Engine, log: Log) -> None:
    """Read every sealed row again, and compare its digest with its leaf, under the last descriptor of its table."""
    descriptors = {descriptor.table: descriptor for descriptor in log.descriptors()}
    leaves = {(entry.table, entry.row): entry for entry in log.of(RowEntry)}
    database = catalog_for(bank.dialect)
    checked = 0
    with bank.connect() as connection, database.pinned(connection):
        for descriptor in descriptors.values():
            salted = any(
                column.name == "audit_salt"
                for column in database.columns(connection, descriptor.schema, descriptor.name)
            )
            reader = RowReader(database, descriptor, salted=salted)
            for row in reader.rows(connection):
                leaf = leaves.get((descriptor.table, row.id))
                if leaf is not None and leaf.schema == descriptor.digest:
                    assert leaf.digest == reader.encoder.digest(row.salt, row.forms)
                    assert leaf.transaction == row.transaction
                    checked += 1
    assert checked > 0


def described(bank: sa.Engine, table: str) -> Descriptor:
    """Describe a table as it stands."""
    database = catalog_for(bank.dialect)
    sealed = next(entry for entry in sealed_tables(trail()) if entry.table.name == table)
    with bank.connect() as connection, database.pinned(connection):
        found = describe(database, connection, sealed, number=1)
    assert found is not None
    return found
