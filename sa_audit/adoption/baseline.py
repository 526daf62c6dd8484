"""The rows that stood in a table before it was audited, carried into its history in batches.

Each batch is a transaction of its own: it locks the rows that it copies against changes (``FOR SHARE``), looks again
which of them have no history, and copies those.  A row that another transaction holds is left for later and never
waited for, so that no batch can be part of a deadlock.  Nothing is remembered between batches but what the history
says, so a run that was broken off is simply run again.

Imports notes, keyset, model, ddl, capture's clock, query, errors and SQLAlchemy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..capture import clock
from ..capture.person_keys import Entries
from ..capture.protecting import protected_rows, require_keys
from ..capture.recording import entry_alone
from ..ddl import Backend, backend_for
from ..ddl.backend import CLAIMS, Entry, Target, internal
from ..ddl.events import schemas_of
from ..errors import ActorRequired, CaptureMissing, ConfigurationError, Conflict
from ..model import AuditedTable, RecordedColumn
from ..model.tables import BASELINE_BEGUN, BASELINE_DONE
from ..model.types import UTCDateTime
from ..query.before import reader_for
from ..query.entity import subject_of
from .keyset import Key, among, behind, unrecorded
from .notes import newest_note, note

BATCH: Final = 1000
PATIENCE: Final = 60.0
PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one batch did.

    Args:
        table: the audited table's full name.
        rows: how many rows it wrote.
        locked: the seconds for which it held its locks, commit included.
    """

    table: str
    rows: int
    locked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselined:
    """What was carried into one table's history.

    Args:
        table: the audited table's full name.
        rows: how many rows were written; those that had history already don't count.
        batches: in how many transactions.
        longest: the seconds for which one of them held its locks at the most.
    """

    table: str
    rows: int
    batches: int
    longest: float


def baseline(
    engine: Engine,
    entity: Any,
    *,
    actor: str | None = None,
    reason: str | None = None,
    batch: int = BATCH,
    patience: float = PATIENCE,
    progress: Callable[[Step], None] | None = None,
) -> list[Baselined]:
    """Record the rows that stand in a table and have no history yet, as found and not as made (``B``).

    Writers go on meanwhile: a row that one of them holds is left for later, and one that he has recorded by then is
    left out, so that no baseline ever follows a change.  Once no row lacks history, the trail notes it, and
    :func:`sa_audit.as_of` accepts moments from then on; until then it refuses them.

    Run it as the owner of the trail.  It can be killed and run again at any time.

    Args:
        engine: of the database.
        entity: a mapped class (all tables of its hierarchy are carried in), a mapper, or an audited table.
        actor: who carries it in; needed where the configuration requires an actor.
        reason: why, if there is more to say than that it is a baseline.
        batch: how many rows a transaction carries in at the most.
        patience: the seconds to wait for rows that other transactions hold, once all others are carried in.
        progress: called after each batch.

    Returns:
        What was done, for each table.

    Raises:
        ActorRequired: without an actor, where the configuration requires one.
        ConfigurationError: for a batch below 1, or a table without primary key.
        NotAudited: if nothing of the kind is audited.
        CaptureMissing: if the database has no history of it.
        Conflict: if other transactions held some rows all the time; what could be carried in is.
    """
    if batch < 1:
        raise ConfigurationError(f"batch={batch!r}: give the number of rows in a transaction, from 1 on")
    tables = [part.audited for part in subject_of(entity).parts]
    for audited in tables:
        require_keys(audited)
        _check(engine, audited, actor)
    claims = dict.fromkeys(CLAIMS) | {"actor": actor}
    return [_Run(engine, audited, claims, reason, batch, patience, progress).run() for audited in tables]


def _check(engine: Engine, audited: AuditedTable, actor: str | None) -> None:
    if audited.trail.configuration.require_actor and not actor:
        raise ActorRequired(f"a baseline of {audited.table.fullname} needs an actor: say who carries its rows in")
    if not audited.table.primary_key.columns:
        raise ConfigurationError(
            f"{audited.table.fullname} has no primary key, so its rows can't be taken batch by batch: "
            "let the migration record them"
        )
    with engine.connect() as connection:
        schema = schemas_of(connection).get(audited.history.schema, audited.history.schema)
        if not sa.inspect(connection).has_table(audited.history.name, schema=schema):
            raise CaptureMissing(
                f"the database has no history of {audited.table.fullname}: it lacks {audited.history.fullname}; "
                "run the migration first"
            )
        _check_forms(connection, audited)


