"""The tree, grown leaf by leaf: its root at any size on the way, and the tiles that each block has to keep.

Imports proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..proof.merkle import Frontier
from ..proof.tiles import MAX_LEVEL, WIDTH, Tile
from ..proof.types import DIGEST_SIZE, Digest

_sha256 = hashlib.sha256


class Tree:
    """A tree of RFC 6962, kept as the partial tiles of its right edge: at most 8 times 255 hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[list[bytes]] = [[] for _level in range(MAX_LEVEL + 1)]
        self._full: list[int] = [0] * (MAX_LEVEL + 1)

    def append(self, entries: Sequence[bytes]) -> list[Tile]:
        """Append leaves, given as entries; give the tiles that became full."""
        hash_ = _sha256
        added: list[bytes] = [hash_(b"\x00" + entry).digest() for entry in entries]
        self.size += len(added)
        made: list[Tile] = []
        for level in range(MAX_LEVEL + 1):
            if not added:
                break
            added = self._extend(level, added, made)
        return made

    def _extend(self, level: int, added: list[bytes], made: list[Tile]) -> list[bytes]:
        hashes = self._edge[level] + added
        full = len(hashes) // WIDTH
        above: list[bytes] = []
        for start in range(0, full * WIDTH, WIDTH):
            chunk = hashes[start : start + WIDTH]
            made.append(Tile(level, self._full[level], b"".join(chunk)))
            above.append(_root(chunk))
            self._full[level] += 1
        self._edge[level] = hashes[full * WIDTH :]
        return above

    def edge(self, level: int) -> Tile | None:
        """Give the partial tile of a level, or None."""
        hashes = self._edge[level]
        return Tile(level, self._full[level], b"".join(hashes)) if hashes else None

    def root(self) -> Digest:
        """Give the root of the tree as it is."""
        return self.frontier().root()

    def frontier(self) -> Frontier:
        """Give the frontier of the tree as it is."""
        hashes: list[Digest] = []
        for level in range(MAX_LEVEL, -1, -1):
            if self._edge[level]:
                hashes += Frontier().append([Digest(each) for each in self._edge[level]]).hashes
        return Frontier(self.size, tuple(hashes))


def _root(hashes: list[bytes]) -> bytes:
    hash_ = _sha256
    while len(hashes) > 1:
        hashes = [hash_(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def narrower(kept: Tile, width: int) -> bytes:
    """Give the first hashes of a tile."""
    return kept.data[: width * DIGEST_SIZE]
