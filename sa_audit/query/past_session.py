"""Sessions that see the past, and how they get at a connection.

A session over an engine reads in a transaction of its own, one snapshot.  A session over another session reads on that
session's connections, within its transaction, and can neither end nor disturb it.  Nothing here is global: what a past
session knows stands in its :class:`Past`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, NestedTransaction, RootTransaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.sql.selectable import TableClause

from ..errors import CaptureMissing, ConfigurationError, InvalidMoment, NotAudited, ReadOnlyPast
from ..model import AuditedTable, Marker, audited_of
from .moment import Moment, WallClock
from .past_compiler import PastCompiler, PastDialect, past_dialect
from .past_state import MOMENT, recorded_at


class SharedConnection(Connection):
    """A second view of an open connection, through another engine: the same transaction, which it can't end.

    Args:
        engine: whose dialect and events apply.
        host: the open connection.
    """

    def __init__(self, engine: Engine, host: Connection) -> None:
        self._host = host
        super().__init__(engine, connection=host.connection, _allow_revalidate=False, _allow_autobegin=False)

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


class Past:
    """What one past session knows: its moment, what it may read as it is now, and what it has made sure of.

    Args:
        moment: the moment.
        present: mapped classes and tables that may be read as they are now.

    Raises:
        ConfigurationError: if one of them is no table, or is audited.
    """

    def __init__(self, moment: Moment, present: Iterable[Any]) -> None:
        self.moment = moment
        self.present = frozenset(table for item in present for table in _tables_of(item))
        self.names = frozenset(table.fullname for table in self.present if not isinstance(table, sa.Table))
        self.settled: bool | None = None
        self._opened: WeakKeyDictionary[Connection, tuple[Engine, PastDialect]] = WeakKeyDictionary()
        self._before: WeakKeyDictionary[Connection, bool | None] = WeakKeyDictionary()
        self._tracked: WeakKeyDictionary[Connection, set[tuple[AuditedTable, Any]]] = WeakKeyDictionary()
        self._looks: list[bool | None] = []

    def dialect_of(self, engine: Engine) -> PastDialect:
        """Give the past side of an engine's dialect.

        Raises:
            InvalidMoment: if the database does not have this kind of moment.
        """
        if getattr(engine.dialect, "server_version_info", None) is None:
            engine.connect().close()
        past = past_dialect(engine.dialect, type(self.moment))
        past.database.accept(self.moment)
        return past

    def engine(self, live: Engine, *, owned: bool) -> Engine:
        """Give an engine that sees the past on a live engine's connections.

        Args:
            live: the engine.
            owned: whether its transactions are to be the past session's own: read-only, one snapshot.
        """
        past = self.dialect_of(live)
        options = past.database.engine_options if owned else {}
        engine = live.execution_options(compiled_cache=past.cache, **options)
        engine.dialect = past.dialect
        event.listen(engine, "before_execute", self._before_execute, retval=True)
        event.listen(engine, "before_cursor_execute", self._before_cursor_execute)
        if owned:
            event.listen(engine, "engine_connect", self._engine_connect)
            event.listen(engine, "begin", self._begin)
        return engine

    def open(self, connection: Connection, live: Engine) -> Connection:
        """Make sure, once for each connection, that the moment can be travelled to; from then on only reads pass.

        Raises:
            InvalidMoment: if it lies in the future.
        """
        if connection in self._opened:
            return connection
        past = self.dialect_of(live)
        present = SharedConnection(live, connection)
        past.database.check_future(present, self.moment)
        self._looks.append(past.database.settled(present, self.moment, self._before.get(connection)))
        self.settled = False if False in self._looks else None if None in self._looks else True
        self._opened[connection] = (live, past)
        return connection

    # -- events of the past engine --------------------------------------------------------------------------------

    def _engine_connect(self, connection: Connection) -> None:
        past = past_dialect(_live(connection.engine).dialect, type(self.moment))
        self._before[connection] = past.database.before_begin(connection, self.moment)

    def _begin(self, connection: Connection) -> None:
        past_dialect(_live(connection.engine).dialect, type(self.moment)).database.begin(connection)

    def _before_execute(
        self, connection: Connection, statement: Any, multi: Any, params: Any, _options: Any
    ) -> tuple[Any, Any, Any]:
        if connection not in self._opened:
            return statement, multi, params
        if isinstance(statement, Compiled):
            raise ReadOnlyPast("a statement that was compiled beforehand reads the present: give the statement itself")
        value = self.moment.at if isinstance(self.moment, WallClock) else self.moment.text
        if multi:
            return statement, [{**_unmarked(each), MOMENT: value} for each in multi], params
        return statement, multi, {**_unmarked(params), MOMENT: value}

    def _before_cursor_execute(
        self, connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        if connection not in self._opened:
            return
        compiled = getattr(context, "compiled", None)
        if not isinstance(compiled, PastCompiler):
            raise ReadOnlyPast(
                f"this past session can't see what a statement does that goes to the driver as it is: {sql!r}; "
                "write it as a SQLAlchemy SELECT"
            )
        self._check_present(compiled.present)
        self._check_tracked(connection, compiled.touched, context.execution_options.get("schema_translate_map"))

    def _check_present(self, tables: Iterable[TableClause]) -> None:
        for table in tables:
            if table in self.present or (not isinstance(table, sa.Table) and table.fullname in self.names):
                continue
            raise NotAudited(
                f"table {table.fullname} has no history, so its past is not known: leave it out of the query, or allow "
                "its present to be read with as_of(..., present={...})"
            )

    def _check_tracked(self, connection: Connection, touched: Iterable[AuditedTable], translated: Any) -> None:
        place = tuple(sorted(translated.items(), key=repr)) if translated else None
        known = self._tracked.setdefault(connection, set())
        unknown = [audited for audited in touched if (audited, place) not in known]
        if not unknown:
            return
        live, past = self._opened[connection]
        present = SharedConnection(live, connection).execution_options(
            **({"schema_translate_map": translated} if translated else {})
        )
        try:
            self._require_tracked(present, past, unknown)
        except DBAPIError as error:
            if past.database.is_missing_table(error):
                raise CaptureMissing(
                    f"the database has no trail for table {unknown[0].table.fullname} ({error.orig}): "
                    "create its tables with create_all() or a migration"
                ) from error
            raise
        known.update((audited, place) for audited in unknown)

    def _require_tracked(self, present: Connection, past: PastDialect, unknown: list[AuditedTable]) -> None:
        for trail in {audited.trail for audited in unknown}:
            names = [audited.table.fullname for audited in unknown if audited.trail is trail]
            tracked = past.database.is_tracked(present, trail.column, names, self.moment)
            for audited in unknown:
                if audited.trail is trail and audited.table.fullname not in tracked:
                    self._require_recorded(present, audited)

    def _require_recorded(self, present: Connection, audited: AuditedTable) -> None:
        """Let a table pass that the account of columns does not know, if it has a row recorded by the moment."""
        columns, history = audited.trail.column, audited.history
        known = sa.select(sa.func.min(columns.c.recorded_at)).where(columns.c.table_name == audited.table.fullname)
        since = present.scalar(known)
        if since is None:
            first = sa.select(history.c.audit_id).where(recorded_at(history, self.moment)).limit(1)
            if present.scalar(first) is not None:
                return
            since = present.scalar(sa.select(history.c.audit_at).order_by(history.c.audit_id).limit(1))
        raise InvalidMoment(
            f"table {audited.table.fullname} has no records as early as {self.moment}: "
            + (f"it is tracked since {since.isoformat()}, so give a later moment" if since else "nothing is recorded of it")
        )


class PastSession(Session):
    """A session over an engine in which every query sees the past, and that does not write.

    Args:
        past: what it knows.
        live: the engine.
    """

    def __init__(self, past: Past, live: Engine | None, **options: Any) -> None:
        super().__init__(autoflush=False, **options)
        self.past = past
        self._live = live
        self._engines: dict[Engine, Engine] = {}

    def open(self) -> None:
        """Take the snapshot, and make sure that the moment can be travelled to."""
        self.connection()
        self._tell()

    def get_bind(self, mapper: Any = None, **_arguments: Any) -> Engine:
        """Give the engine that sees the past."""
        if self._live is None:
            raise ReadOnlyPast("the past session has no engine")
        return self._past_engine(self._live, owned=True)

    def _past_engine(self, live: Engine, *, owned: bool) -> Engine:
        known = self._engines.get(live)
        if known is None:
            known = self._engines[live] = self.past.engine(live, owned=owned)
        return known

    def _connection_for_bind(self, engine: Any, execution_options: Any = None, **kw: Any) -> Connection:
        connection = super()._connection_for_bind(engine, execution_options, **kw)
        if self._live is not None:
            self.past.open(connection, self._live)
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
        super().__init__(past, None, **options)
        self._host = host
        self._views: WeakKeyDictionary[Connection, SharedConnection] = WeakKeyDictionary()

    def open(self) -> None:
        """Make sure that the moment can be travelled to, if the session has one database for everything."""
        self._tell()
        try:
            bind = self._host.get_bind()
        except sa.exc.UnboundExecutionError:
            return
        self._connection_for_bind(bind)

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Any:
        """Give what the other session is bound to for this query."""
        return self._host.get_bind(mapper, **arguments)

    def _connection_for_bind(self, engine: Any, execution_options: Any = None, **_kw: Any) -> Connection:
        host = self._host.connection(bind_arguments={"bind": engine})
        view = self._views.get(host)
        if view is None or view.connection is not host.connection:
            live = host.engine
            view = SharedConnection(self._past_engine(live, owned=False), host)
            self.past.open(view, live)
            self._views[host] = view
            self._tell()
        return view


@event.listens_for(PastSession, "before_flush", propagate=True)
def _refuse_flush(session: Session, _context: Any, _instances: Any) -> None:
    changed = next(iter([*session.new, *session.deleted, *session.dirty]), None)
    if changed is not None:
        raise ReadOnlyPast(
            f"{type(changed).__name__} was changed in a past session: the past can't be written; "
            "use sa_audit.restore() or revert(), or change the object in a session of the present"
        )


def _live(engine: Engine) -> Engine:
    """Give the engine that an engine with options stands on."""
    return engine._proxied  # type: ignore[attr-defined, no-any-return]


def _unmarked(parameters: Any) -> Any:
    for name, value in parameters.items():
        if isinstance(value, Marker):
            raise NotAudited(
                f"the parameter {name!r} is {value}: the value is not in the history, so nothing can be found by it"
            )
    return parameters


def _tables_of(item: Any) -> list[TableClause]:
    mapper = sa.inspect(item, raiseerr=False) if isinstance(item, type) else item
    tables = list(getattr(mapper, "tables", ())) or [item]
    for table in tables:
        if not isinstance(table, TableClause):
            raise ConfigurationError(f"as_of(present=...) has {item!r} in it: give mapped classes or tables")
        if audited_of(table) is not None:
            raise ConfigurationError(
                f"as_of(present=...) names {table.fullname}, which is audited: its past is read, so leave it out"
            )
    return tables
