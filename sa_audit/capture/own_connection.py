"""A connection of the trail's own, on which what must survive a rollback is committed at once.

It comes from ``configure(record_engine=)``, or from an engine derived from the session's, with a pool of its own: a
second connection from the same small pool would deadlock its readers.  SQLite has one writer, and an in-memory database
one connection, so there the backend says where it is written.  Imports model, ddl, and of capture the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError

from ..ddl.backend import INTERNAL, backend_for
from ..model.history import Trail

_DERIVED: Final = "_sa_audit_record_engines"
_OWN: Final = "sa_audit_own"


class RecordEngine(OptionEngine):
    """An engine with the dialect, events and connections' settings of another one, and a pool of its own."""

    pool: Any = None

    def __init__(self, source: Engine, options: dict[str, Any]) -> None:
        super().__init__(source, options)
        self.pool = source.pool.recreate()


def record_engine(connection: Connection, trail: Trail, *, relaxed: bool = False) -> Engine:
    """Give the engine on which what was seen on a connection is recorded.

    Args:
        connection: a connection of the session's.
        trail: whose configuration holds.
        relaxed: whether its commits need not wait for the disk, where the database can do that.
    """
    given = trail.configuration.record_engine
    source: Engine = getattr(given, "sync_engine", given) or connection.engine
    setting = backend_for(connection.dialect).relaxed_setting if relaxed else None
    if given is not None and setting is None:
        return source
    known: dict[Any, RecordEngine] = source.dialect.__dict__.setdefault(_DERIVED, {})
    engine = known.get((source.url, setting))
    if engine is None:
        engine = known[source.url, setting] = _derived(source, setting)
    return engine


def _derived(source: Engine, setting: str | None) -> RecordEngine:
    options: dict[str, Any] = {INTERNAL: True}
    if getattr(source.dialect, "_on_connect_isolation_level", None) == "AUTOCOMMIT":
        options["isolation_level"] = source.dialect.default_isolation_level
    engine = RecordEngine(source, options)
    if setting is not None:

        @event.listens_for(engine.pool, "connect")
        def _relax(driver: Any, record: Any) -> None:
            cursor = driver.cursor()
            cursor.execute(setting)
            cursor.close()
            driver.commit()

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
