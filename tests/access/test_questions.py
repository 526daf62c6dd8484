"""`reads`, `readers`, and looks into the trail, which are reads themselves."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, ConfigurationError, NotAudited, Reader
from sa_audit.ddl.backend import backend_for
from sa_audit.testing import unguarded

from .models import Base, Patient, Person, Visit, Ward


def visit_charts(engine: sa.Engine) -> None:
    """Have alice read one chart twice, bob all of them, and carol none but their number."""
    with Session(engine) as session, sa_audit.context(actor="alice", reason="round"):
        patient = session.get_one(Patient, 1)
        session.refresh(patient)
    with Session(engine) as session, sa_audit.context(actor="bob"):
        session.scalars(select(Patient)).all()
    with Session(engine) as session, sa_audit.context(actor="carol"):
        session.scalar(select(sa.func.count()).select_from(Patient))


def test_who_looked_at_a_row(clinic: sa.Engine) -> None:
    """All statements that showed it, oldest first, within bounds; an object asks about its own row."""
    visit_charts(clinic)
    with Session(clinic) as session:
        found = sa_audit.reads(session, Patient, 1)
        assert [(read.actor, read.reason) for read in found] == [("alice", "round"), ("alice", "round"), ("bob", None)]
        assert [read.columns for read in found[:1]] == [("id", "name", "pin", "ward_id")]
        assert [read.actor for read in sa_audit.reads(session, Patient, 2)] == ["bob"]
        assert [read.actor for read in sa_audit.reads(session, Patient, 1, since=found[2].recorded_at)] == ["bob"]
        assert len(sa_audit.reads(session, Patient, 1, until=found[1].recorded_at)) == 2
        assert sa_audit.reads(session, Patient, 1, until=dt.date(2020, 1, 1)) == []
        assert sa_audit.reads(session, Patient, 99) == []
        assert [read.actor for read in sa_audit.reads(session, session.get_one(Patient, 3))][:1] == ["bob"]


def test_who_read_how_much(clinic: sa.Engine) -> None:
    """Different rows are counted once; rows of aggregates apart."""
    visit_charts(clinic)
    with Session(clinic) as session:
        assert sa_audit.readers(session, Patient) == [
            Reader(actor="bob", rows=3, others=0, statements=1),
            Reader(actor="alice", rows=1, others=0, statements=2),
            Reader(actor="carol", rows=0, others=1, statements=1),
        ]
        assert [reader.actor for reader in sa_audit.readers(session, Patient, at_least=2)] == ["bob"]
        assert sa_audit.readers(session, Patient, until=dt.date(2020, 1, 1)) == []
        assert sa_audit.readers(session, Person) == []


def test_who_read_how_much_in_a_day(clinic: sa.Engine) -> None:
    """Each day in UTC is counted by itself: many on one day are found, as many on two days are not."""
    visit_charts(clinic)
    with unguarded(clinic), clinic.begin() as connection:
        for name in ("audit_access", "audit_access_row"):
            table = Base.metadata.tables[name]
            connection.execute(table.update().values(audit_at=dt.datetime(2026, 3, 9, 23, 59, 59, tzinfo=dt.UTC)))
    visit_charts(clinic)
    with Session(clinic) as session:
        found = sa_audit.readers(session, Patient, per="day")
        today = max(reader.day for reader in found if reader.day is not None)
        assert [(reader.actor, reader.day, reader.rows) for reader in found] == [
            ("bob", dt.date(2026, 3, 9), 3),
            ("bob", today, 3),
            ("alice", dt.date(2026, 3, 9), 1),
            ("alice", today, 1),
            ("carol", dt.date(2026, 3, 9), 0),
            ("carol", today, 0),
        ]
        assert {reader.actor for reader in sa_audit.readers(session, Patient, per="day", at_least=4)} == set()
        assert sa_audit.readers(session, Patient)[0] == Reader(actor="bob", rows=3, others=0, statements=2)
        with pytest.raises(ConfigurationError, match="per='week'"):
            sa_audit.readers(session, Patient, per="week")  # type: ignore[arg-type]


def test_the_trail_finds_reads_of_a_row(clinic: sa.Engine) -> None:
    """Filters of the trail hold for reads."""
    visit_charts(clinic)
    with Session(clinic) as session:
        wanted: dict[str, Any] = {"entity": Patient, "operation": "read"}
        assert [e.actor for e in sa_audit.trail(session, identity=2, **wanted).entries] == ["bob"]
        assert len(sa_audit.trail(session, actor="carol", **wanted).entries) == 1
        kinds = {entry.operation for entry in sa_audit.trail(session, entity=Patient, identity=1).entries}
        assert kinds == {"insert", "read"}


def test_a_look_into_the_trail_is_one_entry(clinic: sa.Engine) -> None:
    """For each call, with the rows that it told about; also where there was nothing to tell."""
    with sa_audit.context(actor="auditor"), Session(clinic) as session:
        change = sa_audit.history(session, Patient, 1)[0]
        sa_audit.blame(session, Patient, 2)
        sa_audit.diff(session, Patient, 3, change.recorded_at, change.recorded_at)
        sa_audit.history(session, Patient, 99)
        sa_audit.transaction(session, change.transaction.id, base=Base)
        session.rollback()
        found = sa_audit.trail(session, operation="read", base=Base).entries
    looks = [(e.statement, e.rows) for e in found if isinstance(e, sa_audit.Access) and e.entity == "Patient"]
    assert looks == [
        ("history()", ((1,),)),
        ("blame()", ((2,),)),
        ("diff()", ((3,),)),
        ("history()", ((99,),)),
        ("transaction()", ((1,), (2,), (3,))),
    ]


def looks(engine: sa.Engine, name: str) -> list[sa_audit.Access]:
    """Give the entries of a function's looks."""
    with Session(engine) as session:
        found = sa_audit.trail(session, operation="read", base=Base, limit=1000).entries
    return [entry for entry in found if isinstance(entry, sa_audit.Access) and entry.statement == name]


