"""Bundles, written: what an auditor checks with no database and none of this library.  ``docs/format/bundle.md``.

Leaves are taken one at a time and spooled to disk, so memory stays flat.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ..errors import Unencodable
from .archive import FORMAT, MANIFEST
from .canonical import decode_row
from .cbor import encode
from .checkpoint import Checkpoint
from .entries import RowEntry, SchemaEntry, decode_entry
from .merkle import check_inclusion, consistency_proof, inclusion_proof, leaf_hash
from .policy import Policy
from .program import program
from .readable import csv_header, csv_row
from .schema import Descriptor
from .tiles import HEIGHT, WIDTH, NodesOfTiles, Tile, TileReader, widths
from .tlog_proof import ConsistencyProof, Evidence, Proof
from .types import DIGEST_SIZE, SchemaDigest

ENTRIES: Final = "entries.cbor"
CHECKPOINT: Final = "checkpoint.txt"
POLICY: Final = "policy.txt"
README: Final = "README.txt"
PROGRAM: Final = "verify.py"
_SPOOL: Final = 1 << 20

_README: Final = """\
This is evidence from the audit trail of {origin}, at {size} leaves.
What was asked for: {selection}

To check it, with Python 3.9 or later and nothing else:

    python3 verify.py {{this file}}.zip --key {{the log's verifier key, or a policy}}

The key, or the policy, has to come from where you trust it: not from this file, whose policy.txt is there
to be compared.  So should verify.py: take it from the library, compare it, or write one from docs/format,
which says every byte of what is here.  A checkpoint that you hold from before is checked with --held FILE.

It proves that each row in rows/ was in the log when the checkpoint was signed, exactly as it stands there,
and that within these ranges of the log no leaf was left out: {ranges}.
It does not prove that what the application recorded was true; nor, without an anchor or an older
checkpoint, when the checkpoint was made.
The files .csv are there to be read; a program that opens them should not run what looks like a formula.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf for a bundle: its index, the encoded entry, and for a row that is to be shown the encoded row."""

    index: int
    entry: bytes
    row: bytes | None = None


def write_bundle(
    path: Path,
    leaves: Iterable[Leaf],
    *,
    checkpoint: Checkpoint,
    policy: Policy,
    selection: str,
    tiles: TileReader,
    ranges: Iterable[tuple[int, int]] = (),
    proofs: Iterable[int] = (),
    consistency: Iterable[int] = (),
    anchors: Mapping[str, bytes] | None = None,
) -> None:
    """Write a bundle to a new file.

    Args:
        path: the zip file, which must not be there.
        leaves: by ascending index; the schema entry of each descriptor among them.
        checkpoint: signed.
        policy: the exporter's, for the auditor to compare with his own.
        selection: what was asked for, in words.
        tiles: gives the tiles of the checkpoint's tree.
        ranges: of indexes, first and end, of which every leaf is among ``leaves``.
        proofs: indexes of leaves that get a proof as text as well.
        consistency: sizes of older checkpoints from which a proof is wanted.
        anchors: what anchors have given, by name.

    Raises:
        Unencodable: if the leaves are out of order, incomplete, or not of this tree.
        FileExistsError: if the file is there.
    """
    given = _Given(
        checkpoint=checkpoint,
        policy=policy,
        selection=selection,
        tiles=tiles,
        ranges=sorted(ranges),
        proofs=frozenset(proofs),
        consistency=sorted(set(consistency)),
        anchors=anchors or {},
    )
    with path.open("xb") as file:
        try:
            _write(file, leaves, given)
        except BaseException:
            path.unlink()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a bundle is to hold, but for the leaves; see :func:`write_bundle`."""

    checkpoint: Checkpoint
    policy: Policy
    selection: str
    tiles: TileReader
    ranges: list[tuple[int, int]]
    proofs: frozenset[int]
    consistency: list[int]
    anchors: Mapping[str, bytes]


def _write(file: IO[bytes], leaves: Iterable[Leaf], given: _Given) -> None:
    checkpoint = given.checkpoint
    nodes = NodesOfTiles(checkpoint.size, given.tiles)
    with contextlib.ExitStack() as stack, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        files = _Files(archive, stack)
        collected = _Leaves(files, checkpoint, nodes, given.proofs)
        for leaf in leaves:
            collected.add(leaf)
        ranges = collected.finish(given.ranges)
        files.put(CHECKPOINT, checkpoint.format().encode())
        files.put(POLICY, given.policy.format().encode())
        files.put(PROGRAM, program())
        files.put(README, _readme(given, ranges).encode())
        for name, data in sorted(given.anchors.items()):
            files.put(f"anchors/{name}", data)
        for old in given.consistency:
            path = consistency_proof(old, checkpoint.size, nodes)
            proof = ConsistencyProof(old=old, path=path, checkpoint=checkpoint)
            files.put(f"consistency/{old}-{checkpoint.size}.txt", proof.format().encode())
        for level, index, width in sorted(collected.tiles):
            tile = given.tiles(level, index, width)
            narrow = Tile(level, index, tile.data[: width * DIGEST_SIZE])
            files.put(narrow.path, narrow.data)
        files.finish(checkpoint, given.selection, ranges)


def _readme(given: _Given, ranges: list[tuple[int, int]]) -> str:
    said = ", ".join(f"{first} to {end - 1}" for first, end in ranges) or "none"
    size, origin = given.checkpoint.size, given.checkpoint.origin
    return _README.format(origin=origin, size=size, selection=given.selection, ranges=said)


class _Files:
    """The files of a bundle: those that grow are spooled, and all go into the archive at the end."""

    def __init__(self, archive: zipfile.ZipFile, stack: contextlib.ExitStack) -> None:
        self._archive = archive
        self._stack = stack
        self._spools: dict[str, IO[bytes]] = {}
        self._listed: list[dict[str, object]] = []

    def has(self, name: str) -> bool:
        """Tell whether a file that grows has begun."""
        return name in self._spools

    def append(self, name: str, data: bytes) -> None:
        """Add to a file that grows."""
        spool = self._spools.get(name)
        if spool is None:
            spool = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115 - the stack closes it
            self._stack.callback(spool.close)
            self._spools[name] = spool
        spool.write(data)

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        self._archive.writestr(_member(name), data)
        self._listed.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    def finish(self, checkpoint: Checkpoint, selection: str, ranges: list[tuple[int, int]]) -> None:
        """Write the files that grew, and the manifest."""
        for name, spool in self._spools.items():
            size = spool.tell()
            spool.seek(0)
            digest = hashlib.sha256()
            while chunk := spool.read(_SPOOL):
                digest.update(chunk)
            spool.seek(0)
            with self._archive.open(_member(name), "w", force_zip64=True) as member:
                shutil.copyfileobj(spool, member, _SPOOL)
            self._listed.append({"name": name, "size": size, "sha256": digest.hexdigest()})
        manifest = {
            "format": FORMAT,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "selection": selection,
            "ranges": ranges,
            "files": sorted(self._listed, key=lambda listed: str(listed["name"])),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=True) + "\n"
        self._archive.writestr(_member(MANIFEST), text)


def _member(name: str) -> zipfile.ZipInfo:
    """Give a member with no time of its own, so that the same evidence makes the same file."""
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


class _Leaves:
    """The leaves of a bundle as they come: checked against the tree, and put into their files."""

    def __init__(self, files: _Files, checkpoint: Checkpoint, nodes: NodesOfTiles, wanted: frozenset[int]) -> None:
        self._files = files
        self._checkpoint = checkpoint
        self._nodes = nodes
        self._wanted = wanted
        self._descriptors: dict[SchemaDigest, Descriptor] = {}
        self._runs: list[tuple[int, int]] = []
        self._proved: set[int] = set()
        self.tiles = set(widths(checkpoint.size))
        files.append(ENTRIES, b"")

    def add(self, leaf: Leaf) -> None:
        """Take one leaf, and its row."""
        entry = decode_entry(leaf.entry)
        self._place(leaf)
        if isinstance(entry, SchemaEntry):
            descriptor = Descriptor.decode(entry.descriptor)
            self._descriptors[descriptor.digest] = descriptor
        self._files.append(ENTRIES, encode([leaf.index, leaf.entry]))
        if isinstance(entry, RowEntry):
            self._row(leaf, entry)
        elif leaf.row is not None:
            raise Unencodable(f"leaf {leaf.index} is not one of a row, and came with one")
        if leaf.index in self._wanted:
            self._prove(leaf, entry)

    def _place(self, leaf: Leaf) -> None:
        """Note the leaf's place, and the tiles that lead from it to the root."""
        last = self._runs[-1][1] if self._runs else 0
        if not last <= leaf.index < self._checkpoint.size:
            raise Unencodable(
                f"leaf {leaf.index} came behind leaf {last - 1} of {self._checkpoint.size}: give them in their order"
            )
        if self._runs and last == leaf.index:
            self._runs[-1] = (self._runs[-1][0], leaf.index + 1)
        else:
            self._runs.append((leaf.index, leaf.index + 1))
        if self._nodes(0, leaf.index) != leaf_hash(leaf.entry):
            raise Unencodable(f"leaf {leaf.index} is not that of the tiles: the log was tampered with, verify it")
        self._climb(leaf.index)

    def _climb(self, index: int) -> None:
        level = 0
        while True:
            index //= WIDTH
            width = min((self._checkpoint.size >> (HEIGHT * level)) - index * WIDTH, WIDTH)
            if (level, index, width) in self.tiles:
                return
            self.tiles.add((level, index, width))
            level += 1

    def _row(self, leaf: Leaf, entry: RowEntry) -> None:
        descriptor = self._descriptors.get(entry.schema)
        if descriptor is None:
            raise Unencodable(f"leaf {leaf.index} has the schema {entry.schema.hex()}: give that schema's leaf too")
        if leaf.row is None:
            return
        if hashlib.sha256(leaf.row).digest() != entry.digest:
            raise Unencodable(f"the row of leaf {leaf.index} is not the one that was sealed: verify the trail")
        name = rows_name(descriptor)
        row = decode_row(leaf.row, descriptor)
        if not self._files.has(f"{name}.csv"):
            self._files.append(f"{name}.csv", csv_header(descriptor))
        self._files.append(f"{name}.cbor", encode([leaf.index, leaf.row]))
        self._files.append(f"{name}.csv", csv_row(descriptor, leaf.index, row.forms))

    def _prove(self, leaf: Leaf, entry: object) -> None:
        descriptor = self._descriptors[entry.schema].encode() if isinstance(entry, RowEntry) and leaf.row else None
        evidence = Evidence(entry=leaf.entry, descriptor=descriptor, row=leaf.row)
        size, root = self._checkpoint.size, self._checkpoint.root
        path = inclusion_proof(leaf.index, size, self._nodes)
        check_inclusion(leaf.index, size, leaf_hash(leaf.entry), path, root)
        proof = Proof(index=leaf.index, path=path, checkpoint=self._checkpoint, extra=evidence.encode())
        self._files.put(f"proofs/{leaf.index}.tlog-proof", proof.format().encode())
        self._proved.add(leaf.index)

    def finish(self, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Give the ranges, once every leaf of them, and every one that was to be proved, has come."""
        for first, end in ranges:
            if not any(start <= first < end <= stop for start, stop in self._runs):
                raise Unencodable(f"the leaves {first} to {end - 1} are not all there")
        joined: list[tuple[int, int]] = []
        for first, end in ranges:
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((first, end))
        missing = self._wanted - self._proved
        if missing:
            raise Unencodable(f"leaf {min(missing)} was to be proved, and is not there")
        return joined


def rows_name(descriptor: Descriptor) -> str:
    """Give the name of the files of a descriptor's rows, without ending."""
    return f"rows/{descriptor.table}-{descriptor.digest.hex()[:16]}"
