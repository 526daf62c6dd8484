"""A policy that asks for witnesses: their lines may stand on several copies of a checkpoint."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sa_audit.proof import Checkpoint, Signer
from sa_audit.proof.keys import witness_verifier
from sa_audit.proof.policy import Group, Policy
from sa_audit.verification import Report
from tests.verification.models import amend
from tests.verification.sealed import Sealed

WITNESSES = {name: Signer.generate(f"{name}.example") for name in ("north", "south")}


def policy(sealed: Sealed, threshold: int = 2) -> Policy:
    """Trust the log's key with both witnesses, or one of them."""
    return Policy(
        logs=(sealed.signer.verifier,),
        witnesses={name: witness_verifier(signer.verifier) for name, signer in WITNESSES.items()},
        groups={"both": Group(threshold=threshold, members=tuple(WITNESSES))},
        quorum="both",
    )


def last_note(sealed: Sealed) -> Checkpoint:
    """Give the last checkpoint, as it was written down first."""
    with sealed.engine.connect() as connection:
        text = "SELECT note FROM audit_checkpoint WHERE anchor IS NULL ORDER BY size DESC LIMIT 1"
        return Checkpoint.parse(connection.scalar(sa.text(text)))


def cosign(sealed: Sealed, *names: str) -> Checkpoint:
    """Have witnesses cosign the last checkpoint, each a copy of its own."""
    table = next(each for each in sealed.tables() if each.name == "audit_checkpoint")
    last = last_note(sealed)
    with sealed.engine.begin() as connection:
        for name in names:
            note = last.cosign(WITNESSES[name], time=1_800_000_000).format()
            values = {"size": last.size, "note": note, "anchor": f"witness+https://{name}", "token": note.encode()}
            connection.execute(sa.insert(table), values)
    return last


def verified(sealed: Sealed, threshold: int = 2) -> Report:
    """Verify with the witnesses."""
    return sealed.verify(policy=policy(sealed, threshold), anchored=False)


def test_each_has_cosigned_a_copy(sealed: Sealed) -> None:
    """Together they are the quorum, and the copies without them are no finding."""
    last = cosign(sealed, "north", "south")
    report = verified(sealed)
    assert report.findings == ()
    assert report.checkpoint is not None
    assert report.checkpoint.text == last.text
    assert sealed.verify(policy=policy(sealed)).findings == ()


def test_what_is_not_cosigned_yet(sealed: Sealed) -> None:
    """It does not count: its rows are as those that are not sealed."""
    last = cosign(sealed, "north", "south")
    before = verified(sealed)
    amend(sealed.engine, 5)
    sealed.seal()
    report = verified(sealed)
    assert report.findings == ()
    assert report.checkpoint is not None
    assert report.checkpoint.text == last.text
    assert (report.unsealed, report.checked) == (2, before.checked)
    cosign(sealed, "north", "south")
    assert (verified(sealed).unsealed, verified(sealed).findings) == (0, ())


@pytest.mark.parametrize("names", [(), ("south",)])
def test_too_few(sealed: Sealed, names: tuple[str, ...]) -> None:
    """Found once, and no checkpoint is told to hold; one is enough for who asks for one."""
    last = cosign(sealed, *names)
    report = verified(sealed)
    assert [(each.kind, each.row) for each in report.findings] == [("checkpoint-unsigned", last.size)]
    assert (report.checkpoint, report.sealed_until) == (None, None)
    assert verified(sealed, threshold=1).ok == bool(names)


def test_a_line_that_is_none(sealed: Sealed) -> None:
    """A cosignature that does not verify is found on the copy that has it."""
    last = cosign(sealed, "north", "south")
    sealed.attack(
        "UPDATE audit_checkpoint SET note = replace(note, '— south.example', '— south.example ') "
        "WHERE anchor = 'witness+https://south'"
    )
    kinds = {each.kind for each in verified(sealed).findings}
    assert kinds == {"checkpoint-malformed", "checkpoint-unsigned"}
    assert last.size > 0
