"""The vectors of ``docs/format/tree.md``: trees, and proofs that hold or don't.

The inputs are those of Certificate Transparency's reference tests; roots and proofs come from the definition itself.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.vectors import rfc6962

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
LEAVES = [bytes.fromhex(text) for text in INPUTS] + [struct.pack(">I", number) for number in range(8, 33)]


def inclusion_case(index: int, size: int) -> dict[str, Any]:
    """Give a proof of inclusion that holds."""
    leaves = LEAVES[:size]
    return {
        "index": index,
        "size": size,
        "leaf_hash": rfc6962.leaf(LEAVES[index]).hex(),
        "root": rfc6962.mth(leaves).hex(),
        "path": [node.hex() for node in rfc6962.path(index, leaves)],
    }


def consistency_case(old: int, new: int) -> dict[str, Any]:
    """Give a proof of consistency that holds."""
    return {
        "old": old,
        "new": new,
        "old_root": rfc6962.mth(LEAVES[:old]).hex(),
        "new_root": rfc6962.mth(LEAVES[:new]).hex(),
        "path": [node.hex() for node in rfc6962.proof(old, LEAVES[:new])],
    }


Case = dict[str, Any]


def flipped(text: str) -> str:
    """Give hexadecimal digits with one bit other than before."""
    raw = bytearray.fromhex(text)
    raw[len(raw) // 2] ^= 0x10
    return raw.hex()


def spoiled(case: Case, roots: tuple[str, ...], numbers: tuple[str, ...]) -> list[tuple[str, Case]]:
    """Give what must not hold, made from what does: the probes of Certificate Transparency's reference tests."""
    zero, steps = "00" * 32, case["path"]
    changes: list[tuple[str, Case]] = []
    for name in numbers:
        changes += [(f"{name} {delta:+}", {name: case[name] + delta}) for delta in (-1, 1, 2)]
        changes += [(f"{name} with bit 16", {name: case[name] ^ (1 << 16)})]
    for name in roots:
        changes += [(f"{name} empty", {name: ""}), (f"{name} of zeros", {name: zero})]
        changes += [(f"{name} with a bit flipped", {name: flipped(case[name])})]
    changes += [
        ("a zero hash in front", {"path": [zero, *steps]}),
        ("a zero hash behind", {"path": [*steps, zero]}),
        ("the root behind", {"path": [*steps, case[roots[-1]]]}),
        ("an empty hash behind", {"path": [*steps, ""]}),
    ]
    if steps:
        changes += [("the last hash gone", {"path": steps[:-1]}), ("the first hash gone", {"path": steps[1:]})]
        changes += [("a hash of 31 bytes", {"path": [steps[0][:-2], *steps[1:]]}), ("no hashes", {"path": []})]
        changes += [
            (f"a bit of hash {i} flipped", {"path": [*steps[:i], flipped(step), *steps[i + 1 :]]})
            for i, step in enumerate(steps)
        ]
    if len(steps) > 1 and steps[0] != steps[1]:
        changes += [("two hashes swapped", {"path": [steps[1], steps[0], *steps[2:]]})]
    return [(why, case | change) for why, change in changes]


def inclusion_holds(case: Case) -> bool:
    """Tell whether a proof leads to its root after all: a tree of another size may have the same shape there."""
    raw = [bytes.fromhex(step) for step in case["path"]]
    root = rfc6962.root_of_path(case["index"], case["size"], bytes.fromhex(case["leaf_hash"]), raw)
    return root is not None and root.hex() == case["root"]


def consistency_holds(case: Case) -> bool:
    """Tell whether a proof leads to both roots after all."""
    raw = [bytes.fromhex(step) for step in case["path"]]
    old, new = bytes.fromhex(case["old_root"]), bytes.fromhex(case["new_root"])
    return rfc6962.is_consistent(case["old"], case["new"], old, new, raw)


def merkle() -> dict[str, Any]:
    """Give the vectors of ``tree.md``."""
    inclusions = [inclusion_case(i, n) for n in (1, 2, 3, 5, 7, 8, 9, 16, 17, 32, 33) for i in range(n)]
    pairs = [(m, n) for n in (1, 2, 3, 6, 7, 8, 9, 16, 17, 32, 33) for m in range(n + 1)]
    consistencies = [consistency_case(m, n) for m, n in pairs]
    probes = [inclusion_case(i, n) for i, n in ((0, 1), (0, 8), (5, 8), (2, 3), (1, 5), (32, 33))]
    probed = [consistency_case(m, n) for m, n in ((1, 1), (1, 8), (6, 8), (2, 5), (8, 8), (5, 7), (32, 33))]
    bad_inclusions = [bad for case in probes for bad in spoiled(case, ("leaf_hash", "root"), ("index", "size"))]
    bad_consistencies = [bad for case in probed for bad in spoiled(case, ("old_root", "new_root"), ("old", "new"))]
    return {
        "leaves": [leaf.hex() for leaf in LEAVES],
        "roots": [rfc6962.mth(LEAVES[:size]).hex() for size in range(len(LEAVES) + 1)],
        "inclusion": inclusions,
        "consistency": consistencies,
        "refused_inclusion": [{"why": why, **bad} for why, bad in bad_inclusions if not inclusion_holds(bad)],
        "refused_consistency": [{"why": why, **bad} for why, bad in bad_consistencies if not consistency_holds(bad)],
    }
