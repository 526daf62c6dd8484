"""What the columns that hold ciphertext and digests themselves let in, and what can be done with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
import sa_audit.asyncio
from sa_audit import (
    Audited,
    AuditOptions,
    ConfigurationError,
    Encrypt,
    Encrypted,
    IntegrityFinding,
    NotAudited,
    UnauditedWrite,
)
from sa_audit.model import Erased
from sa_audit.privacy import digest
from tests.privacy.stored import CANARY, CARD, add, raw
from tests.privacy.stored_models import Note, Patient


@pytest.fixture
def session(clinic: sa.Engine) -> Iterator[Session]:
    """A session to it."""
    with Session(clinic) as made:
        yield made


REFUSED = {
    "expression": (lambda: sa.update(Patient).values(name=sa.func.upper("x")), "SQL expression"),
    "persons": (lambda: sa.update(Patient).values(name="Bob"), "rows of several persons"),
    "select": (
        lambda: sa.insert(Patient).from_select(["id", "name"], sa.select(sa.literal(9), sa.literal("x"))),
        "from a SELECT",
    ),
    "nobody": (lambda: sa.insert(Patient).values(name="x"), "leaves 'id' to the database"),
    "null": (lambda: sa.insert(Note).values(id=9, size=1), "stored_note.patient_id, which says whose it is, is NULL"),
    "type": (lambda: sa.insert(Note).values(id=9, patient_id=1, size="x"), "a str can't be encrypted for stored_n"),
    "long": (lambda: sa.insert(Patient).values(id=9, name="x" * 61), "61 characters, and the column takes 60"),
    "marker": (lambda: sa.update(Patient).where(Patient.id == 1).values(name=Erased), "to Erased: give the value"),
    "digest": (lambda: sa.update(Patient).where(Patient.id == 1).values(card=5), "a int can't be digested"),
    "many": (
        lambda: sa.insert(Patient).values([{"id": 9, "name": sa.func.lower("X")}]),
        "SQL expression",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cant_be_encrypted_is_refused(session: Session, case: str) -> None:
    """By a sentence that shows no value, and before anything runs."""
    add(session)
    add(session, 2)
    statement, said = REFUSED[case]
    with pytest.raises(UnauditedWrite, match=said):
        session.execute(statement())
    session.rollback()
    assert len(raw(session, "SELECT id FROM stored_patient_history")) == 2


def test_a_row_that_lacks_a_value(session: Session) -> None:
    """SQLAlchemy's own error, which shows parameters, shows none in the clear; and no NULL goes in instead."""
    rows = [{"id": 1, "patient_id": 1, "title": CANARY}, {"id": 2, "patient_id": 1}]
    with pytest.raises(sa.exc.StatementError, match="A value is required for bind parameter 'title'") as refused:
        session.execute(sa.insert(Note.__table__), rows)
    assert CANARY.lower() not in str(refused.value).lower()


def test_no_use_of_ciphertext(session: Session) -> None:
    """What the database can't do with ciphertext is refused, never answered falsely; NULL can be asked for."""
    add(session)
    for use in (
        lambda: Patient.name == "x",
        lambda: Patient.name.like("A%"),
        lambda: Patient.name + "x",
        lambda: Patient.name.in_(["x"]),
        lambda: Patient.name.desc(),
        lambda: Patient.name == Note.title,
        lambda: session.execute(sa.select(sa.func.count(sa.distinct(Patient.name)))),
        lambda: Patient.card == CARD,
        lambda: Patient.card.like("4%"),
    ):
        with pytest.raises(NotAudited):
            use()
    for statement in (
        sa.select(sa.func.lower(Patient.name)),
        sa.select(sa.func.max(Patient.born)),
        sa.select(Patient.id).order_by(Patient.name),
        sa.select(Patient.id).group_by(Patient.id, Patient.name),
        sa.select(sa.cast(Patient.name, sa.Text)),
        sa.select(Patient.name).distinct(),
        sa.union(sa.select(Patient.name), sa.select(Patient.name)),
        sa.select(Patient.id).where(Patient.__table__.c.name == Note.__table__.c.title),
    ):
        with pytest.raises(NotAudited, match="encrypted in the database"):
            session.execute(statement)
        session.rollback()
    assert session.scalars(sa.select(Patient.id).where(Patient.name.is_not(None), Patient.born != None)).all() == [1]  # noqa: E711
    assert session.scalars(sa.select(Patient.id).where(Patient.card.in_(digest(Patient.card, CARD)))).all() == [1]
    assert session.scalar(sa.select(sa.func.count(Patient.name))) == 1
    assert [each.name for each in session.scalars(sa.select(Patient).distinct())] == [CANARY]


