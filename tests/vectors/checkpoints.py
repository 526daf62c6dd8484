"""The vectors of ``docs/format/checkpoint.md``, and the proofs as text of ``tree.md``."""

from __future__ import annotations

import base64
from typing import Any

from sa_audit.proof import Checkpoint, ConsistencyProof, Evidence, Proof
from sa_audit.proof.cbor import encode
from sa_audit.proof.keys import witness_verifier
from sa_audit.proof.types import Digest
from tests.vectors import rfc6962
from tests.vectors.samples import (
    DESCRIPTOR,
    LOG,
    NEXT,
    NORTH,
    ORIGIN,
    RENAMED,
    SOUTH,
    all_entries,
    encoded_row,
    history_values,
)


def log_entries() -> list[bytes]:
    """Give the entries of a small log: every kind."""
    return [entry.encode() for _name, entry in all_entries()]


def checkpoint(size: int | None = None) -> Checkpoint:
    """Give the unsigned checkpoint of the small log."""
    leaves = log_entries()[:size]
    return Checkpoint(origin=ORIGIN, size=len(leaves), root=Digest(rfc6962.mth(leaves)))


def bad_notes() -> list[tuple[str, str]]:
    """Give texts that are not checkpoints."""
    good = checkpoint().sign(LOG).format()
    text, _, line = good.rpartition("\n\n")
    encoded = line.split(" ")[2].rstrip("\n")
    raw = base64.b64decode(encoded)
    root = text.split("\n")[2]

    def with_line(changed: str) -> str:
        return f"{text}\n\n{changed}\n"

    def with_text(changed: str) -> str:
        return f"{changed}\n\n{line}"

    return [
        ("nothing", ""),
        ("no signature", text + "\n"),
        ("no signature behind the blank line", text + "\n\n"),
        ("no newline at the end", good[:-1]),
        ("a hyphen for the dash", with_line(line[:-1].replace("\u2014", "-"))),
        ("two spaces", with_line(line[:-1].replace(f"{ORIGIN} ", f"{ORIGIN}  "))),
        ("no name", with_line(f"\u2014  {encoded}")),
        ("a plus in the name", with_line(f"\u2014 a+b {encoded}")),
        ("a space of Unicode in the name", with_line(f"\u2014 a\u2003b {encoded}")),
        ("no base64", with_line(f"\u2014 {ORIGIN} !{encoded}")),
        ("base64 without padding", with_line(f"\u2014 {ORIGIN} {base64.b64encode(raw[:5]).decode().rstrip('=')}")),
        ("base64 with bits to spare", with_line(f"\u2014 {ORIGIN} {encoded[:-2]}{chr(ord(encoded[-2]) + 1)}=")),
        ("a URL's base64", with_line(f"\u2014 {ORIGIN} {base64.urlsafe_b64encode(bytes([255] * 68)).decode()}")),
        ("a signature of no bytes", with_line(f"\u2014 {ORIGIN} {base64.b64encode(raw[:4]).decode()}")),
        ("a carriage return", good.replace("\n", "\r\n")),
        ("a tab", good.replace(ORIGIN, "bank\taudit")),
        ("65 signature lines", f"{text}\n\n" + line * 65),
        ("too long", with_text("x" * 131_072 + "\n" + text)),
        ("two lines", with_text("\n".join(text.split("\n")[:2]))),
        ("no origin", with_text("\n".join(["", *text.split("\n")[1:]]))),
        ("a leading zero", with_text(f"{ORIGIN}\n012\n{root}")),
        ("a sign", with_text(f"{ORIGIN}\n+12\n{root}")),
        ("digits that are not ASCII", with_text(f"{ORIGIN}\n\u0661\u0662\n{root}")),
        ("a size of 2**63", with_text(f"{ORIGIN}\n{1 << 63}\n{root}")),
        ("a root of 31 bytes", with_text(f"{ORIGIN}\n12\n{base64.b64encode(bytes(31)).decode()}")),
        ("a root that no empty tree has", with_text(f"{ORIGIN}\n0\n{root}")),
        ("an empty extension line", with_text(f"{ORIGIN}\n12\n{root}\n\nmore")),
    ]


