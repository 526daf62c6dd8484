"""Continuity: before-values are what was recorded before; whatever changed unrecorded shows at the next change."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from tests.verification.models import MOMENT, Note, amend, note, write
from tests.verification.sealed import Sealed
from tests.verification.test_rows import HISTORY


def last_of(sealed: Sealed, number: int) -> int:
    """Give the id of a note's last history row."""
    return sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY} WHERE id = {number}")


@pytest.mark.parametrize("change", ["label = 'x'", "rate = 5", "raw = NULL", "label = NULL", "data = '[1]'"])
def test_an_unrecorded_change(sealed: Sealed, change: str) -> None:
    """Is found in the next change of that value, and in a delete."""
    sealed.unrecorded(f"UPDATE note SET {change} WHERE id IN (4, 5)")
    with sa_audit.context(actor="carol"), Session(sealed.engine) as session:
        found = session.get_one(Note, 4)
        found.label, found.rate, found.raw, found.data = "new", 7.5, b"new", {"new": 1}
        session.delete(session.get_one(Note, 5))
        session.commit()
    expected = {("continuity", HISTORY, last_of(sealed, number)) for number in (4, 5)}
    assert sealed.found() == expected
    sealed.seal()
    assert sealed.found() == expected


def test_an_unrecorded_delete_and_insert(sealed: Sealed) -> None:
    """A row that is inserted again although nothing removed it, and one that changes after its end."""
    sealed.unrecorded("DELETE FROM note WHERE id = 6")
    with sa_audit.context(actor="carol"), Session(sealed.engine) as session:
        session.add(note(6))
        session.delete(session.get_one(Note, 7))
        session.commit()
    sealed.unrecorded("INSERT INTO note (id, label) VALUES (7, 'again')")
    with sa_audit.context(actor="carol"), Session(sealed.engine) as session:
        session.get_one(Note, 7).label = "changed"
        session.commit()
    assert sealed.found() == {("continuity", HISTORY, last_of(sealed, number)) for number in (6, 7)}


def test_recorded_changes_don_t_alarm(sealed: Sealed) -> None:
    """Whatever the library itself records continues: values of every kind, bulk, deletes, lives under one key."""
    chance = random.Random(7)
    write(sealed.engine, 701, 712)
    for _turn in range(25):
        with sa_audit.context(actor="carol"), Session(sealed.engine) as session:
            for number in chance.sample(range(701, 713), 4):
                found = session.get(Note, number)
                if found is None:
                    session.add(note(number))
                elif chance.random() < 0.2:
                    session.delete(found)
                else:
                    name, value = chance.choice(VALUES)
                    setattr(found, name, value)
            session.flush()
            doubled = sa.update(Note).where(Note.id.in_([702, 703])).values(amount=Note.amount + 1)
            session.execute(doubled)
            session.commit()
    amend(sealed.engine, 4)
    assert sealed.found() == set()


TEXTS = (None, "", " ", "caf\u00e9", "CAF\u00c9", 'a "quoted" \\ text', "line\nfeed\ttab", "\U0001f600")
MOMENTS = (None, MOMENT, MOMENT + dt.timedelta(microseconds=1), MOMENT.replace(microsecond=0))
VALUES: list[tuple[str, Any]] = [
    *(("label", text) for text in TEXTS),
    *(("rate", number) for number in (None, 0.0, -0.0, 1e300, 5e-324, 0.1, 1.0, -3.5, 1e16)),
    *(("amount", Decimal(text)) for text in ("0", "-1.5", "99999999.9999", "0.0001")),
    *(("data", value) for value in (None, {"a": [1, 1.5, None]}, [], "text", {"\u00e9": True})),
    *(("raw", value) for value in (None, b"", b"\x00\xff\x27", b"text")),
    *(("seen", moment) for moment in MOMENTS),
]
