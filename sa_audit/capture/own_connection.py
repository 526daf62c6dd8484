"""A connection of the trail's own, on which what must survive a rollback is committed at once.

It comes from ``configure(record_engine=)``, or from an engine derived from the session's, with a pool of its own: a
second connection from the same small pool would deadlock its readers.  SQLite has one writer, and an in-memory database
one connection, so there the backend says where it is written.  Imports model, ddl and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool.base import ResetStyle

from ..ddl.backend import INTERNAL, backend_for
from ..errors import UnauditedWrite
from ..model.history import Trail

_DERIVED: Final = "_sa_audit_record_engines"
AUTOCOMMIT: Final = "AUTOCOMMIT"
_OWN: Final = "sa_audit_own"


class RecordEngine(OptionEngine):
    """An engine with the dialect, events and connections' settings of another one, and a pool of its own."""

    pool: Any = None

    def __init__(self, source: Engine, options: dict[str, Any]) -> None:
        super().__init__(source, options)
        self.pool = source.pool.recreate()


def record_engine(connection: Connection, trail: Trail, *, relaxed: bool = False, at_once: bool = False) -> Engine:
    """Give the engine on which what was seen on a connection is recorded.

    Args:
        connection: a connection of the session's.
        trail: whose configuration holds.
        relaxed: whether its commits need not wait for the disk, where the database can do that.
        at_once: whether each statement commits by itself; that engine has its own pool also where one is configured.
    """
    given = trail.configuration.record_engine
    source: Engine = getattr(given, "sync_engine", given) or connection.engine
    setting = backend_for(connection.dialect).relaxed_setting if relaxed else None
    if given is not None and setting is None and not at_once:
        return source
    known: dict[Any, RecordEngine] = source.dialect.__dict__.setdefault(_DERIVED, {})
    engine = known.get((source.url, setting, at_once))
    if engine is None:
        engine = known[source.url, setting, at_once] = _derived(source, setting, at_once=at_once)
    return engine


def _derived(source: Engine, setting: str | None, *, at_once: bool) -> RecordEngine:
    options: dict[str, Any] = {INTERNAL: True}
    if not at_once and getattr(source.dialect, "_on_connect_isolation_level", None) == AUTOCOMMIT:
        options["isolation_level"] = source.dialect.default_isolation_level
    engine = RecordEngine(source, options)
    if setting is not None:

        @event.listens_for(engine.pool, "connect")
        def _relax(driver: Any, record: Any) -> None:
            cursor = driver.cursor()
            cursor.execute(setting)
            cursor.close()
            driver.commit()

    if at_once:
        engine.pool._reset_on_return = ResetStyle.reset_none  # there is no transaction to roll back

        @event.listens_for(engine.pool, "connect")
        def _commit_each(driver: Any, record: Any) -> None:
            engine.dialect.set_isolation_level(driver, AUTOCOMMIT)

    return engine


@event.listens_for(Engine, "engine_disposed")
def _disposed(engine: Engine) -> None:
    """Close what was derived with what it was derived from."""
    if not isinstance(engine, RecordEngine):
        for derived in list(engine.dialect.__dict__.get(_DERIVED, {}).values()):
            derived.dispose()


def writable(connection: Connection) -> Connection:
    """Give the view of a connection on which the library writes: one of the present, if it sees the past."""
    present = getattr(connection, "present", None)
    return present() if present is not None else connection


@contextmanager
def own_transaction(connection: Connection, trail: Trail, *, relaxed: bool = False) -> Iterator[Connection]:
    """Give a connection of the trail's own in a transaction, committed at the end; tables go by the same names.

    Args:
        connection: a connection of the session's.
        trail: whose.
        relaxed: as in :func:`record_engine`.
    """
    if trail.configuration.record_engine is None and backend_for(connection.dialect).stands_alone(connection):
        with _committed(connection):
            yield connection
        return
    engine = record_engine(connection, trail, relaxed=relaxed)
    schemas = connection.get_execution_options().get("schema_translate_map")
    options: dict[str, Any] = {INTERNAL: True, _OWN: True, **({"schema_translate_map": schemas} if schemas else {})}
    with engine.connect() as own, own.execution_options(**options).begin():
        yield own


def execute_at_once(engine: Engine, sql: str, parameters: Any) -> Any:
    """Execute a statement that commits by itself, past SQLAlchemy's own execution, which costs as much as it does.

    Args:
        engine: from :func:`record_engine` with ``at_once``.
        sql: in the driver's own form.
        parameters: likewise.

    Returns:
        The first row of its result.

    Raises:
        DBAPIError: as SQLAlchemy raises it.
        UnauditedWrite: if the connection is in a transaction, whose end would take the statement with it.
    """
    dialect: Any = engine.dialect
    fairy: Any = engine.raw_connection()
    try:
        if not getattr(fairy.dbapi_connection, "autocommit", False):
            raise UnauditedWrite(
                f"a connection of {engine!r} is not in AUTOCOMMIT, so that a read could be shown without its record: "
                "let no event listener change the isolation level of connections that a pool makes"
            )
        cursor = fairy.cursor()
        try:
            cursor.execute(sql, parameters)
            return cursor.fetchone()
        finally:
            cursor.close()
    except dialect.loaded_dbapi.Error as error:
        lost = dialect.is_disconnect(error, fairy.dbapi_connection, None)
        if lost:
            engine.pool._invalidate(fairy, error)
        raise _wrapped(engine, sql, parameters, error, lost) from error
    except BaseException as error:
        fairy.invalidate(error)  # it may be in the middle of the statement
        raise
    finally:
        fairy.close()


def _wrapped(engine: Engine, sql: str, parameters: Any, error: Any, lost: bool) -> BaseException:
    dialect: Any = engine.dialect
    wrapped: BaseException = DBAPIError.instance(
        sql,
        parameters,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=engine.hide_parameters,
        connection_invalidated=lost,
        dialect=dialect,
    )
    return wrapped


def is_own(connection: Connection) -> bool:
    """Tell whether a connection is one of the trail's own, in :func:`own_transaction`."""
    return bool(connection.get_execution_options().get(_OWN))


def is_deadlock(error: DBAPIError) -> bool:
    """Tell whether a transaction was given up so that others go on, and may be tried again."""
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    number = next(iter(getattr(error.orig, "args", ())), None)
    return code in ("40P01", "40001") or number == 1213


@contextmanager
def _committed(connection: Connection) -> Iterator[None]:
    """Commit what is written on a driver's connection that was in no transaction, whatever SQLAlchemy has begun."""
    driver: Any = connection.connection.dbapi_connection
    try:
        yield
    except BaseException:
        driver.rollback()
        raise
    driver.commit()
