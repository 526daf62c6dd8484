"""Core and ORM-enabled INSERT: how the keys of the new rows become known.

Imports model, ddl, and of capture keys, recording, returned, statement and upserts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import Insert

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from .keys import inserted_keys
from .recording import lock_writer
from .returned import as_count, buffered_rows, hide_columns, is_returned, returned_keys
from .statement import Statement, refuse_silent_conflicts, refuse_unrecordable
from .upserts import before_upsert, updates, upsert_clauses


def before_insert(statement: Statement) -> None:
    """Make sure that the keys of an INSERT's rows will be known."""
    element: Insert = statement.element
    refuse_unrecordable(statement)
    refuse_silent_conflicts(statement)
    # where there is one writer only, this also begins the transaction that "WITH ... INSERT" does not begin there
    lock_writer(statement.connection, statement.recording, statement.target)
    clauses = upsert_clauses(element)
    if any(updates(clause) for clause in clauses):
        before_upsert(statement, clauses)
    elif _keys_need_returning(element, bool(clauses)):
        _add_returning(statement)
    elif _keys_need_defaults(statement):
        statement.element = element.return_defaults(*statement.audited.key)
        statement.after = lambda result: _record_defaults(statement, result)
    else:
        statement.after = lambda result: _record(statement, inserted_keys(statement.audited, result))


def _record(statement: Statement, keys: Sequence[Key]) -> None:
    statement.write(inserted=keys)


def _record_defaults(statement: Statement, result: Any) -> None:
    keys = inserted_keys(statement.audited, result)
    as_count(result, keys)
    _record(statement, keys)


def _keys_need_returning(element: Any, has_conflict_clause: bool) -> bool:
    """Tell whether only RETURNING can say which rows an INSERT made."""
    if element._return_defaults:
        return False
    return bool(
        has_conflict_clause
        or element._returning
        or element._multi_values
        or element.select is not None
        or element._inline
    )


def _keys_need_defaults(statement: Statement) -> bool:
    """Tell whether the database makes keys of several rows, which SQLAlchemy then does not ask for by itself."""
    audited, element = statement.audited, statement.element
    if not statement.many or element._return_defaults or not audited.table.primary_key.columns:
        return False
    given = {getattr(name, "key", name) for name in element._values or {}} | set(statement.rows[0])
    return any(column.key not in given and not _made_by_python(column) for column in audited.key)


def _made_by_python(column: sa.Column[Any]) -> bool:
    default = column.default
    return default is not None and (default.is_scalar or default.is_callable)


def _add_returning(statement: Statement) -> None:
    """Have the INSERT give back its keys, hidden from the user."""
    element, audited = statement.element, statement.audited
    mine = add_keys(statement)
    shown = bool(element._returning)

    def after(result: Any) -> None:
        rows = buffered_rows(result)
        keys, positions = returned_keys(result, rows, audited)
        hide_columns(result, keys, positions if mine else [], shown=shown)
        _record(statement, keys)

    statement.after = after


def add_keys(statement: Statement) -> list[sa.Column[Any]]:
    """Add the key to what an INSERT returns, as far as it is missing there.

    Raises:
        UnauditedWrite: if nothing may be added.
    """
    mine = [column for column in statement.audited.key if not is_returned(statement.element, column)]
    if mine and statement.columns_fixed:
        raise UnauditedWrite(
            f"an INSERT into {statement.audited.table.fullname} in from_statement() that does not return the key "
            f"{mine[0].name!r} can't be recorded: add the key to returning()"
        )
    if mine:
        statement.element = statement.element.returning(*mine)
    return mine


__all__ = ["Insert", "before_insert"]
