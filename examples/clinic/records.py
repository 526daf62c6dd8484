"""The clinic's records, generated: the same for the same seed and sizes."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import sqlalchemy as sa
from mimesis import Address, Person
from mimesis.locales import Locale
from sqlalchemy.orm import Session

import sa_audit

from .models import Encounter, Patient, Staff

SEED = 20260301
WARDS = [f"ward {number}" for number in range(1, 21)]
KINDS = ("visit", "call", "surgery", "laboratory")
DIAGNOSES = ("J45.9 asthma", "I10 hypertension", "E11.9 diabetes", "M54.5 low back pain", "F32.1 depression", "none")
BATCH = 2_000
FIRST_DAY = dt.datetime(2024, 7, 1, 8, tzinfo=dt.UTC)


def staff(number: int) -> Iterator[dict[str, Any]]:
    """Generate staff: every fourth one is a doctor, the first one the privacy officer."""
    for key in range(1, number + 1):
        role = "privacy officer" if key == 1 else "doctor" if key % 4 == 0 else "nurse"
        yield {"id": key, "login": f"s{key:02d}", "role": role}


def patients(number: int) -> Iterator[dict[str, Any]]:
    """Generate patients, whose keys are 1 and so on."""
    person, address, chance = Person(Locale.EN, seed=SEED), Address(Locale.EN, seed=SEED), random.Random(SEED)
    for key in range(1, number + 1):
        yield {
            "id": key,
            "name": person.full_name(),
            "born": dt.date(1930, 1, 1) + dt.timedelta(days=chance.randrange(34_000)),
            "address": f"{address.address()}, {address.city()}",
            "phone": person.phone_number(),
            "national_id": f"{chance.randrange(10**11):011d}",
            "portal_password": f"scrypt:{chance.randbytes(16).hex()}",
            "ward": chance.choice(WARDS),
        }


def encounters(number: int, *, patients: int, staff: int) -> Iterator[dict[str, Any]]:
    """Generate encounters of these patients with these staff, over two years."""
    chance = random.Random(SEED + 1)
    for key in range(1, number + 1):
        diagnosis = chance.choice(DIAGNOSES)
        yield {
            "id": key,
            "patient_id": chance.randrange(patients) + 1,
            "staff_id": chance.randrange(staff) + 1,
            "at": FIRST_DAY + dt.timedelta(minutes=key * 2 * 365 * 24 * 60 // (number + 1)),
            "kind": chance.choice(KINDS),
            "diagnosis": diagnosis,
            "note": f"{diagnosis}, pulse {chance.randrange(50, 110)}, seen again in {chance.randrange(1, 30)} weeks",
        }


def fill(engine: sa.Engine, *, patients_number: int, encounters_number: int, staff_number: int = 40) -> None:
    """Load generated records through the library, so that their history begins with them.

    One INSERT of many rows each, in transactions of 2,000 rows.
    """
    loads: list[tuple[Any, Iterator[dict[str, Any]]]] = [
        (Staff, staff(staff_number)),
        (Patient, patients(patients_number)),
        (Encounter, encounters(encounters_number, patients=patients_number, staff=staff_number)),
    ]
    with sa_audit.context(actor="migration", reason="records of the former system"):
        for model, rows in loads:
            while batch := list(islice(rows, BATCH)):
                with Session(engine) as session:
                    session.execute(sa.insert(model), batch)
                    session.commit()
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("ANALYZE"))  # of the next load's questions for the keys of these persons
    with engine.begin() as connection:
        for table in ("staff", "patient", "encounter"):
            connection.execute(sa.text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))
