"""What recording reads costs, and how fast "all reads of one row in one month" is answered.

    python benchmarks/reads.py postgresql+psycopg://postgres@127.0.0.1/postgres [--accesses 1000000]

Each side works in a process of its own, on a database of its own, in turn: ``plain`` never imports the library,
``off`` audits the table without its reads, ``relaxed`` and ``durable`` record them.  Measured are ``get()`` of one row
in a session of its own, and one query for 1,000 entities likewise.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import empty_database, markdown

SIDES = ("plain", "off", "relaxed", "durable")
ROWS = 5_000
CHARTS = 1_000
GOALS = {"off": (1.0, 1.0), "relaxed": (1.5, 1.5), "durable": (2.3, 2.0)}
MONTHS = 24
PATIENTS = 50_000


def model(side: str) -> tuple[Any, Any]:
    """Give the base and the model of a side: a patient in ten columns."""

    class Base(DeclarativeBase):
        pass

    columns: dict[str, Any] = {
        "__tablename__": "patient",
        "__annotations__": {
            "id": Mapped[int],
            "name": Mapped[str],
            "street": Mapped[str],
            "city": Mapped[str],
            "phone": Mapped[str],
            "doctor": Mapped[int],
            "balance": Mapped[Decimal],
            "born": Mapped[dt.date],
            "since": Mapped[dt.datetime],
            "note": Mapped[str | None],
        },
        "id": mapped_column(primary_key=True),
        **{name: mapped_column(sa.String(60)) for name in ("name", "street", "city", "phone", "note")},
        "balance": mapped_column(sa.Numeric(10, 2)),
        "since": mapped_column(sa.DateTime(timezone=True)),
    }
    if side == "plain":
        return Base, type("Patient", (Base,), columns)
    from sa_audit import Audited, AuditOptions

    columns["__audit__"] = AuditOptions(reads=False if side == "off" else side)
    return Base, type("Patient", (Audited, Base), columns)


def fill(engine: sa.Engine, patient: Any) -> None:
    """Insert the rows, 1,000 a transaction."""
    for start in range(0, ROWS, 1_000):
        with Session(engine) as session:
            session.add_all(
                patient(
                    id=key,
                    name=f"name {key}",
                    street=f"street {key % 97}",
                    city=f"city {key % 31}",
                    phone=f"+47 {key:08d}",
                    doctor=key % 40,
                    balance=Decimal(key) / 100,
                    born=dt.date(1980, 1, 1) + dt.timedelta(days=key),
                    since=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                    note=None,
                )
                for key in range(start + 1, start + 1_001)
            )
            session.commit()


def serve(side: str, url: str, channel: Any) -> None:
    """Do one side's phases as they are asked for; answer with seconds by the clock and of the processor."""
    base, patient = model(side)
    engine = sa.create_engine(url)
    base.metadata.create_all(engine)
    fill(engine, patient)
    said: Any = nullcontext()
    if side in ("relaxed", "durable"):
        import sa_audit

        said = sa_audit.context(actor="dr. 7", reason="ward round", request_id="r-1")
    query = sa.select(patient).where(patient.id <= CHARTS)
    channel.send("ready")
    for phase, number in iter(channel.recv, None):
        times, processor = [], time.process_time()
        for turn in range(number):
            began = time.perf_counter()
            with said, Session(engine) as session:
                if phase == "get":
                    session.get_one(patient, turn % ROWS + 1)
                else:
                    session.scalars(query).all()
            times.append(time.perf_counter() - began)
        channel.send((times, (time.process_time() - processor) / number))
    engine.dispose()


@contextmanager
def side_process(side: str, url: str) -> Iterator[Any]:
    """Start a side's process on an empty database; give its channel."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(side, url, there))
    process.start()
    there.close()
    try:
        here.recv()
        yield here
        here.send(None)
    finally:
        process.join()


def measure(url: str, rounds: int, gets: int, queries: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Give, by phase and side, the median of all, that of the best round, and the processor's time, in seconds."""
    with ExitStack() as stack:
        channels = {}
        for side in SIDES:
            database = stack.enter_context(empty_database(url, f"sa_audit_reads_{side}"))
            channels[side] = stack.enter_context(side_process(side, database))
        found: dict[str, dict[str, tuple[float, float, float]]] = {}
        for phase, number in (("get", gets), ("query", queries)):
            times: dict[str, list[list[float]]] = {side: [] for side in SIDES}
            processor: dict[str, list[float]] = {side: [] for side in SIDES}
            for turn in range(rounds + 1):
                for side, channel in channels.items():
                    channel.send((phase, number))
                    taken, used = channel.recv()
                    if turn:  # the first one warms up
                        times[side].append(taken)
                        processor[side].append(used)
            found[phase] = {
                side: (
                    statistics.median(one for taken in times[side] for one in taken),
                    min(statistics.median(taken) for taken in times[side]),
                    min(processor[side]),
                )
                for side in SIDES
            }
        return found


