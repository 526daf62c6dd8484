"""The first pass: the log by itself, from its first block to its last.

It recomputes the tree, reads each header and each entry that is not a row's, and notes which rows have a leaf.
``docs/format/entries.md`` says what has to hold.  Imports model, proof and catalog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.engine import Connection

from ..catalog import Block, catalog_for
from ..catalog.log import blocks_ahead, pack_tiles
from ..errors import AuditError
from ..model.history import Trail
from ..proof.entries import (
    BlockEntry,
    CatalogEntry,
    Entry,
    Horizon,
    IncarnationEntry,
    KeyEntry,
    PersonKeyEntry,
    PruneEntry,
    RowEntry,
    SchemaEntry,
    decode_entry,
)
from ..proof.schema import Descriptor
from ..proof.types import Digest
from .ids import IdSet
from .index import Index, Span
from .leaves import ROW_START, Alike, parts_of, row_of
from .report import Findings
from .stated import StatedCatalogs
from .tree import Tree

BLOCKS: Final = "audit_block"
GROUP: Final = 65_536
"""How many leaves are compared with their rows at a time."""
_MALFORMED: Final = (AuditError, ValueError, IndexError)


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks whose rows are compared at a time: their numbers, their leaves, and the digest of their bytes."""

    first: int
    last: int
    leaves: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Excuse:
    """Rows that may be missing: those of a table from ``first`` to ``last`` whose leaf comes before ``before``."""

    table: int
    first: int
    last: int
    before: int
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A header that closes: the size of the log behind its block, when it was sealed, and its horizon."""

    size: int
    sealed_at: int
    horizon: Horizon


@dataclass(slots=True)
class Log:
    """What the first pass gives to the others.

    Args:
        size: the number of leaves that were read.
        roots: the root at each size that was asked for, as far as it could be recomputed.
        whole: how many leaves could be followed without a break.
        sealed: by table number, which rows have a leaf.
        schemas: by digest, each descriptor in the order of the log.
        marks: the closing headers.
        catalogs: those that the log states.
        ends: the sizes behind closing blocks.
    """

    size: int = 0
    whole: int = 0
    broken: bool = False
    roots: dict[int, Digest] = field(default_factory=dict)
    sealed: dict[int, IdSet] = field(default_factory=dict)
    schemas: dict[bytes, Descriptor] = field(default_factory=dict)
    last_schema: dict[int, Descriptor] = field(default_factory=dict)
    keys: list[KeyEntry] = field(default_factory=list)
    tokens: list[tuple[int, Digest]] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    prunes: list[tuple[int, PruneEntry]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    catalogs: StatedCatalogs = field(default_factory=StatedCatalogs)
    groups: list[Group] = field(default_factory=list)
    rows: int = 0

    def mark_at(self, size: int) -> Mark | None:
        """Give the last closing header of the first leaves."""
        return next((mark for mark in reversed(self.marks) if mark.size <= size), None)


class LogPass:
    """Goes through the blocks.

    Args:
        findings: where findings go.
        sizes: those at which a root is wanted.
        since: the leaves before are not compared with their rows.
        until: the size at which to end; None for all leaves.
        progress: called with the number of leaves that were read.
    """

    def __init__(
        self,
        findings: Findings,
        sizes: Iterable[int],
        *,
        since: int = 0,
        until: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.log = Log()
        self._findings = findings
        self._sizes = sorted(set(sizes))
        self._since = since
        self._until = until
        self._progress = progress
        self._tree = Tree()
        self._number = 0
        self._incarnation = 0
        self._open: list[Block] = []
        self._hash = hashlib.sha256()
        self._leaves = 0

    def run(self, connection: Connection, trail: Trail) -> Log:
        """Read the log."""
        self._root()
        index = Index(connection, trail)
        for block in blocks_ahead(connection, catalog_for(connection.dialect), trail):
            self._block(block, index)
            if self._progress is not None:
                self._progress(self.log.size)
            if self._until is not None and self.log.size >= self._until:
                break
        self._close_group(force=True)
        index.finish(self._number, self._findings)
        self.log.whole = self._tree.size
        self.log.roots.setdefault(self._tree.size, self._tree.root())
        return self.log

    # -- one block -------------------------------------------------------------------------

    def _block(self, block: Block, index: Index) -> None:
        if block.number != self._number:
            self._add("block-missing", self._number, f"block {self._number}", f"block {block.number}")
            self._break()
        self._number = max(self._number, block.number) + 1
        try:
            entries = block.entries()
        except AuditError as error:
            self._add("block-malformed", block.number, "an entry bundle", str(error))
            self._break()
            return
        first = self.log.size if not self.log.broken else block.first
        if block.first != first or block.count != len(entries):
            self._add(
                "block-changed",
                block.number,
                f"{len(entries)} leaves from {first} on",
                f"{block.count} from {block.first} on",
            )
        self._grow(block, entries)
        spans = self._entries(block, first, entries)
        self.log.size = first + len(entries)
        index.check(block.number, spans, self._findings)
        self._group(block, entries)

    def _grow(self, block: Block, entries: list[bytes]) -> None:
        """Append to the tree, with a stop at each size whose root is wanted; compare the tiles that the block keeps."""
        if self.log.broken:
            return
        made, start, before = [], 0, self._tree.size
        for size in self._wanted(before, before + len(entries)):
            made += self._tree.append(entries[start : size - before])
            start = size - before
            self._root()
        made += self._tree.append(entries[start:])
        made += [
            edge
            for level in range(1, 8)
            if (edge := self._tree.edge(level)) is not None and any(tile.level == level - 1 for tile in made)
        ]
        made.sort(key=lambda tile: (tile.level, tile.index))
        expected = pack_tiles(made)
        if block.tiles != expected:
            self._findings.add(
                "tile-changed",
                BLOCKS,
                block.number,
                hashlib.sha256(expected).hexdigest(),
                hashlib.sha256(block.tiles).hexdigest(),
            )

    def _wanted(self, first: int, last: int) -> list[int]:
        return [size for size in self._sizes if first < size <= last]

    def _root(self) -> None:
        self.log.roots[self._tree.size] = self._tree.root()

    def _break(self) -> None:
        """Note that the leaves behind can't be numbered, so that no root of theirs can be recomputed."""
        self.log.broken = True

    # -- its entries -----------------------------------------------------------------------

    def _entries(self, block: Block, first: int, entries: list[bytes]) -> dict[int, Span]:
        """Read the header and whatever is no row's; note the rows."""
        header: BlockEntry | None = None
        spans: dict[int, Span] = {}
        incarnation = self._incarnation  # the header stands before an entry that begins another one
        decoded = self._decoded(entries[0], first) if entries else None
        if isinstance(decoded, BlockEntry):
            header = decoded
        elif decoded is not None:
            self._other(decoded, entries[0], first)
        for start, part, alike in parts_of(entries, 1):
            if alike is None or not self._alike(alike, first + start, spans):
                self._each(part, first + start, spans)
        self._header(block, first, len(entries), header, spans, incarnation)
        return spans

    def _decoded(self, entry: bytes, index: int) -> Entry | None:
        try:
            return decode_entry(entry)
        except _MALFORMED as error:
            self._leaf(index, "an entry", str(error))
            return None

    def _each(self, entries: Sequence[bytes], first: int, spans: dict[int, Span]) -> None:
        for index, entry in enumerate(entries, first):
            if entry.startswith(ROW_START):
                self._row(entry, index, spans)
            elif (decoded := self._decoded(entry, index)) is not None:
                self._other(decoded, entry, index)

    def _alike(self, alike: Alike, first: int, spans: dict[int, Span]) -> bool:
        """Note many rows at once; give whether their schema is known, without which nothing is noted."""
        table, schema, rows = alike
        known = self.log.schemas.get(schema)
        if known is None or known.table != table:
            return False
        for position in self.log.sealed.setdefault(table, IdSet()).add_all(rows):
            self._duplicated(table, rows[position], first + position)
        lowest, highest = min(rows), max(rows)
        span = spans.setdefault(table, Span(lowest, highest, 0))
        span.add(lowest)
        span.add(highest)
        span.rows += len(rows) - 2
        return True

    def _row(self, entry: bytes, index: int, spans: dict[int, Span]) -> None:
        try:
            table, row, schema = row_of(entry)
        except _MALFORMED as error:
            self._leaf(index, "the entry of a row", str(error))
            return
        known = self.log.schemas.get(schema)
        if known is None or known.table != table:
            self._findings.add(
                "schema-unknown",
                BLOCKS,
                index,
                f"the schema of table {table} before it",
                f"leaf {index}: {schema.hex()}",
            )
        ids = self.log.sealed.get(table)
        if ids is None:
            ids = self.log.sealed[table] = IdSet()
        if not ids.add(row):
            self._duplicated(table, row, index)
        span = spans.get(table)
        if span is None:
            spans[table] = Span(row, row, 1)
        else:
            span.add(row)

    def _duplicated(self, table: int, row: int, index: int) -> None:
        name = self.log.last_schema[table].name if table in self.log.last_schema else str(table)
        self._findings.add("leaf-duplicated", name, row, "one leaf", f"another one, {index}")

    def _other(self, entry: Entry, encoded: bytes, index: int) -> None:
        match entry:
            case SchemaEntry(table=table):
                descriptor = Descriptor.decode(entry.descriptor)
                self.log.schemas[descriptor.digest] = self.log.last_schema[table] = descriptor
            case KeyEntry():
                self.log.keys.append(entry)
            case PruneEntry():
                self.log.prunes.append((index, entry))
            case IncarnationEntry():
                self._incarnated(entry, index)
            case PersonKeyEntry():
                pass
            case CatalogEntry():
                self.log.catalogs.take(entry, encoded)
            case BlockEntry() | RowEntry():
                self._leaf(index, "an entry that can stand there", type(entry).__name__)

    def _incarnated(self, entry: IncarnationEntry, index: int) -> None:
        if entry.number not in (self._incarnation, self._incarnation + 1) or entry.number == 0:
            self._leaf(index, f"incarnation {self._incarnation + 1}", str(entry.number))
        self._incarnation = entry.number
        for loss in entry.tables:
            for first, last in loss.lost:
                self.log.excuses.append(Excuse(loss.table, first, last, index))
                if loss.table in self.log.sealed:
                    self.log.sealed[loss.table].discard_range(first, last)

    def _header(
        self,
        block: Block,
        first: int,
        count: int,
        header: BlockEntry | None,
        spans: dict[int, Span],
        incarnation: int,
    ) -> None:
        if header is None:
            self._add("block-changed", block.number, "a header", "none")
            return
        tables = tuple(sorted((table, span.rows) for table, span in spans.items()))
        expected = (block.number, first, count, incarnation, tables)
        got = (header.number, header.first, header.count, header.incarnation, header.tables)
        if got != expected:
            self._add("block-changed", block.number, f"a header of {expected}", f"one of {got}")
        if header.token is not None:
            self.log.tokens.append((block.number, header.token))
        if header.closes:
            self.log.marks.append(Mark(first + count, header.sealed_at, header.horizon))
        accounts = any(self._is_account(table) for table in spans)
        self.log.catalogs.block(header, first + count, self._findings, accounts=accounts)

    def _is_account(self, table: int) -> bool:
        known = self.log.last_schema.get(table)
        return known is not None and known.role == "trail"

    # -- groups ----------------------------------------------------------------------------

    def _group(self, block: Block, entries: list[bytes]) -> None:
        if self.log.size <= self._since:
            return
        self._open.append(Block(number=block.number, first=block.first, count=block.count, data=b"", tiles=b""))
        self._hash.update(block.data)
        self._leaves += len(entries)
        self._close_group()

    def _close_group(self, *, force: bool = False) -> None:
        if self._open and (force or self._leaves >= GROUP):
            group = Group(self._open[0].number, self._open[-1].number, self._leaves, self._hash.digest())
            self.log.groups.append(group)
            self._open, self._hash, self._leaves = [], hashlib.sha256(), 0

    def _leaf(self, index: int, expected: str, got: str) -> None:
        self._add("leaf-malformed", index, expected, f"leaf {index}: {got}")

    def _add(self, kind: str, row: int, expected: str, got: str) -> None:
        self._findings.add(kind, BLOCKS, row, expected, got)
