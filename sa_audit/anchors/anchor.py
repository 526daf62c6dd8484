"""What an anchor is: a place outside of the database that keeps checkpoints.

Imports only proof and errors.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ..errors import IntegrityFinding
from ..proof import Checkpoint
from ..proof.types import Digest

Prove: TypeAlias = Callable[[int], Sequence[Digest]]
"""Gives the consistency proof from an older size of the log to the checkpoint that is put (RFC 6962, 2.1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A checkpoint that an anchor keeps.

    Args:
        checkpoint: what is kept.
        token: what the anchor gave for it: bytes by its own rules.
        at: the moment at which the anchor says that it had the checkpoint, in UTC; None if it says none.
    """

    checkpoint: Checkpoint
    token: bytes
    at: dt.datetime | None = None

    @property
    def digest(self) -> Digest:
        """The digest of the token, 32 bytes, which the next block's header holds."""
        return Digest(hashlib.sha256(self.token).digest())


class Anchor(Protocol):
    """A place outside of the database that keeps checkpoints."""

    @property
    def uri(self) -> str:
        """How the anchor is named on the command line."""

    def put(self, checkpoint: Checkpoint, *, prove: Prove | None = None) -> Anchored:
        """Keep a signed checkpoint, and return once it is safe.

        Putting the checkpoint that was kept last gives its token again.  After a crash at any point the same call
        can be made again.

        Args:
            checkpoint: signed.
            prove: for witnesses, which ask for consistency with what they have seen; the others don't call it.

        Raises:
            IntegrityFinding: if the anchor keeps checkpoints that this one does not continue.
            AnchorUnavailable: if it can't be kept now.
        """

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, oldest first, each verified as :meth:`verify` does.

        Raises:
            MalformedProof: if something else is there.
            IntegrityFinding: if what is there does not fit together, or a token is not good.
            AnchorUnavailable: if it can't be read now.
        """

    def latest(self) -> Anchored | None:
        """Give what was kept last, verified, or None.

        Raises:
            MalformedProof, IntegrityFinding, AnchorUnavailable: as :meth:`read`.
        """

    def verify(self, anchored: Anchored) -> dt.datetime | None:
        """Refuse a token that this anchor did not give for this checkpoint.

        Args:
            anchored: from this anchor, or from a bundle.

        Returns:
            The moment that the token speaks of, in UTC; None if it speaks of none.

        Raises:
            MalformedProof: if it is no token.
            IntegrityFinding: if it is another's, or for another checkpoint.
        """


def require_continued(last: Checkpoint | None, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that can't come behind the last one.

    Raises:
        IntegrityFinding: if it is of another log, smaller, or of the same size with another root.
    """
    if last is None:
        return
    if checkpoint.origin != last.origin:
        raise IntegrityFinding(
            f"the anchor keeps checkpoints of {last.origin!r}, and this one is of {checkpoint.origin!r}"
        )
    if checkpoint.size < last.size or (checkpoint.size == last.size and checkpoint.root != last.root):
        raise IntegrityFinding(
            f"the anchor keeps a checkpoint that this one does not continue: expected one behind size {last.size}, "
            f"root {last.root.hex()}, got size {checkpoint.size}, root {checkpoint.root.hex()}"
        )


def last_of(kept: Iterator[Anchored]) -> Anchored | None:
    """Give the last of what is kept."""
    last = None
    for anchored in kept:
        last = anchored
    return last
