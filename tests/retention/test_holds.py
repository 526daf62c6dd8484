"""Legal holds: nothing of what they name is pruned, and no person whom they name is erased."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Encrypt, Retention
from sa_audit.model import complete
from sa_audit.model.holds import held_rows
from sa_audit.privacy import KeyRing
from sa_audit.retention import planning

from .models import Clinic, keep_only


@pytest.mark.both_captures
def test_all_of_a_held_rows_history_stays(clinic: Clinic) -> None:
    """Also where the row is deleted; what others have between goes, in ranges around it."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"), (3, "Cid"), (2, "Rob"), (2, None), (1, "Ann Mo"))
    clinic.seal()
    clinic.hold(2)
    keep_only(clinic.base)
    first = clinic.prune()
    assert (first.carried, first.held, first.asked) == (2, 3, 4)
    clinic.seal()
    assert clinic.prune().erased == 4
    held = [(2, "I", "Bob"), (2, "U", "Rob"), (2, "D", "Rob")]
    assert clinic.rows() == [*held, (3, "B", "Cid"), (1, "B", "Ann Mo")]
    clinic.seal()
    assert clinic.verify().findings == ()


def test_a_hold_that_ends(clinic: Clinic) -> None:
    """Then what it kept goes with the next prune, between ranges that went before."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"), (2, None), (3, "Cid"))
    clinic.seal()
    clinic.hold(2)
    keep_only(clinic.base)
    clinic.prune_wholly()
    with Session(clinic.engine) as session:
        session.execute(sa.delete(clinic.base.hold))
        session.commit()
    assert clinic.prune_wholly().erased == 4
    assert {row[1] for row in clinic.rows()} == {"B"}
    prune = clinic.trail.prune
    assert prune is not None
    with clinic.engine.connect() as connection:
        ranges = connection.execute(sa.select(prune.c.first_row, prune.c.last_row).order_by(prune.c.first_row)).all()
    assert all(one.last_row < other.first_row for one, other in itertools.pairwise(ranges))
    clinic.seal()
    assert clinic.verify().findings == ()


def test_a_hold_that_comes_late(clinic: Clinic) -> None:
    """After the rows were asked for, even after they were granted: what it names stays, and goes once it has ended."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"), (2, None))
    clinic.seal()
    keep_only(clinic.base)
    assert clinic.prune().asked == 4
    clinic.seal()
    clinic.hold(2)
    (planned,) = sa_audit.prune(clinic.engine, dry_run=True, metadata=clinic.base)
    assert planned.erased == 2
    assert clinic.prune().erased == 2
    assert clinic.rows() == [(2, "I", "Bob"), (2, "D", "Bob"), (1, "B", "Ann Lee")]
    clinic.seal()
    assert clinic.verify().findings == ()
    with Session(clinic.engine) as session:
        session.execute(sa.delete(clinic.base.hold))
        session.commit()
    assert clinic.prune().erased == 2
    clinic.seal()
    assert clinic.verify().findings == ()


def test_an_attribute_is_a_condition(clinic: Clinic) -> None:
    """A column that is true by itself needs nothing around it."""
    from dataclasses import replace

    audited = next(iter(complete(clinic.base.metadata).audited.values()))  # type: ignore[union-attr]
    for hold in (clinic.base.patient.ward, lambda: clinic.base.patient.ward):
        audited.options = replace(audited.options, retention=Retention(keep=dt.timedelta(days=1), hold=hold))
        assert str(held_rows(audited)) == "patient.ward"


def test_a_row_that_was_held_under_another_value(clinic: Clinic) -> None:
    """A hold by a column is asked of the row as it was, too: moving the row out of it frees nothing."""
    trail_table = next(iter(complete(clinic.base.metadata).audited.values()))  # type: ignore[union-attr]
    from dataclasses import replace

    patient = clinic.base.patient
    trail_table.options = replace(
        trail_table.options, retention=Retention(keep=dt.timedelta(microseconds=1), hold=patient.name == "Ann")
    )
    clinic.write((1, "Ann"), (1, "Eve"), (2, "Bob"))
    clinic.seal()
    done = clinic.prune()
    assert (done.held, done.asked) == (2, 1)


