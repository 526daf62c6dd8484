"""Which rows an UPDATE or DELETE chooses, and what an UPDATE sets.

A statement's criteria are read as a locking SELECT first; the statement is then narrowed to the keys that were found.
Imports model, ddl, and of capture keys, recording and statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import bulk_persistence
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import Update

from ..ddl.backend import Image, Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from .keys import keys_by_equality
from .recording import read_images
from .statement import Statement, is_table

_BULK: Any = getattr(bulk_persistence, "_BulkUDCompileState", None) or vars(bulk_persistence)["BulkUDCompileState"]


def effective_criteria(element: Any) -> tuple[Any, ...]:
    """Give a statement's criteria with those that the ORM adds when it compiles it (inheritance, loader criteria)."""
    criteria: tuple[Any, ...] = tuple(element._where_criteria)
    subject = element._propagate_attrs.get("plugin_subject")
    if element._propagate_attrs.get("compile_state_plugin") != "orm" or subject is None:
        return criteria
    if "_emit_update_table" in element._annotations:
        return criteria
    attributes: dict[Any, Any] = {}
    for option in element._with_options:
        if isinstance(option, LoaderCriteriaOption):
            option.get_global_criteria(attributes)
    return criteria + tuple(_BULK._adjust_for_extra_criteria(attributes, subject))


def exists_criterion(table: sa.Table, criteria: Sequence[Any]) -> Any:
    """Give criteria as one condition on rows of ``table``, whatever other tables they name."""
    if not criteria:
        return sa.true()
    condition = sa.and_(*criteria)
    others = [entry for entry in condition._from_objects if not is_table(entry, table)]
    if not others:
        return condition
    return sa.select(sa.literal(1)).select_from(*others).where(condition).correlate(table).exists()


def with_parameters(criterion: Any, row: dict[str, Any]) -> Any:
    """Give a criterion with the values of one row of parameters in it."""

    def replaced(element: Any, **_kw: Any) -> Any:
        if not isinstance(element, sa.BindParameter) or element.key not in row:
            return None
        return sa.bindparam(None, row[element.key], type_=element.type, unique=True, expanding=element.expanding)

    return visitors.replacement_traverse(criterion, {}, replaced)


# -- reading ------------------------------------------------------------------------------


def read_where(statement: Statement, criteria: Sequence[Any], limit: int | None = None) -> dict[Key, Image]:
    """Read and lock the rows that criteria choose, as images by key."""
    audited, backend = statement.audited, statement.recording.backend
    name = backend.table_name(audited.table, statement.target.schemas).replace("\\:", ":")
    images: list[Any] = [
        sa.literal_column(text.replace("\\:", ":")).label(f"o{i}")
        for i, text in enumerate(backend.image_columns(audited, name))
    ]
    settings = backend.settings_expression(audited)
    pinned = sa.text(f"(SELECT {settings}) IS NOT NULL") if settings is not None else None
    rows = _read(statement, [*audited.key, *images], criteria, limit, pinned)
    width = len(audited.key)
    return {row[:width]: Image(row[:width], row[width:]) for row in rows}


def read_keys(
    statement: Statement, criteria: Sequence[Any], limit: int | None = None, extra: Sequence[Any] = ()
) -> list[Key]:
    """Read and lock the rows that criteria choose, as keys with further expressions behind them."""
    return _read(statement, [*statement.audited.key, *extra], criteria, limit)


def _read(
    statement: Statement, columns: Sequence[Any], criteria: Sequence[Any], limit: int | None, pinned: Any = None
) -> list[Key]:
    audited = statement.audited
    query = (
        sa.select(*(column.label(f"c{i}") for i, column in enumerate(columns)))
        .select_from(audited.table)
        .where(exists_criterion(audited.table, criteria))
    )
    if statement.recording.backend.locks_in_order:
        query = query.order_by(*audited.key)
    if pinned is not None:
        query = query.where(pinned)
    for cte in statement.element._independent_ctes:
        query = query.add_cte(cte)
    if limit is not None:
        query = query.limit(limit)
    if statement.recording.backend.locks_rows:
        query = query.with_for_update(of=audited.table, key_share=isinstance(statement.element, Update))
    return [tuple(row) for row in statement.execute(query, statement.parameters)]


