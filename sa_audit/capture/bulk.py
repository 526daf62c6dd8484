"""Statements that change many rows: their images stay inside the database, so that memory stays flat.

An UPDATE's images are staged in a temporary table; a DELETE's rows go straight into the history, whose new rows
then name what may be deleted.  Imports model, ddl, and of capture criteria, foreign keys, recording and statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from . import foreign_keys
from .context import current_context
from .criteria import key_in, narrowed, set_columns, with_parameters
from .recording import lock_table, make_entry, place_of
from .statement import Statement, prepare

LISTED: Final = 1000
"""How many keys a statement may be narrowed to by a list."""


def before_update(statement: Statement, condition: Any) -> None:
    """Stage the images of an UPDATE's rows, and narrow it to them."""
    audited, backend = statement.audited, statement.recording.backend
    if foreign_keys.refers(audited.table, set_columns(statement)):
        raise UnauditedWrite(
            f"an UPDATE of many rows that changes columns of {audited.table.fullname} to which ON UPDATE "
            "actions refer can't be recorded: update at most 1000 rows at a time"
        )
    name = _make_stage(statement)
    source = backend.stage_rows(statement.target, name, with_parameters(condition, statement.parameters))
    staged = statement.execute(_with_ctes(statement, source)).rowcount
    _narrow_to_stage(statement, name)

    def after(result: Any) -> None:
        if 0 <= staged < result.rowcount:
            raise UnauditedWrite(
                f"{result.rowcount} rows of {audited.table.fullname} were updated, but {staged} were read and locked"
            )
        connection, recording, target = statement.connection, statement.recording, statement.target
        known = recording.find(place_of(connection, target), current_context())
        if known or backend.any_staged(connection, target, name):
            entry = make_entry(connection, recording, target)
            backend.record_staged(connection, target, name, statement.flush, entry)

    statement.after = after


def before_delete(statement: Statement, condition: Any) -> None:
    """Copy a DELETE's rows into the history, and narrow it to them."""
    audited = statement.audited
    prepare(statement)
    lock_table(statement.connection, statement.recording, statement.target)
    entry = make_entry(statement.connection, statement.recording, statement.target)
    bound = with_parameters(condition, statement.parameters)
    copy = statement.recording.backend.copy_where(statement.target, bound, statement.flush, entry)
    copied = statement.execute(_with_ctes(statement, copy)).rowcount
    history = audited.history
    keys = sa.select(*(history.c[column.key] for column in audited.key)).where(
        history.c.audit_tx == entry.id, history.c.audit_flush == statement.flush, history.c.audit_op == "D"
    )
    chosen = key_in(audited, keys)
    statement.element = statement.element.where(chosen)

    def after(result: Any) -> None:
        if result.returns_rows or result.rowcount < 0:
            left = statement.execute(sa.select(sa.literal(1)).select_from(audited.table).where(chosen).limit(1)).first()
            if left is not None:
                raise UnauditedWrite(f"rows of {audited.table.fullname} were recorded as deleted and are still there")
        elif result.rowcount != copied:
            raise UnauditedWrite(
                f"{result.rowcount} rows of {audited.table.fullname} were deleted, but {copied} were recorded"
            )

    statement.after = after


def narrow(statement: Statement, keys: Sequence[Key]) -> None:
    """Narrow a statement to keys: by a list, or, if they are many or it runs more than once, by a temporary table."""
    if len(keys) <= LISTED and not statement.many:
        statement.element = narrowed(statement.element, statement.audited, keys)
        return
    name = _make_stage(statement)
    stage = statement.recording.backend.stage(statement.audited, name)
    for start in range(0, len(keys), LISTED):
        rows = [{f"k{i}": value for i, value in enumerate(key)} for key in keys[start : start + LISTED]]
        names: dict[str, Any] = {f"k{i}": sa.bindparam(f"k{i}") for i in range(len(statement.audited.key))}
        statement.execute(sa.insert(stage).values(names), rows)
    _narrow_to_stage(statement, name)


def _make_stage(statement: Statement) -> str:
    """Create the statement's temporary table, in place of one that a statement which failed has left."""
    name = f"sa_audit_stage_{statement.flush}"
    backend = statement.recording.backend
    for text in (*backend.drop_stage(name), *backend.create_stage(statement.target, name)):
        statement.execute(sa.text(text))
    statement.leftovers += backend.drop_stage(name)
    return name


def _narrow_to_stage(statement: Statement, name: str) -> None:
    audited = statement.audited
    stage = statement.recording.backend.stage(audited, name)
    keys = sa.select(*(stage.c[f"k{i}"] for i in range(len(audited.key))))
    statement.element = statement.element.where(key_in(audited, keys))


def _with_ctes(statement: Statement, element: Any) -> Any:
    for cte in statement.element._independent_ctes:
        element = element.add_cte(cte)
    return element