@pytest.mark.parametrize("form", ["in", "exists", "self"])
def test_forms_of_holds(clinic: Clinic, form: str) -> None:
    """By IN, by a correlated EXISTS, and by a query of the table itself."""
    from dataclasses import replace

    patient, hold = clinic.base.patient, clinic.base.hold
    other = sa.orm.aliased(patient)
    conditions = {
        "in": patient.id.in_(sa.select(hold.patient_id)),
        "exists": sa.exists().where(hold.patient_id == patient.id),
        "self": patient.id.in_(sa.select(other.id).where(other.ward == "held")),
    }
    audited = next(iter(complete(clinic.base.metadata).audited.values()))  # type: ignore[union-attr]
    audited.options = replace(
        audited.options, retention=Retention(keep=dt.timedelta(microseconds=1), hold=conditions[form])
    )
    clinic.write((1, "Ann"), (2, "Bob"))
    with Session(clinic.engine) as session:
        session.get_one(patient, 2).ward = "held"
        session.commit()
    clinic.hold(2)
    clinic.seal()
    assert clinic.prune().held == 2


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (lambda _base: "yes", "gives 'yes'"),
        (lambda _base: sa.true(), "names no column"),
        (lambda base: base.hold.patient_id == 1, "names no column"),
    ],
)
def test_a_hold_that_can_not_be_asked(clinic: Clinic, hold: Any, message: str) -> None:
    """It is refused by name before anything is done, and prunes nothing."""
    from dataclasses import replace

    audited = next(iter(complete(clinic.base.metadata).audited.values()))  # type: ignore[union-attr]
    retention = Retention(keep=dt.timedelta(microseconds=1), hold=lambda: hold(clinic.base))
    audited.options = replace(audited.options, retention=retention)
    clinic.write((1, "Ann"))
    clinic.seal()
    with pytest.raises(sa_audit.ConfigurationError, match=message):
        clinic.prune()
    assert clinic.rows() == [(1, "I", "Ann")]


@pytest.mark.parametrize(
    ("ids", "kept", "gone", "runs"),
    [
        ([], set(), [], []),
        ([1, 2, 5], set(), [], [(1, 5, 3)]),
        ([1, 2, 5], {2}, [], [(1, 1, 1), (5, 5, 1)]),
        ([1, 2, 5], {1, 2, 5}, [], []),
        ([1, 9], set(), [(3, 5)], [(1, 1, 1), (9, 9, 1)]),
        ([1, 4, 9], set(), [(3, 5)], [(1, 1, 1), (9, 9, 1)]),
        ([7, 9], set(), [(1, 2), (3, 5)], [(7, 9, 2)]),
    ],
)
def test_ranges(ids: list[int], kept: set[int], gone: list[tuple[int, int]], runs: list[tuple[int, int, int]]) -> None:
    """No range has a row that stays, or one that went before, between its ends."""
    assert planning._runs(ids, kept, gone) == runs


# -- erasure -------------------------------------------------------------------------------


def practice() -> Any:
    """Give the base of patients whose names are encrypted under keys of their own, and of cases that are held."""

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, keys=KeyRing({"2026": b"k" * 32}), testing=True)

    class Patient(Audited, Base):
        __tablename__ = "patient"
        __audit__ = AuditOptions(
            subject="number", retention=Retention(keep=dt.timedelta(days=1), hold=lambda: Patient.ward == "court")
        )

        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int]
        name: Mapped[str] = mapped_column(sa.String(40), info={"sa_audit": Encrypt()})
        ward: Mapped[str | None] = mapped_column(sa.String(40))

    class Case(Audited, Base):
        """It encrypts nothing; whose it is says its option."""

        __tablename__ = "case_file"
        __audit__ = AuditOptions(
            subject="patient", retention=Retention(keep=dt.timedelta(days=1), hold=lambda: Case.open.is_(True))
        )

        id: Mapped[int] = mapped_column(primary_key=True)
        patient: Mapped[int]
        open: Mapped[bool]

    kept: Any = Base
    kept.patient, kept.case = Patient, Case
    return Base


@pytest.fixture
def held(engine: sa.Engine) -> Any:
    """The practice's base, and an engine whose database holds its tables and two patients."""
    base = practice()
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([base.patient(id=number, number=number, name=f"p{number}") for number in (1, 2)])
        session.commit()
    return base


@pytest.mark.session_capture("Encrypt() is of session capture")
def test_a_held_person_is_not_erased(engine: sa.Engine, held: Any) -> None:
    """By the row as it is, or as it was, or by a row of another model that names the person; another one is erased."""
    with Session(engine) as session:
        session.get_one(held.patient, 1).ward = "court"
        session.commit()
        with pytest.raises(sa_audit.LegalHold, match=r"rows of patient with number = '1'"):
            sa_audit.erase(session, 1, "asked for", base=held)
        session.delete(session.get_one(held.patient, 1))
        session.commit()
        with pytest.raises(sa_audit.LegalHold, match=r"rows of patient_history with number = '1'"):
            sa_audit.erase(session, 1, "asked for", base=held)
        session.add(held.case(id=1, patient=2, open=True))
        session.commit()
        with pytest.raises(sa_audit.LegalHold, match=r"rows of case_file with patient = '2'"):
            sa_audit.erase(session, 2, "asked for", base=held)
        session.rollback()
        session.add(held.patient(id=3, number=3, name="p3"))
        session.commit()
        assert sa_audit.erase(session, 3, "asked for", base=held).subject == "3"
