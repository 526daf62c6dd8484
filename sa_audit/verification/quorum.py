"""Witnesses: which checkpoints the quorum of a policy has cosigned, by all copies together.

A checkpoint is written down before it is cosigned, and again by each witness with its own line; and a witness that was
away cosigns the next one only.  So a copy without the quorum is no finding: the quorum decides how far the log counts.
Imports proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import AuditError
from ..proof.checkpoint import Checkpoint
from ..proof.policy import NONE, Policy


class Quorum:
    """What is cosigned.

    Args:
        policy: whose quorum.
        copies: of checkpoints, wherever they are kept.
    """

    def __init__(self, policy: Policy, copies: Iterable[Checkpoint]) -> None:
        self._policy = policy
        self.each = replace(policy, quorum=NONE)
        """The policy for a single copy."""
        self._merged: dict[str, Checkpoint] = {}
        for copy in copies if policy.quorum != NONE else ():
            known = self._merged.get(copy.text)
            self._merged[copy.text] = copy if known is None else known.merge(copy)

    def lacks(self, checkpoint: Checkpoint) -> str | None:
        """Say what a checkpoint lacks, all its copies together, or None if the quorum has cosigned it."""
        if self._policy.quorum == NONE:
            return None
        try:
            self._policy.check(self._merged.get(checkpoint.text, checkpoint))
        except AuditError as error:
            return str(error)
        return None
