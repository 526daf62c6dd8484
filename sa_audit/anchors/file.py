"""The file anchor: signed checkpoints in a file that is only appended to.

``docs/format/checkpoint.md``, "File anchor".  The file has to stand where those who run the database can't write: on
another host, or made append-only there (``chattr +a``).  Imports only proof and errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ..errors import AnchorUnavailable, IntegrityFinding, MalformedProof
from ..proof import Checkpoint
from ..proof.note import MAX_NOTE
from .anchor import Anchored

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows, where no file can be append-only either
    fcntl = None  # type: ignore[assignment]  # the absence of a module has no type

LABEL: Final = "sa_audit/anchor-file/v1"
NO_DIGEST: Final = "0" * 64
MAX_HEADER: Final = 128
_HEADER: Final = re.compile(rf"{re.escape(LABEL)} ([1-9][0-9]{{0,5}}) ([0-9a-f]{{64}})\n")


@dataclass(frozen=True, slots=True)
class _End:
    """Where the records that were read end: offset, digest of the last one, and its checkpoint."""

    offset: int = 0
    digest: str = NO_DIGEST
    last: Checkpoint | None = None


class FileAnchor:
    """A file of checkpoints.

    Args:
        path: the file; it is made at the first checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._end = _End()

    def __repr__(self) -> str:
        return f"<FileAnchor {self.path}>"

    @property
    def uri(self) -> str:
        """``file:PATH``."""
        return f"file:{self.path}"

    def put(self, checkpoint: Checkpoint) -> Anchored:
        """Append a signed checkpoint, and flush it to disk; see :meth:`.anchor.Anchor.put`.

        What this object has read before is not read again.
        """
        note = checkpoint.format().encode()
        with self._opened() as file, self.path.open("rb") as kept:
            for _anchored, end in self._records(kept, self._end):
                self._end = end
            _require_continued(self._end, checkpoint)
            record = f"{LABEL} {len(note)} {self._end.digest}\n".encode() + note
            self._append(file, record)
        self._end = _after(self._end, record, checkpoint)
        return Anchored(checkpoint=checkpoint, token=record)

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, oldest first; see :meth:`.anchor.Anchor.read`."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise self._unavailable(error) from error
        with file:
            for anchored, _end in self._records(file, _End()):
                yield anchored

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the file for appending, and keep other writers out."""
        try:
            new = not self.path.exists()
            with self.path.open("ab", buffering=0) as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                if new:
                    _flush_directory(self.path.parent)
                yield file
        except OSError as error:
            raise self._unavailable(error) from error

    def _append(self, file: IO[bytes], record: bytes) -> None:
        written = file.write(record)
        os.fsync(file.fileno())
        if written != len(record):
            raise AnchorUnavailable(f"{self.path} took {written} of {len(record)} bytes: is the disk full?")

    def _records(self, file: IO[bytes], start: _End) -> Iterator[tuple[Anchored, _End]]:
        """Yield the records behind an end, each with the end behind it."""
        file.seek(start.offset)
        while header := file.readline(MAX_HEADER):
            match = _HEADER.fullmatch(header.decode("ascii", errors="replace"))
            size = int(match[1]) if match is not None else 0
            if match is None or size > MAX_NOTE:
                raise self._damaged(start.offset, header, complete=header.endswith(b"\n"))
            note = file.read(size)
            if len(note) != size:
                raise self._damaged(start.offset, header + note, complete=False)
            if match[2] != start.digest:
                raise IntegrityFinding(
                    f"the record at byte {start.offset} of {self.path} does not follow the one before it: "
                    f"expected {start.digest}, got {match[2]}"
                )
            checkpoint = Checkpoint.parse(note)
            _require_continued(start, checkpoint)
            start = _after(start, header + note, checkpoint)
            yield Anchored(checkpoint=checkpoint, token=header + note), start

    def _damaged(self, offset: int, got: bytes, *, complete: bool) -> MalformedProof:
        if complete:
            return MalformedProof(f"{self.path} has no record at byte {offset}, but {got!r:.80}")
        return MalformedProof(
            f"the last record of {self.path}, at byte {offset}, is not whole: its writing was interrupted; "
            "keep the file as it is, and anchor to another one from now on"
        )

    def _unavailable(self, error: OSError) -> AnchorUnavailable:
        return AnchorUnavailable(f"the anchor {self.path} can't be used: {error.strerror or error}")


def _after(end: _End, record: bytes, checkpoint: Checkpoint) -> _End:
    return _End(end.offset + len(record), hashlib.sha256(record).hexdigest(), checkpoint)


def _require_continued(end: _End, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that can't come behind the last one."""
    last = end.last
    if last is None:
        return
    if checkpoint.origin != last.origin:
        raise IntegrityFinding(
            f"the anchor keeps checkpoints of {last.origin!r}, and this one is of {checkpoint.origin!r}"
        )
    if checkpoint.size < last.size or (checkpoint.size == last.size and checkpoint.root != last.root):
        raise IntegrityFinding(
            f"the anchor keeps a checkpoint that this one does not continue: expected one behind size {last.size}, "
            f"root {last.root.hex()}, got size {checkpoint.size}, root {checkpoint.root.hex()}"
        )


def _flush_directory(path: Path) -> None:
    """Make the file's own entry safe, where a directory can be opened."""
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
