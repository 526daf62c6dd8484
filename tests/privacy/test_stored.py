"""`Encrypt` and `Digest` with trigger capture: the table itself holds the form, and the triggers copy it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import sa_audit
import sa_audit.asyncio
from sa_audit import Digested, UnauditedWrite
from sa_audit.model import Erased
from sa_audit.privacy import digest
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.privacy.stored import BORN, CANARY, CARD, add, forget, raw
from tests.privacy.stored_models import Base, Letter, Note, Patient


@pytest.fixture
def session(clinic: sa.Engine) -> Iterator[Session]:
    """A session to it."""
    with Session(clinic) as made:
        yield made


def test_a_row_goes_through_its_life(session: Session, clinic: sa.Engine) -> None:
    """The table and the history hold ciphertext and digests alone; everybody who may see values sees them."""
    patient = add(session)
    stored = raw(session, "SELECT name, born, room, card FROM stored_patient")
    assert stored == raw(session, "SELECT name, born, room, card FROM stored_patient_history")
    assert [str(value)[:12] for value in stored[0]] == ["aes-256-gcm:"] * 3 + ["hmac-sha256:"]
    then = sa_audit.history(session, Patient, 1)[0].recorded_at
    forget()
    assert (patient.name, patient.born, patient.room) == (CANARY, BORN, 7)
    assert isinstance(patient.card, Digested)
    assert patient.card in digest(Patient.card, CARD)
    patient.ward = "b"
    session.commit()
    assert raw(session, "SELECT name, born, room, card FROM stored_patient") == stored
    patient.name, patient.born = "Bob", None
    session.commit()
    session.execute(sa.update(Patient).where(Patient.id == 1).values(name="Cid", card="5"))
    session.commit()
    assert (patient.name, patient.born, patient.room) == ("Cid", None, 7)
    session.delete(patient)
    session.commit()
    forget()
    changes = sa_audit.history(session, Patient, 1)
    assert [change.operation for change in changes] == ["insert", "update", "update", "update", "delete"]
    held = {"id": 1, "name": CANARY, "born": BORN, "room": 7, "ward": "a"}
    assert changes[0].state == {**held, "card": digest(Patient.card, CARD)[0]}
    assert changes[1].diff == {"ward": ("a", "b")}
    assert changes[2].diff == {"name": (CANARY, "Bob"), "born": (BORN, None)}
    assert changes[3].diff["name"] == ("Bob", "Cid")
    assert changes[3].diff["card"] == (digest(Patient.card, CARD)[0], digest(Patient.card, "5")[0])
    assert changes[4].diff["name"] == ("Cid", None)
    with sa_audit.as_of(clinic, then) as past:
        found = past.get_one(Patient, 1)
        assert (found.name, found.born, found.room, found.ward) == (CANARY, BORN, 7, "a")
        assert past.execute(sa.select(Patient.born, Patient.id)).all() == [(BORN, 1)]
    restored = sa_audit.restore(session, Patient, 1, then)
    session.commit()
    assert (restored.name, restored.born, restored.room) == (CANARY, BORN, 7)
    assert restored.card in digest(Patient.card, CARD)
    assert list(sa_audit.reconcile(session, Patient)) == []


def test_the_same_value_again_is_no_change(session: Session) -> None:
    """Each ciphertext differs, and a value that is set to itself is not recorded; nor is it a difference afterwards."""
    add(session)
    before = raw(session, "SELECT name FROM stored_patient")
    session.execute(sa.update(Patient).values(name=CANARY, card=CARD))
    session.commit()
    assert raw(session, "SELECT name FROM stored_patient") != before
    assert len(sa_audit.history(session, Patient, 1)) == 1
    session.execute(sa.update(Patient).values(name="Bob"))
    session.commit()
    assert sa_audit.history(session, Patient, 1)[1].diff == {"name": (CANARY, "Bob")}
    assert list(sa_audit.reconcile(session, Patient)) == []


@pytest.mark.parametrize("way", ["many", "values", "rows", "orm", "bulk", "returning", "returning_many"])
def test_every_insert(session: Session, way: str) -> None:
    """Core and ORM, one row and many, with and without RETURNING."""
    rows = [{"id": n, "name": f"{CANARY}{n}", "born": BORN if n == 2 else None, "card": CARD} for n in (1, 2, 3)]
    table = Patient.__table__
    if way == "many":
        session.execute(sa.insert(table), rows)
    elif way == "values":
        session.execute(sa.insert(table).values(**rows[0]))
        session.execute(sa.insert(Patient).values(name=rows[1]["name"], card=CARD, born=BORN), {"id": 2})
        session.execute(sa.insert(Patient).values(rows[2]))
    elif way == "rows":
        session.execute(sa.insert(Patient).values(rows))
    elif way == "orm":
        session.execute(sa.insert(Patient), rows)
    elif way == "bulk":
        session.bulk_insert_mappings(sa.inspect(Patient), rows)
    elif not session.get_bind().dialect.insert_returning:
        pytest.skip("the database has no INSERT ... RETURNING")
    elif way == "returning":
        found = session.execute(sa.insert(table).returning(table.c.name, table.c.card), rows[0]).one()
        assert (found.name, found.card) == (f"{CANARY}1", digest(Patient.card, CARD)[0])
        session.execute(sa.insert(table), rows[1:])
    else:
        found = session.scalars(sa.insert(Patient).returning(Patient), rows).all()
        assert [each.name for each in found] == [row["name"] for row in rows]
    session.commit()
    forget()
    assert session.execute(sa.select(Patient.name, Patient.born).order_by(Patient.id)).all() == [
        (row["name"], row["born"]) for row in rows
    ]
    assert [sa_audit.history(session, Patient, n)[0].state["name"] for n in (1, 2, 3)] == [r["name"] for r in rows]
    for table in ("stored_patient", "stored_patient_history"):
        assert CANARY not in str(raw(session, f"SELECT * FROM {table}"))


@pytest.mark.parametrize("way", ["flush", "mappings", "executemany", "bound", "each"])
def test_every_update(session: Session, way: str) -> None:
    """By key and by criteria, one row and many."""
    for number in (1, 2):
        add(session, number)
    table = Patient.__table__
    if way == "flush":
        for patient in session.scalars(sa.select(Patient)):
            patient.name, patient.room = f"Bob{patient.id}", None
    elif way == "mappings":
        session.execute(sa.update(Patient), [{"id": n, "name": f"Bob{n}", "room": None} for n in (1, 2)])
    elif way == "executemany":
        session.connection().execute(
            sa.update(table).where(table.c.id == sa.bindparam("k")).values(name=sa.bindparam("n"), room=None),
            [{"k": n, "n": f"Bob{n}"} for n in (1, 2)],
        )
    elif way == "bound":
        for n in (1, 2):
            statement = sa.update(table).where(table.c.id == sa.bindparam("k")).values(name=sa.bindparam("n"))
            session.execute(statement.values(room=sa.null()), {"k": n, "n": f"Bob{n}"})
    else:
        for n in (1, 2):
            pairs = ((Patient.name, f"Bob{n}"), (Patient.room, None))
            session.execute(sa.update(Patient).where(Patient.id == n).ordered_values(*pairs))
    session.commit()
    for n in (1, 2):
        assert sa_audit.history(session, Patient, n)[1].diff == {"name": (CANARY, f"Bob{n}"), "room": (7, None)}
    assert session.scalars(sa.select(Patient.name).order_by(Patient.id)).all() == ["Bob1", "Bob2"]


def test_a_value_passes_to_another_person(session: Session) -> None:
    """What is not set is encrypted anew: before under the old person's key, after under the new one's."""
    session.add_all([Note(id=1, patient_id=1, size=7, title="A"), Note(id=2, patient_id=1, size=8, title=None)])
    session.commit()
    for note in session.scalars(sa.select(Note)):
        note.patient_id = 2
    session.commit()
    session.execute(sa.update(Note).where(Note.id == 2).values(patient_id=3))
    session.commit()
    sa_audit.erase(session, 1, "asked for", base=Base)
    session.commit()
    assert sa_audit.history(session, Note, 1)[1].diff == {
        "patient_id": (1, 2),
        "size": (Erased, 7),
        "title": (Erased, "A"),
    }
    sa_audit.erase(session, 2, "asked for", base=Base)
    session.commit()
    one, two = session.scalars(sa.select(Note).order_by(Note.id))
    assert (one.size, one.title, two.size, two.title) == (Erased, Erased, 8, None)
    assert sa_audit.history(session, Note, 2)[2].diff["size"] == (Erased, 8)
    one.patient_id = 4
    with pytest.raises(UnauditedWrite, match="its value of 'size' was erased"):
        session.commit()


def test_erasure_reaches_the_table(session: Session, clinic: sa.Engine, tmp_path: Path) -> None:
    """The table's own values are gone with those of the history, and every proof still verifies."""
    patient = add(session)
    add(session, 2, "Bob")
    patient.name = "Anna"
    session.commit()
    signer = Signer.generate("clinic.example/audit")
    seal(clinic, signer, state=tmp_path / "state", metadata=Base)
    done = sa_audit.erase(session, 1, reason="article 17", base=Base)
    assert done.remains[0] == "1 rows of stored_patient are there, with id = '1'"
    session.commit()
    assert (patient.name, patient.born, patient.ward) == (Erased, Erased, "a")
    patient.ward = "b"
    session.commit()
    assert sa_audit.history(session, Patient, 1)[1].diff == {"name": (Erased, Erased)}
    assert list(sa_audit.reconcile(session, Patient)) == []
    patient.name = "Somebody"
    session.commit()
    assert sa_audit.history(session, Patient, 1)[3].diff == {"name": (Erased, "Somebody")}
    seal(clinic, signer, state=tmp_path / "state", metadata=Base)
    assert verify(clinic, signer.verifier, metadata=Base).findings == ()


