"""Core and ORM-enabled INSERT: how the keys of the new rows become known, and upserts.

Imports model, ddl, and of capture statements, keys and recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.sql.dml import Insert

from ..ddl.backend import Image, Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from .keys import inserted_keys
from .recording import lock_writer
from .statements import Statement, read_where, refuse_unrecordable


def before_insert(statement: Statement) -> None:
    """Make sure that the keys of an INSERT's rows will be known."""
    element: Insert = statement.element
    refuse_unrecordable(element, statement.audited)
    clauses = upsert_clauses(element)
    if any(_updates(clause) for clause in clauses):
        _before_upsert(statement, clauses)
        return
    if _keys_need_returning(statement, bool(clauses)):
        _add_returning(statement)
    else:
        if _default_made_key(statement):
            statement.element = element.return_defaults(*statement.audited.key)
        statement.after = lambda result: _record_inserted(statement, inserted_keys(statement.audited, result))


def _record_inserted(statement: Statement, keys: Sequence[Key]) -> None:
    if keys:
        statement.write(inserted=keys)


def _keys_need_returning(statement: Statement, has_conflict_clause: bool) -> bool:
    """Tell whether only RETURNING can say which rows an INSERT made."""
    element = statement.element
    if element._return_defaults:
        return False
    return bool(
        element._returning or element._multi_values or element.select is not None or element._inline
    ) or has_conflict_clause


def _default_made_key(statement: Statement) -> bool:
    """Tell whether the database makes a key that the driver would not give back by itself."""
    audited, element = statement.audited, statement.element
    if not audited.table.primary_key.columns or element._returning:
        return False
    given = {getattr(name, "key", name) for name in element._values or {}}
    given |= set(statement.rows[0]) if statement.rows else set()
    missing = [column for column in audited.key if column.key not in given and column.default is None]
    if not missing:
        return False
    return statement.many or any(column is not audited.table._autoincrement_column for column in missing)


def _add_returning(statement: Statement) -> None:
    """Have the INSERT give back its keys, hidden from the user."""
    element, audited = statement.element, statement.audited
    mine = [column for column in audited.key if not _is_returned(element, column)]
    shown = bool(element._returning)
    if mine:
        statement.element = element.returning(*mine)

    def after(result: Any) -> None:
        rows = buffered_rows(result)
        positions = key_positions(result, audited)
        keys = [tuple(key) for key in processed(result, rows, positions, audited)]
        hide_columns(result, rows, positions if mine else [], shown=shown)
        _record_inserted(statement, keys)

    statement.after = after


def _is_returned(element: Insert, column: sa.Column[Any]) -> bool:
    return any(
        getattr(entry, "table", None) is not None and entry._deannotate() is column
        for entry in element._all_selected_columns
    )


# -- results ------------------------------------------------------------------------


def buffered_rows(result: Any) -> list[Any]:
    """Give the raw rows of a result, which keeps them for whoever executed the statement."""
    strategy = result.cursor_strategy
    if isinstance(strategy, FullyBufferedCursorFetchStrategy):
        return list(strategy._rowbuffer)
    rows = list(result.cursor.fetchall()) if result.cursor is not None else []
    result.cursor_strategy = FullyBufferedCursorFetchStrategy(
        result.cursor, alternate_description=result.cursor.description, initial_buffer=rows
    )
    return rows


def key_positions(result: Any, audited: AuditedTable) -> list[int]:
    """Give the positions of the key columns in a RETURNING result."""
    entries = result.context.compiled._result_columns
    positions = []
    for column in audited.key:
        found = [i for i, entry in enumerate(entries) if any(_is_column(part, column) for part in entry.objects)]
        if not found:
            raise UnauditedWrite(
                f"the INSERT into {audited.table.fullname} did not give back its key {column.name!r}, so it can't be "
                "recorded: add the key to returning()"
            )
        positions.append(found[-1])
    return positions


def _is_column(part: Any, column: sa.Column[Any]) -> bool:
    if part is column:
        return True
    if not isinstance(part, sa.Column) or part.name != column.name:
        return False
    table = getattr(part, "table", None)
    return table is column.table or getattr(table, "_deannotate", lambda: None)() is column.table


def processed(result: Any, rows: Sequence[Any], positions: Sequence[int], audited: AuditedTable) -> list[Key]:
    """Give the keys of raw rows as Python values."""
    dialect = result.context.dialect
    description = result.cursor.description if result.cursor is not None else None
    processors = []
    for position, column in zip(positions, audited.key, strict=True):
        kind = description[position][1] if description else None
        processors.append(column.type._cached_result_processor(dialect, kind))
    keys = []
    for row in rows:
        values = (row[position] for position in positions)
        keys.append(tuple(p(v) if p is not None else v for p, v in zip(processors, values, strict=True)))
    return keys


def hide_columns(result: Any, rows: Sequence[Any], added: Sequence[int], *, shown: bool) -> None:
    """Show the user the columns that he asked for, or, if none, a result without rows."""
    if not shown:
        as_count(result, len(rows))
        return
    if result.context._rowcount is None or result.context._rowcount < 0:
        result.context._rowcount = len(rows)
    if added:
        width = len(result._metadata.keys)
        result.columns(*(i for i in range(width) if i not in set(added)))


def as_count(result: Any, count: int) -> None:
    """Turn a result of hidden rows into what an INSERT without RETURNING gives."""
    from sqlalchemy.engine import cursor

    result._soft_close()
    result._metadata = cursor._NO_RESULT_METADATA
    result.cursor_strategy = cursor._NO_CURSOR_DML
    result.context._rowcount = count


