"""Moments: what ``when`` may be, read once into a frozen value.

A wall-clock moment; and the exact ones: a snapshot of PostgreSQL, and for what is sealed elsewhere an epoch of MariaDB
or an entry of SQLite.  Whatever else names a moment has a method ``audit_moment()`` that gives one of them; a
checkpoint is looked up in its log by :mod:`.sealed`.  Touches no connection and no clock.
Imports only errors.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..errors import InvalidMoment

_SNAPSHOT = re.compile(r"(\d{1,20}):(\d{1,20}):((?:\d{1,20}(?:,\d{1,20})*)?)", re.ASCII)
_ACCEPTED = (
    "give an aware datetime, an ISO 8601 text with an offset ('2026-03-31T23:59:59Z'), a datetime.date, "
    "or on PostgreSQL the text of pg_current_snapshot()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """The state after everything that was recorded up to ``at``, itself included.

    Args:
        at: aware, in UTC.
    """

    at: dt.datetime

    def __str__(self) -> str:
        return self.at.isoformat()

    @property
    def parameter(self) -> dt.datetime:
        """Its value in a statement."""
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state that a snapshot of PostgreSQL saw.

    Args:
        text: what ``pg_current_snapshot()`` gave: ``xmin:xmax:xid,xid...``.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def parameter(self) -> str:
        """Its value in a statement."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The state after everything that the transactions up to an epoch of MariaDB recorded, all of which have ended.

    Args:
        number: the epoch.
        at: when it was sealed; aware, in UTC.
    """

    number: int
    at: dt.datetime

    def __str__(self) -> str:
        return f"epoch {self.number}, sealed at {self.at.isoformat()}"

    @property
    def parameter(self) -> int:
        """Its value in a statement."""
        return self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEntry:
    """The state after the transaction of an entry, on SQLite, whose one writer makes entries in the order of commits.

    Args:
        number: the id of the transaction's last row of ``audit_transaction``.
        at: when it was sealed; aware, in UTC.
    """

    number: int
    at: dt.datetime

    def __str__(self) -> str:
        return f"entry {self.number}, sealed at {self.at.isoformat()}"

    @property
    def parameter(self) -> int:
        """Its value in a statement."""
        return self.number


Moment: TypeAlias = WallClock | Snapshot | Epoch | LastEntry


@runtime_checkable
class NamesMoment(Protocol):
    """Anything that stands for a moment, such as a checkpoint."""

    def audit_moment(self) -> Moment:
        """Give the moment."""


def parse_moment(when: Any) -> Moment:
    """Read what a caller gave as ``when``.

    Args:
        when: an aware ``datetime``; an ISO 8601 text with offset; a ``date`` (the end of that day in UTC); the text
            of a PostgreSQL snapshot; a :class:`WallClock`, a :class:`Snapshot`, or what names one.

    Returns:
        The moment; whether it lies in the future, or before the records, only the database can say.

    Raises:
        InvalidMoment: for a naive datetime, and for what is none of these.
    """
    if isinstance(when, WallClock | Snapshot | Epoch | LastEntry):
        return when
    if isinstance(when, dt.datetime):
        return WallClock(at=_utc(when, repr(when)))
    if isinstance(when, dt.date):
        return WallClock(at=dt.datetime.combine(when, dt.time.max, tzinfo=dt.UTC))
    if isinstance(when, str):
        return _parse_text(when)
    if isinstance(when, NamesMoment) and not isinstance(when, type):
        return when.audit_moment()
    raise InvalidMoment(f"{when!r} is not a moment: {_ACCEPTED}")


def parse_instant(when: Any) -> dt.datetime:
    """Read a wall-clock moment, where a snapshot has no meaning (the bounds of a list, say).

    Returns:
        An aware datetime in UTC.

    Raises:
        InvalidMoment: as :func:`parse_moment`, and for a snapshot.
    """
    moment = parse_moment(when)
    if not isinstance(moment, WallClock):
        kind = "a snapshot" if isinstance(moment, Snapshot) else "a sealed state"
        raise InvalidMoment(
            f"{str(moment)!r} is {kind}, which has no place on the clock: give an aware datetime, an ISO 8601 text "
            "with an offset, or a datetime.date"
        )
    return moment.at


def _parse_text(text: str) -> Moment:
    if match := _SNAPSHOT.fullmatch(text):
        return _snapshot(text, match)
    try:
        parsed = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidMoment(f"{text!r} can't be read as a moment: {_ACCEPTED}") from error
    return WallClock(at=_utc(parsed, repr(text)))


def _snapshot(text: str, match: re.Match[str]) -> Snapshot:
    lowest, next_one = int(match[1]), int(match[2])
    running = [int(part) for part in match[3].split(",") if part]
    ordered = all(one < other for one, other in itertools.pairwise(running))
    if not (0 < lowest <= next_one < 2**63) or not ordered or any(not lowest <= xid < next_one for xid in running):
        raise InvalidMoment(f"{text!r} is not a snapshot: give the text of pg_current_snapshot() as it is")
    return Snapshot(text=text)


def _utc(moment: dt.datetime, shown: str) -> dt.datetime:
    if moment.utcoffset() is None:
        raise InvalidMoment(
            f"{shown} has no offset, so it names no moment: give an aware datetime, such as "
            "datetime.datetime(2026, 3, 31, 23, 59, tzinfo=datetime.UTC), or a text with Z or +01:00 at its end"
        )
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError as error:
        raise InvalidMoment(f"{shown} lies outside of the years 1 to 9999 in UTC: give another moment") from error


__all__ = ["Epoch", "LastEntry", "Moment", "NamesMoment", "Snapshot", "WallClock", "parse_instant", "parse_moment"]
