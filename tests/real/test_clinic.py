"""A clinic's web application under audit: an auditor's questions, and what files hold of an erased person.

What is run is the example in `examples/clinic`, on a PostgreSQL cluster of the test's own, whose files are searched.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from examples.clinic import auditor, records, story, work
from examples.clinic.models import Base, Encounter, Patient, use_keys
from sa_audit import PrunedHistory, Retention, anchors
from sa_audit.model import require_audited
from sa_audit.privacy import KeyRing
from sa_audit.proof import Signer
from tests import servers

use_keys(KeyRing({"2026": b"32 random bytes, and not these!!"}))

STAFF = 40

CANARIES = {
    "name": "Quillon Vantrask",
    "married name": "Vantrask-Odegaard",
    "address": "Fossegrimen 77",
    "phone": "90817263",
    "national id": "09076112345",
    "password": "c0ffee5ca1ab1e",
    "note": "quarrel with Brunhilde",
}
"""What can be searched for of the person, and of nobody else."""


@dataclass
class Clinic:
    """A clinic that has worked, and was sealed: what the tests ask, in their order."""

    url: str
    data: Path
    engine: sa.Engine
    signer: Signer
    directory: Path
    patients: int
    key: int = 0
    seen: dict[str, Any] = field(default_factory=dict)

    def seal(self) -> None:
        """Seal what is there."""
        sa_audit.seal(self.engine, self.signer, state=self.directory / "state", anchors=self.anchors(), metadata=Base)

    def anchors(self) -> list[Any]:
        """Give the anchor, opened anew."""
        return [anchors.open(f"file:{self.directory}/anchor")]

    def report(self) -> Any:
        """Verify all of it."""
        return sa_audit.verify(self.engine, self.signer.verifier, anchors=self.anchors(), metadata=Base)

    def found(self) -> dict[str, list[str]]:
        """Search all files of the cluster for what is known of the person, once everything is written to them."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        found: dict[str, list[str]] = {}
        for path in sorted(self.data.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                for what, text in CANARIES.items():
                    if text.encode() in content:
                        found.setdefault(what, []).append(str(path.relative_to(self.data)))
        return found


@contextmanager
def clinic_of(directory: Path, *, patients: int, encounters: int, turns: int, name: str) -> Iterator[Clinic]:
    """Start a cluster, fill it, have everybody work, and seal."""
    settings = {"wal_recycle": "off", "min_wal_size": "32MB", "max_wal_size": "256MB", "archive_mode": "off"}
    run = Path(os.environ[servers._RUN])
    try:
        url = servers.shared(name, lambda home: servers.start_postgresql(18, home, **settings))
    except servers.Unavailable as error:
        pytest.skip(str(error))
    url = url.replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(url, hide_parameters=True)
    Base.metadata.create_all(engine)
    records.fill(engine, patients_number=patients, encounters_number=encounters, staff_number=STAFF)
    clinic = Clinic(url, run / name / "data", engine, Signer.generate("clinic.example/audit"), directory, patients)
    clinic.key, clinic.seen = asyncio.run(story.visit(url, patients=patients, turns=turns))
    clinic.seal()
    yield clinic
    engine.dispose()


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Clinic]:
    """The clinic in small: 300 patients, 900 encounters."""
    name = f"postgresql-clinic-{worker_id}"
    directory = tmp_path_factory.mktemp("clinic")
    with clinic_of(directory, patients=300, encounters=900, turns=2, name=name) as made:
        yield made


@pytest.fixture
def session(clinic: Clinic) -> Iterator[Session]:
    """A session of the auditor's."""
    with sa_audit.context(actor="auditor", reason="yearly audit"), Session(clinic.engine) as session:
        yield session


def today() -> dt.date:
    """The day in UTC, as the trail counts it."""
    return dt.datetime.now(dt.UTC).date()


def test_every_access_in_a_month(clinic: Clinic, session: Session) -> None:
    """With who, and for what purpose; in another month there is none."""
    looked = auditor.who_looked(session, clinic.key, today().replace(day=1), today())
    assert {(access.actor, access.reason) for access in looked} >= {("s04", "treatment"), ("s02", "admission")}
    assert all(access.reason and access.transaction.request_id for access in looked)
    assert auditor.who_looked(session, clinic.key, dt.date(2020, 3, 1), dt.date(2020, 3, 31)) == []


def test_who_read_more_than_200_charts_in_a_day(clinic: Clinic, session: Session) -> None:
    """The snooper, and none of those who did their work."""
    found = auditor.who_looked_at_too_many(session)
    if len({reader.day for reader in sa_audit.readers(session, Patient, per="day")}) > 1:
        pytest.skip("midnight, in UTC, has come while the staff worked")
    assert [reader.actor for reader in found] == [work.SNOOPER]
    assert found[0].rows >= 230
    assert len(sa_audit.readers(session, Patient)) >= STAFF - 1


