"""History, blame and diff of one row."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, CaptureMissing, InvalidMoment, Masked, NotAudited, context
from sa_audit.query import blame, diff, history, restore, trail

from ..capture.recorded import statements
from .models import Account, Boat, Car, Color, Engineer, Manager, Match, Person, Plain, Point, Sample, Team, setting

pytestmark = pytest.mark.both_captures

Tick = Callable[[], dt.datetime]


def _account(session: Session) -> Account:
    account = Account(id=1, owner="ann", balance=Decimal("1.50"), keys="k", pin="1234", seen="today")
    session.add(account)
    session.commit()
    return account


def test_insert_update_delete(session: Session) -> None:
    """Each change is there, oldest first, with who and why, the diff by attribute names, and the state."""
    with context(actor="teller:1", reason="open", request_id="r-1", branch="north"):
        account = _account(session)
    with context(actor="teller:2", reason="deposit"):
        account.balance = Decimal("2.00")
        account.seen = "later"
        session.commit()
    with context(actor="teller:3"):
        session.delete(account)
        session.commit()

    first, second, third = history(session, Account, 1)
    opened = {"id": 1, "owner": "ann", "balance": Decimal("1.50"), "keys": "k", "pin": Masked}
    assert (first.operation, first.entity, first.identity, first.actor, first.reason) == (
        "insert",
        "Account",
        (1,),
        "teller:1",
        "open",
    )
    assert dict(first.state) == opened
    assert dict(first.diff) == {name: (None, value) for name, value in opened.items()}
    assert first.transaction.context == {"branch": "north"}
    assert first.transaction.request_id == "r-1"
    assert first.recorded_at == first.transaction.recorded_at
    assert first.recorded_at.utcoffset() == dt.timedelta(0)
    assert (second.operation, second.actor) == ("update", "teller:2")
    assert dict(second.diff) == {"balance": (Decimal("1.50"), Decimal("2.00"))}
    assert dict(second.state) == {**opened, "balance": Decimal("2.00")}
    assert (third.operation, third.actor, third.reason) == ("delete", "teller:3", None)
    assert dict(third.state) == dict(second.state)
    assert dict(third.diff) == {name: (value, None) for name, value in second.state.items()}
    assert first.audit_id < second.audit_id < third.audit_id


def test_ways_to_name_a_row(session: Session) -> None:
    """A row can be named by key, tuple, dict of attributes or columns, and by the object."""
    session.add(Team(id=1, name="reds", matches=[Match(number=7, score="0:0")]))
    session.commit()
    match = session.get(Match, (1, 7))
    questions: list[tuple[Any, ...]] = [
        (Match, (1, 7)),
        (Match, [1, 7]),
        (Match, {"number": 7, "team_id": 1}),
        (Match.__table__, {"team_id": 1, "number": 7}),
        (match,),
        (sa.inspect(Match), (1, 7)),
    ]
    for question in questions:
        (change,) = history(session, *question)
        assert change.identity == (1, 7)
        assert change.state["score"] == "0:0"


def test_objects_in_any_state(session: Session, open_session: Callable[[], Session]) -> None:
    """An object that is deleted, detached or expired still names its row."""
    account = _account(session)
    session.delete(account)
    session.flush()
    assert [change.operation for change in history(session, account)] == ["insert", "delete"]
    session.commit()
    assert [change.operation for change in history(open_session(), account)] == ["insert", "delete"]


def test_masked_change_is_named(session: Session) -> None:
    """A change of a masked column shows that it happened, never a value."""
    account = _account(session)
    account.pin = "9999"
    session.commit()
    change = history(session, Account, 1)[-1]
    assert dict(change.diff) == {"pin": (Masked, Masked)}
    assert change.state["pin"] is Masked
    assert "seen" not in change.state


def _sample(*, second: bool) -> dict[str, Any]:
    zone = dt.date(2026, 2, 28) if second else dt.date(1999, 12, 31)
    return {
        "text": "Ä'\"\\ \n%s :x {}" if second else "",
        "color": Color.BLUE if second else Color.RED,
        "uid": uuid.UUID(int=2**127 + 1 if second else 5),
        "blob": b"\x00\xff'" if second else b"",
        "big": -(2**61) - 1 if second else 2**61 + 1,
        "flag": second,
        "number": Decimal("-12345678901234.500000") if second else Decimal("0.000001"),
        "ratio": -1e-300 if second else 0.1,
        "single": 0.25 if second else 0.1,
        "day": zone,
        "clock": dt.time(23, 59, 58) if second else dt.time(0, 0),
        "naive": dt.datetime(2026, 1, 2, 3, 4, 5) if second else dt.datetime(1970, 1, 1),
        "span": dt.timedelta(days=40, seconds=5) if second else dt.timedelta(seconds=1),
        "data": {"b": [1, None, 2.5, "ä"], "a": {}} if second else {},
        "cents": Decimal("-7.25") if second else Decimal("100"),
    }


def test_values_keep_value_and_type(session: Session) -> None:
    """Before and after come back as the ORM loads them: equal, and of the same Python types."""
    for number, way in enumerate([(False, True), (True, False), (True, None), (None, True)], 1):
        _check_values(session, number, way)


def _check_values(session: Session, number: int, way: tuple[bool | None, bool | None]) -> None:
    empty = dict.fromkeys(_sample(second=True))
    before, after = (empty if second is None else _sample(second=second) for second in way)
    place, moved = Point(1, None), Point(2, 3)
    sample = Sample(id=number, place=place, **before)
    session.add(sample)
    session.commit()
    loaded_before = {name: getattr(sample, name) for name in before}
    for name, value in after.items():
        setattr(sample, name, value)
    sample.place = moved
    session.commit()
    loaded_after = {name: getattr(sample, name) for name in after}

    change = history(session, sample)[-1]
    for name in before:
        old, new = change.diff[name]
        assert (old, type(old)) == (loaded_before[name], _plain(loaded_before[name])), name
        assert (new, type(new)) == (loaded_after[name], _plain(loaded_after[name])), name
    assert change.diff["place_x"] == (1, 2)
    assert change.diff["place_y"] == (None, 3)
    assert change.state["doubled"] == (None if after["big"] is None else after["big"] * 2)
    assert [entry.operation for entry in history(session, sample, attribute="place")] == ["insert", "update"]


def _plain(value: Any) -> type[Any]:
    return dict if isinstance(value, dict) else type(value)


def test_json_changed_in_place(session: Session) -> None:
    """The before-value of a mutable is the old one."""
    sample = Sample(id=1, data={"a": 1})
    session.add(sample)
    session.commit()
    assert sample.data is not None
    sample.data["a"] = 2
    session.commit()
    assert history(session, sample)[-1].diff["data"] == ({"a": 1}, {"a": 2})


@pytest.mark.needs("arrays")
def test_arrays_and_aware_datetimes(engine: sa.Engine) -> None:
    """Arrays, arrays of enums, and aware datetimes come back as they are loaded."""

    class OwnBase(DeclarativeBase):
        pass

    class Row(Audited, OwnBase):
        __tablename__ = "row"
        id: Mapped[int] = mapped_column(primary_key=True)
        words: Mapped[list[str] | None] = mapped_column(postgresql.ARRAY(sa.Text))
        colors: Mapped[list[Color] | None] = mapped_column(postgresql.ARRAY(sa.Enum(Color)))
        at: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
        document: Mapped[Any] = mapped_column(postgresql.JSONB)
        span: Mapped[dt.timedelta | None] = mapped_column(postgresql.INTERVAL)

    OwnBase.metadata.create_all(engine)
    first = {
        "words": ["a,b", 'c"d', "", "null"],
        "colors": [Color.RED, Color.BLUE],
        "at": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
        "document": {"x": [1]},
        "span": dt.timedelta(days=3, seconds=1, microseconds=5),
    }
    with Session(engine) as session:
        row = Row(id=1, **first)
        session.add(row)
        session.commit()
        row.words, row.colors, row.at, row.document, row.span = [], [Color.BLUE], None, None, dt.timedelta(seconds=-1)
        session.commit()
        change = history(session, row)[-1]
        assert {name: change.diff[name][0] for name in first} == first
        assert change.diff["at"][1] is None
        assert (change.state["words"], change.state["colors"]) == ([], [Color.BLUE])
        assert change.state["span"] == dt.timedelta(seconds=-1)


@pytest.mark.session_capture("a trigger does not know the flush")
def test_joined_inheritance_is_one_change(session: Session) -> None:
    """A flush that writes several tables of an entity is one change, with the attributes of its class."""
    engineer = Engineer(id=3, name="bo", skill="c")
    session.add_all([engineer, Manager(id=4, name="mo", level=1)])
    session.commit()
    engineer.skill = "rust"
    session.flush()
    engineer.name = "bob"
    engineer.skill = "sql"
    session.commit()
    session.delete(engineer)
    session.commit()
    changes = history(session, Person, 3)
    assert [change.operation for change in changes] == ["insert", "update", "update", "delete"]
    assert {change.entity for change in changes} == {"Engineer"}
    assert dict(changes[0].state) == {"id": 3, "kind": "engineer", "name": "bo", "engineer_id": 3, "skill": "c"}
    assert dict(changes[1].diff) == {"skill": ("c", "rust")}
    assert changes[1].state["name"] == "bo"
    assert dict(changes[2].diff) == {"name": ("bo", "bob"), "skill": ("rust", "sql")}
    assert changes[3].diff["skill"] == ("sql", None)
    assert [dict(change.diff) for change in history(session, Engineer, 3)] == [dict(change.diff) for change in changes]
    (managed,) = history(session, Manager, 4)
    assert dict(managed.state) == {"id": 4, "kind": "manager", "name": "mo", "level": 1}


def test_single_table_inheritance(session: Session) -> None:
    """A row shows the attributes of its own class, not those of its siblings."""
    car = Car(id=1, doors=4)
    session.add_all([car, Boat(id=2, sails=2)])
    session.commit()
    car.doors = None
    session.commit()
    first, second = history(session, car)
    assert dict(first.state) == {"id": 1, "kind": "car", "doors": 4}
    assert (second.entity, dict(second.diff)) == ("Car", {"doors": (4, None)})


def test_plain_table(session: Session) -> None:
    """A plain table's history is keyed by its column names."""
    session.execute(sa.insert(setting).values(scope="ui", nom="theme", valeur="dark"))
    session.execute(sa.update(setting).where(setting.c.nom == "theme").values(valeur="light"))
    session.commit()
    first, second = history(session, setting, ("ui", "theme"))
    assert dict(first.state) == {"scope": "ui", "name": "theme", "value": "dark"}
    assert dict(second.diff) == {"value": ("dark", "light")}
    assert (second.entity, second.table) == ("setting", "setting")


