"""The sealer: one sealing from the agreement of everything to the last anchor.

The order is what makes it safe to be killed anywhere: the leaves are written, the state that would follow is put down
as pending, the leaves are committed, the state is taken, the checkpoint is signed and anchored.  Nothing is signed
that was not committed before.  Imports the room's own parts, catalog, anchors, proof, model and errors.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..anchors import Anchor, Anchored
from ..catalog import Unsealed, by_itself, catalog_for, read_tile, trail_at, unsealed
from ..catalog.horizon import horizon_for
from ..catalog.log import pack_tiles
from ..catalog.prunes import requests
from ..errors import AnchorUnavailable, ConfigurationError
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.keys import SigningKey
from ..proof.merkle import consistency_proof
from ..proof.tiles import NodesOfTiles, widths
from ..proof.types import Digest
from .agreement import agreed, digest_of, require_anchors, require_same_database
from .building import Built, Facts, Run, Tree, build
from .catalog import catalog_runs
from .keys import incarnation_after, key_events
from .pruning import Pruning
from .rows import Rows
from .state import State, StateFile

NOTHING, KEYS, ROWS = "nothing", "keys", "rows"
Signers = SigningKey | Sequence[SigningKey]


class Sealer:
    """Seals one log, again and again; :func:`sa_audit.seal` is one call of it.

    Args:
        engine: to the database.
        signers: the key, or several while keys change.
        state: the sealer's file.
        anchors: where checkpoints are kept outside of the database.
        metadata: a MetaData or base, where several trails are known to stand in the database.
        on_step: called with the name of each step that is done; tests end the process there.
    """

    def __init__(
        self,
        engine: Engine,
        signers: Signers,
        *,
        state: Any,
        anchors: Sequence[Anchor] = (),
        metadata: Any = None,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        self.engine = by_itself(engine)
        self.signers = tuple(signers) if isinstance(signers, Sequence) else (signers,)
        if not self.signers or len({signer.name for signer in self.signers}) != 1:
            raise ConfigurationError("give the signers of one log: at least one, and all of the log's name")
        self.origin = self.signers[0].name
        self.anchors = tuple(anchors)
        self.file = StateFile(state)
        self.metadata = metadata
        self._step = on_step or (lambda name: None)
        self._anchors_checked = False
        self.database = catalog_for(engine.dialect)
        self.horizons = horizon_for(self.database)

    def seal(self) -> Checkpoint | None:
        """Seal what is committed and not yet sealed.

        Returns:
            The new checkpoint, or None if there was nothing to seal.

        Raises:
            SealerBusy: if another sealer is at work.
            SealRefused: if state, log, anchors and database don't agree.
            AnchorUnavailable: if an anchor could not take the checkpoint; the next sealing gives it what it lacks.
        """
        with self.file.locked():
            with self.engine.connect() as connection:
                trail = trail_at(connection, self.metadata)
            with self.horizons.sealing(self.engine, trail) as connection:
                return self._seal(connection, trail)

    def window(self) -> Unsealed:
        """Say what is committed and not yet sealed.

        Raises:
            SealRefused: if the state file can't be read.
        """
        found = self.file.read()
        state = found[0] if found is not None else None
        known = state.tables.values() if state is not None else ()
        with self.engine.connect() as connection:
            trail = trail_at(connection, self.metadata)
            connection.rollback()
            with connection.begin(), self.database.pinned(connection):
                return unsealed(
                    connection,
                    self.database,
                    self.horizons,
                    trail,
                    [table.descriptor for table in known if table.descriptor is not None],
                    state.horizon if state is not None else None,
                )

    def _seal(self, connection: Connection, trail: Trail) -> Checkpoint | None:
        self.horizons.prepare(connection, trail)
        made: Checkpoint | None = None
        again = True  # a prune that was asked for is granted once its request is sealed
        while True:
            state, written = self._round(connection, trail)
            checkpoint = self._publish(connection, trail, state, new=written != NOTHING)
            made = checkpoint if written != NOTHING else made
            if written == ROWS and again and self._is_asked(connection, trail):
                again = False
            elif written != KEYS:
                return made

    def _is_asked(self, connection: Connection, trail: Trail) -> bool:
        """Tell whether anybody waits for a prune; without an anchor, none is granted."""
        if trail.prune is None or not self.anchors:
            return False
        connection.rollback()
        with connection.begin(), self.database.pinned(connection):
            return bool(requests(connection, self.database, trail))

    # -- one round ---------------------------------------------------------------------

    def _round(self, connection: Connection, trail: Trail) -> tuple[State, str]:
        """Write the leaves of one round, of keys or of rows; give the state after it, and which of them."""
        connection.rollback()
        self.horizons.begin(connection, trail)
        with self.database.pinned(connection):
            state = self._agree(connection, trail)
            rows = Rows(connection, self.database, self.horizons, trail, state)
            tree = Tree(frontier=state.frontier, blocks=state.blocks)
            now = time.time_ns() // 1000
            catalog, said = catalog_runs(connection, self.database, trail, state)
            facts = Facts(
                incarnation=state.incarnation,
                sealed_at=now,
                horizon=rows.horizon,
                token=state.token,
                fingerprint=catalog,
            )
            keys = self._keys(state, now)
            pruning = Pruning(connection, self.database, trail, state, dt.datetime.fromtimestamp(now / 1e6, dt.UTC))
            prunes = pruning.granted() if self.anchors and not keys else []
            apart = keys or [Run([each.entry.encode()]) for each in prunes]
            last, leaves = None, list[int]()
            runs = self._edged(connection, trail, tree, apart or chain(said, rows.runs()))
            for built in build(tree, facts, runs, closes=not apart):
                self._insert(connection, trail, built)
                leaves += range(built.header.first + 1, built.header.first + built.header.count) if prunes else ()
                last = built
            pruning.note(prunes, leaves)
            if last is None:
                connection.rollback()
                return state, NOTHING
            self._step("written")
            following = rows.state_after(tree, digest_of(last.data), last.header)
            signing = tuple(str(signer.verifier) for signer in self.signers)
            following = replace(
                following,
                keys=signing,
                former=(*state.former, *(key for key in state.keys if key not in signing)),
                queue=(),
                incarnation=incarnation_after(state),
                catalog=state.catalog if apart else catalog,
            )
            self.file.write(state, following)
            self._step("pending")
            connection.commit()
        self._step("committed")
        self.file.write(following)
        self._step("taken")
        return following, KEYS if apart else ROWS

    def _keys(self, state: State, now: int) -> list[Run]:
        """Give what stands in the log before any row that is signed anew: what is queued, and key events."""
        events = key_events(state, self.signers, size=state.size + 1 + len(state.queue), moment=now)
        return [Run([entry]) for entry in (*state.queue, *(event.encode() for event in events))]

    def _agree(self, connection: Connection, trail: Trail) -> State:
        state = agreed(connection, trail, self.file.read())
        if not self._anchors_checked:
            require_anchors(state, self.anchors)
            self._anchors_checked = True
        identity = self.horizons.identity(connection)
        if state is None:
            return State(origin=self.origin, system=identity.system, timeline=identity.timeline)
        if state.origin != self.origin:
            raise ConfigurationError(f"the key is that of {self.origin!r}, and the log is {state.origin!r}")
        require_same_database(state, identity)
        return state

    def _edged(self, connection: Connection, trail: Trail, tree: Tree, runs: Iterable[Run]) -> Iterator[Run]:
        """Yield runs; read the partial tiles before the first of them, since without one nothing is appended.

        Tiles that don't agree with the frontier are found when leaves are appended.
        """
        for number, run in enumerate(runs):
            if number == 0:
                places = widths(tree.frontier.size)
                tree.edge = {level: read_tile(connection, trail, level, *place) for level, *place in places}
            yield run

    def _insert(self, connection: Connection, trail: Trail, built: Built) -> None:
        header = built.header
        values = {"number": header.number, "first_leaf": header.first, "leaves": header.count}
        data = {"entries": built.data, "tiles": pack_tiles(built.tiles)}
        connection.execute(sa.insert(trail.block), {**values, **data})
        ranges = [
            {"block": header.number, "table_id": table, "first_row": first, "last_row": last, "leaves": count}
            for table, (first, last, count) in built.rows.items()
        ]
        if ranges:
            connection.execute(sa.insert(trail.sealed), ranges)

    # -- the checkpoint ------------------------------------------------------------------

    def _publish(self, connection: Connection, trail: Trail, state: State, *, new: bool) -> Checkpoint | None:
        """Sign, write down and anchor the checkpoint of a state, as far as that has not been done."""
        if state.size == 0:
            return None
        if not new and self._published(connection, trail, state):
            return None
        checkpoint = Checkpoint(origin=state.origin, size=state.size, root=state.root).sign(*self.signers)
        self._step("signed")
        self._note(connection, trail, checkpoint, None)
        self._step("noted")
        self._anchor(connection, trail, state, checkpoint)
        return checkpoint

    def _published(self, connection: Connection, trail: Trail, state: State) -> bool:
        table = trail.checkpoint
        connection.rollback()
        with connection.begin(), self.database.pinned(connection):
            noted = connection.scalars(sa.select(table.c.anchor).where(table.c.size == state.size).distinct()).all()
        return bool(noted) and all(
            anchor.uri in state.anchors and state.anchors[anchor.uri].size == state.size and anchor.uri in noted
            for anchor in self.anchors
        )

    def _note(
        self, connection: Connection, trail: Trail, checkpoint: Checkpoint, anchored: tuple[str, bytes] | None
    ) -> None:
        table = trail.checkpoint
        uri, token = anchored if anchored is not None else (None, None)
        values = {"size": checkpoint.size, "note": checkpoint.format(), "anchor": uri, "token": token}
        same = sa.select(table.c.id).where(table.c.size == checkpoint.size, table.c.note == values["note"])
        same = same.where(table.c.anchor.is_(None) if uri is None else table.c.anchor == uri).limit(1)
        connection.rollback()
        with connection.begin(), self.database.pinned(connection):
            if connection.scalar(same) is None:
                connection.execute(sa.insert(table), values)

    def _anchor(self, connection: Connection, trail: Trail, state: State, checkpoint: Checkpoint) -> None:
        """Give the checkpoint to every anchor, also if one of them fails."""
        failed: list[AnchorUnavailable] = []
        for anchor in self.anchors:
            known = state.anchors.get(anchor.uri)
            try:
                if known is not None and known.size == checkpoint.size:
                    self._note_again(connection, trail, anchor, checkpoint)
                    continue
                prove = partial(self._prove, connection, trail, checkpoint.size)
                anchored: Anchored = anchor.put(checkpoint, prove=prove)
            except AnchorUnavailable as error:
                failed.append(error)
                continue
            self._step("anchored")
            state = state.anchored(anchor.uri, anchored.checkpoint.size, anchored.digest)
            self.file.write(state)
            self._step("remembered")
            self._note(connection, trail, anchored.checkpoint, (anchor.uri, anchored.token))
        if failed:
            raise failed[0]

    def _note_again(self, connection: Connection, trail: Trail, anchor: Anchor, checkpoint: Checkpoint) -> None:
        """Write down what an anchor took, as it was killed before; a prune waits for that."""
        last = anchor.latest()
        if last is not None and (last.checkpoint.size, last.checkpoint.root) == (checkpoint.size, checkpoint.root):
            self._note(connection, trail, last.checkpoint, (anchor.uri, last.token))

    def _prove(self, connection: Connection, trail: Trail, size: int, old: int) -> Sequence[Digest]:
        """Give the proof, which a witness asks for, that the log of an older size is the beginning of this one."""
        connection.rollback()
        with connection.begin(), self.database.pinned(connection):
            return consistency_proof(old, size, NodesOfTiles(size, partial(read_tile, connection, trail)))
