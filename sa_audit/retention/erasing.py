"""The second step: rows go that a leaf of the log names, once an anchor has taken it.

Whole partitions are dropped where a history has them; else the rows are deleted in batches, which the guards let pass
inside of the range alone.  Each transaction leaves an event that says what went with it, so that a run that was broken
off is simply run again.  Imports the room's own parts, model, ddl, capture, catalog, proof, errors and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..capture import clock
from ..catalog import CatalogDatabase, block_of_leaf
from ..catalog.folding import RangeFold, fold_ranges
from ..catalog.partitions import read_partitions
from ..catalog.prunes import DONE, Prune, anchored_size, place_text, read_prunes
from ..ddl import backend_for
from ..ddl.backend import OWN, Target, internal
from ..ddl.events import schemas_of
from ..errors import IntegrityFinding
from ..model import AuditedTable
from ..proof.entries import PruneEntry, decode_entry
from .planning import is_held

BATCH: Final = 20_000
"""How many rows a transaction deletes at the most."""
NAMED: Final = 1_000
"""How many ids a statement names where a range can't be deleted as a whole."""
LOCK_TIMEOUT: Final = 5000
"""How long a partition's drop waits for readers of the history, in milliseconds."""


class Erasing:
    """Takes away what may go of one history.

    Args:
        engine: of the database, as an account that owns the history.
        database: how to read it.
        audited: whose history.
        claims: who takes it away, and why.
        batch: how many rows a transaction deletes at the most.
    """

    def __init__(
        self,
        engine: Engine,
        database: CatalogDatabase,
        audited: AuditedTable,
        claims: Mapping[str, Any],
        batch: int = BATCH,
    ) -> None:
        self.engine = engine
        self.database = database
        self.audited = audited
        self.claims = claims
        self.batch = batch

    def due(self, connection: Connection) -> tuple[list[Prune], list[Prune]]:
        """Give the ranges with rows in them: those that an anchor has taken, and those that wait for one."""
        place = place_text(connection, self.database, self.audited.history)
        anchored = anchored_size(connection, self.audited.trail)
        ready: list[Prune] = []
        waiting: list[Prune] = []
        for each in read_prunes(connection, self.audited.trail, place):
            if _first(connection, self.audited.history, each.first, each.last) is not None:
                (ready if each.leaf < anchored else waiting).append(each)
        return ready, waiting

    def run(self, ready: Sequence[Prune]) -> tuple[int, tuple[str, ...]]:
        """Take away the rows of ranges; give how many, and the partitions that were dropped.

        Raises:
            IntegrityFinding: if ``audit_prune`` does not say what the log says; nothing of it is taken away.
        """
        with self.engine.connect() as connection:
            for each in ready:
                self._require_leaf(connection, each)
            kept = self.held(connection, ready)
        dropped = self._partitions(ready, kept)
        erased = sum(count for _name, count in dropped)
        open_: list[tuple[Prune, list[int], bool]] = []
        rows = 0
        for part in self._parts(self._left(ready) if dropped else ready, kept):
            open_.append(part)
            rows += len(part[1])
            if rows >= self.batch:
                erased += self._delete(open_)
                open_, rows = [], 0
        return erased + (self._delete(open_) if open_ else 0), tuple(name for name, _count in dropped)

    def _left(self, ready: Sequence[Prune]) -> list[Prune]:
        """Give the ranges in which rows still stand."""
        history = self.audited.history
        with self.engine.connect() as connection:
            return [each for each in ready if _first(connection, history, each.first, each.last) is not None]

    def _require_leaf(self, connection: Connection, prune: Prune) -> None:
        block = block_of_leaf(connection, self.audited.trail, prune.leaf)
        entries = block.entries() if block is not None else []
        position = prune.leaf - (block.first if block is not None else 0)
        entry = decode_entry(entries[position]) if position < len(entries) else None
        said = (prune.first, prune.last, prune.count, prune.root)
        if not isinstance(entry, PruneEntry) or said != (
            *(entry.first_row, entry.last_row, entry.count),
            entry.root.hex(),
        ):
            raise IntegrityFinding(
                f"audit_prune says that rows {prune.first} to {prune.last} of {prune.table} may go, and leaf "
                f"{prune.leaf} of the log does not: nothing is deleted; run sa_audit.verify()"
            )

    # -- rows ------------------------------------------------------------------------------

    def held(self, connection: Connection, ready: Sequence[Prune]) -> set[int]:
        """Give the rows of ranges that a hold keeps by now, and the truncates behind them."""
        rows = self.audited.history.alias("r")
        condition = is_held(connection, self.audited, rows)
        if condition is None:
            return set()
        within = [rows.c.audit_id.between(each.first, each.last) for each in ready]
        kept = {row for each in within for row in _ids(connection, rows, sa.and_(each, condition))}
        if kept:
            emptied = sa.and_(rows.c.audit_op == "T", rows.c.audit_id > min(kept))
            kept.update(row for each in within for row in _ids(connection, rows, sa.and_(each, emptied)))
        return kept

    def count(self, connection: Connection, ready: Sequence[Prune]) -> int:
        """Give how many rows would go."""
        rows = self.audited.history.alias("r")
        kept = self.held(connection, ready)
        there = sa.select(sa.func.count()).select_from(rows)
        standing = (there.where(rows.c.audit_id.between(each.first, each.last)) for each in ready)
        return sum(int(internal(connection, each).scalar_one()) for each in standing) - len(kept)

    def _parts(self, ready: Sequence[Prune], kept: set[int]) -> Iterator[tuple[Prune, list[int], bool]]:
        """Yield the rows that have to go, some at a time, and whether they are all between the first and the last."""
        for prune in ready:
            fold = RangeFold(prune.first, prune.last, prune.leaf)
            with self.engine.connect() as connection:
                number = self._number(connection, prune)
                fold_ranges(connection, self.audited.trail, number, [fold])
            sealed = sorted(set(fold.ids))
            for start in range(0, len(sealed), self.batch):
                ids = sealed[start : start + self.batch]
                with self.engine.connect() as connection:
                    there = _present(connection, self.audited.history, ids[0], ids[-1])
                own = set(ids) - kept
                left = [row for row in there if row in own]
                if left:
                    yield prune, left, len(left) == len(there)

    def _number(self, connection: Connection, prune: Prune) -> int:
        block = block_of_leaf(connection, self.audited.trail, prune.leaf)
        entry = decode_entry(block.entries()[prune.leaf - block.first]) if block is not None else None
        return entry.table if isinstance(entry, PruneEntry) else -1

    def _delete(self, parts: Sequence[tuple[Prune, list[int], bool]]) -> int:
        history = self.audited.history
        with self.engine.begin() as connection:
            backend = backend_for(connection.dialect)
            backend.lock_writer(connection, Target(self.audited, schemas_of(connection)))
            deleted = 0
            for _prune, ids, whole in parts:
                if whole:
                    condition = [history.c.audit_id.between(ids[0], ids[-1])]
                else:
                    named = (ids[start : start + NAMED] for start in range(0, len(ids), NAMED))
                    condition = [history.c.audit_id.in_(part) for part in named]
                deleted += sum(internal(connection, sa.delete(history).where(each)).rowcount for each in condition)
            expected = sum(len(ids) for _prune, ids, _whole in parts)
            if deleted > expected:
                raise IntegrityFinding(
                    f"{deleted} rows of {history.fullname} would have gone, and {expected} have a leaf in the log that "
                    "lets them: nothing is deleted; run it again"
                )
            self._tell(connection, [(prune, len(ids)) for prune, ids, _whole in parts], None)
        return deleted

    # -- partitions ------------------------------------------------------------------------

    def _partitions(self, ready: Sequence[Prune], kept: set[int]) -> list[tuple[str, int]]:
        """Drop the partitions of which every row is in a range and has its leaf; give their names and sizes."""
        if not self.audited.partitioned or self.engine.dialect.name != "postgresql" or not ready:
            return []
        with self.engine.connect() as connection:
            found = next(
                (one for one in read_partitions(connection, self.audited.trail) if one.audited is self.audited), None
            )
            free = (each for each in ready if not any(each.first <= row <= each.last for row in kept))
            whole = [prune for prune in free if self._is_whole(connection, prune)]
        dropped = []
        for part in found.partitions or () if found is not None else ():
            count = self._drop(part.name, whole) if whole and not part.default else 0
            if count:
                dropped.append((part.name, count))
        return dropped

    def _is_whole(self, connection: Connection, prune: Prune) -> bool:
        """Tell whether as many rows stand in a range as have leaves: then all of them have."""
        history = self.audited.history
        count = sa.select(sa.func.count()).where(history.c.audit_id.between(prune.first, prune.last))
        return bool(internal(connection, count).scalar_one() == prune.count)

    def _drop(self, name: str, whole: Sequence[Prune]) -> int:
        ranges = " OR ".join(f"audit_id BETWEEN {prune.first} AND {prune.last}" for prune in whole)
        with self.engine.begin() as connection:
            _run(connection, f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            bounds = f"SELECT count(*), count(*) FILTER (WHERE {ranges}) FROM {name}"
            total, inside = _run(connection, bounds).one()
            if not total or total != inside:
                return 0
            _run(connection, f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
            if _run(connection, bounds).one() != (total, inside):
                return 0
            _run(connection, f"DROP TABLE {name}")
            self._tell(connection, [(prune, 0) for prune in whole], (name, total))
        return int(total)

    # -- the event -------------------------------------------------------------------------

    def _tell(
        self, connection: Connection, parts: Sequence[tuple[Prune, int]], partition: tuple[str, int] | None
    ) -> None:
        """Leave an event that says what goes with this transaction."""
        backend = backend_for(connection.dialect)
        target = Target(self.audited, schemas_of(connection))
        entry = backend.insert_entry(connection, target, self.claims, None, clock.now())
        data: dict[str, Any] = {"history": self.audited.history.fullname}
        if partition is not None:
            data |= {"partition": partition[0], "rows": partition[1]}
        else:
            data |= {"leaves": [prune.leaf for prune, _rows in parts], "rows": sum(rows for _prune, rows in parts)}
        values = {
            "action": DONE,
            "entity": None,
            "table_name": self.audited.table.fullname,
            "identity": None,
            "data": data,
            "durable": 0,
        }
        backend.insert_event(connection, self.audited.trail, entry, values)


def _first(connection: Connection, history: sa.Table, first: int, last: int) -> int | None:
    statement = sa.select(history.c.audit_id).where(history.c.audit_id.between(first, last)).limit(1)
    found: int | None = internal(connection, statement).scalar()
    return found


def _present(connection: Connection, history: sa.Table, first: int, last: int) -> list[int]:
    return sorted(_ids(connection, history, history.c.audit_id.between(first, last)))


def _ids(connection: Connection, rows: Any, condition: sa.ColumnElement[bool]) -> list[int]:
    return list(internal(connection, sa.select(rows.c.audit_id).where(condition)).scalars())


def _run(connection: Connection, sql: str) -> Any:
    return connection.exec_driver_sql(sql.replace("%", "%%"), execution_options=OWN)
