"""Witnesses over HTTP: the client, and the witness that the library runs, against each other and against bad ones."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sa_audit import anchors
from sa_audit.anchors import Anchored, WitnessAnchor
from sa_audit.anchors.addcheckpoint import SIZE_TYPE
from sa_audit.errors import AnchorUnavailable, ConfigurationError, IntegrityFinding
from sa_audit.proof import Checkpoint, Policy, Signer
from sa_audit.proof.keys import witness_verifier
from tests.vectors.samples import LOG, NEXT, NORTH, ORIGIN, SOUTH

from .answers import answering, reply
from .running import FORK, TREE, Running
from .trees import Tree

# -- both together -----------------------------------------------------------------------


def test_a_log_is_cosigned_as_it_grows(north: Running) -> None:
    """What is put is read back, verified; and a policy that asks for the witness is satisfied."""
    anchor = north.anchor()
    assert anchor.latest() is None
    assert list(anchor.read()) == []
    put = [anchor.put(TREE.checkpoint(size), prove=TREE.prove(size)) for size in (1, 5, 9)]
    assert list(north.anchor().read()) == put
    assert anchor.latest() == put[-1]
    assert put[0].at == dt.datetime.fromtimestamp(north.now, dt.UTC)
    policy = Policy(logs=(LOG.verifier,), witnesses={"north": anchor.verifier}, quorum="north")
    assert policy.check(Checkpoint.parse(put[-1].token)).witnesses == {"north": int(north.now)}
    assert anchor.verify(put[1]) == put[1].at


def test_two_witnesses_cosign_the_same(tmp_path: Path) -> None:
    """Their signatures stand on one checkpoint, and satisfy a policy that asks for both."""
    with Running(tmp_path, NORTH).serve() as north, Running(tmp_path, SOUTH).serve() as south:
        checkpoint = TREE.checkpoint(5)
        for running, keep in ((north, "north"), (south, "south")):
            checkpoint = running.anchor(keep).put(checkpoint, prove=TREE.prove(5)).checkpoint
        policy = Policy.parse(
            f"log {LOG.verifier}\nwitness n {north.anchor().verifier}\nwitness s {south.anchor().verifier}\n"
            "group both all n s\nquorum both\n"
        )
        assert set(policy.check(checkpoint).witnesses) == {"n", "s"}
        with pytest.raises(IntegrityFinding):  # the other one's cosignature is not this one's
            south.anchor("north").latest()


def test_putting_again_asks_again_and_gives_the_same_token(north: Running) -> None:
    """The witness is asked, since only it knows whether a greater tree has been seen since."""
    anchor = north.anchor()
    first = anchor.put(TREE.checkpoint(5))
    north.now += 60
    assert anchor.put(TREE.checkpoint(5)) == first
    assert len([line for line in north.said if "cosigned size 5" in line]) == 2


def test_a_client_that_lost_its_directory_goes_on(north: Running) -> None:
    """The witness says the size, and the log proves from there."""
    north.anchor().put(TREE.checkpoint(5))
    other = north.anchor("other")
    assert other.put(TREE.checkpoint(9), prove=TREE.prove(9)).checkpoint.size == 9
    with pytest.raises(AnchorUnavailable, match="needs a consistency proof"):
        north.anchor("third").put(TREE.checkpoint(12))
    assert north.anchor("third").put(TREE.checkpoint(9)).checkpoint.size == 9


def test_a_shorter_log_is_found(north: Running) -> None:
    """Where the log, its state and its anchors' directory were set back together, the witness tells."""
    north.anchor().put(TREE.checkpoint(9))
    with pytest.raises(IntegrityFinding, match=r"has seen a greater tree.*expected at most 5 leaves, got 9"):
        north.anchor("set back").put(TREE.checkpoint(5))


def test_a_rewritten_log_is_found(north: Running) -> None:
    """At the same size, and at a greater one, with the log's true key."""
    north.anchor().put(TREE.checkpoint(5))
    with pytest.raises(IntegrityFinding, match="is a fork"):
        north.anchor("fork").put(FORK.checkpoint(5))
    for prover in (FORK, TREE):
        with pytest.raises(IntegrityFinding, match="does not continue that of 5"):
            north.anchor("fork").put(FORK.checkpoint(9), prove=prover.prove(9))
    assert north.anchor("fork").latest() is None
    evidence = Path(f"{north.state}.evidence").read_text()
    assert TREE.checkpoint(5).text in evidence
    assert FORK.checkpoint(5).format() in evidence
    assert any("FORK of bank.example/audit" in line for line in north.said)


