"""Columns that hold ciphertext or digests: the keys for what is read, and the last look at what is sent.

Before the rows of a result are handed over, the keys of those whose values are in it are read; a type then opens them
without a connection.  A value that reaches the driver in the clear is digested, or refused.
Imports model, ddl, privacy, errors, and of capture the persons' keys, the streams and the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Select

from ..ddl.backend import INTERNAL, backend_for
from ..errors import NotAudited, UnauditedWrite
from ..model.history import Trail, capturing
from ..model.stored import Clear, StoredDigest, StoredEncrypted, StoredType, digestible
from ..privacy import keyed_digest, keys_of
from ..privacy.encryption import PREFIX, is_encrypted, key_name
from .access import BATCH, RecordedStream
from .person_keys import PersonKeys, secrets_of
from .returned import buffered_rows

_TRAILS: Final = "_sa_audit_encrypted_in"
_SENDS: Final = "_sa_audit_sends_forms"
_COUNTS: Final = frozenset({"count"})


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _before_cursor_execute(
    connection: Connection, cursor: Any, sql: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    """Let no value in the clear pass: digest what is to be digested, and refuse the rest."""
    compiled = context.compiled if capturing and context is not None else None
    if compiled is None:
        return sql, parameters
    if _SENDS not in compiled.__dict__:
        if INTERNAL not in context.execution_options:
            _refuse_use(compiled.statement)
        binds = getattr(compiled, "binds", {}).values()
        compiled.__dict__[_SENDS] = any(isinstance(bind.type, StoredType) for bind in binds)
    if not compiled.__dict__[_SENDS]:
        return sql, parameters
    if isinstance(parameters, list):
        return sql, [_sent(each, connection) for each in parameters]
    return sql, _sent(parameters, connection)


def _sent(parameters: Any, connection: Connection) -> Any:
    if isinstance(parameters, dict):
        return {name: _form(value, connection) for name, value in parameters.items()}
    return tuple(_form(value, connection) for value in parameters)


def _form(value: Any, connection: Connection) -> Any:
    if not isinstance(value, Clear):
        return value
    if isinstance(value.type, StoredDigest):
        secret = keys_of(value.type.audited).digest_keys[0]
        return str(keyed_digest(secret, digestible(value.type, value.value, connection.dialect)))
    raise UnauditedWrite(
        f"a value for {value.type.column} has to be encrypted before the statement is executed, and this one was not: "
        "give it in insert() or update() of the table itself"
    )


def _refuse_use(statement: Any) -> None:
    """Refuse a statement that computes, sorts or groups by ciphertext as if it were the value.

    Raises:
        NotAudited: naming the column.
    """
    if statement is None or not isinstance(statement, sa.ClauseElement):
        return
    for inner in visitors.iterate(statement):
        for part in _used(inner):
            column = part.element if isinstance(part, sa.UnaryExpression) else part
            if isinstance(getattr(column, "type", None), StoredEncrypted):
                raise NotAudited(
                    f"{column} is encrypted in the database, which can't compare, sort or compute with it: select it "
                    "and do so in Python"
                )


def _used(element: Any) -> Sequence[Any]:
    """Give what a part of a statement looks into, and does not merely show."""
    if isinstance(element, FunctionElement):
        given = list(element.clauses)
        counted = getattr(element, "name", "") in _COUNTS
        return [each for each in given if not counted or isinstance(each, sa.UnaryExpression)]
    if isinstance(element, sa.Cast | sa.Case):
        return list(element.get_children())
    if isinstance(element, sa.BinaryExpression) and not isinstance(element.right, sa.sql.elements.Null):
        return [element.left, element.right]
    if isinstance(element, Select):
        told_apart = _without_key(element.selected_columns) if element._distinct else []
        return [*element._order_by_clauses, *element._group_by_clauses, *element._distinct_on, *told_apart]
    if isinstance(element, sa.CompoundSelect) and not element.keyword.name.endswith("_ALL"):
        return _without_key(element.selected_columns)
    return []


def _without_key(columns: Iterable[Any]) -> list[Any]:
    """Give encrypted columns whose row's key is not beside them: equal values of two rows would count as different."""
    shown = list(columns)
    names = {getattr(each, "name", None) for each in shown}
    encrypted = [each for each in shown if isinstance(getattr(each, "type", None), StoredEncrypted)]
    return [each for each in encrypted if not {key.name for key in each.type.audited.key} <= names]


@event.listens_for(Engine, "after_execute")
def _after_execute(
    connection: Connection, element: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    """Read the keys for the encrypted values of a result, before anybody has its rows."""
    if not capturing or not result._metadata.returns_rows:
        return
    trails = _trails(result.context.compiled)
    if not trails:
        return
    try:
        _load(connection, trails, result, options)
    except BaseException:
        result.close()
        raise


def _trails(compiled: Any) -> list[Trail]:
    """Give the trails whose encrypted columns a statement reads, worked out once."""
    if compiled is None or not hasattr(compiled, "_result_columns"):
        return []
    known: list[Trail] | None = compiled.__dict__.get(_TRAILS)
    if known is None:
        types = [entry.type for entry in compiled._result_columns or ()]
        found = {id(each.audited.trail): each.audited.trail for each in types if isinstance(each, StoredEncrypted)}
        known = compiled.__dict__[_TRAILS] = list(found.values())
    return known


def _load(connection: Connection, trails: Sequence[Trail], result: Any, options: Any) -> None:
    schemas = options.get("schema_translate_map")

    def seen(rows: Sequence[Any]) -> None:
        load_keys(connection, trails, rows, schemas)

    context = result.context
    streamed = context._is_server_side or options.get("stream_results") or options.get("yield_per")
    strategy = result.cursor_strategy
    if not streamed or not backend_for(connection.dialect).streams_beside or context.is_crud:
        seen(strategy.buffered(result) if isinstance(strategy, RecordedStream) else buffered_rows(result))
        return
    if isinstance(strategy, RecordedStream):
        strategy.also(seen)
    else:
        result.cursor_strategy = RecordedStream(strategy, seen, options.get("yield_per") or BATCH)


def load_keys(connection: Connection, trails: Sequence[Trail], rows: Sequence[Any], schemas: Any) -> None:
    """Read the keys of the encrypted values in some raw rows that are not in memory."""
    values = (value for row in rows for value in row if isinstance(value, str) and value.startswith(PREFIX))
    names = {key_name(value) for value in values if is_encrypted(value)}
    for trail in trails:
        secrets = secrets_of(trail)
        wanted = [name for name in names if not secrets.is_fresh(name)]
        if wanted:
            PersonKeys(connection, trail, schemas).fetch(wanted)
