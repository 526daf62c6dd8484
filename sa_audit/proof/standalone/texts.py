"""Proofs as text.  A part of ``verify.py``; see this package."""

from __future__ import annotations

from .cbor import decode
from .fault import need
from .notes import Checkpoint, Policy, base64_of, number_of, text_within
from .records import Schema, check_row, decode_entry
from .tree import check_consistency, check_inclusion, hashes_of, leaf_hash

# -- proofs as text -----------------------------------------------------------------------


class Proof:
    """A proof of inclusion (C2SP tlog-proof), or of consistency (the request of C2SP tlog-witness)."""

    def __init__(self, data: bytes, *, consistency: bool = False) -> None:
        whole = text_within(data, 256 * 1024 if consistency else 64 * 2**20)
        head, blank, note = whole.partition("\n\n")
        need(blank and head.count("\n") <= 66, "has no checkpoint, or too many lines")
        lines = head.split("\n")
        self.extra = None
        if not consistency:
            need(lines.pop(0) == "c2sp.org/tlog-proof@v1", "is not a proof of version 1")
            if lines and lines[0].startswith("extra "):
                self.extra = base64_of(lines.pop(0)[6:])
        word = "old " if consistency else "index "
        need(lines and lines[0].startswith(word), "has no line {!r}", word)
        self.number = number_of(lines.pop(0)[len(word) :])
        need(len(lines) <= 63, "has too many hashes")
        self.path = [base64_of(each) for each in lines]
        hashes_of(self.path)
        self.checkpoint = Checkpoint(note.encode("utf-8"))

    def check(self, policy: Policy) -> None:
        """Refuse a proof of inclusion that does not hold."""
        need(self.extra is not None, "has no evidence")
        item = decode(self.extra or b"")
        need(type(item) is list and len(item) == 4 and item[0] == "sa_audit/evidence/v1", "has other evidence")
        _label, entry, descriptor, row = item
        need(type(entry) is bytes and (descriptor is None) == (row is None), "has other evidence")
        kind, items = decode_entry(entry)
        if row is not None:
            need(kind == 1 and type(row) is bytes and type(descriptor) is bytes, "has a row that is none")
            check_row(items, Schema(descriptor), row)
        policy.check(self.checkpoint)
        check_inclusion(self.number, self.checkpoint.size, leaf_hash(entry), self.path, self.checkpoint.root)

    def check_consistency(self, policy: Policy, held: Checkpoint) -> None:
        """Refuse a proof of consistency from a checkpoint that is held that does not hold."""
        policy.check(self.checkpoint)
        need((held.origin, held.size) == (self.checkpoint.origin, self.number), "is not from the held checkpoint")
        check_consistency(self.number, self.checkpoint.size, held.root, self.checkpoint.root, self.path)
