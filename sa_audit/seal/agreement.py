"""Before anything is sealed: the sealer's state, the log and every anchor have to agree.

Imports the room's own parts, catalog, anchors, proof, model and errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy.engine import Connection

from ..anchors import Anchor, Anchored
from ..catalog.horizon import Identity
from ..catalog.log import Block, last_block
from ..errors import AnchorUnavailable, SealRefused
from ..model.history import Trail
from ..proof.types import Digest
from .state import State

REBASE = "find out why; if it has to be so, say so with `sa-audit rebase`"


def digest_of(data: bytes) -> Digest:
    """Give the digest by which a state knows a block's entries."""
    return Digest(hashlib.sha256(data).digest())


def agreed(connection: Connection, trail: Trail, found: tuple[State, State | None] | None) -> State | None:
    """Give the state that the log agrees with: the one in the file, or the pending one if it was committed.

    Args:
        connection: in a transaction.
        trail: whose log.
        found: what the file holds.

    Returns:
        The state, or None if there is neither a file nor a log.

    Raises:
        SealRefused: if they don't agree.
    """
    last = last_block(connection, trail)
    if found is None:
        if last is not None:
            raise SealRefused(
                f"the log has {last.first + last.count} leaves, and the sealer's state file is not there: put it back, "
                f"or begin a new one with `sa-audit rebase`, which goes by the log alone"
            )
        return None
    state, pending = found
    if pending is not None and _fits(pending, last):
        return pending
    if _fits(state, last):
        return state
    raise SealRefused(_disagreement(state, last))


def _fits(state: State, last: Block | None) -> bool:
    if last is None:
        return state.blocks == 0
    return (
        state.blocks == last.number + 1
        and state.size == last.first + last.count
        and state.last_block == digest_of(last.data)
    )


def _disagreement(state: State, last: Block | None) -> str:
    size = 0 if last is None else last.first + last.count
    if size < state.size:
        return (
            f"the log has {size} leaves, and the sealer has sealed {state.size}: an older copy of the database was "
            f"restored, or leaves were removed; {REBASE}"
        )
    if size > state.size:
        return (
            f"the log has {size} leaves, and the sealer's state file knows of {state.size}: it is an older copy, or "
            f"another sealer has been at work; {REBASE}"
        )
    return f"the last block of the log is not the one that the sealer wrote (of {size} leaves): {REBASE}"


def require_same_database(state: State, identity: Identity) -> None:
    """Refuse another database than the one that was sealed.

    Raises:
        SealRefused: naming both.
    """
    if state.system != identity.system:
        raise SealRefused(
            f"this is another database than the one that was sealed: expected the system identifier {state.system}, "
            f"got {identity.system}; {REBASE}"
        )
    if state.timeline != identity.timeline:
        raise SealRefused(
            f"the database is on timeline {identity.timeline}, and was sealed on {state.timeline}: a standby was "
            f"promoted, or the database was recovered to an earlier point; {REBASE}"
        )


def require_anchors(state: State | None, anchors: Sequence[Anchor]) -> None:
    """Refuse to go on from what an anchor contradicts.

    Raises:
        SealRefused: if an anchor keeps a checkpoint that the state does not know.
    """
    for anchor in anchors:
        known = state.anchors.get(anchor.uri) if state is not None else None
        last = _last(anchor, expected=known is not None)
        if last is None:
            if known is not None:
                raise SealRefused(
                    f"the anchor {anchor.uri} keeps no checkpoint, and took one of size {known.size}: find out why, "
                    "and put back what it kept; if that is lost, give an anchor of another name"
                )
            continue
        kept = last.checkpoint
        if state is None:
            raise SealRefused(
                f"the anchor {anchor.uri} keeps a checkpoint of size {kept.size}, and there is neither a state file "
                "nor a log: put them back, or give another anchor"
            )
        if kept.origin != state.origin:
            raise SealRefused(f"the anchor {anchor.uri} is that of {kept.origin!r}, and not of {state.origin!r}")
        same = (kept.size, kept.root) == (state.size, state.root)
        if not same and (known is None or (kept.size, last.digest) != (known.size, known.digest)):
            raise SealRefused(
                f"the anchor {anchor.uri} keeps a checkpoint of size {kept.size} and root {kept.root.hex()}, which the "
                f"sealer's state (size {state.size}, root {state.root.hex()}) does not know: the state file is an "
                f"older copy, or the log was rewritten; {REBASE}"
            )


def _last(anchor: Anchor, *, expected: bool) -> Anchored | None:
    last = None
    try:
        for anchored in anchor.read():
            last = anchored
    except AnchorUnavailable:
        if expected:
            raise
    return last
