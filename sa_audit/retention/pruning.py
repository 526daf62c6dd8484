"""``prune``: what was asked for and anchored goes; what is due now is carried forward and asked for.

Imports the room's own parts, model, ddl, capture, query, catalog, errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from ..capture import clock
from ..capture.context import current_context, require
from ..capture.context_policy import claims_alone
from ..catalog import CatalogDatabase, by_itself, catalog_for, trail_at
from ..catalog.prunes import ASKED, Reach, bound_of, granted_reach, place_text, read_prunes, requests
from ..ddl import backend_for
from ..ddl.backend import Target, internal
from ..ddl.events import schemas_of
from ..errors import CaptureMissing, ConfigurationError
from ..model import AuditedTable, Trail, complete
from ..model.holds import held_rows
from ..query.past_database import past_database
from ..query.pruned import places_of
from .carrying import Carrying
from .erasing import Erasing
from .planning import Plan, plan

PATIENCE: Final = dt.timedelta(days=1)
"""How long a request that the sealer has not fulfilled stands before another one takes its place."""
PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune did with the history of one table, or would do.

    Args:
        table: the audited table's full name.
        cutoff: rows recorded from then on stay (UTC).
        carried: how many rows' last words were carried forward.
        held: how many rows are old, and kept by a hold.
        kept: how many rows are old and stay, because they say what was there at the cutoff.
        asked: how many rows were asked for now: the sealer has to say so in the log, and an anchor to take it.
        waiting: how many rows were asked for before, and still wait for the sealer or an anchor.
        erased: how many rows went.
        partitions: the partitions that were dropped whole, by their names.
    """

    table: str
    cutoff: dt.datetime
    carried: int = 0
    held: int = 0
    kept: int = 0
    asked: int = 0
    waiting: int = 0
    erased: int = 0
    partitions: tuple[str, ...] = ()


def prune(
    engine: Engine, *, dry_run: bool = False, timeout: float = 0.0, metadata: Any = None, batch: int | None = None
) -> list[Pruned]:
    """Take away the history that is older than the :class:`Retention` of its model, in two steps.

    The first call carries the last word on every row that is there forward, as a baseline, and asks for what is older,
    but for what was there at the cutoff and has changed since: every moment since the cutoff can still be asked about.
    The sealer looks whether it may go, and says so in the log; an anchor takes that.  Only then a further call (or the
    same one, within ``timeout``) deletes the rows.  A call that finds rows to delete does not ask for others.
    It may be broken off anywhere and run again.

    The trail's entries (who, when, why), events and reads stay.  :func:`sa_audit.verify` accepts what was pruned so,
    and nothing else that is missing.

    Run it as an account that owns the trail, and may read whatever the holds name and lock rows of the audited tables.

    Args:
        engine: of the database.
        dry_run: only say what is due, and change nothing.
        timeout: for how many seconds to wait for the sealer and an anchor, and go on.
        metadata: a MetaData or base, where several trails are known to stand in the database.
        batch: how many rows a transaction deletes at the most.

    Returns:
        What was done with each history whose model has a retention.

    Raises:
        ActorRequired: without an actor in the context, who stands in the log as the approver; likewise
            ``ReasonRequired``.
        ConfigurationError: if no model has a retention, or a hold can't be asked.
        CaptureMissing: if the database lacks the trail's tables.
        IntegrityFinding: if ``audit_prune`` does not say what the log says.
    """
    engine = by_itself(engine)
    with engine.connect() as connection:
        trail = trail_at(connection, metadata)
        complete(trail.metadata)
        tables = [audited for audited in trail.audited.values() if audited.options.retention is not None]
        if not tables:
            raise ConfigurationError(
                "no model has a retention, so nothing is ever pruned: give AuditOptions(retention=Retention(keep=...))"
            )
        _require_table(connection, trail)
    for audited in tables:
        held_rows(audited)
    if not dry_run:
        require(current_context(), actor=True, reason=True)
    with engine.connect() as connection:
        claims = claims_alone(connection, Target(tables[0], schemas_of(connection)))
    runs = [_Run(engine, catalog_for(engine.dialect), audited, claims, batch) for audited in tables]
    if dry_run:
        return [run.look() for run in runs]
    done = [run.go() for run in runs]
    until = time.monotonic() + timeout
    while any(each.asked or each.waiting for each in done) and time.monotonic() < until:
        time.sleep(PAUSE)
        done = [run.go_on(each) for run, each in zip(runs, done, strict=True)]
    return done


def _require_table(connection: sa.Connection, trail: Trail) -> None:
    table = trail.prune
    assert table is not None  # noqa: S101 - it comes with the first retention
    try:
        internal(connection, sa.select(table.c.leaf).limit(1))
    except DBAPIError as error:
        if not past_database(connection.dialect).is_missing_table(error):
            raise
        raise CaptureMissing(
            f"the database has no {table.fullname}, without which nothing can be pruned: run the migration first"
        ) from error


