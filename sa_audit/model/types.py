"""Column types and server defaults of the trail's own tables, and the plain type of a recorded column.

Imports only errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine

from .policy import Digested, Encrypted


class UTCDateTime(TypeDecorator[dt.datetime]):
    """An aware moment in microseconds: ``timestamptz``, ``DATETIME(6)`` in UTC, or ISO text on SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Give the database's own type."""
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects.mysql import DATETIME  # loads every MySQL driver's dialect, so only here

            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Send UTC, without the zone where the database can't hold one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime is refused: {value!r}")
        value = value.astimezone(dt.UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Give an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class DigestType(TypeDecorator[Digested]):
    """The text of a keyed digest, read as :class:`Digested`; what was recorded before the policy stays as it is."""

    impl = sa.String(128)
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> Digested | None:
        """Mark the text as a digest."""
        return None if value is None else Digested(value)


class EncryptedType(TypeDecorator[Encrypted]):
    """The text of an encrypted value, read as :class:`Encrypted`."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take LONGTEXT on MariaDB, since a ciphertext is longer than its value, which may fill a TEXT."""
        if dialect.name in ("mysql", "mariadb"):
            from sqlalchemy.dialects.mysql import LONGTEXT

            return dialect.type_descriptor(LONGTEXT())
        return dialect.type_descriptor(sa.Text())

    def process_result_value(self, value: str | None, dialect: Dialect) -> Encrypted | None:
        """Mark the text as encrypted."""
        return None if value is None else Encrypted(value)


BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Salt = sa.LargeBinary(16).with_variant(sa.BINARY(16), "mysql", "mariadb")
Name = sa.Text().with_variant(sa.VARCHAR(255), "mysql", "mariadb")


class ServerDefault(sa.sql.expression.ColumnElement[Any]):
    """A server default spelled for each database; ``forms`` maps a dialect's name to SQL, others get NULL."""

    inherit_cache = False

    def __init__(self, **forms: str) -> None:
        self.forms = forms
        self.type = sa.types.NullType()


@compiles(ServerDefault)
def _server_default(element: ServerDefault, compiler: SQLCompiler, **_kw: Any) -> str:
    name = compiler.dialect.name
    return element.forms.get("mysql" if name == "mariadb" else name, "NULL")


def plain_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give the type of a recorded column: the same values, without constraint, sequence or database-side enum.

    Args:
        type_: the audited column's type.
    """
    plain = _without_constraints(type_)
    if plain._variant_mapping:
        variants = {name: plain_type(variant) for name, variant in plain._variant_mapping.items()}
        plain = plain.copy() if plain is type_ else plain
        plain._variant_mapping = type(plain._variant_mapping)(variants)
    return plain


def _without_constraints(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    if isinstance(type_, TypeDecorator):
        decorated = type_.copy()
        decorated.impl = plain_type(type_.impl_instance)
        return decorated
    if type_.__visit_name__ == "DOMAIN":
        return plain_type(cast(Any, type_).data_type)
    if isinstance(type_, sa.Enum):
        return _plain_enum(type_)
    if isinstance(type_, sa.Boolean):
        return sa.Boolean(create_constraint=False)
    if isinstance(type_, sa.ARRAY):
        array = type_.copy()
        array.item_type = plain_type(type_.item_type)
        return array
    return type_.copy()


def _plain_enum(type_: sa.Enum) -> TypeEngine[Any]:
    longest = max((len(label) for label in type_.enums), default=0)
    choices: list[Any] = [type_.enum_class] if type_.enum_class is not None else list(type_.enums)
    return sa.Enum(
        *choices,
        native_enum=False,
        create_constraint=False,
        length=max(longest, 64),
        values_callable=type_.values_callable,
        validate_strings=False,
    )
