"""Events, attempts and reads of an application whose role owns nothing: recorded, and nothing else is possible."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions
from sa_audit.catalog.drift import check
from sa_audit.model import complete
from tests.databases import Database
from tests.migrate.secured import Secured, roles_of, script, secure

pytestmark = pytest.mark.needs("roles")


NUMBERS = itertools.count()
"""For names of tables that no other test has: text that names one is taken for a read of every model of that name."""


def clinic(capture: str) -> Any:
    """Give the base of a model whose reads, and whose attempts where sessions record, are recorded."""

    class Base(DeclarativeBase):
        pass

    class Resident(Audited, Base):
        __tablename__ = f"resident_{next(NUMBERS)}"
        __audit__ = AuditOptions(reads=True, attempts=capture == "session")

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(40))

    Base.model = Resident  # type: ignore[attr-defined] # kept alive
    return Base


@pytest.fixture(params=["session", "trigger"])
def secured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> Secured:
    """The clinic with roles, migrated by the migrator; the application is a member of the writer alone."""
    place = secure(tmp_path, database, engine, connect_as, clinic(request.param), schema="trail", capture=request.param)
    place.project.migrate()
    place.grant_data()
    place.run(f'REVOKE "{place.roles.reader}" FROM "{place.names[0]}"')
    return place


FORGERIES = {
    "SELECT data FROM trail.audit_event": "permission denied",
    "SELECT table_name FROM trail.audit_access": "permission denied",
    "SELECT identity FROM trail.audit_access_row": "permission denied",
    "SELECT actor FROM trail.audit_transaction": "permission denied",
    "UPDATE trail.audit_event SET action = 'x'": "permission denied",
    "DELETE FROM trail.audit_access": "permission denied",
    "TRUNCATE trail.audit_access_row": "permission denied",
    "DROP TABLE trail.audit_event": "must be owner",
    "INSERT INTO trail.audit_event (audit_id, audit_tx, audit_at, action, durable) VALUES (-1, 1, now(), 'x', 0)": (
        "permission denied"
    ),
    "INSERT INTO trail.audit_event (audit_txid, audit_tx, audit_at, action, durable) VALUES (1, 1, now(), 'x', 0)": (
        "permission denied"
    ),
    "INSERT INTO trail.audit_event (audit_salt, audit_tx, audit_at, action, durable) VALUES ('', 1, now(), 'x', 0)": (
        "permission denied"
    ),
    "INSERT INTO trail.audit_transaction (recorded_at) VALUES ('2020-01-01')": "permission denied",
}
BY_SESSION = {
    "INSERT INTO trail.audit_event (audit_tx, audit_at, action, durable) "
    "SELECT id, recorded_at, 'x', 0 FROM trail.audit_transaction": "does not belong to the current transaction",
    "INSERT INTO trail.audit_access_row (audit_tx, audit_at, access_id, table_name, identity) "
    "SELECT id, recorded_at, 1, 't', '[1]' FROM trail.audit_transaction": "does not belong to the current transaction",
    "INSERT INTO trail.audit_event (audit_tx, audit_at, action, durable) "
    "VALUES (1, '2020-01-01', 'x', 0)": "does not belong to the current transaction",
}
BY_FUNCTIONS = {
    "INSERT INTO trail.audit_event (audit_tx, audit_at, action, durable) VALUES (1, now(), 'x', 0)": (
        "permission denied"
    ),
    "INSERT INTO trail.audit_transaction (actor) VALUES ('x')": "permission denied",
    "SELECT id FROM trail.audit_transaction": "permission denied",
    "SELECT trail.sa_audit_event_v1(1, 1, 'x', NULL, NULL, NULL, NULL, 0::smallint)": (
        "does not belong to the current transaction"
    ),
    "SELECT trail.sa_audit_access_v1(1, 'x', 't', NULL, 's', NULL, 'none', 1)": (
        "does not belong to the current transaction"
    ),
    "SELECT trail.sa_audit_access_rows_v1(1, 1, 't', '[\"[1]\"]')": "does not belong to the current transaction",
    "SELECT trail.sa_audit_entry_v1(false, false)": "permission denied",
}


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_a_role_that_owns_nothing_records_events_and_reads(secured: Secured) -> None:
    """A write, events in the transaction and durable ones, an attempt and a read are recorded; forgery is refused."""
    engine, patient = secured.application, secured.base.model
    captured = secured.base.metadata.info["sa_audit.trail"].captures_all
    with sa_audit.context(actor="desk:1", reason="visit", ward="B"), Session(engine) as session:
        ann = patient(name="Ann")
        session.add(ann)
        session.flush()
        sa_audit.record(session, "patient.admitted", target=ann, data={"bed": 4})
        session.commit()
        sa_audit.record(session, "bell.rung", base=secured.base, durable=True)
        session.rollback()
        assert session.scalars(sa.select(patient).where(patient.name == "Ann")).one() is ann
        ann.name = "Eve"
        session.flush()
        session.rollback()
    with sa_audit.context(actor="desk:2"), Session(engine) as session:
        seen = session.execute(sa.select(patient), execution_options={"yield_per": 10}).scalars()
        assert [one.name for one in seen] == ["Ann"]
    with Session(secured.engine) as session:
        page = sa_audit.trail(session, base=secured.base.metadata)
        told = [
            (entry.actor, getattr(entry, "action", None) or getattr(entry, "operation", "read"))
            for entry in page.entries
        ]
    attempt = [] if captured else [("desk:1", "sa_audit.rolled_back")]
    expected = [("desk:1", "insert"), ("desk:1", "patient.admitted"), ("desk:1", "bell.rung")]
    assert [entry for entry in told if entry[1] != "read"] == [*expected, *attempt]
    assert {entry for entry in told if entry[1] == "read"} >= {("desk:1", "read"), ("desk:2", "read")}
    with Session(secured.engine) as session:
        query = "SELECT DISTINCT db_user FROM trail.audit_transaction WHERE actor LIKE 'desk%'"
        assert session.scalars(sa.text(query)).all() == [secured.names[0]]
        assert {one.actor for one in sa_audit.reads(session, patient, 1)} >= {"desk:1", "desk:2"}
    for statement, message in {**FORGERIES, **(BY_FUNCTIONS if captured else BY_SESSION)}.items():
        with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert message in str(caught.value), statement


@pytest.mark.only_on("postgresql")
def test_the_rights_are_those_that_check_expects(secured: Secured) -> None:
    """Nothing differs after the migration, auditors and sealers only read, and a right too many or too few is named."""
    for role in (secured.roles.reader, secured.roles.sealer):
        with secured.engine.connect() as connection:
            connection.exec_driver_sql(f'SET ROLE "{role}"')
            for table in ("audit_event", "audit_access", "audit_access_row"):
                connection.exec_driver_sql(f"SELECT * FROM trail.{table}").all()
            with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                connection.exec_driver_sql("INSERT INTO trail.audit_event (action) VALUES ('x')")
            connection.rollback()
    trail = complete(secured.base.metadata)
    assert trail is not None

    def rights() -> set[tuple[str, str]]:
        with secured.engine.connect() as connection:
            report = check(connection, trail)
        return {(one.kind, one.place) for one in report.drift}

    assert rights() == set()
    secured.project.check()
    app, writer = secured.names[0], secured.roles.writer
    secured.run(
        f'GRANT SELECT (data) ON trail.audit_event TO "{writer}"', f'GRANT DELETE ON trail.audit_access TO "{app}"'
    )
    if not trail.captures_all:
        secured.run(f'REVOKE INSERT (identity) ON trail.audit_access_row FROM "{writer}"')
    else:
        secured.run(f'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA trail FROM "{writer}"')
    found = rights()
    assert {("excess-right", "trail.audit_event"), ("could-change", app)} <= found
    assert any(kind == "missing-right" for kind, _place in found)


@pytest.mark.only_on("mariadb")
def test_the_grants_for_mariadb_let_reads_be_recorded(database: Database, engine: sa.Engine) -> None:
    """An account with the printed grants alone reads, and what it read is recorded."""
    base, name = clinic("session"), f"{database.role_prefix}app"
    sa_audit.configure(base, roles=roles_of(database))
    base.metadata.create_all(engine)
    printed = script(engine, base.metadata, roles_of(database), name, None).splitlines()
    table = base.model.__tablename__
    run = [
        f"CREATE USER '{name}'@'%' IDENTIFIED BY 'secret'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO '{name}'@'%'",
        *(line.rstrip(";") for line in printed if line and not line.startswith("--")),
        f"SET DEFAULT ROLE {roles_of(database).writer} FOR '{name}'@'%'",
    ]
    with engine.begin() as connection:
        for text in run:
            connection.exec_driver_sql(text.replace("%", "%%"))
    application = sa.create_engine(database.url.set(username=name, password="secret"))
    with sa_audit.context(actor="desk:1"), Session(application) as session:
        session.add(base.model(name="Ann"))
        session.commit()
        assert session.scalars(sa.select(base.model)).one().name == "Ann"
    application.dispose()
    with Session(engine) as session:
        assert "desk:1" in {one.actor for one in sa_audit.reads(session, base.model, 1)}
