"""A whole verification, pass after pass.

Imports the room's own parts, model, proof, anchors and catalog; never the sealer or what records.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..anchors import Anchor
from ..catalog import by_itself, trail_at
from ..catalog.log import integer
from ..errors import ConfigurationError
from ..model.history import Trail
from ..proof.checkpoint import Checkpoint
from ..proof.keys import Verifier
from ..proof.policy import Policy
from .catalog import check_catalog
from .checkpoints import Collected, Judge, read_anchors, read_notes
from .continuity import Comparison, comparisons
from .database import VerifierDatabase, verifier_for
from .links import LinkPass
from .log import GROUP, Log, LogPass
from .plans import LiveTable, live_tables, plans
from .prunes import check_prunes
from .report import Findings, Report
from .rows import Task, excuses_by_table
from .unsealed import UnsealedPass
from .workers import Workers, compare_all, processes

Progress = Callable[[str, int, int | None], None]
"""Called with what is being checked ("log", "rows", "tables"), how much of it is done, and of how much (or None)."""


def run_verification(
    engine: Engine,
    verifier: Verifier | Policy,
    *,
    anchors: Sequence[Anchor],
    since: Checkpoint | None,
    workers: int,
    progress: Progress | None,
    metadata: Any,
) -> Report:
    """Verify; see :func:`sa_audit.verify`."""
    if workers < 1:
        raise ConfigurationError(f"workers={workers!r}: give 1 or more")
    policy = verifier if isinstance(verifier, Policy) else Policy.of(verifier)
    findings = Findings()
    collected = read_anchors(anchors, findings)
    verification = _Verification(by_itself(engine), policy, findings, collected, since, progress or _silent)
    return verification.run(workers, metadata)


class _Verification:
    """One verification."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        findings: Findings,
        collected: Collected,
        since: Checkpoint | None,
        progress: Progress,
    ) -> None:
        self._engine = engine
        self._database: VerifierDatabase = verifier_for(engine)
        self._policy = policy
        self._findings = findings
        self._collected = collected
        self._since = since
        self._progress = progress

    def run(self, workers: int, metadata: Any) -> Report:
        with self._engine.connect() as connection:
            trail = trail_at(connection, metadata)
        with self._database.reading(self._engine) as connection:
            if self._lacks_log(connection, trail):
                return self._unchecked()
            count = workers if workers > 1 and self._last_block(connection, trail) >= GROUP else 1
            with processes(self._engine, count) as others:
                return self._verify(connection, trail, others)

    def _lacks_log(self, connection: Connection, trail: Trail) -> bool:
        """Look for the log's own tables, without which nothing can be checked; one that is gone is a finding."""
        catalog, lacks = self._database.catalog, False
        for table in (trail.block, trail.sealed, trail.checkpoint):
            place = (catalog.schema(connection, table), str(table.name))
            if not catalog.columns(connection, *place):
                self._findings.add("log-missing", table.name, None, f"table {table.fullname}", "none")
                lacks = True
        return lacks

    def _unchecked(self) -> Report:
        return Report(
            findings=self._findings.all(),
            checked=0,
            checkpoint=None,
            sealed_until=None,
            anchored_until=None,
            unsealed=0,
        )

    def _verify(self, connection: Connection, trail: Trail, others: Workers | None) -> Report:
        if others is not None:
            others.begin(self._comparisons(connection, live_tables(self._database.catalog, connection, trail, Log())))
        log = self._log(connection, trail)
        judged = Judge(self._policy, log, self._findings).judge(self._collected, held=self._since)
        log = self._signed_part(connection, trail, log, judged.signed)
        tables = live_tables(self._database.catalog, connection, trail, log)
        since = 0 if self._since is None else self._since.size
        log.excuses += check_prunes(connection, self._database.catalog, trail, log, self._findings, since=since)
        anchored = judged.anchored.size if judged.anchored is not None else 0
        task = Task(
            blocks=self._name(connection, trail, "audit_block"),
            plans=plans(log, tables, self._findings),
            excuses=excuses_by_table(log.excuses, anchored=anchored if self._collected.anchors else None),
        )
        checked = compare_all(connection, self._database, task, log, self._findings, others, self._progress)
        unsealed = self._tables(connection, trail, log, tables)
        self._progress("continuity", 0, None)
        if others is not None:
            others.end(self._findings)
        else:
            for comparison in self._comparisons(connection, tables):
                comparison.run(connection, self._findings)
        changes = check_catalog(connection, self._database.catalog, trail, log, self._findings, since=since)
        return Report(
            findings=self._findings.all(),
            checked=checked,
            checkpoint=judged.last,
            sealed_until=_sealed_at(log, judged.last),
            anchored_until=_sealed_at(log, judged.anchored),
            unsealed=unsealed,
            since=since,
            since_sealed_until=_sealed_at(log, self._since),
            changes=changes,
        )

    def _log(self, connection: Connection, trail: Trail) -> Log:
        read_notes(connection, trail, self._collected, self._findings)
        sizes = self._collected.sizes()
        since = 0
        if self._since is not None:
            since = self._since.size
            sizes.add(since)
        passing = LogPass(self._findings, sizes, since=since, progress=lambda done: self._progress("log", done, None))
        return passing.run(connection, trail)

    def _signed_part(self, connection: Connection, trail: Trail, log: Log, signed: int) -> Log:
        """Give the log as far as it is signed; what stands behind was found, and counts for nothing.

        Anybody who may write the log can append leaves: they make no row a sealed one, and excuse none that is gone.
        """
        if not 0 < signed < log.size:
            return log
        since = 0 if self._since is None else self._since.size
        return LogPass(Findings(), (), since=since, until=signed).run(connection, trail)

    def _tables(self, connection: Connection, trail: Trail, log: Log, tables: list[LiveTable]) -> int:
        """Check what no leaf speaks of: rows without one, and how rows hang together."""
        self._progress("tables", 0, None)
        epochs = self._name(connection, trail, "audit_epoch")
        entries = next((each for each in tables if each.sealed and each.sealed.role == "transaction"), None)
        number = None if entries is None else entries.number
        passing = UnsealedPass(self._database, log, epochs=epochs, entries=number)
        unsealed = passing.count(connection, tables, self._findings)
        LinkPass(self._database.catalog, entries).run(connection, tables, self._findings)
        return unsealed

    def _comparisons(self, connection: Connection, tables: list[LiveTable]) -> list[Comparison]:
        return list(comparisons(connection, self._database.catalog, tables))

    def _last_block(self, connection: Connection, trail: Trail) -> int:
        """Give where the last block says that it begins, by which only is decided whether other processes pay."""
        last = sa.func.max(trail.block.c.first_leaf, type_=sa.types.NullType())
        return integer(connection.scalar(sa.select(last)))

    def _name(self, connection: Connection, trail: Trail, name: str) -> str:
        catalog = self._database.catalog
        return catalog.name_of(catalog.schema(connection, trail.transaction), name)


def _sealed_at(log: Log, checkpoint: Checkpoint | None) -> dt.datetime | None:
    mark = log.mark_at(checkpoint.size) if checkpoint is not None else None
    return None if mark is None else _EPOCH + dt.timedelta(microseconds=mark.sealed_at)


def _silent(phase: str, done: int, total: int | None) -> None:
    """Say nothing."""


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
