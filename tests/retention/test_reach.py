"""After a prune every moment since its cutoff is answered as it was, and every one before is refused."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sa_audit
from sa_audit import Audited, AuditOptions, Retention
from sa_audit.catalog.prunes import granted_reach
from sa_audit.model import complete
from sa_audit.proof import Checkpoint
from sa_audit.query.entity import resolve
from sa_audit.query.history import moments, state_after
from sa_audit.query.pruned import places_of
from sa_audit.query.rows import source_of
from sa_audit.retention import erasing, pruning
from sa_audit.testing import unguarded

from .models import WHO, Clinic, audited_of, keep_days
from .test_prune import record_truncate

DAY = dt.timedelta(days=1)
State = dict[Any, Any]


def age(clinic: Clinic) -> list[dt.datetime]:
    """Have each entry be of a day of its own, the last of yesterday, before anything is sealed; give moments behind."""
    trail = clinic.trail
    entries, columns = trail.transaction, trail.column
    histories = [audited.history for audited in trail.audited.values()]
    options = {"sa_audit_internal": True}
    with clinic.engine.connect() as connection:
        ids = list(connection.scalars(sa.select(entries.c.id).order_by(entries.c.id), execution_options=options))
    start = dt.datetime.now(dt.UTC).replace(microsecond=0) - len(ids) * DAY
    with unguarded(clinic.engine), clinic.engine.begin() as connection:
        connection.execute(sa.update(columns).values(recorded_at=start - DAY), execution_options=options)
        for number, entry in enumerate(ids):
            at = start + number * DAY
            changed = sa.update(entries).where(entries.c.id == entry).values(recorded_at=at)
            connection.execute(changed, execution_options=options)
            for history in histories:
                moved = sa.update(history).where(history.c.audit_tx == entry).values(audit_at=at)
                connection.execute(moved, execution_options=options)
    return [start + number * DAY + DAY / 2 for number in range(len(ids))]


def reach_of(clinic: Clinic) -> dt.datetime:
    """Give from when on the patients can be travelled to."""
    with clinic.engine.connect() as connection:
        found = granted_reach(connection, clinic.trail, places_of(connection, audited_of(clinic.base)))
    assert found is not None
    return found[1].since


def live(clinic: Clinic) -> State:
    """Give the patients that are there."""
    patient = clinic.base.patient.__table__
    with clinic.engine.connect() as connection:
        rows = connection.execute(sa.select(patient.c.id, patient.c.name, patient.c.ward))
        return {row.id: (row.name, row.ward) for row in rows}


def past(clinic: Clinic, when: Any) -> State:
    """Give the patients as of a moment."""
    patient = clinic.base.patient
    with sa_audit.as_of(clinic.engine, when) as session:
        return {each.id: (each.name, each.ward) for each in session.scalars(sa.select(patient))}


def change(clinic: Clinic, chance: random.Random) -> None:
    """Change some patients at random, in one transaction: new ones, other names, other keys, and fewer."""
    patient = clinic.base.patient
    with sa_audit.context(actor="nurse"), Session(clinic.engine) as session:
        for key in chance.sample(range(1, 9), chance.randint(1, 3)):
            known = session.get(patient, key)
            match chance.choice(["update", "update", "delete", "move"]) if known is not None else "insert":
                case "insert":
                    session.add(patient(id=key, name=f"n{chance.randint(1, 99)}"))
                case "update":
                    known.name = chance.choice([None, f"n{chance.randint(1, 99)}"])
                    known.ward = f"w{chance.randint(1, 99)}"
                case "delete":
                    session.delete(known)
                case "move" if session.get(patient, key + 10) is None:
                    known.id = key + 10
            session.flush()
        if not session.scalar(sa.select(sa.func.count()).select_from(patient)):
            session.add(patient(id=9, name="last"))
        session.add(patient(id=1000 + chance.getrandbits(30), name="new"))  # so that there is an entry of it
        session.commit()


def compare(clinic: Clinic, copies: list[tuple[Any, State]], since: dt.datetime) -> tuple[int, int]:
    """Compare the past with copies that were taken; give how many moments were answered, and how many refused."""
    refused = 0
    patient = clinic.base.patient
    for when, copy in copies:
        if when < since:
            with pytest.raises(sa_audit.PrunedHistory, match="were pruned; give a moment from"):
                past(clinic, when)
            refused += 1
            continue
        assert past(clinic, when) == copy, (when, since)
        with Session(clinic.engine) as session:
            for key in (1, 2):
                try:
                    found = sa_audit.diff(session, patient, key, when, when)
                    state = state_after(moments_of(session, patient, key, when))
                except sa_audit.NotAudited:
                    assert key not in copy
                    continue
                assert found == {}
                assert (copy.get(key), bool(state)) == ((state["name"], state["ward"]) if state else None, key in copy)
    return len(copies) - refused, refused


def moments_of(session: Session, patient: Any, key: int, when: dt.datetime) -> Any:
    """Give the changes that a moment sees of a patient, as ``diff`` and ``restore`` read them."""
    subject, identity = resolve(patient, key)
    (changes,) = moments(source_of(session, subject.bind_arguments), subject, identity, when)
    return changes


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_random_histories(clinic: Clinic, seed: int) -> None:
    """Copies of the table at each moment of a random history, and the past since the cutoff of one prune after another.

    Before each prune, when it was asked for, when it was granted, when it was broken off, and when it is done; with a
    patient who is held, and life going on between.
    """
    chance = random.Random(seed)
    states = []
    for _ in range(14):
        change(clinic, chance)
        states.append(live(clinic))
        if chance.random() < 0.08:
            record_truncate(clinic)
            states.append({})
    copies = list(zip(age(clinic), states, strict=True))
    clinic.seal()
    clinic.hold(chance.randint(1, 8))
    first, erased = copies[0][0], 0
    compare(clinic, copies, first)
    for days in (9.2, 5.2, 2.2):
        keep_days(clinic.base, days)
        asked = clinic.prune()
        compare(clinic, copies, first)
        assert asked.asked > 0
        clinic.seal()
        first = reach_of(clinic)
        answered, refused = compare(clinic, copies, first)
        assert answered >= days - 1
        assert refused >= 14 - days - 2
        for _ in range(2):
            erased += clinic.prune(batch=3).erased
        assert compare(clinic, copies, first) == (answered, refused)
        clinic.write((900 + int(days), "since"))
        copies.append((clinic.now(), live(clinic)))
        clinic.seal()
        assert clinic.verify().findings == ()
    assert erased > 5
    with Session(clinic.engine) as session:
        assert list(sa_audit.reconcile(session, clinic.base.patient)) == []


def test_broken_off_between_its_batches(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted by then is not missed, and what was not yet is not seen again."""
    for number in range(4):
        clinic.write((1, f"a{number}"), (2, f"b{number}"), (3 + number, "short"), (3 + number, None))
    states: list[State] = [{} for _ in range(16)]
    moments = age(clinic)
    copies = [(moments[-1], live(clinic))]
    assert len(moments) == len(states)
    clinic.seal()
    keep_days(clinic.base, 0.7)
    clinic.prune()
    clinic.seal()
    original, left = erasing.Erasing._delete, [0]

    def broken(self: Any, parts: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, parts)

    monkeypatch.setattr(erasing.Erasing, "_delete", broken)
    for batches in (1, 2, 1):
        left[0] = batches
        with pytest.raises(KeyboardInterrupt):
            clinic.prune(batch=2)
        assert compare(clinic, copies, reach_of(clinic)) == (1, 0)
        assert past(clinic, clinic.now()) == copies[0][1]