def test_a_reader_asks_the_witness_as_well(north: Running, tmp_path: Path) -> None:
    """What the witness has cosigned since shows that the directory, or the log, was set back."""
    anchor = north.anchor()
    anchor.put(TREE.checkpoint(5))
    north.anchor("other").put(TREE.checkpoint(9), prove=TREE.prove(9))
    kept = list(anchor.read())
    assert [each.checkpoint.size for each in kept] == [5, 9]
    assert anchor.shown(ORIGIN) == kept[1]
    assert anchor.shown("unknown.example") is None


def test_a_witness_that_forgot_is_found(north: Running, tmp_path: Path) -> None:
    """It says a smaller size than it has cosigned, to who asks and to who reads."""
    north.anchor().put(TREE.checkpoint(9))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Running(elsewhere).serve() as anew:
        anew.anchor().put(TREE.checkpoint(5))
        forgetful = WitnessAnchor(anew.url, vkey=north.vkey, keep=north.place / "kept")
        with pytest.raises(IntegrityFinding, match=r"has forgotten.*expected at least size 9, got 5"):
            forgetful.put(TREE.checkpoint(12), prove=TREE.prove(12))
        with pytest.raises(IntegrityFinding, match="has forgotten"):
            list(forgetful.read())


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """The state file alone carries it over."""
    running = Running(tmp_path)
    with running.serve():
        running.anchor().put(TREE.checkpoint(5))
    with running.serve():
        with pytest.raises(IntegrityFinding, match="is a fork"):
            running.anchor("other").put(FORK.checkpoint(5))
        assert running.anchor().put(TREE.checkpoint(9), prove=TREE.prove(9)).checkpoint.size == 9


def test_the_log_s_keys_may_change(tmp_path: Path) -> None:
    """While both are listed, either signs."""
    with Running(tmp_path, logs=(LOG.verifier, NEXT.verifier)).serve() as running:
        running.anchor().put(TREE.checkpoint(5))
        after = Tree(signer=NEXT)
        assert running.anchor().put(after.checkpoint(9), prove=after.prove(9)).checkpoint.size == 9


