"""Restoring a row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, Conflict, InvalidMoment, NotAudited, context
from sa_audit.query import history, reconcile, restore

from .models import Account, Engineer, Manager, Page, Person, Point, Sample, Secret, membership, setting

pytestmark = pytest.mark.both_captures

Tick = Callable[[], dt.datetime]


def test_update_is_set_back(session: Session, tick: Tick) -> None:
    """The recorded columns are as they were, masked and excluded ones as they are, by one new change."""
    account = Account(id=1, owner="ann", balance=Decimal("1.50"), keys="k", pin="1", seen="a")
    session.add(account)
    session.commit()
    then = tick()
    account.balance, account.keys, account.pin, account.seen = Decimal("9.00"), None, "2", "b"
    session.commit()
    with context(actor="officer:1", reason="mistake"):
        restored = restore(session, Account, 1, then)
        session.commit()
    assert restored is account
    assert (account.balance, account.keys, account.pin, account.seen) == (Decimal("1.50"), "k", "2", "b")
    change = history(session, account)[-1]
    assert (change.operation, change.actor, change.reason) == ("update", "officer:1", "mistake")
    assert dict(change.diff) == {"balance": (Decimal("9.00"), Decimal("1.50")), "keys": (None, "k")}
    assert list(reconcile(session, Account)) == []


def test_pending_changes_are_recorded_first(session: Session, tick: Tick) -> None:
    """What the session had not flushed is recorded as a change of its own, and then set back."""
    account = Account(id=1, owner="ann")
    session.add(account)
    session.commit()
    then = tick()
    account.owner = "bob"
    restore(session, account, None, then)
    session.commit()
    assert [change.diff["owner"] for change in history(session, account)] == [
        (None, "ann"),
        ("ann", "bob"),
        ("bob", "ann"),
    ]


def test_nothing_to_do_records_nothing(session: Session, tick: Tick) -> None:
    """A row that is as it was is not changed."""
    session.add(Account(id=1, owner="ann", balance=Decimal("1.50")))
    session.commit()
    then = tick()
    restore(session, Account, 1, then)
    session.commit()
    assert len(history(session, Account, 1)) == 1


def test_deleted_row_comes_back_in_all_tables(session: Session, tick: Tick) -> None:
    """A joined-inheritance entity is inserted again in all its tables, by one change."""
    session.add(Engineer(id=3, name="bo", skill="c"))
    session.commit()
    then = tick()
    session.get_one(Engineer, 3).skill = "sql"
    session.commit()
    session.delete(session.get_one(Engineer, 3))
    session.commit()
    restored = restore(session, Person, 3, then)
    session.commit()
    assert isinstance(restored, Engineer)
    assert (restored.id, restored.engineer_id, restored.kind, restored.name, restored.skill) == (
        3,
        3,
        "engineer",
        "bo",
        "c",
    )
    assert [change.operation for change in history(session, Person, 3)] == ["insert", "update", "delete", "insert"]
    assert list(reconcile(session, Person)) == []


def test_all_types_come_back(session: Session, tick: Tick) -> None:
    """Values of every type are restored, a composite among them; the database computes its column anew."""
    sample = Sample(
        id=1,
        text="ä",
        blob=b"\0",
        big=2**60,
        number=Decimal("1.100000"),
        day=dt.date(2026, 1, 1),
        flag=True,
        span=dt.timedelta(1),
        data={"a": [1]},
        cents=Decimal("1.25"),
        place=Point(1, 2),
        ratio=0.1,
    )
    session.add(sample)
    session.commit()
    recorded = dict(history(session, sample)[-1].state)
    then = tick()
    for name in ("text", "blob", "big", "number", "day", "flag", "span", "data", "cents", "place", "ratio"):
        setattr(sample, name, None)
    session.commit()
    assert restore(session, Sample, 1, then).place == Point(1, 2)
    session.commit()
    assert dict(history(session, sample)[-1].state) == recorded
    session.delete(sample)
    session.commit()
    assert restore(session, Sample, 1, then).doubled == 2**61
    session.commit()
    assert dict(history(session, Sample, 1)[-1].state) == recorded


def test_version_never_goes_back(session: Session, tick: Tick) -> None:
    """The version counts on, when a row is set back and when it comes back."""
    page = Page(id=1, text="one")
    session.add(page)
    session.commit()
    then = tick()
    page.text = "two"
    session.commit()
    assert restore(session, Page, 1, then).version == 3
    session.commit()
    session.delete(page)
    session.commit()
    assert restore(session, Page, 1, then).version == 4
    session.commit()
    assert session.get_one(Page, 1).text == "one"


def test_a_deferred_column_does_not_split_the_change(engine: sa.Engine) -> None:
    """A column that is loaded while others are set already flushes nothing: the row is set back by one change."""

    class Base(DeclarativeBase):
        pass

    class Report(Audited, Base):
        __tablename__ = "report"
        __table_args__ = (sa.CheckConstraint("low <= high"),)

        id: Mapped[int] = mapped_column(primary_key=True)
        high: Mapped[int]
        text: Mapped[str] = mapped_column(sa.String(40), deferred=True)
        low: Mapped[int]

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Report(id=1, low=1, high=2, text="one"))
        session.commit()
        then = history(session, Report, 1)[0].recorded_at
        report = session.get_one(Report, 1)
        report.low, report.high, report.text = 5, 6, "two"
        session.commit()
        restore(session, Report, 1, then)
        session.commit()
        changes = history(session, Report, 1)
    assert [change.operation for change in changes] == ["insert", "update", "update"]
    assert dict(changes[2].diff) == {"low": (5, 1), "high": (6, 2), "text": ("two", "one")}


def test_plain_and_keyless_tables(session: Session, tick: Tick) -> None:
    """A plain table's row is set back, and comes back; so does a row of a table without primary key."""
    session.execute(sa.insert(setting).values(scope="ui", nom="theme", valeur="dark"))
    session.commit()
    then = tick()
    session.execute(sa.update(setting).values(valeur="light"))
    session.commit()
    assert restore(session, setting, ("ui", "theme"), then)["value"] == "dark"
    session.execute(sa.delete(setting))
    assert restore(session, setting, ("ui", "theme"), then)["value"] == "dark"
    session.commit()
    operations = [change.operation for change in history(session, setting, ("ui", "theme"))]
    assert operations == ["insert", "update", "update", "delete", "insert"]
    assert list(reconcile(session, membership)) == []


