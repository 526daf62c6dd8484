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
from .anchor import Anchored, Prove, last_of, require_continued
from .kept import flush_directory

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
    """Where the records that were read end: offset, digest of the last one, its checkpoint, and itself."""

    offset: int = 0
    digest: str = NO_DIGEST
    last: Checkpoint | None = None
    record: bytes = b""


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

    def put(self, checkpoint: Checkpoint, *, prove: Prove | None = None) -> Anchored:
        """Append a signed checkpoint, and flush it to disk; see :meth:`.anchor.Anchor.put`.

        What this object has read before is not read again.
        """
        note = checkpoint.format().encode()
        with self._opened() as file, self.path.open("rb") as kept:
            for _anchored, end in self._records(kept, self._end):
                self._end = end
            require_continued(self._end.last, checkpoint)
            if self._end.record.partition(b"\n")[2] == note:
                os.fsync(file.fileno())  # it may stand there by a writer that crashed before it had flushed it
                return Anchored(checkpoint=checkpoint, token=self._end.record)
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

    def latest(self) -> Anchored | None:
        """Give what was kept last, or None if there is no file yet; every record is read."""
        return last_of(self.read()) if self.path.exists() else None

    def verify(self, anchored: Anchored) -> None:
        """Refuse a token that is not a record of such a file, with this checkpoint; it speaks of no moment."""
        header, _, note = anchored.token.partition(b"\n")
        match = _HEADER.fullmatch(header.decode("ascii", errors="replace") + "\n")
        if match is None or int(match[1]) != len(note):
            raise MalformedProof(f"the token {anchored.token!r:.80} is no record of an anchor file")
        if note != anchored.checkpoint.format().encode():
            raise IntegrityFinding(
                f"the token holds another checkpoint: expected {anchored.checkpoint.format()!r:.200}"
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the file for appending, and keep other writers out."""
        try:
            new = not self.path.exists()
            with self.path.open("ab", buffering=0) as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                if new:
                    flush_directory(self.path.parent)
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
            require_continued(start.last, checkpoint)
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
    return _End(end.offset + len(record), hashlib.sha256(record).hexdigest(), checkpoint, record)
