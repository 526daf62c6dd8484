"""Proofs of reads and events: who, what was read, and that a row was in it, checked with no database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import NotAudited, anchors
from sa_audit.proof import Policy, Proof, Signer

from .models import Base, Patient


@pytest.fixture
def signer(clinic: sa.Engine, tmp_path: Path) -> Signer:
    """A key with which a read of the second chart, of all charts, and an event are sealed."""
    with sa_audit.context(actor="alice", reason="round"), Session(clinic) as session:
        patient = session.get_one(Patient, 2)
        session.scalars(sa.select(Patient)).all()
        sa_audit.record(session, "chart.printed", target=patient)
        session.commit()
    made = Signer.generate("clinic.example/audit")
    anchor = anchors.open(f"file:{tmp_path}/anchor")
    assert sa_audit.seal(clinic, made, state=tmp_path / "state", anchors=[anchor], metadata=Base) is not None
    return made


def proven(session: Session, signer: Signer, entry: Any, row: Any = None) -> tuple[str, dict[str, Any]]:
    """Prove an entry, pass it through its text, check it, and give the table and the values that it shows."""
    text = sa_audit.prove(session, entry, row=row, metadata=Base).format()
    proof = Proof.parse(text)
    proof.check(Policy.of(signer.verifier))
    shown = proof.evidence().check()
    assert shown is not None
    descriptor, values = shown
    return descriptor.name, dict(zip([column.name for column in descriptor.columns], values.forms, strict=True))


def test_a_read(clinic: sa.Engine, signer: Signer) -> None:
    """What was read, by whom, and that a row was shown are three rows of the log, which name each other."""
    with Session(clinic) as session:
        one, many = sa_audit.reads(session, Patient, 2)
        name, access = proven(session, signer, one)
        assert (name.rpartition(".")[2], access["entity"], access["table_name"]) == (
            "audit_access",
            "Patient",
            "patient",
        )
        name, shown = proven(session, signer, one, row=2)
        assert (name.rpartition(".")[2], shown["identity"], shown["access_id"]) == (
            "audit_access_row",
            "[2]",
            one.audit_id,
        )
        name, entry = proven(session, signer, one.transaction)
        assert (entry["actor"], entry["reason"], one.transaction.id) == ("alice", "round", access["audit_tx"])
        assert proven(session, signer, many, row=(3,))[1]["identity"] == "[3]"
        assert proven(session, signer, sa_audit.history(session, Patient, 2)[0])[1]["full_name"] == "n2"


def test_an_event(clinic: sa.Engine, signer: Signer) -> None:
    """It is proven by its own row, and not by the history row of its number."""
    with Session(clinic) as session:
        (event,) = sa_audit.trail(session, action="chart.printed", base=Base).entries
        name, values = proven(session, signer, event)
    assert (name.rpartition(".")[2], values["action"], values["identity"]) == ("audit_event", "chart.printed", "[2]")


def test_a_row_that_was_not_shown(clinic: sa.Engine, signer: Signer) -> None:
    """There is nothing to prove of a row that a read did not show, or that a change did not."""
    with Session(clinic) as session:
        one = sa_audit.reads(session, Patient, 2)[0]
        with pytest.raises(NotAudited, match="not known to have shown the row 3"):
            sa_audit.prove(session, one, row=3, metadata=Base)
        with pytest.raises(NotAudited, match="not known to have shown"):
            sa_audit.prove(session, sa_audit.history(session, Patient, 2)[0], row=2, metadata=Base)
