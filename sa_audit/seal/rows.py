"""The rows to seal: of each table what lies between the last horizon and the present one, descriptors before them.

Imports the room's own parts, catalog, proof, model and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase, LiveColumn, RowReader, SealedTable, describe, sealed_tables
from ..catalog.describe import SALT
from ..catalog.horizon import HorizonDatabase, Stretch
from ..errors import SealRefused
from ..model.history import Trail
from ..proof.entries import BlockEntry, SchemaEntry
from ..proof.schema import Descriptor
from ..proof.types import Digest
from .building import Item, Tree
from .state import KnownTable, Range, State


class Rows:
    """The rows of one sealing, read in one transaction.

    Args:
        connection: in the transaction, its settings pinned.
        database: how to read it.
        horizons: how to tell what is complete.
        trail: the trail.
        state: what is sealed.
    """

    def __init__(
        self,
        connection: Connection,
        database: CatalogDatabase,
        horizons: HorizonDatabase,
        trail: Trail,
        state: State,
    ) -> None:
        self.connection = connection
        self.database = database
        self.horizons = horizons
        self.trail = trail
        self.state = state
        self.tables = dict(state.tables)
        self._present = [self._described(sealed) for sealed in sealed_tables(trail)]
        names = {
            descriptor.table: database.name_of(descriptor.schema, descriptor.name)
            for _sealed, _name, descriptor in filter(None, self._present)
        }
        self.horizon = horizons.horizon(connection, trail, names)

    def _described(self, sealed: SealedTable) -> tuple[SealedTable, str, Descriptor] | None:
        """Describe a table under its number in the log; None for one that is neither there nor known."""
        name = self._name(sealed)
        known = self.tables.get(name) or self._renamed(sealed, name)
        number = known.number if known is not None else self._next_number()
        previous = known.descriptor if known is not None else None
        found = describe(self.database, self.connection, sealed, number=number, previous=previous)
        if found is None:
            if known is not None:
                raise SealRefused(f"table {name} has sealed rows and is not there any more: put it back")
            return None
        self.tables.setdefault(name, known or KnownTable(number=number))
        return sealed, name, found

    def _name(self, sealed: SealedTable) -> str:
        schema = self.database.schema(self.connection, sealed.table)
        return f"{schema}.{sealed.table.name}" if schema else str(sealed.table.name)

    def _next_number(self) -> int:
        return max((known.number for known in self.tables.values()), default=0) + 1

    def _renamed(self, sealed: SealedTable, name: str) -> KnownTable | None:
        """Look for the former name of a history that has another one now: it holds the last sealed row."""
        if sealed.role != "history":
            return None
        present = {self._name(other) for other in sealed_tables(self.trail)}
        schema = self.database.schema(self.connection, sealed.table)
        if not self.database.columns(self.connection, schema, sealed.table.name):
            return None
        table = self.database.name_of(schema, sealed.table.name)
        found = [
            (former, known)
            for former, known in self.tables.items()
            if former not in present and known.last is not None and known.descriptor is not None
            if known.descriptor.role == "history" and self._holds(table, known.last)
        ]
        if len(found) > 1:
            names = ", ".join(former for former, _known in found)
            raise SealRefused(f"table {name} may be the former {names}: seal after each renaming, not after both")
        for former, known in found:
            del self.tables[former]
            self.tables[name] = known
            return known
        return None

    def _holds(self, table: str, row: int) -> bool:
        statement = sa.text(f"SELECT 1 FROM {table} WHERE audit_id = :row")
        return self.connection.execute(statement, {"row": row}).first() is not None

    # -- reading -----------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Yield the entries of all rows to seal, table by table, by id; a descriptor that is new before its rows."""
        schema = self.database.schema(self.connection, self.trail.transaction)
        entries = self.database.name_of(schema, self.trail.transaction.name)
        for sealed, name, descriptor in filter(None, self._present):
            since = self.state.horizon
            stretch = self.horizons.stretch(sealed, descriptor.table, entries, since, self.horizon)
            yield from self._table(name, descriptor, stretch)

    def _table(self, name: str, descriptor: Descriptor, stretch: Stretch | None) -> Iterator[Item]:
        known = self.tables[name]
        unsealed = stretch if stretch is not None else _outside(known.ranges)
        salted = any(column.name == SALT for column in self._columns(descriptor))
        reader = RowReader(self.database, descriptor, salted=salted)
        number, last = descriptor.table, known.last
        ids: list[int] = []
        first = True
        for row, entry in reader.entries(self.connection, unsealed.condition, unsealed.parameters):
            if first:
                first = False
                if known.descriptor is None or known.descriptor.digest != descriptor.digest:
                    yield Item(SchemaEntry.of(descriptor).encode())
            if stretch is None:
                ids.append(row)
            last = row if last is None or row > last else last
            yield Item(entry, number, row)
        if not first:
            ranges = merged(known.ranges, ids) if stretch is None else ()
            self.tables[name] = replace(known, descriptor=descriptor, last=last, ranges=ranges)

    def _columns(self, descriptor: Descriptor) -> list[LiveColumn]:
        return self.database.columns(self.connection, descriptor.schema, descriptor.name)

    # -- afterwards --------------------------------------------------------------------

    def state_after(self, tree: Tree, last: Digest, header: BlockEntry) -> State:
        """Give the state once the blocks are committed.

        Args:
            tree: the grown one.
            last: the digest of the last block.
            header: its header.
        """
        after = replace(self.state, frontier=tree.frontier, blocks=tree.blocks, last_block=last)
        return replace(after, tables=self.tables, horizon=self.horizon) if header.closes else after


def _outside(ranges: tuple[Range, ...]) -> Stretch:
    """Give the rows with an id in none of the ranges."""
    if not ranges:
        return Stretch(condition="WHERE 1 = 1")
    parameters = {f"{end}{i}": pair[j] for i, pair in enumerate(ranges) for j, end in enumerate("ab")}
    bounds = " AND ".join(f"NOT (r.id BETWEEN :a{i} AND :b{i})" for i in range(len(ranges)))
    return Stretch(condition=f"WHERE {bounds}", parameters=parameters)


def merged(ranges: tuple[Range, ...], ids: list[int]) -> tuple[Range, ...]:
    """Give ranges of ids, both ends included, with further ids in them."""
    result: list[Range] = []
    for first, last in sorted([*ranges, *((row, row) for row in ids)]):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)
