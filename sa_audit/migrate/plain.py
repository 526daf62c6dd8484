"""A table of the trail as a migration creates it: fresh columns of core types for one database, nothing of the user's.

History never is built by ``Table.to_metadata()``, which copies constraints, foreign keys and defaults of the data.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..model.tables import PARTITIONED_KEY, PartitionedKey

_ROOTS: Final = (TypeEngine, TypeDecorator, sa.types.NullType)


def plain_table(table: sa.Table, dialect: Dialect) -> sa.Table:
    """Give a table of the trail in a MetaData of its own, as one database sees it; without its indexes."""
    key = table.primary_key.name
    by_month = isinstance(table.primary_key, PartitionedKey) and dialect.name == "postgresql"
    names = PARTITIONED_KEY if by_month else tuple(column.name for column in table.primary_key.columns)
    plain = sa.Table(
        table.name,
        sa.MetaData(),
        *(plain_column(column, dialect) for column in table.columns),
        sa.PrimaryKeyConstraint(*names, name=key if isinstance(key, str) else None),
        schema=table.schema,
        comment=table.comment,
    )
    plain.dialect_kwargs.update(_options(table, dialect))
    return plain


def _options(table: sa.Table, dialect: Dialect) -> dict[str, Any]:
    families = {"sqlite": ("sqlite",), "mysql": ("mysql", "mariadb"), "mariadb": ("mysql", "mariadb")}
    wanted = families.get(dialect.name, (dialect.name,))
    return {name: value for name, value in table.dialect_kwargs.items() if name.split("_")[0] in wanted}


def named_schema(dialect: Dialect) -> str | None:
    """Give the default schema where the trail's tables are named with it: on PostgreSQL, as ``search_path`` varies."""
    return dialect.default_schema_name if dialect.name == "postgresql" else None


def plain_column(column: sa.Column[Any], dialect: Dialect) -> sa.Column[Any]:
    """Give a column by its database name, with its core type, its nullability and the database's own default."""
    default = server_default(column, dialect)
    items = [default] if isinstance(default, sa.Identity) else []
    return sa.Column(
        column.name,
        core_type(column.type, dialect),
        *items,
        nullable=column.nullable,
        autoincrement=False if column.autoincrement is False else "auto",
        server_default=None if items else default,
    )


def server_default(column: sa.Column[Any], dialect: Dialect) -> Any:
    """Give the default that the database has for a column: an identity, a text, or None."""
    default = column.server_default
    if isinstance(default, sa.Identity):
        return sa.Identity() if dialect.supports_identity_columns else None
    if not isinstance(default, sa.DefaultClause) or isinstance(default.arg, str):
        return None
    schema = named_schema(dialect)
    names: dict[str, Any] = {"schema_translate_map": {None: schema}, "render_schema_translate": True} if schema else {}
    text = str(default.arg.compile(dialect=dialect, **names)).replace("%%", "%")
    return None if text == "NULL" else sa.text(text.replace("\\:", ":"))


def core_type(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Give the type that a database sees, as one that SQLAlchemy itself has, so that a migration imports no other.

    A type of another package that is no decorator stays what it is.
    """
    type_ = _seen(type_, dialect)
    if isinstance(type_, sa.Enum):
        return sa.String(length=type_.length)
    if isinstance(type_, sa.JSON) and type(type_) is sa.JSON:
        return sa.JSON()
    if isinstance(type_, sa.ARRAY):
        array = type_.copy()
        array.item_type = core_type(type_.item_type, dialect)
        return array
    return _unlimited(_public(_bare(type_), dialect), dialect)


def _unlimited(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Leave out a length of bytes that the database doesn't know, such as PostgreSQL."""
    if type(type_) is sa.LargeBinary and sa.LargeBinary().compile(dialect) == type_.compile(dialect):
        return sa.LargeBinary()
    return type_


def _seen(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Follow variants, and decorators that are not SQLAlchemy's own, to the type behind them."""
    while True:
        variant = type_._variant_mapping.get(dialect.name)
        if variant is not None:
            type_ = variant
        elif isinstance(type_, TypeDecorator) and not _is_core(type(type_)):
            type_ = type_.load_dialect_impl(dialect)
        else:
            return type_


def _bare(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give the type without variants for other databases."""
    if not type_._variant_mapping:
        return type_
    bare = type_.copy()
    bare._variant_mapping = type(bare._variant_mapping)()
    return bare


def _public(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Give the public type in place of a driver's own subclass of it, a general one where the database sees no more."""
    if not _is_core(type(type_)) or _general(type(type_)):
        return type_
    named = [class_ for class_ in type(type_).__mro__ if "__visit_name__" in vars(class_)]
    classes = [class_ for class_ in named if _general(class_) or _particular(class_)]
    text = type_.compile(dialect)
    same = [form for class_ in classes if (form := _form(type_, class_, dialect)) is not None and form[1] == text]
    return next((form for form, _text in same if _general(type(form))), same[0][0] if same else type_)


def _form(type_: TypeEngine[Any], class_: type[Any], dialect: Dialect) -> tuple[TypeEngine[Any], str] | None:
    """Give a type as one of another class, with its SQL; None where that class can't say it, as VARCHAR no LONGTEXT."""
    try:
        form: TypeEngine[Any] = type_.adapt(class_)
        return form, form.compile(dialect)
    except (CompileError, TypeError):
        return None


def _is_core(class_: type[Any]) -> bool:
    return class_.__module__.startswith("sqlalchemy.")


def _general(class_: type[Any]) -> bool:
    """Tell whether a type can be named as ``sa.X``."""
    return getattr(sa, class_.__name__, None) is class_ and issubclass(class_, TypeEngine) and class_ not in _ROOTS


def _particular(class_: type[Any]) -> bool:
    """Tell whether a type can be named after its database, as in ``postgresql.X``."""
    parts = class_.__module__.split(".")
    if parts[:2] != ["sqlalchemy", "dialects"]:
        return False
    package = importlib.import_module(".".join(parts[:3]))
    return getattr(package, class_.__name__, None) is class_
