"""Checkpoints: size and root of a log, signed.  C2SP tlog-checkpoint, and ``docs/format/checkpoint.md``.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Final

from ..errors import IntegrityFinding, MalformedProof
from .keys import SigningKey, cosign_line, sign_line, witness_verifier
from .merkle import EMPTY_ROOT
from .note import MAX_NOTE, Note, SignatureLine, decode_base64, decode_number, parse_note
from .types import DIGEST_SIZE, MAX_SIZE, Digest

PRINTED_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Size and root of a log, with whatever signature lines stand below.

    That it could be parsed says nothing: :class:`.policy.Policy` tells who has signed.

    Args:
        origin: the log's name.
        size: its number of leaves.
        root: 32 bytes.
        extensions: further lines; this library writes none.
        signatures: may be empty for a checkpoint that is still to be signed.

    Raises:
        MalformedProof: if there can't be such a checkpoint.
    """

    origin: str
    size: int
    root: Digest
    extensions: tuple[str, ...] = ()
    signatures: tuple[SignatureLine, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != DIGEST_SIZE:
            raise MalformedProof(f"there is no tree of {self.size} leaves with the root {self.root.hex()!r:.80}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedProof(f"a tree of no leaves has the root {EMPTY_ROOT.hex()}, and not {self.root.hex()}")
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise MalformedProof(f"{line!r:.80} can't be a line of a checkpoint")

    @property
    def text(self) -> str:
        """The note's text: what is signed."""
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))

    def format(self) -> str:
        """Give the signed checkpoint as text.

        Raises:
            MalformedProof: if it has no signature, or a line of it can't be one.
        """
        return Note(text=self.text, signatures=self.signatures).format()

    @classmethod
    def parse(cls, source: str | bytes) -> Checkpoint:
        """Read a signed checkpoint.

        Raises:
            MalformedProof: if it is not one in its one form.
        """
        note = parse_note(source)
        lines = note.text[:-1].split("\n")
        if len(lines) < 3:
            raise MalformedProof(f"the checkpoint has {len(lines)} lines, and needs origin, size and root")
        origin, size, root, *extensions = lines
        return cls(
            origin=origin,
            size=decode_number(size, "size of the checkpoint"),
            root=Digest(decode_base64(root, "root of the checkpoint")),
            extensions=tuple(extensions),
            signatures=note.signatures,
        )

    def sign(self, *signers: SigningKey) -> Checkpoint:
        """Give the checkpoint with a line more for each signer.

        Raises:
            MalformedProof: if a signer's name is not the origin.
            UnusableKey: if what a signer gives is not a signature by its own verifier.
        """
        for signer in signers:
            if signer.name != self.origin:
                raise MalformedProof(f"the key {signer.name!r} can't sign for the log {self.origin!r}: it has its name")
        lines = tuple(sign_line(signer, self.text) for signer in signers)
        return replace(self, signatures=self.signatures + lines)

    def cosign(self, signer: SigningKey, *, time: int) -> Checkpoint:
        """Give the checkpoint with a witness's line more.

        Args:
            signer: the witness's key, of which the log has no use.
            time: in seconds since the epoch.

        Raises:
            UnusableKey: if what the signer gives is not a signature by its own verifier.
        """
        line = cosign_line(signer, witness_verifier(signer.verifier), self.text, time)
        return replace(self, signatures=(*self.signatures, line))

    def merge(self, other: Checkpoint) -> Checkpoint:
        """Give the checkpoint with the signature lines of another copy, each line once.

        Raises:
            IntegrityFinding: if the other one is not of the same text.
        """
        if other.text != self.text:
            raise IntegrityFinding(f"the checkpoints differ: expected {self.text!r:.200}, got {other.text!r:.200}")
        return replace(self, signatures=tuple(dict.fromkeys((*self.signatures, *other.signatures))))

    def printed(self) -> str:
        """Give the form for paper and e-mail: the signed checkpoint, and digits to compare by eye."""
        return f"{self.format()}digest: {self._digits()}\n"

    @classmethod
    def parse_printed(cls, text: str) -> Checkpoint:
        """Read the printed form, typed in again or out of an e-mail.

        Args:
            text: blank lines around it, blanks at the ends of lines and carriage returns don't matter.

        Raises:
            MalformedProof: if it is none, or its digits are not those of the checkpoint: a slip in typing.
        """
        if len(text) > MAX_NOTE:
            raise MalformedProof(f"the printed checkpoint is longer than {MAX_NOTE} characters")
        lines = [line.rstrip(" \t\r") for line in text.strip("\r\n\t ").split("\n")]
        if not lines[-1].startswith("digest: "):
            raise MalformedProof("the printed checkpoint does not end in a line of its digest")
        checkpoint = cls.parse("\n".join(lines[:-1]) + "\n")
        said = lines[-1].removeprefix("digest: ")
        if said != checkpoint._digits():
            raise MalformedProof(f"the printed checkpoint has the digest {said!r:.80}: expected {checkpoint._digits()}")
        return checkpoint

    def _digits(self) -> str:
        digits = hashlib.sha256(self.text.encode()).hexdigest()[:PRINTED_DIGITS]
        return " ".join(digits[start : start + 4] for start in range(0, PRINTED_DIGITS, 4))
