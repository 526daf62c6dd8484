"""Independent judges: programs that others wrote accept what the library makes, and refuse what was tampered with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pymerkle
import pytest

from sa_audit.proof import Frontier, leaf_hash
from sa_audit.proof.merkle import inclusion_proof
from tests.proof.test_merkle import entries, reader
from tests.proof.vectors import HERE, vectors

GOPATH = Path("/usr/share/gocode")
PROGRAM = Path(__file__).parent / "judges" / "judge.go"


def _missing() -> str | None:
    """Tell why Go can't judge."""
    if shutil.which("go") is None:
        return "Go is not installed (Debian: golang-go)"
    if not (GOPATH / "src/golang.org/x/mod/sumdb").is_dir():
        return "golang.org/x/mod is not installed (Debian: golang-golang-x-mod-dev)"
    return None


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, bool]]]:
    """What Go says of each vector: by sort, its number and whether it was accepted."""
    missing = _missing()
    if missing is not None:
        if "go" in os.environ.get("SA_AUDIT_TEST_REQUIRE", "").split(","):
            pytest.fail(f"go is required: {missing}", pytrace=False)
        pytest.skip(missing)
    place = tmp_path_factory.mktemp("judge")
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(place / "cache"),
        "GOFLAGS": "",
    }
    program = place / "judge"
    subprocess.run(["go", "build", "-o", str(program), str(PROGRAM)], env=environment, check=True, timeout=300)
    said = subprocess.run([str(program), str(HERE)], capture_output=True, text=True, check=True, timeout=60).stdout
    found: dict[str, list[tuple[int, bool]]] = {}
    for line in said.splitlines():
        sort, number, verdict = line.split(" ", 2)
        found.setdefault(sort, []).append((int(number), verdict == "accepted"))
    return found


def test_go_accepts_our_checkpoints(verdicts: dict[str, list[tuple[int, bool]]]) -> None:
    """`sumdb/note` opens each with each of its log keys."""
    assert len(verdicts["note"]) == sum(
        name in ("log", "next") for case in vectors("checkpoint")["checkpoints"] for name in case["signed_by"]
    )
    assert all(accepted for _number, accepted in verdicts["note"])


def test_go_accepts_our_proofs(verdicts: dict[str, list[tuple[int, bool]]]) -> None:
    """`sumdb/tlog` checks each; it does not speak of an old tree of no leaves."""
    assert len(verdicts["inclusion"]) == len(vectors("merkle")["inclusion"])
    assert all(accepted for _number, accepted in verdicts["inclusion"])
    cases: list[Any] = vectors("merkle")["consistency"]
    assert [accepted for _number, accepted in verdicts["consistency"]] == [case["old"] > 0 for case in cases]


@pytest.mark.parametrize("sort", ["refused_note", "refused_inclusion", "refused_consistency"])
def test_go_refuses_what_was_tampered_with(verdicts: dict[str, list[tuple[int, bool]]], sort: str) -> None:
    """A flipped bit, another text, a hash more or less."""
    assert len(verdicts[sort]) > 5
    accepted = [number for number, was_accepted in verdicts[sort] if was_accepted]
    # Go drops further lines of a key whose first line it has verified; ours makes the whole note invalid.
    lenient = [
        number
        for number, case in enumerate(vectors("checkpoint")["refused_signatures"])
        if sort == "refused_note" and case["why"] == "a good line and a bad one"
    ]
    assert accepted == lenient


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 33, 100])
def test_pymerkle_gives_the_same_tree_and_proofs(size: int) -> None:
    """Another implementation of RFC 9162: the roots of all sizes, and the paths of inclusion."""
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    leaves = entries(size)
    for leaf in leaves:
        tree.append_entry(leaf)
    assert tree.get_root() == Frontier().append(map(leaf_hash, leaves)).root()
    for index in {0, size // 2, size - 1}:
        ours = inclusion_proof(index, size, reader(leaves))
        theirs = tree.prove_inclusion(index + 1, size)
        assert [leaf_hash(leaves[index]), *ours] == theirs.path
        pymerkle.verify_inclusion(leaf_hash(leaves[index]), tree.get_root(), theirs)
    for old in range(size + 1):
        assert tree.get_root(old) == Frontier().append(map(leaf_hash, leaves[:old])).root()
