"""The checker of the standard library, against the same vectors as the library, and by itself."""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_audit.errors import MalformedProof
from sa_audit.proof import form
from sa_audit.proof import standalone as package
from sa_audit.proof.cbor import decode as library_decode
from sa_audit.proof.cbor import encode
from sa_audit.proof.program import PARTS, program
from sa_audit.proof.readable import text_of
from sa_audit.proof.standalone import cbor, ed25519, notes, records, texts, tree, values
from sa_audit.proof.standalone.fault import Bad
from tests.proof.test_canonical import Typed, typed
from tests.proof.vectors import cases, vectors

raw = bytes.fromhex


# -- the file itself ---------------------------------------------------------------------


def test_it_imports_the_standard_library_alone() -> None:
    """And its own parts; so it shares nothing with what it checks."""
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= sys.stdlib_module_names, path
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, path
                assert node.module in PARTS, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module in {"__future__", "typing", "collections.abc"}, path


def test_its_parts_are_joined_to_one_program() -> None:
    """Each part is there, no name is defined twice, and Python 3.9 can read it."""
    parsed = ast.parse(program(), feature_version=(3, 9))
    names = [node.name for node in parsed.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    names += [
        target.id
        for node in parsed.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert len(names) == len(set(names))
    defined = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    assert defined == set(PARTS)
    assert not [node for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom) and node.level]
    for part in PARTS:
        text = (Path(package.__file__).parent / f"{part}.py").read_text(encoding="utf-8")
        assert text.count("\n# -- ") >= 1
        assert text.partition("\n# -- ")[2].encode() in program()


# -- the vectors -------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("canonical", "values"))
def test_a_form_is_recognised(case: dict[str, str]) -> None:
    """Each form of the vectors is one of its type, and has the same text."""
    item = cbor.decode(raw(case["form"]))
    values.check_form(case["type"], item)
    assert values.text(case["type"], item) == case["text"]


@pytest.mark.parametrize("case", cases("canonical", "refused"))
def test_cbor_in_another_form_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        cbor.decode(raw(case["item"]))


@pytest.mark.parametrize("case", cases("canonical", "refused_forms"))
def test_an_item_that_is_no_form_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        values.check_form(case["type"], cbor.decode(raw(case["item"])))


@pytest.mark.parametrize("case", cases("canonical", "rows"))
def test_a_row_is_read(case: dict[str, str]) -> None:
    """Row, descriptor and digest."""
    schema = records.Schema(raw(case["descriptor"]))
    assert len(schema.row(raw(case["row"]))) == len(schema.columns)
    assert hashlib.sha256(raw(case["row"])).hexdigest() == case["digest"]


@pytest.mark.parametrize("case", cases("canonical", "refused_rows"))
def test_what_is_no_row_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        records.Schema(raw(case["descriptor"])).row(raw(case["row"]))


@pytest.mark.parametrize("case", cases("entries", "entries"))
def test_an_entry_is_read(case: dict[str, str]) -> None:
    """Each kind, with its leaf hash."""
    kind, _items = records.decode_entry(raw(case["entry"]))
    assert raw(case["entry"])[2] == kind
    assert tree.leaf_hash(raw(case["entry"])).hex() == case["leaf_hash"]


@pytest.mark.parametrize("case", cases("entries", "refused"))
def test_what_is_no_entry_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        records.decode_entry(raw(case["entry"]))


def test_each_size_has_its_root() -> None:
    """As the definition gives it."""
    case = vectors("merkle")
    leaves = [tree.leaf_hash(raw(leaf)) for leaf in case["leaves"]]
    roots = [tree.root_of(tree.roots_of_subtrees(leaves[:size])).hex() for size in range(len(leaves) + 1)]
    assert roots == case["roots"]


def _inclusion(case: dict[str, Any]) -> None:
    tree.check_inclusion(
        case["index"], case["size"], raw(case["leaf_hash"]), [*map(raw, case["path"])], raw(case["root"])
    )


def _consistency(case: dict[str, Any]) -> None:
    tree.check_consistency(
        case["old"], case["new"], raw(case["old_root"]), raw(case["new_root"]), [*map(raw, case["path"])]
    )


@pytest.mark.parametrize("case", cases("merkle", "inclusion"))
def test_a_proof_of_inclusion_holds(case: dict[str, Any]) -> None:
    """As the definition gives it."""
    _inclusion(case)


@pytest.mark.parametrize("case", cases("merkle", "consistency"))
def test_a_proof_of_consistency_holds(case: dict[str, Any]) -> None:
    """As the definition gives it."""
    _consistency(case)


@pytest.mark.parametrize("case", cases("merkle", "refused_inclusion"))
def test_a_false_proof_of_inclusion_is_refused(case: dict[str, Any]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        _inclusion(case)


@pytest.mark.parametrize("case", cases("merkle", "refused_consistency"))
def test_a_false_proof_of_consistency_is_refused(case: dict[str, Any]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        _consistency(case)


@pytest.mark.parametrize("case", cases("checkpoint", "checkpoints"))
def test_a_checkpoint_is_read_and_checked(case: dict[str, Any]) -> None:
    """By each key that has signed."""
    checkpoint = notes.Checkpoint(case["note"].encode())
    signed = [name for name, key in vectors("checkpoint")["keys"].items() if notes.Key(key).signed(checkpoint)]
    assert signed == case["signed_by"]


@pytest.mark.parametrize("case", cases("checkpoint", "policies"))
def test_a_policy_accepts_what_it_names(case: dict[str, Any]) -> None:
    """And nothing else."""
    policy = notes.Policy(case["policy"])
    accepted = []
    for number, each in enumerate(vectors("checkpoint")["checkpoints"]):
        try:
            policy.check(notes.Checkpoint(each["note"].encode()))
        except Bad:
            continue
        accepted.append(number)
    assert accepted == case["accepts"]


@pytest.mark.parametrize("case", cases("checkpoint", "refused_notes"))
def test_what_is_no_checkpoint_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        notes.Checkpoint(case["note"].encode())


@pytest.mark.parametrize("case", cases("checkpoint", "refused_keys"))
def test_what_is_no_key_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        notes.Key(case["key"])


@pytest.mark.parametrize("case", cases("checkpoint", "refused_policies"))
def test_what_is_no_policy_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        notes.Policy(case["policy"])


def _policy() -> notes.Policy:
    return notes.policy_of(vectors("checkpoint")["keys"]["log"])


@pytest.mark.parametrize("case", cases("checkpoint", "refused_signatures"))
def test_a_false_signature_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        _policy().check(notes.Checkpoint(case["note"].encode()))


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "inclusion"))
def test_a_proof_as_text_holds(case: str) -> None:
    """With its evidence."""
    texts.Proof(case.encode()).check(_policy())


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "consistency"))
def test_a_consistency_proof_as_text_holds(case: dict[str, str]) -> None:
    """From the checkpoint that is held."""
    held = notes.Checkpoint(case["old_checkpoint"].encode())
    texts.Proof(case["proof"].encode(), consistency=True).check_consistency(_policy(), held)


