"""Rebase: the database is rightly another one than before; the next sealing says so in the log.

The log goes on from where it stands in the database.  What the sealer or an anchor has seen beyond that can't be made
up for: a log that lost its end is refused.  Imports the room's own parts, catalog, proof, model and errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..catalog import CatalogDatabase, by_itself, catalog_for, trail_at
from ..catalog.horizon import HorizonDatabase, Identity, horizon_for
from ..errors import ConfigurationError, IntegrityFinding, MalformedProof, SealRefused
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.entries import Cluster, IncarnationEntry, Loss
from ..proof.keys import Verifier
from ..proof.policy import Policy
from ..proof.types import Digest
from .ranges import without
from .rows import ids_of
from .scan import Facts, scan
from .state import AnchorState, KnownTable, State, StateFile

LOST: Final = 2_000
"""The most ranges of lost rows in one entry."""


def rebase_state(engine: Engine, *, state: Any, operator: str, reason: str, metadata: Any) -> None:
    """See :func:`sa_audit.rebase`."""
    if not operator or not reason:
        raise ConfigurationError("rebase(operator=, reason=): say who does it, and why; it stands in the log for ever")
    engine = by_itself(engine)
    file = StateFile(state)
    database = catalog_for(engine.dialect)
    horizons = horizon_for(database)
    with file.locked():
        with engine.connect() as connection:
            trail = trail_at(connection, metadata)
        with horizons.sealing(engine, trail) as connection:
            horizons.prepare(connection, trail)
            connection.rollback()
            horizons.settle(connection, trail)
            with database.pinned(connection):
                file.write(_rebased(connection, trail, database, horizons, file.read(), operator, reason))
                connection.rollback()


def _rebased(
    connection: Connection,
    trail: Trail,
    database: CatalogDatabase,
    horizons: HorizonDatabase,
    found: tuple[State, State | None] | None,
    operator: str,
    reason: str,
) -> State:
    facts = _facts(connection, trail, found)
    former = found[0] if found is not None else None
    identity = horizons.identity(connection)
    moved = former is None or (former.system, former.timeline) != (identity.system, identity.timeline)
    tables = {
        name: _table(connection, database, name, known, facts, anew=moved and horizons.renumbers)
        for name, known in _known(facts).items()
    }
    losses = [_loss(connection, database, known, facts) for known in tables.values()]
    entries = _entries(facts, former, identity, losses, operator, reason)
    return State(
        origin=facts.origin or (former.origin if former is not None else ""),
        system=identity.system,
        timeline=identity.timeline,
        frontier=facts.frontier,
        blocks=facts.blocks,
        last_block=facts.last_block,
        incarnation=facts.incarnation,
        horizon=None if moved and horizons.renumbers else facts.horizon,
        tables=tables,
        keys=facts.keys,
        former=facts.former,
        catalog=facts.catalog,
        anchors=_anchors(connection, trail),
        token=former.token if former is not None else _token(connection, trail),
        queue=tuple(entry.encode() for entry in entries),
    )


def _facts(connection: Connection, trail: Trail, found: tuple[State, State | None] | None) -> Facts:
    """Read the log, and refuse one that is not that of the sealer.

    Raises:
        SealRefused: if it does not hold together, was rewritten, or has lost its end.
    """
    try:
        facts = scan(connection, trail)
    except (IntegrityFinding, MalformedProof) as error:
        raise SealRefused(
            f"the log in the database does not hold together, so nothing is built on it: {error}"
        ) from error
    if facts.blocks == 0:
        raise SealRefused(
            "there is no log in the database, so there is nothing to go on from: seal with a new state file"
        )
    for note in connection.scalars(sa.select(trail.checkpoint.c.note).order_by(trail.checkpoint.c.id.desc()).limit(1)):
        checkpoint = Checkpoint.parse(note)
        _require_beginning(facts, checkpoint.size, checkpoint.root, "its last checkpoint")
    if found is not None:
        _require_beginning(facts, found[0].size, found[0].root, "the sealer's state")
    _require_signed(connection, trail, facts, found)
    return facts


def _require_signed(
    connection: Connection, trail: Trail, facts: Facts, found: tuple[State, State | None] | None
) -> None:
    """Refuse leaves that neither the sealer's state nor a signed checkpoint knows: anybody may have appended them.

    Raises:
        SealRefused: saying how many there are.
    """
    known = max([0, *(state.size for state in found or () if state and facts.roots.get(state.size) == state.root)])
    keys = set(found[0].keys) if found is not None else {key for at, key in facts.added if at == 0}
    table = trail.checkpoint
    for note in connection.scalars(sa.select(table.c.note).order_by(table.c.size, table.c.id)):
        checkpoint = Checkpoint.parse(note)
        if facts.roots.get(checkpoint.size) == checkpoint.root and _is_signed(checkpoint, keys):
            known = max(known, checkpoint.size)
            keys |= {key for at, key in facts.added if at < checkpoint.size}
    if known < facts.frontier.size:
        raise SealRefused(
            f"the log in the database has {facts.frontier.size} leaves, and only {known} of them are signed: the rest "
            "was appended by somebody without the key, or by a sealer that was killed before it signed; see what "
            "`sa-audit verify` says, and have the owner remove the blocks behind from audit_block and audit_sealed, "
            "whose rows are sealed again then"
        )


def _is_signed(checkpoint: Checkpoint, keys: Iterable[str]) -> bool:
    try:
        Policy.of(*map(Verifier.parse, keys)).check(checkpoint)
    except IntegrityFinding:
        return False
    return True


def _require_beginning(facts: Facts, size: int, root: Digest, what: str) -> None:
    if size > facts.frontier.size:
        raise SealRefused(
            f"the log in the database has {facts.frontier.size} leaves, and {what} speaks of {size}: leaves were lost, "
            "and can't be made up for; get the rows of audit_block back, or begin another log, under another name"
        )
    if facts.roots.get(size) != root:
        raise SealRefused(f"the log in the database is not the one that {what} is of, at size {size}: it was rewritten")


def _known(facts: Facts) -> dict[str, KnownTable]:
    return {
        f"{descriptor.schema}.{descriptor.name}" if descriptor.schema else descriptor.name: KnownTable(
            number=number, descriptor=descriptor
        )
        for number, descriptor in facts.descriptors.items()
    }


def _table(
    connection: Connection, database: CatalogDatabase, name: str, known: KnownTable, facts: Facts, *, anew: bool
) -> KnownTable:
    """Say what of a table is sealed: by its ids, where transaction ids begin anew or there are none."""
    ranges = facts.ranges.get(known.number, ())
    known = replace(known, last=ranges[-1][1] if ranges else None)
    columns = {column.name for column in known.descriptor.columns} if known.descriptor is not None else set()
    if not columns & {"audit_txid", "db_txid"}:
        return replace(known, ranges=ranges)
    if not anew:
        return known
    floor = _greatest(connection, database, known)
    return replace(known, ranges=ranges, floor=floor if floor is not None else 0)


def _greatest(connection: Connection, database: CatalogDatabase, known: KnownTable) -> int | None:
    table, key = _place(database, known)
    if not _stands(connection, database, known):
        return None
    found = connection.execute(sa.text(f"SELECT max({key}) FROM {table}")).scalar()
    return None if found is None else int(found)


def _place(database: CatalogDatabase, known: KnownTable) -> tuple[str, str]:
    descriptor = known.descriptor
    assert descriptor is not None  # noqa: S101 - it is made from one
    return database.name_of(descriptor.schema, descriptor.name), "audit_id" if descriptor.role == "history" else "id"


def _stands(connection: Connection, database: CatalogDatabase, known: KnownTable) -> bool:
    descriptor = known.descriptor
    return descriptor is not None and bool(database.columns(connection, descriptor.schema, descriptor.name))


def _loss(connection: Connection, database: CatalogDatabase, known: KnownTable, facts: Facts) -> Loss:
    """Compare the ids that are there with those that are sealed."""
    sealed = facts.ranges.get(known.number, ())
    if not _stands(connection, database, known):
        return Loss(table=known.number, last_row=None, lost=sealed)
    table, key = _place(database, known)
    present = ids_of(connection, database, table, key)
    return Loss(table=known.number, last_row=present[-1][1] if present else None, lost=without(sealed, present))


def _entries(
    facts: Facts, former: State | None, identity: Identity, losses: Iterable[Loss], operator: str, reason: str
) -> Iterator[IncarnationEntry]:
    old = Cluster(system=former.system, timeline=former.timeline) if former is not None else Cluster(system="unknown")
    if facts.horizon is not None and facts.horizon[0] == "snapshot":
        old = replace(old, snapshot=str(facts.horizon[1]))
    new = Cluster(
        system=identity.system, timeline=identity.timeline, position=identity.position, snapshot=identity.snapshot
    )
    parts: list[list[Loss]] = [[]]
    for loss in sorted(losses, key=lambda loss: loss.table):
        pieces = [loss.lost[i : i + LOST] for i in range(0, len(loss.lost), LOST)] or [()]
        for number, piece in enumerate(pieces):
            if number or len(parts[-1]) >= LOST // 10:
                parts.append([])
            parts[-1].append(replace(loss, lost=tuple(piece)))
    for part in parts:
        yield IncarnationEntry(
            number=facts.incarnation + 1, old=old, new=new, tables=tuple(part), reason=reason, operator=operator
        )


def _token(connection: Connection, trail: Trail) -> Digest | None:
    table = trail.checkpoint
    last = sa.select(table.c.token).where(table.c.token.is_not(None)).order_by(table.c.id.desc()).limit(1)
    token = connection.scalar(last)
    return None if token is None else Digest(hashlib.sha256(bytes(token)).digest())


def _anchors(connection: Connection, trail: Trail) -> dict[str, AnchorState]:
    table = trail.checkpoint
    rows = connection.execute(
        sa.select(table.c.anchor, table.c.size, table.c.token).where(table.c.anchor.is_not(None)).order_by(table.c.id)
    )
    return {
        row.anchor: AnchorState(size=row.size, digest=Digest(hashlib.sha256(bytes(row.token)).digest())) for row in rows
    }
