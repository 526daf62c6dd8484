"""A clinic in the test's database."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from .models import Clinic
from .models import clinic as declare


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait long for MariaDB's open writers, who in these tests stay open."""
    monkeypatch.setattr("sa_audit.catalog.horizon.DRAIN", 0.05)


@pytest.fixture
def clinic(engine: sa.Engine, tmp_path: Path, capture: str) -> Clinic:
    """A clinic of the test's own."""
    return Clinic(declare(), engine, tmp_path).create()
