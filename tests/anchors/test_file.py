"""The file anchor: appended to, never changed, and every change of it found."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sa_audit import anchors
from sa_audit.anchors import Anchored, FileAnchor
from sa_audit.errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof
from sa_audit.proof import Checkpoint, Signer, leaf_hash, tree_root
from tests.vectors.samples import LOG, NORTH, ORIGIN


def checkpoint(size: int, signer: Signer = LOG, first: bytes = b"0") -> Checkpoint:
    """Give a signed checkpoint; another first leaf makes another history."""
    leaves = [leaf_hash(first), *(leaf_hash(bytes([number])) for number in range(1, size))]
    return Checkpoint(origin=signer.name, size=size, root=tree_root(leaves)).sign(signer)


ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    """An anchor that keeps three checkpoints."""
    anchor = FileAnchor(tmp_path / "anchors")
    for size in (1, 5, 9):
        anchor.put(checkpoint(size))
    return anchor


def test_what_is_put_is_read(anchor: FileAnchor) -> None:
    """Oldest first, with its token, also by another object."""
    kept = list(FileAnchor(anchor.path).read())
    assert [each.checkpoint for each in kept] == [checkpoint(size) for size in (1, 5, 9)]
    assert b"".join(each.token for each in kept) == anchor.path.read_bytes()
    assert kept[0].digest == hashlib.sha256(kept[0].token).digest()


def test_the_file_is_that_of_the_format(anchor: FileAnchor) -> None:
    """A header with the length and the digest of the record before, and the checkpoint."""
    record, note = b"", checkpoint(1).format().encode()
    expected = b""
    for size in (1, 5, 9):
        note = checkpoint(size).format().encode()
        digest = hashlib.sha256(record).hexdigest() if record else "0" * 64
        record = f"sa_audit/anchor-file/v1 {len(note)} {digest}\n".encode() + note
        expected += record
    assert anchor.path.read_bytes() == expected


def test_an_anchor_goes_on_where_another_object_or_it_itself_left_off(anchor: FileAnchor) -> None:
    """After a restart, and after somebody else has appended."""
    second = FileAnchor(anchor.path)
    token = second.put(checkpoint(12)).token
    assert anchor.put(checkpoint(13)).checkpoint.size == 13
    assert [each.checkpoint.size for each in second.read()] == [1, 5, 9, 12, 13]
    assert [each.token for each in anchor.read()][3] == token


def test_putting_again_gives_the_same_token(anchor: FileAnchor) -> None:
    """By the same object and by another; another signature on the same checkpoint is another record."""
    for each in (anchor, FileAnchor(anchor.path)):
        assert each.put(checkpoint(9)) == list(anchor.read())[2]
    assert len(list(anchor.read())) == 3
    anchor.put(checkpoint(9).cosign(NORTH, time=1))
    assert len(list(anchor.read())) == 4


def test_the_latest_is_the_last(anchor: FileAnchor, tmp_path: Path) -> None:
    """None, where there is no file yet."""
    assert anchor.latest() == list(anchor.read())[2]
    assert FileAnchor(tmp_path / "nowhere").latest() is None


def test_a_token_holds_for_its_checkpoint_only(anchor: FileAnchor) -> None:
    """Another checkpoint's record, one that was cut, and what is no record."""
    one, two, _three = anchor.read()
    anchor.verify(one)
    with pytest.raises(IntegrityFinding, match="holds another checkpoint"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=two.token))
    for token in (one.token[:-1], b"", b"junk"):
        with pytest.raises(MalformedProof, match="is no record of an anchor file"):
            anchor.verify(Anchored(checkpoint=one.checkpoint, token=token))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: checkpoint(8), "expected one behind size 9"),
        (lambda: checkpoint(9, first=b"rewritten"), "does not continue"),
        (lambda: checkpoint(10, NORTH), f"keeps checkpoints of '{ORIGIN}'"),
    ],
)
def test_a_checkpoint_that_does_not_continue_is_not_kept(
    anchor: FileAnchor, wrong: Callable[[], Checkpoint], message: str
) -> None:
    """A smaller size, another root of the same size, another log: the file stays as it was."""
    before = anchor.path.read_bytes()
    for each in (anchor, FileAnchor(anchor.path)):
        with pytest.raises(IntegrityFinding, match=message):
            each.put(wrong())
    assert anchor.path.read_bytes() == before


