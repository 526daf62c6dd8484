"""A database with a filled clinic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Access
from tests.standing import Tables

from .models import Base, Nurse, Patient, Visit, Ward


def fill(session: Session) -> None:
    """Add three patients, each with a visit, in one ward."""
    ward = Ward(id=1)
    session.add(ward)
    session.add_all(
        Patient(id=i, name=f"n{i}", pin=f"canary{i}", ward=ward, visits=[Visit(number=1, note="x")]) for i in (1, 2, 3)
    )
    session.add(Nurse(id="Ann", shift="day"))
    session.commit()


@pytest.fixture
def clinic(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine whose database holds the clinic."""
    tables(engine, Base.metadata)
    with Session(engine) as session:
        fill(session)
    return engine


@pytest.fixture
def recorded(clinic: sa.Engine) -> Callable[..., list[Access]]:
    """Return a function that gives the reads that are recorded, as another engine's session sees them."""

    def read(**wanted: Any) -> list[Access]:
        with Session(clinic) as session:
            page = sa_audit.trail(session, base=Base, **{"operation": "read", "limit": 1000, **wanted})
        return [entry for entry in page.entries if isinstance(entry, Access) and not entry.statement.endswith("()")]

    return read
