"""What goes between a log and a witness: the request and the answer of ``add-checkpoint``.  C2SP tlog-witness.

Imports only proof and errors.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import MalformedProof
from ..proof import Checkpoint
from ..proof.merkle import MAX_PATH
from ..proof.note import MAX_NOTE, as_text, decode_base64, decode_number
from ..proof.types import DIGEST_SIZE, Digest

SIZE_TYPE: Final = "text/x.tlog.size"
"""The type of a 409's body: the size that the witness has cosigned last."""
MAX_REQUEST: Final = MAX_NOTE + 64 * 64
OLD: Final = "old "


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request: a checkpoint, and the proof that it continues the one of an older size.

    Args:
        old: the size that the witness is thought to have cosigned last, or 0.
        path: the consistency proof from there, at most 63 hashes.
        checkpoint: signed by the log.
    """

    old: int
    path: Sequence[Digest]
    checkpoint: Checkpoint

    def format(self) -> bytes:
        """Give the body of the request."""
        hashes = [base64.b64encode(node).decode("ascii") for node in self.path]
        head = "".join(f"{line}\n" for line in (f"{OLD}{self.old}", *hashes))
        return f"{head}\n{self.checkpoint.format()}".encode()

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read the body of a request.

        Raises:
            MalformedProof: if it is not one in its one form.
        """
        head, separator, note = as_text(body, "request", MAX_REQUEST).partition("\n\n")
        old, *hashes = head.split("\n")
        if not separator or not old.startswith(OLD):
            raise MalformedProof("the request does not begin with a line 'old SIZE' and end in a checkpoint")
        if len(hashes) > MAX_PATH:
            raise MalformedProof(f"the request has {len(hashes)} hashes, and at most {MAX_PATH} are possible")
        path = [decode_base64(line, "hash of the request") for line in hashes]
        if any(len(node) != DIGEST_SIZE for node in path):
            raise MalformedProof(f"a hash of the request is not of {DIGEST_SIZE} bytes")
        return cls(
            old=decode_number(old.removeprefix(OLD), "old size of the request"),
            path=[Digest(node) for node in path],
            checkpoint=Checkpoint.parse(note),
        )


def checkpoint_path(origin: str) -> str:
    """Give the path at which a witness of this library hands out what it has cosigned last for a log."""
    return f"/checkpoint/{hashlib.sha256(origin.encode()).hexdigest()}"
