"""Making sure, once for each engine, that the triggers are there before a session relies on them.

A forgotten migration must not become silence: whatever a session is about to write of such a table is refused, be it
by the model, by text, under another name, or through a foreign key's action.
Imports model, ddl, errors, and of capture the foreign keys, the failing and the texts.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import backend_for, note_trail
from ..errors import CaptureMissing
from ..model.history import AuditedTable, audited_of, capturing, trail_of
from . import foreign_keys
from .recording import target_of
from .same_table import holds_history, same_schema
from .text import named_tables

_CAPTURED: Final = "_sa_audit_captured"
_REACHED: Final = "_sa_audit_reached"


def require_capture(connection: Connection, audited: AuditedTable, options: Any) -> None:
    """Make sure that the database records a table; a yes is remembered on the dialect.

    Raises:
        CaptureMissing: if a trigger is missing or disabled, or a table that it writes is missing.
        UnauditedWrite: if the history stays behind when the table's schema is translated.
    """
    target = target_of(audited, options)
    known, place = _known(connection, _CAPTURED, audited.table, options)
    if place in known:
        return
    missing = backend_for(connection.dialect).missing_capture(connection, target)
    if missing is not None:
        raise _is_missing(audited, missing)
    note_trail(connection.dialect, audited.trail)
    known.add(place)


def _is_missing(audited: AuditedTable, what: str) -> CaptureMissing:
    return CaptureMissing(
        f"the database has no {what}, so changes of {audited.table.fullname} can't be recorded: "
        "create it with metadata.create_all() or a migration"
    )


def forget(connection: Connection) -> None:
    """Forget what is known of the database, since a table of the trail turned out to be missing."""
    for name in (_CAPTURED, _REACHED):
        connection.dialect.__dict__.pop(name, None)


def require_reached(connection: Connection, table: Any, options: Any) -> None:
    """Make sure that the database records the tables that a write reaches by the actions of foreign keys.

    Raises:
        CaptureMissing: as above.
    """
    trail = trail_of(table.metadata) if isinstance(table, sa.Table) else None
    if trail is None or not trail.captures:
        return
    known, place = _known(connection, _REACHED, table, options)
    if place in known:
        return
    for child in foreign_keys.closure(table):
        audited = audited_of(child)
        if audited is not None and audited.by_trigger:
            require_capture(connection, audited, options)
    known.add(place)


def require_named(connection: Connection, table: Any) -> None:
    """Make sure that the database records a table which is written under another name than its model's.

    Raises:
        CaptureMissing: as above.
    """
    name, schema = getattr(table, "name", None), getattr(table, "schema", None)
    for audited in _captured():
        if audited.table.name == name and same_schema(connection.dialect, audited.table.schema, schema):
            _require_here(connection, audited)


def require_written(connection: Connection, sql: str) -> None:
    """Make sure that the database records the tables that a text writes.

    Raises:
        CaptureMissing: as above.
    """
    captured = _captured()
    for audited in named_tables(sql, captured) if captured else ():
        _require_here(connection, audited)


def _captured() -> list[AuditedTable]:
    return [audited for trail in capturing.trails() for audited in trail.captured()]


def _require_here(connection: Connection, audited: AuditedTable) -> None:
    """Require it where the database holds the table's history; another may have a table of that name."""
    options = connection.get_execution_options()
    known, place = _known(connection, _CAPTURED, audited.table, options)
    if place in known:
        return
    missing = backend_for(connection.dialect).missing_capture(connection, target_of(audited, options))
    if missing is None:
        known.add(place)
    elif missing.startswith("trigger ") or holds_history(connection, audited):
        raise _is_missing(audited, missing)


def _known(connection: Connection, what: str, table: sa.Table, options: Any) -> tuple[set[Any], Any]:
    """Give the places of which something is known on the dialect, and that of a table."""
    schemas = options.get("schema_translate_map") or {}
    return connection.dialect.__dict__.setdefault(what, set()), (schemas.get(table.schema, table.schema), table.name)
