"""Each way to read leaves one entry, with the rows that it showed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, aliased, joinedload, load_only, selectinload, subqueryload

import sa_audit
import sa_audit.asyncio
from sa_audit import Access

from .conftest import fill
from .models import Base, Nurse, Patient, Person, Visit, Ward

Recorded = Callable[..., list[Access]]
ALL = ((1,), (2,), (3,))
OTHER = sa.Table("patient", sa.MetaData(), sa.Column("full_name", sa.String), sa.Column("pin", sa.String))


def compound() -> Any:
    """Give a UNION of two selects of patients."""
    parts = (select(Patient).where(Patient.id == number) for number in (1, 2))
    return select(Patient).from_statement(sa.union_all(*parts))


WAYS: dict[str, tuple[Callable[[Session], Any], list[tuple[str, tuple[Any, ...], int]]]] = {
    "get": (lambda s: s.get(Patient, 1), [("Patient", ((1,),), 1)]),
    "get twice": (lambda s: [s.get(Patient, 1), s.get(Patient, 1)], [("Patient", ((1,),), 1)]),
    "get nothing": (lambda s: s.get(Patient, 99), [("Patient", (), 0)]),
    "entities": (lambda s: s.scalars(select(Patient)).all(), [("Patient", ALL, 3)]),
    "first": (lambda s: s.scalars(select(Patient).order_by(Patient.id).limit(1)).first(), [("Patient", ((1,),), 1)]),
    "query": (lambda s: s.query(Patient).filter_by(name="n2").all(), [("Patient", ((2,),), 1)]),
    "query count": (lambda s: s.query(Patient).count(), [("Patient", (), 1)]),
    "refresh": (
        lambda s: s.refresh(s.get_one(Patient, 1)),
        [("Patient", ((1,),), 1), ("Patient", ((1,),), 1)],
    ),
    "expired attribute": (
        lambda s: [s.expire(patient := s.get_one(Patient, 1)), patient.name],
        [("Patient", ((1,),), 1), ("Patient", ((1,),), 1)],
    ),
    "further columns": (
        lambda s: s.scalars(select(Patient).where(Patient.id == 1).options(load_only(Patient.ward_id))).one().name,
        [("Patient", ((1,),), 1), ("Patient", ((1,),), 1)],
    ),
    "lightweight table": (
        lambda s: s.execute(select(sa.column("full_name")).select_from(sa.table("patient").alias())).all(),
        [("Patient", (), 3)],
    ),
    "table of another MetaData": (
        lambda s: s.execute(select(OTHER.c.full_name).execution_options(stream_results=True)).all(),
        [("Patient", (), 3)],
    ),
    "lazy collection": (
        lambda s: s.get_one(Patient, 1).visits,
        [("Patient", ((1,),), 1), ("Visit", ((1, 1),), 1)],
    ),
    "lazy from unaudited": (lambda s: s.get_one(Ward, 1).patients, [("Patient", ALL, 3)]),
    "joined": (
        lambda s: s.scalars(select(Patient).options(joinedload(Patient.visits))).unique().all(),
        [("Patient", ALL, 3), ("Visit", ((1, 1), (2, 1), (3, 1)), 3)],
    ),
    "selectin": (
        lambda s: s.scalars(select(Ward).options(selectinload(Ward.patients))).all(),
        [("Patient", ALL, 3)],
    ),
    "subquery": (
        lambda s: s.scalars(select(Ward).options(subqueryload(Ward.patients))).all(),
        [("Patient", ALL, 3)],
    ),
    "column": (lambda s: s.execute(select(Patient.name).where(Patient.name == "n1")).all(), [("Patient", (), 1)]),
    "key and column": (lambda s: s.execute(select(Patient.id.label("x"), Patient.name)).all(), [("Patient", ALL, 3)]),
    "aggregate": (lambda s: s.scalar(select(func.max(Patient.name))), [("Patient", (), 1)]),
    "exists": (lambda s: s.scalar(select(sa.exists().where(Patient.id == 1))), [("Patient", (), 1)]),
    "scalar subquery": (
        lambda s: s.execute(
            select(Ward.id, select(func.count()).where(Patient.ward_id == Ward.id).scalar_subquery())
        ).all(),
        [("Patient", (), 1)],
    ),
    "two aliases": (
        lambda s: s.execute(
            select(Patient, other := aliased(Patient)).join(other, other.id == Patient.id + 1).where(Patient.id == 1)
        ).all(),
        [("Patient", ((1,), (2,)), 1)],
    ),
    "subquery entity": (
        lambda s: s.scalars(select(aliased(Patient, select(Patient).where(Patient.id > 1).subquery()))).all(),
        [("Patient", ((2,), (3,)), 2)],
    ),
    "cte": (
        lambda s: s.scalars(select(aliased(Patient, select(Patient).where(Patient.id > 1).cte()))).all(),
        [("Patient", ((2,), (3,)), 2)],
    ),
    "union": (lambda s: s.scalars(compound()).all(), [("Patient", ((1,), (2,)), 2)]),
    "yield_per": (
        lambda s: list(s.scalars(select(Patient).order_by(Patient.id).execution_options(yield_per=2))),
        [("Patient", ALL, 3)],
    ),
    "text": (lambda s: s.execute(sa.text("SELECT full_name FROM patient")).all(), [("Patient", (), 3)]),
    "driver text": (
        lambda s: s.connection().exec_driver_sql("SELECT full_name FROM patient").all(),
        [("Patient", (), 3)],
    ),
    "core": (lambda s: s.connection().execute(select(Base.metadata.tables["patient"])).all(), [("Patient", ALL, 3)]),
    "further columns of a subclass": (
        lambda s: s.scalars(select(Person)).one().shift,  # type: ignore[attr-defined] # she is a nurse
        [("Person", (("Ann",),), 1), ("Nurse", (("Ann",),), 1)],
    ),
    "inherited": (lambda s: s.get(Nurse, "Ann"), [("Person", (("Ann",),), 1)]),
    "polymorphic": (
        lambda s: s.scalars(select(sa.orm.with_polymorphic(Person, "*"))).all(),
        [("Person", (("Ann",),), 1)],
    ),
    "history class": (
        lambda s: s.scalars(select(past := sa_audit.history_class(Patient)).where(past.id == 2)).all(),
        [("Patient", ((2,),), 1)],
    ),
    "unaudited": (lambda s: s.get(Ward, 1), []),
    "insert": (lambda s: [s.add(Patient(id=9, name="n")), s.flush()], []),
    "update": (lambda s: s.execute(sa.update(Patient).values(name="q")), []),
}


def test_each_way_to_read_is_recorded(clinic: sa.Engine, recorded: Recorded) -> None:
    """The entry says who and why, and which rows; it is there although nothing was committed."""
    found: dict[str, Any] = {}
    for way, (read, _expected) in WAYS.items():
        with sa_audit.context(actor=way, reason="round"), Session(clinic) as session:
            read(session)
    for entry in recorded():
        assert entry.reason == "round"
        count = "streamed" if entry.row_count is None else entry.row_count
        found.setdefault(str(entry.actor), []).append((entry.entity, tuple(sorted(entry.rows)), count))
    expected: dict[str, Any] = {way: entries for way, (_read, entries) in WAYS.items() if entries}
    if found["yield_per"] == [("Patient", ALL, "streamed")]:
        expected["yield_per"] = found["yield_per"]
    assert found == expected


def test_criteria_of_another_object_are_not_kept(clinic: sa.Engine, recorded: Recorded) -> None:
    """It does not know the policy of its columns."""
    with sa_audit.context(actor="alice"), Session(clinic) as session:
        assert session.scalars(select(OTHER.c.full_name).where(OTHER.c.pin == "secret")).all() == []
    assert [entry.criteria for entry in recorded()] == [None]


def test_a_table_that_only_has_the_name(clinic: sa.Engine, tmp_path: Path) -> None:
    """Another database's table of that name is read as ever, where nothing of the trail stands."""
    other = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE patient (full_name TEXT)")
        connection.exec_driver_sql("INSERT INTO patient VALUES ('x')")
        assert connection.scalars(select(OTHER.c.full_name)).all() == ["x"]
    other.dispose()


