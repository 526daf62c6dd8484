"""What recording costs where one Core statement changes many rows: time, linearity, and the client's memory.

Usage::

    python benchmarks/bulk.py URL [--capture session] [--rows 30000 100000 1000000] [--repeat 3] [--warm 50]

Prints Markdown.  The statement is ``UPDATE account SET balance = balance + 1`` on a table of ten columns, in a
transaction of its own; each figure is the best of `--repeat` rounds, in which both sides take turns.  With `--warm`
each connection has first changed that many rows one by one, so that the server has its plans for one row.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import Worker, markdown, ratio, workers

CAPTURES = {"session": "sa_audit", "trigger": "trigger"}
"""The side of each way of capture."""


def measure(url: str, rows: int, repeat: int, capture: str = "session", warm: int = 0) -> dict[str, dict[str, float]]:
    """Update that many rows with both sides in turn, in fresh databases and processes.

    Returns:
        By side: ``seconds`` (the best round's) and ``growth`` (bytes by which the peak of resident memory rose,
        over all rounds).

    Raises:
        SystemExit: if a side fails, or updates or records another number of rows.
    """
    sides = [("plain", "plain", sys.executable), ("sa_audit", CAPTURES[capture], sys.executable)]
    with workers(url, sides) as (running, failed):
        if failed:
            raise SystemExit("\n".join(f"{side}: {reason}" for side, reason in failed.items()))
        for worker in running.values():
            worker.do("fill", rows=rows)
            if warm:
                worker.do("one_row", rows=warm)
        result = {side: {"seconds": float("inf"), "growth": 0.0} for side in running}
        for _ in range(repeat):
            for side, worker in running.items():
                answer = worker.do("bulk")
                _check(side, answer["rows"], rows)
                result[side]["seconds"] = min(result[side]["seconds"], answer["seconds"])
                result[side]["growth"] += answer["growth"]
        filled = rows if capture == "trigger" else 0  # the triggers record the filling, too
        _check("sa_audit", _recorded(running["sa_audit"]), filled + warm + repeat * rows)
    return result


def _recorded(worker: Worker) -> Any:
    return worker.do("recorded")["recorded"]


def _check(side: str, found: float, expected: int) -> None:
    if found != expected:
        raise SystemExit(f"{side}: {found:.0f} rows where {expected} were to be updated and recorded")


def main() -> None:
    """Measure and print, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="a database whose user may create others, or a SQLite file to put others beside")
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--capture", choices=CAPTURES, default="session", help="who records")
    parser.add_argument("--warm", type=int, default=0, help="rows that are changed one by one before")
    options = parser.parse_args()
    lines = []
    for rows in options.rows:
        result = measure(options.url, rows, options.repeat, options.capture, options.warm)
        plain, audited = result["plain"]["seconds"], result["sa_audit"]["seconds"]
        growth = [f"{result[side]['growth'] / 2**20:.1f}" for side in ("plain", "sa_audit")]
        each = [f"{1e6 * seconds / rows:.1f}" for seconds in (plain, audited)]
        lines.append([f"{rows:,}", f"{plain:.2f}", f"{audited:.2f}", ratio(audited, plain), *each, *growth])
    heading = ["rows", "plain s", "audited s", "ratio", "plain µs/row", "audited µs/row", "plain MiB", "audited MiB"]
    print(markdown(heading, lines))


if __name__ == "__main__":
    main()
