"""The witness that the library runs: by the letter of C2SP tlog-witness, and what it remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sa_audit.anchors.addcheckpoint import SIZE_TYPE, AddCheckpoint
from sa_audit.anchors.witness_state import WitnessState
from sa_audit.anchors.witnessing import Witness
from sa_audit.errors import ConfigurationError, IntegrityFinding, MalformedProof
from sa_audit.proof import Checkpoint, Verifier
from sa_audit.proof.keys import witness_verifier
from tests.vectors.samples import LOG, NEXT, NORTH, SOUTH

from .running import OTHER, TREE, Running, request
from .trees import Tree

# -- the witness, by the letter of C2SP tlog-witness -------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (lambda: b"", 400),
        (lambda: b"\xff\n\n", 400),
        (lambda: request(5).replace(b"old 0", b"old 00"), 400),
        (lambda: request(5).replace(b"old 0", b"old +0"), 400),
        (lambda: request(5).replace(b"old 0", b"new 0"), 400),
        (lambda: request(9, 5).replace(b"=\n\n", b"\n\n", 1), 400),
        (lambda: request(9, 5).replace(b"\n", b"\r\n"), 400),
        (lambda: b"old 0\n" + b"A" * 43 + b"=\n" + request(5).partition(b"\n")[2], 422),
        (lambda: b"old 0\n" + (b"A" * 43 + b"=\n") * 64 + request(5).partition(b"\n")[2], 400),
        (lambda: b"old 6\n\n" + TREE.checkpoint(5).format().encode(), 400),
        (lambda: request(5, tree=OTHER), 404),
        (lambda: request(5, tree=Tree(signer=NEXT)), 403),
        (lambda: request(5).replace(b"\n5\n", b"\n6\n"), 403),
        (lambda: request(5) + b"\n", 400),
        (lambda: b"old 3\n\n" + TREE.checkpoint(5).format().encode(), 409),
    ],
)
def test_what_is_not_right_is_refused(north: Running, body: Callable[[], bytes], status: int) -> None:
    """With the status that the protocol gives it, and nothing is cosigned or remembered."""
    before = north.state.read_bytes()
    got, _type, text = north.ask(body())
    assert (got, NORTH.name.encode() in text) == (status, False)
    assert north.state.read_bytes() == before
    assert north.ask(request(5))[0] == 200


def test_a_wrong_old_size_is_told_the_right_one(north: Running) -> None:
    """409, of the type and form that the protocol says, for who has none or a wrong one."""
    assert north.ask(request(5))[0] == 200
    assert north.ask(request(9)) == (409, SIZE_TYPE, b"5\n")
    assert north.ask(request(9, 4)) == (409, SIZE_TYPE, b"5\n")
    assert north.ask(request(3)) == (409, SIZE_TYPE, b"5\n")
    assert north.ask(request(9, 5))[0] == 200


@pytest.mark.parametrize("change", [lambda path: path[:-1], lambda path: [*path, path[0]], lambda path: path[::-1]])
def test_a_wrong_proof_is_refused(north: Running, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """A hash less, a hash more, another order: 422, and the size stays."""
    assert north.ask(request(5))[0] == 200
    path = change(list(TREE.prove(9)(5)))
    wrong = dataclasses.replace(AddCheckpoint.parse(request(9, 5)), path=path)
    assert north.ask(wrong.format())[0] == 422
    assert north.ask(request(9)) == (409, SIZE_TYPE, b"5\n")


def test_the_answer_is_a_cosignature(north: Running) -> None:
    """A signature line and a newline, over the checkpoint, with the witness's key and time."""
    status, _type, body = north.ask(request(5))
    checkpoint = Checkpoint.parse(f"{TREE.checkpoint(5).format()}{body.decode()}")
    (line,) = [line for line in checkpoint.signatures if line.name == NORTH.name]
    assert status == 200
    assert witness_verifier(NORTH.verifier).check(checkpoint.text, line) == int(north.now)


def test_its_time_does_not_go_back(north: Running) -> None:
    """A cosignature says that there is no greater tree by then: a clock set back must not make an older one say so."""
    assert north.anchor().put(TREE.checkpoint(5)).at == dt.datetime.fromtimestamp(1_800_000_000, dt.UTC)
    north.now -= 3600
    put = north.anchor().put(TREE.checkpoint(9), prove=TREE.prove(9))
    assert put.at == dt.datetime.fromtimestamp(1_800_000_000, dt.UTC)


