"""The unsealed window: what is committed and stands under the protection of permissions only.

Imports the room's own parts, model and proof.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from ..model.types import UTCDateTime
from ..proof.entries import Horizon
from ..proof.schema import Descriptor
from .database import CatalogDatabase
from .horizon import HorizonDatabase
from .tables import SealedTable, sealed_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsealed:
    """What the log does not cover yet.

    Args:
        rows: the number of committed rows that no leaf holds.
        since: when the oldest of their transactions was recorded; None if there is none.
        held_by: who is still writing and so holds the horizon back, by the database's word; None if nobody does.
    """

    rows: int
    since: dt.datetime | None
    held_by: str | None

    def age(self, now: dt.datetime) -> dt.timedelta:
        """Give the age of the oldest of them at a moment; zero if there is none."""
        return dt.timedelta(0) if self.since is None else now - self.since


def unsealed(
    connection: Connection,
    database: CatalogDatabase,
    horizons: HorizonDatabase,
    trail: Trail,
    descriptors: Iterable[Descriptor],
    horizon: Horizon | None,
) -> Unsealed:
    """Count what lies beyond a horizon.

    Tables whose rows carry no transaction id (``audit_column``, but on SQLite) are not counted.

    Args:
        connection: in a transaction, its settings pinned.
        database: how to read it.
        horizons: how to tell what is complete.
        trail: the trail.
        descriptors: those of the log, the last of each table.
        horizon: that of the last block that closes, or None if nothing is sealed.
    """
    numbers = {(entry.schema, entry.name): entry.table for entry in descriptors}
    rows, since = 0, None
    schema = database.schema(connection, trail.transaction)
    entries = database.name_of(schema, trail.transaction.name)
    present = [(sealed, _place(database, connection, sealed)) for sealed in sealed_tables(trail)]
    standing = [(sealed, place) for sealed, place in present if database.columns(connection, *place)]
    names = {numbers.get(place, -1 - i): database.name_of(*place) for i, (_sealed, place) in enumerate(standing)}
    until = horizons.reach(connection, trail, names)
    for i, (sealed, place) in enumerate(standing):
        stretch = horizons.stretch(sealed, numbers.get(place, -1 - i), entries, horizon, until)
        if stretch is None:
            continue
        counted = "count(*) AS n" + (", min(r.recorded_at) AS since" if sealed.role == "transaction" else "")
        statement = sa.text(f"SELECT {counted} FROM {database.name_of(*place)} AS r {stretch.condition}")
        if sealed.role == "transaction":
            found = connection.execute(statement.columns(n=sa.Integer(), since=UTCDateTime()), stretch.parameters).one()
            rows, since = rows + found[0], found[1]
        else:
            rows += connection.execute(statement, stretch.parameters).scalar_one()
    return Unsealed(rows=rows, since=since, held_by=horizons.holder(connection))


def _place(database: CatalogDatabase, connection: Connection, sealed: SealedTable) -> tuple[str | None, str]:
    schema = database.schema(connection, sealed.table)
    return (None if schema is None else str(schema)), str(sealed.table.name)
