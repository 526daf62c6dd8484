"""Keys of persons under threads, tasks, rollback and cancellation: one key a person, no value lost or in the clear."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import sa_audit
import sa_audit.asyncio
from sa_audit.model import Erased
from tests.privacy.models import Base, Note, Patient
from tests.privacy.test_encrypt import CANARY, forget

KEYS = Base.metadata.tables["audit_person_key"]
EVENTS = Base.metadata.tables["audit_key"]


def keys_of(engine: sa.Engine) -> list[tuple[str, int]]:
    """Give each person with a key, and how often one was recorded as created for that key."""
    made = sa.select(sa.func.count()).where(EVENTS.c.name == KEYS.c.name, EVENTS.c.event == "created").scalar_subquery()
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(KEYS.c.subject, made).order_by(KEYS.c.subject))]


def all_at_once(count: int, work: Any) -> list[BaseException]:
    """Run work in threads that begin together; give what they raised."""
    begin, failed = threading.Barrier(count), []

    def one(number: int) -> None:
        try:
            begin.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.mark.needs("concurrent-writers")
def test_threads_that_meet_new_persons_at_once(wallet: sa.Engine) -> None:
    """In opposite orders, each in one transaction: nobody dies in a deadlock over keys, and each person has one key."""
    forget()

    def work(number: int) -> None:
        persons = range(6) if number % 2 else range(5, -1, -1)
        with sa_audit.context(actor=f"t{number}"), Session(wallet) as session:
            for person in persons:
                session.add(Note(id=1000 + number * 100 + person, patient_id=person, size=person))
                session.flush()
            session.commit()

    assert all_at_once(6, work) == []
    assert keys_of(wallet) == [(str(person), 1) for person in range(6)]
    with Session(wallet) as session:
        for number in range(6):
            for person in range(6):
                (made,) = sa_audit.history(session, Note, 1000 + number * 100 + person)
                assert (made.state["size"], made.actor) == (person, f"t{number}")


@pytest.mark.needs("concurrent-writers")
def test_a_snapshot_that_is_older_than_the_key(wallet: sa.Engine) -> None:
    """A transaction at REPEATABLE READ writes and reads values of a person who got a key after it began."""
    forget()
    engine = wallet.execution_options(isolation_level="REPEATABLE READ")
    with Session(engine) as old, Session(wallet) as new:
        assert old.scalars(sa.select(Note.id)).all() == []
        new.add(Note(id=1, patient_id=7, size=1))
        new.commit()
        old.add(Note(id=2, patient_id=7, size=2))
        old.flush()
        forget()
        assert sa_audit.history(old, Note, 2)[0].state["size"] == 2
        old.commit()
    assert keys_of(wallet) == [("7", 1)]


def test_a_rollback_loses_no_key_that_others_use(wallet: sa.Engine) -> None:
    """The transaction that met a person first is rolled back, also to a savepoint; what the next one writes opens."""
    with Session(wallet) as session:
        session.add(Note(id=1, patient_id=1, size=1))
        session.flush()
        session.rollback()
        forget()
        session.add(Note(id=2, patient_id=1, size=2))
        session.flush()
        with session.begin_nested() as savepoint:
            session.add(Note(id=3, patient_id=2, size=3))
            session.flush()
            savepoint.rollback()
        session.add(Note(id=4, patient_id=2, size=4))
        session.commit()
        forget()
        assert [sa_audit.history(session, Note, number)[0].state["size"] for number in (2, 4)] == [2, 4]
        assert sa_audit.history(session, Note, 1) == sa_audit.history(session, Note, 3) == []
    assert keys_of(wallet) == [("1", 1), ("2", 1)]


def test_erased_and_written_again_in_one_transaction(wallet: sa.Engine) -> None:
    """The old values are gone, the new ones stand under a new key, and nobody waits for himself."""
    with Session(wallet) as session:
        session.add(Note(id=1, patient_id=1, size=1))
        session.commit()
        sa_audit.erase(session, 1)
        session.add(Note(id=2, patient_id=1, size=2))
        session.flush()
        sa_audit.record(session, "asked", data={"n": 1}, subject=1, durable=True, base=Base)
        session.commit()
        forget()
        assert [sa_audit.history(session, Note, number)[0].state["size"] for number in (1, 2)] == [Erased, 2]


# -- tasks -------------------------------------------------------------------------------


@pytest.fixture
async def clinic(async_engine: AsyncEngine) -> AsyncEngine:
    """An async engine to the tables."""
    async with async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    forget()
    return async_engine


async def test_an_async_session_encrypts(clinic: AsyncEngine) -> None:
    """Flush, statement, history, `as_of`, reconcile and erasure through `AsyncSession`."""
    async with AsyncSession(clinic) as session:
        patient = Patient(id=1, name=CANARY, ward="a")
        session.add(patient)
        await session.commit()
        await session.refresh(patient)
        patient.name = "Bob"
        await session.commit()
        await session.execute(sa.update(Patient).where(Patient.id == 1).values(name=Patient.name + "by"))
        await session.commit()
        forget()
        changes = await sa_audit.asyncio.history(session, Patient, 1)
        assert [each.diff.get("name") for each in changes] == [(None, CANARY), (CANARY, "Bob"), ("Bob", "Bobby")]
        assert await sa_audit.asyncio.reconcile(session, Patient) == []
        await session.rollback()
        for table in ("patient_history", "audit_key", "audit_person_key", "audit_transaction"):
            rows = (await session.execute(sa.text(f"SELECT * FROM {table}"))).all()
            assert CANARY not in repr(rows)
        done = await sa_audit.asyncio.erase(session, 1, "asked for")
        await session.commit()
        assert len(done.keys) == 1
        assert (await sa_audit.asyncio.history(session, Patient, 1))[0].state["name"] is Erased


@pytest.mark.needs("concurrent-writers")
async def test_tasks_that_meet_new_persons_at_once(clinic: AsyncEngine) -> None:
    """Each under its own actor; one of them is cancelled in the middle, and leaves neither row nor history."""
    waiting = asyncio.Event()

    async def one(number: int, *, stay: bool = False) -> None:
        with sa_audit.context(actor=f"t{number}"):
            async with AsyncSession(clinic) as session:
                for person in range(3) if number % 2 else range(2, -1, -1):
                    session.add(Note(id=1000 + number * 10 + person, patient_id=person, size=person))
                    await session.flush()
                if stay:
                    waiting.set()
                    await asyncio.sleep(60)
                await session.commit()

    cancelled = asyncio.create_task(one(9, stay=True))
    await waiting.wait()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.gather(*(one(number) for number in range(4)))
    forget()
    async with AsyncSession(clinic) as session:
        for number in range(4):
            for person in range(3):
                (made,) = await sa_audit.asyncio.history(session, Note, 1000 + number * 10 + person)
                assert (made.state["size"], made.actor) == (person, f"t{number}")
        assert await sa_audit.asyncio.history(session, Note, 1090) == []


@pytest.mark.only_on("postgresql")
async def test_a_statement_that_is_cancelled(clinic: AsyncEngine) -> None:
    """A statement stopped by the server's time limit goes with what was recorded before it; the next one is whole."""
    async with AsyncSession(clinic) as session:
        session.add(Note(id=1, patient_id=1, size=1))
        await session.flush()
        await session.execute(sa.text("SET LOCAL statement_timeout = '50ms'"))
        slow = sa.update(Note).where(sa.func.pg_sleep(5).is_not(None)).values(size=2)
        with pytest.raises(sa.exc.DBAPIError, match="timeout"):
            await session.execute(slow)
        await session.rollback()
        session.add(Note(id=2, patient_id=1, size=3))
        await session.commit()
        forget()
        assert await sa_audit.asyncio.history(session, Note, 1) == []
        assert (await sa_audit.asyncio.history(session, Note, 2))[0].state["size"] == 3
