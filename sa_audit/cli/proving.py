"""``prove``: the proof of one change or read, as text that is checked with no database.

Imports query, verification and rich only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from rich.console import RenderableType
from sqlalchemy.orm import Session

from ..proof.tlog_proof import Proof
from ..query import history, reads
from ..verification import prove
from .failure import CantRun
from .models import Entity
from .results import plain


@dataclass(frozen=True, slots=True)
class ProofResult:
    """A proof.  JSON: ``{"origin", "size", "index", "proof": text}``."""

    proof: Proof

    def to_json(self) -> Any:
        """Give it as JSON values."""
        checkpoint = self.proof.checkpoint
        return {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "index": self.proof.index,
            "proof": self.proof.format(),
        }

    def render(self) -> RenderableType:
        """Give it for people and files."""
        return plain(self.proof.format())


def prove_change(
    engine: sa.Engine, metadata: sa.MetaData, entity: Entity, identity: Any, audit_id: int | None
) -> ProofResult:
    """Prove the last change of a row, or the one of that id.

    Raises:
        CantRun: if there is no such change.
    """
    with Session(engine) as session:
        changes = history(session, entity.target, identity)
        chosen = [change for change in changes if audit_id in (None, change.audit_id)]
        if not chosen:
            ids = ", ".join(str(change.audit_id) for change in changes) or "none"
            raise CantRun(f"{entity.name} {identity!r} has no such change: there are those of the ids {ids}")
        return ProofResult(prove(session, chosen[-1], metadata=metadata))


def prove_read(engine: sa.Engine, metadata: sa.MetaData, entity: Entity, identity: Any, audit_id: int) -> ProofResult:
    """Prove that a read, by its id, showed a row.

    Raises:
        CantRun: if no read of that id did.
    """
    with Session(engine) as session:
        found = reads(session, entity.target, identity)
        chosen = next((read for read in found if read.audit_id == audit_id), None)
        if chosen is None:
            ids = ", ".join(str(read.audit_id) for read in found[-10:]) or "none"
            raise CantRun(f"no read {audit_id} showed {entity.name} {identity!r}: the last that did have the ids {ids}")
        row = next(row for row in chosen.rows if row == (identity if isinstance(identity, tuple) else (identity,)))
        return ProofResult(prove(session, chosen, row=row, metadata=metadata))
