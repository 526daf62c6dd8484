"""What a witness remembers, in one file: for each log the checkpoint that it cosigned last.

``docs/format/checkpoint.md``, "State of a witness".  A witness that forgets can be made to cosign a fork, so the file
is flushed before a cosignature is given, and one that is missing or damaged is never taken for a fresh start.
Imports only proof and errors.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

from ..errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof
from ..proof import Checkpoint, Verifier
from .kept import write_whole

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]  # the absence of a module has no type

FORMAT: Final = "sa_audit/witness-state/v1"
MAX_STATE: Final = 64 * 1024 * 1024
MAX_EVIDENCE: Final = 4 * 1024 * 1024


class WitnessState:
    """The file of a witness, held by one process.

    Args:
        path: the file; :meth:`create` makes it.

    Raises:
        ConfigurationError: if it is missing, or another process holds it.
        MalformedProof: if it is damaged.
        IntegrityFinding: if a checkpoint in it is not one that this witness cosigned.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._held = _hold(self.path)
        try:
            self.verifier, self._last = _read(self.path)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], verifier: Verifier) -> WitnessState:
        """Make the file of a witness that has cosigned nothing yet.

        Raises:
            ConfigurationError: if the file is there.
            AnchorUnavailable: if it can't be written.
        """
        if Path(path).exists():
            raise ConfigurationError(f"{path} is there already: a witness that has begun must not begin anew")
        _write(Path(path), verifier, {})
        return cls(path)

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._held)

    def require_of(self, verifier: Verifier) -> None:
        """Refuse the file of another witness.

        Raises:
            ConfigurationError: naming both.
        """
        if verifier != self.verifier:
            raise ConfigurationError(f"{self.path} is the state of the witness {self.verifier}, and not of {verifier}")

    def last(self, origin: str) -> Checkpoint | None:
        """Give the checkpoint of a log that was cosigned last."""
        return self._last.get(origin)

    def remember(self, checkpoint: Checkpoint) -> None:
        """Write a cosigned checkpoint in place of the one before, and flush it to disk.

        Raises:
            AnchorUnavailable: if it can't be written; the one before stands.
        """
        last = self._last | {checkpoint.origin: checkpoint}
        _write(self.path, self.verifier, last)
        self._last = last

    def keep_evidence(self, cosigned: Checkpoint, other: Checkpoint) -> None:
        """Append two checkpoints of one size, both signed by the log, which prove that it has forked.

        Raises:
            AnchorUnavailable: if they can't be written.
        """
        path = self.path.with_name(f"{self.path.name}.evidence")
        text = f"{cosigned.format()}\n{other.format()}\n".encode()
        try:
            with path.open("ab") as file:
                if file.tell() + len(text) <= MAX_EVIDENCE:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise AnchorUnavailable(f"{path} can't be written: {error.strerror or error}") from error


def _hold(path: Path) -> int:
    """Lock a file beside the state, which is itself replaced at each write."""
    if not path.exists():
        raise ConfigurationError(
            f"there is no state {path}: --new begins one; a witness that has cosigned before must find its old one, "
            "or take a new key, since it would cosign a fork"
        )
    try:
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}.lock can't be made: {error.strerror or error}") from error
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigurationError(f"another witness is running on {path}") from error
    return descriptor


def _read(path: Path) -> tuple[Verifier, dict[str, Checkpoint]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_STATE + 1)
        content: Any = json.loads(raw.decode()) if len(raw) <= MAX_STATE else None
    except (OSError, ValueError) as error:
        raise MalformedProof(f"the state {path} can't be read: {error}") from error
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError):
        if content["format"] == FORMAT and set(content) == {"format", "witness", "logs"}:
            verifier = Verifier.parse(content["witness"])
            return verifier, {origin: _cosigned(path, verifier, origin, note) for origin, note in _items(content)}
    raise MalformedProof(f"the state {path} is not one of the format {FORMAT}")


def _items(content: Any) -> list[tuple[str, str]]:
    return list(content["logs"].items())


def _cosigned(path: Path, verifier: Verifier, origin: str, note: str) -> Checkpoint:
    """Read a checkpoint of the state, and refuse one that is not the witness's own."""
    checkpoint = Checkpoint.parse(note)
    lines = [line for line in checkpoint.signatures if verifier.signs(line)]
    if checkpoint.origin != origin or not lines:
        raise IntegrityFinding(f"the state {path} holds for {origin!r} what the witness {verifier} did not cosign")
    for line in lines:
        verifier.check(checkpoint.text, line)
    return checkpoint


def _write(path: Path, verifier: Verifier, last: dict[str, Checkpoint]) -> None:
    logs = {origin: checkpoint.format() for origin, checkpoint in sorted(last.items())}
    content = {"format": FORMAT, "witness": str(verifier), "logs": logs}
    try:
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise AnchorUnavailable(f"the state {path} can't be written: {error.strerror or error}") from error
