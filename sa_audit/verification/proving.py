"""Proofs of single rows, and of the log's growth, made from what the database keeps.

What it keeps may be false: a proof that is made from it fails at its check, which is the reader's.
Imports the room's own parts, model, proof, catalog and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..catalog import (
    CatalogDatabase,
    RowReader,
    SealedTable,
    catalog_for,
    describe,
    find_leaf,
    read_tile,
    sealed_tables,
    trail_at,
)
from ..catalog.log import Block, blocks
from ..catalog.prunes import prune_of
from ..errors import IntegrityFinding, MalformedProof, NotAudited, NotSealed
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.entries import RowEntry, SchemaEntry, decode_entry
from ..proof.merkle import consistency_proof, inclusion_proof
from ..proof.schema import Descriptor
from ..proof.tiles import NodesOfTiles, TileReader
from ..proof.tlog_proof import ConsistencyProof, Evidence, Proof
from .database import verifier_for
from .plans import LiveTable, plan_for
from .report import Findings

SCHEMA_START = b"\x84\x01\x03"
"""How the entry of a schema begins: an array of four, version 1, kind 3 (docs/format/entries.md)."""


class Prover:
    """Makes proofs under one checkpoint, on one connection.

    Args:
        connection: in a transaction with pinned settings.
        trail: whose log.
        checkpoint: the one to prove under; None takes the last one of the database.

    Raises:
        NotSealed: if there is none.
    """

    def __init__(self, connection: Connection, trail: Trail, checkpoint: Checkpoint | None = None) -> None:
        self.connection = connection
        self.trail = trail
        self.database: CatalogDatabase = catalog_for(connection.dialect)
        self.checkpoint = checkpoint or last_checkpoint(connection, trail)
        self._nodes = NodesOfTiles(self.checkpoint.size, self.tiles())
        self._schemas: dict[bytes, Descriptor] = {}
        self._standing: dict[bytes, Descriptor] = {}
        self._readers: dict[bytes, RowReader] = {}

    def tiles(self) -> TileReader:
        """Give the reader of tiles."""
        return partial(read_tile, self.connection, self.trail)

    def prove(self, sealed: SealedTable, row: int) -> Proof:
        """Prove that a row of a table is in the log; see :func:`sa_audit.prove`."""
        index, encoded, entry = self._leaf(sealed, row)
        if index >= self.checkpoint.size:
            raise self._not_sealed(sealed, row)
        descriptor = self.descriptor(entry.schema)
        evidence = Evidence(entry=encoded, descriptor=descriptor.encode(), row=self.row(sealed, descriptor, row))
        evidence.check()
        path = inclusion_proof(index, self.checkpoint.size, self._nodes)
        return Proof(index=index, path=path, checkpoint=self.checkpoint, extra=evidence.encode())

    def row(self, sealed: SealedTable, descriptor: Descriptor, row: int) -> bytes:
        """Give a row, encoded as it is now under the schema that it was sealed under.

        Raises:
            IntegrityFinding: if it is gone, or can't be read under that schema.
        """
        reader = self.reader(sealed, descriptor)
        found = list(reader.rows(self.connection, f"WHERE r.{reader.id_column} = :row", {"row": row}))
        if not found:
            prune = prune_of(self.connection, self.trail, descriptor, row)
            why = (
                ""
                if prune is None
                else f": rows {prune.first} to {prune.last} were pruned by {prune.approver} ({prune.reason}), as leaf "
                f"{prune.leaf} of the log says"
            )
            raise IntegrityFinding(f"row {row} of {descriptor.name} is sealed, and is not there any more{why}")
        return reader.encoder.encode(found[0].salt, found[0].forms)

    def descriptor(self, digest: bytes) -> Descriptor:
        """Give the schema of a digest, out of the log.

        Raises:
            IntegrityFinding: if the log does not hold it.
        """
        for number in () if digest in self._schemas else self._blocks_of_schemas():
            if digest in self._schemas:
                break
            self._collect(number)
        if digest not in self._schemas:
            raise IntegrityFinding(f"the log holds no schema {digest.hex()}")
        return self._schemas[digest]

    def _blocks_of_schemas(self) -> Iterator[int]:
        """Yield the blocks that may hold schemas: first those with the first rows of a table, and those before them."""
        index = self.trail.sealed
        firsts = sa.select(sa.func.min(index.c.block)).group_by(index.c.table_id)
        likely = sorted({near for first in self.connection.scalars(firsts) for near in (first, first - 1)})
        yield from likely
        last = self.connection.scalar(sa.select(sa.func.max(self.trail.block.c.number)))
        yield from (number for number in range((last or 0) + 1) if number not in set(likely))

    def _collect(self, number: int) -> None:
        for block in blocks(self.connection, self.trail, since=max(number, 0)):
            if block.number == number:
                self._schemas |= {descriptor.digest: descriptor for descriptor in _descriptors(block)}
            return

    def _leaf(self, sealed: SealedTable, row: int) -> tuple[int, bytes, RowEntry]:
        """Look for the leaf of a row under each number that may be its table's; it may have had another name then."""
        index = self.trail.sealed
        name = str(sealed.table.name)
        found: list[tuple[int, bytes, RowEntry]] = []
        numbers = sa.select(index.c.table_id).where(index.c.first_row <= row, index.c.last_row >= row).distinct()
        for number in self.connection.scalars(numbers).all():
            leaf = self._candidate(number, row)
            if leaf is not None:
                self._look(sealed, number, leaf[2].schema)
                known = self._schemas.get(leaf[2].schema)
                if known is not None and known.name == name:
                    return leaf
                found.append(leaf)
        others = []
        for leaf in found:  # none is of the table as it stands, so that schemas have to be looked for in the log
            if self.descriptor(leaf[2].schema).name == name:
                return leaf
            others.append(leaf)
        names = self._last_names() if others else {}
        for former in others:
            if names.get(former[2].table) == name:
                return former
        raise self._not_sealed(sealed, row)

    def _candidate(self, number: int, row: int) -> tuple[int, bytes, RowEntry] | None:
        """Give the leaf of a row of the table of a number: its index, its entry, and that decoded."""
        found = find_leaf(self.connection, self.trail, number, row)
        entry = decode_entry(found[1]) if found is not None else None
        return (found[0], found[1], entry) if found is not None and isinstance(entry, RowEntry) else None

    def _last_names(self) -> dict[int, str]:
        """Give the names that tables have in their last schemas of the log, by their numbers."""
        logged = (descriptor for block in blocks(self.connection, self.trail) for descriptor in _descriptors(block))
        return {descriptor.table: descriptor.name for descriptor in logged}

    def _look(self, sealed: SealedTable, number: int, digest: bytes) -> None:
        """Take a table's schema as it stands, if it is the one of a digest: so no block has to be looked through."""
        if digest not in self._schemas:
            now = describe(self.database, self.connection, sealed, number=number)
            if now is not None and now.digest == digest:
                self._schemas[digest] = self._standing[digest] = now

    def _not_sealed(self, sealed: SealedTable, row: int) -> NotSealed:
        return NotSealed(
            f"row {row} of {sealed.table.fullname} is not in the log of {self.checkpoint.size} leaves: "
            "seal it, or wait with await_sealed()"
        )

    def reader(self, sealed: SealedTable, descriptor: Descriptor) -> RowReader:
        """Give what reads the rows of a table as they were sealed under a schema."""
        known = self._readers.get(descriptor.digest)
        if known is None:
            known = self._readers[descriptor.digest] = self._made(sealed, descriptor)
        return known

    def _made(self, sealed: SealedTable, descriptor: Descriptor) -> RowReader:
        place = (self.database.schema(self.connection, sealed.table), str(sealed.table.name))
        now = self._standing.get(descriptor.digest) or describe(
            self.database, self.connection, sealed, number=descriptor.table, previous=descriptor
        )
        columns = tuple(self.database.columns(self.connection, *place))
        live = LiveTable(place=place, columns=columns, number=descriptor.table, sealed=sealed, descriptor=now)
        findings = Findings()
        plan = plan_for(descriptor, live, findings)
        if plan is None:
            raise IntegrityFinding("; ".join(str(each) for each in findings.all()))
        return plan.reader(self.database)


