"""The forms of values, and their text in readable files.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import datetime
import re
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from .fault import need

# -- forms of values, and their text ------------------------------------------------------

Test = Callable[[Any], bool]

DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?\Z")
BITS = re.compile(r"[01]*\Z")
INFINITE = ("Infinity", "-Infinity")
EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - what is counted from here has no zone
MICROSECOND = datetime.timedelta(microseconds=1)
FIRST_MICROSECOND = (datetime.datetime.min - EPOCH) // MICROSECOND  # noqa: DTZ901 - likewise
LAST_MICROSECOND = (datetime.datetime.max - EPOCH) // MICROSECOND  # noqa: DTZ901 - likewise


def is_int(item: Any, low: int | None = None, high: int | None = None) -> bool:
    """Tell whether it is an integer within bounds, both included."""
    return type(item) is int and (low is None or low <= item) and (high is None or item <= high)


def is_float(item: Any, size: int) -> bool:
    """Tell whether it is the bytes of a float, with no NaN but the one."""
    if type(item) is not bytes or len(item) != size:
        return False
    value = struct.unpack(">d" if size == 8 else ">f", item)[0]
    return bool(value == value or item == bytes.fromhex("7ff8000000000000" if size == 8 else "7fc00000"))


def is_stored(item: Any) -> bool:
    """Tell whether it is the form of a value of SQLite."""
    if type(item) is list:
        if len(item) != 2 or type(item[1]) is not bytes:
            return False
        if item[0] == "real":
            return is_float(item[1], 8)
        try:
            item[1].decode("utf-8")
        except UnicodeDecodeError:
            return bool(item[0] == "text")
        return False
    return type(item) in (int, str, bytes)


def integers(count: int) -> Test:
    """Give what tells whether an item is that many integers."""
    return lambda item: type(item) is list and len(item) == count and all(map(is_int, item))


def exactly(*types: type) -> Test:
    """Give what tells whether an item is of one of these types."""
    return lambda item: type(item) in types


FORMS = {
    "int": is_int,
    "decimal": lambda x: type(x) is str and x != "-0" and bool(DECIMAL.match(x) or x in ("NaN", *INFINITE)),
    "float64": lambda x: is_float(x, 8),
    "float32": lambda x: is_float(x, 4),
    "bool": exactly(bool),
    "text": exactly(str),
    "enum": exactly(str),
    "json": exactly(str),
    "bytes": exactly(bytes),
    "uuid": lambda x: type(x) is bytes and len(x) == 16,
    "bits": lambda x: type(x) is str and bool(BITS.match(x)),
    "instant": lambda x: is_int(x) or (type(x) is str and x in INFINITE),
    "datetime": lambda x: is_int(x) or (type(x) is str and x in INFINITE),
    "date": lambda x: is_int(x) or (type(x) is str and x in INFINITE),
    "time": is_int,
    "timetz": integers(2),
    "duration": is_int,
    "interval": integers(3),
    "encrypted": exactly(bytes),
    "printed": exactly(str),
    "stored": is_stored,
}


def is_type(name: str) -> bool:
    """Tell whether the format has a type of that name."""
    return name in FORMS or (name[-2:] == "[]" and name[:-2] in FORMS and name != "stored[]")


def check_form(name: str, item: Any) -> None:
    """Refuse an item that is not a form of a type."""
    need(is_type(name), "has the unknown type {!r}", name)
    if item is None:
        return
    fits = is_array(name[:-2], item) if name.endswith("[]") else FORMS[name](item)
    need(fits, "has {!r:.80}, which is not a form of {}", item, name)


def is_array(element: str, item: Any) -> bool:
    """Tell whether it is the form of an array: bounds and elements that fit each other."""
    if type(item) is not list or len(item) != 2 or type(item[0]) is not list or type(item[1]) is not list:
        return False
    count = 1 if item[0] else 0
    for pair in item[0]:
        if not integers(2)(pair) or pair[1] < 1:
            return False
        count *= pair[1]
    return count == len(item[1]) and all(x is None or FORMS[element](x) for x in item[1])


def text(name: str, item: Any) -> str | None:
    """Give the text of a form in a readable file, or None for NULL."""
    if item is None:
        return None
    if name.endswith("[]"):
        bounds = "".join(f"[{low}:{low + size - 1}]" for low, size in item[0])
        return bounds + "=(" + ",".join(field(text(name[:-2], each)) for each in item[1]) + ")"
    if name == "bool":
        return "true" if item else "false"
    if name == "uuid":
        return str(uuid.UUID(bytes=item))
    if name in ("float64", "float32"):
        return repr(struct.unpack(">d" if name == "float64" else ">f", item)[0])
    if name in ("instant", "datetime", "date") and type(item) is int:
        return moment(name, item)
    if name == "time":
        return clock(item)
    if name == "timetz":
        return f"{clock(item[0])} {item[1]}"
    if name == "interval":
        return f"{item[0]} {item[1]} {item[2]}"
    if type(item) is list:  # of a stored value
        return text("float64", item[1]) if item[0] == "real" else item[1].hex()
    return item.hex() if type(item) is bytes else str(item)


def moment(name: str, item: int) -> str:
    """Give the text of a moment or a date, or its number outside of the years 1 to 9999."""
    micros = item * 86_400_000_000 if name == "date" else item
    if not FIRST_MICROSECOND <= micros <= LAST_MICROSECOND:
        return str(item)
    when = EPOCH + micros * MICROSECOND
    if name == "date":
        return when.date().isoformat()
    return when.isoformat(timespec="microseconds") + ("Z" if name == "instant" else "")


def clock(item: int) -> str:
    """Give the text of a time, or its number outside of a day."""
    if not 0 <= item <= 86_400_000_000:
        return str(item)
    seconds = item // 1_000_000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{item % 1_000_000:06}"


def field(said: str | None) -> str:
    """Give a field of CSV."""
    return "" if said is None else '"' + said.replace('"', '""') + '"'


def line(fields: Sequence[str | None]) -> bytes:
    """Give a line of CSV."""
    return (",".join(map(field, fields)) + "\r\n").encode("utf-8")