def test_changed_key(session: Session) -> None:
    """A changed key is the delete of the old identity and the insert of the new one."""
    account = _account(session)
    account.id = 2
    session.commit()
    assert [change.operation for change in history(session, Account, 1)] == ["insert", "delete"]
    assert [change.operation for change in history(session, Account, 2)] == ["insert"]


def test_two_lives(session: Session) -> None:
    """A row that is deleted and inserted again under its key has two lives in one history."""
    session.delete(_account(session))
    session.commit()
    _account(session)
    assert [change.operation for change in history(session, Account, 1)] == ["insert", "delete", "insert"]


def test_narrowing(session: Session, tick: Tick) -> None:
    """Bounds include their own moment, a date is a day in UTC, and an attribute leaves out what did not touch it."""
    account = _account(session)
    middle = tick()
    account.keys = "other"
    session.commit()
    account.balance = None
    session.commit()
    everything = history(session, account)
    assert len(everything) == 3
    assert history(session, account, since=middle) == everything[1:]
    assert history(session, account, until=middle) == everything[:1]
    assert history(session, account, since=everything[1].recorded_at, until=everything[1].recorded_at) == [
        everything[1]
    ]
    assert history(session, account, since=middle.isoformat()) == everything[1:]
    day = everything[0].recorded_at.date()
    assert history(session, account, since=day, until=str(everything[2].recorded_at.date())) == everything
    assert history(session, account, until=day - dt.timedelta(days=1)) == []
    assert history(session, account, attribute="keys") == everything[:2]
    assert history(session, account, attribute="pin") == everything[:1]


