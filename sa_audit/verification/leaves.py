"""Leaves of rows, read as far as they are needed, fast.

An entry that equals the one that is made anew from its row needs no strict reading; any other is decoded by
:mod:`sa_audit.proof.entries`.  Imports proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import iter_unpack
from typing import Final, NamedTuple

ROW_START: Final = b"\x87\x01\x01"
"""How the entry of a row begins: an array of seven, version 1, kind 1 (docs/format/entries.md)."""
_TAIL: Final = 2 * 34
"""The bytes of the two digests behind the transaction."""
_FEWEST: Final = 16
"""Fewer leaves than these are not worth looking at together."""
_UNSIGNED: Final = {0x19: ("H", 2), 0x1A: ("I", 4), 0x1B: ("Q", 8)}
"""How an id is read, and its bytes, by what stands before it."""
_WIDTHS: Final = {0x18: 1, 0x19: 2, 0x1A: 4, 0x1B: 8}


def row_of(entry: bytes) -> tuple[int, int, bytes]:
    """Give table, row and schema digest of the entry of a row.

    Raises:
        ValueError: if its integers are not in any form of CBOR, or it is too short.
    """
    lead = entry[3]
    if lead < 24:
        table, offset = lead, 4
    else:
        table, offset = _integer(entry, 3)
    lead = entry[offset]
    if lead == 0x1A:
        row = int.from_bytes(entry[offset + 1 : offset + 5], "big")
    elif lead == 0x19:
        row = entry[offset + 1] << 8 | entry[offset + 2]
    elif lead < 24:
        row = lead
    else:
        row, _end = _integer(entry, offset)
    return table, row, entry[-66:-34]


class Alike(NamedTuple):
    """What leaves of rows of one table and schema say: both of these, and the id of each row."""

    table: int
    schema: bytes
    rows: Sequence[int]


def parts_of(entries: Sequence[bytes], start: int = 0) -> Iterator[tuple[int, Sequence[bytes], Alike | None]]:
    """Part entries, as far as they can be, into leaves of rows of one table and schema, which are read at once.

    Yields:
        The position of the first entry of each part, its entries, and what :func:`row_of` would say of all of them,
        or None where they have to be looked at one by one.

    Args:
        entries: encoded.
        start: the position of the first that is wanted.
    """
    part = entries[start:]
    alike = _alike(part) if len(part) >= _FEWEST else None
    if alike is not None or len(part) < 2 * _FEWEST:
        if part:
            yield start, part, alike
        return
    middle = len(part) // 2
    for half, offset in ((part[:middle], start), (part[middle:], start + middle)):
        for position, each, known in parts_of(half):
            yield offset + position, each, known


def _alike(entries: Sequence[bytes]) -> Alike | None:
    first = entries[0]
    length = len(first)
    if length < _TAIL + 8 or not first.startswith(ROW_START) or first[3] >= 24 or first[4] not in _UNSIGNED:
        return None
    code, width = _UNSIGNED[first[4]]
    rest = length - _TAIL - 3 - width  # the transaction, and what stands before the schema digest
    if rest < 3 or len(entries[-1]) != length or set(map(len, entries)) != {length}:
        return None
    heads, rows, schemas = zip(*iter_unpack(f">5s{code}{rest}x32s34x", b"".join(entries)), strict=True)
    if len(set(heads)) > 1 or len(set(schemas)) > 1:
        return None
    return Alike(first[3], schemas[0], rows)


def _integer(entry: bytes, offset: int) -> tuple[int, int]:
    lead = entry[offset]
    major, info = lead & 0xE0, lead & 0x1F
    if major not in (0x00, 0x20):
        raise ValueError(f"no integer stands at byte {offset}")
    width = _WIDTHS.get(info, 0)
    if info < 24:
        value, end = info, offset + 1
    elif width:
        end = offset + 1 + width
        value = int.from_bytes(entry[offset + 1 : end], "big")
        if end > len(entry) - _TAIL:
            raise ValueError(f"the integer at byte {offset} has no end")
    else:
        raise ValueError(f"no integer stands at byte {offset}")
    return (value if major == 0 else -1 - value), end
