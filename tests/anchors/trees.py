"""Logs that grow: signed checkpoints of any size, and the proofs between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sa_audit.proof import Checkpoint, Signer, leaf_hash, tree_root
from sa_audit.proof.merkle import consistency_proof
from sa_audit.proof.types import Digest
from tests.vectors.samples import LOG


@dataclass(frozen=True, slots=True)
class Tree:
    """A log's tree; another first leaf makes another history."""

    first: bytes = b"0"
    signer: Signer = LOG

    def checkpoint(self, size: int) -> Checkpoint:
        """Give the signed checkpoint of a size."""
        return Checkpoint(origin=self.signer.name, size=size, root=tree_root(self._leaves(size))).sign(self.signer)

    def prove(self, size: int) -> Callable[[int], Sequence[Digest]]:
        """Give what proves that the tree of a size continues that of an older one."""
        leaves = self._leaves(size)

        def read(level: int, index: int) -> Digest:
            return tree_root(leaves[index << level : (index + 1) << level])

        return lambda old: consistency_proof(old, size, read)

    def _leaves(self, size: int) -> list[Digest]:
        return [leaf_hash(self.first), *(leaf_hash(number.to_bytes(4, "big")) for number in range(1, size))][:size]
