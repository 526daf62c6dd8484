"""`configure(context=...)`: context keys under a policy; and events whose data is one person's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
import sa_audit.asyncio
from sa_audit import (
    Audited,
    AuditOptions,
    ConfigurationError,
    Digest,
    Encrypt,
    Event,
    Exclude,
    IntegrityFinding,
    Mask,
    UnauditedWrite,
    UnusableKey,
    testing,
)
from sa_audit.model import Erased, Masked, trail_of
from sa_audit.privacy import KeyRing, keyed_digest
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify

RING = KeyRing({"2026": b"k" * 32})
CANARY = "10.1.2.3-canary"
POLICIES = {
    "remote_addr": Digest(),
    "request_id": Exclude(),
    "on_behalf_of": Encrypt("actor"),
    "phone": Encrypt("customer"),
    "token": Mask(),
    "device": Digest(),
    "trace": Exclude(),
}
SAID: dict[str, Any] = {
    "actor": "desk:1",
    "reason": "visit",
    "remote_addr": CANARY,
    "request_id": CANARY,
    "on_behalf_of": CANARY,
    "phone": {"home": CANARY, "work": [1, "zwei"]},
    "customer": 42,
    "token": CANARY,
    "device": [CANARY, 7],
    "trace": CANARY,
    "branch": "Oslo",
}


def shop(capture: Any = "session", **options: Any) -> Any:
    """Give the base of a model, and the model, with policies for the context."""

    class Base(DeclarativeBase):
        pass

    settings: dict[str, Any] = {"keys": RING, "context": POLICIES, "testing": True, **options}
    sa_audit.configure(Base, capture=capture, **settings)

    class Order(Audited, Base):
        __tablename__ = "order_of_shop"
        __audit__ = AuditOptions(attempts=capture == "session")

        id: Mapped[int] = mapped_column(primary_key=True)
        state: Mapped[str] = mapped_column(sa.String(20))

    Base.model = Order  # type: ignore[attr-defined] # kept alive
    return Base, Order


@pytest.fixture(params=["session", "trigger"])
def placed(request: pytest.FixtureRequest, engine: sa.Engine) -> tuple[sa.Engine, Any, Any]:
    """An engine with the tables of the shop, recorded either way."""
    base, model = shop(request.param)
    base.metadata.create_all(engine)
    return engine, base, model


def everything(engine: sa.Engine, base: Any) -> str:
    """Give all that the trail holds."""
    with engine.connect() as connection:
        return "".join(
            repr(connection.execute(sa.select(sa.text("*")).select_from(table)).all())
            for table in base.metadata.sorted_tables
            if sa_audit.is_trail_table(table) or table.name == "audit_person_key"
        )


def infos(session: Session, base: Any) -> list[Any]:
    """Give who and why of each entry of the trail."""
    return [entry.transaction for entry in sa_audit.trail(session, base=base).entries]


def test_context_keys_are_recorded_under_their_policies(placed: tuple[sa.Engine, Any, Any]) -> None:
    """Changes, events, durable ones and attempts hold no clear value; what may be read comes back."""
    engine, base, order = placed
    with sa_audit.context(**SAID), Session(engine) as session:
        session.add(order(id=1, state="new"))
        session.flush()
        sa_audit.record(session, "seen", base=base)
        session.commit()
        sa_audit.record(session, "durable", base=base, durable=True)
        session.rollback()
        session.execute(sa.update(order).values(state="paid"))
        session.commit()
        session.execute(sa.update(order).values(state="lost"))
        session.rollback()
        shown = infos(session, base)
    assert len(shown) >= 4
    secret = RING.digest_keys[0]
    for info in shown:
        assert (info.actor, info.reason, info.on_behalf_of) == ("desk:1", "visit", CANARY)
        assert (info.remote_addr, info.request_id) == (keyed_digest(secret, CANARY), None)
        assert info.context == {
            "branch": "Oslo",
            "customer": 42,
            "token": Masked,
            "device": keyed_digest(secret, f'["{CANARY}",7]'),
            "phone": {"home": CANARY, "work": [1, "zwei"]},
        }
    assert CANARY not in everything(engine, base)


def test_erasure_takes_context_values_too(placed: tuple[sa.Engine, Any, Any], tmp_path: Path) -> None:
    """Each person's own, in all entries, while the log verifies before and after."""
    engine, base, order = placed
    signer = Signer.generate("shop.example/audit")
    with sa_audit.context(**SAID), Session(engine) as session:
        session.add(order(id=1, state="new"))
        session.commit()
        order_made = sa_audit.history(session, order, 1)[0]
    assert order_made.transaction.on_behalf_of == CANARY
    seal(engine, signer, state=tmp_path / "state", metadata=base)
    with Session(engine) as session:
        sa_audit.erase(session, 42, "asked for", base=base)
        session.commit()
        info = infos(session, base)[0]
        assert (info.context["phone"], info.on_behalf_of) == (Erased, CANARY)
        sa_audit.erase(session, "desk:1", "left", base=base)
        session.commit()
        assert infos(session, base)[0].on_behalf_of is Erased
    seal(engine, signer, state=tmp_path / "state", metadata=base)
    assert verify(engine, signer.verifier, metadata=base).findings == ()


