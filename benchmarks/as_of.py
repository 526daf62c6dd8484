"""How long a look at the past takes, and what compiling for the past costs; prints a table.

    python benchmarks/as_of.py --url postgresql+psycopg://postgres@127.0.0.1/bench --rows 100000 --changes 10

Makes ``rows`` rows, changes all of them again and again until each has ``changes`` rows of history, and times at a
moment in the middle and at the newest: a row by its key, the rows of one foreign key, and the whole table; beside them
the same query now.
Then, with 200 audited tables and SQLite in memory, how long a statement takes that is compiled already.
The database has to be empty; give one of your own for this.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry

from sa_audit import Audited, track
from sa_audit.query.timetravel import as_of


class Base(DeclarativeBase):
    pass


class Branch(Audited, Base):
    __tablename__ = "bench_branch"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Account(Audited, Base):
    __tablename__ = "bench_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    branch_id: Mapped[int] = mapped_column(sa.ForeignKey("bench_branch.id"))
    owner: Mapped[str] = mapped_column(sa.String(50))
    balance: Mapped[int]


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description="time travel, measured")
    parser.add_argument("--url", required=True, help="an empty database")
    parser.add_argument("--rows", type=int, default=100_000, help="live rows")
    parser.add_argument("--changes", type=int, default=10, help="history rows of each")
    parser.add_argument("--repeat", type=int, default=50, help="times that a look-up is repeated")
    arguments = parser.parse_args()
    engine = sa.create_engine(arguments.url)
    middle = fill(engine, arguments.rows, arguments.changes)
    print(f"{engine.dialect.name}: {arguments.rows} rows, {arguments.rows * arguments.changes} rows of history")
    print(f"{'query':<28}{'now, ms':>12}{'middle, ms':>12}{'newest, ms':>12}")
    for name, query, repeat in queries(arguments.rows, arguments.repeat):
        with Session(engine) as session:
            now = timed(lambda query=query, session=session: query(session), repeat)
        then = []
        for moment in (middle, dt.datetime.now(dt.UTC)):
            with as_of(engine, moment) as past:
                then.append(timed(lambda query=query, session=past: query(session), repeat))
        print(f"{name:<28}{now:>12.2f}{then[0]:>12.2f}{then[1]:>12.2f}")
    compare_compiled()


def fill(engine: sa.Engine, rows: int, changes: int) -> dt.datetime:
    """Make the rows and their history through the library itself; give a moment in the middle."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(Branch), [{"id": number, "name": f"b{number}"} for number in range(1, 1001)])
    for start in range(0, rows, 20_000):
        values = [
            {"id": number + 1, "branch_id": number % 1000 + 1, "owner": f"owner {number}", "balance": 0}
            for number in range(start, min(start + 20_000, rows))
        ]
        with engine.begin() as connection:
            connection.execute(sa.insert(Account), values)
    middle = dt.datetime.now(dt.UTC)
    for change in range(1, changes):
        with engine.begin() as connection:
            connection.execute(sa.update(Account).values(balance=Account.balance + change))
        if change == changes // 2:
            middle = dt.datetime.now(dt.UTC)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    elif engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")
    return middle


def queries(rows: int, repeat: int) -> list[tuple[str, Callable[[Session], object], int]]:
    """Give the queries: name, function, times to repeat it."""
    by_key = sa.select(Account.owner, Account.balance).where(Account.id == sa.bindparam("key"))
    by_branch = sa.select(Account.id, Account.balance).where(Account.branch_id == sa.bindparam("key"))
    joined = sa.select(Branch.name, sa.func.sum(Account.balance)).join_from(Branch, Account).group_by(Branch.name)
    fetched = sa.select(Account.id, Account.owner, Account.balance)
    counted = sa.select(sa.func.count(Account.id), sa.func.sum(Account.balance))
    keys = iter(range(1, 10**9))

    def key() -> dict[str, int]:
        return {"key": next(keys) * 7919 % rows + 1}

    def branch() -> dict[str, int]:
        return {"key": next(keys) * 7919 % 1000 + 1}

    return [
        ("a row by its key", lambda session: session.execute(by_key, key()).all(), repeat),
        ("rows of a foreign key", lambda session: session.execute(by_branch, branch()).all(), repeat),
        ("whole table, counted", lambda session: session.execute(counted).all(), 3),
        ("whole table, fetched", lambda session: session.execute(fetched).all(), 3),
        ("join and aggregate", lambda session: session.execute(joined).all(), 3),
    ]


def timed(run: Callable[[], object], repeat: int) -> float:
    """Give the median time of a run in milliseconds, after three that warm up."""
    for _warm in range(3):
        run()
    taken = []
    for _run in range(repeat):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def compare_compiled(tables: int = 200) -> None:
    """Print how long a statement takes once it is compiled, with many audited tables, on SQLite in memory."""
    mapping = registry()
    made = [
        sa.Table(
            f"t{number}", mapping.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer)
        )
        for number in range(tables)
    ]
    classes = [type(f"T{number}", (), {}) for number in range(tables)]
    for class_, table in zip(classes, made, strict=True):
        mapping.map_imperatively(class_, table)
        track(class_)
    engine = sa.create_engine("sqlite://")
    mapping.metadata.create_all(engine)
    now = dt.datetime.now(dt.UTC)

    def core(session: Session) -> None:
        for table in made[:50]:
            session.execute(sa.select(table).where(table.c.id == 1)).all()

    def mapped(session: Session) -> None:
        for class_ in classes[:50]:
            session.scalars(sa.select(class_).where(class_.id == 1)).all()  # type: ignore[attr-defined]

    print(f"{tables} audited tables, a compiled statement, processor time")
    for name, run in (("table", core), ("mapped class", mapped)):
        with Session(engine) as session:
            live = least(lambda run=run, session=session: run(session)) / 50
        with as_of(engine, now) as past:
            then = least(lambda run=run, session=past: run(session)) / 50
        print(f"{name:<28}{live:>12.3f}{then:>12.3f}   {then / live:.2f} times")


def least(run: Callable[[], object], repeat: int = 30) -> float:
    """Give the least processor time of a run in milliseconds, after three that warm up."""
    taken = []
    for number in range(repeat + 3):
        start = time.process_time()
        run()
        if number >= 3:
            taken.append(time.process_time() - start)
    return min(taken) * 1000


if __name__ == "__main__":
    main()
