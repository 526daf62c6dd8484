"""Who may make, read, wrap anew and destroy keys of persons; a key can't go without a record of it, whoever tries."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Encrypt, Event
from sa_audit.capture.erasure import rewrap
from sa_audit.catalog.drift import check
from sa_audit.model import Erased, complete, trail_of
from sa_audit.privacy import KeyRing
from tests.databases import Database
from tests.migrate.secured import Secured, roles_of, script, secure

NUMBERS = itertools.count()
OLD, NEW = b"o" * 32, b"n" * 32


def clinic(capture: str, **options: Any) -> Any:
    """Give the base of a model, whose name is encrypted."""

    class Base(DeclarativeBase):
        pass

    settings: dict[str, Any] = {"keys": KeyRing({"2025": OLD}), "capture": capture, "testing": True, **options}
    info = {"sa_audit": Encrypt("id")}

    class Resident(Audited, Base):
        __tablename__ = f"resident_k{next(NUMBERS)}"
        __audit__ = AuditOptions(attempts=capture == "session")

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(40), info=info)

    Base.model = Resident  # type: ignore[attr-defined] # kept alive
    Base.settings = settings  # type: ignore[attr-defined]
    return Base


def called(session: Session, base: Any) -> list[Any]:
    """Give the data of the events."""
    page = sa_audit.trail(session, base=base, action="called")
    return [entry.data for entry in page.entries if isinstance(entry, Event)]


def record(engine: sa.Engine, base: Any) -> None:
    """Write a row and events of two persons, one of them in a transaction of its own."""
    with sa_audit.context(actor="desk:1"), Session(engine) as session:
        session.add(base.model(id=1, name="Ann"))
        session.flush()
        sa_audit.record(session, "called", data={"phone": "1"}, subject=1, base=base)
        sa_audit.record(session, "called", data={"phone": "2"}, subject=2, base=base, durable=True)
        session.commit()


# -- guards ------------------------------------------------------------------------------


REFUSED = {
    "DELETE FROM audit_person_key": "a key is destroyed by erase",
    "UPDATE audit_person_key SET subject = 'x' WHERE subject = '1'": "can be wrapped anew, and no more",
    "UPDATE audit_person_key SET name = 'x' WHERE subject = '1'": "can be wrapped anew, and no more",
    "UPDATE audit_key SET event = 'destroyed'": "append-only",
    "DELETE FROM audit_key": "append-only",
}


def test_a_key_can_not_go_without_a_record(engine: sa.Engine) -> None:
    """Whoever it is: the guards let pass what `erase` and `rewrap` do, and nothing else; the tables are not dropped."""
    base = clinic("session")
    sa_audit.configure(base, **base.settings)
    base.metadata.create_all(engine)
    record(engine, base)
    for statement, message in REFUSED.items():
        with engine.connect() as connection:
            with pytest.raises(sa.exc.DBAPIError, match=message):
                connection.exec_driver_sql(statement)
            connection.rollback()
    with pytest.raises(sa_audit.TrailNotEmpty, match="audit_person_key"):
        base.metadata.tables["audit_person_key"].drop(engine)
    with Session(engine) as session:
        assert called(session, base) == [{"phone": "2"}, {"phone": "1"}] or len(called(session, base)) == 2
        sa_audit.erase(session, 2, base=base)
        session.commit()
        assert sorted(map(repr, called(session, base))) == ["Erased", "{'phone': '1'}"]


@pytest.mark.only_on("postgresql")
def test_truncate_is_refused(engine: sa.Engine) -> None:
    """As for every table of the trail."""
    base = clinic("session")
    sa_audit.configure(base, **base.settings)
    base.metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only: TRUNCATE"):
        connection.exec_driver_sql("TRUNCATE audit_person_key")


def test_replacing_a_key_is_refused(engine: sa.Engine) -> None:
    """A second key of a person, or of the name, does not push the first one out."""
    base = clinic("session")
    sa_audit.configure(base, **base.settings)
    base.metadata.create_all(engine)
    record(engine, base)
    table = base.metadata.tables["audit_person_key"]
    with engine.connect() as connection:
        before = connection.execute(sa.select(table).order_by(table.c.subject)).all()
        word = "INSERT" if engine.dialect.name == "postgresql" else "REPLACE"
        try:
            connection.exec_driver_sql(
                f"{word} INTO audit_person_key (name, subject, wrapped, wrapped_by) VALUES ('x', '1', '', 'x')"
            )
        except sa.exc.DBAPIError:
            connection.rollback()
        assert connection.execute(sa.select(table).order_by(table.c.subject)).all() == before


# -- roles -------------------------------------------------------------------------------


@pytest.fixture(params=["session", "trigger"])
def secured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> Secured:
    """The clinic with roles, migrated by the migrator; the application is a member of the writer alone."""
    base = clinic(request.param)
    place = secure(tmp_path, database, engine, connect_as, base, schema="trail", **base.settings)
    place.project.migrate()
    place.grant_data()
    return place


BY_THE_APPLICATION = {
    "DELETE FROM trail.audit_person_key": "permission denied",
    "UPDATE trail.audit_person_key SET wrapped = ''": "permission denied",
    "TRUNCATE trail.audit_person_key": "permission denied",
    "DROP TABLE trail.audit_person_key": "must be owner",
    "UPDATE trail.audit_key SET event = 'destroyed'": "permission denied",
    "DELETE FROM trail.audit_key": "permission denied",
    "INSERT INTO trail.audit_key (audit_id, audit_tx, audit_at, name, event) VALUES (-1, 1, now(), 'x', 'created')": (
        "permission denied"
    ),
}


@pytest.mark.needs("roles")
@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_the_application_makes_keys_and_destroys_none(
    secured: Secured, database: Database, connect_as: Callable[[sa.URL], sa.Engine]
) -> None:
    """It records for persons, and can't erase; an account of the eraser can, by `erase` alone."""
    engine, base = secured.application, secured.base
    record(engine, base)
    with Session(engine) as session:
        assert sorted(map(repr, called(session, base))) == ["{'phone': '1'}", "{'phone': '2'}"]
        with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
            sa_audit.erase(session, 1, base=base)
    for statement, message in BY_THE_APPLICATION.items():
        with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert message in str(caught.value), statement
    officer = f"{database.role_prefix}officer"
    secured.run(f'CREATE ROLE "{officer}" LOGIN IN ROLE "{secured.roles.eraser}", "{secured.roles.reader}"')
    table = base.model.__tablename__
    secured.run(f'GRANT SELECT ON {table} TO "{officer}"')
    theirs = connect_as(database.url.set(username=officer))
    with pytest.raises(sa.exc.DBAPIError, match="a key is destroyed by erase"), theirs.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trail.audit_person_key")
    with sa_audit.context(actor="officer"), Session(theirs) as session:
        done = sa_audit.erase(session, 1, "asked for", base=base)
        session.commit()
        assert len(done.keys) == 1
        assert sorted(map(repr, called(session, base))) == ["Erased", "{'phone': '2'}"]
        trail = trail_of(base.metadata)
        assert trail is not None
        trail.secrets = None
        object.__setattr__(trail.configuration, "keys", KeyRing({"2026": NEW, "2025": OLD}))
        assert rewrap(session, base=base) == 1
        session.commit()
    with Session(secured.engine) as session:
        rows = session.execute(
            sa.text(
                "SELECT k.event, t.actor FROM trail.audit_key AS k "
                "JOIN trail.audit_transaction AS t ON t.id = k.audit_tx ORDER BY k.audit_id"
            )
        )
        assert [tuple(row) for row in rows][-1] == ("destroyed", "officer")
        assert {repr(data) for data in called(session, base)} >= {repr(Erased)}


