"""Results of RETURNING that the library reads before the user does, and hides where he did not ask for them.

Imports model and errors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import cursor
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.engine.result import result_tuple

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable


def buffered_rows(result: Any) -> list[Any]:
    """Give the raw rows of a result, which keeps them for whoever executed the statement."""
    strategy = result.cursor_strategy
    if isinstance(strategy, FullyBufferedCursorFetchStrategy):
        return list(strategy._rowbuffer)
    if result.cursor is None:
        return []
    # a streamed result has read some of its rows already
    rows = [*getattr(strategy, "_rowbuffer", ()), *result.cursor.fetchall()]
    result.cursor_strategy = FullyBufferedCursorFetchStrategy(result.cursor, initial_buffer=rows)
    return rows


def is_returned(element: Any, column: sa.Column[Any]) -> bool:
    """Tell whether a statement returns a column as such, under its own name."""
    # not element._all_selected_columns, which would be remembered, and copied into the statement with more columns
    return any(
        getattr(part, "table", None) is not None and part._deannotate() is column
        for entry in element._returning
        for part in entry._select_iterable
    )


def returned_keys(result: Any, rows: Sequence[Any], audited: AuditedTable) -> tuple[list[Key], list[int]]:
    """Give the keys in the raw rows of a result, as Python values, and their positions."""
    positions = _key_positions(result, audited)
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
    return keys, positions


def _key_positions(result: Any, audited: AuditedTable) -> list[int]:
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


def hide_columns(result: Any, keys: Sequence[Key], added: Sequence[int], *, shown: bool) -> None:
    """Show the user the columns that he asked for, or, if none, a result without rows."""
    if not shown:
        as_count(result, keys)
        return
    if result.context._rowcount is None or result.context._rowcount < 0:
        result.context._rowcount = len(keys)
    if added:
        width = len(result._metadata.keys)
        result.columns(*(i for i in range(width) if i not in set(added)))


def as_count(result: Any, keys: Sequence[Key]) -> None:
    """Turn a result of hidden rows into what an INSERT without RETURNING gives."""
    result._soft_close()
    result._metadata = cursor._NO_RESULT_METADATA
    result.cursor_strategy = cursor._NO_CURSOR_DML
    context = result.context
    context._rowcount = len(keys)
    context._is_explicit_returning = False
    context.returned_default_rows = None
    context.inserted_primary_key_rows = _key_rows(context, keys)


def _key_rows(context: Any, keys: Sequence[Key]) -> Any:
    """Give ``inserted_primary_key_rows`` as without RETURNING, when SQLAlchemy learns the key of a single row only."""
    element = context.compiled.statement
    if context.executemany or element._multi_values or element.select is not None or element._inline:
        return context._setup_ins_pk_from_empty()
    make = result_tuple([column.key for column in element.table.primary_key])
    return [make(key) for key in keys]
