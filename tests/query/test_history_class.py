"""The mapped history class."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, NotAudited, UnauditedWrite
from sa_audit.query import history_class

from .models import Account, Engineer, Plain, setting

pytestmark = pytest.mark.both_captures


def test_select(session: Session) -> None:
    """The model's attributes and the history's own can be selected, filtered and ordered by."""
    account = Account(id=1, owner="ann", balance=Decimal("1.50"), pin="1", seen="x")
    session.add(account)
    session.commit()
    account.balance = Decimal("2.00")
    session.commit()
    past = history_class(Account)
    assert past.__name__ == "AccountHistory"
    assert history_class(Account) is past
    rows = session.scalars(sa.select(past).where(past.owner == "ann").order_by(past.audit_id)).all()
    assert [(row.audit_op, row.balance) for row in rows] == [("I", Decimal("1.50")), ("U", Decimal("2.00"))]
    assert set(rows[1].audit_before) == {"balance"}
    assert rows[0].audit_at.utcoffset() == dt.timedelta(0)
    assert not hasattr(past, "pin")
    assert not hasattr(past, "seen")
    assert session.scalar(sa.select(sa.func.sum(past.balance))) == Decimal("3.50")


def test_inheritance_and_plain_tables(session: Session) -> None:
    """A joined-inheritance class has its own table's history, and a plain table its columns."""
    session.add(Engineer(id=3, name="bo", skill="c"))
    session.execute(sa.insert(setting).values(scope="ui", nom="theme", valeur="dark"))
    session.commit()
    past, settings = history_class(Engineer), history_class(setting)
    assert [(row.engineer_id, row.skill) for row in session.scalars(sa.select(past))] == [(3, "c")]
    assert [(row.name, row.value) for row in session.scalars(sa.select(settings))] == [("theme", "dark")]


def test_attributes_with_any_name() -> None:
    """Attributes named like SQLAlchemy's or the library's own words don't disturb."""

    class OwnBase(DeclarativeBase):
        pass

    class Odd(Audited, OwnBase):
        __tablename__ = "odd"
        id: Mapped[int] = mapped_column(primary_key=True)
        values: Mapped[str | None]
        keys: Mapped[str | None]
        history: Mapped[str | None]
        metadata_: Mapped[str | None] = mapped_column("metadata")
        registry_: Mapped[str | None] = mapped_column("registry")

    past = history_class(Odd)
    columns = set(sa.inspect(past).columns.keys())
    assert {"values", "keys", "history", "metadata_", "registry_", "audit_id", "audit_before"} <= columns
    assert str(sa.select(past.keys)) == "SELECT odd_history.keys \nFROM odd_history"


@pytest.mark.only_on("sqlite")
def test_history_is_not_written(session: Session) -> None:
    """An object of the class can't be inserted, changed or deleted, and an unaudited model has no class."""
    session.add(Account(id=1, owner="ann"))
    session.commit()
    past = history_class(Account)
    session.add(past(id=5, owner="forged", audit_op="I"))
    with pytest.raises(UnauditedWrite, match="nobody writes"):
        session.flush()
    session.rollback()
    session.scalars(sa.select(past)).one().owner = "forged"
    with pytest.raises(UnauditedWrite):
        session.flush()
    session.rollback()
    session.delete(session.scalars(sa.select(past)).one())
    with pytest.raises(UnauditedWrite):
        session.flush()
    session.rollback()
    with pytest.raises(NotAudited, match="Plain is not audited"):
        history_class(Plain)
