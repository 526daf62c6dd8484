"""Bundles, checked: each step of "Checking" in ``docs/format/bundle.md``, and every finding by name.

What can't be opened as a bundle raises; everything else is a finding, and the check goes on.  Memory stays flat.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import IntegrityFinding, MalformedProof
from .archive import Archive
from .bundle import CHECKPOINT, ENTRIES, POLICY, PROGRAM, README
from .bundle_rows import Ranges, RowFiles
from .checkpoint import Checkpoint
from .entries import MAX_ENTRY, RowEntry, SchemaEntry, decode_entry
from .merkle import leaf_hash
from .note import MAX_NOTE
from .policy import MAX_POLICY, Policy
from .schema import Descriptor
from .tiles import HEIGHT, WIDTH, Tile, frontier_of_tiles, index_path
from .tlog_proof import MAX_CONSISTENCY, MAX_PROOF, ConsistencyProof, Proof
from .types import SchemaDigest

MAX_FINDINGS: Final = 10_000
"""The most findings that are kept; the report says how many there were."""
_FILES: Final = re.compile(
    r"entries\.cbor|checkpoint\.txt|policy\.txt|README\.txt|verify\.py"
    r"|rows/[1-9][0-9]{0,9}-[0-9a-f]{16}\.(?:cbor|csv)|tile/[0-7]/(?:x[0-9]{3}/)*[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?"
    r"|proofs/(?:0|[1-9][0-9]*)\.tlog-proof|consistency/(?:0|[1-9][0-9]*)-(?:0|[1-9][0-9]*)\.txt|anchors/[^/]+"
)
_TILE: Final = re.compile(r"tile/([0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFinding:
    """What is not as it should be.

    Args:
        kind: ``file``, ``manifest``, ``signature``, ``tile``, ``entry``, ``schema``, ``row``, ``readable``, ``range``,
            ``proof`` or ``consistency``.
        file: where in the bundle.
        index: of the leaf, or None.
        expected: what should be there.
        got: what is.
    """

    kind: str
    file: str
    index: int | None
    expected: str
    got: str

    def __str__(self) -> str:
        place = self.file if self.index is None else f"{self.file}, leaf {self.index}"
        return f"{self.kind}: {place}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What a bundle proves, if there is no finding.

    Args:
        checkpoint: of the log.
        ranges: of indexes, first and end, of which every leaf is in the bundle.
        entries: the number of leaves.
        rows: the number of rows.
        proofs: the number of proofs as text, of inclusion and of consistency.
        findings: at most 10,000 of them.
        count: how many there were.
    """

    checkpoint: Checkpoint
    ranges: tuple[tuple[int, int], ...]
    entries: int
    rows: int
    proofs: int
    findings: tuple[BundleFinding, ...]
    count: int

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.count == 0


def check_bundle(path: Path, policy: Policy, *, held: Checkpoint | None = None) -> BundleReport:
    """Check a bundle.

    Args:
        path: the zip file.
        policy: who has to have signed the checkpoint; the auditor's own.
        held: a checkpoint that the auditor has kept: it is a finding if the bundle proves no consistency with it.

    Raises:
        MalformedProof: if it is no bundle, or its checkpoint is none.
        OSError: if the file can't be opened.
    """
    with path.open("rb") as file:
        archive = Archive(file)
        checkpoint = Checkpoint.parse(archive.read(CHECKPOINT, MAX_NOTE))
        check = _Check(archive, checkpoint, policy)
        check.files()
        check.signatures()
        check.tiles()
        check.leaves()
        check.proofs()
        check.consistency(held)
    return BundleReport(
        checkpoint=checkpoint,
        ranges=archive.manifest.ranges,
        entries=check.entries,
        rows=check.rows,
        proofs=check.proved,
        findings=tuple(check.findings),
        count=check.count,
    )


