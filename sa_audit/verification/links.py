"""Rows and their transactions: each history row belongs to a recorded one, and has its moment and its id.

Imports catalog.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..catalog import CatalogDatabase
from .plans import LiveTable
from .report import LISTED, Findings


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
        for table in tables if entries is not None else ():
            names = {column.name for column in table.columns}
            if "audit_tx" not in names or entries is None:
                continue
            try:
                with connection.begin_nested():
                    self._table(connection, table, entries, names, findings)
            except DBAPIError as error:
                findings.add("table-unreadable", table.place[1], None, "rows with transactions", str(error.orig)[:300])

    def _table(
        self, connection: Connection, table: LiveTable, entries: LiveTable, names: set[str], findings: Findings
    ) -> None:
        own = {column.name for column in entries.columns}
        differs = [
            f"(r.{mine} <> e.{theirs} OR (r.{mine} IS NULL) <> (e.{theirs} IS NULL))"
            for mine, theirs in (("audit_at", "recorded_at"), ("audit_txid", "db_txid"))
            if mine in names and theirs in own
        ]
        misfits = " OR ".join(["e.id IS NULL", *differs])
        statement = sa.text(
            f"SELECT r.{table.id_column}, r.audit_tx, e.id IS NULL FROM {self._catalog.name_of(*table.place)} AS r"
            f" LEFT JOIN {self._catalog.name_of(*entries.place)} AS e ON e.id = r.audit_tx WHERE {misfits} "
            " ORDER BY 1 LIMIT :limit"
        )
        for row, transaction, orphaned in connection.execute(statement, {"limit": 10 * LISTED}):
            if orphaned:
                findings.add("row-orphaned", table.place[1], row, f"transaction {transaction}", "none")
            else:
                expected = f"moment and id of transaction {transaction}"
                findings.add("row-misdated", table.place[1], row, expected, "others")
