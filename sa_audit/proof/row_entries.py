"""The entries of many rows of one table, fast: what all of them have in common is encoded once.

``docs/format/entries.md``, "Row: kind 1".  Imports only the room's own parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .cbor import ARRAY, BYTES, UNSIGNED, encode, head
from .entries import VERSION, RowEntry
from .types import DIGEST_SIZE, SchemaDigest

_WIDE: Final = head(UNSIGNED, 1 << 16)[:1]
"""The head of a number of four bytes, which most ids are."""


def row_entries(table: int, schema: SchemaDigest) -> Callable[[int, int | None, bytes], bytes]:
    """Give a function that encodes the entries of a table's rows from id, transaction and row digest.

    Its result is that of :func:`.entries.row_entry`; what is given is not looked at.  It keeps the last transaction,
    so that each thread needs one of its own.

    Args:
        table: the table's number in the log.
        schema: the schema digest of the rows.
    """
    start = head(ARRAY, 7) + encode(VERSION) + encode(RowEntry.kind) + encode(table)
    middle = encode(bytes(schema)) + head(BYTES, DIGEST_SIZE)

    owner: int | None = None
    tail = encode(None) + middle

    def entry(row: int, transaction: int | None, digest: bytes) -> bytes:
        nonlocal owner, tail
        if transaction != owner:  # the rows of a transaction mostly follow each other
            owner, tail = transaction, encode(transaction) + middle
        if 65536 <= row < 4294967296:
            return start + _WIDE + row.to_bytes(4, "big") + tail + digest
        return start + (head(UNSIGNED, row) if row >= 0 else encode(row)) + tail + digest

    return entry
