"""Waiting until a transaction is sealed and anchored, by looking again and again.

Imports catalog, proof, model and errors.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from ..catalog import find_leaf, trail_at
from ..catalog.tables import ENTRIES
from ..errors import SealTimeout
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint

FIRST, LONGEST = 0.02, 0.5
"""Seconds between two looks, at first and at most."""


def await_leaf(session: Session, transaction_id: int, *, timeout: float, anchored: bool) -> Checkpoint:
    """See :func:`sa_audit.await_sealed`."""
    bind = session.get_bind()
    engine: Engine = bind.engine
    until, pause = time.monotonic() + timeout, FIRST
    leaf: int | None = None
    while True:
        with engine.connect() as connection:
            trail = trail_at(connection, _metadata(session))
            leaf = _leaf(connection, trail, transaction_id) if leaf is None else leaf
            note = _note(connection, trail, leaf, anchored=anchored) if leaf is not None else None
        if note is not None:
            return Checkpoint.parse(note)
        if time.monotonic() >= until:
            what = "sealed" if leaf is None else "signed and anchored" if anchored else "signed"
            raise SealTimeout(
                f"transaction {transaction_id} is committed, and was not {what} within {timeout:g} seconds: "
                "is the sealer running, and can it reach its anchors?"
            )
        time.sleep(min(pause, max(until - time.monotonic(), 0)))
        pause = min(pause * 1.5, LONGEST)


def _metadata(session: Session) -> sa.MetaData | None:
    """Give the MetaData that the session's objects are of, where it knows any."""
    found = {
        table.metadata
        for state in session.identity_map.all_states()
        for table in state.mapper.tables
        if isinstance(table, sa.Table)
    }
    return next(iter(found)) if len(found) == 1 else None


def _leaf(connection: Connection, trail: Trail, transaction_id: int) -> int | None:
    found = find_leaf(connection, trail, ENTRIES, transaction_id)
    return None if found is None else found[0]


def _note(connection: Connection, trail: Trail, leaf: int, *, anchored: bool) -> str | None:
    table = trail.checkpoint
    statement = sa.select(table.c.note).where(table.c.size > leaf).order_by(table.c.size, table.c.id).limit(1)
    if anchored:
        statement = statement.where(table.c.anchor.is_not(None))
    return connection.scalar(statement)