def test_returning_is_a_read(clinic: sa.Engine, recorded: Recorded) -> None:
    """Rows that DML returns because the user asked for them are shown to him."""
    with Session(clinic) as session:
        session.execute(sa.delete(Visit).where(Visit.patient_id == 2).returning(Visit)).all()
    (entry,) = recorded()
    assert (entry.entity, entry.rows, entry.row_count) == ("Visit", ((2, 1),), 1)


def test_what_a_read_says(clinic: sa.Engine, recorded: Recorded) -> None:
    """Columns go by attribute names; without the key the criteria are kept, but for columns with a policy."""
    with Session(clinic) as session:
        session.execute(select(Patient.name).where(Patient.name == "n1", Patient.pin == "canary1")).all()
        session.execute(select(Patient.name).where(Patient.name.in_(["n1", "n2"]))).all()
    first, second = recorded()
    assert (first.columns, first.identities, first.row_count) == (("name",), "none", 1)
    assert first.statement.startswith("sha256:")
    assert first.criteria == [
        {"column": "patient.full_name", "operator": "eq", "value": "n1"},
        {"column": "patient.pin", "operator": "eq", "value": "(hidden)"},
    ]
    assert second.criteria[0]["value"] == ["n1", "n2"]
    assert "canary" not in repr(first)


