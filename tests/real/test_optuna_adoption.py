"""An application with data and migrations of its own gets its trail by one generated migration: Optuna on PostgreSQL.

Optuna fills the database in a process that knows nothing of audit.  Its own `alembic_version` stands there, so the
trail's migrations count in a table of another name.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.adoption import baseline
from tests.databases import Database
from tests.migrate.project import Project
from tests.real.test_optuna import check_nothing_went_past, example

pytestmark = pytest.mark.wide

BEFORE = """
import sys
import optuna

optuna.logging.set_verbosity(optuna.logging.CRITICAL)
storage = optuna.storages.RDBStorage(sys.argv[1])
study = optuna.create_study(study_name="old study", storage=storage, sampler=optuna.samplers.RandomSampler(seed=3))


def objective(trial):
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    kind = trial.suggest_categorical("kind", ["adam", "sgd", None])
    trial.set_user_attr("note", {"kind": kind, "rate": [rate] * 3})
    for step in range(3):
        trial.report(float("nan") if step == 1 and trial.number == 2 else rate * step, step)
    return float("inf") if trial.number == 4 else rate


study.optimize(objective, n_trials=int(sys.argv[2]))
assert "sa_audit" not in sys.modules
"""


@pytest.fixture
def url(database: Database) -> str:
    """The database, filled by Optuna alone."""
    text = database.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", BEFORE, text, "12"], check=True, timeout=120)
    return text


@pytest.fixture
def optuna_tables(url: str) -> list[sa.Table]:
    """Optuna's tables, audited from now on."""
    tables: list[sa.Table] = example.track_storage()
    return tables


@pytest.fixture
def project(tmp_path: Path, database: Database, optuna_tables: list[sa.Table]) -> Project:
    """The migrations of the trail, which leave Optuna's own to Optuna."""
    return Project(
        tmp_path,
        database.url,
        models.BaseModel.metadata,
        version_table="audit_version",
        include_object=lambda entry, name, type_, reflected, compare_to: name != "alembic_version",
    )


@pytest.fixture
def open_storage(url: str) -> Iterator[Any]:
    """Return a function that opens Optuna's storage, quietly."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    opened: list[RDBStorage] = []

    def make() -> RDBStorage:
        opened.append(example.open_storage(url))
        return opened[-1]

    yield make
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()
    optuna.logging.set_verbosity(before)


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("when", ["now", "later"])
def test_one_migration_adopts_the_application(
    when: str, project: Project, optuna_tables: list[sa.Table], engine: sa.Engine, open_storage: Any
) -> None:
    """Every row is in the history, later changes are recorded, and neither migration sees a difference."""
    with engine.connect() as connection:
        own = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        rows = {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in optuna_tables}
    assert rows["trials"] == 12
    assert rows["trial_values"]
    text = project.migrate(audit_baseline=when)
    assert "drop_table" not in text[: text.index("def downgrade")]
    if when == "later":
        done = [entry for table in optuna_tables for entry in baseline(engine, table, actor="release:12", batch=5)]
        assert {entry.table: entry.rows for entry in done} == rows
    check_nothing_went_past(engine, optuna_tables)
    with engine.connect() as connection:
        for table in optuna_tables:
            counted = sa.text(f"SELECT audit_op, count(*) FROM {table.name}_history GROUP BY audit_op")
            found = [tuple(row) for row in connection.execute(counted)]
            assert found == ([("B", rows[table.name])] if rows[table.name] else [])

    check_later_changes(open_storage(), engine, "release:12" if when == "later" else None)
    check_nothing_went_past(engine, optuna_tables)
    project.check()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == own


def check_later_changes(storage: RDBStorage, engine: sa.Engine, actor: str | None) -> None:
    """The old study goes on under audit; an old trial that is deleted can be brought back from its baseline."""
    study = optuna.load_study(study_name="old study", storage=storage)
    with sa_audit.context(actor="scheduler"):
        study.optimize(lambda trial: trial.suggest_float("rate", 1e-5, 1e-1, log=True), n_trials=1)
    before = rows_of(engine)
    with sa_audit.context(actor="mallory"):
        optuna.delete_study(study_name="old study", storage=storage)
    with Session(engine) as session:
        assert session.scalars(sa.select(models.TrialModel)).all() == []
        old, new = (sa_audit.history(session, models.TrialModel, key) for key in (before[0][0], before[-1][0]))
        assert [(change.operation, change.actor) for change in old] == [("baseline", actor), ("delete", "mallory")]
        assert [(change.operation, change.actor) for change in new][:: len(new) - 1] == [
            ("insert", "scheduler"),
            ("delete", "mallory"),
        ]
        sa_audit.revert(session, old[-1].transaction.id)
        session.commit()
    assert rows_of(engine) == before
    assert len(before) == 13


def rows_of(engine: sa.Engine) -> list[tuple[Any, ...]]:
    """Read the trials."""
    trials = models.TrialModel.__table__
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(trials).order_by(trials.c.number))]