def bypass(engine: sa.Engine, *statements: str) -> None:
    """Change rows past the library."""
    driver = engine.raw_connection()
    try:
        for statement in statements:
            driver.cursor().execute(statement)
        driver.commit()
    finally:
        driver.close()


def test_reconcile_is_one_look(clinic: sa.Engine) -> None:
    """However many rows it compares: one entry, with the rows that it names, also if that is none."""
    with sa_audit.context(actor="auditor"), Session(clinic) as session:
        assert list(sa_audit.reconcile(session, Patient)) == []
    bypass(clinic, "UPDATE patient SET full_name = 'x' WHERE id = 2")
    with sa_audit.context(actor="auditor"), Session(clinic) as session:
        assert [found.identity for found in sa_audit.reconcile(session, Patient)] == [(2,)]
    with Session(clinic) as session:
        found = sa_audit.trail(session, operation="read", base=Base).entries
        reads = sa_audit.reads(session, Patient, 2)
    assert [(one.statement, one.actor, one.rows, one.row_count) for one in found] == [
        ("reconcile()", "auditor", (), 0),
        ("reconcile()", "auditor", ((2,),), 1),
    ]
    assert [read.statement for read in reads if read.actor == "auditor"] == ["reconcile()"]


def test_reconcile_names_rows_before_they_are_handed_over(clinic: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows one batch after the other; who stops has seen no more than is recorded."""
    monkeypatch.setattr("sa_audit.query.looks.BATCH", 2)
    whole = not backend_for(clinic.dialect).reads_while_others_write
    bypass(clinic, "UPDATE patient SET full_name = 'x'")
    with Session(clinic) as session:
        for number, discrepancy in enumerate(sa_audit.reconcile(session, Patient), 1):
            (one,) = looks(clinic, "reconcile()")
            assert one.identities == ("known" if whole else "streamed")
            assert discrepancy.identity in (one.rows or ())
            assert len(one.rows or ()) == (3 if whole or number > 2 else 2)


def test_a_reconcile_that_can_not_be_recorded_fails(clinic: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is handed over without its record."""
    bypass(clinic, "UPDATE patient SET full_name = 'x' WHERE id = 2")
    with unguarded(clinic), clinic.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit_access_row RENAME TO gone"))
    with Session(clinic) as session, pytest.raises(sa_audit.CaptureMissing):
        next(sa_audit.reconcile(session, Patient))


@pytest.mark.only_on("sqlite")
def test_what_can_not_be_asked(clinic: sa.Engine) -> None:
    """A model without `reads` and a number that is none are named."""
    metadata = sa.MetaData()
    thing = sa.Table("thing", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(thing, AuditOptions())
    with Session(clinic) as session:
        with pytest.raises(NotAudited, match="reads of thing are not recorded"):
            sa_audit.reads(session, thing, 1)
        with pytest.raises(NotAudited, match="Ward is not audited"):
            sa_audit.readers(session, Ward)
        with pytest.raises(ConfigurationError, match="at_least='many'"):
            sa_audit.readers(session, Patient, at_least="many")  # type: ignore[arg-type]
        with pytest.raises(NotAudited, match="give the key"):
            sa_audit.reads(session, Patient)


def test_all_reads_of_a_row_in_a_month_are_an_index_lookup(clinic: sa.Engine) -> None:
    """The question goes by the index over table, key and moment."""
    index = {tuple(column.name for column in i.columns) for i in Base.metadata.tables["audit_access_row"].indexes}
    assert ("table_name", "identity", "audit_at") in index
    names = {i["name"] for i in sa.inspect(clinic).get_indexes("audit_access_row")}
    assert "ix_audit_access_row_row" in names


@pytest.mark.needs("concurrent-writers")
def test_readers_do_not_wait_for_each_other(clinic: sa.Engine, make_engine: Any) -> None:
    """With more threads than connections in the session's pool nobody is stuck: the record has a pool of its own."""
    engine = make_engine(pool_size=2, max_overflow=0, pool_timeout=10)
    failed: list[BaseException] = []

    def read(number: int) -> None:
        try:
            for _round in range(5):
                with sa_audit.context(actor=f"a{number}"), Session(engine) as session:
                    session.get_one(Patient, 1)
                    session.scalars(select(Visit)).all()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with Session(engine) as session:
        assert len(sa_audit.reads(session, Patient, 1)) == 30


@pytest.mark.only_on("sqlite")
def test_tables_of_reads_come_with_the_first_model_that_wants_them() -> None:
    """A MetaData none of whose models records reads has no such tables."""
    metadata = sa.MetaData()
    sa_audit.track(sa.Table("a", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    assert "audit_access" not in metadata.tables
    table = sa.Table("b", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table, AuditOptions(reads=True))
    assert {"audit_access", "audit_access_row"} <= set(metadata.tables)
    assert all(sa_audit.is_trail_table(metadata.tables[name]) for name in ("audit_access", "audit_access_row"))
