"""What recording costs: the time of audited work as a multiple of the same work with SQLAlchemy alone.

Usage::

    python benchmarks/capture.py URL [--peers] [--rows 5000] [--singles 500] [--repeat 4]

Prints Markdown: ratios of the fastest of `--repeat` rounds, in which all sides take turns phase by phase, and of the
median commit of all rounds, which says more on a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median

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

OURS = {"sa_audit": "sa_audit", "trigger": "sa_audit, trigger capture"}
NAMES = OURS | {side: name for side, (name, _) in PEERS.items()}

COLUMNS = ["insert", "update", "delete", "one_row"]
"""The phases in the order of the tables."""

Statistic = Callable[[Sequence[Sequence[float]]], float]

ENVIRONMENTS = Path(tempfile.gettempdir()) / "sa_audit_benchmarks"

Rounds = dict[str, dict[str, list[list[float]]]]
"""By worker and phase: of each round the seconds of each commit."""


def measure(running: Mapping[str, Worker], failed: dict[str, str], rows: int, singles: int, repeat: int) -> Rounds:
    """Let all workers take turns, and return the times of those that got through with every change recorded.

    Args:
        running: the workers by label.
        failed: receives the reason of each worker that did not, by label.
        rows: how many rows a round inserts, updates and deletes.
        singles: how many rows a round updates one by one.
        repeat: the number of rounds.
    """
    arguments = {"insert": {"rows": rows}, "one_row": {"rows": singles}}
    rounds: Rounds = {label: {phase: [] for phase in PHASES} for label in running}
    for _ in range(repeat):
        for phase in PHASES:
            for label in [label for label in running if label not in failed]:
                try:
                    rounds[label][phase].append(running[label].do(phase, **arguments.get(phase, {}))["laps"])
                except SideFailed as error:
                    failed[label] = str(error)
    expected = repeat * (3 * rows + min(singles, rows))
    for label in [label for label in running if label not in failed and not label.startswith("plain")]:
        recorded = running[label].do("recorded")["recorded"]
        if recorded != expected:
            failed[label] = f"recorded {recorded} of {expected} changes"
    return {label: times for label, times in rounds.items() if label not in failed}


def best_round(rounds: Sequence[Sequence[float]]) -> float:
    """Return the seconds of the fastest round."""
    return min(sum(laps) for laps in rounds)


def median_commit(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median of the seconds of all commits, which a disturbance does not move."""
    return median(lap for laps in rounds for lap in laps)


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


def ratios(measured: Rounds, versions: Mapping[str, str], statistic: Statistic) -> list[list[str]]:
    """Return the lines of a table: each side's figures as multiples of plain SQLAlchemy's in its own environment."""
    lines = []
    for side, name in NAMES.items():
        plain = measured.get("plain" if side in OURS else f"plain_{side}")
        if side in measured and plain is not None:
            figures = [ratio(statistic(measured[side][phase]), statistic(plain[phase])) for phase in COLUMNS]
            lines.append([f"{name} {versions[side]}", *figures])
    return lines


def report(measured: Rounds, failed: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Return the tables, and a sentence for each side that has no figures."""
    heading = [PHASES[phase] for phase in COLUMNS]
    milliseconds = [
        [label, *(f"{1000 * median_commit(times[phase]):.2f}" for phase in COLUMNS)]
        for label, times in measured.items()
    ]
    tables = [
        markdown(["best round, times plain", *heading], ratios(measured, versions, best_round)),
        markdown(["median commit, times plain", *heading], ratios(measured, versions, median_commit)),
        markdown(["median commit, ms", *heading], milliseconds),
    ]
    notes = [
        f"{name}: no figures ({failed.get(side) or failed[f'plain_{side}']})"
        for side, name in NAMES.items()
        if side in failed or f"plain_{side}" in failed
    ]
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
    sides = [(side, side, sys.executable) for side in ("plain", *OURS)]
    if options.peers:
        sides += peer_sides(options.environments, failed)
    with workers(options.url, sides) as (running, unstarted):
        failed |= unstarted
        measured = measure(running, failed, options.rows, options.singles, options.repeat)
        versions = {label: worker.about["version"] for label, worker in running.items()}
        title = f"{server_version(options.url)}, SQLAlchemy {sa.__version__}, Python {sys.version.split()[0]}"
        driver = sa.make_url(options.url).get_driver_name()
        print(f"{title}, {driver} {_driver_version(driver)}; {options.rows} rows, {options.repeat} rounds\n")
        print(report(measured, failed, versions))
    if {"plain", *OURS} & failed.keys():
        raise SystemExit(1)


def _driver_version(driver: str) -> str:
    try:
        return metadata.version(driver)
    except metadata.PackageNotFoundError:  # sqlite3 comes with Python
        return ""


if __name__ == "__main__":
    main()
