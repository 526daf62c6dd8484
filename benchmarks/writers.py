"""What a running sealer costs those who write: 16 processes that commit rows, with and without it, in turn.

    python benchmarks/writers.py postgresql+psycopg://postgres@127.0.0.1/postgres [--writers 16] [--rounds 4]

Each writer inserts a row of ten columns and commits, again and again.  Rounds with and without a sealer, which seals
every two seconds in a process of its own, take turns in one database, so that noise and growth hit both alike.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import statistics
import sys
import tempfile
import time
from decimal import Decimal
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sa_audit
from benchmarks.harness import empty_database, markdown
from benchmarks.seal import Base, Payment
from sa_audit import anchors
from sa_audit.proof import Signer

FORK = multiprocessing.get_context("fork")
STRIDE = 1_000_000


def write(url: str, number: int, start: Barrier, stop: Event, pause: float, results: Any) -> None:
    """Commit rows until told to stop; give how long each commit took, in seconds."""
    engine = sa.create_engine(url)
    spent: list[float] = []
    with Session(engine) as session, sa_audit.context(actor=f"writer {number % STRIDE}"):
        session.connection()
        session.rollback()
        start.wait()
        key = number * STRIDE
        while not stop.is_set():
            key += 1
            began = time.perf_counter()
            session.add(payment(key))
            session.commit()
            spent.append(time.perf_counter() - began)
            session.expunge_all()
            if pause:
                time.sleep(pause)
    results.put(spent)
    engine.dispose()


def payment(key: int) -> Payment:
    """Give a row."""
    return Payment(
        id=key,
        account=key % 977,
        amount=Decimal(key % 100_000) / 100,
        currency="NOK",
        reference=f"invoice {key} of the year",
        booked_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        value_date=dt.date(2026, 1, 1),
        rate=key / 7,
        urgent=key % 5 == 0,
        note=None,
    )


def keep_sealing(url: str, key: str, directory: str, stop: Event, every: float) -> None:
    """Seal again and again until told to stop."""
    engine, signer = sa.create_engine(url), Signer.load(key, password=None)
    anchor = anchors.open(f"file:{directory}/anchor")
    while not stop.wait(every):
        sa_audit.seal(engine, signer, state=Path(directory) / "state", anchors=[anchor], metadata=Base)
    engine.dispose()


def one_round(url: str, first: int, given: argparse.Namespace, sealing: tuple[str, str] | None) -> list[float]:
    """Have all writers write for a while; give the seconds of all commits."""
    start, stop, results = FORK.Barrier(given.writers + 1), FORK.Event(), FORK.Queue()
    writers = [
        FORK.Process(target=write, args=(url, first + number, start, stop, given.pause / 1000, results))
        for number in range(given.writers)
    ]
    sealer = None
    if sealing is not None:
        sealer = FORK.Process(target=keep_sealing, args=(url, *sealing, stop, given.every))
    for process in filter(None, [*writers, sealer]):
        process.start()
    start.wait()
    time.sleep(given.seconds)
    stop.set()
    spent = [each for _writer in writers for each in results.get()]
    for process in filter(None, [*writers, sealer]):
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process ended with {process.exitcode}")
    return spent


def measure(url: str, given: argparse.Namespace) -> None:
    """Take turns, and print a table."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    signer = Signer.generate("bench.example/audit")
    sides: dict[str, list[list[float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as directory:
        key = f"{directory}/key"
        signer.save(key, password=None)
        for turn in range(given.rounds):
            for side in sides if turn % 2 == 0 else reversed(sides):
                first = 1 + given.writers * (2 * turn + (side == "with"))
                sealing = (key, directory) if side == "with" else None
                sides[side].append(one_round(url, first, given, sealing))
        anchor = anchors.open(f"file:{directory}/anchor")
        sa_audit.seal(engine, signer, state=Path(directory) / "state", anchors=[anchor], metadata=Base)
        report = sa_audit.verify(engine, signer.verifier, anchors=[anchor], metadata=Base)
        commits = sum(len(spent) for rounds in sides.values() for spent in rounds)
        assert report.ok, report.findings[:5]
        assert report.checked >= 2 * commits
    engine.dispose()
    print(f"{given.writers} writers, {given.rounds} rounds of {given.seconds} s each, {given.pause} ms between commits")
    rows = [
        (
            f"{side} a sealer",
            f"{statistics.median(len(spent) / given.seconds for spent in rounds):,.0f}",
            f"{1000 * statistics.median(each for spent in rounds for each in spent):.2f}",
            f"{1000 * statistics.quantiles((each for spent in rounds for each in spent), n=100)[94]:.2f}",
            ", ".join(f"{len(spent) / given.seconds:,.0f}" for spent in rounds),
        )
        for side, rounds in sides.items()
    ]
    print(markdown(["", "commits/s", "median ms", "95 % ms", "commits/s by round"], rows))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4, help="of each side")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--pause", type=float, default=0, help="milliseconds of other work between two commits")
    parser.add_argument("--every", type=float, default=2, help="seconds between two sealings")
    given = parser.parse_args()
    with empty_database(given.url, "sa_audit_bench_writers") as url:
        measure(url, given)


if __name__ == "__main__":
    main()
