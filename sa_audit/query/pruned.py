"""What was pruned can't be asked about: a moment, or a stretch of a history, that lies in it is refused by name.

Imports catalog, model, errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog import catalog_for
from ..catalog.prunes import Reach, granted_reach, place_text
from ..ddl.backend import internal
from ..errors import PrunedHistory
from ..model import AuditedTable
from .moment import Epoch, LastEntry, Moment, Snapshot, WallClock
from .past_state import recorded_at


def refuse_pruned(connection: Connection, audited: AuditedTable, moment: Moment) -> None:
    """Refuse a moment at which rows of a table were as only pruned history says.

    What was asked for and granted counts as gone.  What the last prune leaves answers every moment since its cutoff,
    and every moment that sees its request, which comes after everything that was carried forward.

    Raises:
        PrunedHistory: naming the rows and from when on the table can be travelled to.
    """
    trail = audited.trail
    if trail.prune is None:
        return
    granted = granted_reach(connection, trail, places_of(connection, audited))
    if granted is None:
        return
    request, reach, said = granted
    if said and _reaches(connection, audited, reach, moment):
        return
    event = trail.event
    seen = sa.select(event.c.audit_id).where(event.c.audit_id == request, recorded_at(event, moment))
    if internal(connection, seen).first() is not None:
        return
    found = _ranges(connection, audited, sa.true())
    raise PrunedHistory(
        f"table {audited.table.fullname} can't be seen as it was at {moment}: {_named(found)}; give a moment from "
        f"{reach.since.isoformat()} on"
    )


def _reaches(connection: Connection, audited: AuditedTable, reach: Reach, moment: Moment) -> bool:
    """Tell whether a moment sees all that was recorded before the cutoff of a prune."""
    match moment:
        case WallClock():
            return moment.at >= reach.since
        case Snapshot():
            _lowest, following, running = moment.text.split(":")
            open_ = [int(number) for number in running.split(",") if number and int(number) <= reach.through]
            return reach.through < int(following) and not _recorded_by(connection, audited, open_)
        case Epoch() | LastEntry():
            return moment.number >= reach.through


def _recorded_by(connection: Connection, audited: AuditedTable, transactions: list[int]) -> bool:
    """Tell whether any of some transactions of PostgreSQL, which may be of other databases, has an entry here."""
    entries = audited.trail.transaction
    known = sa.select(entries.c.id).where(entries.c.db_txid.in_(transactions)).limit(1)
    return bool(transactions) and internal(connection, known).first() is not None


def refuse_pruned_since(connection: Connection, audited: AuditedTable, since: dt.datetime | None) -> None:
    """Refuse a stretch of a history that begins before rows that were pruned were all recorded.

    Args:
        connection: to the database.
        audited: the table.
        since: the beginning; None for that of the history.

    Raises:
        PrunedHistory: naming the rows.
    """
    table = audited.trail.prune
    if table is None:
        return
    begins = sa.true() if since is None else table.c.recorded_before > since
    found = _ranges(connection, audited, begins)
    if found is not None:
        raise PrunedHistory(
            f"the history of {audited.table.fullname} does not tell what was before: {_named(found)}; ask since "
            f"{found.before.isoformat()}"
        )


def _ranges(connection: Connection, audited: AuditedTable, condition: Any) -> Any:
    """Give first and last row, their number, and the moments, of the prunes of a table that meet a condition."""
    table: Any = audited.trail.prune
    statement = (
        sa.select(
            sa.func.min(table.c.first_row).label("first"),
            sa.func.max(table.c.last_row).label("last"),
            sa.func.sum(table.c.row_count).label("rows"),
            sa.func.max(table.c.recorded_before).label("before"),
        )
        .select_from(table)
        .where(table.c.table_name.in_(places_of(connection, audited)))
        .where(condition)
    )
    row = internal(connection, statement).one()
    return row if row.first is not None else None


def places_of(connection: Connection, audited: AuditedTable) -> list[str]:
    """Give the names by which the history of a table is, and was, known to ``audit_prune``."""
    place, history = place_text(connection, catalog_for(connection.dialect), audited.history), audited.history.name
    former = audited.options.renamed_from
    if former is None or audited.options.history_table is not None:
        return [place]
    return [place, f"{place.removesuffix(history)}{former}_history"]


def _named(found: Any) -> str:
    return (
        f"{found.rows} rows of its history, {found.first} to {found.last}, recorded before {found.before.isoformat()}, "
        "were pruned"
    )
