"""The catalogs that the log states: which facts each closing header stands for.  ``docs/format/entries.md``, "Catalog".

Imports proof.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from ..proof.entries import BlockEntry, CatalogEntry
from ..proof.fingerprint import FactKey, facts_of, fingerprint_of
from ..proof.types import Digest
from .report import Findings

BLOCKS = "audit_block"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedCatalog:
    """A catalog as it was sealed, where it is another one than before.

    Args:
        block: the number of the block that closes its sealing.
        size: of the log behind that block.
        sealed_at: when, in microseconds since the epoch.
        incarnation: of the database.
        accounted: whether changes of columns were recorded since the catalog before.
        facts: what each object is defined as.
    """

    block: int
    size: int
    sealed_at: int
    incarnation: int
    accounted: bool
    facts: Mapping[FactKey, str | Digest]


class StatedCatalogs:
    """Collects the catalogs while the log is read."""

    def __init__(self) -> None:
        self.all: list[StatedCatalog] = []
        self._entries: list[CatalogEntry] = []
        self._encoded: list[bytes] = []
        self._accounted = False
        self._fingerprint: Digest | None = None

    def take(self, entry: CatalogEntry, encoded: bytes) -> None:
        """Take one fact."""
        self._entries.append(entry)
        self._encoded.append(encoded)

    def block(self, header: BlockEntry, size: int, findings: Findings, *, accounts: bool) -> None:
        """Take the end of a block.

        Args:
            header: its header.
            size: of the log behind it.
            findings: where findings go.
            accounts: whether it holds rows of the account of columns.
        """
        self._accounted |= accounts
        if not header.closes:
            return
        if self._entries:
            self._close(header, size, findings)
        elif header.fingerprint is not None and header.fingerprint != self._fingerprint:
            self._differs(header, self._fingerprint, findings)

    def _close(self, header: BlockEntry, size: int, findings: Findings) -> None:
        facts = facts_of(self._entries)
        ordered = all(first < then for first, then in itertools.pairwise(self._encoded))
        self._fingerprint = fingerprint_of(self._encoded)
        if header.fingerprint != self._fingerprint or not ordered or len(facts) != len(self._entries):
            self._differs(header, self._fingerprint, findings)
        self.all.append(
            StatedCatalog(
                block=header.number,
                size=size,
                sealed_at=header.sealed_at,
                incarnation=header.incarnation,
                accounted=self._accounted,
                facts=facts,
            )
        )
        self._entries, self._encoded, self._accounted = [], [], False

    def _differs(self, header: BlockEntry, got: Digest | None, findings: Findings) -> None:
        said = "none" if header.fingerprint is None else header.fingerprint.hex()
        stated = "no facts" if got is None else f"facts that give {got.hex()}"
        findings.add("fingerprint-changed", BLOCKS, header.number, f"facts that give {said}", stated)
