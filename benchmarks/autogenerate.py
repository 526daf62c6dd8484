"""How long autogenerate takes with audited tables, beside Alembic's own; prints a table.

    python benchmarks/autogenerate.py --url postgresql+psycopg://postgres@127.0.0.1/bench --tables 200

Makes ``tables`` tables of ten columns and compares models and database, as ``alembic check`` does when nothing is left
to do: first with Alembic alone, while the database has nothing else; then, with their histories and guards, with the
library, and beside it what Alembic alone would need if the histories were tables like others.  The least time of each
is given.
The database has to be empty; give one of your own for this.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext

import sa_audit
import sa_audit.migrate

PLAIN = ["alembic.autogenerate.*", "~sa_audit"]


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description="autogenerate, measured")
    parser.add_argument("--url", required=True, help="an empty database")
    parser.add_argument("--tables", type=int, default=200, help="audited tables")
    parser.add_argument("--repeat", type=int, default=7, help="comparisons of each sort")
    arguments = parser.parse_args()
    engine = sa.create_engine(arguments.url)
    audited, plain = models(arguments.tables, audit=True), models(arguments.tables, audit=False)
    plain.create_all(engine)
    alone = min(timed(engine, plain, {"autogenerate_plugins": PLAIN}) for _ in range(arguments.repeat))
    audited.create_all(engine)
    sorts: dict[str, dict[str, Any]] = {
        "Alembic, histories as well": {"autogenerate_plugins": PLAIN},
        "with the library": {},
    }
    taken: dict[str, list[float]] = {name: [] for name in sorts}
    for _ in range(arguments.repeat):
        for name, options in sorts.items():
            taken[name].append(timed(engine, audited, options))
    least = {"Alembic, the tables alone": alone} | {name: min(each) for name, each in taken.items()}
    print(f"{engine.dialect.name}: {arguments.tables} audited tables, nothing left to do")
    for name, seconds in least.items():
        print(f"{name:<28}{seconds:>8.2f} s{seconds / alone:>8.2f}")
    engine.dispose()


def models(count: int, *, audit: bool) -> sa.MetaData:
    """Give a number of tables of ten columns, with an index and a foreign key each."""
    metadata = sa.MetaData()
    for number in range(count):
        table = sa.Table(
            f"account_{number}",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("parent_id", sa.ForeignKey(f"account_{max(number - 1, 0)}.id")),
            sa.Column("owner", sa.String(50), nullable=False, index=True),
            sa.Column("balance", sa.Numeric(12, 2), nullable=False),
            sa.Column("opened", sa.DateTime()),
            *(sa.Column(f"note_{n}", sa.String(100)) for n in range(5)),
        )
        if audit:
            sa_audit.track(table)
    return metadata


def timed(engine: sa.Engine, metadata: sa.MetaData, options: dict[str, Any]) -> float:
    """Compare once, on a connection of its own, and give the seconds; there must be nothing to do."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata, **options})
        start = time.perf_counter()
        found = produce_migrations(context, metadata)
        seconds = time.perf_counter() - start
        if "~sa_audit" not in options.get("autogenerate_plugins", ()) and not found.upgrade_ops.is_empty():
            raise SystemExit(f"there is something to do: {found.upgrade_ops.as_diffs()}")
    return seconds


if __name__ == "__main__":
    main()
