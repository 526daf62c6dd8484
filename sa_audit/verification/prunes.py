"""Prunes: whether each one in the log is that of its leaves, and ``audit_prune`` says the same.

Only a prune that is true excuses rows that are missing.  ``docs/format/entries.md``, "Prune".
Imports model, proof and catalog.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..catalog import CatalogDatabase, blocks
from ..catalog.folding import RangeFold, TableFold, take_block
from ..errors import AuditError
from ..model.history import Trail
from ..model.log import PRUNE
from ..proof.entries import PruneEntry
from .log import BLOCKS, Excuse, Log
from .report import Findings

_MALFORMED: Final = (AuditError, ValueError, IndexError, KeyError)
_COLUMNS: Final = (
    *("leaf", "table_name", "first_row", "last_row", "row_count"),
    *("root", "policy", "approver", "reason"),
)


def check_prunes(
    connection: Connection, catalog: CatalogDatabase, trail: Trail, log: Log, findings: Findings, *, since: int
) -> list[Excuse]:
    """Give what the prunes of the log excuse; report those that are not true.

    Args:
        connection: in a transaction with pinned settings.
        catalog: how to read it.
        trail: whose log.
        log: what the first pass gave.
        findings: where findings go.
        since: prunes among the first leaves were checked when these were.
    """
    _table(connection, catalog, trail, log, findings)
    folds = {index: RangeFold(each.first_row, each.last_row, index) for index, each in log.prunes if index >= since}
    _fold(connection, trail, log, folds)
    excuses = []
    for index, entry in log.prunes:
        fold = folds.get(index)
        if fold is not None and (fold.count, fold.root) != (entry.count, entry.root):
            findings.add(
                "prune-changed",
                BLOCKS,
                index,
                f"{fold.count} leaves of rows {entry.first_row} to {entry.last_row}, with the root {fold.root.hex()}",
                f"leaf {index}: {entry.count} with {entry.root.hex()}",
            )
            continue
        excuses.append(Excuse(entry.table, entry.first_row, entry.last_row, index, prune=True))
    return excuses


def _fold(connection: Connection, trail: Trail, log: Log, folds: dict[int, RangeFold]) -> None:
    """Read the log once more, for what stands before its prunes."""
    by_table: dict[int, list[RangeFold]] = {}
    for index, entry in log.prunes:
        if index in folds:
            by_table.setdefault(entry.table, []).append(folds[index])
    tables = [TableFold(table, ranges) for table, ranges in by_table.items()]
    for block in blocks(connection, trail) if tables else ():
        try:
            take_block(block, tables)
        except _MALFORMED:
            continue  # the first pass has found it


def _table(connection: Connection, catalog: CatalogDatabase, trail: Trail, log: Log, findings: Findings) -> None:
    """Compare ``audit_prune`` with the log, row by row."""
    schema = catalog.schema(connection, trail.transaction)
    there = bool(catalog.columns(connection, schema, PRUNE))
    said = {index: _said(index, entry, log) for index, entry in log.prunes}
    names = {index: _names(entry.table, log) for index, entry in log.prunes}
    if there:
        columns = ", ".join(catalog.spelling.quote(name) for name in _COLUMNS)
        statement = sa.text(f"SELECT {columns} FROM {catalog.name_of(schema, PRUNE)} ORDER BY leaf")
        try:
            with connection.begin_nested():
                rows = [tuple(row) for row in connection.execute(statement)]
        except DBAPIError as error:
            findings.add("table-unreadable", PRUNE, None, "rows with ids", str(error.orig)[:300])
            return
        for row in rows:
            expected = said.pop(row[0], None)
            if expected is None:
                got = f"rows {row[2]} to {row[3]} of {row[1]}"
                findings.add("prune-forged", PRUNE, row[0], f"a prune at leaf {row[0]}", got)
            elif expected != row and not (
                expected[0:1] + expected[2:] == row[0:1] + row[2:] and row[1] in names[row[0]]
            ):
                findings.add("prune-changed", PRUNE, row[0], _shown(expected), _shown(row))
    for index, missing in said.items():
        findings.add("prune-changed", PRUNE, index, _shown(missing), "no row")


def _names(table: int, log: Log) -> list[str]:
    """Give the names that a table has had, in the order of the log."""
    found = [each for each in log.schemas.values() if each.table == table]
    return [f"{each.schema}.{each.name}" if each.schema else each.name for each in found]


def _said(index: int, entry: PruneEntry, log: Log) -> tuple[object, ...]:
    name = next(iter(reversed(_names(entry.table, log))), "?")
    return (
        *(index, name, entry.first_row, entry.last_row, entry.count),
        *(entry.root.hex(), entry.policy, entry.approver, entry.reason),
    )


def _shown(row: tuple[object, ...]) -> str:
    return f"rows {row[2]} to {row[3]} of {row[1]}, {row[4]} leaves, by {row[7]}: {row[8]} ({row[6]}), {row[5]}"