def test_one_query_however_long_the_history(session: Session, engine: sa.Engine) -> None:
    """The history of a row, its blame and a page of the trail take as many queries for 40 changes as for one."""
    account = _account(session)
    questions: list[Callable[[], Any]] = [
        lambda: history(session, Account, 1),
        lambda: blame(session, Account, 1),
        lambda: trail(session, limit=100).entries,
    ]

    def counted() -> list[int]:
        found = []
        for question in questions:
            with statements(engine) as sent:
                assert question()
            found.append(len(sent))
        return found

    counted()  # what is asked only once
    few = counted()
    for step in range(39):
        account.keys = str(step)
        session.commit()
    assert len(history(session, Account, 1)) == len(trail(session, limit=100).entries) == 40
    assert counted() == few
    assert few[:2] == [1, 1]


def test_uncommitted_is_seen_by_its_own_session_only(session: Session, open_session: Callable[[], Session]) -> None:
    """What is flushed is in the session's own history; what is rolled back never was."""
    account = _account(session)
    account.keys = "other"
    session.flush()
    assert len(history(session, account)) == 2
    session.rollback()
    assert len(history(open_session(), Account, 1)) == 1


def test_blame(session: Session) -> None:
    """Each attribute's present value is traced to the change that gave it, also over two lives."""
    account = _account(session)
    account.keys = "other"
    session.commit()
    account.pin = "9"
    account.balance = None
    session.commit()
    inserted, second, third = history(session, account)
    assert blame(session, account) == {
        "id": inserted,
        "owner": inserted,
        "keys": second,
        "balance": third,
        "pin": third,
    }
    session.delete(account)
    session.commit()
    assert {change.operation for change in blame(session, Account, 1).values()} == {"delete"}
    _account(session)
    assert {change.operation for change in blame(session, Account, 1).values()} == {"insert"}
    assert blame(session, Account, 99) == {}


