"""Reads that are recorded although the reader's own connection can't write, ends badly, or is one of many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, joinedload

import sa_audit
import sa_audit.asyncio
from sa_audit import Access, AuditOptions

from .conftest import fill
from .models import Base, Patient

Recorded = Callable[..., list[Access]]


@pytest.mark.needs("concurrent-writers")
def test_a_read_only_transaction_is_recorded(clinic: sa.Engine, recorded: Recorded) -> None:
    """The record has a connection of its own, which may write."""
    options = {"postgresql": "SET TRANSACTION READ ONLY", "mariadb": "SET SESSION TRANSACTION READ ONLY"}
    with sa_audit.context(actor="alice"), Session(clinic) as session:
        session.execute(sa.text(options.get(clinic.dialect.name, options["mariadb"])))
        if clinic.dialect.name != "postgresql":
            session.commit()
        session.get_one(Patient, 1)
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read[- ]only"):
            session.execute(sa.text("UPDATE ward SET id = 1"))
        session.rollback()
        if clinic.dialect.name != "postgresql":
            session.execute(sa.text("SET SESSION TRANSACTION READ WRITE"))
    assert [(entry.actor, entry.rows) for entry in recorded()] == [("alice", ((1,),))]


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("reads", ["durable", "relaxed"])
def test_a_server_that_only_reads_is_recorded_elsewhere(engine: sa.Engine, make_engine: Any, reads: Any) -> None:
    """With `record_engine`, reads on a server that takes no writes, as a replica, are recorded on another one."""
    metadata = sa.MetaData()
    sa_audit.configure(metadata, record_engine=engine)
    chart = sa.Table("chart", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(chart, AuditOptions(reads=reads))
    metadata.create_all(engine)
    replica = make_engine(connect_args={"options": "-c default_transaction_read_only=on"})
    with engine.begin() as connection:
        connection.execute(chart.insert(), [{"id": number} for number in (1, 2, 3)])
    with sa_audit.context(actor="alice"), replica.connect() as connection:
        connection.execute(select(chart).where(chart.c.id == 1)).all()
        list(connection.execute(select(chart), execution_options={"yield_per": 2}))
    with Session(engine) as session:
        found = sa_audit.reads(session, chart, 1)
    assert [(entry.actor, len(entry.rows)) for entry in found] == [("alice", 1), ("alice", 3)]


@pytest.mark.only_on("postgresql")
def test_a_server_that_only_reads_and_nowhere_to_record(clinic: sa.Engine, make_engine: Any) -> None:
    """Without it the read fails: nothing is shown that is not recorded."""
    replica = make_engine(connect_args={"options": "-c default_transaction_read_only=on"})
    with Session(replica) as session, pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
        session.get(Patient, 1)


@pytest.mark.only_on("postgresql")
def test_a_statement_that_the_server_cancels(clinic: sa.Engine, recorded: Recorded) -> None:
    """What showed nothing leaves nothing, and the session goes on."""
    with sa_audit.context(actor="alice"), Session(clinic) as session:
        session.execute(sa.text("SET LOCAL statement_timeout = 50"))
        with pytest.raises(sa.exc.OperationalError, match="statement timeout"):
            session.execute(select(Patient, sa.func.pg_sleep(5))).all()
        session.rollback()
        session.get_one(Patient, 2)
    assert [entry.rows for entry in recorded()] == [((2,),)]


@pytest.mark.only_on("postgresql")
def test_a_lost_connection_of_the_record_fails_one_read(clinic: sa.Engine, recorded: Recorded) -> None:
    """A read whose record can't be written fails; the next one has a new connection."""
    with sa_audit.context(actor="alice"), Session(clinic) as session:
        session.get_one(Patient, 1)
        own = session.scalar(sa.text("SELECT pg_backend_pid()"))
        session.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> :own AND backend_type = 'client backend'"
            ),
            {"own": own},
        )
        with pytest.raises(sa.exc.DBAPIError) as caught:
            session.get_one(Patient, 2)
        assert caught.value.connection_invalidated
        session.rollback()
        session.get_one(Patient, 3)
    assert [entry.rows for entry in recorded()] == [((1,),), ((3,),)]


