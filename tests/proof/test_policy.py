"""Policies: who has to have signed, rotation by overlap, revocation, quorums of witnesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sa_audit.errors import IntegrityFinding, MalformedProof, UnusableKey
from sa_audit.proof import Checkpoint, KeyEntry, KeyHistory, Policy, Signer, leaf_hash, tree_root
from sa_audit.proof.keys import witness_verifier
from sa_audit.proof.policy import Group

NAME = "bank.example/audit"
OLD, NEW = Signer.generate(NAME), Signer.generate(NAME)
WITNESSES = {name: Signer.generate(f"{name}.example") for name in ("north", "south", "east")}
BOTH = Policy.of(OLD.verifier, NEW.verifier)


def checkpoint(size: int, origin: str = NAME) -> Checkpoint:
    """Give an unsigned checkpoint."""
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    return Checkpoint(origin=origin, size=size, root=tree_root(leaves))


def event(kind: str, signer: Signer, size: int, moment: int = 0) -> KeyEntry:
    """Give a key event."""
    return KeyEntry(event=kind, verifier=str(signer.verifier), size=size, moment=moment, reason="")


def counts(keys: KeyHistory, signer: Signer, *sizes: int, vouched: bool = False) -> list[bool]:
    """Tell for each size whether a checkpoint that this key alone has signed is accepted."""
    accepted = []
    for size in sizes:
        try:
            BOTH.check(checkpoint(size).sign(signer), keys=keys, vouched=vouched)
        except IntegrityFinding:
            accepted.append(False)
        else:
            accepted.append(True)
    return accepted


def test_keys_rotate_by_overlap() -> None:
    """The new key counts from where it was added, the old one until it was retired; in between both do."""
    keys = KeyHistory.of([event("add", OLD, 1), event("add", NEW, 5), event("retire", OLD, 8)])
    assert counts(keys, OLD, 1, 4, 5, 7, 8, 9) == [True, True, True, True, False, False]
    assert counts(keys, NEW, 1, 4, 5, 7, 8, 9) == [False, False, True, True, True, True]


def test_a_verifier_that_knows_only_the_old_key_accepts_the_overlap() -> None:
    """Lines of unknown keys are ignored, so nobody has to be told at one moment."""
    signed = checkpoint(6).sign(OLD, NEW)
    assert Policy.of(OLD.verifier).check(signed).logs == (OLD.verifier,)
    assert Policy.of(NEW.verifier).check(signed).logs == (NEW.verifier,)
    assert BOTH.check(signed).logs == (OLD.verifier, NEW.verifier)


def test_a_key_that_the_log_does_not_know_does_not_count() -> None:
    """Even if the policy trusts it."""
    keys = KeyHistory.of([event("add", OLD, 1)])
    with pytest.raises(IntegrityFinding, match="1 by keys that don't count at that size"):
        BOTH.check(checkpoint(3).sign(NEW), keys=keys)


def test_a_revoked_key_counts_only_with_what_the_thief_cannot_make() -> None:
    """Up to the last good size, and then only vouched for; beyond it never."""
    keys = KeyHistory.of([event("add", OLD, 1), event("add", NEW, 5), event("revoke", OLD, 6, moment=1_000_000_000)])
    assert counts(keys, OLD, 4, 6, 7) == [False, False, False]
    assert counts(keys, OLD, 4, 6, 7, vouched=True) == [True, True, False]
    assert counts(keys, NEW, 5, 7) == [True, True]


def test_a_cosignature_from_before_the_theft_vouches() -> None:
    """One from after it does not: the thief can get one of those."""
    keys = KeyHistory.of([event("add", OLD, 1), event("revoke", OLD, 6, moment=1_000_000_000)])
    north = witness_verifier(WITNESSES["north"].verifier)
    policy = Policy(logs=(OLD.verifier,), witnesses={"north": north})
    signed = checkpoint(4).sign(OLD)
    assert policy.check(signed.cosign(WITNESSES["north"], time=999), keys=keys).witnesses == {"north": 999}
    with pytest.raises(IntegrityFinding, match="no signature that counts"):
        policy.check(signed.cosign(WITNESSES["north"], time=1000), keys=keys)


@pytest.mark.parametrize(
    "events",
    [
        [event("retire", OLD, 1)],
        [event("revoke", OLD, 1)],
        [event("add", OLD, 1), event("add", OLD, 2)],
        [event("add", OLD, 5), event("retire", OLD, 4)],
        [event("add", OLD, 1), event("retire", OLD, 4), event("retire", OLD, 6)],
        [event("add", OLD, 1), event("revoke", OLD, 4), event("revoke", OLD, 9)],
    ],
)
def test_events_that_do_not_fit_are_found(events: list[KeyEntry]) -> None:
    """A key is added once, retired after that, never for longer again, and a revocation is not taken back."""
    with pytest.raises(IntegrityFinding, match="does not fit those before it"):
        KeyHistory.of(events)


def test_the_origin_is_the_key_s_name() -> None:
    """A checkpoint of another log is refused, whoever signed it."""
    other = checkpoint(3, "other.example")
    forged = Checkpoint(origin=other.origin, size=3, root=other.root, signatures=checkpoint(3).sign(OLD).signatures)
    with pytest.raises(IntegrityFinding, match="no signature that counts"):
        BOTH.check(forged)


@pytest.mark.parametrize(
    ("cosigners", "accepted"),
    [((), False), (("north",), False), (("north", "south"), False), (("north", "east"), True)],
)
def test_a_quorum_is_counted_through_its_groups(cosigners: tuple[str, ...], accepted: bool) -> None:
    """One of two, and a third."""
    policy = Policy(
        logs=(OLD.verifier,),
        witnesses={name: witness_verifier(signer.verifier) for name, signer in WITNESSES.items()},
        groups={
            "either": Group(threshold=1, members=("north", "south")),
            "all": Group(threshold=2, members=("either", "east")),
        },
        quorum="all",
    )
    assert Policy.parse(policy.format()) == policy
    signed = checkpoint(3).sign(OLD)
    for name in cosigners:
        signed = signed.cosign(WITNESSES[name], time=5)
    if accepted:
        assert set(policy.check(signed).witnesses) == set(cosigners)
    else:
        with pytest.raises(IntegrityFinding, match="lacks cosignatures: expected the quorum 'all'"):
            policy.check(signed)


def test_a_policy_is_loaded_from_what_there_is(tmp_path: Path) -> None:
    """A verifier key or a policy, as text or in a file."""
    key = str(OLD.verifier)
    (tmp_path / "log.vkey").write_text(f"{key}\n")
    (tmp_path / "policy").write_text(f"log {key}\nquorum none\n")
    for source in (key, f"log {key}\nquorum none\n", tmp_path / "log.vkey", str(tmp_path / "policy")):
        assert Policy.load(source) == Policy.of(OLD.verifier)
    for source in (tmp_path / "nowhere", str(tmp_path)):
        with pytest.raises(UnusableKey):
            Policy.load(source)
    (tmp_path / "empty").write_text("")
    with pytest.raises(MalformedProof):
        Policy.load(tmp_path / "empty")


def test_checkpoints_that_say_the_same_are_merged() -> None:
    """Cosignatures come one by one; another text is a split view, which is what a log must never show."""
    signed = checkpoint(3).sign(OLD)
    north, south = (signed.cosign(WITNESSES[name], time=5) for name in ("north", "south"))
    merged = north.merge(south)
    assert [line.name for line in merged.signatures] == [NAME, "north.example", "south.example"]
    assert merged.merge(north) == merged
    with pytest.raises(IntegrityFinding, match="the checkpoints differ"):
        north.merge(checkpoint(4).sign(OLD))


def test_the_printed_form_can_be_compared_by_eye() -> None:
    """Sixteen digits of the digest of the text, the same whoever has cosigned."""
    signed = checkpoint(3).sign(OLD)
    printed = signed.printed()
    assert printed.startswith(signed.format())
    digits = printed.removeprefix(signed.format())
    assert digits == signed.cosign(WITNESSES["north"], time=5).printed().rpartition("\n")[0].rpartition("\n")[2] + "\n"
    assert len(digits.removeprefix("digest: ").replace(" ", "").strip()) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": {"north": Group(threshold=1, members=("south",))}}, "gives a name twice"),
        ({"groups": {"none": Group(threshold=1, members=("south",))}}, "the name none"),
        ({"quorum": "west"}, "the quorum 'west'"),
        ({"groups": {"g": Group(threshold=1, members=("west",))}}, "a member that is unknown or used already"),
        ({"groups": {"g": Group(threshold=2, members=("north",))}}, "asks for 2 of 1"),
        ({"logs": tuple(Signer.generate(f"log{i}").verifier for i in range(65))}, "more than 64 lines of one sort"),
        ({"logs": (OLD.verifier, OLD.verifier)}, "stands twice"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_not_made(changes: dict[str, Any], message: str) -> None:
    """However it comes to be."""
    witnesses = {name: witness_verifier(signer.verifier) for name, signer in WITNESSES.items()}
    given: dict[str, Any] = {"logs": (OLD.verifier,), "witnesses": witnesses}
    with pytest.raises(MalformedProof, match=message):
        Policy(**{**given, **changes})


def test_a_threshold_is_a_number() -> None:
    """Or `all`, or `any`; anything else names its line."""
    witness = witness_verifier(WITNESSES["north"].verifier)
    for word in ("most", "\u0661", "1000"):
        with pytest.raises(MalformedProof, match="line 2 of the policy asks for"):
            Policy.parse(f"witness w {witness}\ngroup g {word} w\nquorum g\n")
