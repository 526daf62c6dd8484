"""``witness``: runs a witness until it is told to stop.

Imports anchors, proof, errors and typer only.
"""

from __future__ import annotations

import datetime as dt
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from ..anchors.serving import WitnessServer
from ..anchors.witness_state import WitnessState
from ..anchors.witnessing import Witness
from ..proof import Verifier
from ..proof.keys import witness_verifier
from .failure import CantRun, WrongUsage
from .keygen import open_key


def run_witness(key: Path, logs: Sequence[str], state: Path, listen: str, *, new: bool) -> None:
    """Serve a witness until SIGTERM or SIGINT.

    Args:
        key: its signing key.
        logs: verifier keys of logs, or files that hold one.
        state: its file.
        listen: host and port.
        new: whether the state is to be made.

    Raises:
        UnusableKey, MalformedProof, ConfigurationError: if a key or the state can't be used.
        WrongUsage: if ``listen`` is no host and port.
        CantRun: if the address can't be had.
    """
    address = parse_address(listen)
    signer = open_key(key)
    verifiers = [Verifier.load(log) for log in logs]
    verifier = witness_verifier(signer.verifier)
    memory = WitnessState.create(state, verifier) if new else WitnessState(state)
    try:
        witness = Witness(signer, verifiers, memory, time.time)
        _serve(witness, address)
    finally:
        memory.close()


def parse_address(text: str) -> tuple[str, int]:
    """Read a host and a port.

    Raises:
        WrongUsage: if it is none.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise WrongUsage(f"--listen {text!r}: give HOST:PORT, such as 127.0.0.1:8713 or [::1]:8713")
    return host, int(port)


def _serve(witness: Witness, address: tuple[str, int]) -> None:
    try:
        server = WitnessServer(witness, address, _say)
    except OSError as error:
        raise CantRun(f"can't listen at {address[0]}:{address[1]}: {error.strerror or error}") from error
    with _told_to_stop() as told, server.running():
        _say(f"{witness.verifier} listens at {address[0]}:{server.port}, for {', '.join(witness.origins)}")
        told.wait()
        _say("stopping")


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    """Write a line to standard error; what came from a client can't move the terminal."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in line)
    moment = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    typer.echo(f"{moment} {shown}", err=True)
