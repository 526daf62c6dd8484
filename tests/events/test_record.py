"""`record`: what an event says, where it stands, and what becomes of it when the transaction ends."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import sa_audit
import sa_audit.asyncio
from sa_audit import ConfigurationError, Event

from .models import Base, Payment, Plain, Token


def events(engine: sa.Engine, **wanted: Any) -> list[Event]:
    """Give the events of the trail."""
    wanted.setdefault("operation", "event")
    with Session(engine) as session:
        page = sa_audit.trail(session, base=Base, **wanted)
    return [entry for entry in page.entries if isinstance(entry, Event)]


def test_an_event_says_who_why_what_and_on_which_row(shop: sa.Engine) -> None:
    """Its context is that of a change; a pending target is flushed, so that its key is known."""
    with sa_audit.context(actor="alice", reason="r", branch="Oslo"), Session(shop) as session:
        payment = Payment(state="new")
        session.add(payment)
        sa_audit.record(session, "payment.processed", target=payment, data={"amount": "12.50", "steps": [1, None]})
        session.commit()
        key = payment.id
    (event,) = events(shop)
    assert (event.action, event.entity, event.table, event.identity) == (
        "payment.processed",
        "Payment",
        "payment",
        (key,),
    )
    assert event.data == {"amount": "12.50", "steps": [1, None]}
    assert (event.actor, event.reason, event.transaction.context) == ("alice", "r", {"branch": "Oslo"})
    assert (event.durable, event.operation, event.recorded_at) == (False, "event", event.transaction.recorded_at)


def test_an_event_stands_in_the_transaction_of_the_change(shop: sa.Engine) -> None:
    """One row of audit_transaction holds both, in their order, and the trail shows them so."""
    with Session(shop) as session:
        payment = Payment(state="new")
        session.add(payment)
        session.flush()
        sa_audit.record(session, "first", target=payment)
        payment.state = "paid"
        session.flush()
        sa_audit.record(session, "second")
        session.commit()
        entries = sa_audit.trail(session, base=Base).entries
        record = sa_audit.transaction(session, entries[0].transaction.id, base=Base)
    assert [getattr(entry, "action", entry.operation) for entry in entries] == ["insert", "first", "update", "second"]
    assert [entry.action for entry in record.events] == ["first", "second"]
    assert [entry.operation for entry in record.changes] == ["insert", "update"]


def test_an_event_goes_with_its_transaction(shop: sa.Engine) -> None:
    """After a rollback, also to a savepoint, it is not there."""
    with Session(shop) as session:
        sa_audit.record(session, "kept", base=Base)
        with session.begin_nested() as savepoint:
            sa_audit.record(session, "undone", base=Base)
            savepoint.rollback()
        session.commit()
        sa_audit.record(session, "undone", base=Base)
        session.rollback()
    assert [event.action for event in events(shop)] == ["kept"]


@pytest.mark.parametrize("written", [False, True], ids=["reading", "writing"])
def test_a_durable_event_survives_a_rollback(shop: sa.Engine, written: bool) -> None:
    """Also where the database has one writer and the session is writing, and only once."""
    with sa_audit.context(actor="mallory"), Session(shop) as session:
        if written:
            session.add(Plain(id=1))
            session.flush()
        sa_audit.record(session, "login.failed", data={"try": 1}, durable=True, base=Base)
        session.rollback()
    (event,) = events(shop)
    assert (event.action, event.actor, event.data, event.durable) == ("login.failed", "mallory", {"try": 1}, True)


def test_a_durable_event_survives_a_savepoint_and_a_commit(shop: sa.Engine) -> None:
    """What a savepoint took with it on a database with one writer comes back with the commit."""
    with Session(shop) as session:
        session.add(Plain(id=1))
        session.flush()
        with session.begin_nested() as savepoint:
            sa_audit.record(session, "refused", durable=True, base=Base)
            savepoint.rollback()
        sa_audit.record(session, "other", durable=True, base=Base)
        session.commit()
    assert sorted(event.action for event in events(shop)) == ["other", "refused"]


def test_events_are_found_by_action_row_and_actor(shop: sa.Engine) -> None:
    """Each filter of the trail holds for events as for changes."""
    ids = [uuid.uuid4(), uuid.uuid4()]
    with Session(shop) as session:
        for number, key in enumerate(ids):
            with sa_audit.context(actor=f"a{number}"):
                token = Token(id=key, secret="s")
                session.add(token)
                sa_audit.record(session, f"token.{number}", target=token)
                session.commit()
    assert [event.identity for event in events(shop, action="token.1")] == [(ids[1],)]
    assert [event.action for event in events(shop, entity=Token, identity=ids[0])] == ["token.0"]
    assert events(shop, entity=Payment) == []
    assert [event.action for event in events(shop, actor="a1")] == ["token.1"]
    with Session(shop) as session:
        both = sa_audit.trail(session, entity=Token, identity=ids[0]).entries
    assert [entry.operation for entry in both] == ["insert", "event"]


def test_pages_go_through_events_and_changes(shop: sa.Engine) -> None:
    """Page by page, nothing is shown twice or left out."""
    with Session(shop) as session:
        for number in range(3):
            session.add(Payment(state=str(number)))
            session.flush()
            sa_audit.record(session, f"e{number}", base=Base)
            session.commit()
        shown, after = [], None
        while True:
            page = sa_audit.trail(session, base=Base, limit=2, after=after)
            shown += [getattr(entry, "action", entry.operation) for entry in page.entries]
            after = page.next
            if after is None:
                break
    assert shown == ["insert", "e0", "insert", "e1", "insert", "e2"]


def test_an_event_is_append_only_and_fits_its_transaction(shop: sa.Engine) -> None:
    """The guards of the history hold for events."""
    with Session(shop) as session:
        sa_audit.record(session, "a", base=Base)
        session.commit()
    table = Base.metadata.tables["audit_event"]
    with shop.connect() as connection:
        for statement in (sa.update(table).values(action="b"), sa.delete(table)):
            with pytest.raises(sa.exc.DBAPIError, match="append-only"):
                connection.execute(statement)
            connection.rollback()
        row = {"audit_tx": 999, "audit_at": sa_audit.capture.clock.now(), "action": "forged", "durable": 0}
        with pytest.raises(sa.exc.DBAPIError, match="transaction"):
            connection.execute(sa.insert(table), row)
        connection.rollback()


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    ("action", "options", "words"),
    [
        ("", {}, "give a name"),
        ("x" * 256, {}, "at most 255"),
        ("sa_audit.rolled_back", {}, "the library's own"),
        ("a", {"data": {"amount": object()}}, "no JSON value"),
        ("a", {"data": ["list"]}, "give a dict"),
        ("a", {"subject": 42}, "nothing to encrypt"),
        ("a", {"durable": 1}, "durable=1"),
        ("a", {"target": "payment 42"}, "object of a mapped class"),
        ("a", {"target": Plain()}, "add it to the session"),
    ],
)
def test_bad_input_is_named(shop: sa.Engine, action: str, options: dict[str, Any], words: str) -> None:
    """An argument that can't be used raises before anything is written."""
    with Session(shop) as session, pytest.raises(ConfigurationError, match=words):
        sa_audit.record(session, action, base=Base, **options)
    assert events(shop) == []


