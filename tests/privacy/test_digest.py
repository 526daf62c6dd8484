"""`Digest`: equality can be shown, the value can't; on every way in, and nowhere in the clear."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, ConfigurationError, Digest, Digested, UnusableKey
from sa_audit.model import trail_of
from sa_audit.privacy import KeyRing, digest, digest_id, keyed_digest
from tests.databases import Database
from tests.migrate.project import Project
from tests.privacy.models import SECRET, Base, Card, Owner, Seat
from tests.privacy.sent import own_statements

CANARY = "4111-canary"
OTHER = "4222-canary"


def of(value: str | int) -> Digested:
    """The digest of a value."""
    (only,) = digest(Card.number, value)
    return only


def steps(session: Session, key: Any, entity: Any = Card) -> list[tuple[str, Any]]:
    """The operations of a row, with what they did to its number, or guest."""
    name = "number" if entity is Card else "guest"
    return [(each.operation, each.diff.get(name)) for each in sa_audit.history(session, entity, key)]


def test_the_unit_of_work(session: Session) -> None:
    """Insert, update, no change, NULL and delete are digests; a change of another column leaves them out."""
    card = Card(id=1, number=CANARY, code=7)
    session.add(card)
    session.commit()
    for number in (OTHER, OTHER, None, CANARY):
        card.number = number
        session.commit()
    card.note = "blue"
    session.commit()
    session.delete(card)
    session.commit()
    assert steps(session, 1) == [
        ("insert", (None, of(CANARY))),
        ("update", (of(CANARY), of(OTHER))),
        ("update", (of(OTHER), None)),
        ("update", (None, of(CANARY))),
        ("update", None),
        ("delete", (of(CANARY), None)),
    ]
    assert all(isinstance(each, Digested) for each in (sa_audit.history(session, Card, 1)[0].state["number"],))


def test_statements(session: Session) -> None:
    """Core and ORM statements, with values that the database makes, are recorded as stored."""
    session.execute(sa.insert(Card), [{"id": i, "number": CANARY} for i in (1, 2)])
    session.execute(sa.insert(Card).values(id=3, number=sa.func.lower(CANARY.upper())))
    session.execute(sa.update(Card).where(Card.id < 3).values(number=Card.number + "!"))
    session.execute(sa.update(Card), [{"id": 1, "number": OTHER}, {"id": 2, "number": OTHER}])
    session.execute(sa.delete(Card).where(Card.id == 2))
    session.commit()
    assert steps(session, 2) == [
        ("insert", (None, of(CANARY))),
        ("update", (of(CANARY), of(CANARY + "!"))),
        ("update", (of(CANARY + "!"), of(OTHER))),
        ("delete", (of(OTHER), None)),
    ]
    assert steps(session, 3) == [("insert", (None, of(CANARY)))]


def test_statements_on_many_rows(session: Session) -> None:
    """More rows than go through Python for other tables: inserted, updated and deleted by one statement each."""
    session.execute(sa.insert(Card), [{"id": i, "number": f"{CANARY}{i}"} for i in range(1, 1203)])
    session.execute(sa.update(Card).where(Card.id > 1).values(number=Card.note, note=Card.number))
    session.execute(sa.delete(Card).where(Card.id > 1))
    session.commit()
    assert steps(session, 1) == [("insert", (None, of(f"{CANARY}1")))]
    assert steps(session, 1202) == [
        ("insert", (None, of(f"{CANARY}1202"))),
        ("update", (of(f"{CANARY}1202"), None)),
        ("delete", (None, None)),
    ]


def test_cascades_and_keys(session: Session) -> None:
    """Rows that the database deletes along with others, and rows with keys of several columns."""
    session.add_all([Owner(id=1), Seat(row="a.\"b'", place=1, guest=b"ann")])
    session.flush()
    session.add(Card(id=1, number=CANARY, owner_id=1))
    session.commit()
    if session.get_bind().dialect.name != "sqlite":  # whose foreign keys are off
        session.execute(sa.delete(Owner))
        session.commit()
        assert steps(session, 1)[-1] == ("delete", (of(CANARY), None))
    seat = session.get_one(Seat, ("a.\"b'", 1))
    seat.guest = b"bob"
    session.commit()
    first, second = steps(session, ("a.\"b'", 1), Seat)
    assert first[1][1] == second[1][0] != second[1][1]
    assert len({value.split(":")[1] for value in second[1]}) == 1


def test_time_travel_restore_and_reconcile(session: Session, wallet: sa.Engine) -> None:
    """The past shows digests and can't be searched by them; restoring keeps the value; strangers' writes are found."""
    card = Card(id=1, number=CANARY, note="a")
    session.add(card)
    session.commit()
    then = sa_audit.history(session, Card, 1)[0].recorded_at
    card.number, card.note = OTHER, "b"
    session.commit()
    with sa_audit.as_of(wallet, then) as past:
        assert past.get_one(Card, 1).number == of(CANARY)
        assert past.execute(sa.select(Card.number, Card.note)).all() == [(of(CANARY), "a")]
        with pytest.raises(sa_audit.NotAudited, match=r"number can't be used in the past.*\(Digest\)"):
            past.execute(sa.select(Card.id).where(Card.number == CANARY))
    sa_audit.restore(session, Card, 1, then)
    session.commit()
    assert (card.number, card.note) == (OTHER, "a")
    assert list(sa_audit.reconcile(session, Card)) == []
    session.execute(sa.text("UPDATE card SET number = 'stranger'"))
    session.commit()
    (found,) = sa_audit.reconcile(session, Card)
    assert found.diff == {"number": (of(OTHER), of("stranger"))}


def test_a_new_key(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest carries its key's id: with the old key still there, `reconcile` and `digest` know it."""
    session.add(Card(id=1, number=CANARY))
    session.commit()
    trail = trail_of(Base.metadata)
    assert trail is not None
    old, new = KeyRing({"2026": SECRET}), KeyRing({"2027": b"n" * 32, "2026": SECRET})
    monkeypatch.setattr(trail, "configuration", _with(trail.configuration, new))
    assert list(sa_audit.reconcile(session, Card)) == []
    assert digest(Card.number, CANARY) == [keyed_digest(key, CANARY) for key in new.digest_keys]
    assert steps(session, 1)[0][1][1] in digest(Card.number, CANARY)
    monkeypatch.setattr(trail, "configuration", _with(trail.configuration, KeyRing({"2027": b"n" * 32})))
    with pytest.raises(UnusableKey, match=f"digests under key {digest_id(old.digest_keys[0])}"):
        list(sa_audit.reconcile(session, Card))


