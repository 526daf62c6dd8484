"""What a moment means on each database: settled or not, before the records, exact at a snapshot, one for all."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, CaptureMissing, ConfigurationError, InvalidMoment, track
from sa_audit.query.timetravel import as_of
from tests.databases import Database
from tests.standing import Tables

from .timetravel_zoo import pause

pytestmark = pytest.mark.both_captures


class Base(DeclarativeBase):
    pass


class Stall(Audited, Base):
    __tablename__ = "stall"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))


NAMES = sa.select(Stall.name).order_by(Stall.id)


def add(engine: sa.Engine, number: int, name: str) -> None:
    """Commit one row."""
    with Session(engine) as session:
        session.add(Stall(id=number, name=name))
        session.commit()


@pytest.fixture
def market(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine to a market with one stall."""
    tables(engine, Base.metadata)
    add(engine, 1, "one")
    return engine


def test_moment_before_the_table_was_tracked(engine: sa.Engine) -> None:
    """Before the records begin nothing is known, which is not the same as nothing; other tables don't matter."""
    early = pause()
    Base.metadata.create_all(engine)
    with as_of(engine, early) as past:
        with pytest.raises(
            InvalidMoment, match=r"table stall has no records as early as .* tracked since 20"
        ) as raised:
            past.scalars(NAMES).all()
        assert early.isoformat() in str(raised.value)
        assert past.scalar(sa.select(sa.literal(1))) == 1


def test_table_tracked_later(market: sa.Engine) -> None:
    """A table that is tracked from some day on can be asked about from that day on, and not before."""
    metadata = sa.MetaData()
    plain = sa.Table("plain", metadata, sa.Column("id", sa.Integer, primary_key=True))
    metadata.create_all(market)
    early = pause()
    track(plain)
    metadata.create_all(market)
    late = pause()
    with as_of(market, early) as past, pytest.raises(InvalidMoment, match="table plain"):
        past.execute(sa.select(plain)).all()
    with as_of(market, late) as past:
        assert past.execute(sa.select(plain)).all() == []


