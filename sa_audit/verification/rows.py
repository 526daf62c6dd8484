"""The second pass: the rows, read again, and their entries made anew.

A group of blocks is compared at a time: of each table the rows are read by stretches of ids, in order, and each has to
give the very entry that the log holds.  Groups don't depend on each other, so that workers share them.
Imports proof and catalog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..catalog import CatalogDatabase, RowReader
from ..catalog.log import integer, octets
from ..errors import AuditError
from ..proof.blocks import unpack_entries
from ..proof.entries import RowEntry, decode_entry
from .leaves import ROW_START, parts_of, row_of
from .log import BLOCKS, Excuse, Group
from .plans import Plan
from .report import Findings

GAP: Final = 2_000
"""Ids that lie further apart are read by two SELECTs."""
_UNREADABLE: Final = (AuditError, DBAPIError, ValueError, TypeError, ArithmeticError, LookupError)
_MALFORMED: Final = (AuditError, ValueError, IndexError)

Expected = dict[int, tuple[bytes, int]]
"""By id, the entry of a row and the index of its leaf."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the comparison of any group needs; it can be sent to another process.

    Args:
        blocks: the quoted name of the table of blocks.
        plans: by schema digest.
        excuses: by table number, the rows that may be missing.
    """

    blocks: str
    plans: Mapping[bytes, Plan]
    excuses: Mapping[int, Sequence[Excuse]] = field(default_factory=dict)


class RowPass:
    """Compares groups.

    Args:
        database: how to read it.
        task: what is common to the groups.
    """

    def __init__(self, database: CatalogDatabase, task: Task) -> None:
        self._database = database
        self._task = task
        self._readers = {digest: plan.reader(database) for digest, plan in task.plans.items()}

    def compare(self, connection: Connection, group: Group, findings: Findings) -> int:
        """Compare the rows of a group; give how many were read.

        Args:
            connection: in a transaction with pinned settings.
            group: the blocks.
            findings: where findings go.
        """
        read = 0
        for schema, expected in self._expected(connection, group, findings).items():
            plan = self._task.plans.get(schema)
            if plan is None:
                continue
            ids = sorted(expected)
            for first, last in stretches(ids):
                read += self._stretch(connection, schema, (first, last), expected, findings)
            self._extras(connection, plan, ids, findings)
            self._missing(plan, expected, findings)
        return read

    # -- what the log says -----------------------------------------------------------------

    def _expected(self, connection: Connection, group: Group, findings: Findings) -> dict[bytes, Expected]:
        """Read the leaves of a group again, by schema."""
        found: dict[bytes, Expected] = {}
        digest = hashlib.sha256()
        statement = sa.text(
            f"SELECT first_leaf, entries FROM {self._task.blocks} WHERE number BETWEEN :first AND :last ORDER BY number"
        )
        for said, raw in connection.execute(statement, {"first": group.first, "last": group.last}):
            first, data = integer(said), octets(raw) or b""
            digest.update(data)
            try:
                entries = unpack_entries(data)
            except AuditError:
                continue  # the first pass has found it
            for start, part, alike in parts_of(entries):
                index = first + start
                if alike is not None and not self._task.excuses.get(alike.table):
                    rows = found.setdefault(alike.schema, {})
                    rows.update(zip(alike.rows, zip(part, range(index, index + len(part)), strict=True), strict=True))
                    continue
                for position, entry in enumerate(part, index):
                    if entry.startswith(ROW_START):
                        self._sort(entry, position, found)
        if digest.digest() != group.digest:
            findings.add("block-changed", BLOCKS, group.first, "the bytes that were read before", "others")
        return found

    def _sort(self, entry: bytes, index: int, found: dict[bytes, Expected]) -> None:
        try:
            table, row, schema = row_of(entry)
        except _MALFORMED:
            return  # the first pass has found it
        for excuse in self._task.excuses.get(table, ()):
            if not excuse.prune and excuse.first <= row <= excuse.last and index < excuse.before:
                return  # lost with a former incarnation, and the id may be that of another row now
        rows = found.get(schema)
        if rows is None:
            rows = found[schema] = {}
        rows[row] = (entry, index)

    # -- what the database says ------------------------------------------------------------

    def _stretch(
        self, connection: Connection, schema: bytes, ids: tuple[int, int], expected: Expected, findings: Findings
    ) -> int:
        reader = self._readers[schema]
        condition = f"WHERE r.{reader.id_column} BETWEEN :first AND :last"
        try:
            return self._compare(reader, connection, condition, ids, expected, findings)
        except _UNREADABLE as error:
            if ids[0] == ids[1]:
                expected.pop(ids[0], None)
                findings.add("row-unreadable", reader.descriptor.name, ids[0], "a row that can be read", _said(error))
                return 0
        middle = (ids[0] + ids[1]) // 2
        return sum(
            self._stretch(connection, schema, half, expected, findings)
            for half in ((ids[0], middle), (middle + 1, ids[1]))
        )

    def _compare(
        self,
        reader: RowReader,
        connection: Connection,
        condition: str,
        ids: tuple[int, int],
        expected: Expected,
        findings: Findings,
    ) -> int:
        read = 0
        name = reader.descriptor.name
        take = expected.pop
        with connection.begin_nested():  # what the database refuses to read must not end the transaction
            for rows, entries in reader.entries(connection, condition, {"first": ids[0], "last": ids[1]}):
                for row, entry in zip(rows, entries, strict=True):
                    known = take(row, None)
                    if known is None:
                        continue  # another group's, or not sealed
                    read += 1
                    if known[0] != entry:
                        findings.add("row-changed", name, row, *_differences(known[0], entry))
        return read

    def _extras(self, connection: Connection, plan: Plan, ids: list[int], findings: Findings) -> None:
        """Look for values in columns that the rows had not when they were sealed."""
        if not plan.extras:
            return
        quote = self._database.spelling.quote
        reader = self._readers[plan.descriptor.digest]
        filled = " OR ".join(f"r.{quote(name)} IS NOT NULL" for name in plan.extras)
        statement = sa.text(
            f"SELECT r.{reader.id_column} FROM {reader.table} AS r"
            f" WHERE r.{reader.id_column} BETWEEN :first AND :last AND ({filled})"
        )
        own = set(ids)
        for first, last in stretches(ids):
            for row in connection.scalars(statement, {"first": first, "last": last}):
                if row in own:
                    columns = ", ".join(plan.extras)
                    findings.add("value-unsealed", plan.descriptor.name, row, f"NULL in {columns}", "a value")

    def _missing(self, plan: Plan, expected: Expected, findings: Findings) -> None:
        """Report what was not found, unless it may be missing."""
        table = plan.descriptor.table
        excuses = self._task.excuses.get(table, ())
        for row, (entry, index) in sorted(expected.items()):
            if not any(each.first <= row <= each.last and index < each.before for each in excuses):
                findings.add("row-missing", plan.descriptor.name, row, _digest(entry), "no row")


def stretches(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last id of each stretch without a wide gap."""
    first = last = None
    for row in ids:
        if first is None or last is None:
            first = row
        elif row - last > GAP:
            yield first, last
            first = row
        last = row
    if first is not None and last is not None:
        yield first, last


def _differences(sealed: bytes, got: bytes) -> tuple[str, str]:
    """Say what a row had to give and gave: its digest, or else its transaction."""
    try:
        expected, found = decode_entry(sealed), decode_entry(got)
    except AuditError as error:
        return "an entry", str(error)
    if isinstance(expected, RowEntry) and isinstance(found, RowEntry) and expected.digest == found.digest:
        return f"transaction {expected.transaction}", f"transaction {found.transaction}"
    return _digest(sealed), _digest(got)


def _digest(entry: bytes) -> str:
    return f"the digest {entry[-32:].hex()}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def excuses_by_table(excuses: Sequence[Excuse], *, anchored: int | None) -> dict[int, list[Excuse]]:
    """Sort excuses; a prune counts only under an anchored checkpoint, where there are anchors.

    Args:
        excuses: those of the log.
        anchored: the size of the greatest anchored checkpoint, or None without anchors.
    """
    found: dict[int, list[Excuse]] = {}
    for excuse in excuses:
        if not excuse.prune or anchored is None or excuse.before < anchored:
            found.setdefault(excuse.table, []).append(excuse)
    return found


__all__ = ["RowPass", "Task", "excuses_by_table"]
