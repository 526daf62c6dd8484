"""What a log says when it is read from its first leaf to its last.

Imports catalog, proof and model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from ..catalog import Block, blocks
from ..errors import IntegrityFinding
from ..model.history import Trail
from ..proof.entries import BlockEntry, Horizon, IncarnationEntry, KeyEntry, RowEntry, SchemaEntry, decode_entry
from ..proof.keys import Verifier
from ..proof.merkle import Frontier, leaf_hash
from ..proof.schema import Descriptor
from ..proof.types import Digest
from .ranges import Range, joined, merged


@dataclass(slots=True, kw_only=True)
class Facts:
    """The facts of a log: ``roots`` by size at the end of each block, ``ranges`` of sealed ids by table.

    ``added`` are the keys that came, each with the number of leaves before the block that says so.
    """

    origin: str = ""
    frontier: Frontier = field(default_factory=Frontier)
    blocks: int = 0
    last_block: Digest | None = None
    incarnation: int = 0
    horizon: Horizon | None = None
    keys: tuple[str, ...] = ()
    added: tuple[tuple[int, str], ...] = ()
    former: tuple[str, ...] = ()
    catalog: Digest | None = None
    descriptors: dict[int, Descriptor] = field(default_factory=dict)
    ranges: dict[int, tuple[Range, ...]] = field(default_factory=dict)
    roots: dict[int, Digest] = field(default_factory=dict)


def scan(connection: Connection, trail: Trail) -> Facts:
    """Read a log.

    Raises:
        IntegrityFinding: if a block is not where it says it is.
        MalformedProof: if an entry is none.
    """
    facts = Facts()
    for block in blocks(connection, trail):
        _take(facts, block)
    return facts


def _take(facts: Facts, block: Block) -> None:
    entries = block.entries()
    if (block.number, block.first, block.count) != (facts.blocks, facts.frontier.size, len(entries)):
        raise IntegrityFinding(
            f"block {block.number} says that it holds {block.count} leaves from {block.first} on: "
            f"expected block {facts.blocks} with {len(entries)} from {facts.frontier.size} on"
        )
    rows: dict[int, list[int]] = {}
    for data in entries:
        _entry(facts, rows, data)
    for table, ids in rows.items():
        facts.ranges[table] = joined([*facts.ranges.get(table, ()), *merged((), sorted(ids))])
    facts.frontier = facts.frontier.append(map(leaf_hash, entries))
    facts.roots[facts.frontier.size] = facts.frontier.root()
    facts.blocks += 1
    facts.last_block = Digest(hashlib.sha256(block.data).digest())


def _entry(facts: Facts, rows: dict[int, list[int]], data: bytes) -> None:
    entry = decode_entry(data)
    if isinstance(entry, RowEntry):
        rows.setdefault(entry.table, []).append(entry.row)
    elif isinstance(entry, BlockEntry):
        facts.horizon = entry.horizon if entry.closes else facts.horizon
        facts.catalog = entry.fingerprint or facts.catalog
    elif isinstance(entry, SchemaEntry):
        facts.descriptors[entry.table] = Descriptor.decode(entry.descriptor)
    elif isinstance(entry, IncarnationEntry):
        facts.incarnation = entry.number
    elif isinstance(entry, KeyEntry):
        facts.origin = Verifier.parse(entry.verifier).name
        others = tuple(key for key in facts.keys if key != entry.verifier)
        facts.keys = (*others, entry.verifier) if entry.event == "add" else others
        facts.added += ((facts.frontier.size, entry.verifier),) if entry.event == "add" else ()
        if entry.event != "add" and entry.verifier not in facts.former:
            facts.former = (*facts.former, entry.verifier)