def test_many_at_once_leave_one_history(north: Running, tmp_path: Path) -> None:
    """Requests race; the sizes that are cosigned only grow, and each continues the one before."""
    done: list[int] = []

    def grow(number: int) -> None:
        for size in range(number + 1, 40, 4):
            with contextlib.suppress(IntegrityFinding, AnchorUnavailable):  # another was ahead
                anchor = north.anchor(f"kept{number}")
                done.append(anchor.put(TREE.checkpoint(size), prove=TREE.prove(size)).checkpoint.size)

    threads = [threading.Thread(target=grow, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cosigned = [int(line.rpartition(" ")[2]) for line in north.said if "cosigned size" in line]
    assert cosigned == sorted(cosigned)
    assert sorted(set(done)) == sorted(set(cosigned))
    shown = north.anchor().shown(ORIGIN)
    assert shown is not None
    assert shown.checkpoint.text == TREE.checkpoint(max(cosigned)).text


# -- bad witnesses -----------------------------------------------------------------------


def bad(answer: Callable[[BaseHTTPRequestHandler, bytes], None], place: Path) -> Iterator[WitnessAnchor]:
    """Give the anchor of a witness that answers so."""
    vkey = place / "w.vkey"
    vkey.write_text(f"{witness_verifier(NORTH.verifier)}\n")
    with answering(answer) as url:
        yield WitnessAnchor(url, vkey=vkey, keep=place / "kept", timeout=0.5)


def _cosigned(tree: Tree, size: int, key: Signer) -> bytes:
    return (tree.checkpoint(size).cosign(key, time=5).signatures[-1].format() + "\n").encode()


@pytest.mark.parametrize(
    ("status", "content_type", "body", "message"),
    [
        (200, "text/plain", b"", "gave no cosignature by north"),
        (200, "text/plain", b"junk\n", "gave no cosignature by north"),
        (200, "text/plain", _cosigned(TREE, 5, SOUTH), "gave no cosignature by north"),
        (200, "text/plain", _cosigned(FORK, 5, NORTH), "gave no cosignature by north"),
        (200, "text/plain", _cosigned(TREE, 6, NORTH), "gave no cosignature by north"),
        (404, "text/plain", b"who\n", "answered with 404: who; it does not know the log 'bank.example/audit'"),
        (403, "text/plain", b"no\n", "it trusts no key that has signed"),
        (500, "text/plain", b"", "answered with 500"),
        (302, "text/plain", b"", "answered with 302"),
        (409, "text/plain", b"5\n", "answered with 409"),
        (409, SIZE_TYPE, b"05\n", "a size that is none"),
        (409, SIZE_TYPE, b"-1\n", "a size that is none"),
        (409, SIZE_TYPE, b"5", "answered with 409"),
    ],
)
def test_what_is_no_cosignature_is_not_kept(
    tmp_path: Path, status: int, content_type: str, body: bytes, message: str
) -> None:
    """Empty, another's, over another checkpoint, or a refusal."""
    for anchor in bad(lambda handler, _body: reply(handler, status, content_type, body), tmp_path):
        with pytest.raises(AnchorUnavailable, match=message):
            anchor.put(TREE.checkpoint(5))
        assert anchor.latest() is None


def test_cosignatures_of_others_are_left_out(tmp_path: Path) -> None:
    """A witness may give several lines; only those of the pinned key are taken over."""
    both = _cosigned(TREE, 5, SOUTH) + _cosigned(TREE, 5, NORTH)
    for anchor in bad(lambda handler, _body: reply(handler, 200, "text/plain", both), tmp_path):
        put = anchor.put(TREE.checkpoint(5))
        assert [line.name for line in put.checkpoint.signatures] == [ORIGIN, NORTH.name]


def test_a_witness_that_says_another_size_each_time_is_given_up(tmp_path: Path) -> None:
    """After a few tries."""
    sizes = iter(range(1, 100))

    def answer(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        reply(handler, 409, SIZE_TYPE, f"{next(sizes)}\n".encode())

    for anchor in bad(answer, tmp_path):
        with pytest.raises(AnchorUnavailable, match="another size each time"):
            anchor.put(TREE.checkpoint(90), prove=TREE.prove(90))


def test_a_witness_that_hangs_or_trickles_is_given_up(tmp_path: Path) -> None:
    """After the seconds that were given, whether it says nothing or a byte at a time."""
    done = threading.Event()

    def hang(_handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        done.wait(5)

    def trickle(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(50):
                handler.wfile.write(b"x")
                if done.wait(0.1):
                    return

    for slow in (hang, trickle):
        done.clear()
        for anchor in bad(slow, tmp_path):
            with pytest.raises(AnchorUnavailable, match=r"no answer within 0\.5 seconds"):
                anchor.put(TREE.checkpoint(5))
            done.set()


def test_a_witness_that_is_not_there_says_so(tmp_path: Path) -> None:
    """When it is written and when it is read, and an answer cut short is none."""
    vkey = tmp_path / "w.vkey"
    vkey.write_text(f"{witness_verifier(NORTH.verifier)}\n")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    anchor = WitnessAnchor(f"http://127.0.0.1:{port}", vkey=vkey, keep=tmp_path / "kept")
    with pytest.raises(AnchorUnavailable, match=r"can't be reached: .*refused"):
        anchor.put(TREE.checkpoint(5))
    with pytest.raises(AnchorUnavailable, match="can't be reached"):
        anchor.shown(ORIGIN)

    def cut(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "500")
        handler.end_headers()
        handler.wfile.write(_cosigned(TREE, 5, NORTH))

    for cutting in bad(cut, tmp_path):
        with pytest.raises(AnchorUnavailable, match="of 500 bytes"):
            cutting.put(TREE.checkpoint(5))


def test_a_token_holds_for_its_checkpoint_only(north: Running) -> None:
    """Another checkpoint, or a signature of somebody else."""
    anchor = north.anchor()
    one = anchor.put(TREE.checkpoint(5))
    with pytest.raises(IntegrityFinding, match="is for another checkpoint"):
        anchor.verify(Anchored(checkpoint=TREE.checkpoint(6), token=one.token))
    with pytest.raises(IntegrityFinding, match="has no cosignature"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=TREE.checkpoint(5).format().encode()))
    forged = one.token.replace(b"\n5\n", b"\n6\n")
    with pytest.raises(IntegrityFinding):
        anchor.verify(Anchored(checkpoint=Checkpoint.parse(forged), token=forged))


def test_the_key_has_to_be_a_witness_s(tmp_path: Path) -> None:
    """A log's key, junk, no file: refused when the anchor is opened."""
    (tmp_path / "log.vkey").write_text(f"{LOG.verifier}\n")
    (tmp_path / "junk.vkey").write_text("junk\n")
    for name, message in (("log", "which is a log's key"), ("junk", "not good"), ("nowhere", "can't be read")):
        with pytest.raises(ConfigurationError, match=message):
            anchors.open(f"witness+https://w.example/?vkey={tmp_path / name}.vkey")
