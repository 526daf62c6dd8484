"""The names of what is counted and hashed, so that one can't stand for another.  Imports nothing."""

from __future__ import annotations

from typing import Final, NewType

Digest = NewType("Digest", bytes)
"""32 bytes of SHA-256: a leaf hash, a node hash or a root."""

RowDigest = NewType("RowDigest", bytes)
"""32 bytes: the digest of an encoded row."""

SchemaDigest = NewType("SchemaDigest", bytes)
"""32 bytes: the digest of an encoded schema descriptor."""

DIGEST_SIZE: Final = 32
MAX_SIZE: Final = (1 << 63) - 1
"""The greatest tree size and index."""
