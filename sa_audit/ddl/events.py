"""The DDL events: guards come with the tables that ``create_all()`` makes, and history is not dropped unasked.

The listeners stand on the classes ``Table`` and ``MetaData`` and act on tables with the trail's mark only.
Imports model and ddl only.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection

from ..errors import TrailNotEmpty
from ..model.declaration import complete
from ..model.history import AUDITED, TRAIL, AuditedTable, Trail, trail_of
from ..model.records import ACCESS, EVENT, PERSON_KEY
from ..model.tables import TRAIL_TABLE
from .backend import INTERNAL, SchemaMap, backend_for, note_trail
from .objects import dropped, replacing

lifted: contextvars.ContextVar[tuple[str, frozenset[int]]] = contextvars.ContextVar(
    "sa_audit_lifted", default=("", frozenset())
)
"""Where a test has lifted the guards: the database's URL, and the ids of the trails."""

_LATE = "sa_audit.late_tables"
KEPT = ("history", "audit_transaction", "audit_block", EVENT, ACCESS, PERSON_KEY)
"""The marks of tables that are not dropped while they hold rows."""


def run(connection: Connection, statements: Iterable[str]) -> None:
    """Execute statements as they stand, one by one."""
    for statement in statements:
        ddl = sa.DDL(statement.replace("%", "%%").replace("\\:", ":"))  # type: ignore[no-untyped-call] # SQLAlchemy
        connection.execute(ddl, execution_options={INTERNAL: True})


def schemas_of(connection: Connection) -> SchemaMap:
    """Give the connection's schema translation."""
    return connection.get_execution_options().get("schema_translate_map") or {}


def _trail_of_table(table: sa.Table) -> Trail | None:
    audited = table.info.get(AUDITED)
    return audited.trail if isinstance(audited, AuditedTable) else table.info.get(TRAIL)


@event.listens_for(sa.Table, "before_create")
def _before_create(table: sa.Table, connection: Connection, **_kw: Any) -> None:
    trail = _trail_of_table(table) if table.info.get(TRAIL_TABLE) == "audit_transaction" else None
    if trail is not None:
        backend = backend_for(connection.dialect)
        run(
            connection,
            backend.before_transaction_table(trail, schemas_of(connection), connection.dialect.default_schema_name),
        )


@event.listens_for(sa.Table, "after_create")
def _after_create(table: sa.Table, connection: Connection, **_kw: Any) -> None:
    kind = table.info.get(TRAIL_TABLE)
    trail = _trail_of_table(table) if kind else None
    audited = table.info.get(AUDITED)
    captured = audited if isinstance(audited, AuditedTable) and audited.by_trigger else None
    backend = backend_for(connection.dialect) if trail is not None or captured is not None else None
    if backend is None:
        return
    where = (schemas_of(connection), connection.dialect.default_schema_name)
    if trail is not None:
        trail.used = True
        note_trail(connection.dialect, trail)
        if captured is not None:
            run(connection, replacing(backend.capture_shared(trail, *where)))
        if isinstance(audited, AuditedTable) and kind == "history" and audited.partitioned:
            run(connection, replacing(backend.partition_objects(trail, *where)))
        run(connection, backend.guards(table, trail, *where))
        if kind == "history" and isinstance(audited, AuditedTable):
            _note_columns(connection, audited)
    if captured is not None:
        _install_capture(connection, captured)


def _install_capture(connection: Connection, audited: AuditedTable) -> None:
    """Install what records a table, when the second of the two is made: the table, or its history."""
    schemas = schemas_of(connection)
    for table in (audited.table, audited.history):
        schema = schemas.get(table.schema, table.schema)
        if not connection.dialect.has_table(connection, table.name, schema=schema):
            return
    objects = backend_for(connection.dialect).capture(audited, schemas, connection.dialect.default_schema_name)
    run(connection, replacing(objects))


def _note_columns(connection: Connection, audited: AuditedTable) -> None:
    """Write down which columns the new history table holds, and so since when the table is tracked."""
    rows = [
        {
            "table_name": audited.table.fullname,
            "column_id": number,
            "name": column.name,
            "type": column.source.type.compile(connection.dialect),
            "event": "create",
        }
        for number, column in enumerate(audited.columns, 1)
    ]
    connection.execute(sa.insert(audited.trail.column), rows, execution_options={INTERNAL: True})


@event.listens_for(sa.MetaData, "before_create")
def _before_create_all(metadata: sa.MetaData, connection: Connection, **_kw: Any) -> None:
    """Finish the history tables; those that come only now are made at the end."""
    if trail_of(metadata) is None:
        return
    known = set(metadata.tables)
    trail = complete(metadata)
    if trail is not None:
        trail.refuse_untyped()
    late = [table for name, table in metadata.tables.items() if name not in known]
    if late:
        connection.info[_LATE] = late


@event.listens_for(sa.MetaData, "after_create")
def _after_create_all(metadata: sa.MetaData, connection: Connection, **_kw: Any) -> None:
    for table in connection.info.pop(_LATE, ()):
        table.create(connection, checkfirst=True)
    trail = trail_of(metadata)
    for audited in trail.captured() if trail is not None else ():
        if backend_for(connection.dialect).capture_is_late(connection, audited, schemas_of(connection)):
            _install_capture(connection, audited)


@event.listens_for(sa.MetaData, "before_drop")
def _before_drop_all(metadata: sa.MetaData, connection: Connection, tables: Any = (), **_kw: Any) -> None:
    """Refuse before the first table is gone."""
    if trail_of(metadata) is not None:
        for table in tables or ():
            _refuse_to_drop(table, connection)


@event.listens_for(sa.Table, "before_drop")
def _before_drop(table: sa.Table, connection: Connection, **_kw: Any) -> None:
    """Take what records a table away with the first of the two, since it would fail without the other."""
    _refuse_to_drop(table, connection)
    audited = table.info.get(AUDITED)
    if isinstance(audited, AuditedTable) and audited.by_trigger and table in (audited.table, audited.history):
        backend = backend_for(connection.dialect)
        objects = backend.capture(audited, schemas_of(connection), connection.dialect.default_schema_name)
        run(connection, dropped(objects))


@event.listens_for(sa.Table, "after_drop")
def _after_drop(table: sa.Table, connection: Connection, **_kw: Any) -> None:
    trail = _trail_of_table(table) if table.info.get(TRAIL_TABLE) == "audit_transaction" else None
    if trail is not None:
        backend = backend_for(connection.dialect)
        run(connection, backend.after_drop(trail, schemas_of(connection), connection.dialect.default_schema_name))


def _refuse_to_drop(table: sa.Table, connection: Connection) -> None:
    mark = table.info.get(TRAIL_TABLE)
    if mark not in KEPT or _is_lifted(table, connection):
        return
    statement = sa.select(sa.literal(1)).select_from(table).limit(1)
    if connection.execute(statement, execution_options={INTERNAL: True}).first() is not None:
        raise TrailNotEmpty(
            f"{table.fullname} holds recorded history and is not dropped: keep it, or, in a test, "
            "drop inside sa_audit.testing.unguarded(engine)"
        )


def _is_lifted(table: sa.Table, connection: Connection) -> bool:
    url, trails = lifted.get()
    return id(_trail_of_table(table)) in trails and str(connection.engine.url) == url