def test_without_a_key(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a provider nothing is written at all."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    monkeypatch.setattr(trail, "configuration", _with(trail.configuration, None))
    session.add(Card(id=1, number=CANARY))
    with pytest.raises(UnusableKey, match=r"column card\.number has the policy Digest\(\), and there is no key"):
        session.flush()
    session.rollback()
    assert session.execute(sa.text("SELECT count(*) FROM card")).scalar() == 0


def test_no_value_leaks(session: Session, wallet: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The canary stands in no table of the trail, no statement of the library, no error, repr or log."""
    caplog.set_level(logging.DEBUG, "sa_audit")
    with own_statements(wallet) as sent:
        shown: list[Any] = _use(session)
    session.commit()
    assert [each for each in sent if CANARY in repr(each)] == []
    assert sent
    assert CANARY not in repr(shown) + str(shown) + caplog.text
    trail = trail_of(Base.metadata)
    assert trail is not None
    with wallet.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if sa_audit.is_trail_table(table):
                text = repr(connection.exec_driver_sql(f"SELECT * FROM {table.name}").all())
                assert CANARY not in text, table.name
        assert CANARY in repr(connection.exec_driver_sql("SELECT * FROM card").all())


def _use(session: Session) -> list[Any]:
    """Use every way in and out; give what was shown."""
    with sa_audit.context(actor="ann", reason="why"):
        card = Card(id=1, number=CANARY)
        session.add(card)
        session.commit()
        card.number = f"{CANARY}2"
        session.commit()
        session.execute(sa.insert(Card).values(id=2, number=CANARY))
        session.execute(sa.update(Card).where(Card.number == CANARY).values(number=f"{CANARY}3"))
        session.execute(sa.select(Card.id).where(Card.number == f"{CANARY}3")).all()
        session.execute(sa.select(sa.func.count()).where(Card.number == CANARY)).all()
        session.bulk_insert_mappings(sa.inspect(Card), [{"id": i, "number": CANARY} for i in range(10, 1300)])
        session.execute(sa.update(Card).where(Card.id > 9).values(number=f"{CANARY}4"))
        session.execute(sa.delete(Card).where(Card.id > 10))
        session.commit()
        session.add(Card(id=3, number=CANARY))
        session.flush()
        session.rollback()  # which leaves an attempt
        shown: list[Any] = [sa_audit.history(session, Card, 1), list(sa_audit.reconcile(session, Card))]
        session.execute(sa.text("UPDATE card SET number = :n WHERE id = 1"), {"n": f"{CANARY}5"})
        shown += [list(sa_audit.reconcile(session, Card)), sa_audit.trail(session, base=Base).entries]
        shown += [sa_audit.reads(session, Card, 1), trail_of(Base.metadata)]
    return shown


def _with(configuration: Any, keys: Any) -> Any:
    return dataclasses.replace(configuration, keys=keys)


# -- declaring -------------------------------------------------------------------------


def make(**configured: Any) -> Any:
    """A base with one card."""

    class Own(DeclarativeBase):
        pass

    sa_audit.configure(Own, testing=True, **configured)

    class Plastic(Audited, Own):
        __tablename__ = "plastic"

        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[str | None] = mapped_column(sa.String(60), info={"sa_audit": Digest()})

    return Plastic


def test_what_triggers_cant_take() -> None:
    """With trigger capture text and whole numbers are digested, and the choice comes before the first write."""
    weight = sa.Column("weight", sa.Float, info={"sa_audit": Digest()})
    metadata = sa.MetaData()
    table = sa.Table("plain", metadata, sa.Column("id", sa.Integer, primary_key=True), weight)
    with pytest.raises(ConfigurationError, match=r"plain\.weight has the policy Digest\(\).*text and whole numbers"):
        sa_audit.track(table, AuditOptions(capture="trigger"))
    later = sa.MetaData()
    number = sa.Column("number", sa.String(9), info={"sa_audit": Digest()})
    plain = sa.Table("plain", later, sa.Column("id", sa.Integer, primary_key=True), number)
    sa_audit.track(plain)
    trail = trail_of(later)
    assert trail is not None
    assert isinstance(number.type, sa.String)
    trail.used = True
    with pytest.raises(ConfigurationError, match=r"configure\(capture=...\) before the mappers are configured"):
        sa_audit.configure(later, capture="trigger")


def test_keys_and_foreign_keys_are_refused() -> None:
    """A digest can't tell rows apart, nor lead to another."""
    metadata = sa.MetaData()
    sa.Table("owner", metadata, sa.Column("id", sa.Integer, primary_key=True))
    key = sa.Column("id", sa.Integer, sa.ForeignKey("owner.id"), info={"sa_audit": Digest()})
    table = sa.Table("card", metadata, sa.Column("n", sa.Integer, primary_key=True), key)
    with pytest.raises(ConfigurationError, match=r"card\.id has the policy Digest\(\) and a foreign key"):
        sa_audit.track(table)


def test_a_migration_leaves_the_rows_to_the_baseline(database: Database, engine: sa.Engine, tmp_path: Any) -> None:
    """Values that stand in a table that becomes audited are carried in by `baseline`, as digests."""
    model = make(keys=KeyRing({"2026": SECRET}))
    model.__table__.create(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO plastic (id, number) VALUES (1, '{CANARY}'), (2, NULL)")
    project = Project(tmp_path, database.url, model.metadata)
    text = project.revision()
    assert "After this migration run: sa-audit baseline" in text
    project.upgrade()
    from sa_audit.adoption import baseline

    assert [each.rows for each in baseline(engine, model, actor="dba")] == [2]
    project.check()
    with Session(engine) as session:
        assert [each.state["number"] for each in sa_audit.history(session, model, 1)] == [of(CANARY)]
        assert [each.state["number"] for each in sa_audit.history(session, model, 2)] == [None]
        session.get_one(model, 1).number = OTHER
        session.commit()
        assert sa_audit.history(session, model, 1)[-1].diff == {"number": (of(CANARY), of(OTHER))}
        assert list(sa_audit.reconcile(session, model)) == []
