"""Bundles: written, checked by the library and by the program inside, and forged in every way that comes to mind."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sa_audit.errors import MalformedProof, Unencodable
from sa_audit.proof import Checkpoint, Leaf, Policy, Proof, check_bundle
from sa_audit.proof.bundle import rows_name
from sa_audit.proof.cbor import encode, sequence
from sa_audit.proof.standalone.bundle import Bundle
from sa_audit.proof.standalone.fault import Bad
from sa_audit.proof.standalone.notes import policy_of
from tests.proof.bundles import ACTORS, DESCRIPTOR, LOG, OTHER, RENAMED, forged, log, row_leaf, zipped
from tests.vectors.samples import NEXT

POLICY = Policy.of(LOG.verifier)
ROWS, OTHER_ROWS, RENAMED_ROWS = rows_name(DESCRIPTOR), rows_name(OTHER), rows_name(RENAMED)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all leaves, with a proof as text, two of consistency and an anchor."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    return log().write(path, ranges=[(0, 700)], proofs=[5, 400], consistency=[1, 300], anchors={"north": b"token"})


def kinds(path: Path, policy: Policy = POLICY, held: Checkpoint | None = None) -> set[str]:
    """Give the kinds of what the library finds; the other program has to find something, or nothing, just so."""
    report = check_bundle(path, policy, held=held)
    said = str(policy.logs[0])
    other = Bundle(str(path), policy_of(said), None if held is None else _other_held(held))
    assert bool(other.check()) == (not report.ok), (report.findings, other.findings)
    return {finding.kind for finding in report.findings}


def _other_held(held: Checkpoint) -> Any:
    from sa_audit.proof.standalone.notes import Checkpoint as Other

    return Other(held.format().encode())


# -- true --------------------------------------------------------------------------------


def test_a_bundle_is_checked(bundle: Path) -> None:
    """Nothing is found, and the report says what was checked."""
    report = check_bundle(bundle, POLICY)
    assert report.findings == ()
    assert report.ok
    assert (report.entries, report.proofs, report.ranges) == (700, 4, ((0, 700),))
    assert report.rows == sum(leaf.row is not None for leaf in log().leaves)
    assert kinds(bundle) == set()


def test_the_program_in_the_bundle_checks_it_alone(bundle: Path, tmp_path: Path) -> None:
    """With an interpreter that sees no other package, in an empty directory, and exit code 0."""
    with zipfile.ZipFile(bundle) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verify.py"))
    (tmp_path / "held.txt").write_text(log().checkpoint(300).format())
    command = [sys.executable, "-I", "-S", "verify.py", str(bundle), "--key", str(LOG.verifier), "--held", "held.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "700 entries" in done.stdout
    assert "complete:    0 to 699" in done.stdout
    assert "nothing was found" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--key", str(NEXT.verifier)], 1),
        (["--key", "nowhere.vkey"], 2),
        (["--key", f"{LOG.verifier}x"], 2),
        ([], 2),
        (["--key", str(LOG.verifier), "--held", "nowhere.txt"], 2),
    ],
)
def test_the_program_says_how_it_ended(bundle: Path, tmp_path: Path, arguments: list[str], code: int) -> None:
    """1 for findings, 2 for wrong usage."""
    with zipfile.ZipFile(bundle) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verify.py"))
    command = [sys.executable, "-I", "verify.py", str(bundle), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_the_program_says_that_something_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    """3 for what can't be read."""
    with zipfile.ZipFile(bundle) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verify.py"))
    (tmp_path / "none.zip").write_bytes(b"PK")
    for name in ("none.zip", "nowhere.zip"):
        command = [sys.executable, "-I", "verify.py", name, "--key", str(LOG.verifier)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert done.stderr.startswith("it is no bundle: ")


def test_the_same_evidence_makes_the_same_file(bundle: Path, tmp_path: Path) -> None:
    """No clock and no order of a hash table is in it."""
    again = log().write(
        tmp_path / "b.zip", ranges=[(0, 700)], proofs=[5, 400], consistency=[1, 300], anchors={"north": b"token"}
    )
    assert again.read_bytes() == bundle.read_bytes()


def test_what_is_inside_can_be_read_by_others(bundle: Path) -> None:
    """cbor2 reads the sequences, the csv module the tables, and a proof stands by itself."""
    with zipfile.ZipFile(bundle) as archive:
        entries = io.BytesIO(archive.read("entries.cbor"))
        found = []
        while entries.tell() < len(entries.getvalue()):
            found.append(cbor2.load(entries))
        table = list(csv.reader(io.StringIO(archive.read(f"{OTHER_ROWS}.csv").decode(), newline="")))
        proof = Proof.parse(archive.read("proofs/5.tlog-proof"))
    assert found == [[leaf.index, leaf.entry] for leaf in log().leaves]
    assert table[0] == ["leaf", "id", "actor"]
    rows = [leaf.index for leaf in log().leaves if leaf.index % 3 == 0 and leaf.index > 3 and leaf.row]
    assert table[1:] == [[str(row), str(row), ACTORS[row // 3 % len(ACTORS)] or ""] for row in rows]
    assert proof.check(POLICY).logs == POLICY.logs
    assert proof.evidence().row == log().leaves[5].row


def test_null_and_the_empty_text_differ_to_the_eye(bundle: Path) -> None:
    """An empty field, and a quoted one."""
    with zipfile.ZipFile(bundle) as archive:
        lines = archive.read(f"{OTHER_ROWS}.csv").split(b"\r\n")
    assert (ACTORS[2], ACTORS[1]) == (None, "")
    assert b'"6","6",' in lines
    assert b'"21","21",""' in lines


def test_some_rows_are_enough(tmp_path: Path) -> None:
    """Two leaves with their schema: the tiles that lead to the root, and no others."""
    leaves = [log().leaves[i] for i in (2, 5, 349)]
    path = log().write(tmp_path / "some.zip", leaves, ranges=[(5, 6)])
    assert kinds(path) == set()
    with zipfile.ZipFile(path) as archive:
        tiles = sorted(name for name in archive.namelist() if name.startswith("tile/"))
    assert tiles == ["tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"]


def test_rows_may_be_left_out(tmp_path: Path) -> None:
    """A complete range may show entries whose rows are not handed out."""
    leaves = [leaf if leaf.index == 5 else Leaf(index=leaf.index, entry=leaf.entry) for leaf in log().leaves]
    path = log().write(tmp_path / "bare.zip", leaves, ranges=[(0, 700)])
    report = check_bundle(path, POLICY)
    assert (report.ok, report.rows, report.entries) == (True, 1, 700)
    assert kinds(path) == set()


@pytest.mark.parametrize("size", [8, 255, 256, 257, 512, 513])
def test_trees_of_any_shape_are_bundled(tmp_path: Path, size: int) -> None:
    """Full tiles, partial tiles, and a level above that holds one hash."""
    assert kinds(log(size).write(tmp_path / "b.zip", ranges=[(0, size)])) == set()


def test_a_held_checkpoint_is_continued(bundle: Path) -> None:
    """The auditor's own from before: proved consistent, or the same one."""
    for size in (1, 300, 700):
        assert kinds(bundle, held=log().checkpoint(size)) == set()


# -- refused when it is written ----------------------------------------------------------


@pytest.mark.parametrize(
    ("leaves", "options", "message"),
    [
        ([5], {}, "give that schema's leaf too"),
        ([2, 7, 5], {}, "give them in their order"),
        ([2, 2], {}, "give them in their order"),
        ([2, 4], {"ranges": [(2, 5)]}, "the leaves 2 to 4 are not all there"),
        ([2], {"proofs": [9]}, "leaf 9 was to be proved, and is not there"),
    ],
)
def test_a_bundle_that_would_not_hold_is_not_written(
    tmp_path: Path, leaves: list[int], options: dict[str, Any], message: str
) -> None:
    """And no half of one is left behind."""
    with pytest.raises(Unencodable, match=message):
        log().write(tmp_path / "b.zip", [log().leaves[i] for i in leaves], **options)
    assert not (tmp_path / "b.zip").exists()


def test_leaves_that_the_log_does_not_have_are_not_written(tmp_path: Path) -> None:
    """Another entry, another row, a row where there is none."""
    good = log().leaves
    eve = row_leaf(5, DESCRIPTOR, 5, list(_values(owner="Eve")))
    for leaves, message in (
        ([good[2], eve], "is not that of the tiles"),
        ([good[2], Leaf(index=5, entry=good[5].entry, row=eve.row)], "is not the one that was sealed"),
        ([Leaf(index=2, entry=good[2].entry, row=eve.row)], "is not one of a row"),
    ):
        with pytest.raises(Unencodable, match=message):
            log().write(tmp_path / "b.zip", leaves)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    """A bundle is evidence."""
    (tmp_path / "b.zip").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        log().write(tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == b"kept"


def _values(**changed: Any) -> Any:
    from tests.vectors.samples import history_values

    return history_values(5, **changed).values()


# -- forged ------------------------------------------------------------------------------


def pairs(data: bytes) -> list[Any]:
    """Give the arrays of a sequence."""
    return list(sequence(data, what="sequence"))


def without(index: int) -> Callable[[bytes], bytes]:
    """Take one leaf out of a sequence."""
    return lambda data: b"".join(encode(pair) for pair in pairs(data) if pair[0] != index)


def swapped(first: int, second: int) -> Callable[[bytes], bytes]:
    """Let two leaves of a sequence change places."""

    def change(data: bytes) -> bytes:
        found = dict(pairs(data))
        found[first], found[second] = found[second], found[first]
        return b"".join(encode([index, found[index]]) for index in sorted(found))

    return change


def put(index: int, content: bytes | None) -> Callable[[bytes], bytes]:
    """Put another content in the place of a leaf of a sequence."""
    return lambda data: b"".join(encode([i, content if i == index else old]) for i, old in pairs(data))


def flip(place: int) -> Callable[[bytes], bytes]:
    """Flip a bit."""
    return lambda data: data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def edit(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replace a text, which has to be there."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


def forgeries() -> Iterator[Any]:
    """Give what a forger may do, and the kinds of finding that it makes."""
    eve = row_leaf(5, DESCRIPTOR, 5, list(_values(owner="Eve")))
    fake = log(700, NEXT).checkpoint()
    texts = {"signature", "manifest", "proof", "consistency"}
    cases: list[tuple[str, dict[str, Any], set[str]]] = [
        ("a row edited", {f"{ROWS}.cbor": put(5, eve.row)}, {"row"}),
        (
            "a row and its entry edited",
            {f"{ROWS}.cbor": put(5, eve.row), "entries.cbor": put(5, eve.entry)},
            {"entry", "readable"},
        ),
        ("a row removed", {f"{ROWS}.cbor": without(5)}, {"readable"}),
        ("a row removed from both files", {f"{ROWS}.cbor": without(5), f"{ROWS}.csv": None}, {"readable"}),
        ("an entry removed", {"entries.cbor": without(5)}, {"range", "row"}),
        ("two rows swapped", {f"{ROWS}.cbor": swapped(5, 7)}, {"row"}),
        ("two entries swapped", {"entries.cbor": swapped(5, 7)}, {"entry", "row"}),
        ("a row doubled", {f"{ROWS}.cbor": lambda data: data + data[-200:]}, {"row"}),
        ("the last entry removed", {"entries.cbor": without(699)}, {"range", "row"}),
        ("entries cut off", {"entries.cbor": lambda data: data[:-10]}, {"entry", "range", "row"}),
        ("rows cut off", {f"{ROWS}.cbor": lambda data: data[:-10]}, {"row", "readable"}),
        ("rows of a table removed", {f"{ROWS}.cbor": None}, {"row"}),
        ("the readable file edited", {f"{OTHER_ROWS}.csv": edit('"ann"', '"eve"')}, {"readable"}),
        ("the readable file goes on", {f"{OTHER_ROWS}.csv": lambda data: data + b'"9"\r\n'}, {"readable"}),
        ("the readable file is gone", {f"{OTHER_ROWS}.csv": None}, {"readable"}),
        ("the header of a readable file edited", {f"{ROWS}.csv": edit("owner", "holder")}, {"readable"}),
        ("NULL for the empty text", {f"{OTHER_ROWS}.csv": edit(',""\r\n', ",\r\n")}, {"readable"}),
        ("a schema edited", {"entries.cbor": put(3, log().leaves[2].entry)}, {"entry", "row", "schema"}),
        ("a schema removed", {"entries.cbor": without(3)}, {"range", "row", "schema"}),
        ("a leaf tile edited", {"tile/0/000": flip(40)}, {"tile", "entry"}),
        ("a partial tile edited", {"tile/0/002.p/188": flip(40)}, {"tile", "entry"}),
        ("an upper tile edited", {"tile/1/000.p/2": flip(40)}, {"tile"}),
        ("a tile removed", {"tile/0/001": None}, {"entry", "row", "schema"}),
        ("a tile of another tree", {"tile/0/003.p/1": bytes(32)}, {"tile"}),
        ("a tile by another name", {"tile/0/x000/000": bytes(8192)}, {"tile"}),
        ("the checkpoint of another key", {"checkpoint.txt": fake.format().encode()}, texts | {"tile"}),
        ("the root edited", {"checkpoint.txt": edit(_root(), _root(flip=True))}, texts | {"tile"}),
        ("the size edited", {"checkpoint.txt": edit("\n700\n", "\n699\n")}, texts | {"tile", "entry", "row"}),
        ("a proof of another leaf", {"proofs/6.tlog-proof": _proof(5)}, {"proof"}),
        ("a proof edited", {"proofs/5.tlog-proof": edit("index 5", "index 4")}, {"proof"}),
        ("a proof that is none", {"proofs/7.tlog-proof": b"c2sp.org"}, {"proof"}),
        ("a consistency proof renamed", {"consistency/2-700.txt": _consistency(1)}, {"consistency"}),
        ("a consistency proof that is none", {"consistency/2-700.txt": b"old 2"}, {"consistency"}),
        ("a file that the format does not know", {"notes.txt": b"trust me"}, {"file"}),
        ("no readme", {"README.txt": None}, {"file"}),
        ("a policy that is none", {"policy.txt": b"trust eve\n"}, {"file"}),
        ("rows without entries", {"rows/9-0123456789abcdef.cbor": b""}, {"row"}),
        ("an entry that is none", {"entries.cbor": put(5, b"\x82\x01\x09")}, {"entry", "row"}),
        ("an index beyond the tree", {"entries.cbor": lambda data: data + encode([700, b"\x80"])}, {"entry"}),
        (
            "another form of a number",
            {"entries.cbor": lambda data: b"\x82\x18\x00" + data[2:]},
            {"entry", "range", "row"},
        ),
    ]
    for name, changes, expected in cases:
        yield pytest.param(changes, expected, id=name)


def _root(*, flip: bool = False) -> str:
    text = log().checkpoint().text.split("\n")[2]
    return ("A" if text[0] != "A" else "B") + text[1:] if flip else text


def _proof(index: int) -> bytes:
    from sa_audit.proof.merkle import inclusion_proof
    from sa_audit.proof.tiles import NodesOfTiles
    from sa_audit.proof.tlog_proof import Evidence

    path = inclusion_proof(index, 700, NodesOfTiles(700, log().shelf.read))
    extra = Evidence(entry=log().leaves[index].entry).encode()
    return Proof(index=index, path=path, checkpoint=log().checkpoint(), extra=extra).format().encode()


def _consistency(old: int) -> bytes:
    from sa_audit.proof import ConsistencyProof
    from sa_audit.proof.merkle import consistency_proof
    from sa_audit.proof.tiles import NodesOfTiles

    path = consistency_proof(old, 700, NodesOfTiles(700, log().shelf.read))
    return ConsistencyProof(old=old, path=path, checkpoint=log().checkpoint()).format().encode()


@pytest.mark.parametrize(("changes", "expected"), list(forgeries()))
def test_a_forgery_is_found_by_its_name(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], expected: set[str]
) -> None:
    """With a manifest that was made to fit; by the library, and by the other program."""
    copy = tmp_path / "copy.zip"
    copy.write_bytes(bundle.read_bytes())
    assert kinds(forged(copy, changes)) == expected


def test_a_file_that_the_manifest_does_not_fit_is_found(bundle: Path, tmp_path: Path) -> None:
    """Digest and size of every file, those that prove nothing included."""
    copy = tmp_path / "copy.zip"
    copy.write_bytes(bundle.read_bytes())
    for changes in ({"README.txt": b"trust me"}, {"anchors/north": flip(0)}, {"verify.py": b"print('fine')"}):
        assert kinds(forged(copy, changes, honest_manifest=False)) == {"file"}  # type: ignore[arg-type]  # changes
    for changes in ({"anchors/north": None}, {"anchors/south": b""}):
        assert kinds(forged(copy, changes, honest_manifest=False)) == {"file"}  # type: ignore[arg-type]  # changes


def test_a_range_that_claims_too_much_is_found(tmp_path: Path) -> None:
    """Completeness is claimed by the manifest, and checked against the leaves."""
    leaves = [leaf for leaf in log().leaves if leaf.index not in (9, 10, 600)]
    path = log().write(tmp_path / "b.zip", leaves)

    def claim(*ranges: list[int]) -> Callable[[bytes], bytes]:
        return lambda data: json.dumps({**json.loads(data), "ranges": list(ranges)}).encode()

    for ranges, found in (
        ([[0, 9], [11, 600], [601, 700]], []),
        ([[0, 10]], ["the leaves 9 to 9"]),
        ([[10, 11]], ["the leaves 10 to 10"]),
        ([[5, 12], [599, 700]], ["the leaves 9 to 10", "the leaves 600 to 600"]),
    ):
        changed = forged(path, {"manifest.json": claim(*ranges)})
        report = check_bundle(changed, POLICY)
        assert [finding.expected for finding in report.findings if finding.kind == "range"] == found
        assert kinds(changed) == ({"range"} if found else set())


def test_a_history_that_was_rewritten_is_found_by_who_holds_a_checkpoint(tmp_path: Path) -> None:
    """With the true key, from the first leaf on: the bundle is sound in itself, and does not continue what is held."""
    other = log(690)
    path = other.write(tmp_path / "b.zip", ranges=[(0, 690)], consistency=[300])
    assert kinds(path) == set()
    assert kinds(path, held=log().checkpoint(300)) == {"consistency"}
    assert kinds(path, held=log().checkpoint(299)) == {"consistency"}
    assert kinds(path, held=log().checkpoint(700)) == {"consistency"}


def test_the_bundle_s_own_policy_is_not_believed(tmp_path: Path) -> None:
    """Everything rewritten with another key, the policy too: only the auditor's own key tells."""
    path = log(700, NEXT).write(tmp_path / "b.zip", ranges=[(0, 700)])
    assert kinds(path, Policy.of(NEXT.verifier)) == set()
    assert kinds(path) == {"signature"}


def test_more_findings_than_are_kept_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report stays small, and says how many there were."""
    monkeypatch.setattr("sa_audit.proof.bundle_check.MAX_FINDINGS", 3)
    path = forged(log().write(tmp_path / "b.zip"), {"tile/0/000": bytes(8192)})
    report = check_bundle(path, POLICY)
    assert len(report.findings) == 3
    assert report.count > 250


def test_a_finding_says_where_and_what(bundle: Path, tmp_path: Path) -> None:
    """File, leaf, expected, got."""
    eve = row_leaf(5, DESCRIPTOR, 5, list(_values(owner="Eve")))
    copy = tmp_path / "copy.zip"
    copy.write_bytes(bundle.read_bytes())
    (finding,) = check_bundle(forged(copy, {f"{ROWS}.cbor": put(5, eve.row)}), POLICY).findings
    assert (finding.kind, finding.file, finding.index) == ("row", f"{ROWS}.cbor", 5)
    assert hashlib.sha256(eve.row or b"").hexdigest() in str(finding)
    assert str(finding).startswith(f"row: {ROWS}.cbor, leaf 5: expected the row that was sealed, got ")


# -- no bundle at all --------------------------------------------------------------------


def _manifest(**changes: Any) -> bytes:
    good: dict[str, Any] = {"format": "sa_audit/bundle/v1", "origin": "o", "size": 1, "root": "", "selection": ""}
    return json.dumps({**good, "ranges": [], "files": [], **changes}).encode()


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("manifest.json", b"{")],
        [("manifest.json", b"[" * 100_000)],
        [("manifest.json", b"\xff")],
        [("manifest.json", b"[]")],
        [("manifest.json", b'{"format": 1, "format": 2}')],
        [("manifest.json", b'{"size": ' + b"9" * 5000 + b"}")],
        [("manifest.json", _manifest(format="sa_audit/bundle/v2"))],
        [("manifest.json", _manifest(size="1"))],
        [("manifest.json", _manifest(size=True))],
        [("manifest.json", _manifest(more=1))],
        [("manifest.json", _manifest(ranges=[[0, 2]]))],
        [("manifest.json", _manifest(ranges=[[1, 1]]))],
        [("manifest.json", _manifest(ranges=[5]))],
        [("manifest.json", _manifest(files=[{}]))],
        [("manifest.json", _manifest(files=["a"]))],
        [("manifest.json", _manifest(files=[{"name": "a", "size": 1, "sha256": "x"}]))],
        [("manifest.json", _manifest())],
        [("manifest.json", _manifest()), ("checkpoint.txt", b"")],
        [("manifest.json", _manifest(files=[{"name": name, "size": 1, "sha256": "0" * 64} for name in "ba"]))],
        [("manifest.json", _manifest()), ("../etc/passwd", b"")],
        [("manifest.json", _manifest()), ("/etc/passwd", b"")],
        [("manifest.json", _manifest()), ("a/.hidden", b"")],
        [("manifest.json", _manifest()), ("caf\u00e9", b"")],
        [("manifest.json", _manifest()), ("checkpoint.txt", b"x" * 200_000)],
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    """By both programs, with the declared error and no other."""
    (tmp_path / "b.zip").write_bytes(zipped(files))
    with pytest.raises(MalformedProof):
        check_bundle(tmp_path / "b.zip", POLICY)
    with pytest.raises(Bad):
        Bundle(str(tmp_path / "b.zip"), policy_of(str(LOG.verifier)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_that_is_packed_otherwise_is_refused(bundle: Path, tmp_path: Path, method: int) -> None:
    """Stored or deflated, and nothing else; nor encrypted."""
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(tmp_path / "b.zip", "w", method) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    with pytest.raises(MalformedProof, match="is encrypted, or neither stored nor deflated"):
        check_bundle(tmp_path / "b.zip", POLICY)
    with pytest.raises(Bad, match="a part of another kind"):
        Bundle(str(tmp_path / "b.zip"), policy_of(str(LOG.verifier)))


def test_ranges_that_overlap_are_joined(tmp_path: Path) -> None:
    """The manifest holds ranges that don't touch."""
    path = log().write(tmp_path / "b.zip", ranges=[(5, 9), (0, 3), (2, 5), (20, 30), (22, 25)])
    assert check_bundle(path, POLICY).ranges == ((0, 9), (20, 30))


def test_a_file_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Which of the two would be the evidence?"""
    with zipfile.ZipFile(bundle) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, about the name
        (tmp_path / "b.zip").write_bytes(zipped([*files, files[0]]))
    with pytest.raises(MalformedProof, match="twice"):
        check_bundle(tmp_path / "b.zip", POLICY)
    with pytest.raises(Bad, match="twice"):
        Bundle(str(tmp_path / "b.zip"), policy_of(str(LOG.verifier)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small bundle."""
    path = tmp_path_factory.mktemp("small") / "b.zip"
    return log(12).write(path, ranges=[(0, 12)], proofs=[5], consistency=[3]).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bits_of_the_file_are_found_refused_or_harmless(
    small: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """Nothing but the declared error comes out of either program, and neither accepts what the other finds false."""
    raw = bytearray(small)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "b.zip"
    path.write_bytes(bytes(raw))
    try:
        ok = check_bundle(path, POLICY).ok
    except MalformedProof:
        ok = False
    try:
        fine = not Bundle(str(path), policy_of(str(LOG.verifier))).check()
    except Bad:
        fine = False
    assert ok == fine


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_flipped_bit_inside_is_found(small: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Of any entry, row, tile, proof or checkpoint, with a manifest that was made to fit."""
    path = tmp_path / "b.zip"
    path.write_bytes(small)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    free = {"manifest.json", "README.txt", "verify.py", "policy.txt"}
    name = data.draw(st.sampled_from(sorted(name for name in files if name not in free and files[name])))
    changed = bytearray(files[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    place = forged(path, {name: bytes(changed)})
    held = log(12).checkpoint(3)
    with contextlib.suppress(MalformedProof):
        assert not check_bundle(place, POLICY, held=held).ok, name
    with contextlib.suppress(Bad):
        assert Bundle(str(place), policy_of(str(LOG.verifier)), _other_held(held)).check(), name


def test_a_zip_bomb_takes_no_memory(bundle: Path, tmp_path: Path) -> None:
    """64 MiB of zeros for the entries: read piece by piece, found, and forgotten."""
    copy = tmp_path / "copy.zip"
    copy.write_bytes(bundle.read_bytes())
    path = forged(
        copy, {"entries.cbor": bytes(64 << 20), f"{ROWS}.csv": bytes(64 << 20), "tile/0/000": bytes(64 << 20)}
    )
    tracemalloc.start()
    try:
        report = check_bundle(path, POLICY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {"entry", "tile"} <= {finding.kind for finding in report.findings}
    assert peak < 16 << 20