def test_what_can_not_be_restored(session: Session, tick: Tick) -> None:
    """A row without a past at that moment, without a needed value, or of another class now, is refused."""
    before = tick()
    session.add_all([Secret(id=1, name="s", pin="1"), Engineer(id=3, name="bo", skill="c")])
    session.commit()
    then = tick()
    session.delete(session.get_one(Secret, 1))
    session.delete(session.get_one(Engineer, 3))
    session.commit()
    gone = tick()
    session.add(Manager(id=3, name="mo", level=1))
    session.commit()
    cases: list[tuple[Any, Any, Any, type[Exception], str]] = [
        (Secret, 1, before, InvalidMoment, "did not exist at .* first recorded at"),
        (Secret, 1, gone, InvalidMoment, "did not exist at .* deleted"),
        (Secret, 9, then, NotAudited, "9 was never recorded"),
        (Engineer, 3, None, InvalidMoment, "None is not a moment"),
        (Secret, 1, then, NotAudited, "column pin is masked"),
        (Person, 3, then, Conflict, "is of class Manager now and was Engineer"),
        (Secret, 1, dt.datetime(2026, 1, 1), InvalidMoment, "offset"),
    ]
    for entity, key, when, error, says in cases:
        with pytest.raises(error, match=says):
            restore(session, entity, key, when)
    session.commit()
    assert len(history(session, Secret, 1)) == 2
