"""Blocks out of entries: the header before them, the tree grown by them, the tiles that they fill.

Pure: it knows no database and no clock.  Imports proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..proof.blocks import pack_entries
from ..proof.entries import BlockEntry, Horizon
from ..proof.merkle import Frontier, leaf_hash
from ..proof.tiles import Tile, append_tiles, frontier_of_tiles, widths
from ..proof.types import Digest

LEAVES: Final = 8_192
"""The most leaves of a block that this library makes, so that the leaf of a row is found fast."""
BYTES: Final = 4 << 20
"""The bytes after which a block is full as well."""


class Item(NamedTuple):
    """An entry to be sealed, encoded; of a row its table and id, else None for both."""

    data: bytes
    table: int | None = None
    row: int | None = None


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

    def append(self, leaf_hashes: list[Digest]) -> list[Tile]:
        """Append leaves; give the tiles that are new or wider."""
        made = append_tiles(self.frontier, self.edge, leaf_hashes)
        size = self.frontier.size + len(leaf_hashes)
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


def build(tree: Tree, facts: Facts, items: Iterable[Item], *, closes: bool) -> Iterator[Built]:
    """Yield the blocks of one sealing; none where there are no items.

    Args:
        tree: grown by them.
        facts: what the headers say.
        items: the entries, in order.
        closes: whether with the last of them every row up to the horizon is sealed.
    """
    chunks = _chunks(items)
    chunk = next(chunks, None)
    while chunk is not None:
        following = next(chunks, None)
        yield _block(tree, facts, chunk, closes=closes and following is None)
        chunk = following


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    size = 0
    for item in items:
        if len(chunk) == LEAVES - 1 or size > BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.data)
    if chunk:
        yield chunk


def _block(tree: Tree, facts: Facts, chunk: list[Item], *, closes: bool) -> Built:
    rows = _rows(chunk)
    header = BlockEntry(
        number=tree.blocks,
        first=tree.frontier.size,
        count=len(chunk) + 1,
        incarnation=facts.incarnation,
        sealed_at=facts.sealed_at,
        horizon=facts.horizon,
        closes=closes,
        tables=tuple((table, count) for table, (_first, _last, count) in sorted(rows.items())),
        fingerprint=facts.fingerprint if closes else None,
        token=facts.token,
    )
    entries = [header.encode(), *(item.data for item in chunk)]
    tiles = tree.append([leaf_hash(entry) for entry in entries])
    tree.blocks += 1
    return Built(header=header, data=pack_entries(entries), tiles=tiles, rows=rows)


def _rows(chunk: list[Item]) -> dict[int, tuple[int, int, int]]:
    rows: dict[int, list[int]] = {}
    for _data, table, row in chunk:
        if table is not None and row is not None:
            rows.setdefault(table, []).append(row)
    return {table: (min(ids), max(ids), len(ids)) for table, ids in rows.items()}
