"""Blocks out of entries: the header before them, the tree grown by them, the tiles that they fill.

Pure: it knows no database and no clock.  Imports proof.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

from ..proof.blocks import pack_entries
from ..proof.entries import BlockEntry, Horizon
from ..proof.merkle import Frontier, leaf_hashes
from ..proof.tiles import Tile, append_tiles, frontier_of_tiles, widths
from ..proof.types import Digest

LEAVES: Final = 8_192
"""The most leaves of a block that this library makes, so that the leaf of a row is found fast."""
BYTES: Final = 4 << 20
"""The bytes after which a block is full as well."""


class Run(NamedTuple):
    """Entries to be sealed, encoded: either of one table's rows, with its number and their ids, or one of another kind.

    They come in thousands, since a call for each would take longer than their hashes.
    """

    entries: Sequence[bytes]
    table: int | None = None
    rows: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What all headers of one sealing say; the fingerprint of the catalog, only the one that closes."""

    incarnation: int
    sealed_at: int
    horizon: Horizon
    token: Digest | None
    fingerprint: Digest | None = None


@dataclass(slots=True, kw_only=True)
class Tree:
    """The tree as it grows: its frontier, its partial tiles by level, and the number of blocks."""

    frontier: Frontier
    edge: dict[int, Tile] = field(default_factory=dict)
    blocks: int = 0

    def append(self, leaves: list[Digest]) -> list[Tile]:
        """Append leaves, given as hashes; give the tiles that are new or wider."""
        made = append_tiles(self.frontier, self.edge, leaves)
        size = self.frontier.size + len(leaves)
        by_place = {(tile.level, tile.index): tile for tile in [*self.edge.values(), *made]}
        self.edge = {level: by_place[level, index] for level, index, _width in widths(size)}
        self.frontier = frontier_of_tiles(size, lambda level, _index, _width: self.edge[level])
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A block: its header, its entries as a bundle, its tiles, and of each table the first and last row and a count."""

    header: BlockEntry
    data: bytes
    tiles: list[Tile]
    rows: dict[int, tuple[int, int, int]]


def build(tree: Tree, facts: Facts, runs: Iterable[Run], *, closes: bool) -> Iterator[Built]:
    """Yield the blocks of one sealing; none where there are no entries.

    Args:
        tree: grown by them.
        facts: what the headers say.
        runs: the entries, in order.
        closes: whether with the last of them every row up to the horizon is sealed.
    """
    chunks = _chunks(runs)
    chunk = next(chunks, None)
    while chunk is not None:
        following = next(chunks, None)
        yield _block(tree, facts, chunk, closes=closes and following is None)
        chunk = following


def _chunks(runs: Iterable[Run]) -> Iterator[list[Run]]:
    chunk: list[Run] = []
    free, size = LEAVES - 1, 0
    for run in runs:
        start = 0
        while start < len(run.entries):
            if not free or size > BYTES:
                yield chunk
                chunk, free, size = [], LEAVES - 1, 0
            sizes = list(accumulate(map(len, run.entries[start : start + free]), initial=size))
            end = start + min(len(sizes) - 1, bisect_right(sizes, BYTES))
            chunk.append(Run(run.entries[start:end], run.table, run.rows[start:end]))
            free, size, start = free - (end - start), sizes[end - start], end
    if chunk:
        yield chunk


def _block(tree: Tree, facts: Facts, chunk: list[Run], *, closes: bool) -> Built:
    rows = _rows(chunk)
    header = BlockEntry(
        number=tree.blocks,
        first=tree.frontier.size,
        count=sum(len(run.entries) for run in chunk) + 1,
        incarnation=facts.incarnation,
        sealed_at=facts.sealed_at,
        horizon=facts.horizon,
        closes=closes,
        tables=tuple((table, count) for table, (_first, _last, count) in sorted(rows.items())),
        fingerprint=facts.fingerprint if closes else None,
        token=facts.token,
    )
    entries = [header.encode(), *(entry for run in chunk for entry in run.entries)]
    tiles = tree.append(leaf_hashes(entries))
    tree.blocks += 1
    return Built(header=header, data=pack_entries(entries), tiles=tiles, rows=rows)


def _rows(chunk: list[Run]) -> dict[int, tuple[int, int, int]]:
    rows: dict[int, list[int]] = {}
    for _entries, table, ids in chunk:
        if table is not None:
            rows.setdefault(table, []).extend(ids)
    return {table: (min(ids), max(ids), len(ids)) for table, ids in rows.items()}
