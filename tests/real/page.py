"""The page of attacks, whose tables tests measure."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"


def compare(table: str, begin: str, end: str) -> None:
    """Compare a table with the one between two marks of the page, or write it there: ``SA_AUDIT_WRITE_ATTACKS=1``."""
    if os.environ.get("SA_AUDIT_WRITE_ATTACKS"):
        text = PAGE.read_text()
        head, tail = text.partition(begin)[0], text.partition(end)[2]
        PAGE.write_text(f"{head}{begin}\n\n{table}\n\n{end}{tail}")
    shown = PAGE.read_text().partition(begin)[2].partition(end)[0]
    assert shown.strip() == table
