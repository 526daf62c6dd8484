"""The library against the vectors: what must be made so is made so, and what must be refused is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from sa_audit.errors import IntegrityFinding, MalformedProof, Unencodable
from sa_audit.proof import (
    CatalogEntry,
    Checkpoint,
    ConsistencyProof,
    Descriptor,
    Evidence,
    KeyEntry,
    Policy,
    Proof,
    RowEntry,
    SchemaEntry,
    Verifier,
    check_consistency,
    check_inclusion,
    decode_entry,
    decode_row,
    key_commitment,
    leaf_hash,
    tree_root,
)
from sa_audit.proof.blocks import pack_entries, unpack_entries
from sa_audit.proof.cbor import decode, encode
from sa_audit.proof.fingerprint import catalog_entries, facts_of, fingerprint_of, stated
from sa_audit.proof.forms import check_form
from sa_audit.proof.note import Note, SignatureLine
from sa_audit.proof.readable import text_of
from sa_audit.proof.tlog_proof import check_row
from sa_audit.proof.types import RowDigest, SchemaDigest
from tests.proof.vectors import HERE, cases, vectors
from tests.vectors import make

raw = bytes.fromhex


@pytest.mark.parametrize("name", make.FILES)
def test_the_vectors_are_what_the_format_gives_today(name: str) -> None:
    """A change of any format shows as a change of the vectors, which are kept."""
    assert make.text(name) == (HERE / f"{name}.json").read_text(encoding="ascii")


# -- canonical ---------------------------------------------------------------------------


def test_no_two_values_of_a_type_have_one_form() -> None:
    """But those that are equal by the format: -0, 0 and 0.00; 12.5 and 12.50; one instant in two zones."""
    seen: dict[tuple[str, str], list[str]] = {}
    for case in vectors("canonical")["values"]:
        if not case["value"].startswith("as stored: "):
            seen.setdefault((case["type"], case["form"]), []).append(case["value"])
    alike = sorted(sorted(values) for values in seen.values() if len(values) > 1)
    assert alike == [
        ["Decimal('-0')", "Decimal('0')", "Decimal('0.00')"],
        ["Decimal('12.5')", "Decimal('12.50')"],
        [
            "datetime.datetime(2026, 3, 31, 23, 59, 59, 1, tzinfo=datetime.timezone.utc)",
            "datetime.datetime(2026, 4, 1, 5, 29, 59, 1, tzinfo=datetime.timezone(datetime.timedelta(seconds=19800)))",
        ],
    ]


@pytest.mark.parametrize("case", cases("canonical", "values"))
def test_a_form_is_read_back_and_recognised(case: dict[str, str]) -> None:
    """Each form decodes, encodes to the same bytes, and is one of its type."""
    item = decode(raw(case["form"]))
    assert encode(item).hex() == case["form"]
    check_form(case["type"], item)


@pytest.mark.parametrize("case", cases("canonical", "values"))
def test_a_form_has_its_text(case: dict[str, str]) -> None:
    """As it stands in the readable files of a bundle; only NULL has none."""
    text = text_of(case["type"], decode(raw(case["form"])))
    assert text == case["text"]
    assert (text is None) == (case["form"] == "f6")


def test_the_texts_are_those_of_the_format() -> None:
    """Moments, times, dates and arrays, to the letter; what is beyond the calendar is a number."""
    texts = {(case["type"], case["value"]): case["text"] for case in vectors("canonical")["values"]}
    assert texts["date", "as stored: -719162"] == "0001-01-01"
    assert texts["date", "as stored: -719163"] == "-719163"
    assert texts["date", "as stored: 2932896"] == "9999-12-31"
    assert texts["datetime", "as stored: 253402300799999999"] == "9999-12-31T23:59:59.999999"
    assert texts["instant", "as stored: 253402300800000000"] == "253402300800000000"
    assert texts["instant", "as stored: 'Infinity'"] == "Infinity"
    assert texts["instant", "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"] == (
        "1970-01-01T00:00:00.000000Z"
    )
    assert texts["time", "as stored: 86400000000"] == "24:00:00.000000"
    assert texts["timetz", "as stored: [86400000000, -3600]"] == "24:00:00.000000 -3600"
    assert texts["text[]", "['a,b']"] == '[1:1]=("a,b")'
    assert texts["int[]", "[[1, 2], [3, 4]]"] == '[1:2][1:2]=("1","2","3","4")'
    assert texts["float64", "0.1"] == "0.1"
    assert texts["interval", "Interval(months=1, days=-1, microseconds=5)"] == "1 -1 5"


@pytest.mark.parametrize("case", cases("canonical", "refused"))
def test_cbor_in_another_form_is_refused(case: dict[str, str]) -> None:
    """Nothing but the one deterministic encoding of the items that are used is read."""
    with pytest.raises(MalformedProof):
        decode(raw(case["item"]))


@pytest.mark.parametrize("case", cases("canonical", "refused_forms"))
def test_an_item_that_is_no_form_of_its_type_is_refused(case: dict[str, str]) -> None:
    """A number with a trailing zero, a NaN with a payload, an array whose bounds don't fit: none is accepted."""
    with pytest.raises(MalformedProof, match="is not a form of"):
        check_form(case["type"], decode(raw(case["item"])))


