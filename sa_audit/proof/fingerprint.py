"""The fingerprint of a catalog: the root over the entries of its facts.  ``docs/format/entries.md``, "Catalog".

Imports only the room's own parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from .entries import MAX_DEFINITION, CatalogEntry
from .merkle import leaf_hash, tree_root
from .types import Digest

FactKey: TypeAlias = tuple[str, str | None, str | None, str]
"""What it is, its schema, the table that it belongs to, and its name."""
Facts: TypeAlias = Mapping[FactKey, str | Digest]
"""What each object of a catalog is defined as."""


def catalog_entries(facts: Facts) -> list[bytes]:
    """Give the encoded entries of a catalog, in the order in which they stand in the log."""
    return sorted(
        CatalogEntry(what=what, schema=schema, table=table, name=name, definition=stated(definition)).encode()
        for (what, schema, table, name), definition in facts.items()
    )


def stated(definition: str | Digest) -> str | Digest:
    """Give a definition as it stands in the log: a long text as its digest."""
    if isinstance(definition, str) and len(encoded := definition.encode()) > MAX_DEFINITION:
        return Digest(hashlib.sha256(encoded).digest())
    return definition


def fingerprint_of(entries: Iterable[bytes]) -> Digest:
    """Give the fingerprint of a catalog by its encoded entries, in their order."""
    return tree_root([leaf_hash(entry) for entry in entries])


def facts_of(entries: Sequence[CatalogEntry]) -> dict[FactKey, str | Digest]:
    """Give the facts that entries state; of two about one object the last one counts."""
    return {(entry.what, entry.schema, entry.table, entry.name): entry.definition for entry in entries}