def test_exact_moments_since_the_cutoff(clinic: Clinic) -> None:
    """A checkpoint from before the cutoff is refused; one from since, though long before the prune, is answered."""
    clinic.write((1, "Ann"), (2, "Bob"), (3, "Cid"), (3, None))
    old = clinic.seal()
    clinic.write((1, "Ann Lee"), (4, "Dan"))
    between, copy = clinic.seal(), live(clinic)
    cutoff = clinic.now()
    clinic.write((1, "Ann Mo"), (4, None), (5, "Eve"))
    latest, now = clinic.seal(), live(clinic)
    clinic.prune_at(cutoff)
    assert isinstance(old, Checkpoint)
    assert past(clinic, between) == copy
    assert past(clinic, latest) == now
    with pytest.raises(sa_audit.PrunedHistory):
        past(clinic, old)
    assert clinic.verify().findings == ()


def test_the_state_at_the_cutoff_stays(clinic: Clinic) -> None:
    """Of what changed since the last row from before stays, and of what did not the row that was carried forward."""
    clinic.write((1, "Ann"), (1, "Ann Lee"), (2, "Bob"), (2, "Rob"), (3, "Cid"), (3, None), (4, "Dan"))
    cutoff = clinic.now()
    clinic.write((1, "Ann Mo"), (4, None))
    clinic.seal()
    clinic.prune_at(cutoff)
    assert clinic.rows() == [
        (1, "U", "Ann Lee"),
        (4, "I", "Dan"),
        (1, "U", "Ann Mo"),
        (4, "D", "Dan"),
        (2, "B", "Rob"),
    ]
    assert clinic.names(cutoff) == {1: "Ann Lee", 2: "Rob", 4: "Dan"}
    with Session(clinic.engine) as session:
        patient = clinic.base.patient
        assert sa_audit.diff(session, patient, 2, cutoff, clinic.now()) == {}
        assert sa_audit.diff(session, patient, 1, cutoff, clinic.now()) == {"name": ("Ann Lee", "Ann Mo")}
        with sa_audit.context(**WHO):
            assert sa_audit.restore(session, patient, 4, cutoff).name == "Dan"
    kept = clinic.history
    with unguarded(clinic.engine), clinic.engine.begin() as connection:
        erase = sa.delete(kept).where(kept.c.id == 1, kept.c.name == "Ann Lee")
        connection.execute(erase, execution_options={"sa_audit_internal": True})
    assert ("row-missing", kept.name) in clinic.kinds()


