"""What `Encrypt` and `Digest` on two columns cost beside the same capture without, on one table of 8 columns.

Three models of the same columns stand in one process and one database; they take turns, round by round, so that noise
hits all alike.  Each round of a side updates 300 rows in one flush, inserts 300 rows of known persons, inserts 300 of
new persons, and commits one change 50 times.  The best round counts, by the clock and by the process's CPU time.

    python -m benchmarks.encrypt sqlite:////tmp/encrypt.db postgresql+psycopg://postgres@127.0.0.1/postgres
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from benchmarks.harness import empty_database, markdown, ratio
from sa_audit import Audited, Digest, Encrypt
from sa_audit.privacy import KeyRing

POLICIES: dict[str, Any] = {"plain": None, "digest": Digest(), "encrypt": Encrypt("person")}
PHASES = ("update 300", "insert 300", "insert 300 of new persons", "commit 1, 50 times")
Timing = tuple[float, float]


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, keys=KeyRing({"2026": b"k" * 32}))


def model(side: str) -> Any:
    """Declare the side's model."""
    policy = POLICIES[side]
    info = {"sa_audit": policy} if policy is not None else {}

    class Patient(Audited, Base):
        __tablename__ = f"patient_{side}"

        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        person: Mapped[int]
        name: Mapped[str] = mapped_column(sa.String(60), info=info)
        address: Mapped[str] = mapped_column(sa.String(120), info=info)
        ward: Mapped[str] = mapped_column(sa.String(60))
        bed: Mapped[int]
        note: Mapped[str] = mapped_column(sa.String(200))
        visits: Mapped[int]

    return Patient


def row(number: int, person: int) -> dict[str, Any]:
    """Give the columns of a row."""
    return {
        "id": number,
        "person": person,
        "name": f"Name {number}",
        "address": f"{number} Long Street, Some Town",
        "ward": f"ward {number % 7}",
        "bed": number % 40,
        "note": "nothing of note " * 4,
        "visits": 0,
    }


class SideOf:
    """One side: its model, and how far it has come."""

    def __init__(self, engine: sa.Engine, entity: Any, rows: int) -> None:
        self.engine, self.entity, self.rows, self.next = engine, entity, rows, rows + 1
        with Session(engine) as session:
            session.add_all(entity(**row(number, number)) for number in range(1, rows + 1))
            session.commit()

    def phases(self) -> Iterator[Timing]:
        """Do each phase, and give what it took by the clock and of the processor, in seconds."""
        with Session(self.engine) as session:
            patients = session.scalars(sa.select(self.entity).where(self.entity.id <= self.rows)).all()
            for patient in patients:
                patient.name, patient.address, patient.visits = f"{patient.name}x"[-60:], patient.name, 1
            yield timed(session.commit)
            yield timed(lambda: self._insert(session, known=True))
            yield timed(lambda: self._insert(session, known=False))
            one = session.get_one(self.entity, 1)
            yield timed(lambda: self._commits(session, one))

    def _insert(self, session: Session, *, known: bool) -> None:
        numbers = range(self.next, self.next + self.rows)
        self.next += self.rows
        session.add_all(self.entity(**row(n, n % self.rows + 1 if known else 10_000_000 + n)) for n in numbers)
        session.commit()

    def _commits(self, session: Session, one: Any) -> None:
        for number in range(50):
            one.name, one.visits = f"Name {number}", one.visits + 1
            session.commit()


def timed(run: Callable[[], object]) -> Timing:
    """Run, and give clock and CPU seconds."""
    gc.collect()
    clock, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - cpu


def measure(url: str, rows: int, rounds: int) -> None:
    """Measure one database, and print a table."""
    with empty_database(url, "sa_audit_encrypt") as place:
        engine = sa.create_engine(place)
        try:
            Base.metadata.create_all(engine)
            sides = {name: SideOf(engine, entity, rows) for name, entity in MODELS.items()}
            best = {name: [(float("inf"), float("inf"))] * len(PHASES) for name in sides}
            for _round in range(rounds):
                for name, side in sides.items():
                    took = list(side.phases())
                    pairs = zip(best[name], took, strict=True)
                    best[name] = [(min(a[0], b[0]), min(a[1], b[1])) for a, b in pairs]
        finally:
            engine.dispose()
    lines = []
    for number, phase in enumerate(PHASES):
        plain = best["plain"][number]
        cells = [f"{plain[0] * 1e3:.1f} ms"]
        for name in ("digest", "encrypt"):
            clock, cpu = best[name][number]
            cells.append(f"{ratio(clock, plain[0])} (CPU {ratio(cpu, plain[1])})")
        lines.append([phase, *cells])
    print(f"\n{sa.engine.make_url(url).get_backend_name()}\n")
    print(markdown(["phase", "without", "two digests", "two encrypted"], lines))


MODELS = {side: model(side) for side in POLICIES}


def main() -> None:
    """Measure each database that is named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("urls", nargs="+", help="databases, in which one is made and dropped")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for url in given.urls:
        measure(url, given.rows, given.rounds)


if __name__ == "__main__":
    main()
