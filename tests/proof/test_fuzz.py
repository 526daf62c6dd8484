"""Whatever the parsers are given, nothing but the declared error comes out, and memory stays in bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_audit.errors import IntegrityFinding, MalformedProof
from sa_audit.proof import Checkpoint, ConsistencyProof, Descriptor, Evidence, Policy, Proof, Verifier, decode_entry
from sa_audit.proof.blocks import pack_entries, unpack_entries
from sa_audit.proof.note import parse_note
from tests.proof.vectors import vectors

PROOFS = vectors("checkpoint")["proofs"]
NOTES: list[str] = [case["note"] for case in vectors("checkpoint")["checkpoints"]]
ENTRIES: list[str] = [case["entry"] for case in vectors("entries")["entries"]]

TEXTS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str], list[str]]] = {
    "note": (parse_note, lambda note: note.format(), NOTES),
    "checkpoint": (Checkpoint.parse, lambda checkpoint: checkpoint.format(), NOTES),
    "proof": (Proof.parse, lambda proof: proof.format(), PROOFS["inclusion"]),
    "consistency": (
        ConsistencyProof.parse,
        lambda proof: proof.format(),
        [case["proof"] for case in PROOFS["consistency"]],
    ),
    "verifier": (Verifier.parse, str, list(vectors("checkpoint")["keys"].values())),
}
BYTES: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes], list[bytes]]] = {
    "entry": (decode_entry, lambda entry: entry.encode(), [bytes.fromhex(entry) for entry in ENTRIES]),
    "descriptor": (
        Descriptor.decode,
        lambda descriptor: descriptor.encode(),
        [bytes.fromhex(case["encoded"]) for case in vectors("canonical")["descriptors"]],
    ),
    "evidence": (
        Evidence.decode,
        lambda evidence: evidence.encode(),
        [evidence for text in PROOFS["inclusion"] if (evidence := Proof.parse(text).extra)],
    ),
    "block": (unpack_entries, pack_entries, [pack_entries(bytes.fromhex(entry) for entry in ENTRIES)]),
}


@st.composite
def edited(draw: st.DrawFn, good: str) -> str:
    """Give a text with some places cut, doubled, moved, or overwritten."""
    text = good
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        new = draw(st.sampled_from(["", text[start:end] * 2, "\n", "\n\n", "=", "\u2014 ", "0", "+", " ", "\x00", "é"]))
        text = text[:start] + draw(st.just(new) | st.text(max_size=5)) + text[end:]
    return text


@st.composite
def flipped(draw: st.DrawFn, good: bytes) -> bytes:
    """Give bytes with some flipped, cut or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[place:]
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_read_in_one_form_or_refused(name: str, data: st.DataObject) -> None:
    """What can be read is formatted to the very text; all else raises `MalformedProof`, as text and as bytes."""
    parse, unparse, examples = TEXTS[name]
    text = data.draw(st.sampled_from(examples).flatmap(edited) | st.text())
    try:
        parsed = parse(text)
    except MalformedProof:
        return
    assert unparse(parsed) == text


@settings(max_examples=200, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["note", "checkpoint", "proof", "consistency"])
def test_any_bytes_are_read_as_text_or_refused(name: str, data: st.DataObject) -> None:
    """UTF-8 that is none, and flipped bits."""
    parse: Any = TEXTS[name][0]
    good = data.draw(st.sampled_from(TEXTS[name][2])).encode()
    try:
        parsed = parse(data.draw(flipped(good) | st.binary()))
    except MalformedProof:
        return
    assert TEXTS[name][1](parsed)


@settings(max_examples=300, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", BYTES)
def test_any_bytes_are_read_in_one_encoding_or_refused(name: str, data: st.DataObject) -> None:
    """What can be read is encoded to the very bytes; all else raises `MalformedProof`."""
    parse, unparse, examples = BYTES[name]
    raw = data.draw(st.sampled_from(examples).flatmap(flipped) | st.binary())
    try:
        parsed = parse(raw)
    except MalformedProof:
        return
    assert unparse(parsed) == raw


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_policy_is_read_or_refused(text: str) -> None:
    """A policy that is read means the same when it is written."""
    good = vectors("checkpoint")["policies"][1]["policy"]
    for source in (text, good + text, good.replace("quorum", text)):
        try:
            policy = Policy.parse(source)
        except MalformedProof:
            continue
        assert Policy.parse(policy.format()) == policy


POLICY = Policy.of(Verifier.parse(vectors("checkpoint")["keys"]["log"]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_single_flipped_bit_of_a_checkpoint_is_found_or_refused(data: st.DataObject) -> None:
    """The text, the name, the key id, the signature: there is no bit that may change."""
    good = NOTES[0].encode()
    raw = bytearray(good)
    raw[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedProof, IntegrityFinding)):
        POLICY.check(Checkpoint.parse(bytes(raw)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_single_flipped_bit_of_a_proof_is_found_or_refused(data: st.DataObject) -> None:
    """Row, schema, entry, index, path and checkpoint: there is no bit that may change."""
    good = data.draw(st.sampled_from(PROOFS["inclusion"])).encode()
    raw = bytearray(good)
    raw[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedProof, IntegrityFinding)):
        Proof.parse(bytes(raw)).check(POLICY)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (Checkpoint.parse, "x" * 50_000_000),
        (Checkpoint.parse, "\n" * 200_000),
        (Proof.parse, "c2sp.org/tlog-proof@v1\nindex 0\n" + "A\n" * 500_000 + "\n" + NOTES[0]),
        (ConsistencyProof.parse, "old 1\n" + "A" * 50_000_000),
        (Policy.parse, "#\n" * 10_000_000),
        (Verifier.parse, "x+" * 10_000_000),
    ],
    ids=["long", "newlines", "path", "consistency", "policy", "verifier"],
)
def test_what_is_too_long_takes_no_memory(parse: Callable[[str], Any], text: str) -> None:
    """Lengths are looked at before anything is done with the content."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedProof):
            parse(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("data", [b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff", b"\x81" * 65_000, b"\xc2" * 65_000])
def test_a_claimed_length_takes_no_memory(data: bytes) -> None:
    """An array that claims 2**39 items, arrays in arrays, tags of tags."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedProof):
            decode_entry(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