def test_what_was_pruned_before_requests_said_what_they_leave(clinic: Clinic) -> None:
    """Such a prune took what was there at its cutoff: moments before its request are refused, also after later ones."""
    clinic.write((1, "Ann"), (2, "Bob"))
    cutoff = clinic.now()
    clinic.write((2, "Rob"))
    clinic.seal()
    between = clinic.now()
    prune = pruning._Run._ask
    trail = clinic.trail

    def as_before(self: Any, found: Any) -> None:
        prune(self, found)
        options = {"sa_audit_internal": True}
        with unguarded(clinic.engine), clinic.engine.begin() as connection:
            data = dict(connection.scalar(sa.select(trail.event.c.data), execution_options=options))
            del data["reach"]
            connection.execute(sa.update(trail.event).values(data=data), execution_options=options)
            carried = sa.update(clinic.history).where(clinic.history.c.audit_op == "B").values(audit_flush=1)
            connection.execute(carried, execution_options=options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning._Run, "_ask", as_before)
        patch.setattr("sa_audit.retention.planning.is_needed", lambda *_: sa.false())
        clinic.prune_at(cutoff)
    after = clinic.now()
    for when in (cutoff, between):
        with pytest.raises(sa_audit.PrunedHistory, match="were pruned"):
            past(clinic, when)
    assert clinic.names(after) == {1: "Ann", 2: "Rob"}
    clinic.write((1, "Ann Lee"))
    clinic.seal()
    clinic.prune_at(between)
    for when in (cutoff, between):
        with pytest.raises(sa_audit.PrunedHistory, match="were pruned"):
            past(clinic, when)
    assert clinic.names(after) == {1: "Ann", 2: "Rob"}
    assert {each for each in clinic.kinds() if each[0] != "guard-touched"} == set()


def stays(*, retention: Retention) -> Any:
    """Give the base of guests and rooms, whose association has a retention of its own, and a hierarchy."""

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, testing=True)
    options = AuditOptions(retention=retention)
    stay = sa.Table(
        "stay",
        Base.metadata,
        sa.Column("guest_id", sa.ForeignKey("guest.id"), primary_key=True),
        sa.Column("room_id", sa.ForeignKey("room.id"), primary_key=True),
    )
    sa_audit.track(stay, options)

    class Room(Audited, Base):
        __tablename__ = "room"
        __audit__ = options

        id: Mapped[int] = mapped_column(primary_key=True)

    class Guest(Audited, Base):
        __tablename__ = "guest"
        __audit__ = options

        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.String(10))
        rooms: Mapped[list[Room]] = relationship(secondary=stay, order_by=Room.id)
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "guest"}

    class Member(Guest):
        __tablename__ = "member"
        __audit__ = options

        id: Mapped[int] = mapped_column(sa.ForeignKey("guest.id"), primary_key=True)
        points: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "member"}

    kept: Any = Base
    kept.patient, kept.room, kept.member = Guest, Room, Member
    return Base


def test_associations_and_hierarchies(engine: sa.Engine, tmp_path: Path) -> None:
    """Links and rows of joined tables are answered since the cutoff as they were, each table by its own prune."""
    clinic = Clinic(stays(retention=Retention(keep=730 * DAY)), engine, tmp_path).create()
    base = clinic.base

    def write(work: Callable[[Session], None]) -> State:
        with sa_audit.context(actor="desk"), Session(engine) as session:
            work(session)
            session.commit()
            return seen(session)

    def seen(session: Session) -> State:
        return {
            member.id: (member.points, [room.id for room in member.rooms])
            for member in session.scalars(sa.select(base.member))
        }

    def begin(session: Session) -> None:
        session.add_all([base.room(id=1), base.room(id=2), base.member(id=1, points=5), base.member(id=2, points=7)])
        session.flush()
        first, second = (session.get_one(base.member, key) for key in (1, 2))
        first.rooms.append(session.get_one(base.room, 1))
        second.rooms.extend([session.get_one(base.room, 1), session.get_one(base.room, 2)])

    def move(session: Session) -> None:
        first, second = (session.get_one(base.member, key) for key in (1, 2))
        first.rooms, second.points = [session.get_one(base.room, 2)], 8

    def leave(session: Session) -> None:
        first, second = (session.get_one(base.member, key) for key in (1, 2))
        session.delete(first)
        second.rooms = []

    states = [write(begin), write(move), write(leave)]
    copies = list(zip(age(clinic), states, strict=True))
    clinic.seal()
    keep_days(clinic.base, 1.7)
    for _ in range(2):
        with sa_audit.context(**WHO):
            done = sa_audit.prune(engine, metadata=base)
        clinic.seal()
    assert sum(one.erased for one in done) > 0
    for when, copy in copies[1:]:
        with sa_audit.as_of(engine, when) as session:
            assert seen(session) == copy
    with pytest.raises(sa_audit.PrunedHistory), sa_audit.as_of(engine, copies[0][0]) as session:
        seen(session)
    with Session(engine) as session, pytest.raises(sa_audit.PrunedHistory):
        sa_audit.diff(session, base.member, 2, copies[0][0], copies[1][0])
    assert clinic.verify().findings == ()
    assert complete(base.metadata) is not None
