"""Retention by generated migrations: the guards give way where a model gets one, and each role can do its part only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.catalog import by_itself
from sa_audit.catalog.drift import check
from sa_audit.model import complete
from tests.databases import Database
from tests.migrate.project import Project
from tests.migrate.secured import Secured, secure

from .models import WHO, Clinic, keep_only
from .models import clinic as declare


def drift(engine: sa.Engine, base: Any) -> list[tuple[str, str]]:
    """Give kind and place of what check finds."""
    trail = complete(base.metadata)
    assert trail is not None
    with by_itself(engine).connect() as connection:
        return [(each.kind, each.place) for each in check(connection, trail).drift]


def test_a_model_gets_a_retention(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """By the next migration: the table, and another guard of its history; before that nothing is pruned, by name."""
    before, base = declare(retention=False), declare()
    project = Project(tmp_path, database.url, before.metadata)
    project.migrate()
    place = Clinic(base, engine, tmp_path)
    Clinic(before, engine, tmp_path).write((1, "Ann"), (1, "Ann Lee"))
    keep_only(base)
    with pytest.raises(sa_audit.CaptureMissing, match="has no audit_prune"):
        place.prune()
    project.metadata = base.metadata
    text = project.migrate()
    assert "audit_prune" in text
    project.downgrade()
    project.upgrade()
    project.check()
    assert drift(engine, base) == []
    place.seal()
    assert place.prune_wholly().erased == 2
    place.seal()
    assert place.verify().findings == ()
    with pytest.raises(sa.exc.DBAPIError, match="audit_prune"):
        project.downgrade()


def test_created_and_migrated_alike(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """A retention from the first migration on: check finds nothing to mend, and what is put out of order is found."""
    base = declare()
    Project(tmp_path, database.url, base.metadata).migrate()
    assert drift(engine, base) == []
    place = Clinic(base, engine, tmp_path)
    trigger = "DROP TRIGGER sa_audit_guard_row ON audit_prune"
    if engine.dialect.name != "postgresql":
        trigger = "DROP TRIGGER audit_prune_guard_delete"
    place.run(trigger)
    assert "audit_prune" in str(drift(engine, base))


@pytest.fixture(params=["session", "trigger"])
def secured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> Secured:
    """The clinic with roles, its trail in a schema of its own, migrated by the migrator."""
    base = declare(configured=False)
    made = secure(tmp_path, database, engine, connect_as, base, schema="trail", capture=request.param)
    made.project.migrate()
    made.grant_data()
    return made


PLACE = "trail.patient_history"
PRUNE = (
    "INSERT INTO trail.audit_prune (leaf, table_name, first_row, last_row, row_count, root, policy, approver, reason, "
    f"request, recorded_before, whole_since) VALUES (1, '{PLACE}', 1, 9, 9, 'x', 'p', 'a', 'r', 1, now(), now())"
)
FORGERIES = {PRUNE: "permission denied", f"DELETE FROM {PLACE}": "permission denied"}


def forge(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the application leave the event by which the owner asks, for a range that is due, as the owner would."""
    data = {"history": PLACE, "ranges": [[1, 1]], "rows": 1, "policy": "p", "before": "2020-01-01T00:00:00+00:00"}
    monkeypatch.setattr("sa_audit.capture.events.OWN_ACTIONS", "nothing.")
    with sa_audit.context(**WHO), Session(secured.application) as session:
        sa_audit.record(session, "sa_audit.prune", data=data, base=secured.base)
        session.commit()
    monkeypatch.undo()


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
@pytest.mark.needs("roles")
def test_each_role_does_its_part(
    secured: Secured,
    tmp_path: Path,
    connect_as: Callable[[sa.URL], sa.Engine],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The owner's member asks and deletes, the sealer grants and can't delete, and the application does neither."""
    sealer = f"{database.role_prefix}sealacc"
    secured.run(f'CREATE ROLE "{sealer}" LOGIN', f'GRANT "{secured.roles.sealer}" TO "{sealer}"')
    base = secured.base
    clinic = Clinic(base, secured.application, tmp_path)
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    keep_only(base)
    for statement, message in FORGERIES.items():
        with pytest.raises(sa.exc.ProgrammingError, match=message), secured.application.begin() as connection:
            connection.exec_driver_sql(statement, execution_options={"sa_audit_internal": True})
    clinic.engine = connect_as(database.url.set(username=sealer))
    clinic.seal()
    forge(secured, monkeypatch)
    clinic.seal()
    assert clinic.seal() is None
    with secured.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM trail.audit_prune")) == 0
    with sa_audit.context(**WHO):
        (asked,) = sa_audit.prune(secured.migrator, metadata=base)
    assert (asked.carried, asked.asked) == (2, 3)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), secured.migrator.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {PLACE}", execution_options={"sa_audit_internal": True})
    clinic.seal()
    for statement in (f"DELETE FROM {PLACE}", "UPDATE trail.audit_prune SET leaf = 0", "DELETE FROM trail.audit_prune"):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            clinic.run(statement)
    with sa_audit.context(**WHO):
        (done,) = sa_audit.prune(secured.migrator, metadata=base)
    assert done.erased == 3
    clinic.seal()
    clinic.engine = secured.engine
    assert clinic.verify().findings == ()
    assert drift(secured.engine, base) == []
    with Session(secured.engine) as session:
        assert sa_audit.history(session, base.patient, 1)[0].operation == "baseline"
