"""How fast the sealer seals rows that are there, and how much memory it takes.

    python benchmarks/seal.py postgresql+psycopg://postgres@127.0.0.1/postgres [--rows 200000]

An audited table of ten columns; its rows are put into the history by one INSERT, so that only the sealing is measured:
everything from the first look at the state to the fsynced state and the signed checkpoint, in one process.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sa_audit
from benchmarks.harness import empty_database
from sa_audit import Audited, anchors
from sa_audit.proof import Signer


class Base(DeclarativeBase):
    """The base."""


class Payment(Audited, Base):
    """Ten columns, as a bank might have them."""

    __tablename__ = "payment"

    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int]
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(14, 2))
    currency: Mapped[str] = mapped_column(sa.String(3))
    reference: Mapped[str] = mapped_column(sa.String(60))
    booked_at: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))
    value_date: Mapped[dt.date]
    rate: Mapped[float | None]
    urgent: Mapped[bool]
    note: Mapped[str | None]


def fill(engine: sa.Engine, rows: int) -> None:
    """Record rows through the library, in transactions of 5,000."""
    batch = 5_000
    for start in range(0, rows, batch):
        with sa_audit.context(actor="bench"), Session(engine) as session:
            session.execute(
                sa.insert(Payment),
                [
                    {
                        "id": key,
                        "account": key % 977,
                        "amount": Decimal(key % 100_000) / 100,
                        "currency": "NOK",
                        "reference": f"invoice {key} of the year",
                        "booked_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=key),
                        "value_date": dt.date(2026, 1, 1),
                        "rate": key / 7,
                        "urgent": key % 5 == 0,
                        "note": None,
                    }
                    for key in range(start + 1, min(start + batch, rows) + 1)
                ],
            )
            session.commit()


def measure(url: str, rows: int) -> None:
    """Fill, seal, and print what it took."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    signer = Signer.generate("bench.example/audit")
    with tempfile.TemporaryDirectory() as directory:
        state, anchor = Path(directory) / "state", anchors.open(f"file:{directory}/anchor")
        sa_audit.seal(engine, signer, state=state, anchors=[anchor], metadata=Base)
        fill(engine, rows)
        pid = os.fork()
        if pid == 0:
            engine.dispose(close=False)
            _seal(engine, signer, state, anchor, rows)
            os._exit(0)
        os.waitpid(pid, 0)
    engine.dispose()


def _seal(engine: sa.Engine, signer: Signer, state: Path, anchor: object, rows: int) -> None:
    began, used = time.perf_counter(), time.process_time()
    checkpoint = sa_audit.seal(engine, signer, state=state, anchors=[anchor], metadata=Base)  # type: ignore[list-item]
    took, processor = time.perf_counter() - began, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert checkpoint is not None
    assert checkpoint.size > rows
    print(
        f"{engine.dialect.name}: {rows} rows sealed in {took:.2f} s ({processor:.2f} s of the processor): "
        f"{rows / took:,.0f} rows/s; {memory:.0f} MiB at most"
    )
    began = time.perf_counter()
    sa_audit.seal(engine, signer, state=state, anchors=[anchor], metadata=Base)  # type: ignore[list-item]
    print(f"{engine.dialect.name}: a sealing with nothing to seal takes {(time.perf_counter() - began) * 1000:.1f} ms")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    with empty_database(given.url, "sa_audit_bench_seal") as url:
        measure(url, given.rows)


if __name__ == "__main__":
    main()