@pytest.mark.only_on("postgresql")
def test_a_record_in_a_transaction_is_refused(make_engine: Any) -> None:
    """Whoever takes the record's connection out of AUTOCOMMIT is told, and shown nothing."""
    engine = make_engine()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        fill(session)

    @sa.event.listens_for(engine, "checkout")
    def _begin(driver: Any, record: Any, proxy: Any) -> None:
        driver.autocommit = False

    with Session(engine) as session, pytest.raises(sa_audit.UnauditedWrite, match="not in AUTOCOMMIT"):
        session.get(Patient, 1)


@pytest.mark.needs("concurrent-writers")
def test_each_thread_reads_as_its_own_actor(clinic: sa.Engine, recorded: Recorded) -> None:
    """Threads that read at the same time are not taken for each other."""
    barrier = threading.Barrier(4)

    def read(number: int) -> None:
        barrier.wait()
        for _round in range(10):
            with sa_audit.context(actor=f"a{number}"), Session(clinic) as session:
                session.get_one(Patient, number % 3 + 1)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {(entry.actor, entry.rows) for entry in recorded()}
    assert found == {(f"a{number}", ((number % 3 + 1,),)) for number in range(4)}
    assert len(recorded()) == 40


async def _clinic(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        await session.run_sync(fill)


@pytest.mark.needs("concurrent-writers")
async def test_each_task_reads_as_its_own_actor(async_engine: AsyncEngine) -> None:
    """Tasks of one loop that read at the same time are not taken for each other."""
    await _clinic(async_engine)

    async def read(number: int) -> None:
        for _round in range(5):
            with sa_audit.context(actor=f"a{number}"):
                async with AsyncSession(async_engine) as session:
                    await session.get_one(Patient, number % 3 + 1)

    await asyncio.gather(*(read(number) for number in range(8)))
    async with AsyncSession(async_engine) as session:
        found = [entry for key in (1, 2, 3) for entry in await sa_audit.asyncio.reads(session, Patient, key)]
    assert {(entry.actor, entry.rows) for entry in found} == {(f"a{n}", ((n % 3 + 1,),)) for n in range(8)}
    assert len(found) == 40


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
async def test_each_driver_records_at_once(make_async_engine: Callable[..., AsyncEngine], driver: str) -> None:
    """Keys, several models in one statement, criteria and NULLs reach PostgreSQL in each driver's own form."""
    engine = make_async_engine(driver)
    await _clinic(engine)
    with sa_audit.context(actor="alice", reason="50 %(x)s %", extra="\u00e9\U0001f600"):
        async with AsyncSession(engine) as session:
            await session.get_one(Patient, 1)
            joined = select(Patient).options(joinedload(Patient.visits))
            (await session.scalars(joined)).unique().all()
            await session.scalar(select(sa.func.count()).where(Patient.name == "n1"))
    async with AsyncSession(engine) as session:
        page = await sa_audit.asyncio.trail(session, operation="read", base=Base)
    found = [entry for entry in page.entries if isinstance(entry, Access)]
    assert [(entry.entity, len(entry.rows), entry.row_count) for entry in found] == [
        ("Patient", 1, 1),
        ("Patient", 3, 3),
        ("Visit", 3, 3),
        ("Patient", 0, 1),
    ]
    assert found[-1].criteria == [{"column": "patient.full_name", "operator": "eq", "value": "n1"}]
    assert {entry.reason for entry in found} == {"50 %(x)s %"}
    assert found[0].transaction.context == {"extra": "\u00e9\U0001f600"}


@pytest.mark.only_on("postgresql")
async def test_a_task_that_is_cancelled_while_it_records(async_engine: AsyncEngine) -> None:
    """It is given no row, its half-way connection is not used again, and others go on."""
    await _clinic(async_engine)
    shown: list[Patient] = []

    async def read() -> None:
        with sa_audit.context(actor="alice"):
            async with AsyncSession(async_engine) as session:
                shown.append(await session.get_one(Patient, 1))

    async with async_engine.begin() as locking:
        await locking.execute(sa.text("LOCK TABLE audit_access IN EXCLUSIVE MODE"))
        task = asyncio.create_task(read())
        waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'audit_access'::regclass")
        while not await locking.scalar(waiting):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert shown == []
    await read()
    assert [patient.id for patient in shown] == [1]
    async with AsyncSession(async_engine) as session:
        assert "alice" in [entry.actor for entry in await sa_audit.asyncio.reads(session, Patient, 1)]