def report(found: dict[str, dict[str, tuple[float, float, float]]]) -> str:
    """Give the table of times and ratios."""
    rows = []
    for place, (phase, sides) in enumerate(found.items()):
        plain = sides["plain"]
        for side, own in sides.items():
            goal = f"{GOALS[side][place]}" if side in GOALS else ""
            ratios = (f"{value / one:.2f}" for value, one in zip(own, plain, strict=True))
            rows.append([f"{phase}, {side}", goal, *(f"{value * 1000:.3f}" for value in own), *ratios])
    heading = ["", "goal", "median ms", "best ms", "client CPU ms", "median ratio", "best ratio", "CPU ratio"]
    return markdown(heading, rows)


# -- all reads of a row in a month ----------------------------------------------------------------


def look_up(url: str, accesses: int) -> None:
    """Fill two years of reads by SQL, then ask for those of one patient in one month, and print the plan."""
    import sa_audit

    base, patient = model("durable")
    engine = sa.create_engine(url)
    base.metadata.create_all(engine)
    with engine.begin() as connection:
        _fill_accesses(connection, accesses)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    took: list[tuple[float, int]] = []
    with Session(engine) as session:
        for key in range(42, 42 + 50):
            began = time.perf_counter()
            found = sa_audit.reads(session, patient, key, since="2026-03-01", until="2026-03-31")
            took.append((time.perf_counter() - began, len(found)))
    counts = [count for _time, count in took]
    print(
        f"all reads of a patient in March among {accesses:,} shown rows: first {took[0][0] * 1000:.1f} ms, then median "
        f"{statistics.median(one for one, _count in took[1:]) * 1000:.1f} ms; {min(counts)} to {max(counts)} reads\n"
    )
    _explain(engine, patient, 42 + counts.index(max(counts)))
    engine.dispose()


def _fill_accesses(connection: sa.Connection, accesses: int) -> None:
    """Write statements of four rows each, over two years; the insert guards, which know the present only, are off."""
    tables = ("audit_transaction", "audit_access", "audit_access_row")
    for table in tables:
        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER sa_audit_insert")
    moment = f"timestamptz '2024-07-01' + n * interval '{MONTHS} months' / {accesses // 4}"
    fingerprint = "'sha256:' || repeat('0', 64)"
    for statement in (
        "INSERT INTO audit_transaction (id, recorded_at, actor, reason, request_id) OVERRIDING SYSTEM VALUE "
        f"SELECT n, {moment}, 'dr. ' || mod(n, 40), 'ward round', 'r-' || n FROM generate_series(1, {accesses // 4}) n",
        "INSERT INTO audit_access (audit_id, audit_tx, audit_at, entity, table_name, columns, statement, identities, "
        "row_count) SELECT id, id, recorded_at, 'Patient', 'patient', '[\"id\", \"name\"]', "
        f"{fingerprint}, 'known', 4 FROM audit_transaction",
        "INSERT INTO audit_access_row (audit_tx, audit_at, access_id, table_name, identity) SELECT id, recorded_at, "
        f"id, 'patient', '[' || mod(id * 7919 + k * 104729, {PATIENTS}) || ']' "
        "FROM audit_transaction, generate_series(1, 4) k",
    ):
        connection.exec_driver_sql(statement)
    for table in tables:
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER sa_audit_insert")


def _explain(engine: sa.Engine, patient: Any, key: int) -> None:
    """Print the plan of the statement that finds them."""
    import sa_audit

    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def _keep(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        asked.append((sql, parameters))

    with Session(engine) as session:
        sa_audit.reads(session, patient, key, since="2026-03-01", until="2026-03-31")
    sql, parameters = next((text, given) for text, given in asked if "FROM audit_access" in text)
    with engine.connect() as connection:
        for line in connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {sql}", parameters).scalars():
            print(line)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gets", type=int, default=300)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--accesses", type=int, default=0, help="rows shown by reads, to look some up among; 0: don't")
    parser.add_argument("--only-look-up", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.only_look_up:
        found = measure(given.url, given.rounds, given.gets, given.queries)
        print(json.dumps(found) if given.json else report(found))
    if given.accesses:
        with empty_database(given.url, "sa_audit_reads_looked_up") as url:
            look_up(url, given.accesses)


if __name__ == "__main__":
    main()
