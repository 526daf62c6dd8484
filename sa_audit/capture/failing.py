"""Failing: what can't be recorded is rolled back, and a trail that is not there is named.

Imports ddl and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..ddl.backend import Target, backend_for
from ..errors import CaptureMissing


@contextmanager
def missing_tables_named(connection: Connection, target: Target) -> Iterator[None]:
    """Turn a database error into :class:`CaptureMissing` where it comes from a trail that is not there."""
    try:
        yield
    except DBAPIError as error:
        abandon(connection)
        missing = None if error.connection_invalidated else missing_table(connection, target)
        if missing is None:
            raise
        raise CaptureMissing(
            f"the database has no table {missing}, so changes of {target.audited.table.fullname} can't be recorded: "
            "create it with metadata.create_all() or a migration"
        ) from error


def missing_table(connection: Connection, target: Target) -> str | None:
    """Look for the trail's tables through the driver, since the connection's transaction has ended."""
    backend = backend_for(connection.dialect)
    fairy = connection.connection
    for table in (
        target.trail.transaction,
        target.audited.history,
        *target.trail.records,
        *target.trail.secrets_tables,
    ):
        cursor = fairy.cursor()
        try:
            name = backend.table_name(table, target.schemas).replace("\\:", ":")
            cursor.execute(f"SELECT 1 FROM {name} WHERE 1 = 0")
        except connection.dialect.loaded_dbapi.Error:
            return table.fullname
        finally:
            cursor.close()
            fairy.rollback()
    return None


def abandon(connection: Connection) -> None:
    """Roll the root transaction back, so that catching the error can't keep a change without its record.

    The transaction stays on the connection, inactive: its owner can only roll it back, and without a warning that it
    is gone already; whoever goes on, or commits, is told.
    """
    root = connection.get_transaction()
    if root is not None and root.is_active:
        try:
            root._connection_rollback_impl()
        finally:
            root.is_active = False


@contextmanager
def fail_closed(connection: Connection) -> Iterator[None]:
    """Run what records; if it fails, the change goes with it."""
    try:
        yield
    except BaseException:
        abandon(connection)
        raise
