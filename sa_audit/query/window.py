"""The bounds ``since=`` and ``until=`` of a question: moments of the wall clock, both inclusive.

Imports errors only.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..errors import InvalidMoment
from .moment import parse_instant


def parse_since(value: Any) -> dt.datetime | None:
    """Give a lower bound as an aware datetime in UTC.

    Args:
        value: an aware datetime, an ISO 8601 string with offset, a date (from its first microsecond in UTC), or None.

    Raises:
        InvalidMoment: if it is anything else, or naive.
    """
    value = _day(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime.combine(value, dt.time(), tzinfo=dt.UTC)
    return _instant(value, "since")


def parse_until(value: Any) -> dt.datetime | None:
    """Give an upper bound as an aware datetime in UTC; a date means its last microsecond.

    Args:
        value: as in :func:`parse_since`.

    Raises:
        InvalidMoment: if it is anything else, or naive.
    """
    return _instant(_day(value), "until")


def _instant(value: Any, name: str) -> dt.datetime | None:
    try:
        return None if value is None else parse_instant(value)
    except InvalidMoment as error:
        raise InvalidMoment(f"{name}: {error}") from error


def _day(value: Any) -> Any:
    """Read a text that names a day only."""
    if isinstance(value, str) and len(value) == len("2026-03-31"):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            return value
    return value