def test_the_parameters_are_those_of_each_execution(clinic: sa.Engine, recorded: Recorded) -> None:
    """A statement that comes from SQLAlchemy's cache keeps its own values."""
    with Session(clinic) as session:
        for name in ("n1", "n2"):
            session.scalar(select(func.count()).where(Patient.name == name))
    assert [entry.criteria[0]["value"] for entry in recorded()] == ["n1", "n2"]


def test_another_actor_reads_again(clinic: sa.Engine, recorded: Recorded) -> None:
    """An object in the identity map is no new disclosure to the same actor, and one to another."""
    with Session(clinic) as session:
        with sa_audit.context(actor="alice"):
            patient = session.get(Patient, 1)
            session.get(Patient, 1)
        with sa_audit.context(actor="bob"):
            assert session.get(Patient, 1) is patient
            visit = session.get_one(Visit, (1, 1))
        with sa_audit.context(actor="eve"):
            assert visit.patient.name == "n1"
    found = [(entry.actor, entry.entity) for entry in recorded()]
    assert found[:3] == [("alice", "Patient"), ("bob", "Patient"), ("bob", "Visit")]
    assert ("eve", "Patient") in found


def test_unflushed_changes_survive_another_actor(clinic: sa.Engine) -> None:
    """Expiring takes what was read, not what was set."""
    with Session(clinic) as session:
        with sa_audit.context(actor="alice"):
            patient = session.get_one(Patient, 1)
            patient.name = "new"
        with sa_audit.context(actor="bob"):
            session.get(Patient, 1)
            session.commit()
        assert patient.name == "new"


def test_reads_in_a_writing_transaction_are_kept(clinic: sa.Engine, recorded: Recorded) -> None:
    """Committed, rolled back, or rolled back to a savepoint: the reading has happened."""
    for number, end in enumerate(("commit", "rollback")):
        with Session(clinic) as session, sa_audit.context(actor=end):
            session.add(Ward(id=number + 10))
            session.flush()
            with session.begin_nested() as savepoint:
                session.get(Patient, 1)
                savepoint.rollback()
            session.get(Patient, 2)
            getattr(session, end)()
    found = sorted((entry.actor or "", entry.rows) for entry in recorded())
    assert found == [("commit", ((1,),)), ("commit", ((2,),)), ("rollback", ((1,),)), ("rollback", ((2,),))]


def test_a_stream_is_recorded_before_it_is_handed_over(clinic: sa.Engine, recorded: Recorded) -> None:
    """Whoever stops midway has seen at least what is recorded; the rows of the batch are there at its first row."""
    with Session(clinic) as session:
        result = session.scalars(select(Patient).order_by(Patient.id).execution_options(yield_per=1))
        assert next(iter(result)).id == 1
        (entry,) = recorded()
        assert (1,) in entry.rows
        result.close()


def test_if_recording_fails_the_read_fails(clinic: sa.Engine) -> None:
    """No row is handed over that is not recorded."""
    with clinic.begin() as connection:
        connection.exec_driver_sql("DROP TABLE audit_access_row")
    with Session(clinic) as session, pytest.raises(sa_audit.CaptureMissing, match="audit_access_row"):
        session.get(Patient, 1)


def test_the_past_is_recorded_like_the_present(clinic: sa.Engine, recorded: Recorded) -> None:
    """A read in a past session is a read."""
    with Session(clinic) as session:
        at = sa_audit.history(session, Patient, 2)[-1].recorded_at
    with sa_audit.context(actor="auditor"), sa_audit.as_of(clinic, at) as past:
        past.get(Patient, 2)
    with sa_audit.context(actor="guest"), Session(clinic) as session, sa_audit.as_of(session, at) as past:
        past.scalars(select(Patient)).all()
    assert [(entry.actor, tuple(sorted(entry.rows))) for entry in recorded()] == [("auditor", ((2,),)), ("guest", ALL)]


async def test_async_reads_and_streams(async_engine: AsyncEngine) -> None:
    """Entities, columns and streams of an AsyncSession are recorded, with no blocking call."""
    async with async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(async_engine) as session:
        await session.run_sync(fill)
        with sa_audit.context(actor="alice"):
            await session.get(Patient, 1)
            stream = await session.stream_scalars(select(Patient).order_by(Patient.id))
            assert [patient.id async for patient in stream] == [1, 2, 3]
        await session.rollback()
        found = await sa_audit.asyncio.reads(session, Patient, 1)
        readers = await sa_audit.asyncio.readers(session, Patient)
    assert [(entry.actor, len(entry.rows)) for entry in found] == [("alice", 1), ("alice", 3)]
    assert readers == [sa_audit.Reader(actor="alice", rows=3, others=0, statements=2)]
