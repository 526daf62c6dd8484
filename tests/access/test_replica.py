"""Reads on a hot standby of a primary, both of the test's own: recorded on the primary, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import AuditOptions
from tests import servers
from tests.seal.test_clusters import Cluster, clusters  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


def follows(primary: sa.Engine, standby: sa.Engine) -> bool:
    """Tell whether a standby has everything that its primary has written."""
    with primary.connect() as connection:
        written = connection.scalar(sa.text("SELECT pg_current_wal_lsn()::text"))
    with standby.connect() as connection:
        query = sa.text("SELECT pg_last_wal_replay_lsn() >= CAST(:written AS pg_lsn)")
        return bool(connection.scalar(query, {"written": written}))


def test_reads_on_a_hot_standby(clusters: Callable[[str], Cluster]) -> None:  # noqa: F811
    """With `record_engine` on the primary each way to read is recorded there; without it nothing is shown."""
    primary = clusters("primary").make()
    writing = sa.create_engine(primary.url)

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, record_engine=writing)

    class Chart(sa_audit.Audited, Base):
        __tablename__ = "chart"
        __audit__ = AuditOptions(reads=True)

        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    Base.metadata.create_all(writing)
    with sa_audit.context(actor="registry"), Session(writing) as session:
        session.add_all(Chart(id=number, text="x") for number in (1, 2))
        session.commit()
    standby = clusters("standby")
    standby.port = primary.standby(standby.directory).port
    standby.start()
    reading = sa.create_engine(standby.url)
    assert servers._wait_until(lambda: follows(writing, reading), 30)

    with sa_audit.context(actor="dr. who", reason="round"), Session(reading) as session:
        assert session.scalar(sa.text("SELECT pg_is_in_recovery()")) is True
        session.get_one(Chart, 1)
        session.scalars(sa.select(Chart)).all()
        list(session.scalars(sa.select(Chart).order_by(Chart.id).execution_options(yield_per=1)))
        sa_audit.history(session, Chart, 1)
    with Session(writing) as session:
        found = [(read.actor, read.reason, len(read.rows)) for read in sa_audit.reads(session, Chart, 1)]
    assert found == [("dr. who", "round", rows) for rows in (1, 2, 2, 1)]

    class Alone(DeclarativeBase):
        pass

    class Same(sa_audit.Audited, Alone):
        __tablename__ = "chart"
        __audit__ = AuditOptions(reads=True)

        id: Mapped[int] = mapped_column(primary_key=True)

    other = sa.create_engine(standby.url)
    with Session(other) as session, pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
        session.get(Same, 1)
    for engine in (other, reading, writing):
        engine.dispose()