def test_diff_between_moments(session: Session, tick: Tick) -> None:
    """Only what differs is there; a masked attribute if it was changed; None where there was no row."""
    before = tick()
    account = _account(session)
    first = tick()
    account.keys = "other"
    account.pin = "9"
    session.commit()
    account.balance = Decimal("9.00")
    session.commit()
    account.balance = Decimal("1.50")
    session.commit()
    second = tick()
    session.delete(account)
    session.commit()
    gone = tick()
    assert diff(session, Account, 1, first, second) == {"keys": ("k", "other"), "pin": (Masked, Masked)}
    assert diff(session, Account, 1, second, first) == {"keys": ("other", "k"), "pin": (Masked, Masked)}
    assert diff(session, Account, 1, before, first)["keys"] == (None, "k")
    assert diff(session, Account, 1, second, gone)["keys"] == ("other", None)
    assert diff(session, Account, 1, before, gone) == {}
    assert diff(session, account, None, first, second.isoformat())["keys"] == ("k", "other")


@pytest.mark.needs("snapshots")
def test_diff_between_snapshots(session: Session, open_session: Callable[[], Session]) -> None:
    """A snapshot shows what it saw, whatever the clock says."""
    account = _account(session)
    account.keys = "late"
    session.flush()
    other = open_session()
    snapshot = other.scalar(sa.text("SELECT pg_current_snapshot()::text"))
    other.rollback()
    session.commit()
    later = other.scalar(sa.text("SELECT pg_current_snapshot()::text"))
    assert diff(session, Account, 1, snapshot, later) == {"keys": ("k", "late")}


