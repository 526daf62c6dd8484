"""The Merkle tree: docs/format/tree.md.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from .fault import TREE_LIMIT, need

# -- the tree (RFC 6962, RFC 9162) --------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """Give the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def join(left: bytes, right: bytes) -> bytes:
    """Give the hash of a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def hashes_of(items: Sequence[bytes]) -> None:
    """Refuse what is not a list of hashes."""
    need(all(len(x) == 32 for x in items), "has a hash that is not 32 bytes")


def check_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Refuse a leaf that the path does not lead from to the root: RFC 9162, section 2.1.3.2."""
    hashes_of([leaf, root, *list(path)])
    need(0 <= index < size < TREE_LIMIT, "has no leaf {} of {}", index, size)
    fn, sn, r = index, size - 1, leaf
    for p in path:
        need(sn != 0, "has too many hashes")
        if fn & 1 or fn == sn:
            r = join(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = join(r, p)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "has too few hashes")
    need(r == root, "leads to another root: expected {}, got {}", root.hex(), r.hex())


def check_consistency(first: int, second: int, first_hash: bytes, second_hash: bytes, path: Sequence[bytes]) -> None:
    """Refuse trees of which one is not a beginning of the other: RFC 9162, section 2.1.4.2."""
    hashes_of([first_hash, second_hash, *list(path)])
    need(0 <= first <= second < TREE_LIMIT, "has sizes that shrink")
    if first == 0:
        need(not path and first_hash == hashlib.sha256(b"").digest(), "has another beginning than the empty tree")
    if first in (0, second):
        need(not path, "has too many hashes")
        need((first == 0 and second > 0) or first_hash == second_hash, "has two roots of one size")
        return
    need(len(path) > 0, "has no hashes")
    path = list(path)
    if first & (first - 1) == 0:
        path.insert(0, first_hash)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        need(sn != 0, "has too many hashes")
        if fn & 1 or fn == sn:
            fr, sr = join(c, fr), join(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = join(sr, c)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "has too few hashes")
    need(fr == first_hash, "leads to another old root: expected {}, got {}", first_hash.hex(), fr.hex())
    need(sr == second_hash, "leads to another new root: expected {}, got {}", second_hash.hex(), sr.hex())


def roots_of_subtrees(hashes: Iterable[bytes]) -> list[bytes]:
    """Give the roots of the complete subtrees over some hashes, from left to right."""
    roots: list[bytes] = []
    for count, node in enumerate(hashes):
        while count & 1:
            node, count = join(roots.pop(), node), count >> 1
        roots.append(node)
    return roots


def root_of(subtrees: Sequence[bytes]) -> bytes:
    """Give the root over the roots of complete subtrees."""
    if not subtrees:
        return hashlib.sha256(b"").digest()
    root = subtrees[-1]
    for node in reversed(subtrees[:-1]):
        root = join(node, root)
    return root
