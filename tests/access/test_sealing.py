"""What the library reads by itself to make and check the log, which is nobody's look at the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Access, anchors
from sa_audit.proof import Signer

from .models import Base, Patient

Recorded = Callable[..., list[Access]]


def test_sealing_and_verifying_are_no_reads(clinic: sa.Engine, recorded: Recorded, tmp_path: Path) -> None:
    """A sealer of a model with `reads` comes to rest, since it leaves nothing that has to be sealed again."""
    with sa_audit.context(actor="alice"), Session(clinic) as session:
        session.get_one(Patient, 1)
    signer, state, log = Signer.generate("clinic.example/log"), tmp_path / "state", anchors.open(f"file:{tmp_path}/log")

    def seal() -> object:
        return sa_audit.seal(clinic, signer, state=state, anchors=[log], metadata=Base)

    assert seal() is not None
    assert seal() is None
    report = sa_audit.verify(clinic, signer.verifier, anchors=[log], metadata=Base)
    assert (report.findings, report.unsealed) == ((), 0)
    assert [entry.actor for entry in recorded()] == ["alice"]
