"""Whether a history's column can hold another type's values unchanged; where it can't, none is rewritten.

Imports SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

_INTEGERS: Final = ("TINYINT", "SMALLINT", "MEDIUMINT", "INTEGER", "BIGINT")
_TEXTS: Final = ("TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT")
_BLOBS: Final = ("TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB")


def fits(narrow: TypeEngine[Any], wide: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether every value of one type is, digit for digit, a value of another.

    Args:
        narrow: the type of the values.
        wide: the type that is to hold them.
        dialect: the database.
    """
    names = _name(narrow, dialect), _name(wide, dialect)
    if names[0] == names[1]:
        return True
    if dialect.name == "sqlite":
        return affinity(names[0]) == affinity(names[1])
    for ladder in (_INTEGERS, _TEXTS, _BLOBS):
        if names[0] in ladder and names[1] in ladder:
            return ladder.index(names[0]) <= ladder.index(names[1])
    if _is_text(narrow, names[0]) and _is_text(wide, names[1]):
        return names[1] in _TEXTS or (narrow.length is not None and narrow.length <= (wide.length or 0))  # type: ignore[attr-defined] # both are strings
    if _is_exact(narrow) and _is_exact(wide):
        return _numeric_fits(narrow, wide)
    return False


def _name(type_: TypeEngine[Any], dialect: Dialect) -> str:
    """Give a type's name in the database, without a display width, which holds nothing."""
    name = str(type_.compile(dialect)).upper().partition(" COLLATE ")[0].partition(" CHARACTER SET ")[0]
    for integer in _INTEGERS:
        if name.startswith(f"{integer}(") and name.endswith(")"):
            return integer
    return name


def _is_text(type_: TypeEngine[Any], name: str) -> bool:
    """Tell whether a type holds text of varying length; CHAR pads, and an enum has an order of its own."""
    return isinstance(type_, sa.String) and name.partition("(")[0] in ("VARCHAR", *_TEXTS)


def _is_exact(type_: TypeEngine[Any]) -> bool:
    return isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float)


def _numeric_fits(narrow: Any, wide: Any) -> bool:
    """A larger scale would print further zeros, so only the precision may grow."""
    if narrow.precision is None or wide.precision is None:
        return False
    return (narrow.scale or 0) == (wide.scale or 0) and narrow.precision <= wide.precision


def affinity(name: str) -> str:
    """Give the affinity that SQLite finds in a type's name (https://sqlite.org/datatype3.html, 3.1)."""
    for words, found in (
        (("INT",), "INTEGER"),
        (("CHAR", "CLOB", "TEXT"), "TEXT"),
        (("BLOB",), "BLOB"),
        (("REAL", "FLOA", "DOUB"), "REAL"),
    ):
        if any(word in name for word in words):
            return found
    return "NUMERIC"
