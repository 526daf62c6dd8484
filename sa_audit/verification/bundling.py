"""Bundles out of the database: which leaves, and their rows; :mod:`sa_audit.proof.bundle` writes them.

Imports the room's own parts, proof, catalog and errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..catalog import SealedTable, sealed_tables, trail_at
from ..catalog.log import blocks
from ..catalog.prunes import prune_of
from ..errors import IntegrityFinding
from ..model.history import Trail
from ..proof.bundle import Leaf, write_bundle
from ..proof.entries import RowEntry, SchemaEntry, decode_entry
from ..proof.policy import Policy
from ..proof.schema import Descriptor
from .database import verifier_for
from .leaves import ROW_START, row_of
from .proving import SCHEMA_START, Prover
from .rows import stretches


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows go into a bundle.

    Args:
        text: what was asked for, in words.
        tables: by the name of a history table, the values of the audited key, by the names of its columns, or None
            for every row; None for all rows of the trail.
        complete: whether every leaf goes along, which shows that no other one is about them.
    """

    text: str
    tables: Mapping[str, Mapping[str, Any] | None] | None = None
    complete: bool = False


def export_bundle(engine: Engine, path: Path, policy: Policy, selection: Selection, *, metadata: Any = None) -> int:
    """Write a bundle of rows, under the last checkpoint; give how many rows it holds.

    Args:
        engine: to the database.
        path: the file, which must not be there.
        policy: the exporter's, for the auditor to compare with his own.
        selection: which rows.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Raises:
        NotSealed: if nothing is sealed.
        Unencodable: if a row or a leaf is not the one that was sealed: verify the trail.
        FileExistsError: if the file is there.
    """
    with engine.connect() as connection:
        trail = trail_at(connection, metadata)
    with verifier_for(engine).reading(engine) as connection:
        prover = Prover(connection, trail)
        policy.check(prover.checkpoint)
        leaves = _Leaves(prover, _wanted(connection, trail, selection), complete=selection.complete)
        size = prover.checkpoint.size
        write_bundle(
            path,
            leaves,
            checkpoint=prover.checkpoint,
            policy=policy,
            selection=selection.text,
            tiles=prover.tiles(),
            ranges=[(0, size)] if selection.complete else [],
            anchors=_tokens(connection, trail, size),
        )
    return leaves.rows


Wanted = dict[str, set[int] | None]
"""By table name, the ids of the rows, or None for all."""


def _wanted(connection: Connection, trail: Trail, selection: Selection) -> Wanted:
    """Find the ids of the rows, and of their transactions."""
    if selection.tables is None:
        return {str(sealed.table.name): None for sealed in sealed_tables(trail)}
    wanted: Wanted = {}
    transactions: set[int] = set()
    for name, key in selection.tables.items():
        history = next(each.table for each in sealed_tables(trail) if each.table.name == name)
        statement = sa.select(history.c.audit_id, history.c.audit_tx)
        for column, value in (key or {}).items():
            statement = statement.where(history.c[column] == value)
        found = [(row.audit_id, row.audit_tx) for row in connection.execute(statement)]
        wanted[name] = {row for row, _transaction in found}
        transactions |= {transaction for _row, transaction in found}
    return {**wanted, str(trail.transaction.name): transactions}


def _tokens(connection: Connection, trail: Trail, size: int) -> dict[str, bytes]:
    """Give what anchors have given for the checkpoint, as the database keeps it."""
    table = trail.checkpoint
    statement = sa.select(table.c.token).where(table.c.size == size, table.c.token.is_not(None)).order_by(table.c.id)
    return {f"token-{number}": bytes(token) for number, token in enumerate(connection.scalars(statement), 1)}


class _Leaves:
    """Yields the leaves of a bundle by index, with their rows, a block at a time."""

    def __init__(self, prover: Prover, wanted: Wanted, *, complete: bool) -> None:
        self._prover = prover
        self._wanted = wanted
        self._complete = complete
        self._schemas: dict[bytes, Descriptor] = {}
        self._tables: dict[str, SealedTable] = {
            str(sealed.table.name): sealed for sealed in sealed_tables(prover.trail)
        }
        self.rows = 0

    def __iter__(self) -> Iterator[Leaf]:
        for block in blocks(self._prover.connection, self._prover.trail):
            if block.first >= self._prover.checkpoint.size:
                return
            yield from self._block(block.first, block.entries())

    def _block(self, first: int, entries: list[bytes]) -> Iterator[Leaf]:
        picked = [(first + position, entry) for position, entry in enumerate(entries) if self._picks(entry)]
        rows = self._read([entry for _index, entry in picked if entry.startswith(ROW_START)])
        for index, entry in picked:
            row = rows.get(entry)
            self.rows += row is not None
            yield Leaf(index=index, entry=entry, row=row)

    def _picks(self, entry: bytes) -> bool:
        if entry.startswith(SCHEMA_START):
            decoded = decode_entry(entry)
            if isinstance(decoded, SchemaEntry):
                descriptor = Descriptor.decode(decoded.descriptor)
                self._schemas[descriptor.digest] = descriptor
            return True
        return self._complete or self._shows(entry)

    def _shows(self, entry: bytes) -> bool:
        if not entry.startswith(ROW_START):
            return False
        _table, row, schema = row_of(entry)
        descriptor = self._schemas.get(schema)
        if descriptor is None or descriptor.name not in self._wanted:
            return False
        ids = self._wanted[descriptor.name]
        return ids is None or row in ids

    def _read(self, entries: list[bytes]) -> dict[bytes, bytes]:
        """Give the encoded rows of those entries whose rows are wanted."""
        by_schema: dict[bytes, dict[int, bytes]] = {}
        for entry in entries:
            if self._shows(entry):
                decoded = decode_entry(entry)
                if isinstance(decoded, RowEntry):
                    by_schema.setdefault(decoded.schema, {})[decoded.row] = entry
        found: dict[bytes, bytes] = {}
        for schema, rows in by_schema.items():
            descriptor = self._schemas[schema]
            for row, data in self._rows(descriptor, rows):
                found[rows[row]] = data
            if missing := [
                row for row, entry in rows.items() if entry not in found and not self._pruned(descriptor, row)
            ]:
                raise IntegrityFinding(f"row {missing[0]} of {descriptor.name} is sealed, and is not there any more")
        return found

    def _pruned(self, descriptor: Descriptor, row: int) -> bool:
        """Tell whether a row may be gone: its leaf goes along without it, and that of its prune."""
        return prune_of(self._prover.connection, self._prover.trail, descriptor, row) is not None

    def _rows(self, descriptor: Descriptor, rows: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
        reader = self._prover.reader(self._tables[descriptor.name], descriptor)
        condition = f"WHERE r.{reader.id_column} BETWEEN :first AND :last"
        for first, last in stretches(sorted(rows)):
            for each in reader.rows(self._prover.connection, condition, {"first": first, "last": last}):
                if each.id in rows:
                    yield each.id, reader.encoder.encode(each.salt, each.forms)