def test_the_chart_as_the_doctor_saw_it(clinic: Clinic, session: Session) -> None:
    """`as_of` shows at the moment of the access what the web application answered then, and not what is there now."""
    access = next(a for a in sa_audit.reads(session, Patient, clinic.key) if a.actor == "s04")
    assert auditor.as_it_was_seen(clinic.engine, access, clinic.key) == clinic.seen
    assert session.get_one(Patient, clinic.key).name == story.MARRIED != clinic.seen["name"]


def test_proof_of_each_answer(clinic: Clinic, session: Session) -> None:
    """Who, why, what, that it was this patient, and the change of his name: each is checked with no database."""
    access = next(a for a in sa_audit.reads(session, Patient, clinic.key) if a.actor == "s04")
    change = sa_audit.history(session, Patient, clinic.key)[-1]

    def shown(entry: Any, row: int | None = None) -> dict[str, Any]:
        return auditor.check(auditor.proof_of(session, entry, row=row), clinic.signer.verifier)

    who, what, whom = shown(access.transaction), shown(access), shown(access, clinic.key)
    assert (who["actor"], who["reason"]) == ("s04", "treatment")
    assert what["entity"] == "Patient"
    assert whom["identity"] == json.dumps([clinic.key])
    assert whom["access_id"] == access.audit_id
    assert what["audit_tx"] == whom["audit_tx"] == access.transaction.id
    assert str(shown(change)["name"]).startswith("aes-256-gcm:")

    page = sa_audit.trail(session, actor=work.SNOOPER, entity=Patient, operation="read", limit=1000)
    looks = [entry for entry in page.entries if isinstance(entry, sa_audit.Access) and len(entry.rows) == 1]
    assert len({entry.rows for entry in looks}) >= 230
    for entry in looks[:3]:
        assert shown(entry.transaction)["actor"] == work.SNOOPER
        assert shown(entry, entry.rows[0][0])["access_id"] == entry.audit_id


def test_nothing_is_written_but_by_somebody(clinic: Clinic) -> None:
    """A request without a purpose is refused, and without an actor the library refuses the change."""

    async def ask() -> int:
        engine = sa.ext.asyncio.create_async_engine(clinic.url)
        async with work.client_of(story.make_app(engine)) as client:
            answer = await client.get("/patients/1", headers={"authorization": "Bearer s04"})
        await engine.dispose()
        return answer.status_code

    assert asyncio.run(ask()) == 403
    with Session(clinic.engine) as session, pytest.raises(sa_audit.ActorRequired):
        session.execute(sa.update(Patient).where(Patient.id == 1).values(ward="ward 1"))


def test_what_is_left_of_an_erased_person(clinic: Clinic) -> None:
    """Nothing that the cluster holds live: tables, indexes, statistics, WAL; while every proof holds.

    It comes late, for nobody can ask about the person afterwards.
    """
    leave_nothing(clinic)


def test_what_is_older_than_two_years_goes(clinic: Clinic) -> None:
    """And nothing younger: the answers about those that are there, the proofs and the erasure stay as they are."""
    prune(clinic)


@pytest.mark.slow
def test_the_whole_clinic(tmp_path: Path, worker_id: str) -> None:
    """The same with 50,000 patients and 500,000 encounters: the questions are answered, and nothing is left."""
    name = f"postgresql-clinic-whole-{worker_id}"
    with clinic_of(tmp_path, patients=50_000, encounters=500_000, turns=25, name=name) as whole:
        with Session(whole.engine) as session, sa_audit.context(actor="auditor"):
            assert [reader.actor for reader in auditor.who_looked_at_too_many(session)] == [work.SNOOPER]
            access = next(a for a in sa_audit.reads(session, Patient, whole.key) if a.actor == "s04")
            assert auditor.as_it_was_seen(whole.engine, access, whole.key) == whole.seen
            text = auditor.proof_of(session, access, row=whole.key)
            assert auditor.check(text, whole.signer.verifier)["access_id"] == access.audit_id
            assert session.scalar(sa.select(sa.func.count()).select_from(Encounter)) > 500_000  # type: ignore[operator]
        leave_nothing(whole)
        prune(whole)


