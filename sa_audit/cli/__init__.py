"""The command line: parse, call one function of the library, print one result object.

Needs the extra ``cli`` (typer and rich); nothing else of the library imports this package.  Exit codes: 0 fine,
1 findings, 2 wrong usage, 3 can't run.
"""

from __future__ import annotations

import sys

NEEDED = ("typer", "rich", "click")


def main() -> None:
    """Run ``sa-audit`` with the arguments of the process, and exit with its code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(f"sa-audit needs {error.name} to run: pip install 'sa-audit[cli]'", file=sys.stderr)
        raise SystemExit(3) from error
    run()


__all__ = ["main"]