def test_revert(session: Session) -> None:
    """A transaction is undone through Core statements, which are encrypted as well."""
    patient = add(session)
    patient.name = "Bob"
    session.commit()
    last = sa_audit.history(session, Patient, 1)[-1]
    sa_audit.revert(session, last.transaction.id, base=Base)
    session.commit()
    assert session.get_one(Patient, 1).name == CANARY
    assert sa_audit.history(session, Patient, 1)[-1].diff == {"name": ("Bob", CANARY)}


def test_identities_made_in_python(session: Session) -> None:
    """A default of the key, or of the value, is made before the value is encrypted."""
    letter = Letter()
    session.add(letter)
    session.flush()
    session.execute(sa.insert(Letter).values(text="hello"))
    session.execute(sa.insert(Letter.__table__), [{"text": "x"}, {"text": "y"}])
    session.commit()
    assert letter.text == "dear"
    assert sorted(session.scalars(sa.select(Letter.text))) == ["dear", "hello", "x", "y"]
    assert sa_audit.history(session, Letter, letter.id)[0].state["text"] == "dear"


def test_objects_stay_plain(session: Session) -> None:
    """Refresh, expire, merge and pickle work on values, and write nothing by themselves."""
    patient = add(session)
    copy = pickle.loads(pickle.dumps(patient))
    merged = session.merge(Patient(id=1, name=CANARY, born=BORN, room=7, ward="a", card=patient.card))
    session.commit()
    session.refresh(merged)
    assert (merged.name, merged.born, merged.room) == (CANARY, BORN, 7)
    session.expunge_all()
    assert session.merge(copy).id == 1
    session.commit()
    assert len(sa_audit.history(session, Patient, 1)) == 1
    rows = session.execute(sa.select(Patient.id, Patient.name).execution_options(yield_per=2))
    assert [tuple(row) for row in rows] == [(1, CANARY)]