def test_nobody_whose_value_it_is(placed: tuple[sa.Engine, Any, Any]) -> None:
    """An encrypted key without its subject is refused, and the change with it."""
    engine, _base, order = placed
    with sa_audit.context(actor="a", phone="1"), Session(engine) as session:
        with pytest.raises(UnauditedWrite, match="'phone' can't be recorded, since 'customer'"):
            session.execute(sa.insert(order).values(id=1, state="new"))
        session.rollback()
        assert session.scalars(sa.select(order.id)).all() == []
    with sa_audit.context(actor="a"), Session(engine) as session:
        session.add(order(id=1, state="new"))
        session.commit()


def test_a_context_that_changes_midway(placed: tuple[sa.Engine, Any, Any]) -> None:
    """The entries of one transaction stay one transaction, also with those that keys are made under."""
    engine, base, order = placed
    with Session(engine) as session:
        with sa_audit.context(**SAID):
            session.add(order(id=1, state="new"))
            session.flush()
        with sa_audit.context(**{**SAID, "customer": 43}):
            session.add(order(id=2, state="new"))
            session.flush()
        session.commit()
        first = sa_audit.history(session, order, 1)[0].transaction
        record = sa_audit.transaction(session, first.id, base=base)
    assert len(record.changes) == 2
    assert {info.context["customer"] for info in record.infos if info.on_behalf_of} == {42, 43}


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"actor": Digest()}, "has no policy"),
        ({"remote_addr": "mask"}, "give an instance of a policy"),
        ({"remote_addr": Encrypt()}, "says whose value it is"),
        ({"remote_addr": Encrypt("remote_addr")}, "says whose value it is"),
        ({7: Mask()}, "give the key of a context"),
        (["remote_addr"], "give a dict of policies"),
    ],
)
def test_bad_policies_are_named(context: Any, words: str) -> None:
    """When they are configured."""
    with pytest.raises(ConfigurationError, match=words):
        sa_audit.configure(sa.MetaData(), context=context)


def test_without_keys_nothing_is_written(engine: sa.Engine) -> None:
    """A policy that needs a key refuses the change where there is none."""
    for policy in (Digest(), Encrypt("actor")):
        base, order = shop(keys=None, context={"remote_addr": policy})
        base.metadata.create_all(engine)
        with sa_audit.context(actor="a", remote_addr="1"), Session(engine) as session:
            session.add(order(id=1, state="new"))
            with pytest.raises(UnusableKey, match=r"configure\(base, keys="):
                session.flush()
            session.rollback()
            assert session.scalars(sa.select(order.id)).all() == []


# -- events of a person ------------------------------------------------------------------


def events(session: Session, base: Any) -> list[Event]:
    """Give the application's events of the trail."""
    entries = sa_audit.trail(session, base=base, operation="event").entries
    return [entry for entry in entries if isinstance(entry, Event) and not entry.action.startswith("sa_audit.")]


