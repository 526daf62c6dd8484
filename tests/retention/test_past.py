"""What was pruned is not answered for: a moment or a stretch in it is refused, and the range is named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, Retention
from sa_audit.proof import Checkpoint
from sa_audit.testing import unguarded

from .models import Clinic, keep_only


def told(clinic: Clinic) -> str:
    """Give what every refusal says of the one range that was pruned."""
    prune: Any = clinic.trail.prune
    with clinic.engine.connect() as connection:
        row = connection.execute(prune.select()).one()
    return f"{row.row_count} rows of its history, {row.first_row} to {row.last_row}, recorded before"


def test_a_moment_before_a_prune(clinic: Clinic) -> None:
    """It is refused, on the clock, by checkpoint and in diff and restore; the moments since are answered."""
    clinic.write((1, "Ann"), (2, "Bob"))
    old = clinic.now()
    checkpoint = clinic.seal()
    assert isinstance(checkpoint, Checkpoint)
    clinic.write((1, "Ann Lee"))
    assert clinic.names(checkpoint) == {1: "Ann", 2: "Bob"}
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    after = clinic.now()
    latest = clinic.seal()
    for when in (old, checkpoint):
        with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)):
            clinic.names(when)
    for when in (after, latest):
        assert clinic.names(when) == {1: "Ann Lee", 2: "Bob"}
    patient = clinic.base.patient
    with Session(clinic.engine) as session:
        with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)):
            sa_audit.diff(session, patient, 1, old, after)
        with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)):
            sa_audit.restore(session, patient, 1, old)
    with sa_audit.as_of(clinic.engine, old) as past:
        assert past.scalars(sa.select(clinic.base.ward)).all() == []


def test_a_moment_before_a_prune_of_a_table_that_was_renamed_since(clinic: Clinic) -> None:
    """It is refused under the new name, too."""
    clinic.write((1, "Ann"))
    old = clinic.now()
    clinic.write((1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    with unguarded(clinic.engine), clinic.engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_column SET table_name = 'person' WHERE table_name = 'patient'"))
        for former, name in (("patient", "person"), ("patient_history", "person_history")):
            connection.execute(sa.text(f"ALTER TABLE {former} RENAME TO {name}"))
    metadata = sa.MetaData()
    person = sa.Table("person", metadata, *(column._copy() for column in clinic.base.patient.__table__.columns))
    retention = Retention(keep=dt.timedelta(days=730))
    sa_audit.track(person, AuditOptions(retention=retention, renamed_from="patient"))
    with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)), sa_audit.as_of(clinic.engine, old) as past:
        past.execute(sa.select(person)).all()


@pytest.mark.only_on("postgresql")
def test_a_snapshot_before_a_prune(clinic: Clinic) -> None:
    """It is refused likewise, and one since is answered."""
    query = sa.text("SELECT CAST(pg_current_snapshot() AS text)")
    clinic.write((1, "Ann"))
    with clinic.engine.connect() as connection:
        old = connection.scalar(query)
    clinic.write((1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    with clinic.engine.connect() as connection:
        new = connection.scalar(query)
    with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)):
        clinic.names(old)
    assert clinic.names(new) == {1: "Ann Lee"}


def test_a_history(clinic: Clinic) -> None:
    """What is left is shown, and begins with no insert; a stretch that begins in what is gone is refused.

    So is the history of a row of which nothing is left: it would seem never to have been.
    """
    clinic.write((1, "Ann"), (2, "Bob"), (2, None))
    old = clinic.now()
    clinic.write((1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    patient = clinic.base.patient
    with Session(clinic.engine) as session:
        assert [change.operation for change in sa_audit.history(session, patient, 1)] == ["baseline"]
        assert len(sa_audit.history(session, patient, 1, since=clinic.now())) == 0
        for key, since in ((1, old), (2, None), (2, old)):
            with pytest.raises(sa_audit.PrunedHistory, match=told(clinic)):
                sa_audit.history(session, patient, key, since=since)
        assert sa_audit.history(session, clinic.base.ward, ("east", 1)) == []


def test_a_new_row_after_a_prune(clinic: Clinic) -> None:
    """Its history is whole, and every question about it answered."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    since = clinic.now()
    clinic.write((3, "Cid"), (3, "Sid"))
    with Session(clinic.engine) as session:
        changes = sa_audit.history(session, clinic.base.patient, 3, since=since)
    assert [change.operation for change in changes] == ["insert", "update"]
