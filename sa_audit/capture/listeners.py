"""The listeners, on the classes ``Session`` and ``Engine``, since no session or engine may be forgotten.

They are registered once, when this module is imported, and act on audited tables only; their state belongs to the
connection's transaction.  Imports model, ddl, and the rest of capture.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import TextualSelect

from ..ddl.backend import INTERNAL, backend_for, is_supported, noted_trails
from ..errors import UnauditedWrite
from ..model.declaration import late_secondary
from ..model.history import AuditedTable, audited_of, known_trails
from ..model.policy import policy_of
from . import by_trigger, captured, foreign_keys, inserts, parents, statements, unit_of_work
from . import statement as dml
from .failing import fail_closed
from .keys import links_by_key
from .recording import begin_operation, present_recording, recording_on
from .returned import is_returned
from .same_table import holds_history, refuse_other_name
from .storing import encrypt_values
from .text import refused_tables, written_tables
from .upserts import updates, upsert_clauses

_CLEAN: Final = "_sa_audit_writes_nothing_hidden"

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
    if isinstance(element, Compiled):
        _refuse_compiled(connection, element, options)
    write = _written(element)
    if write is None or INTERNAL in options:
        return element, multiparams, params
    rows = list(multiparams) if multiparams else ([params] if params else [])
    audited = audited_target(write) or late_secondary(write.table)
    captured.require_reached(connection, write.table, options)
    if audited is None:
        refuse_other_name(connection, write.table)
        captured.require_named(connection, write.table)
        return _begin_parent(connection, element, write, rows, options), multiparams, params
    if audited.by_trigger:
        with fail_closed(connection):
            by_trigger.admit_write(connection, audited, options)
            stored, rows = encrypt_values(connection, audited, write, rows, options)
        if stored is not write:
            element, write = (stored if element is write else _selecting(element, stored)), stored
        element = _begin_parent(connection, element, write, rows, options)
        return element, (rows if len(rows) > 1 else []), (rows[0] if len(rows) == 1 else {})
    flush = unit_of_work.current_flush()
    if flush is not None and "compiled_cache" not in options and not _removes_links(audited, element, rows):
        flush = None
    with fail_closed(connection):
        unit_of_work.record_so_far(connection, audited, besides=flush)
        if flush is not None:
            _begin_flush_statement(flush, connection, audited, element, rows, options)
            return element, multiparams, params
        statement = _begin_statement(connection, audited, write, rows, options, fixed=write is not element)
        return _replace(element, write, statement), multiparams, params


def _removes_links(audited: AuditedTable, element: Any, rows: list[Any]) -> bool:
    """Tell the DELETE by key that a flush executes on an association table, which goes past its own statements."""
    return (
        isinstance(element, Delete)
        and bool(rows)
        and not (element._returning or element._prefixes or element._independent_ctes)
        and links_by_key(audited, element, rows) is not None
    )


def _refuse_compiled(connection: Connection, element: Compiled, options: Any) -> None:
    """Refuse DML that was compiled before it is executed: it can't be narrowed to the rows that were read."""
    write = _written(element.statement)
    audited = audited_target(write) if write is not None else None
    if audited is not None and audited.by_trigger:
        by_trigger.admit_write(connection, audited, options)
    elif audited is not None:
        raise UnauditedWrite(
            f"a compiled {type(write).__name__.lower()} on {audited.table.fullname} can't be recorded: "
            "execute the statement itself"
        )
    elif write is not None:
        refuse_other_name(connection, write.table)
        captured.require_named(connection, write.table)


def _written(element: Any) -> Any:
    """Give the DML statement in what is executed, or None: itself, or what an ORM entity is selected from."""
    if isinstance(element, FromStatement):
        element = element.element
    return element if isinstance(element, UpdateBase) else None


def _selecting(element: Any, write: UpdateBase) -> Any:
    """Give what selects an ORM entity from a statement, from another one."""
    executed = element._generate()
    executed.element = write
    return executed


def _replace(element: Any, write: UpdateBase, statement: dml.Statement) -> Any:
    """Give what is executed in place of a statement, and wait for its end."""
    executed = statement.element
    if write is not element:
        executed = _selecting(element, statement.element)
    statement.recording.pending.append((executed, statement))
    return executed