@dataclass
class _Check:
    """One check under way."""

    archive: Archive
    checkpoint: Checkpoint
    policy: Policy
    findings: list[BundleFinding] = field(default_factory=list)
    count: int = 0
    entries: int = 0
    rows: int = 0
    proved: int = 0
    _level_0: Tile | None = None
    _schemas: dict[SchemaDigest, Descriptor] = field(default_factory=dict)

    def found(self, kind: str, file: str, expected: object, got: object, index: int | None = None) -> None:
        """Note a finding."""
        self.count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(
                BundleFinding(kind=kind, file=file, index=index, expected=str(expected), got=f"{got!s:.400}")
            )

    def files(self) -> None:
        """Step 1: the files are those of the manifest."""
        listed, names = self.archive.manifest.files, self.archive.names
        for name in sorted(listed.keys() | set(names)):
            if name not in listed or name not in names:
                self.found("file", name, "it in the manifest and in the bundle", "it in one of them only")
                continue
            if _FILES.fullmatch(name) is None:
                self.found("file", name, "a name of the format", "another one")
            try:
                got = self.archive.digest(name)
            except MalformedProof as error:
                self.found("file", name, "a file that can be read", error)
                continue
            if got != listed[name]:
                self.found("file", name, "{} bytes, {}".format(*listed[name]), "{} bytes, {}".format(*got))
        for name in {CHECKPOINT, ENTRIES, POLICY, PROGRAM, README} - set(names):
            self.found("file", name, "it in the bundle", "none")

    def signatures(self) -> None:
        """Step 2: the checkpoint satisfies the policy, and the manifest says the same as it."""
        try:
            self.policy.check(self.checkpoint)
        except IntegrityFinding as error:
            self.found("signature", CHECKPOINT, "a checkpoint that the policy accepts", error)
        try:
            Policy.parse(self.archive.read(POLICY, MAX_POLICY))
        except MalformedProof as error:
            self.found("file", POLICY, "a policy", error)
        manifest = self.archive.manifest
        said = (manifest.origin, manifest.size, manifest.root)
        true = (self.checkpoint.origin, self.checkpoint.size, self.checkpoint.root.hex())
        if said != true:
            self.found("manifest", "manifest.json", true, said)

    # -- the tree --------------------------------------------------------------------

    def tiles(self) -> None:
        """Step 3: the tiles lead to the root."""
        for name in self.archive.names:
            if name.startswith("tile/"):
                self._attempt("tile", name, self._tile_fits, name)
        self._attempt("tile", "tile/", self._root_fits)

    def _tile_fits(self, name: str) -> None:
        match = _TILE.fullmatch(name)
        if match is None:
            return
        level, index = int(match[1]), int(match[2].replace("x", "").replace("/", ""))
        width = min((self.checkpoint.size >> (HEIGHT * level)) - index * WIDTH, WIDTH)
        if width < 1 or name != _tile_name(level, index, width):
            self.found("tile", name, f"a tile of the tree of {self.checkpoint.size} leaves", "another one")
            return
        tile = self._read_tile(level, index, width)
        if tile.full:
            parent_width = min((self.checkpoint.size >> (HEIGHT * (level + 1))) - index // WIDTH * WIDTH, WIDTH)
            parent = self._read_tile(level + 1, index // WIDTH, parent_width)
            expected, got = parent.hash(index % WIDTH), tile.subtree(HEIGHT, 0)
            if got != expected:
                self.found("tile", name, f"{expected.hex()}, as {parent.path} says", got.hex())

    def _root_fits(self) -> None:
        got = frontier_of_tiles(self.checkpoint.size, self._read_tile).root()
        if got != self.checkpoint.root:
            self.found("tile", "tile/", f"the root {self.checkpoint.root.hex()}", got.hex())

    def _read_tile(self, level: int, index: int, width: int) -> Tile:
        name = _tile_name(level, index, width)
        tile = Tile(level, index, self.archive.read(name, width * 32))
        if tile.width != width:
            raise IntegrityFinding(f"{name} has {tile.width} hashes, and needs {width}")
        return tile

    # -- entries and rows ------------------------------------------------------------

    def leaves(self) -> None:
        """Steps 4 to 8: each entry is in the tree, each row is that of its entry, each range is complete."""
        with ExitStack() as stack:
            rows = RowFiles(self.archive, self.found, stack)
            ranges = Ranges(self.archive.manifest.ranges, self.found)
            self._attempt("entry", ENTRIES, self._entries, rows, ranges)
            ranges.end()
            self._attempt("row", "rows/", rows.end)
            self.rows = rows.count

    def _entries(self, rows: RowFiles, ranges: Ranges) -> None:
        for index, data in self.archive.stream(ENTRIES).pairs(MAX_ENTRY):
            self.entries += 1
            ranges.pass_by(index)
            self._attempt("entry", ENTRIES, self._entry, index, data, rows, index=index)

    def _entry(self, index: int, data: bytes, rows: RowFiles) -> None:
        self._in_tree(index, data)
        entry = decode_entry(data)
        if isinstance(entry, SchemaEntry):
            descriptor = Descriptor.decode(entry.descriptor)
            self._schemas[descriptor.digest] = descriptor
        if isinstance(entry, RowEntry):
            schema = self._schemas.get(entry.schema)
            if schema is None:
                self.found("schema", ENTRIES, f"the schema {entry.schema.hex()} before it", "none", index)
            else:
                rows.take(index, entry, schema)

    def _in_tree(self, index: int, data: bytes) -> None:
        if index >= self.checkpoint.size:
            self.found("entry", ENTRIES, f"an index below {self.checkpoint.size}", index, index)
            return
        number = index // WIDTH
        if self._level_0 is None or self._level_0.index != number:
            self._level_0 = self._read_tile(0, number, min(self.checkpoint.size - number * WIDTH, WIDTH))
        expected, got = self._level_0.hash(index % WIDTH), leaf_hash(data)
        if got != expected:
            self.found("entry", ENTRIES, f"the leaf hash {expected.hex()}", got.hex(), index)

    # -- proofs ----------------------------------------------------------------------

    def proofs(self) -> None:
        """Step 8: each proof as text holds."""
        for name in self.archive.names:
            if name.startswith("proofs/"):
                self._attempt("proof", name, self._proof, name)

    def _proof(self, name: str) -> None:
        proof = Proof.parse(self.archive.read(name, MAX_PROOF))
        proof.check(self.policy)
        if name != f"proofs/{proof.index}.tlog-proof" or proof.checkpoint.text != self.checkpoint.text:
            self.found("proof", name, "a proof of the leaf of its name, to the bundle's checkpoint", proof.index)
        self.proved += 1

    def consistency(self, held: Checkpoint | None) -> None:
        """Step 8: each proof of consistency is one to this checkpoint, and that from the one that is held holds."""
        shown = held is None
        for name in self.archive.names:
            if name.startswith("consistency/"):
                shown = bool(self._attempt("consistency", name, self._consistency, name, held)) or shown
        if held is not None and held.text == self.checkpoint.text:
            shown = True
        if held is not None and not shown:
            self.found("consistency", "consistency/", f"a proof from the held checkpoint of size {held.size}", "none")

    def _consistency(self, name: str, held: Checkpoint | None) -> bool:
        proof = ConsistencyProof.parse(self.archive.read(name, MAX_CONSISTENCY))
        new = self.checkpoint
        if name != f"consistency/{proof.old}-{new.size}.txt" or proof.checkpoint.text != new.text:
            self.found("consistency", name, "a proof of the sizes of its name, to the bundle's checkpoint", proof.old)
            return False
        self.proved += 1
        if held is None or held.size != proof.old:
            return False
        proof.check(self.policy, held)
        return True

    def _attempt(
        self, kind: str, file: str, step: Callable[..., bool | None], *args: object, index: int | None = None
    ) -> bool | None:
        """Take one step; what it raises is a finding."""
        try:
            return step(*args)
        except (MalformedProof, IntegrityFinding) as error:
            self.found(kind, file, "what the format says", error, index)
            return None


def _tile_name(level: int, index: int, width: int) -> str:
    """Give the name of a tile; one of a level that no tree has is not in any bundle."""
    return f"tile/{level}/{index_path(index)}" + ("" if width == WIDTH else f".p/{width}")
