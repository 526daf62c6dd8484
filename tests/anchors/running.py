"""A witness that runs in this process, its client, and the requests that it is sent."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

from sa_audit import anchors
from sa_audit.anchors import WitnessAnchor
from sa_audit.anchors.addcheckpoint import AddCheckpoint
from sa_audit.anchors.serving import WitnessServer
from sa_audit.anchors.witness_state import WitnessState
from sa_audit.anchors.witnessing import Witness
from sa_audit.proof import Signer, Verifier
from sa_audit.proof.keys import witness_verifier
from tests.vectors.samples import LOG, NORTH, signer

from .trees import Tree

TREE = Tree()
FORK = Tree(b"rewritten")
OTHER = Tree(signer=signer("other.example/audit", "test: other log"))


class Running:
    """A witness in this process, and what it said."""

    def __init__(self, place: Path, key: Signer = NORTH, logs: tuple[Verifier, ...] = (LOG.verifier,)) -> None:
        self.place = place
        self.key = key
        self.logs = logs
        self.state = place / f"{key.name.replace('/', '_')}.state"
        self.vkey = place / f"{key.name.replace('/', '_')}.vkey"
        self.vkey.write_text(f"{witness_verifier(key.verifier)}\n")
        self.said: list[str] = []
        self.now = 1_800_000_000.0
        self.url = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[Running]:
        """Run it; what it knows survives in its state file."""
        verifier = witness_verifier(self.key.verifier)
        state = WitnessState(self.state) if self.state.exists() else WitnessState.create(self.state, verifier)
        try:
            witness = Witness(self.key, self.logs, state, lambda: self.now)
            with WitnessServer(witness, ("127.0.0.1", 0), self.said.append).running() as server:
                self.url = f"http://127.0.0.1:{server.port}"
                yield self
        finally:
            state.close()

    def anchor(self, keep: str = "kept") -> WitnessAnchor:
        """Give a client of it, by its URI."""
        anchor = anchors.open(f"witness+{self.url}?vkey={self.vkey}&keep={self.place / keep}")
        assert isinstance(anchor, WitnessAnchor)
        return anchor

    def ask(self, body: bytes) -> tuple[int, str, bytes]:
        """Send a request as it stands."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]), timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/add-checkpoint", body)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()


def request(size: int, old: int = 0, tree: Tree = TREE, prover: Tree | None = None) -> bytes:
    """Give the body of a request."""
    path = (prover or tree).prove(size)(old)
    return AddCheckpoint(old=old, path=path, checkpoint=tree.checkpoint(size)).format()
