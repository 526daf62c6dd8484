"""Entry bundles: how a block keeps its entries.  C2SP tlog-tiles, and ``docs/format/entries.md``.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from struct import iter_unpack
from typing import Final

from ..errors import MalformedProof, Unencodable
from .entries import MAX_BLOCK, MAX_ENTRY

_WINDOW: Final = 16
"""How many entries are looked at at first, whether all of them are of one length."""


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """Join encoded entries: each with its length as two bytes before it.

    Raises:
        Unencodable: if one is empty or longer than 65,535 bytes, or there are more than 65,536.
    """
    parts = list(entries)
    lengths = list(map(len, parts))
    for length in set(lengths):
        if not 1 <= length <= MAX_ENTRY:
            raise Unencodable(f"an entry has 1 to {MAX_ENTRY} bytes, and this one {length}")
    if len(parts) > MAX_BLOCK:
        raise Unencodable(f"a block has at most {MAX_BLOCK} entries, and this one {len(parts)}")
    heads = {length: length.to_bytes(2, "big") for length in set(lengths)}
    return b"".join(chain.from_iterable(zip(map(heads.__getitem__, lengths), parts, strict=True)))


def unpack_entries(data: bytes) -> list[bytes]:
    """Part an entry bundle into its encoded entries, which are not looked into.

    Raises:
        MalformedProof: if it ends amid an entry, or has an empty one or too many.
    """
    entries: list[bytes] = []
    offset, end, window = 0, len(data), _WINDOW
    while offset < end:
        start = offset + 2
        count, length = _alike(data, offset, window)
        if count > 1 and length:
            stop = offset + count * (length + 2)
            entries += chain.from_iterable(iter_unpack(f"2x{length}s", memoryview(data)[offset:stop]))
            offset, window = stop, window * 2 if count == window else _WINDOW
            if len(entries) > MAX_BLOCK:
                raise MalformedProof(f"the block has more than {MAX_BLOCK} entries")
            continue
        offset = start + length
        if start > end or offset > end:
            raise MalformedProof(f"the block ends amid entry {len(entries)}, at byte {end}")
        if offset == start:
            raise MalformedProof(f"entry {len(entries)} of the block is empty")
        if len(entries) == MAX_BLOCK:
            raise MalformedProof(f"the block has more than {MAX_BLOCK} entries")
        entries.append(data[start:offset])
    return entries


def _alike(data: bytes, offset: int, window: int) -> tuple[int, int]:
    """Give how many entries from an offset on have the length of the first, up to a number, and that length.

    Most entries of a block are of one length, and looking at many at once takes a fraction of the time.
    """
    head = data[offset : offset + 2]
    length = int.from_bytes(head, "big")
    stride = length + 2
    count = min(window, (len(data) - offset) // stride)
    if len(head) < 2 or count < 2:
        return count, length
    stop = offset + count * stride
    high, low = data[offset:stop:stride], data[offset + 1 : stop : stride]
    alike = count - max(len(high.lstrip(head[:1])), len(low.lstrip(head[1:])))
    return alike, length
