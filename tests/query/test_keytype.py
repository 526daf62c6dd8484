"""Values that no key of a column's type can be are refused before the database is asked."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from sa_audit import NotAudited
from sa_audit.query.keytype import check_key
from tests.query.models import Cents, Color

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TAKEN: list[tuple[Any, list[Any]]] = [
    (sa.Integer(), [0, -1, True, 2**63 - 1, -(2**63)]),
    (mysql.BIGINT(unsigned=True), [2**64 - 1]),
    (sa.Numeric(30, 2), [1, 1.5, Decimal("1.50"), 2**80]),
    (sa.String(3), ["", "longer than it may be"]),
    (sa.LargeBinary(), [b"", bytearray(b"a"), memoryview(b"a")]),
    (sa.DateTime(), [NOW]),
    (sa.Date(), [NOW.date()]),
    (sa.Time(), [NOW.time()]),
    (sa.Uuid(), [uuid.UUID(int=1)]),
    (sa.Uuid(as_uuid=False), ["00000000-0000-0000-0000-000000000001"]),
    (sa.Enum(Color), [Color.RED, "RED"]),
    (Cents(), [Decimal(1), "whatever it converts"]),
    (sa.JSON(), [{"a": 1}]),
]
REFUSED: list[tuple[Any, list[Any], str]] = [
    (sa.Integer(), ["1", 1.0, Decimal(1), b"1", 2**63, -(2**63) - 1], "an integer of at most 64 bits"),
    (mysql.BIGINT(unsigned=True), [2**64], "an integer"),
    (sa.Numeric(30, 2), ["1.50"], "a number"),
    (sa.String(3), [1, b"a"], "a string"),
    (sa.LargeBinary(), ["a"], "bytes"),
    (sa.DateTime(), ["2026-01-01", NOW.date()], "a datetime"),
    (sa.Date(), ["2026-01-01"], "a date"),
    (sa.Time(), ["10:00"], "a time"),
    (sa.Uuid(), ["00000000-0000-0000-0000-000000000001", 1], "a uuid.UUID"),
    (sa.Uuid(as_uuid=False), [uuid.UUID(int=1)], "a string"),
]


@pytest.mark.parametrize(("type_", "values"), TAKEN, ids=lambda value: type(value).__name__)
def test_taken(type_: Any, values: list[Any]) -> None:
    """What a row's key can be is let pass, and so is everything for a type that converts by itself."""
    for value in values:
        check_key("Account has the key (k)", [sa.Column("k", type_)], [value])


@pytest.mark.parametrize(("type_", "values", "words"), REFUSED, ids=lambda value: type(value).__name__)
def test_refused(type_: Any, values: list[Any], words: str) -> None:
    """The message names what has the key, the column, what it takes, and the value."""
    for value in values:
        with pytest.raises(NotAudited) as caught:
            check_key("Account has the key (a, k)", [sa.Column("a", sa.JSON()), sa.Column("k", type_)], [1, value])
        message = str(caught.value)
        assert message.startswith(f"Account has the key (a, k): give {words}")
        assert message.endswith(f" for k, not {value!r}")
