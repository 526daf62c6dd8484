"""What the tests of anchors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import Running


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Running]:
    """A witness of one log, which runs."""
    with Running(tmp_path).serve() as running:
        yield running
