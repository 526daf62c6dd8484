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
from .building import Run, Tree
from .ranges import Range, merged, without
from .state import KnownTable, State


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

    def runs(self) -> Iterator[Run]:
        """Yield the entries of all rows to seal, table by table, by id; a descriptor that is new before its rows."""
        schema = self.database.schema(self.connection, self.trail.transaction)
        entries = self.database.name_of(schema, self.trail.transaction.name)
        since = self.state.horizon
        news = since is None or self._has_news(entries)
        for sealed, name, descriptor in filter(None, self._present):
            stretch = self.horizons.stretch(sealed, descriptor.table, entries, since, self.horizon)
            if news or stretch is None or not stretch.joined:
                yield from self._table(name, descriptor, stretch)

    def _has_news(self, entries: str) -> bool:
        """Tell whether any entry is to be sealed; without one no row that is found by its entry is."""
        for sealed, _name, descriptor in filter(None, self._present):
            if sealed.role == "transaction":
                stretch = self.horizons.stretch(sealed, descriptor.table, entries, self.state.horizon, self.horizon)
                if stretch is None:
                    break
                statement = sa.text(f"SELECT 1 FROM {entries} AS r {stretch.condition} LIMIT 1")
                return self.connection.execute(statement, stretch.parameters).first() is not None
        return True

    def _table(self, name: str, descriptor: Descriptor, stretch: Stretch | None) -> Iterator[Run]:
        known = self.tables[name]
        salted = any(column.name == SALT for column in self._columns(descriptor))
        reader = RowReader(self.database, descriptor, salted=salted)
        ids: list[int] = []
        first, last = True, known.last
        for rows, entries in self._entries(reader, known, stretch):
            if first:
                first = False
                if known.descriptor is None or known.descriptor.digest != descriptor.digest:
                    yield Run([SchemaEntry.of(descriptor).encode()])
            if stretch is None:
                ids += rows
            last = max(rows) if last is None else max(last, *rows)
            yield Run(entries, descriptor.table, rows)
        ranges = merged(known.ranges, ids) if stretch is None else ()
        sealed_as = known.descriptor if first else descriptor
        self.tables[name] = replace(known, descriptor=sealed_as, last=last, ranges=ranges)

    def _entries(
        self, reader: RowReader, known: KnownTable, stretch: Stretch | None
    ) -> Iterator[tuple[list[int], list[bytes]]]:
        """Yield the unsealed rows of a table: by their ids where its rows have no transaction id, or had others."""
        if stretch is None:
            yield from self._missing(reader, known, None)
            return
        if known.floor is None:
            yield from reader.entries(self.connection, stretch.condition, stretch.parameters)
            return
        if self.state.horizon is None:
            yield from self._missing(reader, known, known.floor)
        condition = f"{stretch.condition} AND r.{reader.id_column} > :floor"
        yield from reader.entries(self.connection, condition, {**stretch.parameters, "floor": known.floor})

    def _missing(
        self, reader: RowReader, known: KnownTable, floor: int | None
    ) -> Iterator[tuple[list[int], list[bytes]]]:
        """Yield the rows whose ids are not among those that are sealed."""
        present = ids_of(self.connection, self.database, reader.table, reader.id_column, floor)
        for first, last in without(present, known.ranges):
            bounds = {"first": first, "last": last}
            between = f"WHERE r.{reader.id_column} BETWEEN :first AND :last"
            yield from reader.entries(self.connection, between, bounds)

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


def ids_of(
    connection: Connection, database: CatalogDatabase, table: str, key: str, floor: int | None = None
) -> tuple[Range, ...]:
    """Give the ids that stand in a table, as ranges; up to a floor, if there is one.

    Args:
        connection: in a transaction.
        database: how to read it.
        table: the table's qualified and quoted name.
        key: the quoted name of its id.
        floor: the greatest id to look at.
    """
    bound = "" if floor is None else f" WHERE {key} <= :floor"
    statement = sa.text(f"SELECT {key} FROM {table}{bound} ORDER BY {key}")
    parameters = {} if floor is None else {"floor": floor}
    rows = connection.execute(statement, parameters, execution_options=database.streams)
    return merged((), (int(row[0]) for row in rows))