@pytest.mark.needs("roles")
@pytest.mark.only_on("postgresql")
def test_the_rights_are_those_that_check_expects(secured: Secured) -> None:
    """Nothing differs after the migration; a right too many or too few is named, and stops the next migration."""
    trail = complete(secured.base.metadata)
    assert trail is not None

    def rights() -> set[tuple[str, str]]:
        with secured.engine.connect() as connection:
            report = check(connection, trail)
        return {(one.kind, one.place) for one in report.drift}

    assert rights() == set()
    secured.project.check()
    with secured.engine.connect() as connection:
        connection.exec_driver_sql(f'SET ROLE "{secured.roles.sealer}"')
        connection.exec_driver_sql("SELECT * FROM trail.audit_key").all()
        with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
            connection.exec_driver_sql("SELECT * FROM trail.audit_person_key")
    app, eraser = secured.names[0], secured.roles.eraser
    secured.run(
        f'GRANT DELETE ON trail.audit_person_key TO "{app}"',
        f'REVOKE UPDATE (wrapped) ON trail.audit_person_key FROM "{eraser}"',
        f'GRANT SELECT ON trail.audit_person_key TO "{secured.roles.sealer}"',
    )
    found = rights()
    assert {("could-change", app), ("missing-right", "trail.audit_person_key")} <= found
    assert ("excess-right", "trail.audit_person_key") in found
    secured.run("ALTER TABLE trail.audit_person_key DISABLE TRIGGER sa_audit_guard_row")
    assert any("guard" in kind or "trigger" in kind for kind, _place in rights() - found)


@pytest.mark.needs("roles")
@pytest.mark.only_on("mariadb")
def test_the_grants_for_mariadb(database: Database, engine: sa.Engine) -> None:
    """With the printed grants alone the application records for persons and erases nobody, unlike the eraser."""
    base, roles = clinic("session"), roles_of(database)
    app, officer = (f"{database.role_prefix}{name}" for name in ("app", "officer"))
    sa_audit.configure(base, roles=roles, **base.settings)
    base.metadata.create_all(engine)
    table = base.model.__tablename__
    run = [
        *(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'secret'" for name in (app, officer)),
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO '{app}'@'%'",
        f"GRANT SELECT ON {table} TO '{officer}'@'%'",
        *(
            line.rstrip(";")
            for line in script(engine, base.metadata, roles, app, None).splitlines()
            if line and not line.startswith("--")
        ),
        f"SET DEFAULT ROLE {roles.writer} FOR '{app}'@'%'",
        f"GRANT {roles.eraser} TO '{officer}'@'%'",
        f"SET DEFAULT ROLE {roles.eraser} FOR '{officer}'@'%'",
    ]
    with engine.begin() as connection:
        for text in run:
            connection.exec_driver_sql(text.replace("%", "%%"))
    engines = [sa.create_engine(database.url.set(username=name, password="secret")) for name in (app, officer)]
    record(engines[0], base)
    with Session(engines[0]) as session, pytest.raises(sa.exc.DBAPIError, match="command denied"):
        sa_audit.erase(session, 1, base=base)
    with sa_audit.context(actor="officer"), Session(engines[1]) as session:
        sa_audit.erase(session, 1, base=base)
        session.commit()
    for one in engines:
        one.dispose()
    with Session(engine) as session:
        assert sorted(map(repr, called(session, base))) == ["Erased", "{'phone': '2'}"]
