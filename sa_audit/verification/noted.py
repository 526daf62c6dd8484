"""What the database keeps beside the checkpoints: their order, and the tokens that anchors gave for them.

No signature covers that.  A token is compared with what its anchor keeps; of one that the anchor does not keep any
more, only the anchor's own kind can say whether it is good; an anchor that keeps less than it gave was cut.
Imports proof and anchors.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..anchors import Anchor, Anchored
from ..errors import AnchorUnavailable, AuditError
from ..proof.checkpoint import Checkpoint
from ..proof.types import Digest
from .report import Findings

NOTES: Final = "audit_checkpoint"


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint and where it is kept: the name of an anchor, or None for the database; the token, if any."""

    checkpoint: Checkpoint
    anchor: str | None
    token: Digest | None


class Places:
    """Looks for checkpoints that stand where the sealer writes none: it writes each once, and none behind a greater."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._greatest = 0
        self._same: set[tuple[str, str | None]] = set()

    def take(self, checkpoint: Checkpoint, note: str, anchor: str | None) -> None:
        """Take the next one, in the order of ids."""
        size = checkpoint.size
        if size < self._greatest:
            self._findings.add("checkpoint-misplaced", NOTES, size, f"none behind one of size {self._greatest}", "one")
            return
        if size > self._greatest:
            self._greatest, self._same = size, set()
        if (note, anchor) in self._same:
            of = "its own" if anchor is None else anchor
            self._findings.add("checkpoint-misplaced", NOTES, size, f"it once as {of}", "it again")
        self._same.add((note, anchor))


class NotedTokens:
    """Looks for tokens that are not those which the anchors gave.

    Args:
        anchors: those that were asked; the tokens of others can't be judged.
        anchored: what they keep.
        findings: where findings go.
    """

    def __init__(self, anchors: Sequence[Anchor], anchored: Sequence[Kept], findings: Findings) -> None:
        self._anchors = {anchor.uri: anchor for anchor in anchors}
        self._known: dict[tuple[str | None, int, Digest], set[Digest | None]] = {}
        for kept in anchored:
            key = (kept.anchor, kept.checkpoint.size, kept.checkpoint.root)
            self._known.setdefault(key, set()).add(kept.token)
        self._ends: dict[str, int] = {}
        self._findings = findings

    def take(self, checkpoint: Checkpoint, uri: str | None, token: bytes | None) -> None:
        """Judge one.

        Raises:
            AnchorUnavailable: if the anchor has to be asked, and can't be.
        """
        if (uri is None) != (token is None):
            expected, got = ("a token", "none") if token is None else ("the anchor that gave the token", "none")
            self._findings.add("checkpoint-malformed", NOTES, checkpoint.size, expected, got)
            return
        anchor = self._anchors.get(uri or "")
        if anchor is None or token is None:
            return
        known = self._known.get((uri, checkpoint.size, checkpoint.root), set())
        if hashlib.sha256(token).digest() in known:
            return
        try:
            proven = anchor.verify(Anchored(checkpoint=checkpoint, token=token)) is not None
        except AnchorUnavailable:
            raise
        except (AuditError, ValueError) as error:
            self._add(checkpoint, uri, str(error)[:300])
            return
        if proven:
            return
        if known:
            self._add(checkpoint, uri, f"the digest {hashlib.sha256(token).hexdigest()}")
        elif self._end(anchor) < checkpoint.size:
            self._add(checkpoint, uri, f"none: it ends at size {self._end(anchor)}")

    def _end(self, anchor: Anchor) -> int:
        """Give the greatest size that an anchor keeps now: it was read before the notes, and may have more since."""
        if anchor.uri not in self._ends:
            try:
                last = anchor.latest()
            except AnchorUnavailable:
                raise
            except AuditError:  # that it is malformed was found when it was read
                return sys.maxsize
            self._ends[anchor.uri] = 0 if last is None else last.checkpoint.size
        return self._ends[anchor.uri]

    def _add(self, checkpoint: Checkpoint, uri: str | None, got: str) -> None:
        self._findings.add("token-unknown", NOTES, checkpoint.size, f"a token that {uri} gave", got)
