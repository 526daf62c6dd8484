"""Revocation: somebody else may have a key; the next sealing says so in the log, under the keys that are left.

``docs/format/checkpoint.md``, "Rotation and revocation".
Imports the room's own parts, catalog, proof, model and errors.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.engine import Connection, Engine

from ..catalog import blocks, by_itself, catalog_for, trail_at
from ..catalog.horizon import horizon_for
from ..errors import ConfigurationError, IntegrityFinding, SealRefused
from ..model.history import Trail
from ..proof.entries import KeyEntry, decode_entry
from ..proof.keys import Verifier
from ..proof.policy import KeyHistory
from .agreement import agreed
from .state import State, StateFile

KEY_START: Final = b"\x87\x01\x04"
"""How a key event begins: an array of seven, version 1, kind 4 (docs/format/entries.md)."""


def revoke_key(
    engine: Engine,
    key: Verifier,
    *,
    state: Any,
    size: int,
    stolen_at: dt.datetime,
    operator: str,
    reason: str,
    metadata: Any,
) -> None:
    """See :func:`sa_audit.seal.revoke`."""
    if not operator or not reason:
        raise ConfigurationError("revoke(operator=, reason=): say who does it, and why; it stands in the log for ever")
    if stolen_at.tzinfo is None:
        raise ConfigurationError(f"stolen_at={stolen_at}: give a moment with its offset from UTC")
    event = KeyEntry(
        event="revoke",
        verifier=str(key),
        size=size,
        moment=(stolen_at - _EPOCH) // dt.timedelta(microseconds=1),
        reason=f"{reason} (said by {operator})",
    )
    engine = by_itself(engine)
    file = StateFile(state)
    horizons = horizon_for(catalog_for(engine.dialect))
    with file.locked():
        with engine.connect() as connection:
            trail = trail_at(connection, metadata)
        with horizons.sealing(engine, trail) as connection:
            connection.rollback()
            with connection.begin(), horizons.database.pinned(connection):
                known = agreed(connection, trail, file.read())
                if known is None:
                    raise ConfigurationError(f"nothing is sealed with the state file {file.path}, so no key is revoked")
                events = [*_events(connection, trail), *_queued(known)]
            file.write(_revoked(known, events, event))


def _events(connection: Connection, trail: Trail) -> Iterator[KeyEntry]:
    for block in blocks(connection, trail):
        yield from _keys(entry for entry in block.entries() if entry.startswith(KEY_START))


def _queued(state: State) -> Iterator[KeyEntry]:
    return _keys(iter(state.queue))


def _keys(entries: Iterator[bytes]) -> Iterator[KeyEntry]:
    return (entry for data in entries if isinstance(entry := decode_entry(data), KeyEntry))


def _revoked(state: State, events: list[KeyEntry], event: KeyEntry) -> State:
    """Give the state after which the next sealing revokes a key.

    Raises:
        ConfigurationError: if it is no key of the log, is revoked already, or the size is beyond the log.
        SealRefused: if no other key signs.
    """
    if not 0 <= event.size <= state.size:
        raise ConfigurationError(f"size={event.size}: the log has {state.size} leaves; give the last size that is good")
    try:
        KeyHistory.of([*events, event])
    except IntegrityFinding as error:
        raise ConfigurationError(f"{event.verifier} can't be revoked: {error}") from error
    left = tuple(key for key in state.keys if key != event.verifier)
    if not left:
        raise SealRefused(
            "it is the only key that signs, and nothing that it signs counts after its revocation: seal once with both "
            "the old key and a new one, and revoke the old one then"
        )
    former = state.former if event.verifier in state.former else (*state.former, event.verifier)
    return replace(state, keys=left, former=former, queue=(*state.queue, event.encode()))


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
