"""An application that nobody here wrote, under audit: Optuna's relational storage, written by several threads at once.

While they write, its tables are copied with plain SELECTs; the trail must then show every copy again, find nothing that
went past it, and bring a deleted study back.  What is run is the example in `examples/optuna_study`.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy.orm import Session

import sa_audit
from tests.databases import Database

pytestmark = [pytest.mark.both_captures, pytest.mark.wide_on("mariadb", "postgresql")]

Rows = dict[sa.Table, list[tuple[Any, ...]]]
Copier = Callable[[sa.Engine, list[sa.Table]], "Copy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The application's tables as they were at a moment, which is one that `as_of` takes."""

    when: str | dt.datetime
    rows: Rows


def _load_example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "optuna_study" / "study.py"
    spec = importlib.util.spec_from_file_location("optuna_study", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _load_example()


def read(source: sa.Connection | Session, tables: list[sa.Table]) -> Rows:
    """Read all rows of the tables, in the order of their keys."""
    return {table: [tuple(row) for row in source.execute(_everything(table))] for table in tables}


def _everything(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table).order_by(*table.primary_key)


def copy_in_snapshot(engine: sa.Engine, tables: list[sa.Table]) -> Copy:
    """Copy what one REPEATABLE READ transaction sees, while others write; its snapshot is the moment."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        snapshot = connection.scalar(sa.select(sa.cast(sa.func.pg_current_snapshot(), sa.Text)))
        assert isinstance(snapshot, str)
        return Copy(when=snapshot, rows=read(connection, tables))


def copy_under_share_locks(engine: sa.Engine, tables: list[sa.Table]) -> Copy:
    """Copy with PostgreSQL's writers blocked; the moment is the server's clock meanwhile.

    A lock that would be waited for long is given up and tried again, so that no writer is the victim of a deadlock.
    """
    names = ", ".join(table.name for table in tables)
    for _ in range(200):
        with engine.connect() as connection:
            connection.execute(sa.text("SET LOCAL lock_timeout = '300ms'"))
            try:
                connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE MODE"))
            except sa.exc.OperationalError:
                continue
            now = connection.scalar(sa.select(sa.func.clock_timestamp()))
            assert isinstance(now, dt.datetime)
            return Copy(when=now, rows=read(connection, tables))
    raise AssertionError("the tables could not be locked in 200 attempts")


def copy_under_write_lock(engine: sa.Engine, tables: list[sa.Table]) -> Copy:
    """Copy while this connection holds SQLite's write lock; the moment is the process's clock meanwhile."""
    waiting = sa.create_engine(engine.url, isolation_level="AUTOCOMMIT", connect_args={"timeout": 60})
    with closing(waiting.connect()) as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        copy = Copy(when=dt.datetime.now(dt.UTC), rows=read(connection, tables))
        connection.exec_driver_sql("ROLLBACK")
    waiting.dispose()
    return copy


def copy_at_rest(engine: sa.Engine, tables: list[sa.Table]) -> Copy:
    """Copy while nobody writes; the moment is that of the newest record."""
    transaction = models.BaseModel.metadata.tables["audit_transaction"]
    with engine.connect() as connection:
        newest = connection.scalar(sa.select(sa.func.max(transaction.c.recorded_at)))
        assert isinstance(newest, dt.datetime)
        return Copy(when=newest, rows=read(connection, tables))


COPIERS: dict[str, list[Copier]] = {
    "postgresql": [copy_in_snapshot, copy_under_share_locks],
    "sqlite": [copy_under_write_lock],
    "mariadb": [],  # locking all tables makes its deadlock detection fail the writers
}

WRITERS = {"sqlite": 4, "postgresql": 4}
"""How many threads write at once.

Elsewhere one: upserts of new rows lock the gap that they look into, so on MariaDB two of them can deadlock, and Optuna
does not try again.  `docs/databases.md` says so.
"""
"""How the tables can be copied while others write, by database."""


class Photographer:
    """A callback of the study that copies the tables, each way, after every so many trials."""

    def __init__(self, engine: sa.Engine, tables: list[sa.Table], ways: list[Copier], every: int) -> None:
        self.copies: list[Copy] = []
        self._engine, self._tables, self._ways, self._every = engine, tables, ways, every
        self._lock = threading.Lock()

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if (trial.number + 1) % self._every:
            return
        with self._lock:
            self.copies += [way(self._engine, self._tables) for way in self._ways]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep Optuna from reporting the failures that the example's objective makes on purpose."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def optuna_tables() -> list[sa.Table]:
    """Optuna's tables, audited."""
    tables: list[sa.Table] = example.track_storage()
    return tables


@pytest.fixture
def storage(database: Database, optuna_tables: list[sa.Table], quiet: None) -> Iterator[RDBStorage]:
    """Optuna's storage in the test's database; it knows MariaDB only by the name of MySQL."""
    url = database.url.set(drivername=database.url.drivername.replace("mariadb", "mysql"))
    storage: RDBStorage = example.open_storage(url.render_as_string(hide_password=False))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize(("trials", "every"), [(16, 4), pytest.param(300, 50, marks=pytest.mark.slow)])
def test_a_study_is_recorded_shown_and_brought_back(
    trials: int, every: int, database: Database, engine: sa.Engine, storage: RDBStorage, optuna_tables: list[sa.Table]
) -> None:
    """Everything Optuna writes is recorded as it is, can be seen as it was, and can be undone."""
    photographer = Photographer(engine, optuna_tables, COPIERS[database.dialect], every)
    example.run_study(storage, trials=trials, threads=WRITERS.get(database.dialect, 1), callback=photographer)
    assert len(photographer.copies) == trials // every * len(COPIERS[database.dialect])

    check_nothing_went_past(engine, optuna_tables)
    check_past(engine, optuna_tables, photographer.copies)
    check_actors(engine, trials, WRITERS.get(database.dialect, 1))
    rest = check_deletion_and_return(engine, storage, optuna_tables)
    check_nothing_went_past(engine, optuna_tables)
    check_past(engine, optuna_tables, [*photographer.copies, *rest])


def check_nothing_went_past(engine: sa.Engine, tables: list[sa.Table]) -> None:
    """`reconcile` finds no row whose present state differs from the one recorded last."""
    with Session(engine) as session:
        assert {table.name: list(sa_audit.reconcile(session, table)) for table in tables} == {
            table.name: [] for table in tables
        }


def check_past(engine: sa.Engine, tables: list[sa.Table], copies: list[Copy]) -> None:
    """Every table read through `as_of` equals each copy, row by row."""
    for copy in copies:
        with sa_audit.as_of(engine, copy.when) as past:
            then = read(past, tables)
        for table in tables:
            assert then[table] == copy.rows[table], f"{table.name} at {copy.when}"


def check_actors(engine: sa.Engine, trials: int, threads: int) -> None:
    """All that happened to a trial was done by the one thread that ran it; the study was made by the scheduler."""
    with Session(engine) as session:
        numbers = session.scalars(sa.select(models.TrialModel.trial_id)).all()
        assert len(numbers) == trials
        actors = [{change.actor for change in sa_audit.history(session, models.TrialModel, key)} for key in numbers]
        assert all(len(found) == 1 for found in actors)
        assert set.union(*actors) == {f"worker {number}" for number in range(threads)}
        (study,) = session.scalars(sa.select(models.StudyModel))
        assert [change.actor for change in sa_audit.history(session, study)] == ["scheduler"]


def check_deletion_and_return(engine: sa.Engine, storage: RDBStorage, tables: list[sa.Table]) -> list[Copy]:
    """Reverting the transaction that deleted the study brings every row of every table back.

    Returns:
        Copies from before the deletion, from after it, and from after the return.
    """
    before = copy_at_rest(engine, tables)
    transaction = example.delete_study(storage)
    deleted = copy_at_rest(engine, tables)
    assert [table.name for table, rows in deleted.rows.items() if rows] == ["version_info"]
    with sa_audit.context(actor="alice", reason="deleted by mistake"), Session(engine) as session:
        sa_audit.revert(session, transaction)
        session.commit()
    restored = copy_at_rest(engine, tables)
    for table in tables:
        assert restored.rows[table] == before.rows[table], table.name
    return [before, deleted, restored]
