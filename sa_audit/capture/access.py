"""Reads: what a statement showed is recorded, and committed, before its first row is handed over.

The listeners stand on the classes ``Engine`` and ``Session`` and do nothing while no model records reads.  A result is
read from the driver as a whole and recorded with the rows it shows; a stream is recorded batch by batch, each before
it is handed over.  Imports model, ddl, and of capture the plan, the context and what writes durably.
"""

from __future__ import annotations

import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.cursor import CursorFetchStrategy, FullyBufferedCursorFetchStrategy
from sqlalchemy.sql.dml import UpdateBase

from ..ddl.backend import INTERNAL, AccessRecord, backend_for
from ..model.history import reading
from .access_plan import HIDDEN, Criterion, EntityRead, Plan, plan_of, text_plan
from .access_writing import write_access_rows, write_accesses
from .identity import identity_texts, root_of
from .own_connection import writable
from .returned import buffered_rows
from .same_table import holds_history

_PLAN: Final = "_sa_audit_reads"
_RETURNING: Final = "sa_audit.returning"
_LOADING: Final = "_sa_orm_load_options"
BATCH: Final = 500
"""Rows of a stream that are fetched, and recorded, at once, where ``yield_per`` does not say."""

_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("sa_audit_quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out what the library itself reads, which its caller records as one entry."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Tell whether reads are left out here."""
    return _quiet.get()


def _before_execute(connection: Connection, element: Any, multiparams: Any, params: Any, options: Any) -> None:
    """Note whether the user wants rows from DML, before the capture of changes asks for rows of its own."""
    if reading and INTERNAL not in options:
        write = getattr(element, "element", element)
        if isinstance(write, UpdateBase):
            connection.info[_RETURNING] = bool(write._returning)


event.listen(Engine, "before_execute", _before_execute, insert=True)


@event.listens_for(Engine, "after_execute")
def _after_execute(
    connection: Connection, element: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    """Record what a statement reads, before anybody has its rows."""
    if not reading or _quiet.get() or not result._metadata.returns_rows:
        return
    own = writable(connection)
    if own is connection and INTERNAL in options:
        return
    context = result.context
    plan = _plan(context.compiled)
    if plan is None or (context.is_crud and not connection.info.get(_RETURNING)):
        return
    try:
        _record(own, plan, result, options)
    except BaseException:
        result.close()
        raise


@event.listens_for(Engine, "after_cursor_execute")
def _after_cursor_execute(
    connection: Connection, cursor: Any, sql: str, parameters: Any, context: Any, executemany: bool
) -> None:
    """Record what text reads that goes to the driver as it is; what was compiled has its turn later."""
    if not reading or context is None or context.compiled is not None or _quiet.get():
        return
    showing = cursor.description and INTERNAL not in context.execution_options
    plan = text_plan(sql, reading.trails(), connection.dialect) if showing else None
    if plan is not None:
        rows = cursor.fetchall()
        context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, cursor.description, rows)
        values = [{**_values(read, plan, context, False, False), "row_count": len(rows)} for read in plan.entities]
        _write(connection, plan.entities, values, [[] for _read in plan.entities])


def _plan(compiled: Any) -> Plan | None:
    """Give what a statement reads, worked out once; None for DDL and the like."""
    if compiled is None or not hasattr(compiled, "_result_columns"):
        return None
    if _PLAN not in compiled.__dict__:
        compiled.__dict__[_PLAN] = plan_of(compiled, reading.trails())
    plan: Plan | None = compiled.__dict__[_PLAN]
    return plan


def _record(connection: Connection, plan: Plan, result: Any, options: Any) -> None:
    context = result.context
    plan = _certain(connection, plan, result)
    if not plan.entities:
        return
    streamed = context._is_server_side or options.get("stream_results") or options.get("yield_per")
    whole = context.is_crud or any(read.by_name for read in plan.entities)
    streamed = streamed and backend_for(connection.dialect).reads_while_others_write and not whole
    refreshed = _refreshed(options)
    keys = [_keys(read, result) if read.places else _known(refreshed.get(read.table)) for read in plan.entities]
    values = [_values(read, plan, context, bool(streamed), read.table in refreshed) for read in plan.entities]
    if not streamed:
        rows = buffered_rows(result)
        shown = [key(rows) for key in keys]
        _write(connection, plan.entities, [{**value, "row_count": len(rows)} for value in values], shown)
        return
    ids = _write(connection, plan.entities, values, [[] for _read in plan.entities])
    size = options.get("yield_per") or BATCH

    def seen(rows: Sequence[Any]) -> None:
        _write_rows(connection, plan.entities, ids, [key(rows) for key in keys])

    result.cursor_strategy = RecordedStream(result.cursor_strategy, seen, size)


def _certain(connection: Connection, plan: Plan, result: Any) -> Plan:
    """Leave out what only has the name of a table with ``reads``: where the database does not hold that one's history.

    The rows are read before the database is asked, which has room for one open result at a time.
    """
    if not any(read.by_name for read in plan.entities):
        return plan
    buffered_rows(result)
    entities = [read for read in plan.entities if not read.by_name or holds_history(connection, read.audited)]
    return Plan(tuple(entities), plan.criteria)


def _refreshed(options: Any) -> dict[str, list[str]]:
    """Give the key of the object whose further columns are loaded, by its table: such a statement need not show it."""
    state = getattr(options.get(_LOADING), "_refresh_state", None)
    if state is None or state.key is None:
        return {}
    root: Any = root_of(state.mapper)
    return {root.local_table.fullname: identity_texts(tuple(root.primary_key), [state.key[1]])}


def _known(texts: list[str] | None) -> Callable[[Sequence[Any]], list[str]]:
    """Give the function from rows, if there are any, to keys that are known without them."""
    return lambda rows: list(texts or ()) if rows else []


def _values(read: EntityRead, plan: Plan, context: Any, streamed: bool, refreshed: bool) -> dict[str, Any]:
    """Give the row of ``audit_access`` of a statement, but for the number of rows."""
    statement = context.statement if isinstance(context.statement, str) else str(context.statement)
    identified = bool(read.places) or refreshed
    known = ("streamed" if streamed else "known") if identified else "none"
    return {
        "entity": read.entity,
        "table_name": read.table,
        "columns": list(read.columns) or None,
        "statement": "sha256:" + hashlib.sha256(statement.encode()).hexdigest(),
        "criteria": None if identified else _criteria(plan.criteria, context),
        "identities": known,
        "row_count": None,
    }


def _criteria(criteria: Sequence[Criterion], context: Any) -> list[dict[str, Any]] | None:
    if context.compiled is None or not criteria:
        return None
    parameters = context.compiled_parameters[0] if context.compiled_parameters else {}
    names = context.compiled.bind_names
    found = []
    for criterion in criteria:
        name = names.get(criterion.bind) if criterion.bind is not None else None
        value = HIDDEN if name is None else _value(name, parameters)
        found.append({"column": criterion.column, "operator": criterion.operator, "value": value})
    return found


def _value(name: str, parameters: Any) -> Any:
    """Give the value of a parameter, a list for one that was expanded into several."""
    if name in parameters:
        return _plain(parameters[name])
    values: list[Any] = []
    while f"{name}_{len(values) + 1}" in parameters:
        values.append(_plain(parameters[f"{name}_{len(values) + 1}"]))
    return values


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _processors(read: EntityRead, result: Any) -> list[list[tuple[int, Any]]]:
    """Give the positions of the keys with what makes Python values of what the driver gives there."""
    entries = result.context.compiled._result_columns
    description = result.cursor.description if result.cursor is not None else None
    dialect = result.context.dialect

    def processor(position: int) -> Any:
        kind = description[position][1] if description else None
        return entries[position].type._cached_result_processor(dialect, kind)

    return [[(position, processor(position)) for position in place] for place in read.places]


def _keys(read: EntityRead, result: Any) -> Callable[[Sequence[Any]], list[str]]:
    """Give the function from raw rows to the texts of the keys that they show, each once."""
    places = _processors(read, result) if read.processors is None else read.processors
    if result.cursor is not None:
        read.processors = places  # which the driver's own types have told

    def keys(rows: Sequence[Any]) -> list[str]:
        found: dict[str, None] = {}
        for place in places:
            values = [_column(rows, at, process) for at, process in place]
            found.update(
                dict.fromkeys(identity_texts(read.key, [key for key in zip(*values, strict=True) if None not in key]))
            )
        return list(found)

    return keys


def _column(rows: Sequence[Any], at: int, process: Any) -> list[Any]:
    return [row[at] for row in rows] if process is None else [process(row[at]) for row in rows]


# -- writing ------------------------------------------------------------------------------------


def _write(
    connection: Connection, entities: Sequence[EntityRead], values: list[dict[str, Any]], shown: list[list[str]]
) -> list[int]:
    """Commit the entries of a statement, with the rows it showed as far as they are given; give their ids."""
    accesses = [
        AccessRecord(read.audited.trail, value, texts)
        for read, value, texts in zip(entities, values, shown, strict=True)
    ]
    return write_accesses(connection, entities[0].audited, accesses, relaxed=all(read.relaxed for read in entities))


def _write_rows(
    connection: Connection, entities: Sequence[EntityRead], ids: Sequence[int], shown: list[list[str]]
) -> None:
    """Commit the rows that a batch of a stream shows."""
    rows = [
        (read.audited.trail, access, read.table, texts)
        for read, access, texts in zip(entities, ids, shown, strict=True)
    ]
    relaxed = all(read.relaxed for read in entities)
    write_access_rows(connection, entities[0].audited, rows, relaxed=relaxed)


# -- streams ------------------------------------------------------------------------------------


class RecordedStream(CursorFetchStrategy):
    """Fetches the rows of a streamed result in batches, each of which is recorded before it is handed over.

    Args:
        inner: the strategy that it takes the place of, some rows of which may be read already.
        seen: records a batch.
        size: the rows of a batch.
    """

    __slots__ = ("_buffer", "_early", "_seen", "_size")

    def __init__(self, inner: Any, seen: Callable[[Sequence[Any]], None], size: int) -> None:
        self._early = list(getattr(inner, "_rowbuffer", ()))
        self._buffer: deque[Any] = deque()
        self._seen = seen
        self._size = size

    def also(self, seen: Callable[[Sequence[Any]], None]) -> None:
        """Have something else done with each batch before it is handed over, too."""
        first = self._seen

        def both(rows: Sequence[Any]) -> None:
            first(rows)
            seen(rows)

        self._seen = both

    def buffered(self, result: Any) -> list[Any]:
        """Give all rows, which the result keeps from here on instead of the stream."""
        self._load(result, result.cursor, None)
        rows = list(self._buffer)
        result.cursor_strategy = FullyBufferedCursorFetchStrategy(result.cursor, initial_buffer=rows)
        return rows

    def yield_per(self, result: Any, dbapi_cursor: Any, num: int) -> None:
        """Fetch so many rows at once."""
        self._size = num

    def _load(self, result: Any, dbapi_cursor: Any, size: int | None) -> bool:
        """Fetch and record a batch, or all that is left; tell whether there was anything."""
        try:
            rows = dbapi_cursor.fetchall() if size is None else dbapi_cursor.fetchmany(size)
        except BaseException as error:  # noqa: BLE001 - as SQLAlchemy's own strategies
            self.handle_exception(result, dbapi_cursor, error)
        rows = [*self._early, *rows]
        self._early = []
        if not rows:
            return False
        self._seen(rows)
        self._buffer.extend(rows)
        return True

    def fetchone(self, result: Any, dbapi_cursor: Any, hard_close: bool = False) -> Any:
        """Give the next row."""
        if not self._buffer and not self._load(result, dbapi_cursor, self._size):
            result._soft_close(hard=hard_close)
            return None
        return self._buffer.popleft()

    def fetchmany(self, result: Any, dbapi_cursor: Any, size: int | None = None) -> Any:
        """Give the next rows."""
        wanted = size or self._size
        while len(self._buffer) < wanted and self._load(result, dbapi_cursor, max(self._size, wanted)):
            pass
        rows = [self._buffer.popleft() for _number in range(min(wanted, len(self._buffer)))]
        if not rows:
            result._soft_close()
        return rows

    def fetchall(self, result: Any, dbapi_cursor: Any) -> Any:
        """Give all rows that are left."""
        self._load(result, dbapi_cursor, None)
        rows = list(self._buffer)
        self._buffer.clear()
        result._soft_close()
        return rows

    def soft_close(self, result: Any, dbapi_cursor: Any) -> None:
        """Forget what was fetched."""
        self._buffer.clear()
        super().soft_close(result, dbapi_cursor)

    def hard_close(self, result: Any, dbapi_cursor: Any) -> None:
        """Forget what was fetched."""
        self._buffer.clear()
        super().hard_close(result, dbapi_cursor)
