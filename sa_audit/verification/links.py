"""Rows and their transactions: each history row belongs to a recorded one, and has its moment and its id.

A further entry of a transaction has those of its first one, likewise.

Imports catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..catalog import CatalogDatabase
from .plans import LiveTable
from .report import LISTED, Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tie:
    """What ties a row ``r`` to an entry ``e``: by which column, what has to be the same, what may never be."""

    column: str
    what: str
    same: tuple[tuple[str, str], ...]
    never: tuple[str, ...] = ()
    condition: str = ""


_TIES: Final = (
    _Tie(column="audit_tx", what="transaction", same=(("audit_at", "recorded_at"), ("audit_txid", "db_txid"))),
    _Tie(
        column="first_id",
        what="first entry",
        same=(("recorded_at", "recorded_at"), ("db_txid", "db_txid")),
        never=("e.first_id IS NOT NULL", "e.id >= r.id"),
        condition=" AND r.first_id IS NOT NULL",
    ),
)


class LinkPass:
    """Looks for rows that don't fit their transaction; the database joins them.

    Args:
        catalog: how to spell.
        entries: the table of transactions.
    """

    def __init__(self, catalog: CatalogDatabase, entries: LiveTable | None) -> None:
        self._catalog = catalog
        self._entries = entries

    def run(self, connection: Connection, tables: list[LiveTable], findings: Findings) -> None:
        """Check all tables whose rows have a transaction."""
        entries = self._entries
        if entries is None:
            return
        for table in tables:
            names = {column.name for column in table.columns}
            for tie in _TIES:
                if tie.column not in names or (tie.column == "first_id") != (table is entries):
                    continue
                try:
                    with connection.begin_nested():
                        self._table(connection, table, entries, tie, findings)
                except DBAPIError as error:
                    expected, got = f"rows with {tie.what}s", str(error.orig)[:300]
                    findings.add("table-unreadable", table.place[1], None, expected, got)

    def _table(
        self, connection: Connection, table: LiveTable, entries: LiveTable, tie: _Tie, findings: Findings
    ) -> None:
        names, own = ({column.name for column in each.columns} for each in (table, entries))
        differs = [
            f"(r.{mine} <> e.{theirs} OR (r.{mine} IS NULL) <> (e.{theirs} IS NULL))"
            for mine, theirs in tie.same
            if mine in names and theirs in own
        ]
        misfits = " OR ".join(["e.id IS NULL", *differs, *tie.never])
        statement = sa.text(
            f"SELECT r.{table.id_column}, r.{tie.column}, e.id IS NULL FROM {self._catalog.name_of(*table.place)} AS r"
            f" LEFT JOIN {self._catalog.name_of(*entries.place)} AS e ON e.id = r.{tie.column}"
            f" WHERE ({misfits}){tie.condition} ORDER BY 1 LIMIT :limit"
        )
        for row, transaction, orphaned in connection.execute(statement, {"limit": 10 * LISTED}):
            if orphaned:
                findings.add("row-orphaned", table.place[1], row, f"{tie.what} {transaction}", "none")
            else:
                expected = f"moment and id of {tie.what} {transaction}"
                findings.add("row-misdated", table.place[1], row, expected, "others")
