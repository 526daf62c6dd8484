"""The canonical forms of values: ``docs/format/canonical.md``, version 1.

A value's type is one of :data:`TYPES`, or such a name with ``[]`` behind it; its form is an item of CBOR that differs
whenever the value does.  A database can give most forms by itself (microseconds as bigint, ``float8send``, decimal
text), and then only :class:`.canonical.RowEncoder` is needed.  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ..errors import MalformedProof, Unencodable
from .cbor import Item, utf8
from .schema import element_type, is_type

NAN64: Final = bytes.fromhex("7ff8000000000000")
NAN32: Final = bytes.fromhex("7fc00000")
MAX_DIGITS: Final = 200_000
"""The most digits before or behind a decimal's point; PostgreSQL's limits are 131,072 and 16,383."""

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - what is counted from here has no zone
_EPOCH_UTC: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
_BITS: Final = re.compile(r"[01]*")
_INFINITE: Final = ("Infinity", "-Infinity")
_SPECIAL: Final = ("NaN", *_INFINITE)


class Interval(NamedTuple):
    """An interval as a database stores it: months, days and microseconds, which don't add up to each other."""

    months: int
    days: int
    microseconds: int


class Array(NamedTuple):
    """An array with its bounds: ``dimensions`` are pairs of lower bound and length, ``elements`` in row-major order."""

    dimensions: tuple[tuple[int, int], ...]
    elements: tuple[Any, ...]


def form(type_: str, value: Any) -> Item:
    """Give the form of a Python value.

    Args:
        type_: a type of ``canonical.md``.
        value: None, or a value of exactly the Python type that belongs to it: int; Decimal; float; bool; str for
            ``text``, ``enum`` (its label as stored), ``json`` (its text), ``bits`` and ``printed``; bytes; UUID; an
            aware datetime for ``instant``, a naive one for ``datetime``; date; a naive time, an aware one for
            ``timetz``; timedelta for ``duration``; :class:`Interval`; a list, possibly of lists, or an
            :class:`Array`; for ``stored`` int, float, str or bytes.

    Raises:
        Unencodable: if the value is of another type or has no form.
        MalformedProof: if there is no such type.
    """
    if value is None:
        _known(type_)
        return None
    known, element = _known(type_), element_type(type_)
    return known.encode(value) if element is None else _array(element, value)


def check_form(type_: str, item: Item) -> None:
    """Refuse an item that is not a form of a type.

    Raises:
        MalformedProof: if it is none, or there is no such type.
    """
    known, element = _known(type_), element_type(type_)
    fits = known.accepts(item) if element is None else _is_array(element, item)
    if not fits and item is not None:
        raise MalformedProof(f"{item!r:.80} is not a form of {type_}")


def _known(type_: str) -> _Type:
    if not is_type(type_):
        raise MalformedProof(f"there is no type {type_!r} in this version of the format")
    return TYPES[element_type(type_) or type_]


# -- the types ---------------------------------------------------------------------------


class _Type(NamedTuple):
    """How one type is encoded, and how its form is recognised."""

    encode: Callable[[Any], Item]
    accepts: Callable[[Item], bool]


def _exactly(type_: type[Any], value: Any, name: str, hint: str = "") -> None:
    if type(value) is not type_:
        raise Unencodable(f"{value!r:.80} of {type(value).__name__} is not of type {name}{hint}")


def _same(type_: type[Any], name: str, hint: str = "") -> Callable[[Any], Item]:
    def encode_same(value: Any) -> Item:
        _exactly(type_, value, name, hint)
        same: Item = value
        return same

    return encode_same


def _text(name: str, hint: str = "") -> Callable[[Any], Item]:
    def encode_text(value: Any) -> Item:
        _exactly(str, value, name, hint)
        utf8(value)
        text: str = value
        return text

    return encode_text


def _is(type_: type[Any]) -> Callable[[Item], bool]:
    return lambda item: type(item) is type_


