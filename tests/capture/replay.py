"""Replaying histories: what the trail says of a table, row by row, has to lead to what stands in the table now.

Reads the history tables with plain SELECTs, never through `sa_audit.query`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from sa_audit.model.history import AuditedTable, audited_of, iter_audited

MASKED = object()
"""The before-value of a masked column."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One history row: operation, key, the recorded columns, and for an update the changed ones as they were."""

    op: str
    key: tuple[Any, ...]
    values: dict[str, Any]
    before: dict[str, Any] | None
    tx: int
    flush: int
    actor: str | None


def history_of(bind: Engine | Connection, table: Any) -> list[HistoryRow]:
    """Give the history rows of a table or mapped class, in the order of the changes."""
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            return history_of(connection, table)
    audited = audited_of(sa.inspect(table).local_table if not isinstance(table, sa.Table) else table)
    assert audited is not None
    history, transaction = audited.history, audited.trail.transaction
    statement = (
        sa.select(history, transaction.c.actor.label("actor_of_transaction"))
        .outerjoin(
            transaction,
            sa.and_(history.c.audit_tx == transaction.c.id, history.c.audit_at == transaction.c.recorded_at),
        )
        .order_by(history.c.audit_id)
    )
    return [_history_row(audited, row) for row in bind.execute(statement)]


def _history_row(audited: AuditedTable, row: Any) -> HistoryRow:
    mapping = row._mapping
    values = {column.name: mapping[column.recorded] for column in audited.columns if column.recorded is not None}
    before = mapping[audited.history.c.audit_before]
    if before is not None:
        before = {name: _decoded(audited, name, value) for name, value in before.items()}
    return HistoryRow(
        op=mapping[audited.history.c.audit_op],
        key=tuple(values[column.name] for column in audited.key),
        values=values,
        before=before,
        tx=mapping[audited.history.c.audit_tx],
        flush=mapping[audited.history.c.audit_flush],
        actor=mapping["actor_of_transaction"],
    )


def _decoded(audited: AuditedTable, name: str, value: Any) -> Any:
    column = next(column for column in audited.columns if column.name == name)
    if column.masked:
        assert value is True
        return MASKED
    if value is None:
        return None
    kind = column.source.type.python_type
    if kind is bool:
        return value in (1, "1", "true", True)
    return kind(value) if kind in (int, str, float, Decimal, uuid.UUID) else value


def live_rows(connection: Connection, audited: AuditedTable) -> list[dict[str, Any]]:
    """Give the rows that stand in a table now, the recorded columns by database name."""
    columns = [column.source.label(column.name) for column in audited.recorded]
    return [dict(row._mapping) for row in connection.execute(sa.select(*columns).select_from(audited.table))]


def assert_recorded(bind: Engine | Connection, metadata: sa.MetaData, actor: str | None = None) -> None:
    """Assert that the history of each audited table, replayed, is free of gaps and leads to the table as it is.

    Args:
        bind: where the tables are.
        metadata: whose audited tables are replayed.
        actor: who has to stand behind each change, if anybody has to.
    """
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            assert_recorded(connection, metadata, actor)
        return
    for audited in iter_audited(metadata):
        rows = history_of(bind, audited.table)
        for row in rows:
            assert actor is None or row.actor == actor, (audited, row)
        if audited.table.primary_key.columns:
            state = _replayed(audited, rows)
            live = live_rows(bind, audited)
            names = [column.name for column in audited.key]
            assert state == {tuple(row[name] for name in names): row for row in live}, audited
        else:
            counted: Counter[Any] = Counter()
            for row in rows:
                counted[tuple(row.values.items())] += {"I": 1, "D": -1}[row.op]
            live_count = Counter(tuple(row.items()) for row in live_rows(bind, audited))
            assert +counted == live_count, audited
            assert not -counted, audited


def _replayed(audited: AuditedTable, rows: list[HistoryRow]) -> dict[tuple[Any, ...], dict[str, Any]]:
    state: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row.op == "I":
            assert row.key not in state, (audited, row, "inserted while it lives")
            assert row.before is None
            state[row.key] = row.values
        elif row.op == "D":
            assert state.pop(row.key, None) == row.values, (audited, row, "deleted as it was not")
            assert row.before is None
        else:
            assert row.op == "U", row
            _assert_follows(audited, state.get(row.key), row)
            state[row.key] = row.values
    return state


def _assert_follows(audited: AuditedTable, previous: dict[str, Any] | None, row: HistoryRow) -> None:
    assert previous is not None, (audited, row, "updated while it does not live")
    changed = {name: value for name, value in previous.items() if value != row.values[name]}
    told = {name: value for name, value in (row.before or {}).items() if value is not MASKED}
    assert told == changed, (audited, row, previous)
    assert row.before, (audited, row, "an update that changed nothing")
