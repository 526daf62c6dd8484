"""A bank with an audited account, a key, a state file and an anchor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sa_audit import anchors
from sa_audit.anchors import FileAnchor
from sa_audit.proof import Checkpoint, Signer
from sa_audit.seal.sealer import Sealer
from tests.standing import Tables

from .bank import ORIGIN, Base


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait long for MariaDB's open writers, who in these tests stay open."""
    monkeypatch.setattr("sa_audit.catalog.horizon.DRAIN", 0.05)


@pytest.fixture
def bank(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine to a database with the models' tables."""
    tables(engine, Base.metadata)
    return engine


@pytest.fixture
def signer() -> Signer:
    """The log's key."""
    return Signer.generate(ORIGIN)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The sealer's state file, which is not there yet."""
    return tmp_path / "sealer.json"


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    """An anchor in a file that is not there yet."""
    made = anchors.open(f"file:{tmp_path}/anchors")
    assert isinstance(made, FileAnchor)
    return made


@pytest.fixture
def seal(bank: sa.Engine, signer: Signer, state: Path, anchor: FileAnchor) -> Callable[..., Checkpoint | None]:
    """Return a function that seals once, with a sealer of its own, as a process of its own would."""

    def seal_once(**options: Any) -> Checkpoint | None:
        given = {"signers": signer, "state": state, "anchors": [FileAnchor(anchor.path)], "metadata": Base}
        return Sealer(bank, **{**given, **options}).seal()

    return seal_once
