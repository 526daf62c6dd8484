"""The bounds ``since=`` and ``until=`` of a question: moments of the wall clock, both inclusive.

Imports errors only.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..errors import InvalidMoment

_DAY = dt.timedelta(days=1)
_TICK = dt.timedelta(microseconds=1)


def parse_bound(value: Any, name: str, *, end: bool) -> dt.datetime | None:
    """Give a bound as an aware datetime in UTC.

    Args:
        value: an aware datetime, an ISO 8601 string with offset, a date (all of that day, in UTC), or None.
        name: the argument's name, for the message.
        end: whether a date means its last microsecond rather than its first.

    Raises:
        InvalidMoment: if it is anything else, or naive.
    """
    if value is None:
        return None
    moment = _parse(value, name) if isinstance(value, str) else value
    if isinstance(moment, dt.datetime):
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise InvalidMoment(f"{name}={value!r} is naive: give a datetime with a time zone, such as datetime.now(UTC)")
        return moment.astimezone(dt.UTC)
    if isinstance(moment, dt.date):
        start = dt.datetime.combine(moment, dt.time(), tzinfo=dt.UTC)
        return start + _DAY - _TICK if end else start
    raise InvalidMoment(f"{name}={value!r} is no moment: give an aware datetime, an ISO 8601 string, or a date")


def _parse(text: str, name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text) if len(text) <= 10 else dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidMoment(
            f"{name}={text!r} can't be read: write it like 2026-03-31T12:00:00+00:00, or 2026-03-31 for a day in UTC"
        ) from error
