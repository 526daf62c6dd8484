"""A log with rows of two tables and a renamed column, and bundles of it, true and forged."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sa_audit.proof import (
    BlockEntry,
    Checkpoint,
    Column,
    Descriptor,
    KeyEntry,
    Leaf,
    Policy,
    RowEncoder,
    RowEntry,
    SchemaEntry,
    Signer,
    form,
    leaf_hash,
    tree_root,
    write_bundle,
)
from tests.proof.test_merkle import Shelf
from tests.vectors.samples import DESCRIPTOR, LOG, ORIGIN, RENAMED, SALT, history_values

OTHER = Descriptor(
    table=1,
    role="transaction",
    schema=None,
    name="audit_transaction",
    columns=(
        Column(id=1, name="id", type="int", sql_type="bigint"),
        Column(id=2, name="actor", type="text", sql_type="text"),
    ),
)
ACTORS = ["ann", "", None, 'said "no", twice\r\n', "=1+1", "\u00e9"]


@dataclass(frozen=True)
class Log:
    """A sealed log: its leaves with their rows, its tiles, and signed checkpoints of any size."""

    leaves: tuple[Leaf, ...]
    shelf: Shelf
    signer: Signer

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        """Give a signed checkpoint."""
        hashes = [leaf_hash(leaf.entry) for leaf in self.leaves[:size]]
        return Checkpoint(origin=ORIGIN, size=len(hashes), root=tree_root(hashes)).sign(self.signer)

    def write(self, path: Path, leaves: Iterable[Leaf] | None = None, **options: Any) -> Path:
        """Write a bundle, of all leaves if nothing else is said."""
        given: dict[str, Any] = {
            "checkpoint": self.checkpoint(),
            "policy": Policy.of(self.signer.verifier),
            "selection": "all of account 42",
            "tiles": self.shelf.read,
        }
        write_bundle(path, self.leaves if leaves is None else leaves, **{**given, **options})
        return path


def row_leaf(index: int, schema: Descriptor, row: int, values: list[Any]) -> Leaf:
    """Give a leaf with its row."""
    forms = [form(column.type, value) for column, value in zip(schema.columns, values, strict=True)]
    data = RowEncoder(schema).encode(SALT, forms)
    digest = hashlib.sha256(data).digest()
    entry = RowEntry(table=schema.table, row=row, transaction=row, schema=schema.digest, digest=digest)
    return Leaf(index=index, entry=entry.encode(), row=data)


@functools.cache
def log(size: int = 700, signer: Signer = LOG) -> Log:
    """Give a log of some leaves; the column is renamed half-way."""
    leaves = [
        Leaf(index=0, entry=_block(size).encode()),
        Leaf(
            index=1,
            entry=KeyEntry(event="add", verifier=str(signer.verifier), size=1, moment=0, reason="first").encode(),
        ),
        Leaf(index=2, entry=SchemaEntry.of(DESCRIPTOR).encode()),
        Leaf(index=3, entry=SchemaEntry.of(OTHER).encode()),
    ]
    while len(leaves) < size:
        index = len(leaves)
        if index == size // 2:
            leaves.append(Leaf(index=index, entry=SchemaEntry.of(RENAMED).encode()))
        elif index % 3 == 0:
            leaves.append(row_leaf(index, OTHER, index, [index, ACTORS[index // 3 % len(ACTORS)]]))
        else:
            schema = DESCRIPTOR if index < size // 2 else RENAMED
            values = list(history_values(index, balance=Decimal(index) / 4).values())
            leaves.append(row_leaf(index, schema, index, values))
    shelf = Shelf()
    shelf.append([leaf.entry for leaf in leaves])
    return Log(leaves=tuple(leaves), shelf=shelf, signer=signer)


def _block(size: int) -> BlockEntry:
    return BlockEntry(
        number=0,
        first=0,
        count=min(size, 65_536),
        incarnation=0,
        sealed_at=0,
        horizon=("snapshot", "1:9:"),
        closes=True,
        tables=((1, 1), (3, 2)),
    )


# -- forging -----------------------------------------------------------------------------

Change = Callable[[bytes], bytes | None]


def forged(path: Path, changes: dict[str, bytes | Change | None], *, honest_manifest: bool = True) -> Path:
    """Write a bundle anew with some files changed, taken away or put in.

    Args:
        path: the bundle.
        changes: by name the new content, what makes it from the old, or None to take the file away.
        honest_manifest: whether the manifest is made to fit, as a careful forger would.
    """
    with zipfile.ZipFile(path) as archive:
        files: dict[str, bytes] = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        content = change(files[name]) if callable(change) else change
        if content is None:
            del files[name]
        else:
            files[name] = content
    if honest_manifest:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
            if name != "manifest.json"
        ]
        files["manifest.json"] = json.dumps(manifest).encode()
    place = path.with_name(f"forged-{path.name}")
    place.write_bytes(zipped(files.items()))
    return place


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Give a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()