def images_of_many(statement: Statement) -> tuple[dict[Key, Image], bool]:
    """Read the rows of an executemany statement: by key where it names the keys, else by its criteria in turn.

    Returns:
        the images, and whether the statement can reach no other row than theirs.
    """
    criteria = statement.element._where_criteria
    keys = keys_by_equality(statement.audited, criteria, statement.rows)
    if keys is not None:
        unique = list(dict.fromkeys(keys))
        found = read_images(statement.connection, statement.recording, statement.target, unique)
        return found, all(key in found for key in unique)
    images: dict[Key, Image] = {}
    for start in range(0, len(statement.rows), 200):
        part = [
            sa.and_(sa.true(), *(with_parameters(criterion, row) for criterion in criteria))
            for row in statement.rows[start : start + 200]
        ]
        images.update(read_where(statement, [sa.or_(*part)]))
    return images, False


def narrowed(element: Any, audited: AuditedTable, keys: Sequence[Key]) -> Any:
    """Narrow a statement to the rows of the given keys."""
    if len(audited.key) == 1:
        return element.where(audited.key[0].in_([key[0] for key in keys]))
    return element.where(sa.tuple_(*audited.key).in_([tuple(key) for key in keys]))


def key_in(audited: AuditedTable, keys: Any) -> Any:
    """Give the condition that a row's key is one that a SELECT gives, which databases look up once."""
    key: Any = audited.key[0] if len(audited.key) == 1 else sa.tuple_(*audited.key)
    return key.in_(keys)


# -- values -------------------------------------------------------------------------------


def set_values(statement: Statement) -> dict[str, Any]:
    """Give what an UPDATE sets, by column key; parameters of an execution included, those of the first of many."""
    element, table = statement.element, statement.audited.table
    values: dict[Any, Any] = dict(element._values or {})
    values.update(dict(getattr(element, "_ordered_values", None) or ()))
    result: dict[str, Any] = {}
    mapper = element._propagate_attrs.get("plugin_subject")
    for name, value in values.items():
        column = _column_of(name, table, mapper)
        result[column.key if column is not None else str(name)] = value
    bound = {bind.key for bind in visitors.iterate(element) if isinstance(bind, sa.BindParameter)}
    for name, value in (statement.rows[0] if statement.rows else {}).items():
        column = _column_of(name, table, mapper)
        if column is not None and name not in bound:
            result[column.key] = value
    return result


def _column_of(name: Any, table: sa.Table, mapper: Any) -> sa.Column[Any] | None:
    if not isinstance(name, str):
        name = getattr(name, "key", str(name)) if not hasattr(name, "__clause_element__") else name.key
    if mapper is not None:
        attribute = sa.inspect(mapper).mapper.column_attrs.get(name)
        if attribute is not None:
            return next((column for column in attribute.columns if column.table is table), None)
    return table.c.get(name)


def set_columns(statement: Statement) -> set[str]:
    """Give the database names of the columns that an UPDATE sets."""
    table = statement.audited.table
    return {table.c[key].name for key in set_values(statement) if key in table.c}


def new_key(statement: Statement) -> list[Any] | None:
    """Give the expressions of the key that an UPDATE sets, or None if it sets none of its columns.

    Raises:
        UnauditedWrite: for a function, whose value is not known before it is written.
    """
    values = set_values(statement)
    if not any(column.key in values for column in statement.audited.key):
        return None
    return [_new_value(statement, values, column) for column in statement.audited.key]


def _new_value(statement: Statement, values: dict[str, Any], column: sa.Column[Any]) -> Any:
    value = values.get(column.key, column)
    if hasattr(value, "__clause_element__"):
        value = value.__clause_element__()
    if not isinstance(value, sa.ClauseElement):
        return sa.bindparam(None, value, type_=column.type, unique=True)
    for part in visitors.iterate(value):
        if isinstance(part, sa.sql.functions.FunctionElement):
            raise UnauditedWrite(
                f"the new key of {statement.audited.table.fullname} is made by a SQL function ({part}), whose "
                "value is not known before it is written: select the new keys first"
            )
    return value
