"""Statements that go ahead of the next one, in one round trip with it where the driver can do that.

What the library has to execute before a statement, and whose result it needs only after it, waits on the recording
until that statement goes to the driver.  psycopg then sends both in a pipeline
(https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html); before a statement that can't stand in one, and before
many at once, which psycopg pipelines by itself, what waits is sent alone.  The order is the same in all cases, and if
what goes ahead fails the server skips the rest.
Imports of capture the recording only.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.sql.dml import UpdateBase

from ..errors import UnauditedWrite
from .recording import Ahead, Recording

_waiting: weakref.WeakKeyDictionary[Connection, Recording] = weakref.WeakKeyDictionary()


def goes_ahead(connection: Connection) -> bool:
    """Tell whether a connection's driver can send statements without waiting for the ones before."""
    dialect = connection.dialect
    return dialect.driver == "psycopg" and not dialect.is_async and _has_pipeline()


@functools.cache
def _has_pipeline() -> bool:
    from psycopg import Pipeline  # the driver is in use, so it is there

    return Pipeline.is_supported()


def wait(connection: Connection, recording: Recording, statement: Ahead) -> None:
    """Have a statement sent ahead of the next one on the connection."""
    recording.ahead.append(statement)
    _waiting[connection] = recording


def send(connection: Connection, recording: Recording) -> None:
    """Send what waits, now: something is about to be done that needs its result, or its effect."""
    if recording.ahead:
        waiting = _take(connection, recording)
        driver: Any = connection.connection.dbapi_connection
        _receive(waiting, [_sent(driver, one) for one in waiting])


def require_sent(recording: Recording) -> None:
    """Refuse a statement that was executed without what had to go ahead of it.

    Raises:
        UnauditedWrite: if something still waits.
    """
    if recording.ahead:
        raise UnauditedWrite(
            "a do_execute listener executed the statement by itself, before the rows it changes had been read: "
            "change statements in before_cursor_execute"
        )


def _take(connection: Connection, recording: Recording) -> list[Ahead]:
    _waiting.pop(connection, None)
    waiting, recording.ahead = recording.ahead, []
    return waiting


def _sent(driver: Any, one: Ahead) -> Any:
    cursor = driver.cursor()
    cursor.execute(one.sql, one.parameters)
    return cursor


def _receive(waiting: Sequence[Ahead], cursors: Sequence[Any]) -> None:
    for one, cursor in zip(waiting, cursors, strict=True):
        one.receive(cursor)
        cursor.close()


def _in_pipeline(cursor: Any, context: Any) -> bool:
    """Tell a statement that can stand in a pipeline: one compiled DML statement, through psycopg's usual cursor.

    (Text may be several statements or a COPY; a cursor that fills in parameters itself sends text, one of the server's
    is declared first.)
    """
    from psycopg import ClientCursor, Cursor, ServerCursor

    compiled = context.compiled
    return (
        compiled is not None
        and isinstance(compiled.statement, UpdateBase)
        and isinstance(cursor, Cursor)
        and not isinstance(cursor, ClientCursor | ServerCursor)
    )


def _waiting_on(context: Any) -> Recording | None:
    """Give the recording on which something waits for a statement that is about to be executed."""
    if not _waiting:
        return None
    connection = context.root_connection
    recording = _waiting.get(connection)
    if recording is not None and recording.root() is not connection.get_transaction():
        _take(connection, recording)  # its transaction has ended, and nothing is left to be done in it
        return None
    return recording


@event.listens_for(Engine, "do_execute", insert=True)
def _do_execute(cursor: Any, sql: str, parameters: Any, context: Any) -> bool:
    """Execute a statement with what waits for it; or that only, if there can be no pipeline."""
    recording = _waiting_on(context)
    if recording is None:
        return False
    connection = context.root_connection
    if not _in_pipeline(cursor, context):
        send(connection, recording)
        return False
    from psycopg import Error

    waiting, driver = _take(connection, recording), cursor.connection
    with driver.pipeline() as pipeline:
        try:
            cursors = [_sent(driver, one) for one in waiting]
            context.dialect.do_execute(cursor, sql, parameters, context)
        except Error:
            with suppress(Error):  # the rest was skipped because of the error that is raised
                pipeline.sync()
            raise
    _receive(waiting, cursors)
    return True


@event.listens_for(Engine, "do_executemany", insert=True)
def _do_executemany(cursor: Any, sql: str, parameters: Any, context: Any) -> None:
    _send_first(context)


@event.listens_for(Engine, "do_execute_no_params", insert=True)
def _do_execute_no_params(cursor: Any, sql: str, context: Any) -> None:
    _send_first(context)


def _send_first(context: Any) -> None:
    recording = _waiting_on(context)
    if recording is not None:
        send(context.root_connection, recording)


__all__ = ["goes_ahead", "require_sent", "send", "wait"]
