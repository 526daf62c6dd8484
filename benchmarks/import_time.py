"""What importing the library costs, as a multiple of importing `sqlalchemy.orm`.

Usage::

    python benchmarks/import_time.py [--repeat 15]

Each import runs in a fresh interpreter with its bytecode compiled, as it is in an installed package, whatever
PYTHONDONTWRITEBYTECODE says here; both take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import time
clock, processor = time.perf_counter(), time.process_time()
import {}
print(time.perf_counter() - clock, time.process_time() - processor)
"""


def import_seconds(module: str) -> tuple[float, float]:
    """Return the seconds that a fresh interpreter takes to import the module, by the clock and of the processor."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", PROGRAM.format(module)]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=variables).stdout
    clock, processor = map(float, output.split())
    return clock, processor


def main() -> None:
    """Measure and print, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    modules = ("sqlalchemy.orm", "sa_audit")
    times: dict[str, list[tuple[float, float]]] = {module: [] for module in modules}
    for _ in range(options.repeat + 1):  # the first round may compile
        for module in modules:
            times[module].append(import_seconds(module))
    for place, kind in enumerate(("by the clock", "of the processor")):
        plain, audited = (min(taken[place] for taken in times[module]) for module in modules)
        print(f"{kind}: {1000 * plain:.0f} ms -> {1000 * audited:.0f} ms, ratio {audited / plain:.2f}")


if __name__ == "__main__":
    main()