def test_what_comes_past_the_session(session: Session) -> None:
    """The database itself refuses values in the clear, those that stand there too, and a row's passing to another."""
    add(session)
    session.add(Note(id=1, patient_id=1, size=7))
    session.commit()
    for sql in (
        f"UPDATE stored_patient SET name = '{CANARY}'",
        "UPDATE stored_patient SET card = '4111'",
        f"INSERT INTO stored_patient (id, name) VALUES (2, '{CANARY}')",
        "UPDATE stored_note SET patient_id = 2",
        "UPDATE stored_patient SET name = 'aes-256-gcm:x'",
    ):
        with pytest.raises(sa.exc.DBAPIError, match=r"(values|digests) alone|for another"):
            raw(session, sql)
        session.rollback()
    with pytest.raises(sa.exc.DBAPIError, match="holds encrypted values alone"):
        session.execute(sa.text("UPDATE stored_patient SET name = :name"), {"name": CANARY})
    session.rollback()
    session.execute(sa.text("UPDATE stored_patient SET ward = 'c'"))
    session.commit()
    assert sa_audit.history(session, Patient, 1)[-1].diff == {"ward": ("a", "c")}
    assert CANARY not in str(raw(session, "SELECT * FROM stored_patient_history"))


def test_nothing_in_the_clear(session: Session, clinic: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """No value is sent, logged, or shown by an error; what is in memory is the application's."""
    sent: list[Any] = []
    sa.event.listen(clinic, "before_cursor_execute", lambda *args: sent.append(repr(args[2:4])), named=False)
    with caplog.at_level(logging.INFO, logger="sqlalchemy"):
        patient = add(session)
        patient.name = f"{CANARY} 2"
        session.commit()
        session.execute(sa.update(Patient).values(name=f"{CANARY} 3", card=f"{CARD} 3"))
        session.commit()
        assert patient.name == f"{CANARY} 3"
        with pytest.raises(sa.exc.IntegrityError) as refused:
            session.execute(sa.insert(Patient), [{"id": 1, "name": CANARY, "card": CARD}])
        session.rollback()
    assert CANARY not in "".join(sent) + caplog.text + str(refused.value)
    assert CARD not in "".join(sent) + caplog.text + str(refused.value)
    trail = ("audit_person_key", "audit_key", "audit_transaction", "audit_access")
    tables = ("stored_patient", "stored_patient_history", *trail)
    held = "".join(str(raw(session, f"SELECT * FROM {table}")) for table in tables)
    assert CANARY not in held
    assert CARD not in held


def test_what_was_moved_is_found(session: Session) -> None:
    """Ciphertext of another column or person does not open."""
    add(session)
    add(session, 2)
    session.execute(sa.text("UPDATE stored_patient SET born = name WHERE id = 1"))
    session.commit()
    with pytest.raises(IntegrityFinding, match=r"stored_patient\.born"):
        session.execute(sa.select(Patient.born).where(Patient.id == 1)).all()


def test_ciphertext_is_not_written_twice(session: Session) -> None:
    """What the history gives as ciphertext is refused as a value."""
    add(session)
    with pytest.raises(UnauditedWrite, match="to ciphertext: give the value itself"):
        session.execute(sa.update(Patient).where(Patient.id == 1).values(name=Encrypted("aes-256-gcm:x")))


def test_an_upsert(session: Session) -> None:
    """It may leave encrypted columns alone; to set one in a row that is there, whose is not known, is refused."""
    add(session)
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    elif dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    else:
        from sqlalchemy.dialects.mysql import insert  # type: ignore[assignment]
    given = insert(Patient).values(id=1, name="Bob", ward="z")

    def upsert(**values: Any) -> Any:
        if dialect in ("postgresql", "sqlite"):
            return given.on_conflict_do_update(index_elements=["id"], set_=values)
        return given.on_duplicate_key_update(**values)  # type: ignore[attr-defined]

    session.execute(upsert(ward="z"))
    session.commit()
    assert sa_audit.history(session, Patient, 1)[-1].diff == {"ward": ("a", "z")}
    with pytest.raises(UnauditedWrite, match="an upsert into stored_patient that sets 'name' in a row that is there"):
        session.execute(upsert(name="Bob"))


def test_capture_is_said_before_the_models_are_used() -> None:
    """What has been made of the models by then would take the columns for what they were declared as."""

    class Early(DeclarativeBase):
        pass

    class Person(Audited, Early):
        __tablename__ = "early_person"
        __audit__ = AuditOptions(subject="id")

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(info={"sa_audit": Encrypt()})

    sa.select(Person)
    Early.registry.configure()
    with pytest.raises(ConfigurationError, match="before the mappers are configured"):
        sa_audit.configure(Early, capture="trigger")
