"""Tiles: the interior hashes of the tree, 256 to a tile.  C2SP tlog-tiles, and ``docs/format/tree.md``.

Tiles come from where they may have been tampered with: a proof that is made from false ones fails, and appending to
false ones raises.  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import IntegrityFinding, MalformedProof
from .merkle import Frontier
from .types import DIGEST_SIZE, MAX_SIZE, Digest

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
MAX_LEVEL: Final = 7
"""The greatest level of a tile in a tree of at most 2**63 - 1 leaves."""
_sha256 = hashlib.sha256
KEPT: Final = 1024
"""The most tiles that are kept while hashes are looked up: 8 MiB."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 hashes: ``data[32 * i:][:32]`` is the root of the ``index * 256 + i``-th subtree of ``256**level``."""

    level: int
    index: int
    data: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_LEVEL or not 0 <= self.index <= MAX_SIZE:
            raise MalformedProof(f"there is no tile {self.index} of level {self.level}")
        if len(self.data) % DIGEST_SIZE or not 1 <= self.width <= WIDTH:
            raise MalformedProof(
                f"tile {self.level}/{self.index} has {len(self.data)} bytes, which are not 1 to {WIDTH} hashes"
            )

    @property
    def width(self) -> int:
        """The number of its hashes."""
        return len(self.data) // DIGEST_SIZE

    @property
    def full(self) -> bool:
        """Whether it has 256 hashes."""
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """The tile's path: ``tile/<L>/<N>``, with ``.p/<W>`` behind it for a partial one."""
        return f"tile/{self.level}/{index_path(self.index)}" + ("" if self.full else f".p/{self.width}")

    def hash(self, position: int) -> Digest:
        """Give one of its hashes."""
        return Digest(self.data[position * DIGEST_SIZE : (position + 1) * DIGEST_SIZE])

    def hashes(self) -> list[Digest]:
        """Give all of its hashes."""
        return [self.hash(position) for position in range(self.width)]

    def subtree(self, height: int, position: int) -> Digest:
        """Give the root of ``2**height`` of its hashes, the ``position``-th such subtree.

        Raises:
            IntegrityFinding: if the tile is too narrow to hold it.
        """
        start, count = position << height, 1 << height
        if start + count > self.width:
            raise IntegrityFinding(
                f"tile {self.level}/{self.index} lacks hashes: expected {start + count}, got {self.width}"
            )
        return _root([self.hash(each) for each in range(start, start + count)])


def _root(hashes: list[Digest]) -> Digest:
    """Give the root over hashes, a power of two of them."""
    hash_ = _sha256
    nodes: list[bytes] = list(hashes)
    while len(nodes) > 1:
        nodes = [hash_(b"\x01" + left + right).digest() for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return Digest(nodes[0])


def index_path(index: int) -> str:
    """Give an index as a path: three digits to an element, an ``x`` before all but the last."""
    parts = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        parts.append(f"x{index % 1000:03}")
    return "/".join(reversed(parts))


def widths(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, index and width of the partial tiles of a tree: its right edge, at most one for each level."""
    for level in range(MAX_LEVEL + 1):
        count = size >> (HEIGHT * level)
        if count % WIDTH:
            yield level, count // WIDTH, count % WIDTH


TileReader = Callable[[int, int, int], Tile]
"""Gives the tile of a level and index; the width is the least that is needed, and a wider one will do."""


class NodesOfTiles:
    """Gives the hash of any complete subtree from the tiles of a tree; the last 1,024 that it has read it keeps.

    Args:
        size: of the tree.
        read: gives the tiles.
    """

    def __init__(self, size: int, read: TileReader) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[tuple[int, int], Tile] = {}

    def __call__(self, level: int, index: int) -> Digest:
        """Give the hash of a node; see :data:`.merkle.NodeReader`.

        Raises:
            IntegrityFinding: if the tile that is given for it is another one, or too narrow.
        """
        tile_level, height = divmod(level, HEIGHT)
        first = index << height
        tile = self._tile(tile_level, first // WIDTH)
        return tile.subtree(height, (first % WIDTH) >> height)

    def _tile(self, level: int, index: int) -> Tile:
        tile = self._tiles.get((level, index))
        if tile is None:
            width = min((self.size >> (HEIGHT * level)) - index * WIDTH, WIDTH)
            tile = self._read(level, index, width)
            if (tile.level, tile.index) != (level, index) or tile.width < width:
                raise IntegrityFinding(
                    f"tile {level}/{index} with {width} hashes was expected, and "
                    f"{tile.level}/{tile.index} with {tile.width} was got"
                )
            if len(self._tiles) == KEPT:
                del self._tiles[next(iter(self._tiles))]
            self._tiles[level, index] = tile
        return tile


def append_tiles(frontier: Frontier, edge: Mapping[int, Tile], leaf_hashes: Sequence[Digest]) -> list[Tile]:
    """Give the tiles that are new or wider after leaves have been appended, by level and index.

    Args:
        frontier: of the tree before.
        edge: by level, the partial tiles of the tree before, from wherever they are kept.
        leaf_hashes: what is appended.

    Raises:
        IntegrityFinding: if a partial tile does not agree with the frontier.
    """
    kept = checked_edge(frontier, edge)
    made: list[Tile] = []
    count, added = frontier.size, list(leaf_hashes)
    for level in range(MAX_LEVEL + 1):
        if not added:
            break
        hashes = [*kept.get(level, ()), *added]
        first = count // WIDTH
        chunks = [hashes[start : start + WIDTH] for start in range(0, len(hashes), WIDTH)]
        made += [Tile(level, first + i, b"".join(chunk)) for i, chunk in enumerate(chunks)]
        added = [_root(list(chunk)) for chunk in chunks if len(chunk) == WIDTH]
        count = first
    return made


def checked_edge(frontier: Frontier, edge: Mapping[int, Tile]) -> dict[int, list[Digest]]:
    """Give the hashes of the partial tiles of a tree by level, once they agree with its frontier.

    Raises:
        IntegrityFinding: naming the tile that does not.
    """
    nodes = {(level, index): node for level, index, node in frontier.nodes()}
    kept: dict[int, list[Digest]] = {}
    for level, index, width in widths(frontier.size):
        tile = edge.get(level)
        if tile is None or (tile.level, tile.index) != (level, index) or tile.width < width:
            raise IntegrityFinding(f"tile {level}/{index} of the tree of {frontier.size} leaves is not there")
        kept[level] = tile.hashes()[:width]
        own = Frontier().append(kept[level])
        for height, position, node in own.nodes():
            expected = nodes[level * HEIGHT + height, (index << (HEIGHT - height)) + position]
            if node != expected:
                raise IntegrityFinding(
                    f"tile {level}/{index} does not belong to the tree of {frontier.size} leaves: "
                    f"expected {expected.hex()} at its height {height}, got {node.hex()}"
                )
    return kept


def frontier_of_tiles(size: int, read: TileReader) -> Frontier:
    """Give the frontier of a tree from the partial tiles at its right edge; they are not checked against anything."""
    hashes: list[Digest] = []
    for level, index, width in reversed(list(widths(size))):
        tile = read(level, index, width)
        if tile.width < width:
            raise IntegrityFinding(f"tile {level}/{index} lacks hashes: expected {width}, got {tile.width}")
        hashes += Frontier().append(tile.hashes()[:width]).hashes
    return Frontier(size, tuple(hashes))
