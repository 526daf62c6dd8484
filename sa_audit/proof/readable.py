"""Rows as CSV, to read: the readable files of a bundle.  ``docs/format/bundle.md``, "rows".

The text follows from the forms alone, so that a checker can make it anew and compare the bytes.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from .cbor import Item
from .schema import Descriptor, element_type

_DAY: Final = 86_400_000_000
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - what is counted from here has no zone
_FIRST: Final = (dt.datetime.min - _EPOCH) // dt.timedelta(microseconds=1)  # noqa: DTZ901 - likewise
_LAST: Final = (dt.datetime.max - _EPOCH) // dt.timedelta(microseconds=1)  # noqa: DTZ901 - likewise


def csv_header(descriptor: Descriptor) -> bytes:
    """Give the first line of a file."""
    return _line(["leaf", *(column.name for column in descriptor.columns)])


def csv_row(descriptor: Descriptor, index: int, forms: Sequence[Item]) -> bytes:
    """Give the line of one row.

    Args:
        descriptor: of the row.
        index: that of its leaf.
        forms: of its values, which fit the descriptor.
    """
    texts = [text_of(column.type, item) for column, item in zip(descriptor.columns, forms, strict=True)]
    return _line([str(index), *texts])


def text_of(type_: str, item: Item) -> str | None:
    """Give the text of a form, or None for NULL.

    Args:
        type_: a type of ``canonical.md``.
        item: a form of that type.
    """
    if item is None:
        return None
    element = element_type(type_)
    return _array(element, item) if element is not None else _TEXTS.get(type_, str)(item)


def _line(fields: Sequence[str | None]) -> bytes:
    return (",".join(_field(field) for field in fields) + "\r\n").encode()


def _field(text: str | None) -> str:
    return "" if text is None else '"' + text.replace('"', '""') + '"'


def _array(element: str, item: Any) -> str:
    dimensions, elements = item
    bounds = "".join(f"[{lower}:{lower + length - 1}]" for lower, length in dimensions)
    return f"{bounds}=({','.join(_field(text_of(element, member)) for member in elements)})"


def _float(item: Any) -> str:
    value: float = struct.unpack(">d" if len(item) == 8 else ">f", item)[0]
    return repr(value)


def _datetime(item: Any) -> str:
    if isinstance(item, str) or not _FIRST <= item <= _LAST:
        return str(item)
    return (_EPOCH + dt.timedelta(microseconds=item)).isoformat(timespec="microseconds")


def _instant(item: Any) -> str:
    text = _datetime(item)
    return text + "Z" if "T" in text else text


def _date(item: Any) -> str:
    first, last = dt.date.min.toordinal(), dt.date.max.toordinal()
    if isinstance(item, str) or not first <= item + _EPOCH.toordinal() <= last:
        return str(item)
    return dt.date.fromordinal(item + _EPOCH.toordinal()).isoformat()


def _time(item: Any) -> str:
    if not 0 <= item <= _DAY:
        return str(item)
    seconds, micros = divmod(item, 1_000_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"


def _stored(item: Any) -> str:
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, tuple):
        kind, raw = item
        return _float(raw) if kind == "real" else bytes(raw).hex()
    return str(item)


_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "float64": _float,
    "float32": _float,
    "bool": lambda item: "true" if item else "false",
    "bytes": bytes.hex,
    "encrypted": bytes.hex,
    "uuid": lambda item: str(uuid.UUID(bytes=item)),
    "instant": _instant,
    "datetime": _datetime,
    "date": _date,
    "time": _time,
    "timetz": lambda item: f"{_time(item[0])} {item[1]}",
    "interval": lambda item: " ".join(map(str, item)),
    "stored": _stored,
}
"""What is not ``str`` of the form."""
