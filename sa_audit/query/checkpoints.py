"""A checkpoint as a moment: the snapshot up to which every row was sealed when it was signed.

Loaded only where somebody gives a checkpoint.  Imports catalog, proof and errors.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ..catalog import Block, block_of_leaf, catalog_for, trail_at
from ..catalog.log import block_numbered
from ..errors import InvalidMoment
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.entries import BlockEntry, decode_entry
from .moment import Snapshot


def moment_of(engine_or_session: object, checkpoint: Checkpoint) -> Snapshot:
    """Find the snapshot of a checkpoint in the log; its signatures are not checked here.

    Args:
        engine_or_session: an ``Engine`` or a ``Session``.
        checkpoint: the checkpoint.

    Raises:
        InvalidMoment: if the database is not PostgreSQL, or its log has no such checkpoint.
    """
    if isinstance(engine_or_session, Session):
        return _found(engine_or_session.connection(), checkpoint)
    connect = getattr(engine_or_session, "connect", None)
    if connect is None or hasattr(engine_or_session, "sync_engine"):
        raise InvalidMoment(
            "a checkpoint is looked up in the log, which an async engine or session can't do here: give the snapshot "
            "that sa_audit.query.checkpoints.moment_of finds inside of run_sync()"
        )
    with connect() as connection:
        return _found(connection, checkpoint)


def _found(connection: Connection, checkpoint: Checkpoint) -> Snapshot:
    database = catalog_for(connection.dialect)
    if not database.has_snapshots:
        raise InvalidMoment(
            f"a checkpoint is an exact moment on PostgreSQL only, and this is {connection.dialect.name}: "
            "give an aware datetime or an ISO 8601 text with an offset"
        )
    trail = trail_at(connection)
    block = block_of_leaf(connection, trail, checkpoint.size - 1) if checkpoint.size else None
    table = trail.checkpoint
    notes = connection.scalars(sa.select(table.c.note).where(table.c.size == checkpoint.size)).all()
    if block is None or checkpoint.root not in {Checkpoint.parse(note).root for note in notes}:
        raise InvalidMoment(
            f"the log in this database has no checkpoint of size {checkpoint.size} with the root "
            f"{checkpoint.root.hex()}"
        )
    return Snapshot(text=_horizon(connection, trail, block, checkpoint))


def _horizon(connection: Connection, trail: Trail, block: Block | None, checkpoint: Checkpoint) -> str:
    """Give the snapshot of the last block, up to this one, with which every row up to it is sealed."""
    while block is not None:
        header = decode_entry(block.entries()[0])
        if isinstance(header, BlockEntry) and header.closes and header.horizon[0] == "snapshot":
            return str(header.horizon[1])
        block = block_numbered(connection, trail, block.number - 1)
    raise InvalidMoment(f"the checkpoint of size {checkpoint.size} was signed before any row was sealed")
