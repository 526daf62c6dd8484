"""`check` names the models whose reads are not waited for."""

from __future__ import annotations

import sqlalchemy as sa

from sa_audit.catalog.drift import check
from sa_audit.ddl.backend import backend_for
from sa_audit.model.history import trail_of

from .models import Base


def test_relaxed_reads_are_named(clinic: sa.Engine) -> None:
    """Where the database can commit without waiting; it is a remark, no difference, and bars no level."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    with clinic.connect() as connection:
        report = check(connection, trail)
    found = [finding for finding in report.findings if finding.kind == "relaxed-reads"]
    if backend_for(clinic.dialect).relaxed_setting is None:
        assert found == []
        return
    assert [(finding.place, finding.blocks, finding.drift) for finding in found] == [("visit", None, False)]