MOMENT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
QUESTIONS: list[tuple[Callable[[Session], Any], str]] = [
    (lambda s: history(s, Plain, 1), "Plain is not audited"),
    (lambda s: history(s, int, 1), "is not audited"),
    (lambda s: history(s, "Account", 1), "'Account' is not audited"),
    (lambda s: history(s, Account), "give the key"),
    (lambda s: history(s, Account(id=3)), "flush it first"),
    (lambda s: history(s, Match, 1), r"key \(team_id, number\): give 2 value"),
    (
        lambda s: history(s, Account, "forty-two"),
        r"key \(id\): give an integer of at most 64 bits for id, not 'forty-two'",
    ),
    (lambda s: history(s, Account, "1"), "give an integer"),
    (lambda s: history(s, Account, 2**70), "at most 64 bits"),
    (lambda s: diff(s, Match, (1, "7"), MOMENT, MOMENT), "an integer of at most 64 bits for number, not '7'"),
    (lambda s: restore(s, Account, b"1", MOMENT), "give an integer"),
    (lambda s: trail(s, entity=Account, identity="1"), "give an integer"),
    (lambda s: history(s, Match, {"team_id": 1}), r"key \(team_id, number\): give these names"),
    (lambda s: history(s, Account, None), "give the key"),
    (lambda s: history(s, Account, (None,)), "is None"),
    (lambda s: history(s, Account, 1, attribute="seen"), "no recorded attribute 'seen'"),
    (lambda s: history(s, sa.inspect(Account).local_table.metadata.tables["account_history"], 1), "trail itself"),
    (lambda s: history(s.connection(), Account, 1), "is no sqlalchemy.orm.Session"),
    (lambda s: diff(s, Account, 77, dt.datetime.now(dt.UTC), dt.datetime.now(dt.UTC)), "77 was never recorded"),
]


def test_questions_that_have_no_answer(session: Session) -> None:
    """What isn't recorded, and what isn't a key, is refused with the way out."""
    for question, says in QUESTIONS:
        with pytest.raises(NotAudited, match=says):
            question(session)


def test_moments_that_have_no_answer(session: Session) -> None:
    """Naive, unreadable, future and too early moments are refused."""
    _account(session)
    now = dt.datetime.now(dt.UTC)
    for bound in (dt.datetime(2026, 1, 1), "yesterday", 5):
        with pytest.raises(InvalidMoment):
            history(session, Account, 1, since=bound)
        with pytest.raises(InvalidMoment):
            diff(session, Account, 1, bound, now)
    for earlier, later in ((None, now), (now, None)):
        with pytest.raises(InvalidMoment, match="None is not a moment"):
            diff(session, Account, 1, earlier, later)
    with pytest.raises(InvalidMoment, match="future"):
        diff(session, Account, 1, now + dt.timedelta(days=1), now)
    with pytest.raises(InvalidMoment, match="no records as early as"):
        diff(session, Account, 1, now - dt.timedelta(days=9), now)


def test_unknown_key_has_no_history(session: Session) -> None:
    """A key that was never recorded has an empty history."""
    assert history(session, Account, 404) == []


def test_database_without_trail(engine: sa.Engine) -> None:
    """A database without the trail's tables is told from one with an empty trail."""
    Account.__table__.create(engine)
    with Session(engine) as session, pytest.raises(CaptureMissing, match=r"account_history|audit_column"):
        history(session, Account, 1)
