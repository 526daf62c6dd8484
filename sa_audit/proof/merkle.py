"""The Merkle tree of RFC 6962, section 2.1, with SHA-256: appending, proving, checking.

Nothing here is particular to this library; ``docs/format/tree.md`` says what is refused beyond the RFCs.
A *node* is a complete subtree: of level ``l`` and index ``i``, over the leaves ``[i * 2**l, (i + 1) * 2**l)``.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import IntegrityFinding, MalformedProof
from .types import DIGEST_SIZE, MAX_SIZE, Digest

EMPTY_ROOT: Final = Digest(hashlib.sha256(b"").digest())
MAX_PATH: Final = 63
"""The most hashes of a proof, for a tree of at most 2**63 - 1 leaves."""

NodeReader: TypeAlias = Callable[[int, int], Digest]
"""Gives the hash of the node of a level and index."""

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> Digest:
    """Give ``H(0x00 || entry)``."""
    return Digest(_sha256(b"\x00" + entry).digest())


def leaf_hashes(entries: Iterable[bytes]) -> list[Digest]:
    """Give :func:`leaf_hash` of each of many entries."""
    hash_ = _sha256
    return [hash_(b"\x00" + entry).digest() for entry in entries]  # type: ignore[misc]  # NewType, spared for speed


def node_hash(left: bytes, right: bytes) -> Digest:
    """Give ``H(0x01 || left || right)``."""
    return Digest(_sha256(b"\x01" + left + right).digest())


# -- appending ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree as its complete subtrees, from left to right: all that appending needs, at most 63 hashes.

    Args:
        size: the number of leaves.
        hashes: one for each bit of ``size``, that of the greatest subtree first.

    Raises:
        MalformedProof: if the size is out of range, or there are more or fewer hashes than that.
    """

    size: int = 0
    hashes: tuple[Digest, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise MalformedProof(f"a tree has 0 to {MAX_SIZE} leaves, and not {self.size}")
        if len(self.hashes) != self.size.bit_count():
            raise MalformedProof(
                f"the frontier of {self.size} leaves has {self.size.bit_count()} hashes, and not {len(self.hashes)}"
            )
        require_hashes(self.hashes)

    def append(self, leaf_hashes: Iterable[Digest]) -> Frontier:
        """Give the frontier of the tree with further leaves behind; takes two hashes a leaf at most, one on average.

        Args:
            leaf_hashes: their hashes, in order.
        """
        size, hashes = self.size, list(self.hashes)
        for node in leaf_hashes:
            rest, joined = size, node
            while rest & 1:
                joined = Digest(_sha256(b"\x01" + hashes.pop() + joined).digest())
                rest >>= 1
            hashes.append(joined)
            size += 1
        return Frontier(size, tuple(hashes))

    def root(self) -> Digest:
        """Give the root of the tree."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for node in reversed(self.hashes[:-1]):
            root = node_hash(node, root)
        return root

    def nodes(self) -> Iterator[tuple[int, int, Digest]]:
        """Yield level, index and hash of each complete subtree, from left to right."""
        start = 0
        bits = (level for level in range(self.size.bit_length() - 1, -1, -1) if self.size >> level & 1)
        for level, node in zip(bits, self.hashes, strict=True):
            yield level, start >> level, node
            start += 1 << level


def tree_root(leaf_hashes: Iterable[Digest]) -> Digest:
    """Give the root over some leaf hashes alone (``MTH``)."""
    return Frontier().append(leaf_hashes).root()


# -- proving -----------------------------------------------------------------------------


def inclusion_proof(index: int, size: int, read: NodeReader) -> tuple[Digest, ...]:
    """Give the path from a leaf to the root (RFC 6962, section 2.1.1), the leaf's sibling first.

    Args:
        index: that of the leaf.
        size: of the tree.
        read: gives the hashes of complete subtrees; asked for about ``log2(size)`` of them.

    Raises:
        MalformedProof: if there is no such leaf.
    """
    _require_index(index, size)
    return tuple(_range_hash(start, end, read) for start, end in _siblings(index, size))


def _siblings(index: int, size: int) -> list[tuple[int, int]]:
    """Give the ranges whose hashes are the path of a leaf, the lowest first."""
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    ranges.reverse()
    return ranges


def consistency_proof(old: int, new: int, read: NodeReader) -> tuple[Digest, ...]:
    """Give the proof that a tree is a beginning of another (RFC 6962, section 2.1.2).

    Args:
        old: the size of the smaller tree.
        new: the size of the greater one.
        read: gives the hashes of complete subtrees.

    Raises:
        MalformedProof: if ``old`` is greater than ``new``.
    """
    _require_sizes(old, new)
    if old in (0, new):
        return ()
    ranges: list[tuple[int, int]] = []
    start, end = 0, new
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    if start:
        ranges.append((start, end))
    return tuple(_range_hash(first, last, read) for first, last in reversed(ranges))


def _split(count: int) -> int:
    """Give the greatest power of two that is less than a count of at least two."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_hash(start: int, end: int, read: NodeReader) -> Digest:
    """Give ``MTH(D[start:end])``, of a range whose start is a multiple of the power of two that it is split at."""
    nodes: list[Digest] = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(read(level, start >> level))
        start += 1 << level
    root = nodes.pop()
    while nodes:
        root = node_hash(nodes.pop(), root)
    return root


# -- checking ----------------------------------------------------------------------------


def root_of_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> Digest:
    """Give the root that a path leads to (RFC 9162, section 2.1.3.2).

    Args:
        index: that of the leaf.
        size: of the tree.
        leaf: the leaf hash, 32 bytes.
        path: the proof.

    Raises:
        MalformedProof: if there is no such leaf, or the path is longer or shorter than it has to be.
    """
    _require_index(index, size)
    require_hashes((leaf, *path))
    position, last = index, size - 1
    node = Digest(bytes(leaf))
    for sibling in path:
        if last == 0:
            raise MalformedProof(f"the proof of leaf {index} of {size} has {len(path)} hashes, which is too many")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise MalformedProof(f"the proof of leaf {index} of {size} has {len(path)} hashes, which is too few")
    return node


def check_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Refuse a leaf that a path does not lead from to the root.

    Raises:
        MalformedProof: see :func:`root_of_inclusion`.
        IntegrityFinding: if it leads to another root.
    """
    require_hashes((root,))
    got = root_of_inclusion(index, size, leaf, path)
    if got != root:
        raise IntegrityFinding(
            f"leaf {index} is not in the tree of {size} leaves: expected the root {root.hex()}, got {got.hex()}"
        )


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Refuse two trees of which the smaller is not a beginning of the greater (RFC 9162, section 2.1.4.2).

    Args:
        old: the size of the smaller tree.
        new: the size of the greater one.
        old_root: 32 bytes.
        new_root: 32 bytes.
        path: the proof.

    Raises:
        MalformedProof: if the path is longer or shorter than it has to be.
        IntegrityFinding: if it leads to other roots.
    """
    _require_sizes(old, new)
    require_hashes((old_root, new_root, *path))
    if old in (0, new):
        if path:
            raise MalformedProof(f"the proof from {old} to {new} leaves has {len(path)} hashes, and needs none")
        if (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise _inconsistent(old, new, old, old_root, new_root if old == new else EMPTY_ROOT)
        if new == 0 and new_root != EMPTY_ROOT:
            raise _inconsistent(old, new, new, new_root, EMPTY_ROOT)
        return
    got_old, got_new = _roots_of_consistency(old, new, old_root, path)
    if got_old != old_root:
        raise _inconsistent(old, new, old, old_root, got_old)
    if got_new != new_root:
        raise _inconsistent(old, new, new, new_root, got_new)


def _roots_of_consistency(old: int, new: int, old_root: bytes, path: Sequence[bytes]) -> tuple[Digest, Digest]:
    hashes = list(path) if old & (old - 1) else [old_root, *path]
    if not path:
        raise MalformedProof(f"the proof from {old} to {new} leaves has no hashes")
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    from_old = from_new = Digest(bytes(hashes[0]))
    for sibling in hashes[1:]:
        if last == 0:
            raise MalformedProof(f"the proof from {old} to {new} leaves has {len(path)} hashes, which is too many")
        if position & 1 or position == last:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            from_new = node_hash(from_new, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise MalformedProof(f"the proof from {old} to {new} leaves has {len(path)} hashes, which is too few")
    return from_old, from_new


def _inconsistent(old: int, new: int, size: int, expected: bytes, got: bytes) -> IntegrityFinding:
    return IntegrityFinding(
        f"the tree of {old} leaves is not the beginning of that of {new}: "
        f"for {size} leaves expected the root {expected.hex()}, got {got.hex()}"
    )


def require_hashes(hashes: Sequence[bytes]) -> None:
    """Refuse a hash that is not 32 bytes.

    Raises:
        MalformedProof: naming it.
    """
    for node in hashes:
        if len(node) != DIGEST_SIZE:
            raise MalformedProof(f"a hash has {DIGEST_SIZE} bytes, and {node.hex()!r:.80} has {len(node)}")


def _require_index(index: int, size: int) -> None:
    if not 0 <= index < size <= MAX_SIZE:
        raise MalformedProof(f"there is no leaf {index} in a tree of {size} leaves")


def _require_sizes(old: int, new: int) -> None:
    if not 0 <= old <= new <= MAX_SIZE:
        raise MalformedProof(f"a tree of {new} leaves can't have grown from one of {old}")
