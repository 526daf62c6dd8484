"""The stairway: each revision of a chain is run, undone and run again, and leaves what it left the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sa_audit
from sa_audit import AuditOptions, Mask
from tests.databases import Database
from tests.migrate.project import Project, holds

pytestmark = pytest.mark.wide_on("mariadb")


def stage(number: int) -> sa.MetaData:
    """Give the models after a number of changes."""
    metadata = sa.MetaData()
    columns: list[Any] = [sa.Column("id", sa.Integer, primary_key=True)]
    if number >= 1:
        columns.append(sa.Column("owner", sa.String(80 if number >= 3 else 40), server_default="x"))
    if number >= 2:
        name, hint = ("mail", {"sa_audit.renamed_from": "email"}) if number >= 4 else ("email", {})
        columns.append(sa.Column(name, sa.String(40), info=hint))
    if number >= 5:
        columns.append(sa.Column("pin", sa.String(9), info={"sa_audit": Mask()} if number >= 6 else {}))
    if number >= 7:
        sa_audit.configure(metadata, capture="trigger")
    sa_audit.track(sa.Table("account", metadata, *columns))
    if number >= 8:
        other = sa.Table(
            "entry",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("account_id", sa.ForeignKey("account.id")),
        )
        sa_audit.track(other, options=AuditOptions(history_table="entry_past"))
    return metadata


@pytest.mark.every_server
def test_each_revision_goes_up_down_and_up(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Columns added, widened and renamed, a mask, another way of capture, a further table."""
    project = Project(tmp_path, database.url, stage(0))
    written = []
    for number in range(9):
        project.metadata = stage(number)
        written.append("op." in project.migrate().partition("def upgrade():")[2].partition("def downgrade")[0])
    revisions = [f"{number:04}" for number in range(1, 10)]
    project.downgrade("base")
    for number, revision in enumerate(revisions):
        metadata = stage(number)
        project.upgrade(revision)
        once = holds(engine, metadata)
        project.downgrade(revisions[number - 1] if number else "base")
        project.upgrade(revision)
        assert holds(engine, metadata) == once, revision
    project.check()
    assert written == [True] * 6 + [False] + [True] * 2  # a mask changes nothing under session capture
