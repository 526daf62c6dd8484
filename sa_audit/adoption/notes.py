"""Notes in ``audit_column`` about a whole table: since when its rows are being carried in, and that all of them are.

Imports model, ddl and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import internal
from ..model import AuditedTable
from ..model.tables import table_note


def note(connection: Connection, audited: AuditedTable, event: str, at: dt.datetime | None = None) -> None:
    """Write down an event of a table.

    Args:
        connection: where to write.
        audited: the table.
        event: what is so from now on.
        at: since when it is so, if not since now.
    """
    row: dict[str, Any] = table_note(audited.table.fullname, event)
    if at is not None:
        row["recorded_at"] = at
    internal(connection, sa.insert(audited.trail.column).values(row))


def newest_note(connection: Connection, audited: AuditedTable, *events: str) -> str | None:
    """Give which of some events was noted last of a table, or None."""
    columns = audited.trail.column
    statement = (
        sa.select(columns.c.event)
        .where(columns.c.table_name == audited.table.fullname, columns.c.event.in_(events))
        .order_by(columns.c.id.desc())
        .limit(1)
    )
    event: str | None = internal(connection, statement).scalar()
    return event
