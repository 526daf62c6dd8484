"""Deterministic CBOR: the items of ``docs/format/canonical.md``, written in their one form and read strictly.

RFC 8949, section 4.2.1, for integers, byte strings, text strings, arrays, booleans and null; nothing else is
written, and nothing else is read.  Imports nothing of the library but errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from ..errors import MalformedProof, Unencodable

try:
    from cbor2 import dumps as _cbor2_dumps
except ModuleNotFoundError:  # the extra "seal" brings it; it only makes encode_fast fast
    _cbor2_dumps = None  # type: ignore[assignment]  # the absence of a module has no type

Item: TypeAlias = "int | bytes | str | bool | Sequence[Item] | None"
"""What can be written.  Arrays are read as tuples."""

MAX_DEPTH: Final = 16
UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, TAG = 0, 1, 2, 3, 4, 6
_SIMPLE: Final = {0xF4: False, 0xF5: True, 0xF6: None}
_MAX_ARGUMENT: Final = (1 << 64) - 1


def encode(item: Item) -> bytes:
    """Give the one encoding of an item.

    Args:
        item: of exactly these types: int, bytes, str, bool, None, list or tuple; not of subclasses of them.

    Raises:
        Unencodable: for anything else, text that is not valid Unicode, or arrays nested more than 16 deep.
    """
    return b"".join(_pieces(item, 0))


def _pieces(item: Item, depth: int) -> Iterator[bytes]:
    kind = type(item)
    if item is None or kind is bool:
        yield b"\xf6" if item is None else (b"\xf5" if item else b"\xf4")
    elif isinstance(item, int) and kind is int:
        yield _integer(item)
    elif isinstance(item, bytes) and kind is bytes:
        yield head(BYTES, len(item))
        yield item
    elif isinstance(item, str) and kind is str:
        text = utf8(item)
        yield head(TEXT, len(text))
        yield text
    elif isinstance(item, (list, tuple)) and kind in (list, tuple):
        if depth == MAX_DEPTH:
            raise Unencodable(f"arrays are nested more than {MAX_DEPTH} deep")
        yield head(ARRAY, len(item))
        for member in item:
            yield from _pieces(member, depth + 1)
    else:
        raise Unencodable(f"{item!r:.80} of {kind.__name__} has no canonical encoding: give an item of CBOR")


def head(major: int, argument: int) -> bytes:
    """Give the head of an item: major type and argument in the shortest form (RFC 8949, section 3)."""
    lead = major << 5
    if argument < 24:
        return bytes((lead | argument,))
    for bits, info in ((8, 24), (16, 25), (32, 26), (64, 27)):
        if argument >> bits == 0:
            return bytes((lead | info,)) + argument.to_bytes(bits // 8, "big")
    raise Unencodable(f"{argument} is more than CBOR can count")


def _integer(value: int) -> bytes:
    major, argument = (UNSIGNED, value) if value >= 0 else (NEGATIVE, -1 - value)
    if argument <= _MAX_ARGUMENT:
        return head(major, argument)
    digits = argument.to_bytes((argument.bit_length() + 7) // 8, "big")
    return head(TAG, 2 + major) + head(BYTES, len(digits)) + digits


def utf8(text: str) -> bytes:
    """Give the bytes of a text.

    Raises:
        Unencodable: if it holds half of a surrogate pair, which is no character.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unencodable(f"the text {text!r:.80} is not valid Unicode (at {error.start})") from error


def encode_fast(item: Sequence[Item]) -> bytes:
    """Give the same bytes as :func:`encode`, through cbor2 where it is installed, for forms that are known to be right.

    What is neither an item nor refused by cbor2 is not noticed here: give it only the forms of :mod:`.canonical`.

    Raises:
        Unencodable: for text that is not valid Unicode.
    """
    if _cbor2_dumps is None:
        return encode(item)
    try:
        return _cbor2_dumps(item)
    except UnicodeEncodeError as error:
        raise Unencodable(f"the text {error.object!r:.80} is not valid Unicode (at {error.start})") from error


# -- reading -----------------------------------------------------------------------------