def _descriptors(block: Block) -> Iterator[Descriptor]:
    """Yield the schemas that a block holds."""
    for encoded in block.entries() if SCHEMA_START in block.data else ():
        entry = decode_entry(encoded) if encoded.startswith(SCHEMA_START) else None
        if isinstance(entry, SchemaEntry):
            yield Descriptor.decode(entry.descriptor)


def last_checkpoint(connection: Connection, trail: Trail) -> Checkpoint:
    """Give the last checkpoint of the database, with the signatures of all of its copies; nothing of it is checked.

    Raises:
        NotSealed: if there is none.
    """
    table = trail.checkpoint
    greatest = sa.select(sa.func.max(table.c.size)).scalar_subquery()
    notes = connection.scalars(sa.select(table.c.note).where(table.c.size == greatest).order_by(table.c.id)).all()
    if not notes:
        raise NotSealed("nothing of this trail is sealed yet: seal it first")
    first, *others = (Checkpoint.parse(note) for note in notes)
    for other in others:
        first = first.merge(other)
    return first


def place_of(trail: Trail, entry: Any, row: Any = None) -> tuple[SealedTable, int]:
    """Give the table and the row id of an entry of the trail.

    Args:
        trail: the trail.
        entry: a ``Change``, an ``Event``, an ``Access`` or a ``TransactionInfo``.
        row: the key of a row that an ``Access`` showed, for the record of that.

    Raises:
        NotAudited: if it is none of these, of another trail, or did not show the row.
    """
    if row is not None:
        return _sealed(trail, trail.access_row, entry), _shown(entry, row)
    audit_id, table, kind = (getattr(entry, name, None) for name in ("audit_id", "table", "operation"))
    if kind in ("event", "read"):
        return _sealed(trail, trail.event if kind == "event" else trail.access, entry), int(entry.audit_id)
    for sealed in sealed_tables(trail):
        if audit_id is None and table is None and sealed.role == "transaction" and hasattr(entry, "db_user"):
            return sealed, int(entry.id)
        if sealed.audited is not None and sealed.audited.table.fullname == table and audit_id is not None:
            return sealed, int(audit_id)
    raise _no_entry(entry)


