"""One large trail on PostgreSQL: filled, sealed, verified, one row of it proven; with the memory that each takes.

    python benchmarks/large.py postgresql+psycopg://postgres@127.0.0.1/postgres [--rows 1000000] [--bundle 100000]

The table is that of `benchmarks/seal.py`; its rows are recorded by `INSERT ... SELECT`, 5,000 in a transaction.
With `--bundle N` a second trail of N rows is handed out as a bundle, and checked by the program in it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sa_audit
from benchmarks.harness import empty_database
from benchmarks.seal import Base, Payment
from benchmarks.verify import Passes
from sa_audit import anchors
from sa_audit.proof import Policy, Signer
from sa_audit.verification.bundling import Selection, export_bundle

BATCH = 5_000
PROOFS = 50


def fill(engine: sa.Engine, rows: int) -> None:
    """Record rows through the library."""
    for first in range(1, rows + 1, BATCH):
        series = sa.func.generate_series(first, min(first + BATCH - 1, rows))
        numbers = series.table_valued(sa.column("n", sa.Integer)).render_derived()
        key = numbers.c.n
        values = {
            "id": key,
            "account": key % 977,
            "amount": sa.cast(key % 100_000, sa.Numeric(14, 2)) / 100,
            "currency": sa.literal("NOK"),
            "reference": sa.func.concat("invoice ", key, " of the year"),
            "booked_at": sa.cast(sa.literal("2026-01-01 00:00Z"), sa.DateTime(timezone=True))
            + key * sa.cast(sa.literal("1 second"), sa.Interval),
            "value_date": sa.cast(sa.literal("2026-01-01"), sa.Date),
            "rate": sa.cast(key, sa.Float) / 7,
            "urgent": key % 5 == 0,
        }
        with sa_audit.context(actor="bench"), Session(engine) as session:
            session.execute(
                sa.insert(Payment).from_select(list(values), sa.select(*values.values()).select_from(numbers))
            )
            session.commit()


def apart(engine: sa.Engine, work: Callable[[], str]) -> None:
    """Do work in a process of its own; print what it says, what it took, and its peak of memory."""
    pid = os.fork()
    if pid:
        _pid, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit(f"a process ended with the status {status}")
        return
    engine.dispose(close=False)
    try:
        began, used = time.perf_counter(), time.process_time()
        said = work()
        took, processor = time.perf_counter() - began, time.process_time() - used
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{said}: {took:.2f} s, {processor:.2f} s of its processor time, {memory:.0f} MiB at most", flush=True)
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(error is not None)


def measure(url: str, rows: int, workers: int) -> None:
    """Fill, seal, verify, prove, and print what it took."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    signer = Signer.generate("bench.example/audit")
    with tempfile.TemporaryDirectory() as directory:
        anchor = anchors.open(f"file:{directory}/anchor")
        fill(engine, rows)
        print(f"filled {rows:,} rows", flush=True)

        def seal() -> str:
            sa_audit.seal(engine, signer, state=Path(directory) / "state", anchors=[anchor], metadata=Base)
            return "sealed"

        def verify(count: int) -> str:
            passes = Passes()
            report = sa_audit.verify(
                engine, signer.verifier, anchors=[anchor], metadata=Base, workers=count, progress=passes
            )
            passes.turn("end")
            assert report.ok, report.findings[:3]
            parts = (f"{name} {wall:.1f} s ({used:.1f} s)" for name, (wall, used) in passes.spent.items())
            return f"verified {report.checked:,} rows with {count} worker(s), {', '.join(parts)}"

        apart(engine, seal)
        for count in dict.fromkeys((1, workers)):
            apart(engine, lambda count=count: verify(count))  # type: ignore[misc]  # a lambda's default has no type
        apart(engine, lambda: prove(engine, rows, signer))
    engine.dispose()


def prove(engine: sa.Engine, rows: int, signer: Signer) -> str:
    """Prove rows here and there, each by its own call, and check each proof."""
    spent = []
    chosen = random.Random(7).sample(range(1, rows + 1), PROOFS)
    policy = Policy.of(signer.verifier)
    with Session(engine) as session:
        for key in chosen:
            (change,) = sa_audit.history(session, Payment, key)
            began, used = time.perf_counter(), time.process_time()
            proof = sa_audit.prove(session, change, metadata=Base)
            spent.append((time.perf_counter() - began, time.process_time() - used))
            proof.check(policy)
    walls, processors = ([1000 * each for each in column] for column in zip(*spent, strict=True))
    return (
        f"{PROOFS} proofs of one row of {rows:,}: median {statistics.median(walls):.1f} ms, "
        f"slowest {max(walls):.1f} ms, processor {statistics.median(processors):.1f} ms"
    )


def bundle(url: str, rows: int) -> None:
    """Hand out a trail as a bundle, and have its own program check it."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    signer = Signer.generate("bench.example/audit")
    with tempfile.TemporaryDirectory() as directory:
        anchor, path = anchors.open(f"file:{directory}/anchor"), Path(directory) / "bundle.zip"
        fill(engine, rows)
        sa_audit.seal(engine, signer, state=Path(directory) / "state", anchors=[anchor], metadata=Base)

        def export() -> str:
            selection = Selection(text="everything", tables=None, complete=False)
            count = export_bundle(engine, path, Policy.of(signer.verifier), selection, metadata=Base)
            return f"a bundle of {count:,} rows, {path.stat().st_size / (1 << 20):.0f} MiB, written"

        apart(engine, export)
        with zipfile.ZipFile(path) as archive:
            (Path(directory) / "verify.py").write_bytes(archive.read("verify.py"))
        program = [sys.executable, "-I", f"{directory}/verify.py", str(path), "--key", str(signer.verifier)]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(program, capture_output=True, text=True, check=False)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        print(f"checked by its own program: {took:.2f} s, {after.ru_utime - before.ru_utime:.2f} s of the processor")
        print(ran.stdout.strip())
    engine.dispose()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bundle", type=int, default=0)
    given = parser.parse_args()
    if given.rows:
        with empty_database(given.url, "sa_audit_bench_large") as url:
            measure(url, given.rows, given.workers)
    if given.bundle:
        with empty_database(given.url, "sa_audit_bench_bundle") as url:
            bundle(url, given.bundle)


if __name__ == "__main__":
    main()
