"""How the tests read the history: straight from the history tables, and checked against the live ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from sa_audit.model import Trail, audited_of, iter_audited, trail_of
from sa_audit.query import history, reconcile


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One history row: ``before`` as it is stored, but numbers as text; ``values`` by column key."""

    op: str
    before: dict[str, Any] | None
    values: dict[str, Any]
    tx: int
    at: dt.datetime
    flush: int
    actor: str | None


def table_of(entity: Any) -> sa.Table:
    """Give the table of a class, or the table itself."""
    table = entity if isinstance(entity, sa.Table) else sa.inspect(entity).local_table
    assert isinstance(table, sa.Table)
    return table


def history_of(entity: Any) -> sa.Table:
    """Give the history table of a class or table."""
    audited = audited_of(table_of(entity))
    assert audited is not None
    return audited.history


def trail_at(entity: Any) -> Trail:
    """Give the trail of a class, base, table or MetaData."""
    metadata = entity if isinstance(entity, sa.MetaData) else entity.metadata
    trail = trail_of(metadata)
    assert trail is not None
    return trail


def execute(bind: Any, statement: Any, parameters: Any = None) -> Any:
    """Execute a statement on an engine, a connection or a session."""
    if isinstance(bind, sa.Engine):
        with bind.connect() as connection:
            return connection.execute(statement, parameters).freeze()()
    return bind.execute(statement, parameters)


def rows_of(bind: Any, entity: Any) -> list[Row]:
    """Give all history rows of a table in their order, each with its actor.

    Raises:
        AssertionError: if one has no ``audit_transaction`` row, or another moment than that.
    """
    past, entries = history_of(entity), trail_at(table_of(entity)).transaction
    own = [column for column in past.columns if not column.name.startswith("audit_")]
    statement = (
        sa.select(past, entries.c.actor, entries.c.recorded_at)
        .select_from(past.outerjoin(entries, past.c.audit_tx == entries.c.id))
        .order_by(past.c.audit_id)
    )
    found = []
    for row in execute(bind, statement):
        values = row._mapping
        assert values[entries.c.recorded_at] == values[past.c.audit_at], "the entry is missing, or of another moment"
        assert len(values[past.c.audit_salt]) == 16
        found.append(
            Row(
                op=values[past.c.audit_op],
                before=_as_text(values[past.c.audit_before]),
                values={column.key: values[column] for column in own},
                tx=values[past.c.audit_tx],
                at=values[past.c.audit_at],
                flush=values[past.c.audit_flush],
                actor=values[entries.c.actor],
            )
        )
    return found


def _as_text(before: dict[str, Any] | None) -> dict[str, Any] | None:
    if before is None:
        return None
    return {name: value if value is None or value is True else str(value) for name, value in before.items()}


def story(bind: Any, entity: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Give each history row as its operation, its before-object and the values of the named columns."""
    return [(row.op, row.before, *(row.values[name] for name in columns)) for row in rows_of(bind, entity)]


def ops(bind: Any, entity: Any) -> str:
    """Give the operations of a table's history rows, in their order."""
    return "".join(row.op for row in rows_of(bind, entity))


def entries_of(bind: Any, entity: Any) -> list[sa.Row[Any]]:
    """Give the rows of ``audit_transaction``, oldest first."""
    entries = trail_at(entity).transaction
    return list(execute(bind, sa.select(entries).order_by(entries.c.id)))


def check(engine: sa.Engine, metadata: sa.MetaData, only: Collection[sa.Table] | None = None) -> None:
    """Compare the whole trail, or that of some tables, with the live tables, and each change with the one before it.

    Raises:
        AssertionError: where the record is not the truth, or not continuous.
    """
    with Session(engine) as session:
        for audited in iter_audited(metadata):
            if only is not None and audited.table not in only:
                continue
            assert list(reconcile(session, audited.table)) == []
            past = audited.history
            columns = [past.c[column.key] for column in audited.key]
            keys = execute(session, sa.select(*columns).where(past.c.audit_op != "T").distinct())
            if audited.table.primary_key.columns:
                for key in keys:
                    _check_continuity(history(session, audited.table, tuple(key)))


def _check_continuity(changes: list[Any]) -> None:
    state: dict[str, Any] | None = None
    for change in changes:
        if change.operation == "truncate":
            state = None
            continue
        if change.operation == "insert":
            assert state is None, f"inserted while it was there: {change}"
        else:
            assert state is not None, f"{change.operation} of what is not there: {change}"
            before = {**change.state, **{name: pair[0] for name, pair in change.diff.items()}}
            assert before == state, f"the row before is not the row after the last change: {change}"
        state = None if change.operation == "delete" else dict(change.state)


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[str]]:
    """Collect what an engine sends to the database while the block runs."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, sql: str, *_rest: Any) -> None:
        sent.append(sql)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def without_looks(sent: list[str]) -> list[str]:
    """Leave out what SQLite is asked once a transaction where another trail of the process is written by triggers."""
    return [sql for sql in sent if "pragma_table_list" not in sql]


def behind_the_back(engine: sa.Engine, *texts: str) -> None:
    """Run SQL as another program would, past SQLAlchemy and so past the trail, and commit it."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        for text in texts:
            cursor.execute(text)
        cursor.close()
        connection.commit()
    finally:
        connection.close()