def decimal_form(value: Decimal) -> str:
    """Give the text of an exact number: no exponent, no trailing zeros, no minus before zero.

    Raises:
        Unencodable: for a signalling NaN, or a number with more than :data:`MAX_DIGITS` digits on a side of its point.
    """
    _exactly(Decimal, value, "decimal")
    if not value.is_finite():
        if value.is_nan():
            if value.is_snan() or value.is_signed() or len(value.as_tuple().digits):
                raise Unencodable(f"{value} has no canonical form: only a plain NaN has")
            return "NaN"
        return "-Infinity" if value < 0 else "Infinity"
    exponent = value.as_tuple().exponent
    if not value:
        return "0"
    if value.adjusted() > MAX_DIGITS or (isinstance(exponent, int) and exponent < -MAX_DIGITS):
        raise Unencodable(f"{value!r:.80} has more than {MAX_DIGITS} digits before or behind its point")
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def float_form(value: float) -> bytes:
    """Give the 8 bytes of a binary64: its own bits, and one NaN for all."""
    _exactly(float, value, "float64")
    return NAN64 if math.isnan(value) else struct.pack(">d", value)


def _float32(value: Any) -> bytes:
    _exactly(float, value, "float32")
    if math.isnan(value):
        return NAN32
    try:
        packed = struct.pack(">f", value)
    except OverflowError as error:
        raise Unencodable(f"{value!r} is not a number of single precision") from error
    if struct.unpack(">f", packed)[0] != value:
        raise Unencodable(f"{value!r} is not a number of single precision")
    return packed


