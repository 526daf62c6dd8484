"""A migration that changes a trail in use leaves an event in it: upwards and downwards, and where capture stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, Event
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.databases import Database
from tests.migrate.project import Project


def tables(*columns: Any, capture: Any = "session") -> sa.MetaData:
    """Give a MetaData with one audited table of these columns beside its key."""
    metadata = sa.MetaData()
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
    sa_audit.track(sa.Table("account", metadata, key, *columns), AuditOptions(capture=capture))
    return metadata


def owner() -> sa.Column[Any]:
    """Give a text column."""
    return sa.Column("owner", sa.String(50))


def noted(engine: sa.Engine, metadata: sa.MetaData) -> list[tuple[str, str, list[str]]]:
    """Give revision, direction and changes of each event about a migration."""
    with Session(engine) as session:
        page = sa_audit.trail(session, base=metadata, action="sa_audit.changed")
    events = [entry.data for entry in page.entries if isinstance(entry, Event)]
    return [(data["revision"], data["direction"], data["changes"]) for data in events if isinstance(data, dict)]


def use(engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Record something."""
    with engine.begin() as connection, sa_audit.context(actor="alice"):
        connection.execute(sa.insert(metadata.tables["account"]).values(id=1, owner="Ann"))


def test_a_change_of_the_trail_is_recorded(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """With its revision, and so is its downgrade; the event is sealed and verifies."""
    first, second = tables(owner()), tables(owner(), sa.Column("city", sa.String(20)))
    project = Project(tmp_path / "p", database.url, first)
    project.migrate()
    use(engine, first)
    assert noted(engine, first) == []
    project.metadata = second
    project.migrate()
    (up,) = noted(engine, second)
    assert up[1] == "upgrade"
    assert up[0]
    assert any("city" in line for line in up[2])
    project.check()
    project.downgrade("-1")
    assert [one[1] for one in noted(engine, first)] == ["upgrade", "downgrade"]
    signer = Signer.generate("bank.example/audit")
    seal(engine, signer, state=tmp_path / "state", metadata=first)
    assert verify(engine, signer.verifier, metadata=first).findings == ()


@pytest.mark.parametrize("way", [("trigger", "session"), ("session", "trigger")], ids=["stopped", "started"])
def test_capture_that_stops_or_starts_is_recorded(
    database: Database, engine: sa.Engine, tmp_path: Path, way: tuple[str, str]
) -> None:
    """That triggers go, or come, is an entry of the trail before they do."""
    before, after = (tables(owner(), capture=capture) for capture in way)
    project = Project(tmp_path / "p", database.url, before)
    project.migrate()
    use(engine, before)
    project.metadata = after
    project.migrate()
    ((_revision, _direction, changes),) = noted(engine, after)
    word = "lift" if way[0] == "trigger" else "set"
    assert any(line.startswith(word) for line in changes), changes


def test_a_trail_that_nobody_has_used_stays_empty(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """So that what is not in use yet can still be taken back."""
    first, second = tables(owner()), tables(owner(), sa.Column("city", sa.String(20)))
    project = Project(tmp_path / "p", database.url, first)
    project.migrate()
    project.metadata = second
    project.migrate()
    assert noted(engine, second) == []
    project.downgrade("base")
    assert not sa.inspect(engine).has_table("audit_event")


def test_the_text_is_plain_sql(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """The revision names what it does, and holds nothing of the library."""
    first, second = tables(owner()), tables(owner(), sa.Column("it's", sa.String(20)))
    project = Project(tmp_path / "p", database.url, first)
    project.migrate()
    use(engine, first)
    project.metadata = second
    text = project.revision()
    project.upgrade()
    assert "sa_audit.changed" in text
    assert "import sa_audit" not in text
    ((revision, _direction, changes),) = noted(engine, second)
    assert revision in text
    assert any("it's" in line for line in changes), json.dumps(changes)
