"""Proofs as text: of inclusion (C2SP tlog-proof) and of consistency (the request of C2SP tlog-witness).

``docs/format/tree.md`` says what stands in the extra data.  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from ..errors import IntegrityFinding, MalformedProof
from .canonical import Row, decode_row
from .cbor import decode, encode
from .checkpoint import Checkpoint
from .entries import RowEntry, decode_entry
from .merkle import MAX_PATH, check_consistency, check_inclusion, leaf_hash
from .note import MAX_NOTE, as_text, decode_base64, decode_number
from .policy import Policy, Signed
from .schema import Descriptor
from .types import DIGEST_SIZE, Digest

HEADER: Final = "c2sp.org/tlog-proof@v1"
EVIDENCE_LABEL: Final = "sa_audit/evidence/v1"
MAX_PROOF: Final = 64 * 1024 * 1024
MAX_CONSISTENCY: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a proof is about: the encoded entry, and for a row its encoded descriptor and itself."""

    entry: bytes
    descriptor: bytes | None = None
    row: bytes | None = None

    def encode(self) -> bytes:
        """Give the evidence as bytes."""
        return encode([EVIDENCE_LABEL, self.entry, self.descriptor, self.row])

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Read evidence.

        Raises:
            MalformedProof: if it is not evidence of this version.
        """
        match decode(data, what="evidence"):
            case (label, bytes(entry), (bytes() | None) as descriptor, (bytes() | None) as row) if (
                label == EVIDENCE_LABEL and (descriptor is None) == (row is None)
            ):
                return cls(entry=entry, descriptor=descriptor, row=row)
        raise MalformedProof(f"the extra data of the proof is not of the form {EVIDENCE_LABEL!r}")

    def check(self) -> tuple[Descriptor, Row] | None:
        """Refuse a row that is not the entry's; give it decoded, or None if there is none.

        Raises:
            MalformedProof: if entry, descriptor or row is not one.
            IntegrityFinding: if they don't belong together.
        """
        entry = decode_entry(self.entry)
        if self.row is None or self.descriptor is None:
            return None
        if not isinstance(entry, RowEntry):
            raise IntegrityFinding(f"the proof holds a row, and its entry is a {type(entry).__name__}")
        return check_row(entry, self.descriptor, self.row)


def check_row(entry: RowEntry, descriptor: bytes, row: bytes) -> tuple[Descriptor, Row]:
    """Refuse a row that is not that of an entry; give it decoded.

    Args:
        entry: of kind 1.
        descriptor: an encoded descriptor.
        row: an encoded row.

    Raises:
        MalformedProof: if descriptor or row is not one.
        IntegrityFinding: if they don't belong to the entry.
    """
    schema = Descriptor.decode(descriptor)
    return schema, row_of(entry, schema, row)


def row_of(entry: RowEntry, schema: Descriptor, row: bytes) -> Row:
    """Refuse a row that is not that of an entry; give it decoded.

    Args:
        entry: of kind 1.
        schema: its descriptor.
        row: an encoded row.

    Raises:
        MalformedProof: if it is no row.
        IntegrityFinding: if descriptor or row don't belong to the entry.
    """
    place = f"row {entry.row} of table {entry.table}"
    if schema.digest != entry.schema:
        raise IntegrityFinding(
            f"{place}: the schema is not the sealed one: expected {entry.schema.hex()}, got {schema.digest.hex()}"
        )
    if schema.table != entry.table:
        raise IntegrityFinding(f"{place}: the schema is of another table: expected {entry.table}, got {schema.table}")
    got = hashlib.sha256(row).digest()
    if got != entry.digest:
        raise IntegrityFinding(f"{place} is not the sealed one: expected {entry.digest.hex()}, got {got.hex()}")
    return decode_row(row, schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That an entry is in the log: its index, the path to the root, and the signed checkpoint.

    Args:
        index: that of the leaf.
        path: 32 bytes each, the leaf's sibling first.
        checkpoint: signed.
        extra: the encoded :class:`Evidence`, or what another program put there; None if there is none.
    """

    index: int
    path: tuple[Digest, ...]
    checkpoint: Checkpoint
    extra: bytes | None = None

    def format(self) -> str:
        """Give the proof as text."""
        extra = [] if self.extra is None else [f"extra {base64.b64encode(self.extra).decode('ascii')}"]
        return _format([HEADER, *extra, f"index {self.index}"], self.path, self.checkpoint)

    @classmethod
    def parse(cls, source: str | bytes) -> Proof:
        """Read a proof.

        Raises:
            MalformedProof: if it is not one in its one form, or longer than 64 MiB.
        """
        lines, checkpoint = _parse(source, "proof", MAX_PROOF)
        if not lines or lines.pop(0) != HEADER:
            raise MalformedProof(f"the proof does not begin with {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "extra line of the proof")
        index = _number(lines, "index ", "proof")
        return cls(index=index, path=_path(lines, "proof"), checkpoint=checkpoint, extra=extra)

    def evidence(self) -> Evidence:
        """Give what the proof is about, from its extra data; :meth:`check` tells whether that is true.

        Raises:
            MalformedProof: if there is none.
        """
        if self.extra is None:
            raise MalformedProof("the proof has no extra data: give the entry that it is about")
        return Evidence.decode(self.extra)

    def check(self, policy: Policy, entry: bytes | None = None) -> Signed:
        """Refuse a proof that does not show that an entry is in a log that the policy trusts.

        Args:
            policy: who has to have signed; from the reader, never from where the proof comes from.
            entry: the encoded entry; None takes it, with its row, from the proof's own evidence.

        Raises:
            MalformedProof: if entry, row or path is none.
            IntegrityFinding: if the signatures, the path or the row don't fit.
        """
        if entry is None:
            evidence = self.evidence()
            evidence.check()
            entry = evidence.entry
        signed = policy.check(self.checkpoint)
        check_inclusion(self.index, self.checkpoint.size, leaf_hash(entry), self.path, self.checkpoint.root)
        return signed


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """That a checkpoint that the reader holds is a beginning of another.

    Args:
        old: the size of the reader's checkpoint.
        path: 32 bytes each, in the order of RFC 6962.
        checkpoint: the other one, signed.
    """

    old: int
    path: tuple[Digest, ...]
    checkpoint: Checkpoint

    def format(self) -> str:
        """Give the proof as text."""
        return _format([f"old {self.old}"], self.path, self.checkpoint)

    @classmethod
    def parse(cls, source: str | bytes) -> ConsistencyProof:
        """Read a proof.

        Raises:
            MalformedProof: if it is not one in its one form, or longer than 256 KiB.
        """
        lines, checkpoint = _parse(source, "consistency proof", MAX_CONSISTENCY)
        old = _number(lines, "old ", "consistency proof")
        return cls(old=old, path=_path(lines, "consistency proof"), checkpoint=checkpoint)

    def check(self, policy: Policy, old: Checkpoint) -> Signed:
        """Refuse a proof that does not show that the reader's checkpoint is a beginning of this one.

        Args:
            policy: who has to have signed the new checkpoint.
            old: the reader's own, which he trusts.

        Raises:
            MalformedProof: if the path is none.
            IntegrityFinding: if the signatures, the path, the origin or the old size don't fit.
        """
        signed = policy.check(self.checkpoint)
        if (old.origin, old.size) != (self.checkpoint.origin, self.old):
            raise IntegrityFinding(
                f"the proof is not from the checkpoint that is held: expected {old.origin!r} at size {old.size}, "
                f"got {self.checkpoint.origin!r} at size {self.old}"
            )
        check_consistency(self.old, self.checkpoint.size, old.root, self.checkpoint.root, self.path)
        return signed


# -- the lines of both -------------------------------------------------------------------


def _format(head: list[str], path: tuple[Digest, ...], checkpoint: Checkpoint) -> str:
    hashes = [base64.b64encode(node).decode("ascii") for node in path]
    return "".join(f"{line}\n" for line in (*head, *hashes)) + "\n" + checkpoint.format()


def _parse(source: str | bytes, what: str, limit: int) -> tuple[list[str], Checkpoint]:
    text = as_text(source, what, limit)
    head, separator, note = text.partition("\n\n")
    if not separator or len(note) > MAX_NOTE:
        raise MalformedProof(f"the {what} has no checkpoint behind a blank line")
    if head.count("\n") > MAX_PATH + 3:
        raise MalformedProof(f"the {what} has {head.count(chr(10))} lines, and at most {MAX_PATH} hashes are possible")
    return head.split("\n"), Checkpoint.parse(note)


def _number(lines: list[str], prefix: str, what: str) -> int:
    line = lines.pop(0) if lines else ""
    if not line.startswith(prefix):
        raise MalformedProof(f"the {what} has the line {line!r:.80} where {prefix.strip()!r} has to stand")
    return decode_number(line.removeprefix(prefix), f"{prefix.strip()} of the {what}")


def _path(lines: list[str], what: str) -> tuple[Digest, ...]:
    if len(lines) > MAX_PATH:
        raise MalformedProof(f"the {what} has {len(lines)} hashes, and at most {MAX_PATH} are possible")
    path = tuple(Digest(decode_base64(line, f"hash of the {what}")) for line in lines)
    for node in path:
        if len(node) != DIGEST_SIZE:
            raise MalformedProof(f"the {what} has a hash of {len(node)} bytes, and a hash has {DIGEST_SIZE}")
    return path