def _begin_parent(connection: Connection, element: Any, write: Any, rows: list[Any], options: Any) -> Any:
    """Take a statement in hand that changes audited rows by foreign keys only."""
    parent = parents.parent_of(write)
    if parent is None:
        return element
    with fail_closed(connection):
        for audited in map(foreign_keys.session_audited, foreign_keys.closure(parent.table)):
            if audited is not None:
                unit_of_work.record_so_far(connection, audited)
        return _replace(element, write, parents.begin(connection, parent, write, rows, options))


def _begin_statement(
    connection: Connection, audited: AuditedTable, element: Any, rows: list[Any], options: Any, *, fixed: bool
) -> dml.Statement:
    statement = dml.begin(connection, audited, element, rows, options)
    statement.columns_fixed = fixed
    if isinstance(element, Insert):
        inserts.before_insert(statement)
    elif isinstance(element, Update):
        statements.before_update(statement)
    elif isinstance(element, Delete):
        statements.before_delete(statement)
    else:
        raise UnauditedWrite(
            f"{element.__visit_name__} on {audited.table.fullname} can't be recorded: "
            "use insert(), update() or delete()"
        )
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
        unit_of_work.refuse_unknown_key(audited, element)
        unit_of_work.before_update(flush, connection, audited, rows, options)
        unit_of_work.reach_referring(flush, connection, audited, element, rows, options)
        recording.pending.append((element, ("update", flush, audited, 0)))
    else:
        keys = links_by_key(audited, element, rows) if "compiled_cache" not in options else None
        versioned = keys is None and any(len(row) > len(audited.key) for row in rows)
        if keys is None:
            keys = [tuple(row[column.key] for column in audited.key) for row in rows]
        copied = unit_of_work.before_delete(flush, connection, audited, rows, options, keys)
        recording.pending.append((element, ("versioned delete" if versioned else "delete", flush, audited, copied)))


