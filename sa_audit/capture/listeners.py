"""The listeners, on the classes ``Session`` and ``Engine``, since no session or engine may be forgotten.

They are registered once, when this module is imported, and act on audited tables only; their state belongs to the
connection's transaction.  Imports model, ddl, and the rest of capture.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import TextualSelect

from ..ddl.backend import INTERNAL
from ..errors import UnauditedWrite
from ..model.history import AuditedTable, audited_of, known_trails
from . import inserts, statements, unit_of_work
from .recording import fail_closed, present_recording, recording_on
from .text import refuse_text

event.listen(Session, "before_flush", unit_of_work.before_flush)
event.listen(Session, "after_flush", unit_of_work.after_flush)


def audited_target(element: Any) -> AuditedTable | None:
    """Give the audited table that a DML statement writes, or None."""
    annotations = element._annotations
    table = annotations.get("_emit_insert_table")
    if table is None:
        table = annotations.get("_emit_update_table", element.table)
    audited = audited_of(table)
    if audited is None and not hasattr(table, "info"):
        table = getattr(table, "element", None)
        audited = audited_of(table) if table is not None else None
    return audited


@event.listens_for(Engine, "before_execute", retval=True)
def _before_execute(
    connection: Connection, element: Any, multiparams: Any, params: Any, options: Any
) -> tuple[Any, Any, Any]:
    """Take a DML statement on an audited table in hand; everything else passes as it came."""
    if not isinstance(element, UpdateBase) or INTERNAL in options:
        return element, multiparams, params
    audited = audited_target(element)
    if audited is None:
        return element, multiparams, params
    rows = list(multiparams) if multiparams else ([params] if params else [])
    flush = unit_of_work.current_flush() if "compiled_cache" in options else None
    with fail_closed(connection):
        if flush is not None:
            _begin_flush_statement(flush, connection, audited, element, rows, options)
            return element, multiparams, params
        statement = _begin_statement(connection, audited, element, rows, options)
    return statement.element, multiparams, params


def _begin_statement(
    connection: Connection, audited: AuditedTable, element: Any, rows: list[Any], options: Any
) -> statements.Statement:
    statement = statements.begin(connection, audited, element, rows, options)
    if isinstance(element, Insert):
        inserts.before_insert(statement)
    elif isinstance(element, Update):
        statements.before_update(statement)
    elif isinstance(element, Delete):
        statements.before_delete(statement)
    else:
        raise UnauditedWrite(
            f"{type(element).__name__.lower()} on {audited.table.fullname} can't be recorded: "
            "use insert(), update() or delete()"
        )
    statement.recording.pending.append((statement.element, statement))
    return statement


def _begin_flush_statement(
    flush: unit_of_work.Flush,
    connection: Connection,
    audited: AuditedTable,
    element: Any,
    rows: list[Any],
    options: Any,
) -> None:
    recording = recording_on(connection)
    if isinstance(element, Insert):
        unit_of_work.before_insert(flush, connection, audited, options)
        recording.pending.append((element, ("insert", flush, audited, 0)))
    elif isinstance(element, Update):
        unit_of_work.before_update(flush, connection, audited, rows, options)
    else:
        keys = [tuple(row[column.key] for column in audited.key) for row in rows]
        copied = unit_of_work.before_delete(flush, connection, audited, rows, options, keys)
        recording.pending.append((element, ("delete", flush, audited, copied)))


@event.listens_for(Engine, "after_execute")
def _after_execute(
    connection: Connection, element: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    """Record what the statement that was taken in hand has done."""
    if not isinstance(element, UpdateBase) or INTERNAL in options:
        return
    recording = present_recording(connection)
    if recording is None:
        return
    job = _take(recording.pending, element)
    if job is None:
        return
    with fail_closed(connection):
        if isinstance(job, statements.Statement):
            statements.finish(job, result)
            return
        kind, flush, audited, copied = job
        if kind == "insert":
            unit_of_work.after_insert(flush, connection, audited, options, result)
        else:
            unit_of_work.check_deleted(audited, copied, result.rowcount)


def _take(pending: list[Any], element: Any) -> Any:
    """Take the job of a statement; jobs above it belong to statements that failed."""
    for place in range(len(pending) - 1, -1, -1):
        if pending[place][0] is element:
            job = pending[place][1]
            del pending[place:]
            return job
    return None


@event.listens_for(Engine, "before_cursor_execute")
def _before_cursor_execute(
    connection: Connection, cursor: Any, sql: str, parameters: Any, context: Any, executemany: bool
) -> None:
    """Refuse textual DML on audited tables, and DML that hides in the CTEs of a SELECT."""
    compiled = context.compiled if context is not None else None
    if compiled is not None and not isinstance(compiled.statement, TextClause | TextualSelect):
        ctes = getattr(compiled, "ctes", None)
        if ctes and not isinstance(compiled.statement, UpdateBase):
            _refuse_dml_in_ctes(ctes)
        return
    if context is not None and (context.isddl or INTERNAL in context.execution_options):
        return
    refuse_text(sql, known_trails())


def _refuse_dml_in_ctes(ctes: Any) -> None:
    for cte in ctes:
        element = getattr(cte, "element", None)
        if isinstance(element, UpdateBase):
            audited = audited_target(element)
            if audited is not None:
                raise UnauditedWrite(
                    f"{type(element).__name__.lower()} on {audited.table.fullname} inside a CTE can't be recorded: "
                    "execute it as a statement of its own"
                )


@event.listens_for(Engine, "savepoint")
def _savepoint(connection: Connection, name: str) -> None:
    """Begin SQLite's transaction before its first savepoint, or RELEASE would commit it."""
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite" and not getattr(driver, "in_transaction", True):
        cursor = connection.connection.cursor()
        try:
            cursor.execute("BEGIN")
        finally:
            cursor.close()


@event.listens_for(Engine, "rollback_savepoint")
def _rollback_savepoint(connection: Connection, name: str, context: Any) -> None:
    recording = present_recording(connection)
    if recording is not None:
        recording.rolled_back(name)


@event.listens_for(Engine, "release_savepoint")
def _release_savepoint(connection: Connection, name: str, context: Any) -> None:
    recording = present_recording(connection)
    if recording is not None:
        recording.released(name)