def leave_nothing(clinic: Clinic) -> None:
    """Erase the person, have PostgreSQL clear up, and search its files."""
    before = clinic.found()
    assert set(before) == set(CANARIES), "the search must find what is there"
    with clinic.engine.connect() as connection:
        wrapped = connection.scalar(
            sa.text("SELECT wrapped FROM audit_person_key WHERE subject = :key"), {"key": str(clinic.key)}
        )
    said = asyncio.run(story.forget(clinic.url, clinic.key))
    assert any("backups, WAL" in sentence for sentence in said["remains"])
    tables = [table.name for table in Base.metadata.sorted_tables]
    with psycopg.connect(clinic.url.replace("+psycopg", ""), autocommit=True) as connection:
        assert set(clinic.found()) > {"name"}, "until VACUUM the old rows are there"
        for table in tables:
            connection.execute(f"ANALYZE {table}")  # type: ignore[arg-type]
            connection.execute(f"VACUUM FULL {table}")  # type: ignore[arg-type]
        connection.execute("VACUUM FULL pg_statistic")
        for _round in range(2):
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
    assert clinic.found() == {}
    key_files = [path for path in clinic.data.rglob("*") if path.is_file() and bytes(wrapped) in path.read_bytes()]
    assert key_files == []

    with Session(clinic.engine) as session, sa_audit.context(actor="auditor"):
        first = sa_audit.history(session, Patient, clinic.key)[0]
        assert first.state["name"] is first.state["address"] is sa_audit.Erased
        assert {access.actor for access in sa_audit.reads(session, Patient, clinic.key)} >= {"s02", "s04"}
        with sa_audit.as_of(clinic.engine, first.recorded_at) as past:
            assert past.get_one(Patient, clinic.key).name is sa_audit.Erased  # type: ignore[comparison-overlap]
        assert session.get_one(Patient, clinic.key).name == "(erased)"
        notes = session.scalars(sa.select(Encounter.note).where(Encounter.patient_id == clinic.key)).all()
        assert set(notes) == {None}
        other = sa_audit.history(session, Patient, 1)[0].state["name"]
        assert other is not sa_audit.Erased
    clinic.seal()
    report = clinic.report()
    assert report.ok, report


def prune(clinic: Clinic) -> None:
    """Prune nothing, as nothing is two years old, and then everything, as if it were."""

    def pruned(**how: Any) -> dict[str, Any]:
        with sa_audit.context(actor="s01", reason="retention"):
            return {one.table: one for one in sa_audit.prune(clinic.engine, metadata=Base, **how)}

    assert {(one.asked, one.carried) for one in pruned(dry_run=True).values()} == {(0, 0)}
    with Session(clinic.engine) as session, sa_audit.context(actor="auditor"):
        before = sa_audit.history(session, Patient, 1)
        counted = {model: count_of(session, model) for model in (Patient, Encounter)}
    with expired(Patient, Encounter):
        asked = pruned()
        assert {table: one.erased for table, one in asked.items()} == {"patient": 0, "encounter": 0}
        clinic.seal()
        erased = pruned()
    assert {table: one.erased for table, one in erased.items()} == {table: one.asked for table, one in asked.items()}
    assert erased["patient"].erased >= counted[Patient]
    clinic.seal()
    report = clinic.report()
    assert report.ok, report

    with Session(clinic.engine) as session, sa_audit.context(actor="auditor"):
        after = sa_audit.history(session, Patient, 1)
        assert (after[0].operation, after[0].state) == ("baseline", before[-1].state)
        text = auditor.proof_of(session, after[0])
        assert auditor.check(text, clinic.signer.verifier)["audit_op"] == "B"
        erased_name = sa_audit.history(session, Patient, clinic.key)[-1].state["name"]
        assert erased_name is sa_audit.Erased or erased_name == "(erased)"
        assert {access.actor for access in sa_audit.reads(session, Patient, clinic.key)} >= {"s02", "s04"}
        assert list(sa_audit.reconcile(session, Patient)) == []
    with (
        sa_audit.context(actor="auditor"),
        pytest.raises(PrunedHistory),
        sa_audit.as_of(clinic.engine, before[0].recorded_at) as past,
    ):
        past.get(Patient, 1)
    now = dt.datetime.now(dt.UTC)
    with sa_audit.context(actor="auditor"), sa_audit.as_of(clinic.engine, now) as past:
        assert {model: count_of(past, model) for model in counted} == counted
    assert clinic.found() == {}


@contextmanager
def expired(*models: Any) -> Iterator[None]:
    """Have the policy of models keep nothing that is recorded by now."""
    tables = [require_audited(model.__table__) for model in models]
    options = [audited.options for audited in tables]
    for audited in tables:
        audited.options = replace(audited.options, retention=Retention(keep=dt.timedelta(microseconds=1)))
    try:
        yield
    finally:
        for audited, former in zip(tables, options, strict=True):
            audited.options = former


def count_of(session: Session, model: Any) -> int:
    """Count the rows of a model, in the present or the past that the session sees."""
    return session.scalars(sa.select(sa.func.count()).select_from(model)).one()
