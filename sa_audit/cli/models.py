"""The user's models: imported from ``module:Base``, found by name, and their keys read from text."""

from __future__ import annotations

import csv
import datetime as dt
import enum
import importlib
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from ..model import Trail, audited_of, complete, iter_audited
from .failure import CantRun, WrongUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An audited class or table as the user names it.

    Args:
        name: the class's name, or the table's full name.
        target: the mapped class, or the :class:`sqlalchemy.Table`.
        table: the table of its key.
        key: name and column of each part of its key.
    """

    name: str
    target: Any
    table: sa.Table
    key: tuple[tuple[str, sa.Column[Any]], ...]

    @property
    def mapped(self) -> bool:
        """Whether it is a class."""
        return not isinstance(self.target, sa.Table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """All audited classes and tables of one MetaData."""

    spec: str
    trail: Trail
    entities: tuple[Entity, ...]

    def entity(self, name: str) -> Entity:
        """Find a class by its name or ``module.name``, or a table by its name.

        Raises:
            WrongUsage: if there is none, or more than one.
        """
        found = [entity for entity in self.entities if name in _names(entity)]
        classes = [entity for entity in found if entity.mapped]
        found = classes if classes and len(found) > 1 else found
        if len(found) == 1:
            return found[0]
        if found:
            full = ", ".join(f"{entity.target.__module__}.{entity.name}" for entity in found)
            raise WrongUsage(f"{name!r} is the name of several models: give one of {full}")
        known = ", ".join(sorted({entity.name for entity in self.entities}))
        raise WrongUsage(f"{name!r} is no audited model of {self.spec}: there are {known}")


def load_models(spec: str, directories: Iterable[Path] = ()) -> Models:
    """Import the models.

    Args:
        spec: ``module:Base``, where ``Base`` is a declarative base, a registry, or a MetaData.
        directories: where the module is looked for first.

    Raises:
        WrongUsage: if there is no such module or attribute, it has no MetaData, or nothing in it is audited.
        CantRun: if the module raises while it is imported.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise WrongUsage(f"--models {spec!r}: give module:Base, such as bank.models:Base")
    module = _import(module_name, directories)
    base: Any = module
    for part in attribute.split("."):
        base = getattr(base, part, None)
    if base is None:
        raise WrongUsage(f"--models {spec!r}: module {module_name} has no attribute {attribute!r}")
    metadata = base if isinstance(base, sa.MetaData) else getattr(base, "metadata", None)
    if not isinstance(metadata, sa.MetaData):
        raise WrongUsage(f"--models {spec!r} is {base!r}: give a declarative base, a registry or a MetaData")
    trail = complete(metadata)
    if trail is None or not trail.audited:
        raise WrongUsage(f"--models {spec!r}: nothing in it is audited: add Audited to a model, or call track()")
    entities = (*_classes(base, module, metadata), *_tables(metadata))
    return Models(spec=spec, trail=trail, entities=entities)


def _import(name: str, directories: Iterable[Path]) -> Any:
    for directory in reversed([str(directory) for directory in directories]):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise WrongUsage(
                f"there is no module {error.name!r} for --models: it is looked for here and on sys.path"
            ) from error
        raise CantRun(f"module {name} can't be imported: it needs {error.name}, which is not installed here") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise CantRun(f"module {name} can't be imported: it raised {type(error).__name__}: {error}") from error


def _classes(base: Any, module: Any, metadata: sa.MetaData) -> Iterator[Entity]:
    """Give the audited classes of a base or registry; for a bare MetaData those that stand in the module."""
    registry = base if isinstance(base, orm.registry) else getattr(base, "registry", None)
    if isinstance(registry, orm.registry):
        mappers = list(registry.mappers)
    else:
        found: Iterator[Any] = (
            sa.inspect(item, raiseerr=False) for item in vars(module).values() if isinstance(item, type)
        )
        mappers = [mapper for mapper in found if isinstance(mapper, orm.Mapper)]
    for mapper in sorted(mappers, key=lambda mapper: mapper.class_.__name__):
        table = mapper.local_table
        if isinstance(table, sa.Table) and table.metadata is metadata and audited_of(table) is not None:
            key = tuple(
                (mapper.get_property_by_column(column).key, column)
                for column in mapper.primary_key
                if isinstance(column, sa.Column)
            )
            yield Entity(name=mapper.class_.__name__, target=mapper.class_, table=table, key=key)