@pytest.mark.parametrize("case", cases("canonical", "rows"))
def test_a_row_has_its_digest_and_is_read_back(case: dict[str, str]) -> None:
    """Row and descriptor decode, and the digests are those of their bytes."""
    descriptor = Descriptor.decode(raw(case["descriptor"]))
    row = decode_row(raw(case["row"]), descriptor)
    assert hashlib.sha256(raw(case["row"])).hexdigest() == case["digest"]
    assert row.schema == descriptor.digest
    assert len(row.forms) == len(descriptor.columns)


def test_each_row_has_a_digest_of_its_own() -> None:
    """One ulp, one microsecond, NULL for empty, a salt, a renamed column: each makes another digest."""
    digests = [case["digest"] for case in vectors("canonical")["rows"]]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("case", cases("canonical", "refused_rows"))
def test_a_row_of_another_form_is_refused(case: dict[str, str]) -> None:
    """A row that the descriptor does not fit is none."""
    with pytest.raises(MalformedProof):
        decode_row(raw(case["row"]), Descriptor.decode(raw(case["descriptor"])))


# -- entries -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("entries", "entries"))
def test_an_entry_is_read_back(case: dict[str, str]) -> None:
    """Each kind decodes to what encodes to the same bytes, and has its leaf hash."""
    entry = decode_entry(raw(case["entry"]))
    assert entry.encode().hex() == case["entry"]
    assert leaf_hash(raw(case["entry"])).hex() == case["leaf_hash"]


@pytest.mark.parametrize("case", cases("entries", "refused"))
def test_what_is_no_entry_is_refused(case: dict[str, str]) -> None:
    """Unknown versions and kinds, other items, other lengths: none is an entry."""
    with pytest.raises(MalformedProof):
        decode_entry(raw(case["entry"]))


def test_a_key_is_committed_to() -> None:
    """The commitment is HMAC-SHA256 under the key, over the label and its name."""
    case = vectors("entries")["commitment"]
    assert key_commitment(raw(case["secret"]), case["key"]).hex() == case["commitment"]
    assert key_commitment(raw(case["secret"]), case["key"] + "x").hex() != case["commitment"]


def test_entries_are_packed_with_their_lengths() -> None:
    """A block is an entry bundle of C2SP tlog-tiles."""
    case = vectors("entries")["bundle"]
    entries = [raw(entry) for entry in case["entries"]]
    assert pack_entries(entries).hex() == case["packed"]
    assert unpack_entries(raw(case["packed"])) == entries


