"""The Merkle tree as RFC 6962, section 2.1, defines it: recursively, and slowly.

It shares nothing with the library's way, and tells what a proof leads to by the same definition read backwards.
"""

from __future__ import annotations

import hashlib


def leaf(entry: bytes) -> bytes:
    """Give the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Give the hash of a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def mth(leaves: list[bytes]) -> bytes:
    """Give MTH(D[n])."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf(leaves[0])
    k = split(len(leaves))
    return node(mth(leaves[:k]), mth(leaves[k:]))


def split(n: int) -> int:
    """Give the greatest power of two less than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Give PATH(m, D[n]), section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """Give PROOF(m, D[n]), section 2.1.2; nothing for m = 0, of which the RFC does not speak."""
    return _subproof(m, leaves, True) if m else []


def _subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*_subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*_subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def root_of_path(m: int, n: int, leaf_hash: bytes, hashes: list[bytes]) -> bytes | None:
    """Give the root that a path leads to, or None if it is not one for leaf m of n."""
    if not 0 <= m < n or any(len(each) != 32 for each in (leaf_hash, *hashes)):
        return None
    if n == 1:
        return None if hashes else leaf_hash
    if not hashes:
        return None
    k, last = split(n), hashes[-1]
    below = root_of_path(m, k, leaf_hash, hashes[:-1]) if m < k else root_of_path(m - k, n - k, leaf_hash, hashes[:-1])
    if below is None:
        return None
    return node(below, last) if m < k else node(last, below)


def is_consistent(m: int, n: int, old: bytes, new: bytes, hashes: list[bytes]) -> bool:
    """Tell whether hashes prove that the tree of m leaves is a beginning of that of n."""
    if not 0 <= m <= n or any(len(each) != 32 for each in (old, new, *hashes)):
        return False
    if m == 0:
        return not hashes and old == mth([]) and (n > 0 or new == old)
    return _roots(m, n, True, old, hashes) == (old, new)


def _roots(m: int, n: int, whole: bool, old: bytes, hashes: list[bytes]) -> tuple[bytes, bytes] | None:
    """Give what the hashes say are the roots of the first m leaves of a subtree of n, and of all of it."""
    if m == n:
        if whole:
            return None if hashes else (old, old)
        return (hashes[0], hashes[0]) if len(hashes) == 1 else None
    if not hashes:
        return None
    k, last = split(n), hashes[-1]
    if m <= k:
        below = _roots(m, k, whole, old, hashes[:-1])
        return below and (below[0], node(below[1], last))
    below = _roots(m - k, n - k, False, old, hashes[:-1])
    return below and (node(last, below[0]), node(last, below[1]))
