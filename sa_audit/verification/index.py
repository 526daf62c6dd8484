"""Which rows a block holds, and what ``audit_sealed`` says of it.  Imports model and the room's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from .report import Findings

INDEX: Final = "audit_sealed"
GREATEST: Final = (1 << 63) - 1


@dataclass(slots=True)
class Span:
    """The rows of one table in a block: first and last id, and how many."""

    first: int
    last: int
    rows: int

    def add(self, row: int) -> None:
        """Count a row."""
        self.rows += 1
        if row > self.last:
            self.last = row
        elif row < self.first:
            self.first = row


class Index:
    """``audit_sealed``, compared with the blocks."""

    def __init__(self, connection: Connection, trail: Trail) -> None:
        self._connection = connection
        self._table = trail.sealed

    def check(self, block: int, spans: dict[int, Span], findings: Findings) -> None:
        """Compare what is said of a block."""
        table = self._table
        statement = sa.select(table.c.table_id, table.c.first_row, table.c.last_row, table.c.leaves)
        rows = self._connection.execute(statement.where(table.c.block == block))
        got = sorted((tuple(row) for row in rows), key=repr)  # SQLite holds whatever was put there
        expected = sorted(((number, span.first, span.last, span.rows) for number, span in spans.items()), key=repr)
        if got != expected:
            findings.add("index-changed", INDEX, block, str(expected)[:300], str(got)[:300])

    def finish(self, end: int, findings: Findings) -> None:
        """Look for what is said of blocks that are not there."""
        block = self._table.c.block
        statement = sa.select(block).where(sa.or_(block < 0, block >= min(end, GREATEST))).distinct().limit(1)
        for number in self._connection.scalars(statement):
            row = number if isinstance(number, int) else None
            findings.add("index-changed", INDEX, row, f"blocks up to {end - 1}", f"block {number!r}")
