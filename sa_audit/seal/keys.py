"""Which keys sign: those that come are said in the log before they count, those that go as well.

Imports the room's own parts, proof and errors.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SealRefused
from ..proof.entries import IncarnationEntry, KeyEntry, decode_entry
from ..proof.keys import SigningKey
from .state import State


def key_events(state: State, signers: Sequence[SigningKey], *, size: int, moment: int) -> list[KeyEntry]:
    """Give the events that make the given signers those of the log.

    Args:
        state: with the keys that have signed until now.
        signers: those that sign from now on.
        size: of the tree with the block's header and without the events.
        moment: of the clock, in microseconds since the epoch.

    Raises:
        SealRefused: if none of the signers has signed before, since a key comes under the signature of another; or if
            one of them was retired or revoked.
    """
    now = [str(signer.verifier) for signer in signers]
    for key in now:
        if key in state.former:
            raise SealRefused(f"the key {key} was retired or revoked, and does not come back: make a new one")
    if state.keys and not set(state.keys) & set(now):
        raise SealRefused(
            f"the log is signed by {', '.join(state.keys)}, and none of these keys is given: seal once with both the "
            "old key and the new one"
        )
    added = [key for key in now if key not in state.keys]
    retired = [key for key in state.keys if key not in now]
    size += len(added) + len(retired)
    return [
        *(_event("add", key, size, moment, "first key" if not state.keys else "rotation") for key in added),
        *(_event("retire", key, size, moment, "rotation") for key in retired),
    ]


def incarnation_after(state: State) -> int:
    """Give the number of the last incarnation once what is queued stands in the log."""
    queued = [entry.number for data in state.queue if isinstance(entry := decode_entry(data), IncarnationEntry)]
    return max([state.incarnation, *queued])


def _event(event: str, key: str, size: int, moment: int, reason: str) -> KeyEntry:
    return KeyEntry(event=event, verifier=key, size=size, moment=moment, reason=reason)
