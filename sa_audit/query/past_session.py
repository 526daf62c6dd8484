"""Sessions that see the past.

A session over an engine reads in a transaction of its own, one snapshot.  A session over another session reads on that
session's connections, within its transaction, and can neither end nor disturb it.
"""

from __future__ import annotations

from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase

from ..errors import ReadOnlyPast
from .past import Past
from .past_connection import BorrowedConnection, PastConnection, past_engine


class PastSession(Session):
    """A session over an engine in which every query sees the past, and that does not write.

    Args:
        past: what it knows.
        live: the engine.
    """

    def __init__(self, past: Past, live: Engine, **options: Any) -> None:
        super().__init__(autoflush=False, **options)
        self.past = past
        self._live = live
        self._engines: dict[Engine, Engine] = {}

    def open(self) -> None:
        """Take the snapshot, and make sure that the moment can be travelled to."""
        self.connection()
        self._tell()

    def flush(self, objects: Any = None) -> None:
        """Refuse to write what was changed in the session.

        Raises:
            ReadOnlyPast: if an object was added, changed or deleted.
        """
        changed = [*self.new, *self.deleted, *(item for item in self.dirty if self.is_modified(item))]
        if changed:
            raise ReadOnlyPast(
                f"{type(changed[0]).__name__} was changed in a past session: the past can't be written; "
                "use sa_audit.restore() or revert(), or change the object in a session of the present"
            )
        super().flush(objects)

    def execute(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """Execute a SELECT.

        Raises:
            ReadOnlyPast: for a statement that writes.
        """
        _refuse_dml(statement)
        return super().execute(statement, *args, **kw)

    def scalar(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """Give the first value of a SELECT; raises as :meth:`execute` does."""
        _refuse_dml(statement)
        return super().scalar(statement, *args, **kw)

    def scalars(self, statement: Any, *args: Any, **kw: Any) -> Any:
        """Give the first value of each row of a SELECT; raises as :meth:`execute` does."""
        _refuse_dml(statement)
        return super().scalars(statement, *args, **kw)

    def _bulk_save_mappings(self, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse the methods whose names begin with ``bulk_``, before SQLAlchemy opens a flush for them."""
        raise ReadOnlyPast("a bulk write in a past session: the past can't be written; use a session of the present")

    def get_bind(self, mapper: Any = None, **_arguments: Any) -> Any:
        """Give the engine that sees the past."""
        return self._past_engine(self._live)

    def _past_engine(self, live: Engine) -> Engine:
        known = self._engines.get(live)
        if known is None:
            known = self._engines[live] = past_engine(live, self.past)
        return known

    def _connection_for_bind(self, engine: Any, execution_options: Any = None, **kw: Any) -> Connection:
        connection = super()._connection_for_bind(engine, execution_options, **kw)
        if isinstance(connection, PastConnection):
            connection.open()
            self._tell()
        return connection

    def _tell(self) -> None:
        self.info["settled"] = self.past.settled


class BorrowingPastSession(PastSession):
    """A past session on the connections of another session, whose own uncommitted history it sees.

    Args:
        past: what it knows.
        host: the other session.
    """

    def __init__(self, past: Past, host: Session, **options: Any) -> None:
        Session.__init__(self, autoflush=False, **options)
        self.past = past
        self._host = host
        self._engines = {}
        self._views: WeakKeyDictionary[Connection, BorrowedConnection] = WeakKeyDictionary()

    def open(self) -> None:
        """Make sure that the moment can be travelled to, if the session has one database for everything."""
        self._tell()
        if self._host.autoflush:
            self._host.flush()
        try:
            bind = self._host.get_bind()
        except sa.exc.UnboundExecutionError:
            return
        self._connection_for_bind(bind)

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Any:
        """Give what the other session is bound to for this query."""
        return self._host.get_bind(mapper, **arguments)

    def _connection_for_bind(self, engine: Any, execution_options: Any = None, **_kw: Any) -> Connection:
        if not self.in_transaction():
            self.begin()
        host = self._host.connection(bind_arguments={"bind": engine})
        view = self._views.get(host)
        if view is None or view.connection is not host.connection:
            past = self._past_engine(host.engine)
            view = BorrowedConnection(past, host, self.past, self.past.dialects_of(host.engine))
            view.open()
            self._views[host] = view
            self._tell()
        return view


def _refuse_dml(statement: Any) -> None:
    if isinstance(statement, UpdateBase):
        raise ReadOnlyPast(
            f"{type(statement).__name__.upper()} in a past session: the past can't be written; "
            "use sa_audit.restore() or revert()"
        )