def test_an_unsigned_checkpoint_is_not_kept(anchor: FileAnchor) -> None:
    """Anybody could have made it."""
    before = anchor.path.read_bytes()
    with pytest.raises(MalformedProof):
        anchor.put(Checkpoint(origin=ORIGIN, size=10, root=checkpoint(10).root))
    assert anchor.path.read_bytes() == before


def records(anchor: FileAnchor) -> list[bytes]:
    """Give the records of a file."""
    return [each.token for each in anchor.read()]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda first, second, third: second + third, IntegrityFinding, "does not follow the one before"),
        (lambda first, second, third: first + third, IntegrityFinding, "does not follow the one before"),
        (lambda first, second, third: first + third + second, IntegrityFinding, "does not follow the one before"),
        (lambda first, second, third: first + second + second, IntegrityFinding, "does not follow the one before"),
        (lambda first, second, third: first + second + third[:-5], MalformedProof, "its writing was interrupted"),
        (lambda first, second, third: first + second + third[:40], MalformedProof, "its writing was interrupted"),
        (lambda first, second, third: first + b"note\n" + second, MalformedProof, "has no record at byte"),
        (lambda first, second, third: b"\xff" * 500, MalformedProof, "is not whole"),
        (lambda first, second, third: first + second + b"\n", MalformedProof, "has no record at byte"),
        (
            lambda first, second, third: first.replace(b"/v1 ", b"/v2 ") + second + third,
            MalformedProof,
            "has no record at byte 0",
        ),
    ],
)
def test_a_file_that_was_changed_is_found(
    anchor: FileAnchor, change: Callable[..., bytes], error: type[Exception], message: str
) -> None:
    """A record removed, moved, doubled, cut, put between: when it is read, and when it is to be appended to."""
    anchor.path.write_bytes(change(*records(anchor)))
    before = anchor.path.read_bytes()
    with pytest.raises(error, match=message):
        list(anchor.read())
    with pytest.raises(error, match=message):
        FileAnchor(anchor.path).put(checkpoint(20))
    assert anchor.path.read_bytes() == before


def test_a_shorter_file_is_its_own_beginning(anchor: FileAnchor) -> None:
    """Cutting off whole records can't be seen in the file alone: that is why it has to stand elsewhere."""
    anchor.path.write_bytes(b"".join(records(anchor)[:2]))
    assert [each.checkpoint.size for each in anchor.read()] == [1, 5]


