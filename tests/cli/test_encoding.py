"""Values as JSON and as text."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_audit.cli.encoding import duration, moment, printable, to_json, to_text
from sa_audit.model import Erased, Excluded, Masked


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    HIGH = 3


PLUS_2 = dt.timezone(dt.timedelta(hours=2))

FORMS: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (2**70, 2**70),
    (1.5, 1.5),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (float("nan"), "NaN"),
    ("Ærø", "Ærø"),
    (Decimal("12.50"), "12.50"),
    (Decimal("1E+3"), "1000"),
    (Decimal("-0.00"), "-0.00"),
    (Decimal("NaN"), "NaN"),
    (dt.datetime(2026, 3, 31, 12), "2026-03-31T12:00:00"),
    (dt.datetime(2026, 3, 31, 12, 0, 0, 5, tzinfo=PLUS_2), "2026-03-31T12:00:00.000005+02:00"),
    (dt.date(2026, 3, 31), "2026-03-31"),
    (dt.time(1, 2, 3), "01:02:03"),
    (dt.timedelta(days=1, microseconds=500_000), "PT86400.5S"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (b"\x00\xff", "00ff"),
    (memoryview(b"\x01"), "01"),
    (Colour.RED, "RED"),
    (Level.HIGH, "HIGH"),
    (Masked, {"marker": "Masked"}),
    (Excluded, {"marker": "Excluded"}),
    (Erased, {"marker": "Erased"}),
    ((1, (Decimal("1"), None)), [1, ["1", None]]),
    ({"b", "a"}, ["a", "b"]),
    (MappingProxyType({"a": Masked, 1: b""}), {"a": {"marker": "Masked"}, "1": ""}),
    (1j, "1j"),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=range(len(FORMS)))
def test_json_forms(value: Any, form: Any) -> None:
    """Each type has the form that the documentation's table says, and JSON takes it strictly."""
    assert to_json(value) == form
    assert type(to_json(value)) is type(form)
    assert json.loads(json.dumps(to_json(value), allow_nan=False)) == form


def test_the_table_names_each_type() -> None:
    """What is tested above stands in the table that users read."""
    from sa_audit.cli import encoding

    for name in ("Decimal", "datetime", "date", "time", "timedelta", "UUID", "bytes", "Enum", "NaN", "marker"):
        assert name in (encoding.__doc__ or "")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_decimals_keep_all_digits(value: Decimal) -> None:
    """A decimal comes back equal, with the scale it had."""
    back = Decimal(to_json(value))
    assert back == value
    assert back.as_tuple().exponent == value.as_tuple().exponent


@given(st.timedeltas())
def test_durations_are_exact(value: dt.timedelta) -> None:
    """The seconds of a duration give the time span back, to the microsecond."""
    text = duration(value)
    sign, number = (-1, text[3:-1]) if text.startswith("-") else (1, text[2:-1])
    assert dt.timedelta(microseconds=sign * int(Decimal(number) * 1_000_000)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("null", '"null"'),
        ("Ærø", '"Ærø"'),
        (Decimal("12.50"), "12.50"),
        (Masked, "(masked)"),
        ("(masked)", '"(masked)"'),
        (b"\xff", "x'ff'"),
        (Colour.RED, "RED"),
        (True, "true"),
        ({"a": [1]}, '{"a": [1]}'),
        (dt.datetime(2026, 3, 31, 14, tzinfo=PLUS_2), "2026-03-31 12:00:00"),
        (dt.date(2026, 3, 31), "2026-03-31"),
    ],
)
def test_text_forms(value: Any, text: str) -> None:
    """People can tell text from what only looks like null, a marker or a number."""
    assert to_text(value) == text


def test_text_is_cut_with_an_ellipsis() -> None:
    """A long value is cut to the limit, visibly."""
    assert to_text("x" * 50, 10) == '"xxxxxxxx…'
    assert to_text("x" * 8, 10) == '"xxxxxxxx"'


def test_moments_keep_microseconds() -> None:
    """A moment is written to the second, unless it is finer."""
    assert moment(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) == "2026-01-01 00:00:00"
    assert moment(dt.datetime(2026, 1, 1, 0, 0, 0, 7)) == "2026-01-01 00:00:00.000007"


@given(st.text())
def test_nothing_recorded_can_steer_the_terminal(text: str) -> None:
    """Escape sequences, bidirectional marks and the like in recorded data are shown, not obeyed."""
    shown = printable(text)
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert to_text(text).isprintable()
    for evil in ("\x1b[2J", "\u202e", "\x9b", "\r"):
        assert evil not in printable(text + evil)
