"""The migration that stands in the manual is the one that is generated.

To write it anew: ``SA_AUDIT_WRITE_EXAMPLE=1 pytest tests/migrate/test_example.py``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_audit import Audited
from tests.databases import Database
from tests.migrate.project import Project

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "docs" / "0001_audit.py.txt"


@pytest.mark.only_on("postgresql")
def test_the_manual_shows_what_is_generated(tmp_path: Path, database: Database) -> None:
    """Character by character, but for the date in its head."""

    class Base(DeclarativeBase):
        pass

    class Account(Audited, Base):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str] = mapped_column(sa.String(50))

    project = Project(tmp_path, database.url, Base.metadata)
    shutil.copy(ROOT / "alembic_templates" / "generic" / "script.py.mako", project.directory / "script.py.mako")
    text = re.sub(r"(?m)^Create Date: .*$", "Create Date: 2026-03-31 12:00:00", project.migrate())
    if os.environ.get("SA_AUDIT_WRITE_EXAMPLE"):
        EXAMPLE.write_text(text)
    assert text == EXAMPLE.read_text()
