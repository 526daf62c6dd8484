"""Statements that change many rows: their images stay inside the database, so that memory stays flat.

An UPDATE's images are staged in a temporary table; a DELETE's rows go straight into the history, whose new rows
then name what may be deleted.  Imports model, ddl, and of capture recording and foreign keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..ddl.backend import INTERNAL, stage_table
from ..errors import UnauditedWrite
from . import foreign_keys
from .context import current_context
from .recording import make_entry

if TYPE_CHECKING:
    from .statements import Statement


def before_update(statement: Statement, condition: Any) -> None:
    """Stage the images of an UPDATE's rows, and narrow it to them."""
    audited, backend = statement.audited, statement.recording.backend
    if any(True for _ in foreign_keys.referring(audited.table, "update")):
        _refuse_referred(statement)
    name = f"sa_audit_stage_{statement.flush}"
    stage = stage_table(audited, name)
    for sql in backend.create_stage(statement.target, name):
        execute(statement, sa.text(sql))
    staged = execute(statement, backend.stage_rows(statement.target, name, condition), _parameters(statement)).rowcount
    match = sa.and_(*(column == stage.c[f"k{i}"] for i, column in enumerate(audited.key)))
    statement.element = statement.element.where(
        sa.select(sa.literal(1)).select_from(stage).where(match).correlate(audited.table).exists()
    )

    def after(result: Any) -> None:
        if 0 <= staged < result.rowcount:
            raise UnauditedWrite(
                f"{result.rowcount} rows of {audited.table.fullname} were updated, but {staged} were read and locked"
            )
        connection, recording, target = statement.connection, statement.recording, statement.target
        if recording.find(target.trail, current_context()) or backend.any_staged(connection, target, name):
            entry = make_entry(connection, recording, target)
            backend.record_staged(connection, target, name, statement.flush, entry)
        execute(statement, sa.text(f"DROP TABLE {name}" if backend.locks_rows else f"DROP TABLE temp.{name}"))

    statement.after = after


def _refuse_referred(statement: Statement) -> None:
    from .statements import set_columns

    referred = {
        element.column.name
        for constraint, _action in foreign_keys.referring(statement.audited.table, "update")
        for element in constraint.elements
    }
    if referred & set_columns(statement):
        raise UnauditedWrite(
            f"an UPDATE of many rows that changes columns of {statement.audited.table.fullname} to which ON UPDATE "
            "actions refer can't be recorded: update at most 1000 rows at a time"
        )


def before_delete(statement: Statement, condition: Any) -> None:
    """Copy a DELETE's rows into the history, and narrow it to them."""
    audited = statement.audited
    if any(True for _ in foreign_keys.referring(audited.table, "delete")):
        _delete_by_keys(statement, condition)
        return
    entry = make_entry(statement.connection, statement.recording, statement.target)
    copy = statement.recording.backend.copy_where(statement.target, condition, statement.flush, entry)
    copied = execute(statement, copy, _parameters(statement)).rowcount
    history = audited.history
    match = sa.and_(
        history.c.audit_tx == entry.id,
        history.c.audit_flush == statement.flush,
        history.c.audit_op == "D",
        *(column == history.c[column.key] for column in audited.key),
    )
    statement.element = statement.element.where(
        sa.select(sa.literal(1)).select_from(history).where(match).correlate(audited.table).exists()
    )
    statement.after = lambda result: _check(statement, result, copied)


def _delete_by_keys(statement: Statement, condition: Any) -> None:
    """Delete many rows that others refer to: their keys are needed to follow the foreign keys."""
    from .statements import narrowed, read_keys

    keys = read_keys(statement, [condition])
    statement.write(deleted=keys)
    statement.reached.append(
        foreign_keys.reach_delete(
            statement.connection, statement.recording, statement.audited.table, keys, statement.options, statement.flush
        )
    )
    statement.element = narrowed(statement.element, statement.audited, keys)
    statement.after = lambda result: _check(statement, result, len(keys))


def _check(statement: Statement, result: Any, copied: int) -> None:
    if result.rowcount >= 0 and result.rowcount != copied and not result.returns_rows:
        raise UnauditedWrite(
            f"{result.rowcount} rows of {statement.audited.table.fullname} were deleted, but {copied} were recorded"
        )


def execute(statement: Statement, element: Any, parameters: Any = None) -> Any:
    """Execute a statement of the library's own under the user's schema translation."""
    options = {INTERNAL: True, "schema_translate_map": statement.options.get("schema_translate_map")}
    return statement.connection.execute(element, parameters, execution_options=options)


def _parameters(statement: Statement) -> dict[str, Any]:
    return statement.rows[0] if len(statement.rows) == 1 else {}
