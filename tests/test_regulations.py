"""The regulations' page: what it claims is demonstrated, by examples and commands that run, and no row goes without."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from sa_audit.cli.app import app
from tests import test_docs

PAGE = test_docs.ROOT / "docs" / "regulations.md"
TEXT = PAGE.read_text(encoding="utf-8")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
PART = re.compile(r"^```console\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors_of(text: str) -> set[str]:
    """Give the anchors of a page's headings, as MyST makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(text)}


def rows() -> list[list[str]]:
    """Give the rows of all tables of clauses, as cells."""
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| clause"))]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_demonstrations_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples and commands run as they are printed, in their order, on one database."""
    module = ModuleType("example_regulations")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SA_AUDIT_URL", "sqlite:///clinic.db")
    Path("pyproject.toml").write_text('[tool.sa_audit]\nmodels = "example_regulations:Base"\n', encoding="utf-8")
    steps = [(block.line, block) for block in test_docs._blocks(TEXT)]
    commands = [(TEXT.count("\n", 0, match.start()) + 2, match["commands"]) for match in PART.finditer(TEXT)]
    ran = 0
    with asyncio.Runner() as loop:
        try:
            for _line, step in sorted([*steps, *commands], key=lambda item: item[0]):
                if isinstance(step, test_docs.Block):
                    test_docs._run(step, PAGE, module, loop)
                    continue
                for command in step.splitlines():
                    arguments = command.removeprefix("$ sa-audit ").split()
                    result = CliRunner().invoke(app, arguments)
                    assert result.exit_code == 0, f"{command}: {result.output} {result.exception!r}"
                    ran += 1
        finally:
            test_docs._dispose(module, loop)
    assert ran >= 6


def test_each_clause_says_how_it_is_met_or_that_it_is_not() -> None:
    """A row that names no demonstration says what the operator does or that nothing meets it."""
    found = rows()
    assert len(found) > 35
    for clause, asks, met, operator, missing in found:
        assert clause
        assert asks
        assert met or operator or missing, clause
        assert met or "all of it" in operator or "not met" in missing, clause


def test_what_is_linked_is_there() -> None:
    """Each link within the page leads to a heading of it."""
    known = anchors_of(TEXT)
    linked = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert len(linked) >= 10
    assert linked <= known, linked - known


def test_nothing_is_called_compliant() -> None:
    """The library supports, records and proves; it complies with nothing."""
    assert not re.search(r"\bcompliant\b", TEXT, re.IGNORECASE)
