"""Statements that go ahead of the next one, in one round trip with it where the driver can do that.

What the library has to execute before a statement, and whose result it needs only after it, waits on the recording
until that statement goes to the driver.  psycopg then sends both in a pipeline
(https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html); before a statement that can't stand in one, what waits
is sent by itself.  The order is the same in both cases, and if what goes ahead fails the server skips the rest.
Imports of capture the recording only.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
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

    (Text may be several statements or a COPY, and a cursor that fills in parameters itself sends text.)
    """
    from psycopg import ClientCursor, Cursor

    compiled = context.compiled
    return (
        compiled is not None
        and isinstance(compiled.statement, UpdateBase)
        and isinstance(cursor, Cursor)
        and not isinstance(cursor, ClientCursor)
    )


def _execute(run: Callable[[], None], cursor: Any, context: Any) -> bool:
    """Send what waits and then the statement, in a pipeline; or only the former, if that can't be.

    Returns:
        Whether the statement has been executed.
    """
    if not _waiting:
        return False
    connection = context.root_connection
    recording = _waiting.get(connection)
    if recording is None:
        return False
    if recording.root() is not connection.get_transaction():  # it was rolled back, and they with it
        _take(connection, recording)
        return False
    if not _in_pipeline(cursor, context):
        send(connection, recording)
        return False
    waiting, driver = _take(connection, recording), cursor.connection
    cursors: list[Any] = []
    with driver.pipeline():
        for one in waiting:
            cursors.append(_sent(driver, one))  # noqa: PERF401 - those that were sent before one fails
        run()
    _receive(waiting, cursors)
    return True


@event.listens_for(Engine, "do_execute", insert=True)
def _do_execute(cursor: Any, sql: str, parameters: Any, context: Any) -> bool:
    return _execute(lambda: context.dialect.do_execute(cursor, sql, parameters, context), cursor, context)


@event.listens_for(Engine, "do_executemany", insert=True)
def _do_executemany(cursor: Any, sql: str, parameters: Any, context: Any) -> bool:
    return _execute(lambda: context.dialect.do_executemany(cursor, sql, parameters, context), cursor, context)


@event.listens_for(Engine, "do_execute_no_params", insert=True)
def _do_execute_no_params(cursor: Any, sql: str, context: Any) -> bool:
    return _execute(lambda: context.dialect.do_execute_no_params(cursor, sql, context), cursor, context)


__all__ = ["goes_ahead", "require_sent", "send", "wait"]
