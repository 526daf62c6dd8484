"""A wallet's tables that stand from test to test, empty at the start of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.capture.conftest import Standing, _standings, pytest_generate_tests, standing
from tests.privacy import stored_models
from tests.privacy.models import Base

__all__ = ["_standings", "pytest_generate_tests", "standing"]


@pytest.fixture
def wallet(standing: Standing) -> sa.Engine:
    """An engine whose database holds the empty tables of the wallet; the test writes them."""
    engine = standing.make(Base.metadata)
    standing.untouched = False
    return engine


@pytest.fixture
def session(wallet: sa.Engine) -> Iterator[Session]:
    """A session to it."""
    with Session(wallet) as made:
        yield made


@pytest.fixture
def clinic(standing: Standing) -> sa.Engine:
    """An engine whose database holds the empty tables whose columns hold ciphertext and digests."""
    engine = standing.make(stored_models.Base.metadata)
    standing.untouched = False
    return engine