def _sealed(trail: Trail, table: Any, entry: Any) -> SealedTable:
    found = next((sealed for sealed in sealed_tables(trail) if sealed.table is table), None)
    if found is None:
        raise _no_entry(entry)
    return found


def _shown(entry: Any, row: Any) -> int:
    """Give the id of the record that an access showed a row."""
    key = row if isinstance(row, tuple) else (row,)
    rows = getattr(entry, "rows", None)
    if rows is None or key not in rows:
        raise NotAudited(
            f"{entry!r:.120} is not known to have shown the row {row!r}: give an Access, and one of its rows"
        )
    return int(entry.row_ids[rows.index(key)])


def _no_entry(entry: Any) -> NotAudited:
    return NotAudited(
        f"{entry!r:.120} is not an entry of this trail: give a Change, an Event, an Access or a TransactionInfo"
    )


def prove_entry(engine: Engine, entry: Any, row: Any, metadata: Any) -> Proof:
    """Prove an entry; see :func:`sa_audit.prove`."""
    with engine.connect() as connection:
        trail = trail_at(connection, metadata)
    with verifier_for(engine).reading(engine) as connection:
        return Prover(connection, trail).prove(*place_of(trail, entry, row))


def prove_growth(engine: Engine, old: Checkpoint, new: Checkpoint | None, metadata: Any) -> ConsistencyProof:
    """Prove that one checkpoint is the beginning of another; see :func:`sa_audit.prove_consistency`."""
    with engine.connect() as connection:
        trail = trail_at(connection, metadata)
    with verifier_for(engine).reading(engine) as connection:
        prover = Prover(connection, trail, new)
        checkpoint = prover.checkpoint
        if old.origin != checkpoint.origin or old.size > checkpoint.size:
            raise MalformedProof(
                f"the checkpoint of {old.origin!r} at size {old.size} can't be a beginning of that of "
                f"{checkpoint.origin!r} at size {checkpoint.size}"
            )
        path = consistency_proof(old.size, checkpoint.size, NodesOfTiles(checkpoint.size, prover.tiles()))
    return ConsistencyProof(old=old.size, path=path, checkpoint=checkpoint)
