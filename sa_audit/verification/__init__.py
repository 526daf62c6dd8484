"""VERIFY: recompute the whole record, from its rows to the signed root, and prove single rows of it.

The checker shares no code with the writer: of the library it imports model, proof, anchors and catalog alone.
What stands here loads the rest when it is called, since most processes only write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .report import KINDS, Finding, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

    from ..anchors import Anchor
    from ..proof.checkpoint import Checkpoint
    from ..proof.keys import Verifier
    from ..proof.policy import Policy
    from ..proof.tlog_proof import ConsistencyProof, Proof

__all__ = ["KINDS", "Finding", "Report", "prove", "prove_consistency", "verify"]


def verify(
    engine: Engine,
    verifier: Verifier | Policy,
    *,
    anchors: Sequence[Anchor] = (),
    since: Checkpoint | None = None,
    workers: int = 1,
    progress: Callable[[str, int, int | None], None] | None = None,
    metadata: Any = None,
) -> Report:
    """Recompute everything that was sealed, from the rows to the signed root, and compare it with the anchors.

    Nothing of the database is trusted, and nothing is written.  All that does not fit is reported; nothing ends the
    search.  What is not sealed yet is counted, and protected by permissions alone.

    Args:
        engine: to the database, as a role that may read the trail and its log.
        verifier: the log's verifier key, or a policy; from where the reader trusts it, never from the database.
        anchors: what keeps checkpoints outside of the database; without one, a log that was cut off, restored from an
            older copy or rewritten with the true key can't be told from the true one.
        since: a checkpoint that the reader holds: the leaves up to it have to be its own, and their rows are not
            read again.
        workers: how many processes read rows; above 1, each connects by ``engine.url`` alone.
        progress: called with what is being checked (``"log"``, ``"rows"``, ``"tables"``), how many leaves are done,
            and of how many (or None).
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Returns:
        The report; ``report.ok`` says whether nothing was found.

    Raises:
        AnchorUnavailable: if an anchor can't be read.
        ConfigurationError: if no trail, or several, stand in the database, or an argument can't be used.
    """
    from .operations import run_verification

    return run_verification(
        engine, verifier, anchors=anchors, since=since, workers=workers, progress=progress, metadata=metadata
    )


def prove(session: Session, entry: Any, *, row: Any = None, metadata: Any = None) -> Proof:
    """Prove that an entry of the trail is in the log, so that it can be checked with no database.

    The proof holds the row, its schema and the checkpoint; ``proof.format()`` gives it as text.  It is read by a
    connection of its own, as the database has it now; that it is a true proof shows :meth:`sa_audit.proof.Proof.check`.

    Args:
        session: any session to the database.
        entry: a :class:`Change`, whose history row is proven, an :class:`Event` or :class:`Access`, or a
            :class:`TransactionInfo`, for who and why.
        row: with an ``Access``, the key of a row that it showed; then that is what is proven.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Raises:
        NotSealed: if it is not in the log yet.
        IntegrityFinding: if its row is not the one that was sealed, or gone.
        NotAudited: if it is no entry of this trail, or an access that is not known to have shown the row.
    """
    from .proving import prove_entry

    return prove_entry(session.get_bind().engine, entry, row, metadata)


def prove_consistency(
    engine: Engine, old: Checkpoint, new: Checkpoint | None = None, *, metadata: Any = None
) -> ConsistencyProof:
    """Prove that a checkpoint is the beginning of another: nothing before it was changed.

    Args:
        engine: to the database.
        old: the one that the reader holds.
        new: the other one; None takes the last one of the database.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Raises:
        NotSealed: if nothing is sealed.
        MalformedProof: if ``old`` is of another log, or greater.
    """
    from .proving import prove_growth

    return prove_growth(engine, old, new, metadata)
