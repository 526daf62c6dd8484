"""What encrypting a flush sends: rows are read back, and keys looked up and made, once for all of its parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import UnauditedWrite
from sa_audit.capture.person_keys import Entries
from sa_audit.capture.protecting import protect
from sa_audit.ddl.backend import Batch, Entry, Image, Target, backend_for
from sa_audit.model import AuditedTable, audited_of
from sa_audit.privacy import digest
from tests.privacy.models import Card, Note, Patient, Seat
from tests.privacy.sent import own_statements
from tests.privacy.test_encrypt import forget

ROWS = 450
"""More than the document of any database holds."""


def audited(entity: Any) -> AuditedTable:
    """Give the audited table of a model."""
    found = audited_of(entity.__table__)
    assert found is not None
    return found


def no_entry(*_connection: Any) -> Entry:
    """Give no entry, since digests need none."""
    raise AssertionError("a digest takes no key of a person")


def kinds(sent: Sequence[tuple[str, Any]]) -> Counter[tuple[str, str]]:
    """Count statements by their verb and the first table of the trail's in them."""
    found: Counter[tuple[str, str]] = Counter()
    for statement, _parameters in sent:
        table = re.search(r"\b(?:INTO|FROM)\s+[`\"]?(audit_\w+|\w+_history)\b", statement)
        if table is not None:
            found["read" if statement.startswith("SELECT") else "write", table[1]] += 1
    return found


def fill(session: Session, first: int = 1) -> None:
    """Insert many rows in one flush."""
    numbers = range(first, first + ROWS)
    session.add_all(Patient(id=number, name=f"name {number}", ward="a") for number in numbers)
    session.commit()


def test_keys_are_looked_up_once_a_flush(session: Session, wallet: sa.Engine) -> None:
    """They are named with the rows that are read back; those that are missing are made by one statement.

    That takes a look before it, since others may have made them since, and one at what was made.
    """
    with own_statements(wallet) as sent:
        fill(session)
    found = kinds(sent)
    assert found["read", "audit_person_key"] == 3
    assert found["write", "audit_person_key"] == 1
    assert found["write", "audit_key"] == 1
    for patient in session.scalars(sa.select(Patient)):
        patient.name = f"{patient.name}, changed"
    with own_statements(wallet) as sent:
        session.commit()
    assert kinds(sent)["read", "audit_person_key"] == 1


def test_what_is_wrapped_is_read_once(session: Session, wallet: sa.Engine) -> None:
    """A process that has no key in memory asks for it, and then has no more than its name, with the row."""
    fill(session)
    forget()
    for name, looks in (("b", 2), ("c", 1)):
        session.get_one(Patient, 1).name = name
        with own_statements(wallet) as sent:
            session.commit()
        statements = [statement for statement, _parameters in sent if "audit_person_key" in statement]
        assert len(statements) == looks
        assert sum("wrapped" in statement for statement in statements) == looks - 1


def test_updates_send_no_document(session: Session, wallet: sa.Engine) -> None:
    """The forms of a row go with its image, so that nothing is looked up row by row; a document comes with new rows."""
    fill(session)
    for patient in session.scalars(sa.select(Patient)):
        patient.name = f"{patient.name}, changed"
    with own_statements(wallet) as sent:
        session.commit()
    assert not any("protected" in statement or "JSON_VALUE" in statement for statement, _parameters in sent)


def test_each_row_has_its_own_values(session: Session) -> None:
    """Of many rows in several documents, inserted, updated and deleted by one flush: each opens, at its own row."""
    fill(session)
    fill(session, 1001)
    for patient in session.scalars(sa.select(Patient).where(Patient.id <= ROWS)):
        patient.name = f"new {patient.id}"
    for patient in session.scalars(sa.select(Patient).where(Patient.id > 1000)):
        session.delete(patient)
    session.add_all(Patient(id=number, name=f"name {number}", ward="a") for number in range(2001, 2001 + ROWS))
    session.commit()
    for number in (1, 200, 201, 449, 450):
        assert sa_audit.history(session, Patient, number)[-1].diff == {"name": (f"name {number}", f"new {number}")}
        deleted = sa_audit.history(session, Patient, 1000 + number)[-1]
        assert (deleted.operation, deleted.diff["name"]) == ("delete", (f"name {1000 + number}", None))
        (inserted,) = sa_audit.history(session, Patient, 2000 + number)
        assert inserted.diff["name"] == (None, f"name {2000 + number}")
    assert list(sa_audit.reconcile(session, Patient)) == []


def test_a_form_of_each_column(session: Session) -> None:
    """An update of one of several columns with policies has the old form of that one, and the new forms of all."""
    session.add(Card(id=1, number="4111", code=7, note="a"))
    session.add(Note(id=1, patient_id=1, size=3))
    session.commit()
    card, note = session.get_one(Card, 1), session.get_one(Note, 1)
    card.code, card.note, note.size = 8, "b", None
    session.commit()
    card.number = None
    session.commit()
    before, last = sa_audit.history(session, Card, 1)[-2:]
    assert set(before.diff) == {"code", "note"}
    assert set(last.diff) == {"number"}
    assert last.diff["number"] == (digest(Card.number, "4111")[0], None)
    assert sa_audit.history(session, Note, 1)[-1].diff == {"size": (3, None)}
    assert list(sa_audit.reconcile(session, Card)) == list(sa_audit.reconcile(session, Note)) == []


@pytest.mark.only_on("mariadb")  # whose texts are the same in small letters and in capitals
def test_rows_that_come_back_by_another_key(session: Session) -> None:
    """They are found by their labels; but where an image's row is missing then, nothing is recorded without it."""
    session.add(Seat(row="a", place=1, guest=b"x"))
    session.flush()
    connection = session.connection()
    backend, target = backend_for(connection.dialect), Target(audited(Seat))
    image = Image(("b", 1), ('["b", "1", null]',))
    (part,) = protect(connection, backend, target, Batch(inserted=[("A", 1)]), Entries(no_entry, no_entry))
    assert part.protected is not None
    assert "hmac-sha256" in part.protected
    with pytest.raises(UnauditedWrite, match="rows of seat have other keys after a change than before it"):
        list(
            protect(
                connection, backend, target, Batch(inserted=[("A", 1)], images=[image]), Entries(no_entry, no_entry)
            )
        )
