"""Keys of the rows that a statement touches, read from its parameters, its criteria or its result.

Imports model, ddl's values and errors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, Grouping

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable


def labelled_keys(audited: AuditedTable, rows: Iterable[dict[str, Any]]) -> list[Key]:
    """Give the keys of a flush's UPDATE: the unit of work binds them under the key columns' labels."""
    labels = [str(column._label) for column in audited.key]
    return [tuple(row[label] for label in labels) for row in rows]


def moved_keys(audited: AuditedTable, rows: Sequence[dict[str, Any]], keys: Sequence[Key]) -> dict[Key, Key]:
    """Give old and new key of each row whose key a flush's UPDATE changes."""
    names = [column.key for column in audited.key]
    moved: dict[Key, Key] = {}
    for row, key in zip(rows, keys, strict=True):
        if row.keys().isdisjoint(names):
            continue
        new = tuple(row.get(name, old) for name, old in zip(names, key, strict=True))
        if new != key:
            moved[key] = new
    return moved


def inserted_keys(audited: AuditedTable, result: Any) -> list[Key]:
    """Give the keys of the rows that an INSERT made, from its parameters or what the database gave back.

    Raises:
        UnauditedWrite: if a key is not known.
    """
    context = result.context
    if audited.table.primary_key.columns:
        keys = [tuple(row) if row is not None else (None,) for row in context.inserted_primary_key_rows]
    else:
        keys = [tuple(row.get(column.key) for column in audited.key) for row in context.compiled_parameters]
    for key in keys:
        if None in key:
            raise UnauditedWrite(
                f"the key of a row inserted into {audited.table.fullname} is not known ({key!r}), so it can't be "
                "recorded: give the key in the statement, or let the database make it by default"
            )
    return keys


def equality_parameters(table: sa.Table, criteria: Iterable[Any]) -> dict[str, BindParameter[Any]] | None:
    """Give the parameter that each column is compared to, where criteria are ``column = parameter`` joined by AND.

    Returns:
        parameters by column key; None if a criterion is of another form.
    """
    found: dict[str, BindParameter[Any]] = {}
    for part in _conjuncts(criteria):
        if not isinstance(part, BinaryExpression) or part.operator is not operators.eq:
            return None
        left, right = part.left, part.right
        if isinstance(left, BindParameter):
            left, right = right, left
        if not isinstance(right, BindParameter) or getattr(left, "table", None) is None:
            return None
        column = table.c.get(getattr(left, "key", None) or "")
        if column is None or (left._deannotate() is not column and left._deannotate().compare(column) is False):
            return None
        found[column.key] = right
    return found


def _conjuncts(criteria: Iterable[Any]) -> Iterator[Any]:
    for part in criteria:
        if isinstance(part, Grouping):
            yield from _conjuncts([part.element])
        elif isinstance(part, BooleanClauseList) and part.operator is operators.and_:
            yield from _conjuncts(part.clauses)
        else:
            yield part


def links_by_key(audited: AuditedTable, element: Any, rows: Sequence[dict[str, Any]]) -> list[Key] | None:
    """Give the keys of a DELETE whose criteria compare the whole key, and nothing else, with parameters; else None."""
    parameters = equality_parameters(audited.table, element._where_criteria)
    if parameters is None or set(parameters) != {column.key for column in audited.key}:
        return None
    keys = keys_by_equality(audited, element._where_criteria, rows)
    return None if keys is None else list(dict.fromkeys(keys))


def keys_by_equality(
    audited: AuditedTable, criteria: Iterable[Any], rows: Sequence[dict[str, Any]]
) -> list[Key] | None:
    """Give the keys of an executemany UPDATE or DELETE whose criteria compare the whole key with parameters."""
    parameters = equality_parameters(audited.table, criteria)
    if parameters is None or not all(column.key in parameters for column in audited.key):
        return None
    chosen = [parameters[column.key] for column in audited.key]
    return [tuple(row.get(p.key, None if p.required else p.effective_value) for p in chosen) for row in rows]


def refuse_equal_keys(audited: AuditedTable, surplus: int) -> None:
    """Refuse rows that can't be told apart, which a table without primary key lets in.

    Args:
        audited: the table.
        surplus: how many rows more than keys there are.

    Raises:
        UnauditedWrite: if there are any, in such a table.
    """
    if surplus > 0 and not audited.table.primary_key.columns:
        names = ", ".join(column.name for column in audited.key)
        raise UnauditedWrite(
            f"{audited.table.fullname} has no primary key, and several rows with the same ({names}), so they can't be "
            "told apart and recorded: give the table a primary key"
        )
