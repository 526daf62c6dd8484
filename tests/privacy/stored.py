"""Rows of the tables that hold ciphertext and digests, and a look at what the database has of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy.orm import Session

from sa_audit.model import trail_of
from tests.privacy.stored_models import Base, Patient

BORN = dt.date(1980, 2, 29)
CANARY = "Ann-canary"
CARD = "4111-canary"


def forget() -> None:
    """Start with no key in memory, like another process."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    trail.secrets = None


def add(session: Session, number: int = 1, name: str = CANARY) -> Patient:
    """Add a patient and commit."""
    patient = Patient(id=number, name=name, born=BORN, room=7, card=CARD, ward="a")
    session.add(patient)
    session.commit()
    return patient


def raw(session: Session, sql: str) -> list[tuple[Any, ...]]:
    """Give rows as the driver does."""
    return [tuple(row) for row in session.connection().exec_driver_sql(sql)]