@pytest.mark.only_on("sqlite")
def test_an_actor_is_required_for_events_too(engine: sa.Engine) -> None:
    """`require_actor` refuses an event, durable or not, with no actor."""
    metadata = sa.MetaData()
    sa_audit.configure(metadata, require_actor=True)
    sa_audit.track(sa.Table("thing", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    metadata.create_all(engine)
    for durable in (False, True):
        with Session(engine) as session, pytest.raises(sa_audit.ActorRequired):
            sa_audit.record(session, "a", base=metadata, durable=durable)


async def test_the_twin_records(async_engine: AsyncEngine, database: Any) -> None:
    """`sa_audit.asyncio.record` writes and its durable events survive, with no blocking call."""
    async with async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(async_engine) as session:
        await sa_audit.asyncio.record(session, "kept", base=Base)
        await session.commit()
        await sa_audit.asyncio.record(session, "durable", durable=True, base=Base)
        await session.rollback()
        page = await sa_audit.asyncio.trail(session, base=Base, operation="event")
    assert [entry.action for entry in page.entries if isinstance(entry, Event)] == ["kept", "durable"]


def test_a_record_engine_can_be_given(shop: sa.Engine, make_engine: Any) -> None:
    """With `configure(record_engine=)` durable events go through that engine."""
    metadata, other = sa.MetaData(), make_engine()
    sa_audit.configure(metadata, record_engine=other)
    sa_audit.track(sa.Table("thing", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    metadata.create_all(shop)
    used = []
    sa.event.listen(other, "before_cursor_execute", lambda *args: used.append(args[2]))
    with Session(shop) as session:
        sa_audit.record(session, "a", durable=True, base=metadata)
    assert any("audit_event" in statement for statement in used)