def decode(data: bytes, *, what: str = "item") -> Item:
    """Read one item that fills the data.

    Args:
        data: the bytes.
        what: what it should be, for the message.

    Raises:
        MalformedProof: if it is not the one deterministic encoding of an item, or something stands behind it.
    """
    item, end = decode_at(data, 0, what=what)
    if end != len(data):
        raise MalformedProof(f"the {what} has {len(data) - end} bytes behind its end")
    return item


def decode_at(data: bytes, offset: int, *, what: str = "item") -> tuple[Item, int]:
    """Read the item that begins at an offset; give it and the offset of its end.  Raises as :func:`decode`.

    Memory stays within a multiple of the length of the data, whatever lengths it claims.
    """
    return _Reader(data, what).item(offset, 0)


def sequence(data: bytes, *, what: str) -> Iterator[Item]:
    """Read a CBOR sequence (RFC 8742): items one behind the other.  Raises as :func:`decode`."""
    reader, offset = _Reader(data, what), 0
    while offset < len(data):
        item, offset = reader.item(offset, 0)
        yield item


class _Reader:
    """Reads from one byte string; keeps no state but it."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what

    def item(self, offset: int, depth: int) -> tuple[Item, int]:
        if offset >= len(self.data):
            raise self._malformed("ends too early", offset)
        first = self.data[offset]
        if first in _SIMPLE:
            return _SIMPLE[first], offset + 1
        read = _READERS.get(first >> 5)
        if read is None:
            raise self._malformed(f"has an item of a kind that is not used here (0x{first:02x})", offset)
        argument, start = self._argument(offset)
        return read(self, argument, start, depth)

    def _argument(self, offset: int) -> tuple[int, int]:
        info = self.data[offset] & 31
        if info < 24:
            return info, offset + 1
        if info > 27:
            raise self._malformed("has an indefinite or reserved length", offset)
        size = 1 << (info - 24)
        raw = self._take(offset + 1, size)
        value = int.from_bytes(raw, "big")
        if value < 24 or (size > 1 and value >> (size * 4) == 0):
            raise self._malformed("has a number in a longer form than needed", offset)
        return value, offset + 1 + size

    def _bytes(self, length: int, offset: int, depth: int) -> tuple[bytes, int]:
        return self._take(offset, length), offset + length

    def _text(self, length: int, offset: int, depth: int) -> tuple[str, int]:
        try:
            return self._take(offset, length).decode(), offset + length
        except UnicodeDecodeError as error:
            raise self._malformed("has a text that is not UTF-8", offset) from error

    def _array(self, length: int, offset: int, depth: int) -> tuple[tuple[Item, ...], int]:
        if depth == MAX_DEPTH:
            raise self._malformed(f"has arrays nested more than {MAX_DEPTH} deep", offset)
        if length > len(self.data) - offset:  # each member takes a byte at least
            raise self._malformed("ends too early", offset)
        members: list[Item] = []
        for _ in range(length):
            member, offset = self.item(offset, depth + 1)
            members.append(member)
        return tuple(members), offset

    def _big(self, tag: int, offset: int, depth: int) -> tuple[int, int]:
        if tag not in (2, 3):
            raise self._malformed(f"has the tag {tag}, which is not used here", offset)
        is_bytes = b"\x40" <= self.data[offset : offset + 1] < b"\x60"  # looked at first, lest tags nest without end
        digits, end = self.item(offset, depth) if is_bytes else (None, offset)
        if not isinstance(digits, bytes) or len(digits) < 9 or digits[0] == 0:
            raise self._malformed("has a big integer in a longer form than needed", offset)
        value = int.from_bytes(digits, "big")
        return (value if tag == 2 else -1 - value), end

    def _take(self, offset: int, length: int) -> bytes:
        if length > len(self.data) - offset:
            raise self._malformed("ends too early", offset)
        return self.data[offset : offset + length]

    def _malformed(self, why: str, offset: int) -> MalformedProof:
        return MalformedProof(f"the {self.what} {why} (at byte {offset})")


_READERS: Final[dict[int, Callable[[_Reader, int, int, int], tuple[Item, int]]]] = {
    UNSIGNED: lambda reader, argument, offset, depth: (argument, offset),
    NEGATIVE: lambda reader, argument, offset, depth: (-1 - argument, offset),
    BYTES: _Reader._bytes,
    TEXT: _Reader._text,
    ARRAY: _Reader._array,
    TAG: _Reader._big,
}
"""What reads an item, by its major type."""