@event.listens_for(Engine, "after_execute")
def _after_execute(
    connection: Connection, element: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    """Record what the statement that was taken in hand has done."""
    if _written(element) is None or INTERNAL in options:
        return
    recording = present_recording(connection)
    job = _take(recording.pending, element) if recording is not None else None
    with fail_closed(connection):
        if job is None:
            _refuse_replaced(_written(element))
            return
        if isinstance(job, dml.Statement):
            dml.finish(job, result)
            return
        kind, flush, audited, copied = job
        if kind == "insert":
            unit_of_work.after_insert(flush, connection, audited, options, result)
        elif kind == "delete":
            unit_of_work.check_deleted(audited, copied, result.rowcount)
        unit_of_work.settle(flush, connection, audited)
    if kind == "versioned delete":
        unit_of_work.check_version(audited, copied, result.rowcount)


def _refuse_replaced(element: UpdateBase) -> None:
    """Refuse a statement that was not the one to be recorded when it came by before it was executed."""
    audited = audited_target(element)
    if audited is not None and not audited.by_trigger:
        raise UnauditedWrite(
            f"a before_execute listener replaced the {element.__visit_name__} on {audited.table.fullname} "
            "after it had been read, so what it changed is not known: change statements in before_cursor_execute, or "
            "listen on the class Engine before sa_audit is imported"
        )


def _take(pending: list[Any], element: Any) -> Any:
    """Take the job of a statement; jobs above it belong to statements that failed."""
    for place in range(len(pending) - 1, -1, -1):
        if pending[place][0] is element:
            job = pending[place][1]
            del pending[place:]
            return job
    return None


@event.listens_for(Engine, "handle_error")
def _handle_error(context: Any) -> None:
    """Take back what was recorded before a statement that then failed."""
    connection = context.connection
    execution = context.execution_context
    if connection is not None and execution is not None and not context.is_disconnect:
        written = _written(execution.compiled.statement) if execution.compiled is not None else None
        by_trigger.name_missing(connection, written, context.original_exception)
    recording = present_recording(connection) if connection is not None else None
    if recording is None or not recording.pending or context.is_disconnect:
        return
    job = recording.pending[-1][1]
    if isinstance(job, dml.Statement):
        recording.pending.pop()
        dml.undo(job)
    else:
        job[1].failed = True


@event.listens_for(Session, "after_transaction_create")
def _after_transaction_create(session: Session, transaction: SessionTransaction) -> None:
    """Tell one of the session's bulk methods from the next, as each begins a subtransaction."""
    begin_operation()


@event.listens_for(Session, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> Any:
    """Have an ORM INSERT with RETURNING return what recording needs as well, which the user does not see."""
    element: Any = state.statement
    if isinstance(element, UpdateBase):
        begin_operation()
    if not isinstance(element, Insert) or not element._returning:
        return None
    audited = audited_target(element)
    if audited is None or audited.by_trigger:
        return None
    added: list[Any] = [column for column in audited.key if not is_returned(element, column)]
    if any(updates(clause) for clause in upsert_clauses(element)):
        marker = backend_for(state.session.get_bind(**state.bind_arguments).dialect).upsert_marker(audited.table)
        added += [] if marker is None else [marker]
    if not added:
        return None
    result = state.invoke_statement(statement=element.returning(*added))
    return result.columns(*range(len(result.keys()) - len(added)))


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _before_cursor_execute(
    connection: Connection, cursor: Any, sql: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    """Refuse textual DML on audited tables, and DML that hides inside another statement; change nothing."""
    compiled = context.compiled if context is not None else None
    if context is None or INTERNAL not in context.execution_options:
        by_trigger.tell(connection, sql, context)
        if compiled is None or _CLEAN not in compiled.__dict__:
            _check_text(connection, sql, context, compiled)
    return sql, parameters


def _check_text(connection: Connection, sql: str, context: Any, compiled: Any) -> None:
    """Refuse what can't be recorded; a compiled statement with no such thing in it is known by it from then on.

    (The driver may be called once for each of many rows.)
    """
    if compiled is not None and not isinstance(compiled.statement, TextClause | TextualSelect | sa.DDL):
        if context.isddl:
            return
        hidden, has_text = _hidden_writes(compiled)
        for element in hidden:
            _refuse_hidden(connection, element)
        if not has_text:
            if not hidden:
                compiled.__dict__[_CLEAN] = True
            return
    truncate = is_supported(connection.dialect) and backend_for(connection.dialect).records_truncate
    for audited in refused_tables(sql, known_trails(), noted_trails(connection.dialect), truncate=truncate):
        if holds_history(connection, audited):
            raise UnauditedWrite(
                f"a textual statement that writes the audited table {audited.table.fullname} would not be recorded: "
                f"use insert(), update() or delete(), or configure(text_dml='allow'){_beginning(sql, audited)}"
            )
    captured.require_written(connection, sql)


def _beginning(sql: str, audited: AuditedTable) -> str:
    """Give how a text begins, unless it may hold the value of a column with a policy."""
    if any(policy_of(column.info, str(column)) for column in audited.table.columns):
        return ""
    return f"; it begins {sql.strip()[:60]!r}"


def _hidden_writes(compiled: Any) -> tuple[list[UpdateBase], bool]:
    """Give the DML inside a compiled statement, and whether text that may write is in it."""
    element = compiled.statement
    write = _written(element)
    hidden = [inner for inner in dml.nested_writes(element) if inner is not write]
    texts = (inner for inner in visitors.iterate(element) if isinstance(inner, TextClause))
    return hidden, any(written_tables(text.text) for text in texts)


def _refuse_hidden(connection: Connection, element: UpdateBase) -> None:
    audited = audited_target(element)
    captured.require_reached(connection, element.table, connection.get_execution_options())
    if audited is not None and audited.by_trigger:
        captured.require_capture(connection, audited, connection.get_execution_options())
        return
    if audited is not None or parents.parent_of(element) is not None:
        table = audited.table if audited is not None else element.table
        raise UnauditedWrite(
            f"{element.__visit_name__} on {table} inside another statement can't be recorded: "
            "execute it as a statement of its own"
        )


@event.listens_for(Engine, "savepoint")
def _savepoint(connection: Connection, name: str) -> None:
    from ..ddl.sqlite import begin_before_savepoint  # most processes have no use for the rest of that module

    begin_before_savepoint(connection)


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
