"""Prunes that were asked for: the sealer looks for itself whether the rows may go, and says so in the log.

A request is an event of the trail, sealed like all others; its ranges were found by whoever may read the holds.  The
sealer asks what it can answer alone: that the time to keep them is over, that each row has its leaf and stands there,
that the last word on every row that is there stands behind them, and that what was there at the cutoff is left.
Imports catalog, proof, model and errors.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase, blocks, find_leaf
from ..catalog.folding import RangeFold, fold_ranges
from ..catalog.prunes import (
    REQUESTED,
    Request,
    bound_of,
    first_within,
    is_needed,
    is_newest,
    place_text,
    read_prunes,
    requests,
)
from ..model.history import AuditedTable, Trail
from ..proof.entries import IncarnationEntry, PruneEntry, decode_entry
from .state import State

ENTRIES: Final = 2 * REQUESTED
"""How many ranges one round takes at the most: they fit one block."""
_LOSSES: Final = b"\x88\x01\x07"
"""How an incarnation's entry begins: an array of eight, version 1, kind 7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A range that may go: its entry for the log, and the request that it fulfils."""

    entry: PruneEntry
    request: Request


class Pruning:
    """One round's look at what was asked for.

    Args:
        connection: in a transaction, its settings pinned.
        database: how to read it.
        trail: the trail.
        state: what is sealed.
        now: the sealer's clock, in UTC.
    """

    def __init__(
        self, connection: Connection, database: CatalogDatabase, trail: Trail, state: State, now: dt.datetime
    ) -> None:
        self.connection = connection
        self.database = database
        self.trail = trail
        self.state = state
        self.now = now

    def granted(self) -> list[Granted]:
        """Give the ranges that may go; a request of which any part may not is left as it is."""
        found: list[Granted] = []
        for request in requests(self.connection, self.database, self.trail):
            if len(found) + len(request.ranges) <= ENTRIES:
                found += self._grant(request)
        return found

    def _grant(self, request: Request) -> list[Granted]:
        audited = self._audited(request.table)
        known = self.state.tables.get(request.table)
        if audited is None or known is None or not self._is_sealed(request) or not self._may_go(request, audited):
            return []
        folds = [RangeFold(first, last, self.state.size) for first, last in request.ranges]
        fold_ranges(self.connection, self.trail, known.number, folds)
        if not self._stand(audited, known.number, folds):
            return []
        return [
            Granted(
                entry=PruneEntry(
                    table=known.number,
                    first_row=fold.first,
                    last_row=fold.last,
                    count=fold.count,
                    root=fold.root,
                    policy=request.policy,
                    approver=request.approver,
                    reason=request.reason,
                ),
                request=request,
            )
            for fold in folds
        ]

    def _audited(self, place: str) -> AuditedTable | None:
        for audited in self.trail.audited.values():
            if audited.options.retention is not None and place == self._place(audited):
                return audited
        return None

    def _place(self, audited: AuditedTable) -> str:
        return place_text(self.connection, self.database, audited.history)

    def _is_sealed(self, request: Request) -> bool:
        """Tell whether the request has its leaf, and so all that was carried forward before it."""
        schema = self.database.schema(self.connection, self.trail.event)
        known = self.state.tables.get(f"{schema}.{self.trail.event.name}" if schema else self.trail.event.name)
        return known is not None and find_leaf(self.connection, self.trail, known.number, request.id) is not None

    def _may_go(self, request: Request, audited: AuditedTable) -> bool:
        retention = audited.options.retention
        bound = bound_of(self.connection, audited, self.now - retention.keep) if retention is not None else None
        ranges = request.ranges
        if not ranges or bound is None or ranges[-1][1] >= bound or any(first > last for first, last in ranges):
            return False
        if any(one[1] >= other[0] for one, other in itertools.pairwise(ranges)):
            return False
        gone = read_prunes(self.connection, self.trail, request.table)
        if any(each.first <= last and first <= each.last for each in gone for first, last in ranges):
            return False
        if first_within(self.connection, audited, ranges, lambda rows: is_newest(audited, rows)) is not None:
            return False
        return request.reach is None or self._leaves(request, audited)

    def _leaves(self, request: Request, audited: AuditedTable) -> bool:
        """Tell whether every moment since the request's cutoff can be answered by what is left."""
        bound = bound_of(self.connection, audited, request.before)
        if bound is None or request.ranges[-1][1] >= bound or request.before > self.now:
            return False
        needed = first_within(self.connection, audited, request.ranges, lambda rows: is_needed(audited, rows, bound))
        return needed is None

    # -- what is there -------------------------------------------------------------------

    def _stand(self, audited: AuditedTable, table: int, folds: Sequence[RangeFold]) -> bool:
        """Tell whether the rows of each range are those that have leaves: a prune must not hide what is missing."""
        losses: list[tuple[int, int, int]] | None = None
        for fold in folds:
            history = audited.history
            statement = sa.select(history.c.audit_id).where(history.c.audit_id.between(fold.first, fold.last))
            rows = self.connection.scalars(statement, execution_options=self.database.streams)
            present = sorted(rows)
            if present == sorted(fold.ids) and present:
                continue
            losses = self._losses(table) if losses is None else losses
            if not present or present != sorted(_left(fold, losses)):
                return False
        return True

    def _losses(self, table: int) -> list[tuple[int, int, int]]:
        """Give the ranges of rows that were lost with former incarnations, and the leaf that says so."""
        found = []
        for block in blocks(self.connection, self.trail):
            for index, data in enumerate(block.entries(), block.first):
                if data.startswith(_LOSSES) and isinstance(entry := decode_entry(data), IncarnationEntry):
                    lost = (loss.lost for loss in entry.tables if loss.table == table)
                    found += [(first, last, index) for ranges in lost for first, last in ranges]
        return found

    # -- writing it down -----------------------------------------------------------------

    def note(self, granted: Sequence[Granted], leaves: Sequence[int]) -> None:
        """Write down what may go, as the leaves say it."""
        table = self.trail.prune
        if granted and table is not None:
            rows = [_row(each, leaf) for each, leaf in zip(granted, leaves, strict=True)]
            self.connection.execute(sa.insert(table), rows)


def _left(fold: RangeFold, losses: Sequence[tuple[int, int, int]]) -> list[int]:
    return [
        row
        for row, leaf in zip(fold.ids, fold.leaves, strict=True)
        if not any(first <= row <= last and leaf < index for first, last, index in losses)
    ]


def _row(granted: Granted, leaf: int) -> Mapping[str, Any]:
    entry, request = granted.entry, granted.request
    return {
        "leaf": leaf,
        "table_name": request.table,
        "first_row": entry.first_row,
        "last_row": entry.last_row,
        "row_count": entry.count,
        "root": entry.root.hex(),
        "policy": entry.policy,
        "approver": entry.approver,
        "reason": entry.reason,
        "request": request.id,
        "recorded_before": request.before,
        "whole_since": request.at if request.reach is None else request.reach.since,
    }
