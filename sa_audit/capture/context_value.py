"""What may stand in a context: known fields as text, everything else as strict JSON; checked when it is said.

Imports only errors.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from json import dumps
from types import MappingProxyType
from typing import Final, TypeAlias

from ..errors import ConfigurationError

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

KNOWN: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr")
MAX_DEPTH: Final = 50
NO_EXTRA: Final[Mapping[str, JSON]] = MappingProxyType({})


def known_text(name: str, value: object) -> str:
    """Give a known field as plain text.

    Raises:
        ConfigurationError: if it is no string, or one that can't be stored.
    """
    if not isinstance(value, str):
        raise ConfigurationError(
            f"context({name}={shown(value)}) is of type {type(value).__name__}: give a string such as its id"
        )
    return _text(name, value)


def _text(where: str, value: str) -> str:
    if "\0" in value:
        raise ConfigurationError(f"context({where}={shown(value)}) holds a NUL character, which no database stores")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"context({where}={shown(value)}) is not valid Unicode text: {error.reason}"
        ) from error
    return str.__str__(value)


def frozen_extra(extra: object) -> Mapping[str, JSON]:
    """Give the keys beside the known fields, checked and not changeable in depth.

    Raises:
        ConfigurationError: for what is not JSON, by its path.
    """
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"context(extra={shown(extra)}): give a mapping of keys to JSON values")
    for name in KNOWN:
        if name in extra:
            raise ConfigurationError(f"context key {name!r} stands in extra: give it as the field {name}")
    frozen = {_key("extra", key): _frozen(str(key), value, 0) for key, value in extra.items()}
    return MappingProxyType(frozen) if frozen else NO_EXTRA


def _frozen(where: str, value: object, depth: int) -> JSON:
    """Give a JSON value as an unchangeable one of plain types, or say where it is none."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(where, value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            items = {_key(where, key): _frozen(f"{where}.{key}", item, depth + 1) for key, item in value.items()}
            return MappingProxyType(items)
        if isinstance(value, (list, tuple)):
            return tuple(_frozen(f"{where}[{index}]", item, depth + 1) for index, item in enumerate(value))
    elif isinstance(value, (Mapping, list, tuple)):
        raise ConfigurationError(f"context({where}=...) is nested more than {MAX_DEPTH} deep: give a flatter value")
    raise ConfigurationError(
        f"context({where}={shown(value)}) is of type {type(value).__name__} and no JSON value: "
        "give a string, finite number, bool, None, list or dict"
    )


def _key(where: str, key: object) -> str:
    if not isinstance(key, str):
        raise ConfigurationError(f"context({where}) has the key {shown(key)}, and JSON has only strings as keys")
    return _text(where, key)


def canonical(extra: Mapping[str, JSON]) -> str:
    """Give JSON text with sorted keys and no spaces.

    Raises:
        ConfigurationError: for an integer of more digits than Python writes.
    """
    try:
        return dumps(extra, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict)
    except ValueError as error:  # an integer of more digits than Python writes
        raise ConfigurationError(f"context keys {', '.join(extra)} can't be written as JSON: {error}") from error


def shown(value: object) -> str:
    """Give the ``repr`` of a value for a message, shortened."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)