# -- upserts --------------------------------------------------------------------------


def upsert_clauses(element: Insert) -> list[Any]:
    """Give the ON CONFLICT or ON DUPLICATE KEY clauses of an INSERT."""
    clause = element._post_values_clause
    if clause is None:
        return []
    return list(clause.clauses) if hasattr(clause, "clauses") else [clause]


def _updates(clause: Any) -> bool:
    return hasattr(clause, "update_values_to_set") or clause.__visit_name__ == "on_duplicate_key_update"


def _before_upsert(statement: Statement, clauses: Sequence[Any]) -> None:
    """Read the rows that the new ones can collide with; refuse to update one that was not read."""
    audited, element = statement.audited, statement.element
    if element.select is not None:
        raise UnauditedWrite(
            f"an upsert from a SELECT into {audited.table.fullname} can't be recorded, since the rows that it will "
            "update are not known: select the rows first and pass them as values"
        )
    _refuse_key_in_set(audited, clauses)
    lock_writer(statement.connection, statement.recording, statement.target)
    images = _colliding(statement, given_rows(statement))
    shown = bool(element._returning)
    mine = [column for column in audited.key if not _is_returned(element, column)]
    marker = statement.recording.backend.upsert_marker(audited.table)
    extra = [*mine, *([marker] if marker is not None else [])]
    if extra:
        statement.element = element.returning(*extra)

    def after(result: Any) -> None:
        rows = buffered_rows(result)
        positions = key_positions(result, audited)
        keys = processed(result, rows, positions, audited)
        added = list(positions) if mine else []
        if marker is not None:
            place = len(result.context.compiled._result_columns) - 1
            added.append(place)
            _refuse_unread(audited, keys, [bool(row[place]) for row in rows], images)
        hide_columns(result, rows, added, shown=shown)
        new = list(dict.fromkeys(key for key in keys if key not in images))
        statement.write(inserted=new, images=list(images.values()))

    statement.after = after


def _refuse_unread(audited: AuditedTable, keys: Sequence[Key], updated: Sequence[bool], images: dict[Key, Image]) -> None:
    unread = [key for key, was_updated in zip(keys, updated, strict=True) if was_updated and key not in images]
    if unread:
        raise UnauditedWrite(
            f"the upsert into {audited.table.fullname} updated the row {unread[0]!r}, which was not there when it was "
            "looked for: another transaction inserted it in between; try again"
        )


def _refuse_key_in_set(audited: AuditedTable, clauses: Sequence[Any]) -> None:
    keys = {column.key for column in audited.key} | {column.name for column in audited.key}
    for clause in clauses:
        values = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or {}
        names = {getattr(name, "key", name) for name, _value in (values.items() if hasattr(values, "items") else values)}
        if names & keys:
            raise UnauditedWrite(
                f"an upsert into {audited.table.fullname} that sets its key ({', '.join(sorted(names & keys))}) on "
                "conflict can't be recorded: leave the key out of the set"
            )


def given_rows(statement: Statement) -> list[dict[str, Any]]:
    """Give the rows of an INSERT as values by column key."""
    element = statement.element
    mapper = element._propagate_attrs.get("plugin_subject")

    def keyed(row: Any) -> dict[str, Any]:
        return {_key_of(name, statement.audited.table, mapper): value for name, value in row.items()}

    if element._multi_values:
        return [
            keyed(row if hasattr(row, "items") else dict(zip(statement.audited.table.c, row, strict=False)))
            for part in element._multi_values
            for row in part
        ]
    fixed = keyed(element._values or {})
    return [{**fixed, **keyed(row)} for row in statement.rows] if statement.rows else [fixed]


def _key_of(name: Any, table: sa.Table, mapper: Any) -> str:
    if isinstance(name, str) and mapper is not None:
        attribute = sa.inspect(mapper).mapper.column_attrs.get(name)
        if attribute is not None:
            return str(attribute.columns[0].key)
    return str(getattr(name, "key", name))


def _colliding(statement: Statement, rows: Sequence[dict[str, Any]]) -> dict[Key, Image]:
    """Read and lock the rows with the same primary or unique key as one of the given rows."""
    table = statement.audited.table
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


def _any_of(statement: Statement, columns: Sequence[sa.Column[Any]], rows: Sequence[dict[str, Any]]) -> Any:
    values: list[Any] = []
    for row in rows:
        found = [_value_of(row, column) for column in columns]
        if any(value is None for value in found):
            continue
        plain = [value.value if isinstance(value, sa.BindParameter) else value for value in found]
        if any(isinstance(value, sa.ClauseElement) for value in plain):
            raise UnauditedWrite(
                f"an upsert into {statement.audited.table.fullname} whose key {columns[0].name!r} is a SQL expression "
                "can't be recorded: select its value first"
            )
        values.append(plain[0] if len(columns) == 1 else tuple(plain))
    if not values:
        return None
    left = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
    return left.in_(values)


def _value_of(row: dict[str, Any], column: sa.Column[Any]) -> Any:
    """Give the value that a row will have in a unique column, where that can be known; None where it will be new."""
    if column.key in row:
        return row[column.key]
    if column.default is not None and column.default.is_scalar:
        return column.default.arg
    return None


def unique_keys(table: sa.Table) -> list[tuple[sa.Column[Any], ...]]:
    """Give the columns of the primary key and of each unique constraint or index."""
    keys = [tuple(table.primary_key.columns)] if table.primary_key.columns else []
    keys += [tuple(c.columns) for c in table.constraints if isinstance(c, sa.UniqueConstraint)]
    keys += [tuple(index.columns) for index in table.indexes if index.unique and index.columns]
    return keys
