"""What an anchor is: a place outside of the database that keeps checkpoints.

Imports only proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..proof import Checkpoint
from ..proof.types import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A checkpoint that an anchor keeps, and the token that it gave for it: bytes by its own rules."""

    checkpoint: Checkpoint
    token: bytes

    @property
    def digest(self) -> Digest:
        """The digest of the token, 32 bytes, which the next block's header holds."""
        return Digest(hashlib.sha256(self.token).digest())


class Anchor(Protocol):
    """A place outside of the database that keeps checkpoints."""

    @property
    def uri(self) -> str:
        """How the anchor is named on the command line."""

    def put(self, checkpoint: Checkpoint) -> Anchored:
        """Keep a signed checkpoint, and return once it is safe.

        Raises:
            IntegrityFinding: if the anchor keeps checkpoints that this one does not continue.
            AnchorUnavailable: if it can't be kept now.
        """

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, oldest first.

        Raises:
            MalformedProof: if something else is there.
            IntegrityFinding: if what is there does not fit together.
            AnchorUnavailable: if it can't be read now.
        """
