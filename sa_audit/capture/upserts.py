"""Upserts: ON CONFLICT DO UPDATE and ON DUPLICATE KEY UPDATE, and the rows that they can collide with.

Imports model, ddl, and of capture criteria, returned and statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import Insert

from ..ddl.backend import MARKER, Image, Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import foreign_keys
from .criteria import read_where
from .returned import buffered_rows, hide_columns, is_returned, returned_keys
from .statement import Statement


def upsert_clauses(element: Insert) -> list[Any]:
    """Give the ON CONFLICT or ON DUPLICATE KEY clauses of an INSERT."""
    clause = element._post_values_clause
    if clause is None:
        return []
    return list(clause.clauses) if hasattr(clause, "clauses") else [clause]


def updates(clause: Any) -> bool:
    """Tell whether such a clause updates rows, rather than skip them."""
    return hasattr(clause, "update_values_to_set") or clause.__visit_name__ == "on_duplicate_key_update"


def before_upsert(statement: Statement, clauses: Sequence[Any]) -> None:
    """Read the rows that the new ones can collide with; refuse to update one that was not read."""
    audited, element = statement.audited, statement.element
    if element.select is not None:
        raise UnauditedWrite(
            f"an upsert from a SELECT into {audited.table.fullname} can't be recorded, since the rows that it will "
            "update are not known: select the rows first and pass them as values"
        )
    changed = _set_columns(statement, clauses)
    images = _colliding(statement, given_rows(statement))
    if foreign_keys.refers(audited.table, changed):
        reached = foreign_keys.reach_update(
            statement.connection, statement.recording, audited.table, list(images), statement.options, changed
        )
        reached.leave_out(audited, list(images))
        statement.reached.append(reached)
    shown = bool(element._returning)
    mine = [column for column in audited.key if not is_returned(element, column)]
    marker = statement.recording.backend.upsert_marker(audited.table)
    marked = any(getattr(entry, "name", None) == MARKER for entry in element._returning)
    if statement.columns_fixed and (mine or marker is not None):
        raise UnauditedWrite(
            f"an upsert into {audited.table.fullname} in from_statement() can't be recorded: execute it by itself, "
            "with returning() of the class"
        )
    extra = [*mine, *([marker] if marker is not None and not marked else [])]
    if extra:
        statement.element = element.returning(*extra)

    def after(result: Any) -> None:
        rows = buffered_rows(result)
        keys, positions = returned_keys(result, rows, audited)
        added = list(positions) if mine else []
        if marker is not None:
            place = [entry.keyname for entry in result.context.compiled._result_columns].index(MARKER)
            added += [] if marked else [place]
            _refuse_unread(audited, keys, [bool(row[place]) for row in rows], images)
        new = list(dict.fromkeys(key for key in keys if key not in images))
        if marker is None:
            _refuse_living(statement, new)
        hide_columns(result, keys, added, shown=shown)
        statement.write(inserted=new, images=list(images.values()))

    statement.after = after


def _refuse_living(statement: Statement, keys: Sequence[Key]) -> None:
    """Refuse rows as new that the history knows to live, where the database does not say which rows an upsert made."""
    if not keys:
        return
    history = statement.audited.history
    later = history.alias()
    columns = [history.c[column.key] for column in statement.audited.key]
    same = (later.c[column.key] == history.c[column.key] for column in statement.audited.key)
    living = sa.select(*columns).where(
        history.c.audit_op != "D", ~sa.exists().where(*same, later.c.audit_id > history.c.audit_id)
    )
    for start in range(0, len(keys), 500):
        chosen = any_key(columns, keys[start : start + 500])
        found = statement.execute(living.where(chosen).limit(1).with_for_update(read=True)).first()
        if found is not None:
            _raise_unread(statement.audited, tuple(found))


def any_key(columns: Sequence[Any], keys: Sequence[Key]) -> Any:
    """Give the condition that columns have one of the given keys."""
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return sa.tuple_(*columns).in_([tuple(key) for key in keys])


def _refuse_unread(
    audited: AuditedTable, keys: Sequence[Key], updated: Sequence[bool], images: dict[Key, Image]
) -> None:
    unread = [key for key, was_updated in zip(keys, updated, strict=True) if was_updated and key not in images]
    if unread:
        _raise_unread(audited, unread[0])


def _raise_unread(audited: AuditedTable, key: Key) -> None:
    raise UnauditedWrite(
        f"the upsert into {audited.table.fullname} updated the row {key!r}, which was not there when it was "
        "looked for: another transaction inserted it in between; try again"
    )


def _set_columns(statement: Statement, clauses: Sequence[Any]) -> set[str]:
    """Give the database names of the columns that an upsert sets on conflict.

    Raises:
        UnauditedWrite: if the key is among them, and set to something else than itself.
    """
    audited = statement.audited
    mapper = statement.element._propagate_attrs.get("plugin_subject")
    found: set[str] = set()
    for clause in clauses:
        values = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or {}
        for name, value in values.items() if hasattr(values, "items") else values:
            column = audited.table.c.get(key_of(name, audited.table, mapper))
            if column is None or getattr(value, "_deannotate", lambda: None)() is column:
                continue
            if column in audited.key:
                raise UnauditedWrite(
                    f"an upsert into {audited.table.fullname} that sets its key {column.name!r} on conflict can't be "
                    "recorded: leave the key out of the set"
                )
            found.add(column.name)
    return found


def given_rows(statement: Statement) -> list[dict[str, Any]]:
    """Give the rows of an INSERT as values by column key."""
    element = statement.element
    mapper = element._propagate_attrs.get("plugin_subject")

    def keyed(row: Any, parameters: dict[str, Any]) -> dict[str, Any]:
        return {key_of(name, statement.audited.table, mapper): _plain(value, parameters) for name, value in row.items()}

    if element._multi_values:
        return [
            keyed(
                row if hasattr(row, "items") else dict(zip(statement.audited.table.c, row, strict=False)),
                statement.parameters,
            )
            for part in element._multi_values
            for row in part
        ]
    return [{**keyed(element._values or {}, row), **keyed(row, row)} for row in statement.rows or [{}]]


def _plain(value: Any, parameters: dict[str, Any]) -> Any:
    """Give the value of a parameter, anything else as it is."""
    if not isinstance(value, sa.BindParameter):
        return value
    return parameters.get(value.key, value.effective_value)


def key_of(name: Any, table: sa.Table, mapper: Any) -> str:
    """Give the key of the column that a name in a statement means."""
    if isinstance(name, str) and mapper is not None:
        attribute = sa.inspect(mapper).mapper.column_attrs.get(name)
        if attribute is not None:
            return str(attribute.columns[0].key)
    return str(getattr(name, "key", name))


def _colliding(statement: Statement, rows: Sequence[dict[str, Any]]) -> dict[Key, Image]:
    """Read and lock the rows with the same primary or unique key as one of the given rows."""
    table = statement.audited.table
    _refuse_expressions(statement)
    images: dict[Key, Image] = {}
    for start in range(0, len(rows), 500):
        criteria = []
        for columns in unique_keys(table):
            criterion = _any_of(statement, columns, rows[start : start + 500])
            if criterion is not None:
                criteria.append(criterion)
        if criteria:
            images.update(read_where(statement, [sa.or_(*criteria)]))
    return images


def _refuse_expressions(statement: Statement) -> None:
    """Refuse a unique index on an expression, where the database does not say which rows an upsert updated."""
    table, backend = statement.audited.table, statement.recording.backend
    for index in table.indexes:
        plain = all(isinstance(expression, sa.Column) for expression in index.expressions)
        if index.unique and not plain and backend.upsert_marker(table) is None:
            raise UnauditedWrite(
                f"an upsert into {table.fullname} can't be recorded, since its unique index {index.name} is on an "
                "expression, by which it may update rows that can't be looked for: select the rows first"
            )


def _any_of(statement: Statement, columns: Sequence[sa.Column[Any]], rows: Sequence[dict[str, Any]]) -> Any:
    values: list[Any] = []
    for row in rows:
        found = [_value_of(row, column) for column in columns]
        if any(value is None for value in found):
            continue
        if any(isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__") for value in found):
            raise UnauditedWrite(
                f"an upsert into {statement.audited.table.fullname} whose key {columns[0].name!r} is a SQL expression "
                "can't be recorded: select its value first"
            )
        values.append(found[0] if len(columns) == 1 else tuple(found))
    if not values:
        return None
    left = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
    return left.in_(values)


def _value_of(row: dict[str, Any], column: sa.Column[Any]) -> Any:
    """Give the value that a row will have in a unique column, where that can be known; None where it will be new."""
    if column.key in row:
        return row[column.key]
    default: Any = column.default
    if default is not None and default.is_scalar:
        return default.arg
    return None


def unique_keys(table: sa.Table) -> list[tuple[sa.Column[Any], ...]]:
    """Give the columns of the primary key and of each unique constraint or index."""
    keys = [tuple(table.primary_key.columns)] if table.primary_key.columns else []
    keys += [tuple(c.columns) for c in table.constraints if isinstance(c, sa.UniqueConstraint)]
    keys += [tuple(index.columns) for index in table.indexes if index.unique and index.columns]
    return keys