class _Run:
    """The prune of one history."""

    def __init__(
        self,
        engine: Engine,
        database: CatalogDatabase,
        audited: AuditedTable,
        claims: Mapping[str, Any],
        batch: int | None,
    ) -> None:
        self.engine = engine
        self.database = database
        self.audited = audited
        self.claims = claims
        self.erasing = Erasing(engine, database, audited, claims, *(() if batch is None else (batch,)))

    def look(self) -> Pruned:
        """Say what is due."""
        ready, waiting, cutoff = self._standing()
        with self.engine.connect() as connection:
            going = self.erasing.count(connection, ready)
        found = self._plan(carrying=True)
        return Pruned(
            table=self.audited.table.fullname,
            cutoff=cutoff,
            carried=found.carried,
            held=found.held,
            kept=found.kept,
            asked=0 if waiting else found.rows,
            waiting=waiting,
            erased=going,
        )

    def go(self) -> Pruned:
        """Take away what may go; if there was nothing, and nothing is waiting, ask for what is due."""
        ready, waiting, cutoff = self._standing()
        erased, partitions = self.erasing.run(ready)
        done = Pruned(
            table=self.audited.table.fullname, cutoff=cutoff, waiting=waiting, erased=erased, partitions=partitions
        )
        if waiting or erased:
            return done
        with self.engine.connect() as connection:
            bound = bound_of(connection, self.audited, cutoff)
        carried = 0
        if bound is not None:
            said = f"sa_audit: carried forward by a prune, {self.claims.get('reason')}"
            carried = Carrying(self.engine, self.audited, bound, {**self.claims, "reason": said}).run()
        found = self._plan(carrying=False)
        if found.ranges:
            self._ask(found)
        return replace(done, carried=carried, held=found.held, kept=found.kept, asked=found.rows)

    def go_on(self, before: Pruned) -> Pruned:
        """Take away what may go by now."""
        ready, waiting, _cutoff = self._standing()
        erased, partitions = self.erasing.run(ready)
        return replace(
            before,
            asked=0,
            waiting=waiting,
            erased=before.erased + erased,
            partitions=(*before.partitions, *partitions),
        )

    def _standing(self) -> tuple[list[Any], int, dt.datetime]:
        """Give the ranges that may go, how many rows wait for the sealer or an anchor, and the present cutoff."""
        with self.engine.connect() as connection:
            now = past_database(connection.dialect).now(connection)
            ready, granted = self.erasing.due(connection)
            place = place_text(connection, self.database, self.audited.history)
            asked = [
                each
                for each in requests(connection, self.database, self.audited.trail)
                if each.table == place and now - each.at < PATIENCE
            ]
        waiting = sum(each.count for each in granted) + sum(each.rows for each in asked)
        retention = self.audited.options.retention
        assert retention is not None  # noqa: S101 - the caller has looked
        return ready, waiting, now - retention.keep

    def _plan(self, *, carrying: bool) -> Plan:
        with self.engine.connect() as connection:
            now = past_database(connection.dialect).now(connection)
            place = place_text(connection, self.database, self.audited.history)
            prunes = read_prunes(connection, self.audited.trail, place)
            return plan(connection, self.database, self.audited, now, prunes, carrying=carrying)

    def _ask(self, found: Plan) -> None:
        """Leave the event by which the sealer knows what is asked for."""
        retention = self.audited.options.retention
        assert retention is not None  # noqa: S101 - the caller has looked
        hold = held_rows(self.audited)
        policy = f"keep {retention.keep}" + (f", hold {hold}" if hold is not None else "")
        with self.engine.begin() as connection:
            backend = backend_for(connection.dialect)
            target = Target(self.audited, schemas_of(connection))
            backend.lock_writer(connection, target)
            reach = self._reach(connection, found)
            entry = backend.insert_entry(connection, target, self.claims, None, clock.now())
            data = {
                "history": place_text(connection, self.database, self.audited.history),
                "ranges": [[first, last] for first, last, _count in found.ranges],
                "rows": found.rows,
                "policy": policy,
                "before": found.cutoff.isoformat(),
                "reach": {"since": reach.since.isoformat(), "through": reach.through},
            }
            values = {
                "action": ASKED,
                "entity": None,
                "table_name": self.audited.table.fullname,
                "identity": None,
                "data": data,
                "durable": 0,
            }
            backend.insert_event(connection, self.audited.trail, entry, values)

    def _reach(self, connection: sa.Connection, found: Plan) -> Reach:
        """Give back to which moment the table can be travelled to when the ranges of a plan are gone."""
        history = self.audited.history
        numbers = sa.func.coalesce(sa.func.max(history.c.audit_txid), sa.func.max(history.c.audit_tx))
        through = internal(connection, sa.select(numbers).where(history.c.audit_id < found.bound)).scalar_one()
        before = granted_reach(connection, self.audited.trail, places_of(connection, self.audited))
        return Reach(since=found.cutoff, through=through).and_(before[1] if before is not None else None)