def _check_forms(connection: Connection, audited: AuditedTable) -> None:
    """Refuse rows that hold values in the clear where the table itself shall hold the form of the history.

    Raises:
        ConfigurationError: naming a column.
    """
    for column in audited.stored:
        value = sa.type_coerce(column.source, sa.Text())
        form = "aes-256-gcm:%" if column.encrypted else "hmac-sha256:%"
        clear = sa.select(sa.literal(1)).where(value.is_not(None), value.not_like(form)).limit(1)
        if internal(connection, clear).first() is not None:
            raise ConfigurationError(
                f"column {column.source} has the policy {column.policy!r} and holds values in the clear: with trigger "
                "capture they would be copied into the history as they are; make a new column with the policy, and "
                "copy the values over through the application's models"
            )


class _Run:
    """The baseline of one table."""

    def __init__(
        self,
        engine: Engine,
        audited: AuditedTable,
        claims: dict[str, Any],
        reason: str | None,
        batch: int,
        patience: float,
        progress: Callable[[Step], None] | None,
    ) -> None:
        self.audited = audited
        self.rows = audited.table.alias("t")
        self.key = [self.rows.c[column.key] for column in audited.key]
        self.backend: Backend = _backend(engine)
        self._among = among(self.backend, audited, "t")
        isolation = self.backend.fresh_isolation
        self.engine = engine.execution_options(isolation_level=isolation) if isolation else engine
        said = f"sa_audit: baseline of {audited.table.fullname}"
        self.claims = {**claims, "reason": f"{said}, {reason}" if reason else said}
        self.batch = batch
        self.patience = patience
        self.progress = progress
        self.steps: list[Step] = []

    def run(self) -> Baselined:
        """Go through the keys, then wait for what was left, and note that all is there."""
        self._begin()
        while True:
            held = [key for keys in self._chunks() for key in self._carry_in(keys)]
            self._wait_for(held)
            if self._finish():
                break
        return Baselined(
            table=self.audited.table.fullname,
            rows=sum(step.rows for step in self.steps),
            batches=len(self.steps),
            longest=max((step.locked for step in self.steps), default=0.0),
        )

    # -- the notes -----------------------------------------------------------------

    def _begin(self) -> None:
        """Note the beginning, unless the migration did; a history with rows is one of a table that was audited."""
        history = self.audited.history
        with self.engine.begin() as connection:
            if newest_note(connection, self.audited, BASELINE_BEGUN, BASELINE_DONE) is not None:
                return
            if internal(connection, sa.select(history.c.audit_id).limit(1)).first() is None:
                note(connection, self.audited, BASELINE_BEGUN)

    def _finish(self) -> bool:
        """Note the end, unless a row came meanwhile that nobody recorded."""
        with self.engine.begin() as connection:
            self.backend.lock_writer(connection, self._target(connection))
            if self._lacking(connection, sa.true(), 1):
                return False
            if newest_note(connection, self.audited, BASELINE_BEGUN, BASELINE_DONE) == BASELINE_BEGUN:
                note(connection, self.audited, BASELINE_DONE)
        return True

    # -- the rows ------------------------------------------------------------------

    def _chunks(self) -> Iterator[list[Key]]:
        """Give the keys of rows without history in their order, read without locks."""
        condition: sa.ColumnElement[bool] = sa.true()
        while True:
            with self.engine.connect() as connection:
                keys = self._lacking(connection, condition, self.batch)
            if keys:
                yield keys
            if len(keys) < self.batch:
                return
            condition = behind(self.key, keys[-1])

    def _lacking(self, connection: Connection, condition: Any, limit: int, keys: Sequence[Key] = ()) -> list[Key]:
        """Give the keys of rows without history that meet a condition, in their order."""
        statement = (
            sa.select(*self.key)
            .where(condition, unrecorded(self.audited, self.rows, reader_for(connection)))
            .order_by(*self.key)
            .limit(limit)
        )
        return [tuple(row) for row in internal(connection, statement, self._parameters(keys) if keys else None)]

    def _carry_in(self, keys: Sequence[Key]) -> list[Key]:
        """Copy those of the rows that have no history yet; give the keys of those that others hold."""
        with self.engine.begin() as connection:
            target = self._target(connection)
            self.backend.lock_writer(connection, target)
            start = time.perf_counter()
            locked = self._lock(connection, keys)
            rows = self._lacking(connection, self._among, len(locked), locked) if locked else []
            if rows:
                entry = self.backend.insert_entry(connection, target, self.claims, None, clock.now())
                document = None
                if self.audited.protected:
                    alone = Entries(lambda: entry, lambda own: entry_alone(own, target))
                    document = protected_rows(connection, self.backend, target, rows, alone)
                internal(connection, self._copy(entry, document), self._parameters(rows))
        if rows:
            step = Step(table=self.audited.table.fullname, rows=len(rows), locked=time.perf_counter() - start)
            self.steps.append(step)
            if self.progress is not None:
                self.progress(step)
        free = set(locked)
        return [key for key in keys if key not in free]

    def _lock(self, connection: Connection, keys: Sequence[Key]) -> list[Key]:
        """Lock the rows that nobody else holds, as they are now; one that is gone counts as locked."""
        query = self._looked_up(sa.select(*self.key).where(self._among))
        locking = query.with_for_update(read=True, skip_locked=True) if self.backend.locks_rows else query
        locked = {tuple(row) for row in internal(connection, locking, self._parameters(keys))}
        rest = [key for key in keys if key not in locked]
        there = {tuple(row) for row in internal(connection, query, self._parameters(rest))} if rest else set()
        return [key for key in keys if key in locked or key not in there]

    def _parameters(self, keys: Sequence[Key]) -> dict[str, Any]:
        return {"keys": self.backend.keys_value(self.audited, keys)}

    def _looked_up(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Have rows looked up by key, so that no others are locked."""
        hint = self.backend.look_up(self.audited).strip()
        return query.with_hint(self.rows, hint) if hint else query

    def _copy(self, entry: Entry, document: str | None) -> sa.Insert:
        history, recorded = self.audited.history, self.audited.recorded
        query = sa.select(
            sa.literal(entry.id, sa.BigInteger()),
            sa.literal(entry.recorded_at, UTCDateTime()),
            sa.literal("B", sa.String()),
            sa.literal(1, sa.Integer()),
            *(self._value(column) for column in recorded),
        ).where(self._among)
        own = [history.c[name] for name in ("audit_tx", "audit_at", "audit_op", "audit_flush")]
        columns = [*own, *(column.recorded for column in recorded if column.recorded is not None)]
        query = self._looked_up(query).order_by(*self.key)
        if document is not None:
            query = self.backend.with_document(query, document)
        return sa.insert(history).from_select(columns, query, include_defaults=False)

    def _value(self, column: RecordedColumn) -> Any:
        if not column.protected:
            return self.rows.c[column.source.key]
        member = f"n{self.audited.protected.index(column)}"
        return sa.text(self.backend.protected_member(self.audited, "t", member))

    def _wait_for(self, held: list[Key]) -> None:
        """Try the rows that others hold again and again."""
        until = time.monotonic() + self.patience
        while held:
            if time.monotonic() >= until:
                raise Conflict(
                    f"{len(held)} rows of {self.audited.table.fullname}, such as {held[0]!r}, were held by other "
                    f"transactions for {self.patience:g} seconds and have no baseline yet: run it again"
                )
            time.sleep(PAUSE)
            held = [
                key for start in range(0, len(held), self.batch) for key in self._carry_in(held[start:][: self.batch])
            ]

    def _target(self, connection: Connection) -> Target:
        return Target(self.audited, schemas_of(connection))


def _backend(engine: Engine) -> Backend:
    with engine.connect() as connection:
        return backend_for(connection.dialect)