def bad_keys() -> list[tuple[str, str]]:
    """Give texts that are not verifier keys."""
    name, key_id, encoded = str(LOG.verifier).split("+", 2)
    raw = base64.b64decode(encoded)
    return [
        ("nothing", ""),
        ("no name", f"+{key_id}+{encoded}"),
        ("a space in the name", f"a b+{key_id}+{encoded}"),
        ("another id", f"{name}+{int(key_id, 16) ^ 1:08x}+{encoded}"),
        ("an id in capitals", f"{name}+{'ABCDEF01'}+{encoded}"),
        ("an id of 7 digits", f"{name}+{key_id[:-1]}+{encoded}"),
        ("another name", f"{name}x+{key_id}+{encoded}"),
        ("no key", f"{name}+{key_id}+"),
        ("a key of 31 bytes", f"{name}+{key_id}+{base64.b64encode(raw[:-1]).decode()}"),
        ("an unknown type", f"{name}+{key_id}+{base64.b64encode(bytes([9]) + raw[1:]).decode()}"),
        ("something behind", f"{name}+{key_id}+{encoded} "),
        ("only two parts", f"{name}+{key_id}"),
    ]


def bad_signatures() -> list[tuple[str, str]]:
    """Give checkpoints that parse, and that the log's key has not signed so."""
    good = checkpoint().sign(LOG)
    line = good.signatures[0]

    def signed(signature: bytes, size: int = good.size) -> str:
        changed = Checkpoint(
            origin=ORIGIN,
            size=size,
            root=good.root,
            signatures=(type(line)(name=line.name, key_id=line.key_id, signature=signature),),
        )
        return changed.format()

    order = (1 << 252) + 27742317777372353535851937790883648493
    scalar = int.from_bytes(line.signature[32:], "little")
    shifted = line.signature[:32] + (scalar + order).to_bytes(32, "little")
    return [
        ("a bit of R flipped", signed(bytes([line.signature[0] ^ 1]) + line.signature[1:])),
        ("a bit of S flipped", signed(line.signature[:40] + bytes([line.signature[40] ^ 1]) + line.signature[41:])),
        ("S beyond the order, which would be a second signature", signed(shifted)),
        ("a byte less", signed(line.signature[:-1])),
        ("a byte more", signed(line.signature + b"\x00")),
        ("another size", signed(line.signature, good.size + 1)),
        ("another key of that name", checkpoint().sign(NEXT).format()),
        ("a key of another name", Checkpoint(origin=NORTH.name, size=12, root=good.root).sign(NORTH).format()),
        (
            "a good line and a bad one",
            Checkpoint(
                origin=ORIGIN,
                size=good.size,
                root=good.root,
                signatures=(line, type(line)(name=line.name, key_id=line.key_id, signature=bytes(64))),
            ).format(),
        ),
    ]


def proof_texts() -> dict[str, Any]:
    """Give proofs of inclusion and of consistency as texts."""
    leaves = log_entries()
    note = checkpoint().sign(LOG)
    row = encoded_row(DESCRIPTOR, history_values(7))
    evidence = [Evidence(entry=leaf) for leaf in leaves]
    evidence[0] = Evidence(entry=leaves[0], descriptor=DESCRIPTOR.encode(), row=row)
    proofs = [
        Proof(
            index=index,
            path=tuple(Digest(node) for node in rfc6962.path(index, leaves)),
            checkpoint=note,
            extra=evidence[index].encode(),
        ).format()
        for index in range(len(leaves))
    ]
    sizes = [
        (old, Checkpoint(origin=ORIGIN, size=old, root=Digest(rfc6962.mth(leaves[:old]))).sign(LOG))
        for old in (1, 5, 8)
    ]
    return {
        "inclusion": proofs,
        "consistency": [
            {
                "old_checkpoint": old.format(),
                "proof": ConsistencyProof(
                    old=size, path=tuple(Digest(node) for node in rfc6962.proof(size, leaves)), checkpoint=note
                ).format(),
            }
            for size, old in sizes
        ],
        "malformed": [{"why": why, "proof": text} for why, text in malformed_proofs(proofs[1])],
        "false": [{"why": why, "proof": text} for why, text in false_proofs(proofs[0], leaves)],
    }


def malformed_proofs(good: str) -> list[tuple[str, str]]:
    """Give texts that are not proofs."""
    lines = good.split("\n")
    extra = lines[1].removeprefix("extra ")
    return [
        ("nothing", ""),
        ("another version", good.replace("@v1", "@v2", 1)),
        ("no index", good.replace(lines[2] + "\n", "")),
        ("a leading zero", good.replace("index 1\n", "index 01\n")),
        ("extra behind the index", good.replace(f"{lines[1]}\n{lines[2]}\n", f"{lines[2]}\n{lines[1]}\n")),
        ("extra that is not base64", good.replace(extra, "*" + extra[1:])),
        ("a hash of 31 bytes", good.replace(lines[3], base64.b64encode(bytes(31)).decode())),
        ("64 hashes", "\n".join([*lines[:3], *[lines[3]] * 64, "", *good.partition("\n\n")[2].split("\n")])),
        ("no checkpoint", good.partition("\n\n")[0] + "\n\n"),
        ("no blank line", good.replace("\n\n", "\n", 1)),
        ("a blank line in front", "\n" + good),
        ("carriage returns", good.replace("\n", "\r\n")),
    ]


