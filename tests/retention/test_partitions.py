"""Histories by month: a month whose rows all may go is dropped whole, any other is pruned row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.catalog.drift import check
from sa_audit.model import complete
from sa_audit.testing import unguarded

from .models import Clinic
from .models import clinic as declare

pytestmark = pytest.mark.only_on("postgresql")
MONTH = "patient_history_2024_02"


@pytest.fixture
def monthly(engine: sa.Engine, tmp_path: Path) -> Clinic:
    """A clinic whose history is kept by month, with what was recorded in February 2024."""
    clinic = Clinic(declare(partition="month"), engine, tmp_path).create()
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    age(clinic)
    return clinic


def age(clinic: Clinic) -> None:
    """Have everything that is recorded be of February 2024, before any of it is sealed."""
    clinic.run(
        f"CREATE TABLE {MONTH} (LIKE patient_history INCLUDING DEFAULTS INCLUDING STORAGE)",
        f"COMMENT ON TABLE {MONTH} IS 'sa_audit: partition of patient_history'",
        f"ALTER TABLE patient_history ATTACH PARTITION {MONTH} "
        "FOR VALUES FROM ('2024-02-01 00:00:00+00') TO ('2024-03-01 00:00:00+00')",
    )
    with unguarded(clinic.engine):
        clinic.run(
            "UPDATE audit_transaction SET recorded_at = timestamptz '2024-02-03 00:00:00Z' + id * interval '1 second'",
            "UPDATE patient_history SET audit_at = timestamptz '2024-02-03 00:00:00Z' + audit_tx * interval '1 second'",
            "UPDATE audit_column SET recorded_at = timestamptz '2024-02-01 00:00:00+00'",
        )
    clinic.run("SELECT sa_audit_partitions_v1('patient_history', 'patient_history', 3)")


def partitions(clinic: Clinic) -> set[str]:
    """Give the names of the history's partitions."""
    history = "CAST('patient_history' AS regclass)"
    query = f"SELECT CAST(inhrelid AS regclass) AS name FROM pg_inherits WHERE inhparent = {history}"
    with clinic.engine.connect() as connection:
        return {str(row.name) for row in connection.execute(sa.text(query))}


def prune_after(clinic: Clinic, *, erased: int) -> tuple[str, ...]:
    """Prune what is older than two years; give the partitions that were dropped."""
    clinic.seal()
    clinic.prune()
    clinic.seal()
    done = clinic.prune()
    assert done.erased == erased
    clinic.seal()
    return done.partitions


@pytest.mark.every_server
def test_a_month_is_dropped_whole(monthly: Clinic) -> None:
    """Its rows may all go; the trail verifies, the guards stand, an event tells of it, and the history goes on."""
    assert prune_after(monthly, erased=3) == (MONTH,)
    assert MONTH not in partitions(monthly)
    assert monthly.rows() == [(2, "B", "Bob"), (1, "B", "Ann Lee")]
    assert monthly.verify().findings == ()
    trail = complete(monthly.base.metadata)
    assert trail is not None
    with monthly.engine.connect() as connection:
        assert check(connection, trail).drift == ()
    with Session(monthly.engine) as session:
        event = sa_audit.trail(session, base=monthly.base, action="sa_audit.pruned").entries[-1]
    assert event.data == {"history": "patient_history", "partition": MONTH, "rows": 3}
    monthly.write((1, "Ann Mo"))
    monthly.seal()
    assert monthly.verify().findings == ()
    with pytest.raises(sa_audit.PrunedHistory):
        monthly.names("2024-02-20T00:00:00Z")


def test_a_month_with_a_held_row_is_pruned_row_by_row(monthly: Clinic) -> None:
    """What is held stays in it."""
    monthly.hold(2)
    assert prune_after(monthly, erased=2) == ()
    assert MONTH in partitions(monthly)
    assert monthly.rows() == [(2, "I", "Bob"), (1, "B", "Ann Lee")]
    assert monthly.verify().findings == ()


def test_a_month_with_a_row_that_came_late_is_pruned_row_by_row(monthly: Clinic) -> None:
    """A row that no leaf speaks of stays, wherever it stands, and is found there."""
    monthly.seal()
    monthly.prune()
    monthly.seal()
    with unguarded(monthly.engine):
        monthly.run(
            f"INSERT INTO {MONTH} (audit_tx, audit_at, audit_op, id, name)"
            f" SELECT audit_tx, audit_at, 'I', 9, 'late' FROM {MONTH} LIMIT 1"
        )
    done = monthly.prune()
    assert (done.erased, done.partitions) == (3, ())
    assert [row for row in monthly.rows() if row[0] == 9] == [(9, "I", "late")]


def test_the_guard_of_a_partition(monthly: Clinic) -> None:
    """Rows of it may be deleted within the range, also straight from it, and nothing else."""
    monthly.seal()
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        monthly.run(f"DELETE FROM {MONTH}")
    monthly.prune()
    monthly.seal()
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        monthly.run(f"TRUNCATE {MONTH}")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        monthly.run("DELETE FROM patient_history WHERE audit_op = 'B'")
    monthly.run(f"DELETE FROM {MONTH} WHERE id = 1")
    assert monthly.prune().erased == 1
    monthly.seal()
    assert monthly.verify().findings == ()


def test_a_month_that_is_dropped_by_hand(monthly: Clinic) -> None:
    """Without a prune its rows are missed."""
    monthly.seal()
    monthly.run(f"DROP TABLE {MONTH}")
    assert ("row-missing", "patient_history") in monthly.kinds()
