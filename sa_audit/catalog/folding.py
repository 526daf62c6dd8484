"""Ranges of rows as the log has them: how many leaves they have, and the root over those alone.

``docs/format/entries.md``, "Prune".  Imports the room's own parts, model and proof.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from ..proof.cbor import encode_fast
from ..proof.merkle import Frontier, leaf_hash
from ..proof.types import Digest
from .log import Block, block_numbered

_WIDTHS: Final = {0x18: 1, 0x19: 2, 0x1A: 4, 0x1B: 8}


@dataclass(slots=True)
class RangeFold:
    """The leaves of a table's rows from ``first`` to ``last``, both included, that stand before the leaf ``before``.

    ``ids`` and ``leaves`` are the rows' ids and the indexes of their leaves, in the order of the log.
    """

    first: int
    last: int
    before: int
    ids: array[int] = field(default_factory=lambda: array("q"))
    leaves: array[int] = field(default_factory=lambda: array("q"))
    _frontier: Frontier = field(default_factory=Frontier)
    _open: list[Digest] = field(default_factory=list)

    def take(self, row: int, index: int, entry: bytes) -> None:
        """Take a leaf of a row within the range; those of one log in their order."""
        if index >= self.before:
            return
        self.ids.append(row)
        self.leaves.append(index)
        self._open.append(leaf_hash(entry))
        if len(self._open) >= 1 << 14:
            self._close()

    def _close(self) -> None:
        if self._open:
            self._frontier = self._frontier.append(self._open)
            self._open = []

    @property
    def count(self) -> int:
        """The number of leaves."""
        return len(self.ids)

    @property
    def root(self) -> Digest:
        """The root over them."""
        self._close()
        return self._frontier.root()


class TableFold:
    """The ranges of one table.

    Args:
        table: its number in the log.
        ranges: in any order; they may overlap.
    """

    def __init__(self, table: int, ranges: Iterable[RangeFold]) -> None:
        self.ranges = sorted(ranges, key=lambda each: (each.first, each.last))
        self._firsts = [each.first for each in self.ranges]
        self._reach = list(accumulate((each.last for each in self.ranges), max))
        self._start = b"\x87" + encode_fast((1, 1, table))[1:]

    def take(self, entries: Sequence[bytes], first: int) -> None:
        """Take the entries of a block, whose first has the index ``first``."""
        start, offset = self._start, len(self._start)
        for index, entry in enumerate(entries, first):
            if entry.startswith(start):
                row = _integer(entry, offset)
                for each in self._around(row):
                    each.take(row, index, entry)

    def _around(self, row: int) -> Iterator[RangeFold]:
        position = bisect_right(self._firsts, row) - 1
        while position >= 0 and self._reach[position] >= row:
            if self.ranges[position].last >= row:
                yield self.ranges[position]
            position -= 1


def fold_ranges(connection: Connection, trail: Trail, table: int, ranges: Sequence[RangeFold]) -> None:
    """Fold ranges of one table, by the blocks of which ``audit_sealed`` says that they hold rows of them.

    Args:
        connection: to the database.
        trail: whose log.
        table: the table's number in the log.
        ranges: filled in.
    """
    if not ranges:
        return
    sealed, fold = trail.sealed, TableFold(table, ranges)
    first, last = min(each.first for each in ranges), max(each.last for each in ranges)
    statement = (
        sa.select(sealed.c.block)
        .where(sealed.c.table_id == table, sealed.c.last_row >= first, sealed.c.first_row <= last)
        .order_by(sealed.c.block)
    )
    for number in connection.scalars(statement).all():
        block = block_numbered(connection, trail, number)
        if block is not None:
            take_block(block, [fold])


def take_block(block: Block, folds: Iterable[TableFold]) -> None:
    """Have ranges take what a block holds of them."""
    entries = block.entries()
    for fold in folds:
        fold.take(entries, block.first)


def _integer(entry: bytes, offset: int) -> int:
    lead = entry[offset]
    major, info = lead & 0xE0, lead & 0x1F
    value = info if info < 24 else int.from_bytes(entry[offset + 1 : offset + 1 + _WIDTHS[0x18 | info & 3]], "big")
    return value if major == 0 else -1 - value
