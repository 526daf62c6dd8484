"""SEAL: order, hash and sign what is committed, into the log, and have it anchored outside of the database.

Nothing is chained when rows are written: the sealer comes afterwards, and writers never wait for it.
``docs/format`` says what is written.  What stands here loads the rest when it is called, since most processes only
write.  Imports model, proof, anchors and catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

    from ..anchors import Anchor
    from ..proof.checkpoint import Checkpoint
    from ..proof.keys import SigningKey, Verifier

__all__ = ["await_sealed", "rebase", "revoke", "seal"]


def seal(
    engine: Engine,
    signer: SigningKey | Sequence[SigningKey],
    *,
    state: str | os.PathLike[str],
    anchors: Sequence[Anchor] = (),
    metadata: Any = None,
) -> Checkpoint | None:
    """Seal what is committed and not yet sealed, sign the log and have it anchored.

    Args:
        engine: to the database, as a role that may read the trail and insert into the log's tables.
        signer: the log's key; while keys change the old one and the new one.
        state: the sealer's file, outside of the database; the first call makes it, and no copy of it may come back.
        anchors: where the checkpoint is kept outside of the database; see :mod:`sa_audit.anchors`.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Returns:
        The new checkpoint, or None if there was nothing to seal.

    Raises:
        SealerBusy: if another sealer is at work.
        SealRefused: if state, log, anchors and database don't agree.
        AnchorUnavailable: if an anchor could not take the checkpoint; the log is sealed all the same, and the next
            call gives the anchor what it lacks.
    """
    from .sealer import Sealer

    return Sealer(engine, signer, state=state, anchors=anchors, metadata=metadata).seal()


def await_sealed(session: Session, transaction_id: int, *, timeout: float = 30.0, anchored: bool = True) -> Checkpoint:
    """Wait, without locks, until a transaction is sealed and anchored.

    Args:
        session: any session to the database; a connection of its own is used.
        transaction_id: the id of a committed row of ``audit_transaction``.
        timeout: in seconds.
        anchored: whether to wait for an anchor's token as well, without which the seal is the database's word only.

    Returns:
        A checkpoint that covers it; its signatures are not checked here.

    Raises:
        SealTimeout: if it takes longer; the transaction is committed all the same.
    """
    from .waiting import await_leaf

    return await_leaf(session, transaction_id, timeout=timeout, anchored=anchored)


def rebase(engine: Engine, *, state: str | os.PathLike[str], operator: str, reason: str, metadata: Any = None) -> None:
    """Say that the database is rightly another one than before, so that sealing can go on.

    After a restore, a promoted standby, or the loss of the state file.  The next sealing writes it into the log,
    where every verifier sees it, together with what was lost.

    Args:
        engine: to the database as it is now.
        state: the sealer's file; made anew from the log alone where it is not there.
        operator: who says so.
        reason: why.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Raises:
        SealRefused: if the log in the database does not hold together.
        ConfigurationError: if operator or reason is empty.
    """
    from .rebasing import rebase_state

    rebase_state(engine, state=state, operator=operator, reason=reason, metadata=metadata)


def revoke(
    engine: Engine,
    key: Verifier,
    *,
    state: str | os.PathLike[str],
    size: int,
    stolen_at: dt.datetime,
    operator: str,
    reason: str,
    metadata: Any = None,
) -> None:
    """Say that somebody else may have a key of the log; the next sealing writes it into the log.

    What the key has signed beyond ``size`` does not count any more.  What it has signed up to there still counts where
    another key, an anchor, or a witness before the theft vouches for it.  Who has the key does not write this, and who
    may write the database can take it away: so tell verifiers as well, who take the key out of their policy.

    Args:
        engine: to the database.
        key: the verifier key of what was stolen.
        state: the sealer's file.
        size: that of the last checkpoint which the key's owner is believed to have made; 0 for none.
        stolen_at: the earliest moment at which somebody else may have had the key, with an offset.
        operator: who says so.
        reason: why.
        metadata: a MetaData or base, where several trails are known to stand in the database.

    Raises:
        ConfigurationError: if it is no key of this log, is revoked already, or an argument can't be used.
        SealRefused: if no other key signs the log, or state and log don't agree.
        SealerBusy: if a sealer is at work.
    """
    from .revoking import revoke_key

    revoke_key(
        engine,
        key,
        state=state,
        size=size,
        stolen_at=stolen_at,
        operator=operator,
        reason=reason,
        metadata=metadata,
    )
