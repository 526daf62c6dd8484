"""Whether a value can be that of a key's column at all; databases differ in what they make of one that can't.

PostgreSQL refuses ``id = 'forty'`` and ends the transaction, SQLite finds nothing, and MariaDB finds the row with 0.
Imports only errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from ..errors import NotAudited

_PYTHON_TYPES: Final[tuple[tuple[type[Any], tuple[type[Any], ...], str], ...]] = (
    (sa.Integer, (int,), "an integer of at most 64 bits"),
    (sa.Numeric, (int, float, decimal.Decimal), "a number"),
    (sa.DateTime, (dt.datetime,), "a datetime"),
    (sa.Date, (dt.date,), "a date"),
    (sa.Time, (dt.time,), "a time"),
    (sa.LargeBinary, (bytes, bytearray, memoryview), "bytes"),
    (sa.String, (str,), "a string"),
)
"""What each type takes; types that are not here, and those that convert by themselves, take what they like."""


def check_key(shape: str, columns: Sequence[sa.Column[Any]], values: Sequence[Any]) -> None:
    """Refuse values that no row's key can have.

    Args:
        shape: what has which key, for the message.
        columns: the key's columns.
        values: a value for each.

    Raises:
        NotAudited: naming the column, what it takes, and the value.
    """
    for column, value in zip(columns, values, strict=True):
        taken, words = _taken(column.type)
        if taken and not (isinstance(value, taken) and _fits(column.type, value)):
            raise NotAudited(f"{shape}: give {words} for {column.name}, not {value!r}")


def _fits(type_: sa.types.TypeEngine[Any], value: Any) -> bool:
    bits = 64 if getattr(type_, "unsigned", False) else 63
    return not isinstance(type_, sa.Integer) or -(2**63) <= value < 2**bits


def _taken(type_: sa.types.TypeEngine[Any]) -> tuple[tuple[type[Any], ...], str]:
    if isinstance(type_, sa.Uuid):
        return ((uuid.UUID,), "a uuid.UUID") if type_.as_uuid else ((str,), "a string")
    if isinstance(type_, sa.Enum | sa.types.TypeDecorator):
        return (), "another value"
    for known, taken, words in _PYTHON_TYPES:
        if isinstance(type_, known):
            return taken, words
    return (), "another value"
