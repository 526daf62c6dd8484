"""How fast a sealed trail is verified, pass by pass, and how much memory it takes.

    python benchmarks/verify.py postgresql+psycopg://postgres@127.0.0.1/postgres [--rows 200000] [--workers 2]

The table and the rows are those of `benchmarks/seal.py`.  A fifth of the rows is changed once before they are sealed,
so that the continuity pass has something to compare.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sa_audit
from benchmarks.harness import empty_database
from benchmarks.seal import Base, Payment, fill
from sa_audit import anchors
from sa_audit.proof import Signer


class Passes:
    """What each pass took: it begins with the first progress of its own, and ends with that of the next."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}
        self._now = "connect"
        self._since = (time.perf_counter(), time.process_time())

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Take a progress."""
        if phase != self._now:
            self.turn(phase)

    def turn(self, phase: str) -> None:
        """Begin a pass."""
        now = (time.perf_counter(), time.process_time())
        wall, processor = self.spent.get(self._now, (0.0, 0.0))
        self.spent[self._now] = (wall + now[0] - self._since[0], processor + now[1] - self._since[1])
        self._now, self._since = phase, now


def measure(url: str, rows: int, workers: int) -> None:
    """Fill, seal, verify, and print what it took."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    signer = Signer.generate("bench.example/audit")
    with tempfile.TemporaryDirectory() as directory:
        anchor = anchors.open(f"file:{directory}/anchor")
        fill(engine, rows)
        with sa_audit.context(actor="bench"), engine.begin() as connection:
            connection.execute(sa.update(Payment).where(Payment.id % 5 == 0).values(note="changed"))
        sa_audit.seal(engine, signer, state=Path(directory) / "state", anchors=[anchor], metadata=Base)
        for count in dict.fromkeys((1, workers)):
            pid = os.fork()
            if pid == 0:
                engine.dispose(close=False)
                _verify(engine, signer, anchor, count)
                os._exit(0)
            os.waitpid(pid, 0)
    engine.dispose()


def _verify(engine: sa.Engine, signer: Signer, anchor: anchors.Anchor, workers: int) -> None:
    passes, began = Passes(), time.perf_counter()
    report = sa_audit.verify(engine, signer.verifier, anchors=[anchor], metadata=Base, workers=workers, progress=passes)
    passes.turn("end")
    took = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{engine.dialect.name}, {workers} worker(s): {report.checked} rows verified in {took:.2f} s: "
        f"{report.checked / took:,.0f} rows/s; {memory:.0f} MiB at most; {len(report.findings)} findings"
    )
    for phase, (wall, processor) in passes.spent.items():
        print(f"  {phase}: {wall:.2f} s, {processor:.2f} s of this process: {report.checked / wall:,.0f} rows/s")
    sys.stdout.flush()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with empty_database(given.url, "sa_audit_bench_verify") as url:
        measure(url, given.rows, given.workers)


if __name__ == "__main__":
    main()
