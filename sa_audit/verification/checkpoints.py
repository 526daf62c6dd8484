"""Signed checkpoints, those in the database and those that anchors keep, compared with the leaves.

Imports model, proof, anchors and catalog.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..anchors import Anchor
from ..catalog.log import octets
from ..errors import AnchorUnavailable, AuditError
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.entries import KeyEntry
from ..proof.policy import KeyHistory, Policy
from ..proof.types import Digest
from .log import Log
from .noted import NOTES, Kept, NotedTokens, Places
from .quorum import Quorum
from .report import Findings


@dataclass(slots=True)
class Collected:
    """All checkpoints, parsed.

    Args:
        noted: those in the database.
        anchored: those that anchors keep.
        anchors: those that were asked.
    """

    noted: list[Kept] = field(default_factory=list)
    anchored: list[Kept] = field(default_factory=list)
    anchors: tuple[Anchor, ...] = ()

    def sizes(self) -> set[int]:
        """Give the sizes of all."""
        return {kept.checkpoint.size for kept in (*self.noted, *self.anchored)}


def read_anchors(anchors: Sequence[Anchor], findings: Findings) -> Collected:
    """Read what anchors keep; before the database, so that the log holds all of it.

    Raises:
        AnchorUnavailable: if one can't be read.
    """
    collected = Collected(anchors=tuple(anchors))
    for anchor in anchors:
        try:
            for anchored in anchor.read():
                digest = Digest(hashlib.sha256(anchored.token).digest())
                collected.anchored.append(Kept(anchored.checkpoint, anchor.uri, digest))
        except AnchorUnavailable:
            raise
        except AuditError as error:
            findings.add("anchor-malformed", anchor.uri, None, "records that follow each other", str(error))
    return collected


def read_notes(connection: Connection, trail: Trail, collected: Collected, findings: Findings) -> None:
    """Read the checkpoints that the database keeps.

    Raises:
        AnchorUnavailable: if an anchor that says of a token whether it is good can't be asked.
    """
    table = trail.checkpoint
    places, tokens = Places(findings), NotedTokens(collected.anchors, collected.anchored, findings)
    raw = sa.type_coerce(table.c.token, sa.types.NullType()).label("token")  # SQLite holds whatever was put there
    statement = sa.select(table.c.id, table.c.size, table.c.note, table.c.anchor, raw).order_by(table.c.id)
    for row in connection.execute(statement):
        size = row.size if isinstance(row.size, int) else None
        try:
            checkpoint = Checkpoint.parse(row.note)
        except (AuditError, ValueError, TypeError, AttributeError) as error:
            findings.add("checkpoint-malformed", NOTES, size, "a signed checkpoint", str(error)[:300])
            continue
        if checkpoint.size != size:
            findings.add("checkpoint-malformed", NOTES, size, f"the size {checkpoint.size}", f"{row.size!r:.80}")
        token = octets(row.token)
        if token is None and row.token is not None:
            findings.add("checkpoint-malformed", NOTES, checkpoint.size, "bytes of a token", f"{row.token!r:.80}")
        places.take(checkpoint, row.note, row.anchor)
        tokens.take(checkpoint, row.anchor, token)
        digest = None if token is None else Digest(hashlib.sha256(token).digest())
        collected.noted.append(Kept(checkpoint, None, digest))


@dataclass(frozen=True, slots=True)
class Judged:
    """The greatest checkpoint that holds, the greatest anchored one that does, and the greatest size that is signed.

    That size is of a checkpoint which need not hold: if it does not, that is a finding.
    """

    last: Checkpoint | None
    anchored: Checkpoint | None
    signed: int


class Judge:
    """Judges checkpoints.

    Args:
        policy: whose signatures count.
        log: what the first pass gave.
        findings: where findings go.
    """

    def __init__(self, policy: Policy, log: Log, findings: Findings) -> None:
        self._quorum = Quorum(policy, ())
        self._policy = policy
        self._log = log
        self._findings = findings
        self._keys = self._history(log.keys)
        self._good = 0

    def judge(self, collected: Collected, *, held: Checkpoint | None = None) -> Judged:
        """Judge all checkpoints.

        Args:
            collected: those in the database and in anchors.
            held: one that the reader holds.
        """
        copies = (*collected.noted, *collected.anchored)
        self._quorum = Quorum(self._policy, (kept.checkpoint for kept in copies))
        vouched = {(kept.checkpoint.size, kept.checkpoint.root) for kept in collected.anchored}
        self._good = self._consistent_up_to(collected)
        noted = [kept for kept in collected.noted if self._holds(kept, vouched)]
        anchored = [kept for kept in collected.anchored if self._holds(kept, vouched)]
        self._require_quorum(noted)
        if held is not None:
            self._compare(held, "log-rewritten", "log-cut", "the checkpoint that is held")
        self._presence(collected)
        self._tokens(collected)
        if not noted:
            self._findings.add("log-missing", NOTES, None, "a checkpoint that is signed and holds", "none")
        signed = max([*self._signed_sizes(collected), held.size if held is not None else 0])
        return Judged(self._greatest(noted), self._greatest(anchored), signed)

    def _signed_sizes(self, collected: Collected) -> Iterator[int]:
        for kept in (*collected.noted, *collected.anchored):
            with contextlib.suppress(AuditError):  # each is judged by itself
                self._quorum.each.check(kept.checkpoint, keys=self._keys, vouched=True)
                if self._quorum.lacks(kept.checkpoint) is None:
                    yield kept.checkpoint.size

    def _require_quorum(self, noted: Sequence[Kept]) -> None:
        """Report that no checkpoint has the quorum; those that have it not yet don't count, and are no finding."""
        lacks = [self._quorum.lacks(kept.checkpoint) for kept in noted]
        if lacks and None not in lacks:
            last = max(kept.checkpoint.size for kept in noted)
            self._findings.add("checkpoint-unsigned", NOTES, last, "a quorum of witnesses", str(lacks[-1])[:400])

    def _greatest(self, kept: Sequence[Kept]) -> Checkpoint | None:
        found = [each.checkpoint for each in kept if self._quorum.lacks(each.checkpoint) is None]
        return max(found, key=lambda checkpoint: checkpoint.size, default=None)

    def _holds(self, kept: Kept, vouched: set[tuple[int, Digest]]) -> bool:
        """Judge one: its signatures, its root, and then the time of its keys, of which only the true log can speak."""
        checkpoint, place = kept.checkpoint, kept.anchor or NOTES
        changed = "checkpoint-changed" if kept.anchor is None else "log-rewritten"
        known = (checkpoint.size, checkpoint.root) in vouched or checkpoint.size <= self._good
        return (
            self._signed(kept, None, known)
            and self._compare(checkpoint, changed, "log-cut", place)
            and self._signed(kept, self._keys, known)
        )

    def _consistent_up_to(self, collected: Collected) -> int:
        """Give the greatest size of a checkpoint of the leaves that a key signed which nobody has revoked.

        A smaller one that is of the leaves as well is consistent with it, which a thief can't make.
        """
        good = 0
        for kept in (*collected.noted, *collected.anchored):
            checkpoint = kept.checkpoint
            if checkpoint.size <= good or self._log.roots.get(checkpoint.size) != checkpoint.root:
                continue
            with contextlib.suppress(AuditError):  # each is judged by itself later
                self._quorum.each.check(checkpoint, keys=self._keys)
                good = checkpoint.size
        return good

    def _signed(self, kept: Kept, keys: KeyHistory | None, vouched: bool) -> bool:
        try:
            self._quorum.each.check(kept.checkpoint, keys=keys, vouched=vouched)
        except AuditError as error:
            kind = "checkpoint-unsigned" if kept.anchor is None else "anchor-unsigned"
            place = kept.anchor or NOTES
            self._findings.add(kind, place, kept.checkpoint.size, "a signature that counts", str(error)[:400])
            return False
        return True

    def _compare(self, checkpoint: Checkpoint, changed: str, cut: str, place: str) -> bool:
        """Compare a signed checkpoint with the leaves."""
        size = checkpoint.size
        got = self._log.roots.get(size)
        if got == checkpoint.root:
            return True
        if got is not None:
            self._findings.add(changed, place, size, f"the root {checkpoint.root.hex()}", got.hex())
        elif size > self._log.size:
            self._findings.add(cut, place, size, f"{size} leaves", f"{self._log.size}")
        else:
            self._findings.add(changed, place, size, f"{size} leaves without a break", f"{self._log.whole}")
        return False

    def _presence(self, collected: Collected) -> None:
        """Look for anchored checkpoints that the database does not have: they are written down before."""
        noted = {(kept.checkpoint.size, kept.checkpoint.root) for kept in collected.noted}
        for kept in collected.anchored:
            checkpoint = kept.checkpoint
            if (checkpoint.size, checkpoint.root) not in noted:
                self._findings.add(
                    "checkpoint-missing", NOTES, checkpoint.size, f"the checkpoint that {kept.anchor} keeps", "none"
                )

    def _tokens(self, collected: Collected) -> None:
        """Look for the tokens that headers name: in the anchors if there are any, else in the database."""
        known = {kept.token for kept in (*collected.anchored, *collected.noted)}
        for block, token in self._log.tokens:
            if token not in known:
                self._findings.add("token-unknown", "audit_block", block, "a token that an anchor gave", token.hex())

    def _history(self, events: Iterable[KeyEntry]) -> KeyHistory:
        listed = list(events)
        while True:
            try:
                return KeyHistory.of(listed)
            except AuditError as error:
                self._findings.add("key-event", "audit_block", None, "key events that fit each other", str(error)[:300])
                listed.pop()