def false_proofs(good: str, leaves: list[bytes]) -> list[tuple[str, str]]:
    """Give proofs that can be read, and don't hold."""
    lines = good.split("\n")
    row = encoded_row(DESCRIPTOR, history_values(7, owner="Eve"))
    other = encode(["sa_audit/evidence/v1", leaves[0], DESCRIPTOR.encode(), row])
    schema = encode(["sa_audit/evidence/v1", leaves[0], RENAMED.encode(), encoded_row(DESCRIPTOR, history_values(7))])
    another = encode(["sa_audit/evidence/v1", leaves[1], None, None])
    forged = Proof.parse(good)
    stranger = Checkpoint(origin=ORIGIN, size=forged.checkpoint.size, root=forged.checkpoint.root).sign(NEXT)

    def with_extra(extra: bytes) -> str:
        return good.replace(lines[1], f"extra {base64.b64encode(extra).decode()}")

    return [
        ("another row", with_extra(other)),
        ("another schema", with_extra(schema)),
        ("another entry", with_extra(another)),
        ("another index", good.replace("index 0\n", "index 1\n")),
        ("an index beyond the tree", good.replace("index 0\n", "index 12\n")),
        ("two hashes swapped", good.replace(f"{lines[3]}\n{lines[4]}", f"{lines[4]}\n{lines[3]}")),
        ("a hash less", good.replace(lines[3] + "\n", "", 1)),
        ("a checkpoint by another key", good.partition("\n\n")[0] + "\n\n" + stranger.format()),
    ]


def checkpoints() -> dict[str, Any]:
    """Give the vectors of ``checkpoint.md``."""
    unsigned = checkpoint()
    both = unsigned.sign(LOG, NEXT)
    witnessed = unsigned.sign(LOG).cosign(NORTH, time=1_774_994_400).cosign(SOUTH, time=0)
    north, south = witness_verifier(NORTH.verifier), witness_verifier(SOUTH.verifier)
    policy = f"log {LOG.verifier}\nwitness north {north}\nwitness south {south}\ngroup both all north south\n"
    return {
        "keys": {
            "log": str(LOG.verifier),
            "next": str(NEXT.verifier),
            "north": str(north),
            "south": str(south),
        },
        "checkpoints": [
            {"name": "signed", "note": unsigned.sign(LOG).format(), "signed_by": ["log"]},
            {"name": "signed by two keys", "note": both.format(), "signed_by": ["log", "next"]},
            {"name": "cosigned", "note": witnessed.format(), "signed_by": ["log", "north", "south"]},
            {"name": "of no leaves", "note": checkpoint(0).sign(LOG).format(), "signed_by": ["log"]},
        ],
        "policies": [
            {"policy": f"{policy}quorum none\n", "accepts": [0, 1, 2, 3]},
            {"policy": f"{policy}quorum both\n", "accepts": [2]},
            {"policy": f"# the next key\nlog {NEXT.verifier}\nquorum\tnone\n", "accepts": [1]},
        ],
        "refused_notes": [{"why": why, "note": note} for why, note in bad_notes()],
        "refused_keys": [{"why": why, "key": key} for why, key in bad_keys()],
        "refused_signatures": [{"why": why, "note": note} for why, note in bad_signatures()],
        "refused_policies": [{"why": why, "policy": text} for why, text in bad_policies(policy)],
        "proofs": proof_texts(),
    }


def bad_policies(good: str) -> list[tuple[str, str]]:
    """Give texts that are not policies."""
    key = str(LOG.verifier)
    return [
        ("no quorum", good),
        ("two quorums", f"{good}quorum none\nquorum none\n"),
        ("an unknown quorum", f"{good}quorum west\n"),
        ("a quorum before its witness", f"quorum north\n{good}"),
        ("a log twice", f"log {key}\nlog {key}\nquorum none\n"),
        ("a witness's key for a log", f"log {witness_verifier(NORTH.verifier)}\nquorum none\n"),
        ("a log's key for a witness", f"witness n {key}\nquorum n\n"),
        ("a witness called none", f"witness none {witness_verifier(NORTH.verifier)}\nquorum none\n"),
        ("two of one", f"witness w {witness_verifier(NORTH.verifier)}\ngroup g 2 w\nquorum g\n"),
        ("none of one", f"witness w {witness_verifier(NORTH.verifier)}\ngroup g 0 w\nquorum g\n"),
        ("a member of two groups", f"{good}group g any north\nquorum g\n"),
        ("an unknown word", f"trust {key}\nquorum none\n"),
        ("a control character", "quorum none\r\n"),
    ]
