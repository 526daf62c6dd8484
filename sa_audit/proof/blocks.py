"""Entry bundles: how a block keeps its entries.  C2SP tlog-tiles, and ``docs/format/entries.md``.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import MalformedProof, Unencodable
from .entries import MAX_BLOCK, MAX_ENTRY


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """Join encoded entries: each with its length as two bytes before it.

    Raises:
        Unencodable: if one is empty or longer than 65,535 bytes, or there are more than 65,536.
    """
    parts: list[bytes] = []
    for entry in entries:
        if not 1 <= len(entry) <= MAX_ENTRY:
            raise Unencodable(f"an entry has 1 to {MAX_ENTRY} bytes, and this one {len(entry)}")
        parts.append(len(entry).to_bytes(2, "big") + entry)
    if len(parts) > MAX_BLOCK:
        raise Unencodable(f"a block has at most {MAX_BLOCK} entries, and this one {len(parts)}")
    return b"".join(parts)


def unpack_entries(data: bytes) -> list[bytes]:
    """Part an entry bundle into its encoded entries, which are not looked into.

    Raises:
        MalformedProof: if it ends amid an entry, or has an empty one or too many.
    """
    entries: list[bytes] = []
    offset, end = 0, len(data)
    while offset < end:
        start = offset + 2
        offset = start + int.from_bytes(data[offset:start], "big")
        if start > end or offset > end:
            raise MalformedProof(f"the block ends amid entry {len(entries)}, at byte {end}")
        if offset == start:
            raise MalformedProof(f"entry {len(entries)} of the block is empty")
        if len(entries) == MAX_BLOCK:
            raise MalformedProof(f"the block has more than {MAX_BLOCK} entries")
        entries.append(data[start:offset])
    return entries