def test_a_rewritten_file_can_be_made_to_fit(anchor: FileAnchor, tmp_path: Path) -> None:
    """Who may write the file and has the key can make another one: the file proves nothing against him."""
    other = FileAnchor(tmp_path / "other")
    for size in (1, 5, 9):
        other.put(checkpoint(size, first=b"rewritten"))
    assert len(list(other.read())) == 3


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_found(tmp_path: Path, data: st.DataObject) -> None:
    """But in the last record's signature, which the file does not check: the policy does."""
    path = tmp_path / "anchors"
    path.unlink(missing_ok=True)
    anchor = FileAnchor(path)
    for size in (1, 5, 9):
        anchor.put(checkpoint(size))
    kept = records(anchor)
    raw = bytearray(b"".join(kept))
    raw[data.draw(st.integers(0, len(kept[0] + kept[1]) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(raw))
    with pytest.raises((MalformedProof, IntegrityFinding)):
        list(anchor.read())


def test_a_place_that_is_not_there_says_so(tmp_path: Path) -> None:
    """Neither read nor written, with the path."""
    anchor = FileAnchor(tmp_path / "nowhere" / "anchors")
    with pytest.raises(AnchorUnavailable, match="nowhere/anchors can't be used: No such file"):
        anchor.put(checkpoint(1))
    with pytest.raises(AnchorUnavailable, match="nowhere/anchors can't be used: No such file"):
        list(anchor.read())


FULL = """
import resource, sys
from sa_audit.anchors import Anchored, FileAnchor
from tests.anchors.test_file import checkpoint
size = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
FileAnchor(sys.argv[1]).put(checkpoint(12))
"""


@pytest.mark.parametrize(("room", "message"), [(100, "took 100 of"), (0, "can't be used: File too large")])
def test_a_full_disk_is_not_taken_for_an_anchor(anchor: FileAnchor, room: int, message: str) -> None:
    """A record that is not whole is not kept; one that was begun is found when the file is used again."""
    size = anchor.path.stat().st_size + room
    command = [sys.executable, "-c", FULL, str(anchor.path), str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "AnchorUnavailable" in done.stderr
    assert message in done.stderr
    if room:
        with pytest.raises(MalformedProof, match="its writing was interrupted"):
            anchor.put(checkpoint(12))
    else:
        assert anchor.put(checkpoint(12)).checkpoint.size == 12


def _put(path: str, times: list[int]) -> None:
    anchor = FileAnchor(path)
    for time in times:
        anchor.put(checkpoint(7).cosign(NORTH, time=time))


def test_two_writers_do_not_mix_their_records(tmp_path: Path) -> None:
    """A lock keeps each record whole and in its place, whoever comes first."""
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "anchors")
    writers = [context.Process(target=_put, args=(path, list(range(start, start + 30)))) for start in (0, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list(FileAnchor(path).read())) == 60


def test_a_long_file_takes_no_memory(tmp_path: Path) -> None:
    """It is read record by record, and by a writer only once."""
    anchor = FileAnchor(tmp_path / "anchors")
    for time in range(2_000):
        anchor.put(checkpoint(3).cosign(NORTH, time=time))
    tracemalloc.start()
    try:
        assert sum(1 for _each in FileAnchor(anchor.path).read()) == 2_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000 < anchor.path.stat().st_size


@pytest.mark.parametrize("uri", ["file:{}", "file://{}"])
def test_a_uri_names_the_file(tmp_path: Path, uri: str) -> None:
    """Both spellings of a local file."""
    anchor = anchors.open(uri.format(tmp_path / "anchors"))
    anchor.put(checkpoint(1))
    assert anchor.uri == f"file:{tmp_path / 'anchors'}"
    assert [each.checkpoint for each in anchor.read()] == [checkpoint(1)]


@pytest.mark.parametrize("uri", ["", "file", "file:", "file://host/anchors", "ftp://host/x", "anchors.txt"])
def test_another_uri_is_refused(uri: str) -> None:
    """With the form that this release knows."""
    with pytest.raises(ConfigurationError, match="file:PATH"):
        anchors.open(uri)


# -- the printed form --------------------------------------------------------------------


def test_the_printed_form_is_read_again() -> None:
    """As it was printed, and as an e-mail brings it."""
    signed = checkpoint(9)
    printed = signed.printed()
    assert Checkpoint.parse_printed(printed) == signed
    assert Checkpoint.parse_printed("\r\n\r\n" + printed.replace("\n", "  \r\n") + "\r\n") == signed


@pytest.mark.parametrize(("old", "new"), [("\n9\n", "\n8\n"), ("digest: ", "digest: 0"), ("digest: ", "")])
def test_a_slip_in_typing_is_found(old: str, new: str) -> None:
    """The digits tell before the signature is looked at."""
    with pytest.raises(MalformedProof, match="digest"):
        Checkpoint.parse_printed(checkpoint(9).printed().replace(old, new))
    with pytest.raises(MalformedProof, match="longer than"):
        Checkpoint.parse_printed(" " * 200_000)
