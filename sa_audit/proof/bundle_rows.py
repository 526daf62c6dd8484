"""The leaves and rows of a bundle, checked as they pass by in order; see :mod:`.bundle_check`.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol

from ..errors import IntegrityFinding, MalformedProof
from .archive import MAX_ROW, Archive, Stream
from .bundle import ENTRIES, rows_name
from .entries import RowEntry
from .readable import csv_header, csv_row
from .schema import Descriptor
from .tlog_proof import row_of


class Found(Protocol):
    """Takes a finding: its kind, the file, what is expected, what was got, and the leaf's index."""

    def __call__(self, kind: str, file: str, expected: object, got: object, index: int | None = None) -> None:
        """Note it."""


class Ranges:
    """The ranges that claim to be complete, while the leaves pass by."""

    def __init__(self, ranges: Iterable[tuple[int, int]], found: Found) -> None:
        self._found = found
        self._left = list(ranges)
        self._next: int | None = None

    def pass_by(self, index: int) -> None:
        """Note a leaf."""
        while self._left and self._left[0][1] <= index:
            self._close()
        if self._left and self._left[0][0] <= index:
            self._gap(index)
            self._next = index + 1

    def end(self) -> None:
        """Note that no more leaves come."""
        while self._left:
            self._close()

    def _close(self) -> None:
        self._gap(self._left[0][1])
        self._left.pop(0)
        self._next = None

    def _gap(self, index: int) -> None:
        expected = self._left[0][0] if self._next is None else self._next
        if expected < index:
            self._found("range", ENTRIES, f"the leaves {expected} to {index - 1}", "none", expected)


class RowFiles:
    """The files of rows, each read beside the entries, which come in the same order."""

    def __init__(self, archive: Archive, found: Found, stack: ExitStack) -> None:
        self._archive = archive
        self._found = found
        self._stack = stack
        self._names = {name for name in archive.names if name.startswith("rows/")}
        self._open: dict[str, _Rows] = {}

    def take(self, index: int, entry: RowEntry, schema: Descriptor) -> None:
        """Check the row of an entry, if it is shown."""
        name = rows_name(schema)
        rows = self._open.get(name)
        if rows is None:
            if f"{name}.cbor" not in self._names:
                return
            rows = self._open[name] = _Rows(self._archive, self._found, name, schema, self._stack)
        rows.take(index, entry)

    @property
    def count(self) -> int:
        """The number of rows that were checked."""
        return sum(rows.count for rows in self._open.values())

    def end(self) -> None:
        """Find what no entry has asked for."""
        for name, rows in self._open.items():
            rows.end()
            self._names -= {f"{name}.cbor", f"{name}.csv"}
        for name in sorted(self._names):
            self._found("row", name, "entries of that table and schema in the bundle", "none")


class _Rows:
    """The rows of one table and descriptor, and the same to read."""

    def __init__(self, archive: Archive, found: Found, name: str, schema: Descriptor, stack: ExitStack) -> None:
        self.count = 0
        self._found = found
        self._name = name
        self._schema = schema
        rows = archive.stream(f"{name}.cbor")
        stack.callback(rows.close)
        self._rows = rows.pairs(MAX_ROW)
        self._readable: Stream | None = None
        self._ahead = self._following()
        if f"{name}.csv" in archive.names:
            self._readable = archive.stream(f"{name}.csv")
            stack.callback(self._readable.close)
            self._compare(csv_header(schema), None)
        else:
            found("readable", f"{name}.csv", "it in the bundle", "none")

    def _following(self) -> tuple[int, bytes] | None:
        try:
            return next(self._rows, None)
        except MalformedProof as error:
            self._found("row", f"{self._name}.cbor", "what the format says", error)
            return None

    def take(self, index: int, entry: RowEntry) -> None:
        """Check the row of an entry, if it is shown."""
        self._skip_to(index)
        if self._ahead is None or self._ahead[0] != index:
            return
        data = self._ahead[1]
        self._ahead = self._following()
        self.count += 1
        try:
            row = row_of(entry, self._schema, data)
        except (MalformedProof, IntegrityFinding) as error:
            self._found("row", f"{self._name}.cbor", "the row that was sealed", error, index)
            self._readable = None  # what follows can't be compared any more
            return
        self._compare(csv_row(self._schema, index, row.forms), index)

    def _skip_to(self, index: int) -> None:
        while self._ahead is not None and self._ahead[0] < index:
            self._found("row", f"{self._name}.cbor", "an entry for it", "none", self._ahead[0])
            self._readable = None
            self._ahead = self._following()

    def _compare(self, expected: bytes, index: int | None) -> None:
        if self._readable is None:
            return
        got = self._readable.take(len(expected))
        if got != expected:
            self._found("readable", f"{self._name}.csv", expected, got, index)
            self._readable = None  # one finding is enough: the rest is shifted

    def end(self) -> None:
        """Find what is left over."""
        self._skip_to(1 << 63)
        if self._readable is not None and (rest := self._readable.take(80)):
            self._found("readable", f"{self._name}.csv", "its end", rest)