@pytest.mark.needs("snapshots")
def test_snapshot_before_the_table_was_tracked(engine: sa.Engine) -> None:
    """A snapshot knows as well whether the table was tracked when it was taken, though it has no time."""
    with engine.begin() as connection:
        early = connection.scalar(sa.text("SELECT pg_current_snapshot()::text"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        late = connection.scalar(sa.text("SELECT pg_current_snapshot()::text"))
    with as_of(engine, early) as past, pytest.raises(InvalidMoment, match="table stall has no records as early as"):
        past.scalars(NAMES).all()
    with as_of(engine, late) as past:
        assert past.scalars(NAMES).all() == []


def test_database_without_trail(engine: sa.Engine) -> None:
    """The error names the table and what makes the trail."""
    with (
        as_of(engine, dt.datetime.now(dt.UTC)) as past,
        pytest.raises(CaptureMissing, match=r"table stall.*create_all"),
    ):
        past.scalars(NAMES).all()


def test_settled_when_nobody_writes(market: sa.Engine) -> None:
    """With no transaction open since then a moment of the past can't change any more."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    with as_of(market, moment) as past:
        assert past.info["settled"] is True


@pytest.mark.needs("concurrent-writers")
def test_not_settled_while_a_writer_is_open(market: sa.Engine) -> None:
    """A transaction that wrote before the moment and is still open will change the state at it, once it commits."""
    with Session(market) as writer:
        writer.add(Stall(id=2, name="two"))
        writer.flush()
        moment = pause()
        with as_of(market, moment) as past:
            assert (past.info["settled"], past.scalars(NAMES).all()) == (False, ["one"])
        writer.commit()
    with as_of(market, moment) as past:
        assert past.scalars(NAMES).all() == ["one", "two"]


@pytest.mark.only_on("sqlite")
def test_not_settled_while_the_writer_is_open(market: sa.Engine) -> None:
    """The same with SQLite's one writer, which neither waits for the look nor loses by it."""
    with market.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with Session(market) as writer:
        writer.add(Stall(id=2, name="two"))
        writer.flush()
        with as_of(market, pause()) as past:
            assert (past.info["settled"], past.scalars(NAMES).all()) == (False, ["one"])
        writer.commit()
    with as_of(market, dt.datetime.now(dt.UTC)) as past:
        assert (past.info["settled"], past.scalars(NAMES).all()) == (True, ["one", "two"])


@pytest.mark.only_on("postgresql")
def test_settled_beside_a_writer_that_began_later(market: sa.Engine) -> None:
    """A transaction that began after the moment does not unsettle it."""
    moment = pause()
    with Session(market) as writer:
        writer.add(Stall(id=2, name="two"))
        writer.flush()
        with as_of(market, moment) as past:
            assert past.info["settled"] is True


@pytest.mark.needs("two-phase")
def test_not_settled_beside_a_prepared_transaction(market: sa.Engine) -> None:
    """A prepared transaction has no session any more, and still can commit."""
    with Session(market, twophase=True) as writer:
        writer.add(Stall(id=2, name="two"))
        writer.prepare()
        with as_of(market, pause()) as past:
            assert past.info["settled"] is False
        writer.commit()


@pytest.mark.needs("snapshots")
def test_snapshot_is_exact_under_concurrent_writers(market: sa.Engine) -> None:
    """A snapshot gives what a query saw in it, although a transaction with an earlier time committed after it."""
    with Session(market) as early, Session(market) as late, Session(market) as reader:
        early.add(Stall(id=2, name="early"))
        early.flush()
        late.add(Stall(id=3, name="late"))
        late.commit()
        reader.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        snapshot = reader.scalar(sa.text("SELECT pg_current_snapshot()::text"))
        seen = reader.scalars(NAMES).all()
        moment = pause()
        early.commit()
    with as_of(market, snapshot) as past:
        assert past.scalars(NAMES).all() == seen == ["one", "late"]
    with as_of(market, moment) as past:
        assert past.scalars(NAMES).all() == ["one", "early", "late"]


@pytest.mark.needs("snapshots")
def test_snapshot_of_the_future_is_refused(market: sa.Engine) -> None:
    """A snapshot that the server has not reached must be another server's."""
    with pytest.raises(InvalidMoment, match="lies in the future of this server"), as_of(market, "10:9000000000000:"):
        pass


@pytest.mark.only_on("sqlite", "mariadb")
def test_snapshot_on_another_database_is_refused(market: sa.Engine) -> None:
    """Only PostgreSQL has snapshots."""
    with pytest.raises(InvalidMoment, match="'5:5:' is a snapshot of PostgreSQL"), as_of(market, "5:5:"):
        pass


@pytest.mark.needs("concurrent-writers")
def test_one_snapshot_for_all_queries(market: sa.Engine) -> None:
    """What commits while the past session is open is not seen, even if it is recorded before the moment."""
    with Session(market) as writer:
        writer.add(Stall(id=2, name="two"))
        writer.flush()
        with as_of(market, pause()) as past:
            assert past.scalars(NAMES).all() == ["one"]
            writer.commit()
            past.expire_all()
            assert past.scalars(NAMES).all() == ["one"]


@pytest.mark.only_on("sqlite")
def test_one_snapshot_for_all_queries_on_sqlite(market: sa.Engine) -> None:
    """The same in WAL mode, where the writer does not wait for readers."""
    with market.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with as_of(market, dt.datetime.now(dt.UTC)) as past:
        before = past.scalars(NAMES).all()
        with Session(market) as writer:
            writer.execute(sa.update(Stall).values(name="changed"))
            writer.commit()
        history = Base.metadata.tables["stall_history"]
        assert past.scalars(NAMES).all() == before == ["one"]
    with as_of(market, dt.datetime.now(dt.UTC), present=[history]) as past:
        assert past.scalar(sa.select(sa.func.count()).select_from(history)) == 2


def test_session_sees_its_own_uncommitted_history(market: sa.Engine) -> None:
    """`as_of(session)` flushes, sees what nobody else does, and leaves the transaction to the session."""
    with Session(market) as session:
        session.add(Stall(id=2, name="two"))
        session.flush()
        moment = pause()
        session.add(Stall(id=3, name="three"))
        with as_of(session, moment) as past:
            assert past.scalars(NAMES).all() == ["one", "two", "three"]  # one transaction, one instant
        with as_of(session, dt.datetime.now(dt.UTC)) as past:
            past.get_one(Stall, 2)
            past.rollback()
        session.get_one(Stall, 2).name = "TWO"
        session.commit()
    with Session(market) as session:
        assert session.scalars(NAMES).all() == ["one", "TWO", "three"]


def test_session_that_commits_meanwhile(market: sa.Engine) -> None:
    """The past session follows the other session into its next transaction."""
    with Session(market) as session, as_of(session, pause()) as past:
        assert past.scalars(NAMES).all() == ["one"]
        session.get_one(Stall, 1).name = "changed"
        session.commit()
        past.expire_all()
        assert past.scalars(NAMES).all() == ["one"]
        session.rollback()
        assert session.scalars(NAMES).all() == ["changed"]


def test_sessions_with_several_binds(market: sa.Engine) -> None:
    """The binds of a session are honoured, each database with its own history."""
    other = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    metadata = sa.MetaData()
    lamp = sa.Table("lamp", metadata, sa.Column("id", sa.Integer, primary_key=True))
    track(lamp)
    metadata.create_all(other)
    with Session(binds={lamp: other, Stall: market}) as session:
        session.execute(sa.insert(lamp).values(id=1))
        session.commit()
        moment = pause()
        session.execute(sa.insert(lamp).values(id=2))
        session.get_one(Stall, 1).name = "changed"
        session.commit()
        with as_of(session, moment) as past:
            assert past.scalars(sa.select(lamp.c.id)).all() == [1]
            assert past.scalars(NAMES).all() == ["one"]
    other.dispose()


def test_session_bound_to_a_connection(market: sa.Engine) -> None:
    """A session that joined a connection's transaction is travelled from as any other."""
    with market.connect() as connection, connection.begin(), Session(connection) as session:
        moment = pause()
        session.get_one(Stall, 1).name = "changed"
        with as_of(session, moment) as past:
            assert past.scalars(NAMES).all() == ["one"]
        assert session.scalars(NAMES).all() == ["changed"]


@pytest.mark.only_on("sqlite")
def test_shared_connection_in_a_transaction_is_refused(tmp_path: object) -> None:
    """Where the pool has one connection for all, as_of(engine) would end the other's transaction; it refuses."""
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    Base.metadata.create_all(engine)
    add(engine, 1, "one")
    with Session(engine) as session:
        session.add(Stall(id=2, name="two"))
        session.flush()
        moment = dt.datetime.now(dt.UTC)
        with pytest.raises(ConfigurationError, match="give the session instead"), as_of(engine, moment):
            pass
        with as_of(session, moment) as past:
            assert past.scalars(NAMES).all() == ["one", "two"]
        session.commit()
    with as_of(engine, dt.datetime.now(dt.UTC)) as past:
        assert past.scalars(NAMES).all() == ["one", "two"]
    engine.dispose()


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("driver", ["autocommit", "plain"])
def test_reads_in_a_read_only_transaction(market: sa.Engine, driver: str) -> None:
    """The database itself refuses to write, also for an engine in autocommit; the connection comes back as it was."""
    engine = market.execution_options(isolation_level="AUTOCOMMIT") if driver == "autocommit" else market
    with as_of(engine, dt.datetime.now(dt.UTC)) as past:
        settings = [
            past.scalar(sa.select(sa.func.current_setting(name)))
            for name in ("transaction_isolation", "transaction_read_only")
        ]
        assert settings == ["repeatable read", "on"]
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            past.execute(sa.select(sa.func.nextval("audit_id_seq")))
    add(market, 2, "two")
    with market.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"


@pytest.mark.only_on("mariadb")
@pytest.mark.needs("roles")
def test_settled_is_unknown_without_the_privilege(market: sa.Engine, database: Database) -> None:
    """A role that may not see other transactions is told that it isn't known, never that it is settled."""
    name = f"{database.role_prefix}reader"
    with market.begin() as connection:
        connection.exec_driver_sql(f"CREATE USER '{name}'@'%%' IDENTIFIED BY 'secret'")
        connection.exec_driver_sql(f"GRANT SELECT ON `{database.url.database}`.* TO '{name}'@'%%'")
    reader = sa.create_engine(database.url.set(username=name, password="secret"))
    with as_of(reader, dt.datetime.now(dt.UTC)) as past:
        assert (past.info["settled"], past.scalars(NAMES).all()) == (None, ["one"])
    reader.dispose()
