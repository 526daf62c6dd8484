"""A database with the models of these tests."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from .models import Base


@pytest.fixture
def shop(engine: sa.Engine) -> sa.Engine:
    """An engine whose database holds the tables of the models."""
    Base.metadata.create_all(engine)
    return engine
