"""What a witness decides: whether it cosigns a checkpoint, and what it remembers.  C2SP tlog-witness, server's side.

Bytes in, an answer out; :mod:`.serving` speaks HTTP.  Imports only proof and errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError, IntegrityFinding, MalformedProof
from ..proof import Checkpoint, Policy, SigningKey, Verifier, check_consistency
from ..proof.keys import witness_verifier
from ..proof.merkle import EMPTY_ROOT
from .addcheckpoint import SIZE_TYPE, AddCheckpoint, checkpoint_path
from .witness_state import WitnessState

TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the witness says: an HTTP status, a body, its type, and a line for its own records."""

    status: int
    body: bytes
    type: str = TEXT
    note: str = ""


class Witness:
    """Cosigns checkpoints that continue what it has cosigned before, and never two that don't fit.

    Args:
        signer: its key, which no log uses.
        logs: the verifier keys of the logs that it witnesses; several of one origin while keys change.
        state: what it remembers.
        now: gives the time in seconds since the epoch.

    Raises:
        ConfigurationError: if there is no log, a key is not a log's, or the state is another witness's.
    """

    def __init__(
        self, signer: SigningKey, logs: Iterable[Verifier], state: WitnessState, now: Callable[[], float]
    ) -> None:
        self._signer = signer
        self._now = now
        self._state = state
        self._lock = threading.Lock()
        self.verifier = witness_verifier(signer.verifier)
        self._policies = _policies(tuple(logs), self.verifier)
        self._paths = {checkpoint_path(origin): origin for origin in self._policies}
        state.require_of(self.verifier)

    @property
    def origins(self) -> tuple[str, ...]:
        """The logs that it witnesses."""
        return tuple(self._policies)

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer a request to cosign.

        Raises:
            AnchorUnavailable: if the state can't be written; then nothing was cosigned.
        """
        try:
            request = AddCheckpoint.parse(body)
        except MalformedProof as error:
            return _refusal(400, str(error))
        checkpoint = request.checkpoint
        policy = self._policies.get(checkpoint.origin)
        if policy is None:
            return _refusal(404, f"the log {checkpoint.origin!r:.200} is not witnessed here")
        try:
            policy.check(checkpoint)
        except IntegrityFinding as error:
            return _refusal(403, str(error))
        if request.old > checkpoint.size:
            return _refusal(400, f"the old size {request.old} is greater than the new one, {checkpoint.size}")
        with self._lock:  # what is compared must still be so when it is written
            return self._decide(request)

    def shown(self, path: str) -> Reply:
        """Hand out the checkpoint that was cosigned last, at the path of its log."""
        origin = self._paths.get(path)
        with self._lock:
            checkpoint = None if origin is None else self._state.last(origin)
        if checkpoint is None:
            return _refusal(404, "there is nothing here")
        return Reply(200, checkpoint.format().encode())

    def _decide(self, request: AddCheckpoint) -> Reply:
        checkpoint = request.checkpoint
        last = self._state.last(checkpoint.origin)
        size, root = (0, EMPTY_ROOT) if last is None else (last.size, last.root)
        if request.old != size:
            said = f"{checkpoint.origin}: asked from size {request.old}, and {size} was cosigned last"
            return Reply(409, f"{size}\n".encode(), SIZE_TYPE, said)
        if last is not None and checkpoint.size == size and checkpoint.root != root:
            self._state.keep_evidence(last, checkpoint)
            said = f"FORK of {checkpoint.origin}: another root at size {size}, signed by the log; kept as evidence"
            return Reply(409, f"{size}\n".encode(), SIZE_TYPE, said)
        try:
            check_consistency(size, checkpoint.size, root, checkpoint.root, request.path)
        except (IntegrityFinding, MalformedProof) as error:
            return _refusal(422, str(error))
        return self._cosign(checkpoint, last)

    def _cosign(self, checkpoint: Checkpoint, last: Checkpoint | None) -> Reply:
        """Remember a checkpoint, and only then give the cosignature away."""
        time = max(int(self._now()), self._time_of(last))
        cosigned = checkpoint.cosign(self._signer, time=time)
        self._state.remember(cosigned)
        line = cosigned.signatures[-1].format()
        return Reply(200, f"{line}\n".encode(), TEXT, f"{checkpoint.origin}: cosigned size {checkpoint.size}")

    def _time_of(self, last: Checkpoint | None) -> int:
        """Give the time of the last cosignature, behind which no later one may go, even if the clock does."""
        lines = [] if last is None else [line for line in last.signatures if self.verifier.signs(line)]
        times = [int.from_bytes(line.signature[:8], "big") for line in lines]
        return max(times, default=0)


def _refusal(status: int, why: str) -> Reply:
    return Reply(status, f"{why}\n".encode(), TEXT, f"refused with {status}: {why}")


def _policies(logs: tuple[Verifier, ...], own: Verifier) -> dict[str, Policy]:
    if not logs:
        raise ConfigurationError("there is no log to witness: give the verifier key of one")
    taken = [str(log) for log in logs if log.public_key == own.public_key]
    if taken:
        raise ConfigurationError(f"the log {taken[0]} has the witness's own key: a witness needs one that no log has")
    origins = dict.fromkeys(log.name for log in logs)
    try:
        return {origin: Policy.of(*(log for log in logs if log.name == origin)) for origin in origins}
    except MalformedProof as error:
        raise ConfigurationError(f"the logs' keys can't be used: {error}") from error
