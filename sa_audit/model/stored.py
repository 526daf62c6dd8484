"""Columns that hold, in the table itself, the form that the history holds: of tables that triggers record.

A trigger has no key, so it can only copy.  The column's type is replaced as its table is declared: it is text in the
database, takes nothing in the clear, and gives what it was declared to hold.  What makes the forms stands in capture;
what opens them is ``Trail.secrets``.  Imports only the policies, errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..errors import ConfigurationError, IntegrityFinding, NotAudited, UnauditedWrite, UnusableKey
from .policy import Digested, Encrypted

if TYPE_CHECKING:
    from .audited import AuditedTable

COMPARED: Final = len("aes-256-gcm:") + 32 + 1 + 32
"""How many characters of an encrypted form tell its values apart: those of its key and of its tag."""

_NULL: Final = frozenset({operators.is_, operators.is_not, operators.eq, operators.ne})
_EQUALITY: Final = _NULL | {operators.in_op, operators.not_in_op}


class Clear:
    """A value on its way to such a column that nobody has brought into its form yet; never sent, and never shown."""

    __slots__ = ("type", "value")

    def __init__(self, type_: StoredType, value: Any) -> None:
        self.type = type_
        self.value = value

    def __repr__(self) -> str:
        return "<a value in the clear>"


class StoredType(TypeDecorator[Any]):
    """The type of a column that holds a form of its values.

    Args:
        audited: the table.
        name: the column's name in the database.
        declared: the type that it was declared with.
    """

    impl: Any = sa.Text
    cache_ok = True
    form: type[str] = str
    """What says of a text that it is of the form."""

    # Alembic writes the types of these modules by their repr: a migration needs the text column, and not its model
    __module__ = "sqlalchemy.types"

    def __init__(self, audited: AuditedTable, name: str, declared: TypeEngine[Any]) -> None:
        super().__init__()
        self.audited = audited
        self.name = name
        self.declared = declared

    def __repr__(self) -> str:
        return repr(self.load_dialect_impl(sa.engine.default.DefaultDialect()))

    @property
    def column(self) -> str:
        """The column's full name, for messages."""
        return f"{self.audited.table.fullname}.{self.name}"

    def bind_processor(self, dialect: Dialect) -> Any:
        """Let forms pass; mark everything else, so that it can't be sent."""

        def process(value: Any) -> Any:
            return str(value) if isinstance(value, self.form) else value if value is None else Clear(self, value)

        return process

    def literal_processor(self, dialect: Dialect) -> Any:
        """Refuse to write a value into the text of a statement."""

        def process(value: Any) -> str:
            raise UnauditedWrite(f"a value of {self.column} can't stand in the text of a statement: bind it")

        return process


