"""What recording costs: the time of audited work as a multiple of the same work with SQLAlchemy alone.

Usage::

    python benchmarks/capture.py URL [--peers] [--rows 5000] [--singles 500] [--repeat 4]

Prints Markdown.  Each figure is the best of `--repeat` rounds, in which all sides take turns phase by phase.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

from harness import SideFailed, Worker, environment, markdown, ratio, workers

PHASES = {"insert": "insert", "update": "update", "one_row": "1-row commit", "delete": "delete"}
"""The phases in their order, which a round has to keep, and how the table calls them."""

PEERS = {
    "continuum": ("SQLAlchemy-Continuum", "sqlalchemy-continuum==2.0.*"),
    "history": ("SQLAlchemy-History", "sqlalchemy-history==2.2.*"),
    "audit_trail": ("sqlalchemy-audit-trail", "sqlalchemy-audit-trail==0.2.*"),
}
"""By side: the name, and what to install."""

ENVIRONMENTS = Path(tempfile.gettempdir()) / "sa_audit_benchmarks"

Seconds = dict[str, dict[str, float]]
"""The best time of each phase, by worker and phase."""


def measure(running: Mapping[str, Worker], failed: dict[str, str], rows: int, singles: int, repeat: int) -> Seconds:
    """Let all workers take turns, and return the best times of those that got through with every change recorded.

    Args:
        running: the workers by label.
        failed: receives the reason of each worker that did not, by label.
        rows: how many rows a round inserts, updates and deletes.
        singles: how many rows a round updates one by one.
        repeat: the number of rounds.
    """
    arguments = {"insert": {"rows": rows}, "one_row": {"rows": singles}}
    best: Seconds = {label: {} for label in running}
    for _ in range(repeat):
        for phase in PHASES:
            for label in [label for label in running if label not in failed]:
                try:
                    seconds = running[label].do(phase, **arguments.get(phase, {}))["seconds"]
                except SideFailed as error:
                    failed[label] = str(error)
                else:
                    best[label][phase] = min(best[label].get(phase, seconds), seconds)
    expected = repeat * (3 * rows + min(singles, rows))
    for label in [label for label in running if label not in failed and not label.startswith("plain")]:
        recorded = running[label].do("recorded")["recorded"]
        if recorded != expected:
            failed[label] = f"recorded {recorded} of {expected} changes"
    return {label: times for label, times in best.items() if label not in failed}


def peer_sides(directory: Path, failed: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return (label, side, interpreter) for each peer and for plain SQLAlchemy in the peer's environment."""
    common = [f"sqlalchemy[asyncio]=={sa.__version__}", "psycopg[binary]", "pymysql"]
    sides = []
    for side, (_, requirement) in PEERS.items():
        try:
            python = environment(directory, side, [requirement, *common])
        except SideFailed as error:
            failed[side] = str(error)
            continue
        sides += [(f"plain_{side}", "plain", python), (side, side, python)]
    return sides


def report(best: Seconds, failed: Mapping[str, str], running: Mapping[str, Worker], rows: int, singles: int) -> str:
    """Return the tables and sentences that say what came out."""
    columns = ["insert", "update", "delete", "one_row"]
    heading = [PHASES[phase] for phase in columns]
    names = {"sa_audit": "sa_audit"} | {side: name for side, (name, _) in PEERS.items()}
    ratios, notes = [], []
    for side, name in names.items():
        base = best.get("plain" if side == "sa_audit" else f"plain_{side}")
        if side in best and base is not None:
            about = f"{name} {running[side].about['version']}"
            ratios.append([about, *(ratio(best[side][phase], base[phase]) for phase in columns)])
        elif side in failed or f"plain_{side}" in failed:
            notes.append(f"{name}: no figures ({failed.get(side) or failed[f'plain_{side}']})")
    count = {"one_row": singles}
    each = [
        [label, *(f"{1000 * times[phase] / count.get(phase, rows):.3f}" for phase in columns)]
        for label, times in best.items()
    ]
    tables = markdown(["times the plain work", *heading], ratios), markdown(["milliseconds a row", *heading], each)
    return "\n\n".join([*tables, *notes])


def server_version(url: str) -> str:
    """Return the database's name and version."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        version = connection.dialect.server_version_info
    engine.dispose()
    return f"{engine.dialect.name} {'.'.join(map(str, version or ()))}"


def main() -> None:
    """Measure and print, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="a database whose user may create others, or a SQLite file to put others beside")
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="of the peers; kept")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--singles", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=4)
    options = parser.parse_args()
    failed: dict[str, str] = {}
    sides = [("plain", "plain", sys.executable), ("sa_audit", "sa_audit", sys.executable)]
    if options.peers:
        sides += peer_sides(options.environments, failed)
    with workers(options.url, sides) as (running, unstarted):
        failed |= unstarted
        best = measure(running, failed, options.rows, options.singles, options.repeat)
        title = f"{server_version(options.url)}, SQLAlchemy {sa.__version__}, Python {sys.version.split()[0]}"
        driver = sa.make_url(options.url).get_driver_name()
        print(f"{title}, {driver} {_driver_version(driver)}; {options.rows} rows, best of {options.repeat}\n")
        print(report(best, failed, running, options.rows, options.singles))
    if "sa_audit" in failed or "plain" in failed:
        raise SystemExit(1)


def _driver_version(driver: str) -> str:
    try:
        return metadata.version(driver)
    except metadata.PackageNotFoundError:  # sqlite3 comes with Python
        return ""


if __name__ == "__main__":
    main()
