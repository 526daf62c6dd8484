"""What MariaDB's text of a value is to Python, as a driver would have given it.  Imports SQLAlchemy only."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

Decoder = Callable[[Any], Any]
_CLOCK = re.compile(r"(-?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?")


def mariadb_decoder(type_: TypeEngine[Any]) -> Decoder:
    """Give what turns MariaDB's text of a value into what a driver gives for a column of that type.

    Args:
        type_: the type that the database sees, behind decorators and variants.
    """
    for classes, decoder in _mariadb():
        if isinstance(type_, classes):
            return decoder
    if isinstance(type_, sa.Float):
        single = not isinstance(type_, sa.Double) and (type_.precision or 0) <= 24
        return _single if single else float
    if isinstance(type_, sa.Numeric):
        return Decimal
    return unchanged


def _timedelta(text: str) -> dt.timedelta:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    sign, hours, minutes, seconds, fraction = match.groups()
    value = dt.timedelta(
        hours=int(hours), minutes=int(minutes), seconds=int(seconds), microseconds=int((fraction or "0").ljust(6, "0"))
    )
    return -value if sign else value


def _single(text: str) -> float:
    """Round to six digits, as the server does when it sends a FLOAT."""
    return float(f"{float(text):.6g}")


def _bits(text: str) -> bytes:
    number = int(text)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def unchanged(value: Any) -> Any:
    """Give a value as it is."""
    return value


@functools.cache
def _mariadb() -> tuple[tuple[type[Any] | tuple[type[Any], ...], Decoder], ...]:
    """Give the decoders of MariaDB's texts; its dialect is loaded when it is needed."""
    from sqlalchemy.dialects import mysql

    return (
        ((sa.LargeBinary, mysql.BINARY, mysql.VARBINARY), bytes.fromhex),
        (mysql.BIT, _bits),
        ((sa.Boolean, sa.Integer, mysql.YEAR), int),
        (sa.DateTime, dt.datetime.fromisoformat),
        (sa.Date, dt.date.fromisoformat),
        (sa.Time, _timedelta),
    )