class StoredDigest(StoredType):
    """Holds digests, and gives :class:`Digested`."""

    impl = sa.String(128)
    cache_ok = True
    form = Digested
    __module__ = "sqlalchemy.types"

    class Comparator(TypeDecorator.Comparator[Any]):
        """Lets digests be compared for equality."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            """Refuse what would compare a digest with a value."""
            values = [one for each in other for one in (each if isinstance(each, list | tuple | set) else [each])]
            plain = all(one is None or isinstance(one, Digested | sa.ClauseElement) for one in values)
            if op not in _EQUALITY or not plain:
                raise NotAudited(
                    f"{self.expr} holds digests: compare it with in_(sa_audit.privacy.digest(column, value)), or NULL"
                )
            return super().operate(op, *other, **kwargs)

    comparator_factory = Comparator

    def process_result_value(self, value: str | None, dialect: Dialect) -> Digested | None:
        """Mark the text as a digest."""
        return None if value is None else Digested(value)


class StoredEncrypted(StoredType):
    """Holds ciphertext, and gives the value, or the marker ``Erased``."""

    impl = sa.Text
    cache_ok = True
    form = Encrypted
    __module__ = "sqlalchemy.types"

    class Comparator(TypeDecorator.Comparator[Any]):
        """Lets NULL be asked for."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            """Refuse what would use a ciphertext as if it were the value."""
            # columns pass: SQLAlchemy itself looks for one in lists; what is executed with it is refused then
            if op not in _NULL or any(one is not None and not isinstance(one, sa.ClauseElement) for one in other):
                raise NotAudited(
                    f"{self.expr} is encrypted in the database, which can't compare, sort or compute with it: "
                    "select it and do so in Python, or ask for NULL"
                )
            return super().operate(op, *other, **kwargs)

    comparator_factory = Comparator

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decrypt it, with a key that was loaded as the statement was executed."""
        if value is None:
            return None
        secrets = self.audited.trail.secrets
        if secrets is None:
            raise UnusableKey(f"no key was loaded for {self.column}: select it through SQLAlchemy's execute()")
        shown = secrets.shown(self.audited, self.name, value)
        return self.python_value(shown, dialect) if isinstance(shown, str) else shown

    def python_value(self, text: str, dialect: Dialect) -> Any:
        """Give the value of a text."""
        type_ = self.declared
        plain = _plain(type_)
        value: Any = text
        try:
            if isinstance(plain, sa.Integer):
                value = int(text)
            elif isinstance(plain, sa.Date):
                value = dt.date.fromisoformat(text)
        except ValueError:
            raise IntegrityFinding(f"a value of {self.column} is not of its type {type_!r}: it was changed") from None
        return type_.process_result_value(value, dialect) if isinstance(type_, TypeDecorator) else value

    def text_of(self, value: Any, dialect: Dialect) -> str:
        """Give the text of a value that is not NULL, as it is encrypted.

        Raises:
            UnauditedWrite: for one that is not of the declared type; the message does not show it.
        """
        type_ = self.declared
        plain = _plain(type_)
        if isinstance(type_, TypeDecorator):
            value = type_.process_bind_param(value, dialect)
        if isinstance(plain, sa.Integer) and isinstance(value, int):
            return str(int(value))
        if isinstance(plain, sa.Date) and isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return value.isoformat()
        if isinstance(plain, sa.String) and isinstance(value, str) and not isinstance(value, Encrypted | Digested):
            if plain.length is not None and len(value) > plain.length:
                raise UnauditedWrite(
                    f"a value of {self.column} has {len(value)} characters, and the column takes {plain.length}"
                )
            return value
        raise UnauditedWrite(
            f"a {type(value).__name__} can't be encrypted for {self.column}, which is declared as {type_!r}: "
            "give a value of its type"
        )


def declared_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give the type that a column was declared with, though another may stand in its place."""
    return type_.declared if isinstance(type_, StoredType) else type_


def check_digestible(column: sa.Column[Any]) -> None:
    """Refuse to digest a value before it is stored whose text only the database makes.

    Raises:
        ConfigurationError: naming the column.
    """
    plain = _plain(declared_type(column.type))
    if not isinstance(plain, sa.String | sa.Integer) or isinstance(plain, sa.Enum):
        raise ConfigurationError(
            f"column {column} has the policy Digest() and the type {plain!r}, and its table is recorded by triggers: "
            "digested there are text and whole numbers; use capture='session' for the table, or Mask()"
        )


def digestible(type_: StoredType, value: Any, dialect: Dialect) -> str:
    """Give the text of a value that is to be digested.

    Raises:
        UnauditedWrite: for one that is not of the declared type; the message does not show it.
    """
    if isinstance(type_.declared, TypeDecorator):
        value = type_.declared.process_bind_param(value, dialect)
    wanted: type = int if isinstance(_plain(type_.declared), sa.Integer) else str
    if not isinstance(value, wanted) or isinstance(value, Encrypted):
        raise UnauditedWrite(
            f"a {type(value).__name__} can't be digested for {type_.column}, which is declared as {type_.declared!r}: "
            "give a value of its type"
        )
    return str(int(value)) if isinstance(value, int) else str(value)


def person_text(column: sa.Column[Any], value: Any, dialect: Dialect) -> str:
    """Give the text of a value that names a person, as the database would make it.

    Raises:
        UnauditedWrite: for what is neither text, a whole number nor a UUID.
    """
    process = column.type.dialect_impl(dialect).bind_processor(dialect)
    plain = process(value) if process is not None else value
    if isinstance(plain, bool) or not isinstance(plain, str | int | uuid.UUID):
        raise UnauditedWrite(
            f"{column} says whose values others are, and holds a {type(plain).__name__}: with trigger capture a person "
            "is named by text, a whole number or a UUID"
        )
    return str(plain)


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    return type_
