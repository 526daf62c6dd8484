"""The vectors of ``docs/format/entries.md``."""

from __future__ import annotations

import hashlib
from typing import Any

from sa_audit.proof import key_commitment
from sa_audit.proof.cbor import encode
from sa_audit.proof.fingerprint import catalog_entries, facts_of, fingerprint_of
from tests.vectors import samples
from tests.vectors.samples import CATALOG, DESCRIPTOR, all_entries


def bad_entries() -> list[tuple[str, str]]:
    """Give bytes that are not entries."""
    row: list[Any] = [1, 1, 3, 7, 12, bytes(32), bytes(32)]
    block: list[Any] = [1, 2, 1, 5, 4, 0, 0, ["epoch", 3], True, [[3, 3]], None, None]
    schema = DESCRIPTOR.encode()
    cluster = ["x", 1, None, None]

    def changed(items: list[Any], place: int, item: Any) -> list[Any]:
        return [*items[:place], item, *items[place + 1 :]]

    cases: list[tuple[str, Any]] = [
        ("no array", 1),
        ("an empty array", []),
        ("an unknown version", changed(row, 0, 2)),
        ("true for the version", changed(row, 0, True)),
        ("an unknown kind", changed(row, 1, 9)),
        ("an item less", row[:-1]),
        ("an item more", [*row, 0]),
        ("table 0", changed(row, 2, 0)),
        ("table 2**31", changed(row, 2, 1 << 31)),
        ("row 2**63", changed(row, 3, 1 << 63)),
        ("a text for the row", changed(row, 3, "7")),
        ("a digest of 31 bytes", changed(row, 6, bytes(31))),
        ("a text for a digest", changed(row, 6, "a" * 32)),
        ("a block of no leaves", changed(block, 4, 0)),
        ("a block of 65,537 leaves", changed(block, 4, 65_537)),
        ("an unknown horizon", changed(block, 7, ["clock", 3])),
        ("null for closes", changed(block, 8, None)),
        ("tables that descend", changed(block, 9, [[3, 1], [1, 1]])),
        ("a table twice", changed(block, 9, [[3, 1], [3, 1]])),
        ("a table with no rows", changed(block, 9, [[3, 0]])),
        ("more rows than leaves", changed(block, 9, [[3, 4]])),
        ("a fingerprint of 4 bytes", changed(block, 10, bytes(4))),
        ("a schema of another table", [1, 3, 4, schema]),
        ("a schema that is none", [1, 3, 3, b"\x80"]),
        ("an unknown key event", [1, 4, "lend", "key", 1, 0, ""]),
        ("a prune that ends before it begins", [1, 5, 3, 2, 1, 1, bytes(32), "", "", ""]),
        ("a key created without commitment", [1, 6, "created", "k", None, None]),
        ("a key destroyed with one", [1, 6, "destroyed", "k", bytes(32), None]),
        ("incarnation 0", [1, 7, 0, cluster, cluster, [], "", ""]),
        ("lost ranges that touch", [1, 7, 1, cluster, cluster, [[3, 9, [[1, 2], [3, 4]]]], "", ""]),
        ("a lost range that ends before it begins", [1, 7, 1, cluster, cluster, [[3, 9, [[2, 1]]]], "", ""]),
        ("a definition that is no text", [1, 8, "table", None, None, "t", 1]),
        ("a definition that is null", [1, 8, "table", None, None, "t", None]),
        ("a definition of 31 bytes", [1, 8, "table", None, None, "t", bytes(31)]),
        ("a definition too long to be text", [1, 8, "table", None, None, "t", "x" * 32_769]),
        ("an object without a name", [1, 8, "table", None, None, None, "table"]),
        ("too long", [1, 4, "add", "x" * 65_536, 1, 0, ""]),
    ]
    return [(why, encode(item).hex()) for why, item in cases]


def catalog() -> dict[str, Any]:
    """Give a catalog's entries in their order, and fingerprints."""
    stated = catalog_entries(facts_of(CATALOG))
    return {
        "entries": [entry.hex() for entry in stated],
        "fingerprint": fingerprint_of(stated).hex(),
        "without the last": fingerprint_of(stated[:-1]).hex(),
        "empty": fingerprint_of([]).hex(),
    }


def entries() -> dict[str, Any]:
    """Give the vectors of ``entries.md``."""
    return {
        "entries": [
            {
                "name": name,
                "entry": (data := entry.encode()).hex(),
                "leaf_hash": hashlib.sha256(b"\x00" + data).hexdigest(),
            }
            for name, entry in (*all_entries(), *samples.catalog_entries())
        ],
        "commitment": {
            "secret": hashlib.sha256(b"vector: person").hexdigest(),
            "key": "k-1",
            "commitment": key_commitment(hashlib.sha256(b"vector: person").digest(), "k-1").hex(),
        },
        "catalog": catalog(),
        "refused": [{"why": why, "entry": data} for why, data in bad_entries()],
        "bundle": {"entries": ["61", "6262"], "packed": "00016100026262"},
        "refused_bundles": ["0001", "000161ff", "0000", "00016100", "000261"],
    }