def _instant(value: Any) -> int:
    _exactly(dt.datetime, value, "instant")
    if value.utcoffset() is None:
        raise Unencodable(f"{value!r} has no offset, and an instant needs one")
    return int((value - _EPOCH_UTC) // _MICROSECOND)


def _datetime(value: Any) -> int:
    _exactly(dt.datetime, value, "datetime")
    if value.tzinfo is not None:
        raise Unencodable(f"{value!r} has a zone, and a datetime has none")
    return int((value - _EPOCH) // _MICROSECOND)


def _date(value: Any) -> int:
    _exactly(dt.date, value, "date")
    return int(value.toordinal() - _EPOCH.toordinal())


def _clock(value: dt.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _time(value: Any) -> int:
    _exactly(dt.time, value, "time")
    if value.tzinfo is not None:
        raise Unencodable(f"{value!r} has a zone, and a time has none: its type is timetz")
    return _clock(value)


def _timetz(value: Any) -> Item:
    _exactly(dt.time, value, "timetz")
    offset = value.utcoffset()
    if offset is None or offset.microseconds:
        raise Unencodable(f"{value!r} has no offset in whole seconds, and a timetz needs one")
    return (_clock(value), offset // dt.timedelta(seconds=1))


def _duration(value: Any) -> int:
    _exactly(dt.timedelta, value, "duration")
    return int(value // _MICROSECOND)


def _interval(value: Any) -> Item:
    _exactly(Interval, value, "interval", ": give an Interval, since 24 hours and a day differ as stored")
    if not all(type(part) is int for part in value):
        raise Unencodable(f"{value!r} has a part that is not a whole number")
    return tuple(value)


def _uuid(value: Any) -> bytes:
    _exactly(uuid.UUID, value, "uuid")
    raw: bytes = value.bytes
    return raw


def _bits(value: Any) -> str:
    if type(value) is not str or _BITS.fullmatch(value) is None:
        raise Unencodable(f"{value!r:.80} is not of type bits: give a text of 0 and 1")
    return value


def stored_form(value: Any) -> Item:
    """Give the form of a value by SQLite's storage class.

    Args:
        value: int, float, str or bytes; text that is not UTF-8 as the str that ``errors="surrogateescape"`` decodes.

    Raises:
        Unencodable: for anything else.
    """
    kind = type(value)
    if kind is int or kind is bytes:
        same: Item = value
        return same
    if kind is float:
        return ("real", float_form(value))
    _exactly(str, value, "stored")
    try:
        value.encode()
    except UnicodeEncodeError:
        return ("text", _escaped(value))
    text: str = value
    return text


def _escaped(value: str) -> bytes:
    try:
        raw = value.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise Unencodable(f"the text {value!r:.80} is not valid Unicode (at {error.start})") from error
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw
    raise Unencodable(f"the text {value!r:.80} has escaped bytes that are valid UTF-8")


def _is_stored(item: Item) -> bool:
    match item:
        case ("real", bytes(raw)):
            return _is_float(8, NAN64)(raw)
        case ("text", bytes(raw)):
            return not _is_utf8(raw)
        case _:
            return type(item) in (int, str, bytes)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_decimal(item: Item) -> bool:
    return isinstance(item, str) and (item in _SPECIAL or (item != "-0" and _DECIMAL.fullmatch(item) is not None))


def _is_float(size: int, nan: bytes) -> Callable[[Item], bool]:
    code = ">d" if size == 8 else ">f"
    return lambda item: (
        isinstance(item, bytes) and len(item) == size and (item == nan or not math.isnan(struct.unpack(code, item)[0]))
    )


def _is_moment(item: Item) -> bool:
    return type(item) is int or item in _INFINITE


def _is_integers(count: int) -> Callable[[Item], bool]:
    return lambda item: isinstance(item, tuple) and len(item) == count and all(type(part) is int for part in item)


TYPES: Final[dict[str, _Type]] = {
    "int": _Type(_same(int, "int"), _is(int)),
    "decimal": _Type(decimal_form, _is_decimal),
    "float64": _Type(float_form, _is_float(8, NAN64)),
    "float32": _Type(_float32, _is_float(4, NAN32)),
    "bool": _Type(_same(bool, "bool"), _is(bool)),
    "text": _Type(_text("text"), _is(str)),
    "enum": _Type(_text("enum", ": give the label as it is stored"), _is(str)),
    "json": _Type(_text("json", ": give the text that the database gives, unparsed"), _is(str)),
    "bytes": _Type(_same(bytes, "bytes"), _is(bytes)),
    "uuid": _Type(_uuid, lambda item: isinstance(item, bytes) and len(item) == 16),
    "bits": _Type(_bits, lambda item: isinstance(item, str) and _BITS.fullmatch(item) is not None),
    "instant": _Type(_instant, _is_moment),
    "datetime": _Type(_datetime, _is_moment),
    "date": _Type(_date, _is_moment),
    "time": _Type(_time, _is(int)),
    "timetz": _Type(_timetz, _is_integers(2)),
    "duration": _Type(_duration, _is(int)),
    "interval": _Type(_interval, _is_integers(3)),
    "encrypted": _Type(_same(bytes, "encrypted", ": give the ciphertext that is stored"), _is(bytes)),
    "printed": _Type(_text("printed"), _is(str)),
    "stored": _Type(stored_form, _is_stored),
}
"""The types but arrays, by name."""


# -- arrays ------------------------------------------------------------------------------


def _array(element: str, value: Any) -> Item:
    array = value if type(value) is Array else _from_list(value)
    elements = tuple(form(element, member) for member in array.elements)
    item: Item = (tuple(tuple(pair) for pair in array.dimensions), elements)
    if not _is_array(element, item):
        raise Unencodable(f"{array!r:.80} has dimensions that don't fit its {len(elements)} elements")
    return item


def _from_list(value: Any) -> Array:
    _exactly(list, value, "array", ": give a list or an Array")
    lengths: list[int] = []
    level: list[Any] = value
    while True:
        lengths.append(len(level))
        nested = [type(member) is list for member in level]
        if not any(nested):
            break
        if not all(nested) or len({len(member) for member in level}) != 1:
            raise Unencodable(f"{value!r:.80} is not an array: its lists differ in length or depth")
        if len(lengths) > 8:
            raise Unencodable(f"{value!r:.80} has too many dimensions")
        lengths[-1] = len(level)
        level = [member for inner in level for member in inner]
    if not level:
        if len(lengths) > 1:
            raise Unencodable(f"{value!r:.80} is a list of empty lists, which no database stores")
        return Array((), ())
    sizes = [total // before for total, before in zip(lengths, [1, *lengths[:-1]], strict=True)]
    return Array(tuple((1, size) for size in sizes), tuple(level))


def _is_array(element: str, item: Item) -> bool:
    match item:
        case (tuple(dimensions), tuple(elements)):
            pass
        case _:
            return False
    if not all(_is_integers(2)(pair) for pair in dimensions):
        return False
    lengths = [pair[1] for pair in dimensions]
    if not all(isinstance(length, int) and length >= 1 for length in lengths):
        return False
    expected = math.prod(length for length in lengths if isinstance(length, int)) if lengths else 0
    accepts = _known(element).accepts
    return expected == len(elements) and all(member is None or accepts(member) for member in elements)
