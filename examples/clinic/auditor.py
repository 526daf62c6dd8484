"""What an auditor asks, by one call each."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Access, Reader
from sa_audit.proof import Policy, Proof, Verifier

from .app import chart
from .models import Patient


def who_looked(session: Session, patient: int, since: dt.date, until: dt.date) -> list[Access]:
    """Every access to a chart between two days, with who and for what purpose."""
    return sa_audit.reads(session, Patient, patient, since=since, until=until)


def who_looked_at_too_many(session: Session, number: int = 200) -> list[Reader]:
    """Everyone who read more than so many charts in a day, and on which day."""
    return sa_audit.readers(session, Patient, at_least=number + 1, per="day")


def as_it_was_seen(engine: sa.Engine, access: Access, patient: int) -> dict[str, Any]:
    """The chart as the reader saw it at the moment of an access."""
    with sa_audit.as_of(engine, access.recorded_at) as past:
        return chart(past.get_one(Patient, patient))


def proof_of(session: Session, entry: Any, *, row: int | None = None) -> str:
    """The proof that an access (or that it showed a row), a change, or who made it, stands in the sealed log."""
    return sa_audit.prove(session, entry, row=row).format()


def check(text: str, verifier: Verifier) -> dict[str, Any]:
    """Check a proof with no database; give the recorded values that it shows."""
    proof = Proof.parse(text)
    proof.check(Policy.of(verifier))
    shown = proof.evidence().check()
    if shown is None:
        raise ValueError("the proof shows no row")
    descriptor, row = shown
    return dict(zip([column.name for column in descriptor.columns], row.forms, strict=True))
