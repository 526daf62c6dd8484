"""The text of a row's key, by which events and reads name a row: a JSON array of its values, one form for each.

The same key gives the same text, whether it comes from an object, from a row as the database gave it, or from somebody
who asks.  Imports errors, model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..errors import ConfigurationError
from ..model.records import MAX_IDENTITY


def identity_text(columns: Sequence[sa.Column[Any]], values: Sequence[Any]) -> str:
    """Give the text of a key.

    Args:
        columns: the key's columns.
        values: its Python values, in their order.

    Raises:
        ConfigurationError: for a value that has no form, or a key that is too long.
    """
    forms = [_form(column, value) for column, value in zip(columns, values, strict=True)]
    text = json.dumps(forms, separators=(",", ":"), ensure_ascii=False)
    if len(text) > MAX_IDENTITY:
        raise ConfigurationError(
            f"the key {text[:60]}... of {columns[0].table} is longer than {MAX_IDENTITY} characters, so events and "
            "reads can't name the row: give the table a shorter key"
        )
    return text


def identity_texts(columns: Sequence[sa.Column[Any]], keys: Sequence[Sequence[Any]]) -> list[str]:
    """Give the texts of several keys, those of one whole number in a shorter way.

    Args:
        columns: the keys' columns.
        keys: their Python values.

    Raises:
        ConfigurationError: as in :func:`identity_text`.
    """
    if len(columns) == 1 and isinstance(columns[0].type, sa.Integer) and all(type(key[0]) is int for key in keys):
        return [f"[{key[0]}]" for key in keys]
    return [identity_text(columns, key) for key in keys]


def identity_values(columns: Sequence[sa.Column[Any]], text: str) -> tuple[Any, ...]:
    """Give the Python values of a key back from its text."""
    forms = json.loads(text)
    if len(forms) != len(columns):
        return tuple(forms)  # the key had other columns then
    return tuple(_value(column.type, form) for column, form in zip(columns, forms, strict=True))


def _form(column: sa.Column[Any], value: Any) -> Any:
    type_ = column.type
    if isinstance(type_, TypeDecorator) and not isinstance(value, _PLAIN):
        value = type_.process_bind_param(value, sa.engine.default.DefaultDialect())
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(type_, sa.Uuid) and isinstance(value, str):
        return str(uuid.UUID(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC)
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    raise ConfigurationError(
        f"the key column {column} has a value of type {type(value).__name__}, which has no form as text, so events and "
        "reads can't name the row: give its type a process_bind_param that gives a plain value"
    )


_PLAIN = (str, int, uuid.UUID, enum.Enum)
"""Values that mean the same before and behind a decorator, for all that a key is asked about with."""


def _value(type_: TypeEngine[Any], form: Any) -> Any:
    if isinstance(type_, TypeDecorator):
        inner = _value(type_.impl_instance, form)
        return type_.process_result_value(inner, sa.engine.default.DefaultDialect())
    if not isinstance(form, str):
        return form
    if isinstance(type_, sa.Enum) and type_.enum_class is not None:
        return type_.enum_class[form]
    if isinstance(type_, sa.Uuid):
        return uuid.UUID(form) if type_.as_uuid else form
    if isinstance(type_, sa.LargeBinary | sa.BINARY | sa.VARBINARY):
        return bytes.fromhex(form)
    readers: list[tuple[type[Any], Any]] = [
        (sa.DateTime, dt.datetime.fromisoformat),
        (sa.Date, dt.date.fromisoformat),
        (sa.Time, dt.time.fromisoformat),
        (sa.Float, float),
        (sa.Numeric, Decimal),
    ]
    return next((read(form) for kind, read in readers if isinstance(type_, kind)), form)


def root_of(mapper: Mapper[Any]) -> Mapper[Any]:
    """Give the mapper at the root of an inheritance that shares rows, whose table names the rows."""
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def key_of(mapper: Mapper[Any]) -> tuple[sa.Column[Any], ...]:
    """Give the columns of the key of a mapper's rows, those of its root's table."""
    return tuple(column for column in root_of(mapper).primary_key if isinstance(column, sa.Column))


def row_of(state: InstanceState[Any]) -> dict[str, Any]:
    """Give what names the row of an object: ``entity``, ``table_name`` and ``identity``.

    Raises:
        ConfigurationError: if it has no key yet.
    """
    mapper = state.mapper
    if state.identity is None:
        raise ConfigurationError(
            f"this {mapper.class_.__name__} has no key yet and belongs to no session: add it to the session first"
        )
    table: Any = root_of(mapper).local_table
    return {
        "entity": mapper.class_.__name__,
        "table_name": table.fullname,
        "identity": identity_text(key_of(mapper), state.identity),
    }