def test_an_event_of_a_person(placed: tuple[sa.Engine, Any, Any], tmp_path: Path) -> None:
    """Its data comes back until the key is destroyed; it is sealed and verified like the rest."""
    engine, base, order = placed
    data = {"phone": CANARY, "tries": [1, None]}
    with Session(engine) as session:
        made = order(id=1, state="new")
        session.add(made)
        sa_audit.record(session, "called", target=made, data=data, subject=42)
        sa_audit.record(session, "called", data=data, subject="43", base=base)
        session.commit()
        sa_audit.record(session, "failed", data=data, subject=44, durable=True, base=base)
        session.rollback()
        assert [event.data for event in events(session, base)] == [data] * 3
        first = events(session, base)[0]
        record = sa_audit.transaction(session, first.transaction.id, base=base)
        assert [event.data for event in record.events] == [data] * 2
        assert CANARY not in everything(engine, base)
        signer = Signer.generate("shop.example/audit")
        session.rollback()
        seal(engine, signer, state=tmp_path / "state", metadata=base)
        sa_audit.erase(session, 42, "asked for", base=base)
        session.commit()
        assert [event.data for event in events(session, base)] == [Erased, data, data]
        session.rollback()
    seal(engine, signer, state=tmp_path / "state", metadata=base)
    assert verify(engine, signer.verifier, metadata=base).findings == ()


def test_a_durable_event_of_a_person_whose_key_is_new(placed: tuple[sa.Engine, Any, Any]) -> None:
    """The session's transaction has made the key, and another connection would wait for it forever."""
    engine, base, order = placed
    with Session(engine) as session:
        for number, end in ((1, Session.rollback), (2, Session.commit)):
            session.add(order(id=number, state="new"))
            session.flush()
            sa_audit.record(session, "asked", data={"n": number}, subject=number, base=base)
            sa_audit.record(session, "refused", data={"n": number}, subject=number, durable=True, base=base)
            end(session)
        found = {
            (event.action, event.data["n"]) for event in events(session, base) if event.action in ("asked", "refused")
        }
    assert found == {("refused", 1), ("asked", 2), ("refused", 2)}


def test_a_moved_event_does_not_open(placed: tuple[sa.Engine, Any, Any]) -> None:
    """The data of one event in the place of another's is found when it is read."""
    engine, base, _order = placed
    with Session(engine) as session:
        for action in ("one", "two"):
            sa_audit.record(session, action, data={"of": action}, subject=42, base=base)
        session.commit()
    table = base.metadata.tables["audit_event"]
    with testing.unguarded(engine), engine.begin() as connection:
        data = connection.scalar(sa.select(table.c.data).where(table.c.action == "one"))
        connection.execute(sa.update(table).where(table.c.action == "two").values(data=data))
    with Session(engine) as session, pytest.raises(IntegrityFinding, match=r"audit_event\.data .* does not open"):
        events(session, base)


@pytest.mark.parametrize(
    ("subject", "data", "words"),
    [
        ("", {"a": 1}, "give what names the person"),
        ("w" * 256, {"a": 1}, "1 to 255 characters"),
        (True, {"a": 1}, "a string or a number"),
        (42, None, "nothing to encrypt"),
    ],
)
@pytest.mark.only_on("sqlite")
def test_a_bad_subject_is_named(engine: sa.Engine, subject: Any, data: Any, words: str) -> None:
    """And nothing is written."""
    base, _order = shop()
    base.metadata.create_all(engine)
    with Session(engine) as session, pytest.raises(ConfigurationError, match=words):
        sa_audit.record(session, "a", data=data, subject=subject, base=base)


def test_tables_of_keys_come_with_the_provider() -> None:
    """Events of a person need no encrypted column."""
    base, _order = shop()
    assert {"audit_key", "audit_person_key"} <= set(base.metadata.tables)
    trail = trail_of(base.metadata)
    assert trail is not None
    assert trail.key is not None


async def test_the_twin_of_record(async_engine: AsyncEngine, make_async_engine: Callable[[], AsyncEngine]) -> None:
    """Tasks, each with its own context and person, record at once through `AsyncSession`."""
    base, order = shop()
    async with async_engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)

    async def one(number: int) -> None:
        said = {**SAID, "customer": number % 2, "phone": f"{number}"}
        with sa_audit.context(**said):
            async with AsyncSession(async_engine) as session:
                session.add(order(id=number, state="new"))
                await session.flush()
                await sa_audit.asyncio.record(session, "seen", data={"n": number}, subject=number % 3, base=base)
                await session.commit()

    for start in range(0, 8, 4):
        await asyncio.gather(*(one(number) for number in range(start + 1, start + 5)))
    async with AsyncSession(async_engine) as session:
        page = await sa_audit.asyncio.trail(session, base=base)
    said = {entry.transaction.context["phone"] for entry in page.entries if entry.transaction.context}
    assert said == {str(number) for number in range(1, 9)}
    assert sorted(entry.data["n"] for entry in page.entries if isinstance(entry, Event)) == list(range(1, 9))
