"""The command line.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .bundle import Bundle
from .fault import Bad
from .notes import Checkpoint, policy_of

# -- the command line ---------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a bundle as the command line says; give the exit code."""
    parser = argparse.ArgumentParser(description="Check a bundle of evidence from an audit trail.")
    parser.add_argument("bundle", help="the zip file")
    parser.add_argument("--key", required=True, help="the log's verifier key or a policy: text, or a file")
    parser.add_argument("--held", help="a file with a checkpoint that you have kept from before")
    given = parser.parse_args(arguments)
    try:
        policy = policy_of(given.key if given.key.count("+") >= 2 else contents(given.key, 65536).decode("utf-8"))
        held = Checkpoint(contents(given.held, 131073)) if given.held else None
    except (Bad, OSError, ValueError) as error:
        print("the key or the checkpoint that is held can't be used:", error, file=sys.stderr)
        return 2
    try:
        bundle = Bundle(given.bundle, policy, held)
        findings = bundle.check()
    except (Bad, OSError) as error:
        print("it is no bundle:", given.bundle, error, file=sys.stderr)
        return 3
    return report(bundle, findings)


def contents(name: str, limit: int) -> bytes:
    """Give the start of a file."""
    with open(name, "rb") as file:
        return file.read(limit)


def report(bundle: Bundle, findings: Sequence[str]) -> int:
    """Print what was checked and found; give the exit code."""
    note = bundle.checkpoint
    print(f"log:         {note.origin!a}, {note.size} leaves, root {note.root.hex()}")
    print(f"asked for:   {bundle.manifest['selection']!a}")
    print(f"checked:     {bundle.entries} entries, {bundle.rows} rows, {bundle.proofs} proofs as text")
    said = ", ".join(f"{first} to {end - 1}" for first, end in bundle.manifest["ranges"])
    print("complete:    " + (said or "no range: what is here was recorded, and there may be more"))
    for finding in findings[:1000]:
        print(f"FOUND        {finding!a}")
    if findings:
        print(f"{len(findings)} findings: the bundle does not prove what it says")
        return 1
    print("nothing was found: each row is as it was sealed")
    return 0
