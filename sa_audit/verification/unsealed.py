"""Rows without a leaf: those that are not sealed yet, and those that have no right to be there.

The database counts its rows by stretches of ids; only where it counts others than the log has, they are looked at.
Imports proof and catalog.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..proof.entries import Horizon
from .database import COVERED, HIDDEN, VerifierDatabase
from .ids import BITS, SPAN, IdSet
from .log import Log
from .plans import LiveTable
from .report import Findings

_NONE = IdSet()


class UnsealedPass:
    """Looks for rows that the log does not hold.

    Args:
        database: how to ask.
        log: what the first pass gave.
        epochs: the quoted name of MariaDB's table of epochs.
        entries: the number in the log of the table of transactions, if it has one.
    """

    def __init__(self, database: VerifierDatabase, log: Log, *, epochs: str, entries: int | None) -> None:
        self._database = database
        self._log = log
        self._epochs = epochs
        self._entries = entries
        mark = log.mark_at(log.size)
        self._horizon: Horizon | None = mark.horizon if mark is not None else None

    def count(self, connection: Connection, tables: list[LiveTable], findings: Findings) -> int:
        """Give the number of rows that are not sealed yet; report the others."""
        return sum(self._table(connection, table, findings) for table in tables)

    def _table(self, connection: Connection, table: LiveTable, findings: Findings) -> int:
        sealed = self._log.sealed.get(table.number, _NONE) if table.number is not None else _NONE
        counts = sealed.counts()
        unsealed = 0
        try:
            with connection.begin_nested():
                for chunk, there in self._counted(connection, table, findings):
                    if counts.get(chunk, 0) != there:
                        unsealed += self._stretch(connection, table, chunk, sealed, findings)
        except DBAPIError as error:
            findings.add("table-unreadable", table.place[1], None, "rows with ids", str(error.orig)[:300])
        return unsealed

    def _counted(self, connection: Connection, table: LiveTable, findings: Findings) -> list[tuple[int, int]]:
        """Count the rows of a table in each stretch of ids; rows with none are found."""
        catalog = self._database.catalog
        chunk = self._database.chunk(catalog.spelling.quote(table.id_column))
        statement = sa.text(f"SELECT {chunk} AS chunk, count(*) FROM {catalog.name_of(*table.place)} GROUP BY 1")
        number, found = self._database.chunk_number, []
        for each, count in connection.execute(statement):
            if each is None:
                findings.add("row-unreadable", table.place[1], None, "rows with ids", f"{count} without")
            else:
                found.append((number(int(each)), int(count)))
        return sorted(found)

    def _stretch(self, connection: Connection, table: LiveTable, chunk: int, sealed: IdSet, findings: Findings) -> int:
        catalog = self._database.catalog
        column = catalog.spelling.quote(table.id_column)
        coverage = self._database.coverage(table, self._horizon, epochs=self._epochs, entries=self._entries)
        statement = sa.text(
            f"SELECT r.{column}, {coverage.expression} FROM {catalog.name_of(*table.place)} AS r"
            f" WHERE r.{column} BETWEEN :first AND :last ORDER BY r.{column}"
        )
        bounds = {"first": chunk << BITS, "last": (chunk << BITS) + SPAN - 1}
        name, unsealed, before = table.place[1], 0, None
        for row, state in connection.execute(statement, {**coverage.parameters, **bounds}):
            if not isinstance(row, int):
                findings.add("row-unreadable", name, None, "a row with a number for an id", f"{row!r:.80}")
            elif row == before:
                findings.add("row-duplicated", name, row, "one row", "another one of this id")
            elif row not in sealed:
                if state == COVERED:
                    findings.add("row-backdated", name, row, "a leaf, since all of its time is sealed", "none")
                elif state == HIDDEN:
                    findings.add("row-hidden", name, row, "a transaction that is known", "one that can't be there yet")
                else:
                    unsealed += 1
            before = row
        return unsealed