def test_the_fingerprint_of_a_catalog() -> None:
    """The root over its entries, which ascend; it is another one without any of them."""
    case = vectors("entries")["catalog"]
    entries = [raw(entry) for entry in case["entries"]]
    assert entries == sorted(entries)
    facts = facts_of([entry for data in entries if isinstance(entry := decode_entry(data), CatalogEntry)])
    assert catalog_entries(dict(reversed(facts.items()))) == entries
    assert fingerprint_of(entries).hex() == case["fingerprint"]
    assert fingerprint_of(entries[:-1]).hex() == case["without the last"]
    assert fingerprint_of([]).hex() == case["empty"]
    assert stated("x" * 32_768) == "x" * 32_768
    assert stated("x" * 32_769) == hashlib.sha256(b"x" * 32_769).digest()


@pytest.mark.parametrize("case", cases("entries", "refused_bundles"))
def test_a_block_that_is_cut_or_has_an_empty_entry_is_refused(case: str) -> None:
    """An end amid an entry, and an entry of no bytes."""
    with pytest.raises(MalformedProof):
        unpack_entries(raw(case))


def test_entries_that_do_not_fit_are_not_packed() -> None:
    """An empty one, one that is too long, too many."""
    for entries in ([b""], [bytes(65_536)], [b"a"] * 65_537):
        with pytest.raises(Unencodable):
            pack_entries(entries)
    with pytest.raises(MalformedProof, match="more than 65536 entries"):
        unpack_entries(b"\x00\x01a" * 65_537)
    assert len(unpack_entries(pack_entries([b"a"] * 65_536))) == 65_536


def test_an_entry_that_breaks_a_rule_is_not_made() -> None:
    """What could not be read is not written."""
    schema, digest = SchemaDigest(bytes(32)), RowDigest(bytes(32))
    for table, row, schema_ in ((0, 1, schema), (1, 1 << 63, schema), (1, 1, SchemaDigest(b""))):
        with pytest.raises(Unencodable, match="is not a RowEntry"):
            RowEntry(table=table, row=row, transaction=None, schema=schema_, digest=digest).encode()
    with pytest.raises(Unencodable, match="an entry at most 65535"):
        KeyEntry(event="add", verifier="x" * 65_536, size=1, moment=0, reason="").encode()


# -- the tree ----------------------------------------------------------------------------


def test_each_size_has_its_root() -> None:
    """Appending gives the root that the definition gives, at every size."""
    case = vectors("merkle")
    leaves = [leaf_hash(raw(leaf)) for leaf in case["leaves"]]
    assert [tree_root(leaves[:size]).hex() for size in range(len(leaves) + 1)] == case["roots"]


@pytest.mark.parametrize("case", cases("merkle", "inclusion"))
def test_a_proof_of_inclusion_holds(case: dict[str, Any]) -> None:
    """As the definition gives it."""
    check_inclusion(case["index"], case["size"], raw(case["leaf_hash"]), [*map(raw, case["path"])], raw(case["root"]))


@pytest.mark.parametrize("case", cases("merkle", "consistency"))
def test_a_proof_of_consistency_holds(case: dict[str, Any]) -> None:
    """As the definition gives it."""
    old_root, new_root = raw(case["old_root"]), raw(case["new_root"])
    check_consistency(case["old"], case["new"], old_root, new_root, [*map(raw, case["path"])])


@pytest.mark.parametrize("case", cases("merkle", "refused_inclusion"))
def test_a_false_proof_of_inclusion_is_refused(case: dict[str, Any]) -> None:
    """Another place, another hash, a hash more or less."""
    with pytest.raises((IntegrityFinding, MalformedProof)):
        check_inclusion(
            case["index"], case["size"], raw(case["leaf_hash"]), [*map(raw, case["path"])], raw(case["root"])
        )


