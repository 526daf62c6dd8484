"""Tables that are not audited themselves, but whose rows, when they go or move, change audited ones by foreign keys.

Imports model, ddl, and of capture bulk, criteria, foreign keys, recording and statement.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Delete, Update

from ..ddl.backend import Key, Target
from ..errors import UnauditedWrite
from ..model.history import RecordedColumn, Trail, trail_of
from . import bulk, foreign_keys
from .criteria import effective_criteria, read_keys, set_columns, with_parameters
from .keys import keys_by_equality
from .recording import admit, lock_writer
from .statement import Statement, is_table, nested_writes, prepare


class Parent:
    """Such a table, in the place of an audited one: of its own rows, only the keys matter."""

    def __init__(self, table: sa.Table, trail: Trail) -> None:
        self.table = table
        self.trail = trail
        self.key = tuple(table.primary_key.columns)
        self.columns = [RecordedColumn(column, None, None) for column in self.key]
        self.memo: dict[Any, Any] = {}


def parent_of(element: Any) -> Parent | None:
    """Give the table of an UPDATE or DELETE if its foreign keys' actions can reach audited rows."""
    if not isinstance(element, Update | Delete):
        return None
    table = element._annotations.get("_emit_update_table", element.table)
    metadata = getattr(table, "metadata", None)
    trail = trail_of(metadata) if metadata is not None else None
    if trail is None:
        return None
    plain = next((known for known in trail.metadata.tables.values() if is_table(table, known)), None)
    if plain is None or not any(foreign_keys.session_audited(child) for child in foreign_keys.closure(plain)):
        return None
    return Parent(plain, trail)


def begin(connection: Connection, parent: Any, element: Any, rows: list[dict[str, Any]], options: Any) -> Statement:
    """Read what an UPDATE or DELETE does to audited rows by foreign keys, and narrow it to its own rows."""
    recording = admit(connection, parent)
    target = Target(parent, dict(options.get("schema_translate_map") or {}))
    statement = Statement(connection, recording, target, element, rows, options, recording.next_flush())
    changed = set_columns(statement) if isinstance(element, Update) else set()
    if isinstance(element, Update) and not foreign_keys.refers(parent.table, changed):
        return statement
    if not recording.backend.cascades(connection):
        return statement
    _refuse(statement)
    lock_writer(connection, recording, target)
    keys = _narrow(statement)
    if isinstance(element, Update):
        reached = foreign_keys.reach_update(connection, recording, parent.table, keys, options, changed)
    else:
        prepare(statement)
        reached = foreign_keys.reach_delete(connection, recording, parent.table, keys, options, statement.flush)
    statement.reached.append(reached)
    return statement


def _refuse(statement: Statement) -> None:
    """Refuse a statement whose rows can't be known.

    Raises:
        UnauditedWrite: naming the table.
    """
    element, table = statement.element, statement.audited.table
    limited = any(value is not None for key, value in element.kwargs.items() if key.endswith("_limit"))
    if not statement.audited.key or limited or element._prefixes or any(True for _ in nested_writes(element)):
        raise UnauditedWrite(
            f"this {type(element).__name__.lower()} on {table.fullname} changes audited rows by foreign keys, and "
            "which can't be known: give the table a primary key, and write a plain statement"
        )


def _narrow(statement: Statement) -> list[Key]:
    """Give the keys of a statement's rows, locked, and narrow it to them unless it names them all."""
    if not statement.many:
        keys = read_keys(statement, effective_criteria(statement.element))
        bulk.narrow(statement, keys)
        return keys
    criteria = statement.element._where_criteria
    named = keys_by_equality(statement.audited, criteria, statement.rows)
    found: dict[Key, None] = {}
    for start in range(0, len(statement.rows), 200):
        rows = statement.rows[start : start + 200]
        part = [sa.and_(sa.true(), *(with_parameters(criterion, row) for criterion in criteria)) for row in rows]
        found.update(dict.fromkeys(read_keys(statement, [sa.or_(*part)])))
    if named is None or not set(named) <= set(found):
        bulk.narrow(statement, list(found))
    return list(found)
