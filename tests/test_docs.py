"""The examples in README.md and docs/ run as they are printed.

The `python` and `pycon` blocks of a page share one module and run in order, in an empty directory.
A block after the comment `<!-- no-run: reason -->` is left out; top-level `await` works.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(
    r"^(?P<no_run><!-- no-run:(?P<reason>[^\n]*)-->\n\s*)?"
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>python|pycon)[^\n]*\n(?P<code>.*?)^(?P=indent)(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One example: its language, its text and the line of the page on which the text begins."""

    language: str
    code: str
    line: int


def _blocks(page: str) -> Iterator[Block]:
    """Yield the examples of a page that are to run."""
    for match in _BLOCK.finditer(page):
        if match["no_run"] is not None:
            if not match["reason"].strip():
                raise ValueError("a no-run comment gives its reason")
            continue
        indent = re.compile(f"^{match['indent']}", re.MULTILINE)
        line = page.count("\n", 0, match.start("code")) + 1
        yield Block(language=match["language"], code=indent.sub("", match["code"]), line=line)


def _pages() -> list[Path]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.exists() and "_build" not in page.parts]


def _run(block: Block, page: Path, module: ModuleType, loop: asyncio.Runner) -> None:
    if block.language == "pycon":
        example = doctest.DocTestParser().get_doctest(block.code, vars(module), page.name, str(page), block.line - 1)
        example.globs = vars(module)  # not the copy that it makes: later blocks see what this one defines
        report: list[str] = []
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        if runner.run(example, out=report.append, clear_globs=False).failed:
            pytest.fail("".join(report), pytrace=False)
        return
    padded = "\n" * (block.line - 1) + block.code  # so that a traceback shows the page's own line
    code = compile(padded, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, vars(module))
    if inspect.isawaitable(result):
        loop.run(_finish(result))


async def _finish(awaitable: object) -> None:
    await awaitable  # type: ignore[misc]  # what a block with a top-level await compiles to


def _dispose(module: ModuleType, loop: asyncio.Runner) -> None:
    for value in vars(module).values():
        if isinstance(value, sa.Engine):
            value.dispose()
        elif isinstance(value, AsyncEngine):
            loop.run(value.dispose())


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies a page's examples, one after the other, sees them work."""
    module = ModuleType(f"example_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # declarative looks names up in a class's module
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as loop:
        try:
            for block in _blocks(page.read_text(encoding="utf-8")):
                _run(block, page, module, loop)
        finally:
            _dispose(module, loop)


def test_a_failing_example_is_found(tmp_path: Path) -> None:
    """A page's error is reported at the page's own line, and a no-run block is left out."""
    left_out = "<!-- no-run: needs a server -->\n```python\n1 / 0\n```\n"
    text = f"# A page\n\n```python\nx = 1\n```\n\n{left_out}\n```python\ny = x\ny.z\n```\n"
    blocks = list(_blocks(text))
    assert [block.line for block in blocks] == [4, 13]
    module = ModuleType("example_failing")
    with asyncio.Runner() as loop:
        _run(blocks[0], tmp_path / "page.md", module, loop)
        with pytest.raises(AttributeError) as caught:
            _run(blocks[1], tmp_path / "page.md", module, loop)
    assert caught.traceback[-1].lineno + 1 == 14


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    """The output printed in a `pycon` block is the output that comes."""
    right, wrong = _blocks("```pycon\n>>> x = 2\n>>> x\n2\n```\n\n```pycon\n>>> x\n3\n```\n")
    module = ModuleType("example_output")
    with asyncio.Runner() as loop:
        _run(right, tmp_path / "page.md", module, loop)
        with pytest.raises(pytest.fail.Exception, match="Expected"):
            _run(wrong, tmp_path / "page.md", module, loop)
