"""Generated migrations of tables that triggers record and whose columns hold ciphertext and digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, ConfigurationError, Digest, Encrypt
from sa_audit.adoption import baseline
from sa_audit.privacy import KeyRing
from tests.databases import Database
from tests.migrate.project import Project

CANARY = "Ann-canary"


def make(capture: str | None, **columns: Any) -> Any:
    """Give a model of members, audited where it says how."""

    class Base(DeclarativeBase):
        pass

    if capture is not None:
        sa_audit.configure(Base, capture=capture, keys=KeyRing({"2026": b"k" * 32}), testing=True)
    fields = {"__tablename__": "member", "id": mapped_column(sa.Integer, primary_key=True), **columns}
    notes = {"id": Mapped[int], **dict.fromkeys(columns, Mapped[Any])}
    if capture is not None:
        fields["__audit__"] = AuditOptions(subject="id")
    return type("Member", (Audited, Base) if capture else (Base,), {**fields, "__annotations__": notes})


def name(policy: Any = None) -> Any:
    """Give a column of names."""
    return mapped_column(sa.String(60), nullable=True, info={"sa_audit": policy} if policy else {})


def test_tables_and_columns_are_made(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """A revision makes the text column with its triggers, another adds one, and there is no difference left."""
    model = make("trigger", name=name(Encrypt()))
    project = Project(tmp_path, database.url, model.metadata)
    text = project.revision()
    assert "sa.Column('name', sa.Text()" in text
    project.upgrade()
    project.check()
    with Session(engine) as session:
        session.add(model(id=1, name=CANARY))
        session.commit()
    more = make("trigger", name=name(Encrypt()), code=name(Digest()), nick=name(Encrypt()))
    project.metadata = more.metadata
    assert "sa.Column('code', sa.String(length=128)" in project.revision()
    project.upgrade()
    project.check()
    with Session(engine) as session:
        member = session.get_one(more, 1)
        assert (member.name, member.code, member.nick) == (CANARY, None, None)
        member.nick, member.code = CANARY, CANARY
        session.commit()
        assert sa_audit.history(session, more, 1)[-1].diff["nick"] == (None, CANARY)
        with pytest.raises(sa.exc.DBAPIError, match=r"member\.nick holds encrypted values alone"):
            session.connection().exec_driver_sql(f"UPDATE member SET nick = '{CANARY}'")
    project.downgrade()
    project.upgrade()
    project.check()


@pytest.mark.parametrize(
    ("former", "later"),
    [("session", "trigger"), ("trigger", "session"), (None, "trigger")],
)
def test_values_that_stand_in_another_form(
    database: Database, engine: sa.Engine, tmp_path: Path, former: str | None, later: str
) -> None:
    """To switch capture, and to audit a table that holds values in the clear, is refused by a sentence."""
    project = Project(tmp_path, database.url, make(former, name=name(Encrypt())).metadata)
    project.migrate()
    project.metadata = make(later, name=name(Encrypt())).metadata
    with pytest.raises(ConfigurationError, match=r"and member stands already: .* a migration has no key to make it"):
        project.revision()


def test_a_policy_comes_to_a_captured_column(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """Its values stand in the clear, which no migration can bring into the form."""
    plain = make("trigger", name=name())
    project = Project(tmp_path, database.url, plain.metadata)
    project.migrate()
    with Session(engine) as session:
        session.add(plain(id=1, name=CANARY))
        session.commit()
    model = make("trigger", name=name(Encrypt()))
    project.metadata = model.metadata
    with pytest.raises(ConfigurationError, match="and holds values already, which the migration can't bring"):
        project.revision()


def test_values_in_the_clear_stay_out_of_the_history(database: Database, engine: sa.Engine) -> None:
    """Rows that stood in the clear before the triggers came are neither recorded, carried in, nor changed."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE member (id INTEGER PRIMARY KEY, name TEXT)")
        connection.exec_driver_sql(f"INSERT INTO member (id, name) VALUES (1, '{CANARY}')")
    model = make("trigger", name=name(Encrypt()))
    model.metadata.create_all(engine)
    with pytest.raises(ConfigurationError, match="holds values in the clear"):
        baseline(engine, model, actor="dba")
    for statement in (sa.delete(model), sa.update(model).values(name="Bob")):
        with Session(engine) as session, pytest.raises(sa.exc.DBAPIError, match="holds encrypted values alone"):
            session.execute(statement)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM member_history").all() == []
