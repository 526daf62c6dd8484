"""`Encrypt`: values under a key of the person's own; what was moved, swapped or removed is found; erasure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import (
    AuditOptions,
    ConfigurationError,
    Encrypt,
    ErasedValue,
    IntegrityFinding,
    NotAudited,
    UnauditedWrite,
    UnusableKey,
    testing,
)
from sa_audit.capture.erasure import rewrap
from sa_audit.model import Erased, trail_of
from sa_audit.privacy import KeyRing
from sa_audit.privacy.encryption import PersonKey, Place, decrypted, encrypted, wrapping_context
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.databases import Database
from tests.migrate.project import Project, differences
from tests.privacy.models import SECRET, Base, Letter, Note, Patient
from tests.privacy.sent import own_statements

BORN = dt.date(1980, 2, 29)
CANARY = "Ann-canary"


def add(session: Session, number: int = 1, name: str = CANARY) -> Patient:
    """Add a patient and commit."""
    patient = Patient(id=number, name=name, born=BORN, ward="a")
    session.add(patient)
    session.commit()
    return patient


def forget() -> None:
    """Start with no key in memory, like another process."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    trail.secrets = None


def use(monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    """Have another provider."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    monkeypatch.setattr(trail, "configuration", dataclasses.replace(trail.configuration, keys=keys))
    forget()


def tamper(engine: sa.Engine, statement: str) -> None:
    """Change a table of the trail with the guards lifted."""
    with testing.unguarded(engine), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    forget()


def test_what_is_recorded_comes_back(session: Session, wallet: sa.Engine) -> None:
    """Values before and after, of the column's own type, in history, diff and time travel; reconcile compares."""
    patient = add(session)
    then = sa_audit.history(session, Patient, 1)[0].recorded_at
    patient.name = "Bob"
    session.commit()
    patient.ward, patient.born = "b", None
    session.commit()
    session.execute(sa.update(Patient).values(name=Patient.name + "by"))
    session.commit()
    session.delete(patient)
    session.commit()
    forget()
    changes = sa_audit.history(session, Patient, 1)
    assert changes[0].state == {"id": 1, "name": CANARY, "born": BORN, "ward": "a"}
    assert [each.diff for each in changes[1:4]] == [
        {"name": (CANARY, "Bob")},
        {"ward": ("a", "b"), "born": (BORN, None)},
        {"name": ("Bob", "Bobby")},
    ]
    assert changes[4].diff["name"] == ("Bobby", None)
    with sa_audit.as_of(wallet, then) as past:
        found = past.get_one(Patient, 1)
        assert (found.name, found.born, found.ward) == (CANARY, BORN, "a")
        assert past.execute(sa.select(Patient.born, Patient.id)).all() == [(BORN, 1)]
        with pytest.raises(NotAudited, match=r"name can't be used in the past.*\(Encrypt\)"):
            past.execute(sa.select(Patient.id).order_by(Patient.name))
    sa_audit.restore(session, Patient, 1, then)
    session.commit()
    assert (session.get_one(Patient, 1).name, session.get_one(Patient, 1).born) == (CANARY, BORN)
    assert list(sa_audit.reconcile(session, Patient)) == []
    session.execute(sa.text("UPDATE patient SET name = 'stranger'"))
    session.commit()
    assert [each.diff for each in sa_audit.reconcile(session, Patient)] == [{"name": (CANARY, "stranger")}]


def test_a_value_passes_to_another_person(session: Session, wallet: sa.Engine) -> None:
    """Before under the old person's key, after under the new one's: each erasure takes its own part."""
    note = Note(id=1, patient_id=1, size=7)
    session.add(note)
    session.commit()
    note.patient_id, note.size = 2, 8
    session.commit()
    sa_audit.erase(session, 1, "asked for")
    session.commit()
    assert sa_audit.history(session, Note, 1)[1].diff == {"patient_id": (1, 2), "size": (Erased, 8)}
    sa_audit.erase(session, 2, "asked for")
    session.commit()
    assert sa_audit.history(session, Note, 1)[1].diff["size"] == (Erased, Erased)


def test_nobody_to_encrypt_for(session: Session) -> None:
    """A value without a person is refused, and nothing of the transaction stays; NULL needs nobody."""
    session.add(Note(id=1, patient_id=None, size=None))
    session.commit()
    session.add(Note(id=2, patient_id=None, size=7))
    with pytest.raises(UnauditedWrite, match=r"note\.size can't be recorded, since note\.patient_id, which says whose"):
        session.commit()
    session.rollback()
    assert session.scalars(sa.select(Note.id)).all() == [1]


def test_erasure(session: Session, wallet: sa.Engine, tmp_path: Path) -> None:
    """Values are gone for good, everywhere; the record stays and verifies; it is said what remains."""
    patient = add(session)
    add(session, 2, "Bob")
    patient.name = "Anna"
    session.commit()
    then = sa_audit.history(session, Patient, 1)[-1].recorded_at
    signer = Signer.generate("clinic.example/audit")
    seal(wallet, signer, state=tmp_path / "state", metadata=Base)
    before = dt.datetime.now(dt.UTC)
    with sa_audit.context(actor="officer"):
        done = sa_audit.erase(session, 1, reason="article 17")
        session.commit()
    assert done.subject == "1"
    assert len(done.keys) == 1
    assert done.effective_at >= before + dt.timedelta(seconds=300)
    assert done.remains[0] == "1 rows of patient are there, with id = '1'"
    assert "backups" in done.remains[1]
    first, second = sa_audit.history(session, Patient, 1)
    assert (first.state["name"], first.state["born"], first.state["ward"]) == (Erased, Erased, "a")
    assert second.diff == {"name": (Erased, Erased)}
    assert sa_audit.history(session, Patient, 2)[0].state["name"] == "Bob"
    with sa_audit.as_of(wallet, then) as past:
        assert [each.name for each in past.scalars(sa.select(Patient).order_by(Patient.id))] == [Erased, "Bob"]
    assert list(sa_audit.reconcile(session, Patient)) == []
    seal(wallet, signer, state=tmp_path / "state", metadata=Base)
    assert verify(wallet, signer.verifier, metadata=Base).findings == ()
    with pytest.raises(NotAudited, match="there is no key of '1'"):
        sa_audit.erase(session, 1)
    session.delete(patient)
    session.commit()
    with pytest.raises(ErasedValue, match="the key of its value of name was destroyed"):
        sa_audit.restore(session, Patient, 1, then)
    assert verify(wallet, signer.verifier, metadata=Base).findings == ()


def test_a_rolled_back_erasure(session: Session) -> None:
    """Nothing is erased unless committed, and no key stays that a rolled-back transaction made."""
    add(session)
    sa_audit.erase(session, 1)
    session.rollback()
    assert sa_audit.history(session, Patient, 1)[0].state["name"] == CANARY
    session.add(Patient(id=2, name="Bob"))
    session.flush()
    session.rollback()
    add(session, 2, "Bob")
    forget()
    assert sa_audit.history(session, Patient, 2)[0].state["name"] == "Bob"


def test_what_was_tampered_with_is_found(session: Session, wallet: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved ciphertext, swapped keys, another key of the name, a removed key, the wrong key-encryption key."""
    add(session)
    add(session, 2, "Bob")
    session.close()
    read = lambda: sa_audit.history(session, Patient, 1)  # noqa: E731 (said five times)
    with wallet.connect() as connection:
        mine, other = connection.exec_driver_sql("SELECT name FROM patient_history ORDER BY audit_id").scalars()
        keys = connection.exec_driver_sql("SELECT name, subject FROM audit_person_key ORDER BY subject").all()
    tamper(wallet, f"UPDATE patient_history SET name = '{other}' WHERE id = 1")
    with pytest.raises(IntegrityFinding, match=r"patient\.name in row .* does not open under its key"):
        read()
    session.close()
    tamper(wallet, f"UPDATE patient_history SET born = '{mine}', name = '{mine}' WHERE id = 1")
    with pytest.raises(IntegrityFinding, match=r"patient\.born in row .* does not open under its key"):
        read()
    session.close()
    tamper(wallet, f"UPDATE patient_history SET born = NULL, name = '{mine}' WHERE id = 1")
    assert read()[0].state["name"] == CANARY
    session.close()
    ring = KeyRing({"2026": SECRET})
    forged = ring.wrap(b"f" * 32, wrapping_context(keys[0][0], "1")).hex()
    literal = f"decode('{forged}', 'hex')" if wallet.dialect.name == "postgresql" else f"x'{forged}'"
    with wallet.connect() as connection:
        kept = connection.exec_driver_sql("SELECT wrapped FROM audit_person_key ORDER BY subject").scalars().all()
    tamper(wallet, f"UPDATE audit_person_key SET wrapped = {literal} WHERE subject = '1'")
    with pytest.raises(IntegrityFinding, match="is not the one that was made under this name"):
        read()
    session.close()
    swap = sa.text("UPDATE audit_person_key SET wrapped = :wrapped WHERE subject = '1'")
    with wallet.begin() as connection:
        connection.execute(swap, {"wrapped": kept[1]})
    with pytest.raises(UnusableKey, match="was changed or moved"):
        read()
    session.close()
    with wallet.begin() as connection:
        connection.execute(swap, {"wrapped": kept[0]})
    use(monkeypatch, KeyRing({"2026": b"w" * 32}))
    with pytest.raises(UnusableKey, match="can't be unwrapped"):
        read()
    session.close()
    use(monkeypatch, ring)
    tamper(wallet, "DELETE FROM audit_person_key WHERE subject = '1'")
    with pytest.raises(IntegrityFinding, match="neither there nor recorded as destroyed"):
        read()


def test_a_second_key_does_not_open_a_value() -> None:
    """A ciphertext is bound to its place and to its key's name, and a key to its commitment."""
    key, place = PersonKey("k" * 32, b"s" * 32), Place("patient", "name", "(1)")
    value = encrypted(key, place, "Ann")
    assert decrypted(key, [Place("patient", "nom", "(1)"), place], value) == "Ann"
    for other in (Place("patient", "name", "(2)"), Place("person", "name", "(1)"), Place("patient", "born", "(1)")):
        with pytest.raises(IntegrityFinding):
            decrypted(key, [other], value)
    for wrong in (PersonKey(key.name, b"t" * 32), PersonKey("j" * 32, key.secret)):
        with pytest.raises(IntegrityFinding):
            decrypted(wrong, [place], value)
    assert "sss" not in repr(key)
    with pytest.raises(IntegrityFinding, match="not of the form"):
        decrypted(key, [place], value.replace(":", ";", 1))


def test_rotation_of_the_key_encryption_key(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys are wrapped by the newest; `rewrap` does the same for the old, so that their wrapper can go."""
    add(session)
    use(monkeypatch, KeyRing({"2027": b"n" * 32, "2026": SECRET}))
    add(session, 2, "Bob")
    assert rewrap(session, base=Base) == 1
    session.commit()
    use(monkeypatch, KeyRing({"2027": b"n" * 32}))
    assert [sa_audit.history(session, Patient, i)[0].state["name"] for i in (1, 2)] == [CANARY, "Bob"]


def test_no_value_leaks(session: Session, wallet: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The canary stands in no table of the trail, and in no statement, log or event of the library."""
    caplog.set_level(logging.DEBUG, "sa_audit")
    with own_statements(wallet) as sent:
        patient = add(session)
        patient.name = f"{CANARY}2"
        session.commit()
        session.execute(sa.insert(Patient), [{"id": i, "name": CANARY} for i in range(10, 230)])
        session.execute(sa.update(Patient).where(Patient.name == CANARY).values(name=f"{CANARY}3"))
        session.scalars(sa.select(Patient.id).where(Patient.name == CANARY)).all()
        session.execute(sa.delete(Patient).where(Patient.id > 9))
        session.commit()
        session.add(Patient(id=3, name=CANARY))
        session.flush()
        session.rollback()
        sa_audit.history(session, Patient, 1)
    assert [each for each in sent if CANARY in repr(each)] == []
    assert CANARY not in caplog.text + repr(trail_of(Base.metadata))
    with wallet.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if sa_audit.is_trail_table(table) or table.name == "audit_person_key":
                assert CANARY not in repr(connection.exec_driver_sql(f"SELECT * FROM {table.name}").all()), table.name


def test_persons_are_told_apart_by_each_character(session: Session) -> None:
    """Also by a blank at the end, which a database may take for nothing; erasing one leaves the others."""
    names = ["alice", "alice ", "ALICE", "alicé"]
    session.add_all([Letter(id=number, person=name, text=name) for number, name in enumerate(names, 1)])
    session.commit()
    sa_audit.erase(session, "alice ", "asked for")
    session.commit()
    texts = [sa_audit.history(session, Letter, number)[0].state["text"] for number in range(1, 5)]
    assert texts == ["alice", Erased, "ALICE", "alicé"]


def test_a_name_that_is_too_long_is_refused(session: Session) -> None:
    """Nothing is written, and the message says how long it may be."""
    session.add(Letter(id=1, person="w" * 256, text="x"))
    with pytest.raises(UnauditedWrite, match="has 256 characters: at most 255"):
        session.commit()
    session.rollback()
    session.add(Letter(id=1, person="w" * 255, text="x"))
    session.commit()
    assert sa_audit.history(session, Letter, 1)[0].state["text"] == "x"


def test_a_value_that_fills_its_column(session: Session) -> None:
    """What is recorded of it is longer, and has room."""
    session.add(Letter(id=1, person="w", text="ü" * 30_000))
    session.commit()
    session.get_one(Letter, 1).text = "x"
    session.commit()
    made, changed = sa_audit.history(session, Letter, 1)
    assert made.state["text"] == "ü" * 30_000
    assert changed.diff["text"] == ("ü" * 30_000, "x")


# -- declaring -------------------------------------------------------------------------


def declare(column: Any, **options: Any) -> sa.Table:
    """Track a table with a column."""
    table = sa.Table(
        "person", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("who", sa.Integer), column
    )
    sa_audit.track(table, AuditOptions(**options))
    return table


def test_bad_declarations() -> None:
    """Types that have no text alike, and a subject that is none."""
    said = {"info": {"sa_audit": Encrypt("who")}}
    with pytest.raises(ConfigurationError, match="encrypted are text, whole numbers and dates"):
        declare(sa.Column("weight", sa.Float, **said))
    for wrong in ("", 7):
        with pytest.raises(ConfigurationError, match="give the name of a column"):
            Encrypt(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="give the name of a column"):
            AuditOptions(subject=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("subject", "match"), [(None, "nothing says whose value"), ("whom", "no column 'whom'")])
def test_a_subject_that_is_not_there(engine: sa.Engine, subject: Any, match: str) -> None:
    """It is refused before anything is written."""
    table = declare(sa.Column("name", sa.String(9), info={"sa_audit": Encrypt(subject)}))
    sa_audit.configure(table.metadata, keys=KeyRing({"2026": SECRET}))
    table.metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(ConfigurationError, match=match):
        connection.execute(sa.insert(table).values(id=1, name="Ann"))


def test_migrations(database: Database, engine: sa.Engine, tmp_path: Path) -> None:
    """The tables of keys come with the first encrypted column, and nothing is left to do."""
    plain = sa.Table("thing", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(plain)
    assert "audit_key" not in plain.metadata.tables
    table = declare(sa.Column("name", sa.String(9), info={"sa_audit": Encrypt("who")}))
    sa_audit.configure(table.metadata, keys=KeyRing({"2026": SECRET}))
    project = Project(tmp_path, database.url, table.metadata)
    text = project.revision()
    assert "audit_person_key" in text
    project.upgrade()
    project.check()
    assert differences(engine, table.metadata) == []
    without = sa.MetaData()
    sa_audit.track(
        sa.Table("person", without, *(sa.Column(c.name, c.type, primary_key=c.primary_key) for c in table.c))
    )
    assert not any("key" in str(each) and "remove_table" in str(each) for each in differences(engine, without))
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, who=5, name="Ann"))
    with Session(engine) as session:
        assert sa_audit.history(session, table, 1)[0].state["name"] == "Ann"


@pytest.mark.only_on("sqlite")
def test_the_commands(session: Session, wallet: sa.Engine) -> None:
    """`erase` says what was destroyed and what remains; `rewrap` how many keys were wrapped anew."""
    from typer.testing import CliRunner

    from sa_audit.cli.app import app

    add(session)
    session.close()
    place = ["--url", str(wallet.url), "--models", "tests.privacy.models:Base", "--json"]
    run = CliRunner().invoke(app, ["erase", "1", "--reason", "asked for", "--actor", "officer", *place])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert (said["subject"], len(said["keys"])) == ("1", 1)
    assert CANARY not in run.output
    assert sa_audit.history(session, Patient, 1)[0].state["name"] is Erased
    run = CliRunner().invoke(app, ["rewrap", *place])
    assert json.loads(run.stdout) == {"rewrapped": 0}