@pytest.mark.parametrize("case", cases("merkle", "refused_consistency"))
def test_a_false_proof_of_consistency_is_refused(case: dict[str, Any]) -> None:
    """Another size, another root, a hash more or less."""
    with pytest.raises((IntegrityFinding, MalformedProof)):
        check_consistency(
            case["old"], case["new"], raw(case["old_root"]), raw(case["new_root"]), [*map(raw, case["path"])]
        )


# -- checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("checkpoint", "checkpoints"))
def test_a_checkpoint_is_read_back_and_checked(case: dict[str, Any]) -> None:
    """It formats to the same text, and every line is by the key that it says."""
    checkpoint = Checkpoint.parse(case["note"])
    assert checkpoint.format() == case["note"]
    verifiers = [Verifier.parse(vectors("checkpoint")["keys"][name]) for name in case["signed_by"]]
    assert len(checkpoint.signatures) == len(verifiers)
    for verifier, line in zip(verifiers, checkpoint.signatures, strict=True):
        verifier.check(checkpoint.text, line)


@pytest.mark.parametrize("case", cases("checkpoint", "policies"))
def test_a_policy_accepts_what_it_names(case: dict[str, Any]) -> None:
    """And nothing else; it formats to a policy that does the same."""
    policy = Policy.parse(case["policy"])
    assert Policy.parse(policy.format()) == policy
    accepted = []
    for number, each in enumerate(vectors("checkpoint")["checkpoints"]):
        try:
            policy.check(Checkpoint.parse(each["note"]))
        except IntegrityFinding:
            continue
        accepted.append(number)
    assert accepted == case["accepts"]


@pytest.mark.parametrize("case", cases("checkpoint", "refused_notes"))
def test_what_is_no_checkpoint_is_refused(case: dict[str, str]) -> None:
    """Another spelling of anything is another text, and none is read."""
    with pytest.raises(MalformedProof):
        Checkpoint.parse(case["note"])


@pytest.mark.parametrize("case", cases("checkpoint", "refused_keys"))
def test_what_is_no_verifier_key_is_refused(case: dict[str, str]) -> None:
    """Nor a key whose id is not its own."""
    with pytest.raises(MalformedProof):
        Verifier.parse(case["key"])


@pytest.mark.parametrize("case", cases("checkpoint", "refused_policies"))
def test_what_is_no_policy_is_refused(case: dict[str, str]) -> None:
    """A policy that can't be meant must not be guessed at."""
    with pytest.raises(MalformedProof):
        Policy.parse(case["policy"])


@pytest.mark.parametrize("case", cases("checkpoint", "refused_signatures"))
def test_a_false_signature_is_refused(case: dict[str, str]) -> None:
    """A flipped bit, another text, another key, a second form of the same signature."""
    policy = Policy.of(Verifier.parse(vectors("checkpoint")["keys"]["log"]))
    with pytest.raises(IntegrityFinding):
        policy.check(Checkpoint.parse(case["note"]))


# -- proofs as text ----------------------------------------------------------------------


def _policy() -> Policy:
    return Policy.of(Verifier.parse(vectors("checkpoint")["keys"]["log"]))


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "inclusion"))
def test_a_proof_as_text_holds(case: str) -> None:
    """It formats to the same text, and proves its own evidence."""
    proof = Proof.parse(case)
    assert proof.format() == case
    proof.check(_policy())
    proof.check(_policy(), proof.evidence().entry)


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "consistency"))
def test_a_consistency_proof_as_text_holds(case: dict[str, str]) -> None:
    """From the checkpoint that is held to a later one."""
    proof = ConsistencyProof.parse(case["proof"])
    assert proof.format() == case["proof"]
    proof.check(_policy(), Checkpoint.parse(case["old_checkpoint"]))


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "malformed"))
def test_what_is_no_proof_is_refused(case: dict[str, str]) -> None:
    """Nothing but the one form is read."""
    with pytest.raises(MalformedProof):
        Proof.parse(case["proof"])


