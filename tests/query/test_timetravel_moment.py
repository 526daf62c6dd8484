"""What `when` may be, and how it is read."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from sa_audit import InvalidMoment
from sa_audit.query.moment import Snapshot, WallClock, parse_instant, parse_moment

UTC = dt.UTC
OSLO = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("when", "at"),
    [
        (dt.datetime(2026, 3, 31, 12, tzinfo=UTC), dt.datetime(2026, 3, 31, 12, tzinfo=UTC)),
        (dt.datetime(2026, 3, 31, 12, tzinfo=OSLO), dt.datetime(2026, 3, 31, 10, tzinfo=UTC)),
        ("2026-03-31T23:59:59Z", dt.datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-03-31 23:59:59.123456+02:00", dt.datetime(2026, 3, 31, 21, 59, 59, 123456, tzinfo=UTC)),
        (dt.date(2026, 3, 31), dt.datetime(2026, 3, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (WallClock(at=dt.datetime(2026, 1, 1, tzinfo=UTC)), dt.datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_wall_clock(when: Any, at: dt.datetime) -> None:
    """Each form gives one aware moment in UTC; a date is the end of its day."""
    assert parse_moment(when) == WallClock(at=at)
    assert parse_moment(when).at.tzinfo is UTC
    assert parse_instant(when) == at


@pytest.mark.parametrize("text", ["5:5:", "5:9:5", "5:9:6,7,8", "9223372036854775800:9223372036854775807:"])
def test_snapshot(text: str) -> None:
    """The text of pg_current_snapshot() is a moment, but has no place on the clock."""
    assert parse_moment(text) == Snapshot(text=text)
    with pytest.raises(InvalidMoment, match=f"'{text}' is a snapshot"):
        parse_instant(text)


@pytest.mark.parametrize("text", ["0:5:", "9:5:", "5:9:9", "5:9:4", "5:9:7,6", "5:9:7,7", "5:9223372036854775808:"])
def test_impossible_snapshot(text: str) -> None:
    """A text that only looks like a snapshot is refused rather than sent."""
    with pytest.raises(InvalidMoment, match="is not a snapshot"):
        parse_moment(text)


@pytest.mark.parametrize("when", [dt.datetime(2026, 3, 31), "2026-03-31T12:00:00", "2026-03-31", "20260331"])
def test_naive_is_refused(when: Any) -> None:
    """A moment without an offset is refused, and the message says how to give one."""
    with pytest.raises(InvalidMoment, match=r"has no offset.*tzinfo="):
        parse_moment(when)


@pytest.mark.parametrize(
    "when", ["", "yesterday", "5:5", "5:5:x", "\uff15:\uff15:", "2026-13-01T00:00:00Z", None, 7, 1.5, object, dt]
)
def test_unreadable_is_refused(when: Any) -> None:
    """What is no moment is named in the message, with the forms that are accepted."""
    with pytest.raises(InvalidMoment, match="pg_current_snapshot") as raised:
        parse_moment(when)
    assert repr(when) in str(raised.value)


def test_out_of_range_is_refused() -> None:
    """A moment that UTC can't hold is refused."""
    with pytest.raises(InvalidMoment, match="lies outside"):
        parse_moment(dt.datetime(1, 1, 1, tzinfo=OSLO))


def test_what_names_a_moment() -> None:
    """Whatever has `audit_moment()` stands for the moment that it gives."""

    class Mark:
        def audit_moment(self) -> Snapshot:
            return Snapshot(text="5:5:")

    assert parse_moment(Mark()) == Snapshot(text="5:5:")
    with pytest.raises(InvalidMoment):
        parse_moment(Mark)
