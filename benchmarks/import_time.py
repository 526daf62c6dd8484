"""What importing the library costs, as a multiple of importing `sqlalchemy.orm`.

Usage::

    python benchmarks/import_time.py [--repeat 15]

Each import runs in a fresh interpreter with its bytecode compiled; both take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def import_seconds(module: str) -> float:
    """Return the seconds that a fresh interpreter takes to import the module."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", PROGRAM.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)


def main() -> None:
    """Measure and print, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    modules = ("sqlalchemy.orm", "sa_audit")
    best = dict.fromkeys(modules, float("inf"))
    for _ in range(options.repeat + 1):  # the first round may compile
        for module in modules:
            best[module] = min(best[module], import_seconds(module))
    for module, seconds in best.items():
        print(f"{module}: {1000 * seconds:.0f} ms")
    print(f"ratio: {best['sa_audit'] / best['sqlalchemy.orm']:.2f}")


if __name__ == "__main__":
    main()