def test_nothing_is_cosigned_that_is_not_remembered(north: Running) -> None:
    """Where the state can't be written, the answer is an error, and the size stays."""
    assert north.ask(request(5))[0] == 200
    blocked = Path(f"{north.state}.unfinished")
    blocked.mkdir()
    assert north.ask(request(9, 5))[0] == 500
    assert any("CAN'T COSIGN" in line for line in north.said)
    blocked.rmdir()
    assert north.ask(request(9)) == (409, SIZE_TYPE, b"5\n")


def test_http_has_bounds(north: Running) -> None:
    """Another path, no length, too long a body, junk: refused; and the next request is served."""
    port = int(north.url.rpartition(":")[2])
    for raw, expected in (
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"404"),
        (b"POST /add-checkpoint HTTP/1.1\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", b"413"),
        (b"PUT /add-checkpoint HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"501"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(raw)
            assert expected in client.recv(100).partition(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 500\r\n\r\nold 0\n")
    assert north.ask(request(5))[0] == 200


def test_a_connection_serves_several_requests(north: Running) -> None:
    """As the protocol recommends."""
    connection = http.client.HTTPConnection("127.0.0.1", int(north.url.rpartition(":")[2]), timeout=10)
    with contextlib.closing(connection):
        for size, old in ((5, 0), (9, 5)):
            connection.request("POST", "/add-checkpoint", request(size, old))
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:3]) == (200, b"\xe2\x80\x94")


# -- its state ---------------------------------------------------------------------------


def test_a_state_is_never_begun_by_accident(tmp_path: Path) -> None:
    """Neither where it is missing, nor over one that is there, nor by two processes, nor with another key."""
    verifier = witness_verifier(NORTH.verifier)
    with pytest.raises(ConfigurationError, match=r"there is no state.*--new"):
        WitnessState(tmp_path / "state")
    state = WitnessState.create(tmp_path / "state", verifier)
    with pytest.raises(ConfigurationError, match="another witness is running"):
        WitnessState(tmp_path / "state")
    with pytest.raises(ConfigurationError, match="must not begin anew"):
        WitnessState.create(tmp_path / "state", verifier)
    with pytest.raises(ConfigurationError, match="is the state of the witness north"):
        Witness(SOUTH, [LOG.verifier], state, lambda: 0.0)
    state.close()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda content: content[:-9], MalformedProof),
        (lambda content: b"", MalformedProof),
        (lambda content: content.replace(b"state/v1", b"state/v2"), MalformedProof),
        (lambda content: content.replace(b'"logs"', b'"log"'), MalformedProof),
        (lambda content: content.replace(b"\\n5\\n", b"\\n4\\n"), IntegrityFinding),
        (lambda content: content.replace(b"example/audit\\n5", b"example/other\\n5"), IntegrityFinding),
    ],
)
def test_a_damaged_state_is_not_begun_from(
    tmp_path: Path, change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    """Cut, of another version, or changed: the witness does not start."""
    running = Running(tmp_path)
    with running.serve():
        running.anchor().put(TREE.checkpoint(5))
    content = running.state.read_bytes()
    running.state.write_bytes(change(content))
    for _ in range(2):  # and the lock is not kept
        with pytest.raises(error):
            WitnessState(running.state)
    running.state.write_bytes(content)
    WitnessState(running.state).close()
    assert json.loads(content)["format"] == "sa_audit/witness-state/v1"


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ((), "there is no log"),
        ((NORTH.verifier,), "has the witness's own key"),
        ((witness_verifier(SOUTH.verifier),), "signature type 0x04"),
        ((LOG.verifier, LOG.verifier), "twice"),
    ],
)
def test_keys_that_can_t_be_meant_are_refused(tmp_path: Path, logs: tuple[Verifier, ...], message: str) -> None:
    """None, its own, a witness's, the same twice."""
    state = WitnessState.create(tmp_path / "state", witness_verifier(NORTH.verifier))
    with contextlib.closing(state), pytest.raises(ConfigurationError, match=message):
        Witness(NORTH, logs, state, lambda: 0.0)
