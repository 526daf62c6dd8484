"""The directory in which the tokens of an anchor stand that keeps none itself: a time-stamping authority, a witness.

``docs/format/checkpoint.md``, "Kept tokens".  Each is one file or two, written aside, flushed and then named, so that a
crash leaves either the whole or something that is not looked at.  Imports only proof and errors.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import AnchorUnavailable, MalformedProof
from ..proof import Checkpoint

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None  # type: ignore[assignment]  # the absence of a module has no type

CHECKPOINT: Final = ".checkpoint"
UNFINISHED: Final = ".unfinished"
MAX_FILE: Final = 1024 * 1024
_NAME: Final = re.compile(r"([0-9]{20}-[0-9a-f]{16})(\.[a-z]+)")


def stem(checkpoint: Checkpoint) -> str:
    """Give the name of what is kept for a checkpoint, without ending: names sort by size."""
    return f"{checkpoint.size:020d}-{checkpoint.root.hex()[:16]}"


class Kept:
    """A directory of checkpoints, and of a token for each.

    Args:
        path: the directory; it is made at the first token.
        ending: that of the tokens' files; None if the checkpoint's own file is the token.
    """

    def __init__(self, path: str | os.PathLike[str], ending: str | None) -> None:
        self.path = Path(path)
        self._ending = ending

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out."""
        try:
            self.path.mkdir(parents=False, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Iterator[tuple[Checkpoint, bytes]]:
        """Yield checkpoint and token, by ascending size."""
        for name in self._names():
            yield self._load(name)

    def last(self) -> tuple[Checkpoint, bytes] | None:
        """Give the checkpoint of the greatest size and its token."""
        names = self._names()
        return self._load(names[-1]) if names else None

    def add(self, checkpoint: Checkpoint, note: bytes, token: bytes) -> None:
        """Write a checkpoint and its token, the token last, since it is what counts."""
        name = stem(checkpoint)
        self._write(name + CHECKPOINT, note)
        if self._ending is not None:
            self._write(name + self._ending, token)

    def _names(self) -> list[str]:
        try:
            files = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unavailable(error) from error
        found: dict[str, set[str]] = {}
        for file in files:
            if file.endswith(UNFINISHED):
                continue
            match = _NAME.fullmatch(file)
            if match is None or match[2] not in (CHECKPOINT, self._ending):
                raise MalformedProof(f"{self.path / file} is nothing that an anchor keeps: move it elsewhere")
            found.setdefault(match[1], set()).add(match[2])
        lone = [name for name, endings in found.items() if CHECKPOINT not in endings]
        if lone:
            raise MalformedProof(f"{self.path / lone[0]}{self._ending} stands without its checkpoint")
        wanted = self._ending or CHECKPOINT
        return [name for name, endings in found.items() if wanted in endings]

    def _load(self, name: str) -> tuple[Checkpoint, bytes]:
        note = self._content(name + CHECKPOINT)
        checkpoint = Checkpoint.parse(note)
        if stem(checkpoint) != name:
            raise MalformedProof(f"{self.path / name}{CHECKPOINT} holds the checkpoint {stem(checkpoint)}")
        return checkpoint, note if self._ending is None else self._content(name + self._ending)

    def _content(self, name: str) -> bytes:
        path = self.path / name
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
        except OSError as error:
            raise self._unavailable(error) from error
        if len(content) > MAX_FILE:
            raise MalformedProof(f"{path} is longer than {MAX_FILE} bytes")
        return content

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> AnchorUnavailable:
        return AnchorUnavailable(
            f"{self.path}, where the anchor's tokens are kept, can't be used: {error.strerror or error}; "
            "keep=DIR names another place"
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, and flush it to disk.

    Raises:
        OSError: if it can't be written; the old one is still there.
    """
    aside = path.with_name(f"{path.name}{UNFINISHED}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Make a directory's entries safe, where a directory can be opened."""
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
