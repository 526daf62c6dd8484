"""Continuity: a change's before-values are what the change before it left.

Where they are not, something changed the data without being recorded.  The database compares; that the rows which it
compares are the sealed ones is the other passes' word.  Imports catalog.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..catalog import CatalogDatabase
from ..catalog.continuity import ORDER, continuity_for
from .plans import LiveTable
from .report import LISTED, Findings


@dataclass(frozen=True, slots=True)
class Comparison:
    """The SELECT of one history's changes that don't continue the one before; it can be sent to another process."""

    table: str
    statement: str

    def run(self, connection: Connection, findings: Findings) -> None:
        """Have the database compare.

        Args:
            connection: in a transaction with pinned settings.
            findings: where findings go.
        """
        try:
            with connection.begin_nested():
                for row, before, kind in connection.execute(sa.text(self.statement), {"limit": 10 * LISTED}):
                    expected = f"what {before} left" if kind != ORDER else f"a change that can follow {before}"
                    got = "other before-values" if kind != ORDER else "one that can't"
                    findings.add("continuity", self.table, row, expected, got)
        except DBAPIError as error:
            findings.add("table-unreadable", self.table, None, "changes that can be compared", str(error.orig)[:300])


def comparisons(connection: Connection, catalog: CatalogDatabase, tables: list[LiveTable]) -> Iterator[Comparison]:
    """Yield what compares each change with the one before it of the same row.

    Tables without a primary key are left out: their rows can't be told apart.

    Args:
        connection: to the database.
        catalog: how to spell.
        tables: those of the trail.
    """
    account = next((each for each in tables if each.place[1] == "audit_column"), None)
    for table in tables:
        audited = table.sealed.audited if table.sealed is not None else None
        if audited is None or account is None or not audited.table.primary_key.columns:
            continue
        if not {column.name for column in audited.recorded} <= {column.name for column in table.columns}:
            continue  # the plans have said so of sealed ones, and others are not migrated yet
        database = continuity_for(connection.dialect)
        text = database.statement(audited, catalog.name_of(*table.place), catalog.name_of(*account.place))
        yield Comparison(table.place[1], text)