@pytest.mark.parametrize("case", cases("checkpoint", "proofs", "false"))
def test_a_false_proof_is_found(case: dict[str, str]) -> None:
    """Another row, schema, entry, place, path or signature."""
    proof = Proof.parse(case["proof"])
    with pytest.raises((IntegrityFinding, MalformedProof)):
        proof.check(_policy())


def test_the_row_in_a_proof_is_that_of_the_entry() -> None:
    """What the proof shows is the row that was sealed, decoded."""
    evidence = Proof.parse(vectors("checkpoint")["proofs"]["inclusion"][0]).evidence()
    found = evidence.check()
    assert found is not None
    descriptor, row = found
    values = dict(zip((column.name for column in descriptor.columns), row.forms, strict=True))
    assert (values["owner"], values["balance"], values["national_id"]) == ("Ann", "12.5", None)
    assert evidence.row is not None
    assert evidence.descriptor is not None
    entry = decode_entry(evidence.entry)
    assert check_row(entry, evidence.descriptor, evidence.row) == found  # type: ignore[arg-type]  # it is one of a row


def _evidence() -> Evidence:
    return Proof.parse(vectors("checkpoint")["proofs"]["inclusion"][0]).evidence()


def test_a_proof_without_evidence_needs_the_entry() -> None:
    """A proof of another program has no extra data, or its own: the entry is given beside it."""
    proof = Proof.parse(vectors("checkpoint")["proofs"]["inclusion"][0])
    entry = proof.evidence().entry
    bare = Proof.parse(Proof(index=proof.index, path=proof.path, checkpoint=proof.checkpoint).format())
    bare.check(_policy(), entry)
    with pytest.raises(MalformedProof, match="give the entry that it is about"):
        bare.check(_policy())
    with pytest.raises(IntegrityFinding):
        bare.check(_policy(), entry + b"x")


def test_a_row_belongs_to_an_entry_of_a_row() -> None:
    """Not to one of a schema, and not to one of another table."""
    evidence = _evidence()
    assert evidence.descriptor is not None
    assert evidence.row is not None
    schema = Evidence(
        entry=SchemaEntry.of(Descriptor.decode(evidence.descriptor)).encode(),
        descriptor=evidence.descriptor,
        row=evidence.row,
    )
    with pytest.raises(IntegrityFinding, match="its entry is a SchemaEntry"):
        schema.check()
    sealed = decode_entry(evidence.entry)
    assert isinstance(sealed, RowEntry)
    other = replace(sealed, table=4)
    with pytest.raises(IntegrityFinding, match="of another table: expected 4, got 3"):
        check_row(other, evidence.descriptor, evidence.row)


def test_a_consistency_proof_is_from_the_checkpoint_that_is_held() -> None:
    """Not from another size, nor of another log."""
    case = vectors("checkpoint")["proofs"]["consistency"]
    proof, other = ConsistencyProof.parse(case[0]["proof"]), Checkpoint.parse(case[1]["old_checkpoint"])
    stranger = replace(Checkpoint.parse(case[0]["old_checkpoint"]), origin="other.example")
    for held in (other, stranger):
        with pytest.raises(IntegrityFinding, match="is not from the checkpoint that is held"):
            proof.check(_policy(), held)
    with pytest.raises(IntegrityFinding, match="is not the beginning"):
        proof.check(_policy(), replace(Checkpoint.parse(case[0]["old_checkpoint"]), root=other.root))


def test_a_note_that_could_not_be_read_is_not_written() -> None:
    """A line break in an origin would make another checkpoint of it."""
    signature = SignatureLine(name="a", key_id=bytes(4), signature=b"x")
    for text in ("", "no newline", "a\tb\n"):
        with pytest.raises(MalformedProof):
            Note(text=text, signatures=(signature,)).format()
    for lines in (("a\nb",), ("",)):
        with pytest.raises(MalformedProof, match="can't be a line of a checkpoint"):
            Checkpoint(origin="o", size=1, root=leaf_hash(b""), extensions=lines)
