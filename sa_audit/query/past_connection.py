"""Connections that see the past: one of the session's own, or a view of another session's.

The listeners stand on these classes themselves, so that no engine of the user's is touched and nothing has to be taken
away again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, NestedTransaction, RootTransaction
from sqlalchemy.sql.compiler import Compiled

from ..ddl.backend import INTERNAL
from ..errors import NotAudited, ReadOnlyPast
from ..model import AuditedTable
from .names import Former
from .past import Past
from .past_compiler import PastCompiler, PastDialect
from .past_state import MOMENT


class SharedConnection(Connection):
    """A second view of an open connection, through another engine: the same transaction, which it can't end.

    Args:
        engine: whose dialect and events apply.
        host: the open connection.
        quiet: whether the engine's events are left out, for what the library itself asks.
    """

    def __init__(self, engine: Engine, host: Connection, *, quiet: bool = False) -> None:
        self._host = host
        super().__init__(
            engine,
            connection=host.connection,
            _has_events=False if quiet else None,
            _allow_revalidate=False,
            _allow_autobegin=False,
        )

    def in_transaction(self) -> bool:
        """Tell whether the host is in a transaction."""
        return self._host.in_transaction()

    def in_nested_transaction(self) -> bool:
        """Tell whether the host is in a savepoint."""
        return self._host.in_nested_transaction()

    def get_transaction(self) -> RootTransaction | None:
        """Give the host's transaction."""
        return self._host.get_transaction()

    def get_nested_transaction(self) -> NestedTransaction | None:
        """Give the host's savepoint."""
        return self._host.get_nested_transaction()

    def begin(self) -> RootTransaction:
        """Refuse: the transaction is the host's."""
        raise ReadOnlyPast("a past session on another session's connection has no transaction of its own to begin")

    def begin_nested(self) -> NestedTransaction:
        """Refuse: the transaction is the host's."""
        raise ReadOnlyPast("a past session on another session's connection has no savepoints: it only reads")

    def _rollback_impl(self) -> None:
        """Leave the host's transaction alone, also after an error."""

    def _commit_impl(self) -> None:
        """Leave the host's transaction alone."""

    def close(self) -> None:
        """Leave the host's connection open."""


class _Retyped(NotAudited):
    """Columns had another type at the moment, so that the statement has to be compiled again."""

    def __init__(self, formers: dict[AuditedTable, dict[str, Former]]) -> None:
        super().__init__("columns had another type at that moment: execute the statement by execute()")
        self.formers = formers


class _SeesPast(Connection):
    """What both kinds of connections that see the past have in common."""

    past: Past
    live: Engine
    dialects: PastDialect
    before: bool | None
    tracked: set[tuple[AuditedTable, Any]]
    formers: dict[AuditedTable, dict[str, Former]]
    opened: bool = False

    def _take(self, past: Past, live: Engine, dialects: PastDialect) -> None:
        self.past, self.live, self.dialects = past, live, dialects
        self.before, self.tracked, self.formers = None, set(), {}

    def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Execute a statement, again if it turns out that columns of it had another type at the moment."""
        while True:
            try:
                return super().execute(statement, parameters, execution_options=execution_options)
            except _Retyped as found:
                self.formers |= found.formers
                self.dialect = self.dialects.knowing(self.formers)

    def scalar(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Give the first value; see :meth:`execute`."""
        return self.execute(statement, parameters, execution_options=execution_options).scalar()

    def scalars(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Give the first values; see :meth:`execute`."""
        return self.execute(statement, parameters, execution_options=execution_options).scalars()

    def present(self) -> Connection:
        """Give a view of this connection that sees the present, for what the library itself asks."""
        return SharedConnection(self.live, self, quiet=True).execution_options(compiled_cache=self.dialects.cache)

    def open(self) -> None:
        """Make sure, once, that the moment can be travelled to; from then on only reads of the past pass.

        Raises:
            InvalidMoment: if it lies in the future.
        """
        if not self.opened:
            self.past.look(self.present(), self.dialects.database, self.before)
            self.opened = True


class PastConnection(_SeesPast):
    """A connection from the engine's pool, whose transactions each read one snapshot.

    Args:
        engine: the past side of the engine.
        past: what the session knows.
        live: the engine.
        dialects: the past side of its dialect.
    """

    def __init__(self, engine: Engine, past: Past, live: Engine, dialects: PastDialect) -> None:
        self._take(past, live, dialects)
        dialects.database.before_connect(live)
        super().__init__(engine)
        self._has_events = True
        try:
            self.before = dialects.database.before_begin(self.present(), past.moment)
            self.connection.rollback()
            if dialects.database.connection_options:
                self.execution_options(**dialects.database.connection_options)
        except BaseException:
            self.close()
            raise


class BorrowedConnection(SharedConnection, _SeesPast):
    """A view of another session's connection that sees the past.

    Args:
        engine: the past side of the connection's engine.
        host: the connection.
        past: what the session knows.
        dialects: the past side of the engine's dialect.
    """

    def __init__(self, engine: Engine, host: Connection, past: Past, dialects: PastDialect) -> None:
        self._take(past, host.engine, dialects)
        super().__init__(engine, host)
        self._has_events = True


def past_engine(live: Engine, past: Past) -> Engine:
    """Give an engine that sees the past on a live engine's connections.

    Raises:
        ConfigurationError: for a database that the library does not know.
        InvalidMoment: if the database does not have this kind of moment.
    """
    dialects = past.dialects_of(live)
    engine = live.execution_options(**{"compiled_cache": dialects.cache, INTERNAL: True})
    engine.dialect = dialects.dialect
    engine._connection_cls = lambda own: PastConnection(own, past, live, dialects)  # type: ignore[assignment]
    return engine


def _before_execute(
    connection: _SeesPast, statement: Any, multi: Any, params: Any, _options: Any
) -> tuple[Any, Any, Any]:
    if not connection.opened:
        return statement, multi, params
    if isinstance(statement, Compiled):
        raise ReadOnlyPast("a statement that was compiled beforehand reads the present: give the statement itself")
    value = connection.past.parameter
    if multi:
        return statement, [{**connection.past.known(each), MOMENT: value} for each in multi], params
    return statement, multi, {**connection.past.known(params), MOMENT: value}


def _before_cursor_execute(
    connection: _SeesPast, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool
) -> None:
    if not connection.opened:
        return
    compiled = getattr(context, "compiled", None)
    if not isinstance(compiled, PastCompiler):
        raise ReadOnlyPast(
            f"this past session can't see what a statement does that goes to the driver as it is: {sql!r}; "
            "write it as a SQLAlchemy SELECT"
        )
    connection.past.require_present(compiled.present)
    translated = context.execution_options.get("schema_translate_map")
    place = tuple(sorted(translated.items(), key=repr)) if translated else None
    unknown = [audited for audited in compiled.touched if (audited, place) not in connection.tracked]
    if unknown:
        present = connection.present()
        if translated:
            present = present.execution_options(schema_translate_map=translated)
        connection.past.require_tracked(present, connection.dialects.database, unknown)
        connection.tracked.update((audited, place) for audited in unknown)
        formers = connection.past.formers(present, connection.dialects.database, unknown)
        if formers:
            raise _Retyped(formers)


for _class in (PastConnection, BorrowedConnection):
    event.listen(_class, "before_execute", _before_execute, retval=True)
    event.listen(_class, "before_cursor_execute", _before_cursor_execute)

__all__ = ["BorrowedConnection", "PastConnection", "SharedConnection", "past_engine"]