def _tables(metadata: sa.MetaData) -> Iterator[Entity]:
    for audited in iter_audited(metadata):
        key = tuple((column.key, column) for column in audited.key)
        yield Entity(name=audited.table.fullname, target=audited.table, table=audited.table, key=key)


def _names(entity: Entity) -> set[str]:
    if entity.mapped:
        return {entity.name, f"{entity.target.__module__}.{entity.name}"}
    return {entity.name, entity.table.name}


# -- keys ------------------------------------------------------------------------------


def parse_key(entity: Entity, text: str) -> Any:
    """Read a key from text: ``42``, ``1,2`` or ``order=1,line=2``; a value with a comma stands in double quotes.

    Returns:
        The value of a single key, or a tuple in the order of the key's columns.

    Raises:
        WrongUsage: if parts are missing or too many, a name is unknown, or a value does not fit its column.
    """
    names = [name for name, _column in entity.key]
    parts = [text] if len(names) == 1 else _split(text)
    named = _named(entity, parts)
    if named is not None:
        parts = [named[name] for name in names]
    if len(parts) != len(names):
        raise WrongUsage(
            f"{entity.name} has the key {', '.join(names)}, and {text!r} has {_count(len(parts))}: "
            f"give {','.join(name + '=...' for name in names)}"
        )
    values = [
        convert(f"{entity.name}.{name}", column, part) for (name, column), part in zip(entity.key, parts, strict=True)
    ]
    return values[0] if len(values) == 1 else tuple(values)


def _split(text: str) -> list[str]:
    return next(csv.reader([text], skipinitialspace=True), [])


def _named(entity: Entity, parts: list[str]) -> dict[str, str] | None:
    """Give the parts by name, or None if they are not named."""
    aliases = {column.name: name for name, column in entity.key} | {name: name for name, _column in entity.key}
    pairs = [(name.strip(), value) for name, _, value in (part.partition("=") for part in parts)]
    if not any("=" in part and name in aliases for part, (name, _value) in zip(parts, pairs, strict=True)):
        return None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in aliases or aliases[name] in given:
            raise WrongUsage(
                f"{name!r} in the key of {entity.name}: give each of {', '.join(n for n, _ in entity.key)} once"
            )
        given[aliases[name]] = value
    missing = [name for name, _column in entity.key if name not in given]
    if missing:
        raise WrongUsage(f"the key of {entity.name} lacks {', '.join(missing)}: give it as {missing[0]}=...")
    return given


def _count(number: int) -> str:
    return f"{number} part" if number == 1 else f"{number} parts"


def convert(where: str, column: sa.Column[Any], text: str) -> Any:
    """Read the value of a column from text.

    Args:
        where: the column as the user knows it, for the message.
        column: the column, whose Python type says how the text is read.
        text: what was given.

    Raises:
        WrongUsage: if it does not fit.
    """
    if not text.isascii() and text != text.encode(errors="replace").decode():
        raise WrongUsage(f"{text!r} is not valid Unicode text, so it is no value of {where}")
    try:
        kind = column.type.python_type
    except NotImplementedError:  # how SQLAlchemy says that a type has no Python type: the text stands for itself
        return text
    if issubclass(kind, enum.Enum):
        return _enum(where, kind, text)
    parser, form = PARSERS.get(kind, (str, "text"))
    try:
        return parser(text)
    except (ValueError, InvalidOperation) as error:
        raise WrongUsage(f"{text!r} does not fit {where}: give {form}") from error


def _enum(where: str, kind: type[enum.Enum], text: str) -> enum.Enum:
    for member in kind:
        if text in (member.name, str(member.value)):
            return member
    raise WrongUsage(f"{text!r} does not fit {where}: give one of {', '.join(member.name for member in kind)}")


def _int(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", text.strip()) is None:
        raise ValueError(text)
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _bool(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


PARSERS: Final[dict[type, tuple[Callable[[str], Any], str]]] = {
    int: (_int, "a whole number of at most 64 bits"),
    float: (float, "a number"),
    Decimal: (Decimal, "a decimal number such as 12.50"),
    bool: (_bool, "true or false"),
    uuid.UUID: (uuid.UUID, "a UUID"),
    bytes: (bytes.fromhex, "bytes in hexadecimal"),
    dt.datetime: (dt.datetime.fromisoformat, "a moment such as 2026-03-31T12:00:00"),
    dt.date: (dt.date.fromisoformat, "a date such as 2026-03-31"),
    dt.time: (dt.time.fromisoformat, "a time such as 12:30:00"),
    str: (str, "text"),
}
