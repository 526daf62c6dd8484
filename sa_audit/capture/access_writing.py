"""How reads are written: by one statement that commits itself, where the database has that, or in a transaction.

Imports model, ddl, and of capture the context, what writes durably, and the connections of the trail's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..ddl.backend import AccessRecord, Entry, Target, backend_for
from ..model.history import AuditedTable, Trail
from .afterwards import write_durably
from .context import current_context
from .context_policy import claims_of
from .failing import missing_tables_named
from .own_connection import execute_at_once, record_engine
from .recording import target_of

ShownRows: TypeAlias = tuple[Trail, int, str, Sequence[str]]


def write_accesses(
    connection: Connection, audited: AuditedTable, accesses: Sequence[AccessRecord], *, relaxed: bool
) -> list[int]:
    """Commit reads, apart from the session's transaction where the database lets it, under one entry.

    Args:
        connection: the session's.
        audited: a table of the trail under whose entry they are written.
        accesses: the reads.
        relaxed: whether the commit need not wait for the disk.

    Returns:
        Their ids.

    Raises:
        CaptureMissing: if the database has no trail.
    """
    trail = audited.trail
    plain = not trail.configuration.context  # policies on it may ask for keys of persons
    at_once = plain and backend_for(connection.dialect).writes_accesses_at_once(trail)
    if at_once and all(access.trail is trail for access in accesses):
        target = target_of(audited, connection.get_execution_options())
        return _write_at_once(record_engine(connection, trail, relaxed=relaxed, at_once=True), target, accesses)
    ids: list[int] = []

    def write(own: Connection, entry: Entry) -> None:
        ids.clear()
        for access in accesses:
            identity = backend_for(own.dialect).insert_access(own, access.trail, entry, access.values)
            insert_rows(own, access.trail, entry, identity, access.values["table_name"], access.texts)
            ids.append(identity)

    write_durably(connection, audited, write, relaxed=relaxed)
    return ids


def _write_at_once(engine: Engine, target: Target, accesses: Sequence[AccessRecord]) -> list[int]:
    claims = claims_of(current_context())
    sql, parameters = backend_for(engine.dialect).accesses_statement(target, claims, accesses)
    try:
        return [int(identity) for identity in execute_at_once(engine, sql, parameters)]
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        with engine.connect() as own, missing_tables_named(own, target):
            raise


def write_access_rows(
    connection: Connection, audited: AuditedTable, shown: Sequence[ShownRows], *, relaxed: bool
) -> None:
    """Commit further rows that reads have shown, whose entries are committed.

    Args:
        connection: the session's.
        audited: as in :func:`write_accesses`.
        shown: of each read its trail, its id, the full name of the table, and the keys of the rows as texts.
        relaxed: as in :func:`write_accesses`.
    """

    def write(own: Connection, entry: Entry) -> None:
        for trail, access, table, texts in shown:
            insert_rows(own, trail, entry, access, table, texts)

    if any(texts for _trail, _access, _table, texts in shown):
        write_durably(connection, audited, write, relaxed=relaxed)


def insert_rows(own: Connection, trail: Trail, entry: Entry, access: int, table: str, texts: Sequence[str]) -> None:
    """Write the rows that a read showed."""
    if texts:
        backend_for(own.dialect).insert_access_rows(own, trail, entry, access, table, texts)