def test_a_stream(session: Session) -> None:
    """Rows are handed over batch by batch, with keys that are read on the way."""
    session.execute(sa.insert(Patient), [{"id": n, "name": f"{CANARY}{n}"} for n in range(1, 8)])
    session.commit()
    forget()
    query = sa.select(Patient.name).order_by(Patient.id).execution_options(yield_per=3)
    assert session.scalars(query).all() == [f"{CANARY}{n}" for n in range(1, 8)]
    with pytest.raises(UnauditedWrite, match="has to be encrypted before the statement is executed"):
        session.execute(sa.select(sa.bindparam("x", "Ann", type_=Patient.__table__.c.name.type)))


async def test_async(make_async_engine: Any) -> None:
    """Values come back where no connection can be asked while rows are read."""
    engine = make_async_engine()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add(Patient(id=1, name=CANARY, born=BORN))
        await session.commit()
    forget()
    async with AsyncSession(engine) as session:
        patient = (await session.execute(sa.select(Patient))).scalar_one()
        assert (patient.name, patient.born) == (CANARY, BORN)
        patient.name = "Bob"
        await session.commit()
        changes = await sa_audit.asyncio.history(session, Patient, 1)
        assert changes[1].diff == {"name": (CANARY, "Bob")}
        forget()
        found = [name async for name in await session.stream_scalars(sa.select(Patient.name))]
        assert found == ["Bob"]
