"""How long a prune takes, step by step: rows deleted in batches, and a month's partition dropped whole.

    python benchmarks/prune.py postgresql+psycopg://postgres@127.0.0.1/postgres [--rows 1000000]

An audited table of ten columns, with as many rows as there are keys; its history, of February 2024, has five rows for
each key and is put there by INSERTs of the server's own, before anything is sealed.  Measured is what ``prune`` does:
carry the last words forward and ask, the sealing of what that needs, and the deletion, each with this process's CPU
time behind it.  The sealing of the history itself comes before and is not counted.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sa_audit
from benchmarks.harness import empty_database
from sa_audit import Audited, AuditOptions, Retention, anchors
from sa_audit.proof import Signer
from sa_audit.testing import unguarded

CHANGES = 5
MONTH = "payment_history_2024_02"


def payments(partition: Any) -> Any:
    """Give the base of a model of ten columns whose history is kept for two years."""

    class Base(DeclarativeBase):
        """The base."""

    sa_audit.configure(Base, testing=True)

    class Payment(Audited, Base):
        """Ten columns, as a bank might have them."""

        __tablename__ = "payment"
        __audit__ = AuditOptions(partition=partition, retention=Retention(keep=dt.timedelta(days=730)))

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

    kept: Any = Base
    kept.model = Payment
    return Base


def fill(engine: sa.Engine, base: Any, rows: int, partition: Any) -> None:
    """Put the history of February 2024 there, a transaction for each thousand rows, and the rows that it is of."""
    keys = rows // CHANGES
    values = (
        "mod(k, 1000), n + k / 100.0, 'EUR', concat('payment ', k), now(), current_date, 0.5, mod(k, 2) = 0, "
        "CASE WHEN n > 1 THEN concat('change ', n) END"
    )
    names = "id, account, amount, currency, reference, booked_at, value_date, rate, urgent, note"
    moment = "timestamptz '2024-02-03 00:00:00Z' + {} * interval '1 ms'"
    statements = [
        f"INSERT INTO payment ({names}) SELECT k, {values}"
        f" FROM generate_series(1, {keys}) AS k, (SELECT {CHANGES} AS n) AS m",
        f"INSERT INTO audit_transaction (recorded_at, actor, db_txid) SELECT {moment.format('t')}, 'bench', 3"
        f" FROM generate_series(1, {rows // 1000}) AS t",
        f"INSERT INTO payment_history (audit_tx, audit_at, audit_txid, audit_op, audit_before, {names})"
        f" SELECT t, {moment.format('t')}, 3, CASE n WHEN 1 THEN 'I' ELSE 'U' END,"
        f" CASE WHEN n > 1 THEN json_build_object('note', CASE WHEN n > 2 THEN concat('change ', n - 1) END) END,"
        f" k, {values} FROM (SELECT n, k, (n - 1) * {keys} + k AS i FROM generate_series(1, {CHANGES}) AS n,"
        f" generate_series(1, {keys}) AS k) AS s, LATERAL (SELECT least(i / 1000 + 1, {rows // 1000}) AS t) AS u"
        " ORDER BY i",
        "ANALYZE",
    ]
    if partition is not None:
        statements[:0] = [
            f"CREATE TABLE {MONTH} (LIKE payment_history INCLUDING DEFAULTS INCLUDING STORAGE)",
            f"ALTER TABLE payment_history ATTACH PARTITION {MONTH} "
            "FOR VALUES FROM ('2024-02-01 00:00:00+00') TO ('2024-03-01 00:00:00+00')",
        ]
    with unguarded(engine):
        for statement in statements:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement, execution_options={"sa_audit_internal": True})
    if partition is not None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT sa_audit_partitions_v1('payment_history', 'payment_history', 3)")


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Do something, and print how long it took, and how much of that this process worked."""
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    elapsed, worked = time.perf_counter() - start, time.process_time() - cpu
    print(f"  {what:<40} {elapsed:8.2f} s  (CPU {worked:6.2f} s)", flush=True)
    return found


def measure(url: str, rows: int, partition: Any) -> None:
    """Fill a database, and prune it."""
    base = payments(partition)
    with empty_database(url, "sa_audit_bench_prune") as place, tempfile.TemporaryDirectory() as directory:
        engine = sa.create_engine(place)
        try:
            steps(engine, base, rows, partition, directory)
        finally:
            engine.dispose()


def steps(engine: sa.Engine, base: Any, rows: int, partition: Any, directory: str) -> None:
    """Fill, seal, and prune, and print how long each step took."""
    base.metadata.create_all(engine)
    print(f"{rows:,} rows of {rows // CHANGES:,} keys, {'by month' if partition else 'a plain table'}")
    timed("(filled)", lambda: fill(engine, base, rows, partition))
    signer, anchor = Signer.generate("bench.example/audit"), anchors.open(f"file:{directory}/anchors")

    def seal() -> Any:
        return sa_audit.seal(engine, signer, state=f"{directory}/state", anchors=[anchor], metadata=base)

    def prune() -> Any:
        with sa_audit.context(actor="bench", reason="measuring"):
            return sa_audit.prune(engine, metadata=base)[0]

    timed("(sealed)", seal)
    start = time.perf_counter()
    asked = timed("carried forward and asked", prune)
    timed("sealed with the leaf of the prune", seal)
    done = timed("deleted", prune)
    print(f"  {'in all':<40} {time.perf_counter() - start:8.2f} s")
    print(f"  carried {asked.carried:,}, asked {asked.asked:,}, deleted {done.erased:,}, dropped {done.partitions}")
    if done.erased != rows:
        raise SystemExit(f"{rows} rows had to go, and {done.erased} went")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("plain", "month"))
    arguments = parser.parse_args()
    for name, partition in (("plain", None), ("month", "month")):
        if arguments.only in (None, name):
            measure(arguments.url, arguments.rows, partition)


if __name__ == "__main__":
    main()