@pytest.mark.parametrize("case", [*cases("checkpoint", "proofs", "malformed"), *cases("checkpoint", "proofs", "false")])
def test_a_proof_that_is_none_or_false_is_refused(case: dict[str, str]) -> None:
    """As the library refuses it."""
    with pytest.raises(Bad):
        texts.Proof(case["proof"].encode()).check(_policy())


# -- against others ----------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_both_decoders_read_the_same(data: bytes) -> None:
    """Whatever bytes they are given."""
    try:
        expected: Any = library_decode(data)
    except MalformedProof:
        with pytest.raises(Bad):
            cbor.decode(data)
        return
    assert encode(cbor.decode(data)) == encode(expected)


@given(typed())
def test_both_write_a_value_alike(value: Typed) -> None:
    """The text in a readable file follows from the form, in either program."""
    item = encode(form(*value))
    assert values.text(value[0], cbor.decode(item)) == text_of(value[0], library_decode(item))


@given(st.lists(typed(), min_size=1))
def test_both_write_an_array_alike(members: list[Typed]) -> None:
    """Elements are quoted fields."""
    name = next((name for name, _value in members if name != "stored"), "int")
    inside = [value for type_, value in members if type_ == name] or [1]
    item = encode(form(f"{name}[]", inside))
    assert values.text(f"{name}[]", cbor.decode(item)) == text_of(f"{name}[]", library_decode(item))


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(), st.integers(0, 511))
def test_ed25519_judges_as_openssl_does(seed: bytes, message: bytes, bit: int) -> None:
    """A signature that `cryptography` made is accepted; one bit of it changed, and it is not."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert ed25519.ed25519(public, message, signature)
    assert not ed25519.ed25519(public, message + b"x", signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not ed25519.ed25519(public, message, bytes(flipped))


@pytest.mark.parametrize(
    ("public", "message", "signature"),
    [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ],
)
def test_ed25519_accepts_the_rfc_s_own(public: str, message: str, signature: str) -> None:
    """RFC 8032, section 7.1, tests 1 and 2."""
    assert ed25519.ed25519(raw(public), raw(message), raw(signature))


@pytest.mark.parametrize("key", ["ff" * 32, "00" * 31 + "80", "ed" + "ff" * 30 + "7f", "02" + "00" * 31])
def test_ed25519_refuses_what_is_no_point(key: str) -> None:
    """A coordinate beyond the field, a negative zero, no square root."""
    assert not ed25519.ed25519(raw(key), b"", bytes(64))
