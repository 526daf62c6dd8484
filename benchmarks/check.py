"""How long ``check`` takes on a database with many audited tables, each of ten columns.

Usage: python benchmarks/check.py URL [TABLES], on an empty database whose account may create tables.
"""

from __future__ import annotations

import statistics
import sys
import time

import sqlalchemy as sa

import sa_audit
from sa_audit.catalog.drift import check
from sa_audit.ddl.privileges import privileges_for, securables, trail_tables
from sa_audit.migrate.script import script_for
from sa_audit.model import Configuration, Roles, Trail, complete


def models(count: int) -> sa.MetaData:
    """Give that many audited tables."""
    metadata = sa.MetaData()
    for number in range(count):
        columns = [sa.Column(f"c{index}", sa.String(40)) for index in range(9)]
        table = sa.Table(f"t{number:04}", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
        sa_audit.track(table)
    return metadata


def secure(engine: sa.Engine, trail: Trail) -> Roles:
    """Make roles and give them the trail, as a migration does."""
    roles = Roles(
        owner="bench_owner", writer="bench_writer", reader="bench_reader", sealer="bench_sealer", eraser="bench_eraser"
    )
    trail.reconfigure(Configuration(roles=roles))
    script, privileges = script_for(engine.dialect), privileges_for(engine.dialect)
    entries = securables(privileges, trail_tables(trail), script.shared_objects(trail), roles, "public")
    with engine.begin() as connection:
        for name in (roles.owner, roles.writer, roles.reader, roles.sealer):
            connection.exec_driver_sql(f"CREATE ROLE {name}")
        connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {roles.owner}")
        for statement in privileges.statements(entries, roles):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    return roles


def main() -> None:
    """Create the tables, check five times, and print the times in seconds."""
    url, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    engine, metadata = sa.create_engine(url), models(count)
    trail = complete(metadata)
    assert trail is not None
    metadata.create_all(engine)
    roles = secure(engine, trail) if engine.dialect.name == "postgresql" else None
    times = []
    try:
        for _ in range(5):
            with engine.connect() as connection:
                started = time.perf_counter()
                report = check(connection, trail)
                times.append(time.perf_counter() - started)
            assert not report.drift, report.drift
            assert report.level == (1 if roles is None else 2), report.findings
    finally:
        metadata.drop_all(engine)
        if roles is not None:
            with engine.begin() as connection:
                for name in (roles.owner, roles.writer, roles.reader, roles.sealer):
                    connection.exec_driver_sql(f"DROP OWNED BY {name}")
                    connection.exec_driver_sql(f"DROP ROLE {name}")
        engine.dispose()
    print(f"{engine.dialect.name}, {count} tables: first {times[0]:.2f} s, median {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
