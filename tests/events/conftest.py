"""A database with the models of these tests."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.standing import Tables

from .models import Base


@pytest.fixture
def shop(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine whose database holds the tables of the models."""
    tables(engine, Base.metadata)
    return engine
