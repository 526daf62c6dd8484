"""CBOR: the items of docs/format/canonical.md.  A part of ``verify.py``; see this package."""

from __future__ import annotations

from typing import Any

from .fault import Bad, need

# -- CBOR (RFC 8949, section 4.2.1; integers, bytes, text, arrays, booleans, null) --------


def read_item(data: bytes, at: int = 0, depth: int = 0) -> tuple[Any, int]:
    """Read one item; give it and where it ends."""
    need(at < len(data), "ends too early")
    first = data[at]
    if first in (0xF4, 0xF5, 0xF6):
        return {0xF4: False, 0xF5: True, 0xF6: None}[first], at + 1
    major, (value, at) = first >> 5, read_head(data, at)
    if major == 0 or major == 1:
        return (value if major == 0 else -1 - value), at
    if major in (2, 3):
        need(value <= len(data) - at, "ends too early")
        raw = data[at : at + value]
        return (raw if major == 2 else text_of_utf8(raw)), at + value
    if major == 4:
        need(depth < 16 and value <= len(data) - at, "has arrays too deep or too long")
        items = []
        for _ in range(value):
            item, at = read_item(data, at, depth + 1)
            items.append(item)
        return items, at
    need(major == 6 and value in (2, 3) and data[at : at + 1][:1] in BYTES_HEADS, "has an item that is not used")
    raw, at = read_item(data, at, depth)
    need(len(raw) > 8 and raw[0] != 0, "has a big integer in another form")
    number = int.from_bytes(raw, "big")
    return (number if value == 2 else -1 - number), at


BYTES_HEADS = tuple(bytes([n]) for n in range(0x40, 0x60))


def read_head(data: bytes, at: int) -> tuple[int, int]:
    """Read the argument of an item in its shortest form; give it and where it ends."""
    info = data[at] & 31
    if info < 24:
        return info, at + 1
    need(info <= 27, "has an indefinite or reserved length")
    size = 1 << (info - 24)
    need(at + 1 + size <= len(data), "ends too early")
    value = int.from_bytes(data[at + 1 : at + 1 + size], "big")
    need(value >= 24 and (size == 1 or value >= 1 << (size * 4)), "has a number in a longer form")
    return value, at + 1 + size


def text_of_utf8(raw: bytes) -> str:
    """Give the text of UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("has text that is not UTF-8") from None


def decode(data: bytes) -> Any:
    """Read the one item that fills the data."""
    item, end = read_item(data)
    need(end == len(data), "has something behind its end")
    return item
