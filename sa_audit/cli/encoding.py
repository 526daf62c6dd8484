"""Values as JSON for machines, and as text for people.

JSON forms of what JSON has no form of its own for:

========================  ==========================================================
Python                    JSON
========================  ==========================================================
``Decimal``               string with all its digits, ``"12.50"``
``datetime``              ISO 8601, with the offset if it has one
``date``, ``time``        ISO 8601
``timedelta``             ISO 8601 duration in seconds, ``"PT90.5S"``
``UUID``                  string
``bytes``                 string of lower-case hexadecimal digits
``Enum``                  its name
infinite, NaN floats      ``"Infinity"``, ``"-Infinity"``, ``"NaN"``
a value not in history    ``{"marker": "Masked"}``, ``"Excluded"`` or ``"Erased"``
list, tuple, set          array
mapping                   object
anything else             its ``str()``
========================  ==========================================================
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from ..model import Marker


def to_json(value: Any) -> Any:
    """Give a value in the form that the table above says, made of JSON's own types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Marker):
        return {"marker": value.value}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return duration(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)


def duration(value: dt.timedelta) -> str:
    """Give a time span as an exact ISO 8601 duration in seconds."""
    micros = value // dt.timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}PT{seconds}{fraction}S"


def to_text(value: Any, limit: int | None = None) -> str:
    """Give a value as people read it: text in quotes, ``null``, ``(masked)``, numbers and times as they are.

    Args:
        value: the value.
        limit: the most characters; a longer text is cut with an ellipsis.
    """
    if isinstance(value, Marker):
        text = f"({value.value.lower()})"
    elif isinstance(value, dt.datetime):
        text = moment(value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        text = f"x'{bytes(value).hex()}'"
    elif isinstance(value, (dt.date, dt.time, dt.timedelta, Decimal, UUID, enum.Enum)):
        text = str(to_json(value))
    else:
        text = json.dumps(to_json(value), ensure_ascii=False)
    return printable(text if limit is None or len(text) <= limit else text[: limit - 1] + "…")


def moment(value: dt.datetime) -> str:
    """Give a moment to the second, or finer if it is; in UTC if it has a zone, which is not written."""
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return value.isoformat(sep=" ", timespec="auto")


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide: recorded data must not write over the report about it."""
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def takes_unicode(stream: Any) -> bool:
    """Tell whether a stream's character set has every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")
