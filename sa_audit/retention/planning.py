"""What of a history may go: up to which id, what holds keep, and which ranges are left between.

Imports the room's own parts, model, ddl, query, catalog and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase
from ..catalog.prunes import REQUESTED, Prune, bound_of, is_needed, is_newest, same_key
from ..ddl.values import INTERNAL
from ..model import AuditedTable
from ..model.holds import held_history, held_rows
from ..query.before import reader_for

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of one history is due.

    Args:
        cutoff: rows recorded from then on stay (UTC).
        bound: every row with a lesser id was recorded before it; None if there is no such row.
        ranges: the ranges of ids that may go, both ends included, with the number of their rows.
        held: how many rows below the bound a hold keeps.
        carried: of how many rows the last word has still to be carried forward.
        kept: how many rows below the bound stay, because they say what was there at the cutoff.
    """

    cutoff: dt.datetime
    bound: int | None
    ranges: tuple[tuple[int, int, int], ...] = ()
    held: int = 0
    carried: int = 0
    kept: int = 0

    @property
    def rows(self) -> int:
        """The number of rows in the ranges."""
        return sum(count for _first, _last, count in self.ranges)


def is_held(connection: Connection, audited: AuditedTable, rows: Any) -> Condition | None:
    """Give the condition that a hold keeps a row of a history, or None if the model knows no hold.

    It does where it holds any row of the history of the same key, or the row itself as it is.
    """
    known = audited.history.alias("held")
    condition = held_history(audited, known)
    live = held_rows(audited)
    if condition is None or live is None:
        return None
    reader = reader_for(connection)
    table = audited.table
    keys = [(column, column.key, not column.primary_key) for column in audited.key]
    recorded = sa.exists(sa.literal(1)).where(
        *(same_key(known, rows, key, nullable=nullable) for _column, key, nullable in keys), condition
    )
    present = (
        sa.select(sa.literal(1))
        .select_from(table)
        .where(*(reader.same_key(rows.c[key], column, nullable=nullable) for column, key, nullable in keys), live)
    )
    return sa.or_(recorded, sa.exists(present.correlate(rows)))


def plan(
    connection: Connection,
    database: CatalogDatabase,
    audited: AuditedTable,
    now: dt.datetime,
    prunes: Sequence[Prune],
    *,
    carrying: bool,
) -> Plan:
    """Look at what of a history is due.

    Args:
        connection: in a transaction that sees one state.
        database: how to read it.
        audited: whose history.
        now: the database's clock.
        prunes: what may go already.
        carrying: whether the last words will be carried forward before, and don't stand in the way.
    """
    retention = audited.options.retention
    assert retention is not None  # noqa: S101 - the caller has looked
    cutoff = now - retention.keep
    bound = bound_of(connection, audited, cutoff)
    if bound is None:
        return Plan(cutoff=cutoff, bound=None)
    rows = audited.history.alias("r")
    old = rows.c.audit_id < bound
    held = is_held(connection, audited, rows)
    staying = set(_ids(connection, database, rows, sa.and_(old, held)) if held is not None else ())
    if staying:  # a truncate hides what is older, so it stays with it
        emptied = sa.and_(old, rows.c.audit_op == "T", rows.c.audit_id > min(staying))
        staying.update(_ids(connection, database, rows, emptied))
    newest = _ids(connection, database, rows, sa.and_(old, is_newest(audited, rows)))
    carried = [row for row in newest if row not in staying]
    needed = set(_ids(connection, database, rows, sa.and_(old, is_needed(audited, rows, bound))))
    kept = needed.difference(staying, carried)
    barriers = staying.union(kept) if carrying else staying.union(kept, carried)
    present = _ids(connection, database, rows, old)
    ranges = _runs(present, barriers, sorted((each.first, each.last) for each in prunes))
    return Plan(
        cutoff=cutoff,
        bound=bound,
        ranges=tuple(ranges[:REQUESTED]),
        held=len(staying),
        carried=len(carried),
        kept=len(kept),
    )


def _ids(connection: Connection, database: CatalogDatabase, rows: Any, condition: Condition) -> list[int]:
    statement = sa.select(rows.c.audit_id).where(condition).order_by(rows.c.audit_id)
    result = connection.execute(statement, execution_options={**database.streams, INTERNAL: True})
    return [row for batch in result.scalars().partitions(10_000) for row in batch]


def _runs(ids: Iterable[int], kept: set[int], gone: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Give runs of ids, in ascending order, with none between them that is kept, or gone already."""
    runs: list[tuple[int, int, int]] = []
    first: int | None = None
    last = count = position = 0
    for row in ids:
        passed = False
        while position < len(gone) and gone[position][1] < row:
            position, passed = position + 1, True
        inside = position < len(gone) and gone[position][0] <= row
        if first is not None and (passed or inside or row in kept):
            runs.append((first, last, count))
            first = None
        if inside or row in kept:
            continue
        if first is None:
            first, count = row, 0
        last, count = row, count + 1
    if first is not None:
        runs.append((first, last, count))
    return runs
