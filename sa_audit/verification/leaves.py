"""Leaves of rows, read as far as they are needed, fast.

An entry that equals the one that is made anew from its row needs no strict reading; any other is decoded by
:mod:`sa_audit.proof.entries`.  Imports proof.
"""

from __future__ import annotations

from typing import Final

ROW_START: Final = b"\x87\x01\x01"
"""How the entry of a row begins: an array of seven, version 1, kind 1 (docs/format/entries.md)."""
_TAIL: Final = 2 * 34
"""The bytes of the two digests behind the transaction."""
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
