"""The last word on every row that is there, carried forward before what is older goes.

Each batch is a transaction of its own, which locks the rows of the table against changes (``FOR SHARE``), looks again
which of their last words are old, and records these once more, as baseline.  A row that another transaction holds is
left for the next prune; its history stays until then.  What was carried is not carried again, so that a run that was
broken off is simply run again.  Imports model, ddl, capture's clock, query, adoption, catalog and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..adoption.keyset import Key, among
from ..capture import clock
from ..catalog.prunes import CARRIED, is_newest
from ..ddl import backend_for
from ..ddl.backend import Entry, Target, internal
from ..ddl.events import schemas_of
from ..model import AuditedTable
from ..model.types import UTCDateTime
from .planning import is_held

BATCH: Final = 2_000


class Carrying:
    """Carries forward what a bound cuts off.

    Args:
        engine: of the database.
        audited: whose history.
        bound: rows with a lesser id are old.
        claims: who carries it, and why.
        batch: how many rows a transaction carries at the most.
    """

    def __init__(
        self, engine: Engine, audited: AuditedTable, bound: int, claims: Mapping[str, Any], batch: int = BATCH
    ) -> None:
        self.audited = audited
        self.bound = bound
        self.claims = claims
        self.batch = batch
        with engine.connect() as connection:
            self.backend = backend_for(connection.dialect)
        self.engine = engine
        self.old = audited.history.alias("r")

    def run(self) -> int:
        """Carry forward all that nobody holds; give how many rows."""
        carried, after = 0, -1
        while True:
            with self.engine.connect() as connection:
                found = self._due(connection, after)
            if not found:
                return carried
            after = found[-1][0]
            carried += self._carry({tuple(row[1:]): row[0] for row in found})

    def _due(self, connection: Connection, after: int) -> list[Any]:
        rows = self.old
        statement = (
            sa.select(
                rows.c.audit_id, *(sa.type_coerce(rows.c[column.key], column.type) for column in self.audited.key)
            )
            .where(rows.c.audit_id > after, rows.c.audit_id < self.bound, is_newest(self.audited, rows))
            .order_by(rows.c.audit_id)
            .limit(self.batch)
        )
        held = is_held(connection, self.audited, rows)
        return list(internal(connection, statement if held is None else statement.where(sa.not_(held))))

    def _carry(self, due: Mapping[Key, int]) -> int:
        """Carry forward what is due, by the keys of the rows with the ids of their last words."""
        isolation = self.backend.fresh_isolation
        with self.engine.connect() as connection, _at(connection, isolation).begin():
            target = Target(self.audited, schemas_of(connection))
            self.backend.lock_writer(connection, target)
            free = self._lock(connection, list(due))
            if not free:
                return 0
            entry = self.backend.insert_entry(connection, target, self.claims, None, clock.now())
            internal(connection, self._copy(entry, [due[key] for key in free]))
            history = self.audited.history
            made = sa.select(sa.func.count()).where(history.c.audit_tx == entry.id, history.c.audit_op == "B")
            return int(internal(connection, made).scalar_one())

    def _lock(self, connection: Connection, keys: Sequence[Key]) -> list[Key]:
        """Lock the rows of the table that nobody else holds; one that is gone counts as locked."""
        table = self.audited.table.alias("t")
        query = sa.select(*(table.c[column.key] for column in self.audited.key)).where(
            among(self.backend, self.audited, "t")
        )
        hint = self.backend.look_up(self.audited).strip()
        query = query.with_hint(table, hint) if hint else query
        locking = query.with_for_update(read=True, skip_locked=True) if self.backend.locks_rows else query
        locked = {tuple(row) for row in internal(connection, locking, self._parameters(keys))}
        rest = [key for key in keys if key not in locked]
        there = {tuple(row) for row in internal(connection, query, self._parameters(rest))} if rest else set()
        return [key for key in keys if key in locked or key not in there]

    def _parameters(self, keys: Sequence[Key]) -> dict[str, Any]:
        return {"keys": self.backend.keys_value(self.audited, keys)}

    def _copy(self, entry: Entry, ids: Sequence[int]) -> sa.Insert:
        """Give the INSERT that records once more what the last word was, with all its forms as they are."""
        rows, history = self.old, self.audited.history
        recorded = [column.recorded for column in self.audited.recorded if column.recorded is not None]
        query = (
            sa.select(
                sa.literal(entry.id, sa.BigInteger()),
                sa.literal(entry.recorded_at, UTCDateTime()),
                sa.literal("B", sa.String()),
                sa.literal(CARRIED, sa.Integer()),
                *(rows.c[column.key] for column in recorded),
            )
            .where(rows.c.audit_id.in_(_literal(ids)), is_newest(self.audited, rows))
            .order_by(rows.c.audit_id)
        )
        own = [history.c[name] for name in ("audit_tx", "audit_at", "audit_op", "audit_flush")]
        return sa.insert(history).from_select([*own, *recorded], query, include_defaults=False)


def _at(connection: Connection, isolation: str | None) -> Connection:
    return connection.execution_options(isolation_level=isolation) if isolation else connection


def _literal(ids: Sequence[int]) -> sa.BindParameter[Any]:
    """Give ids as numbers in the statement, of which no database limits how many there are."""
    return sa.bindparam("ids", list(ids), expanding=True, literal_execute=True, type_=sa.BigInteger())
