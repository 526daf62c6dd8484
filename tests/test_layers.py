"""The rooms of the house: which package may import which, read off the source and never off what happens to be loaded.

`errors` is open to all, the rest only to those named here; the tests of `sa_audit` may import anything.
"""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent / "sa_audit"

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "ddl": {"model"},
    "catalog": {"model", "ddl", "proof"},
    "privacy": {"model", "proof"},
    "capture": {"model", "ddl", "privacy"},
    "query": {"model", "ddl", "privacy", "capture", "catalog", "proof"},
    "adoption": {"model", "ddl", "capture", "query"},
    "retention": {"model", "ddl", "capture", "query", "adoption", "catalog", "proof"},
    "asyncio": {"query", "capture"},
    "testing": {"model", "ddl"},
    "proof": set(),
    "anchors": {"proof"},
    "seal": {"model", "proof", "anchors", "catalog"},
    "verification": {"model", "proof", "anchors", "catalog"},  # the checker shares no code with the writer
    "migrate": {"model", "ddl", "catalog"},
    "export": {"query", "verification", "proof"},
    "web": {"query", "verification", "export"},
}
"""All but `cli` and `__main__`, which may import anything, and `__init__`, which may not import three of them."""

ROOMS = {*MAY_IMPORT, "cli", "__main__"}
PROOF_DEPENDENCIES = {"cryptography", "cbor2"}


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[tuple[str, ...]]:
    """Return the full names of all that a file imports, wherever in it, split at the dots."""
    package = ("sa_audit", *path.relative_to(ROOT).parent.parts)
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = (*start, *(node.module.split(".") if node.module else ()))
            names |= {(*module, alias.name) for alias in node.names}
    return names


def _rooms_imported(path: Path) -> set[str]:
    """Return the rooms that a file imports from; what belongs to none of them is from `sa_audit itself`."""
    own = {name[1:2] for name in _imports(path) if name[0] == "sa_audit"}
    return {name[0] if name and name[0] in ROOMS else "sa_audit itself" for name in own}


def _files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _allowed(room: str) -> set[str]:
    if room == "__init__":
        return ROOMS - {"cli", "web", "migrate"}
    return (ROOMS if room in {"cli", "__main__"} else MAY_IMPORT.get(room, set())) | {room, "errors"}


def test_each_room_imports_only_what_it_may() -> None:
    """No file reaches into a room that the table does not give it, nor into the top level."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in _files()
        for room in sorted(_rooms_imported(path) - _allowed(_room(path)))
    ]
    assert wrong == []


def test_each_file_stands_in_a_known_room() -> None:
    """A new room gets its line in the table before it gets its first file."""
    assert {_room(path) for path in _files()} <= ROOMS | {"__init__"}


def test_no_room_is_part_of_a_cycle() -> None:
    """What is allowed by the table and by habit still leaves an order in which the rooms can be understood."""
    graph: dict[str, set[str]] = {}
    for path in _files():
        if _room(path) != "__init__":
            graph.setdefault(_room(path), set()).update(_rooms_imported(path) - {_room(path)})
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the rooms


def test_the_proof_depends_on_nothing_but_cryptography() -> None:
    """A verifier needs the standard library and two packages, and no database."""
    known = sys.stdlib_module_names | PROOF_DEPENDENCIES | {"sa_audit"}
    foreign = {name[0] for path in _files() if _room(path) == "proof" for name in _imports(path)}
    assert foreign <= known
