"""A database that has its trail already can be described by reflection, and is recorded on."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import check, history_of, ops
from tests.model.test_declaration import new_base


def test_reflected_tables_are_adopted(engine: sa.Engine) -> None:
    """Over a reflected database with its trail, `track` takes the history tables that it finds."""
    base = new_base()

    class Account(Audited, base):
        __tablename__ = "account"

        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str] = mapped_column(sa.String(20))

    base.metadata.create_all(engine)
    with sa_audit.context(actor="alice", branch="Oslo"), Session(engine) as session:
        session.add(Account(id=1, owner="ann"))
        session.commit()
    reflected = sa.MetaData()
    reflected.reflect(engine)
    account = reflected.tables["account"]
    found = reflected.tables["account_history"]
    sa_audit.track(account)
    assert reflected.tables["account_history"] is found is history_of(account)
    assert {name for name, table in reflected.tables.items() if sa_audit.is_trail_table(table)} == {
        "account_history",
        "audit_transaction",
        "audit_column",
        "audit_block",
        "audit_sealed",
        "audit_checkpoint",
        "audit_event",
    }
    reflected.create_all(engine)
    with sa_audit.context(actor="bob"), Session(engine) as session:
        session.execute(sa.update(account).values(owner="bob"))
        session.commit()
        first, second = sa_audit.history(session, account, 1)
    assert (first.actor, dict(first.transaction.context or {})) == ("alice", {"branch": "Oslo"})
    assert first.recorded_at.tzinfo is not None
    assert dict(second.diff) == {"owner": ("ann", "bob")}
    check(engine, reflected)


def test_automap(engine: sa.Engine) -> None:
    """An audited class can stand on an automap base over a database that has its trail."""
    first = new_base()

    class Account(Audited, first):
        __tablename__ = "account"

        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str] = mapped_column(sa.String(20))

    first.metadata.create_all(engine)
    base = automap_base()

    class Reflected(Audited, base):  # type: ignore[misc, valid-type] # automap has no types
        __tablename__ = "account"

    base.prepare(autoload_with=engine)
    with Session(engine) as session:
        session.add(Reflected(id=1, owner="ann"))
        session.commit()
        assert len(sa_audit.history(session, Reflected, 1)) == 1
    assert ops(engine, Account) == "I"
