"""The clinic's story, told on an empty PostgreSQL database.

python -m examples.clinic.story postgresql+psycopg://postgres@127.0.0.1/clinic --directory /tmp/clinic
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import anchors
from sa_audit.privacy import KeyRing
from sa_audit.proof import Signer

from . import auditor, records, work
from .app import make_app
from .models import Base, Patient, use_keys

PERSON = {
    "name": "Quillon Vantrask",
    "born": "1961-07-09",
    "address": "Fossegrimen 77, Skarvheim",
    "phone": "+47 90817263",
    "national_id": "09076112345",
    "portal_password": "scrypt:c0ffee5ca1ab1e",
    "ward": "ward 3",
}
"""The patient whose chart the auditor asks about, and who is erased in the end."""
MARRIED = "Quillon Vantrask-Odegaard"
NOTE = "speaks of the quarrel with Brunhilde over the lighthouse"


async def visit(url: str, *, patients: int, turns: int) -> tuple[int, dict[str, Any]]:
    """Have everybody work, and the person be treated; give the person's key and the chart as the doctor saw it."""
    engine = create_async_engine(url, hide_parameters=True)
    async with work.client_of(make_app(engine)) as client:
        nurse, doctor = work.saying("s02", "admission"), work.saying("s04", "treatment")
        key = (await client.post("/patients", json=PERSON, headers=nurse)).raise_for_status().json()["id"]
        given = {"staff_id": 4, "kind": "visit", "diagnosis": "F32.1 depression", "note": NOTE}
        (await client.post(f"/patients/{key}/encounters", json=given, headers=doctor)).raise_for_status()
        seen: dict[str, Any] = (await client.get(f"/patients/{key}", headers=doctor)).raise_for_status().json()
        (await client.patch(f"/patients/{key}", json={"name": MARRIED}, headers=nurse)).raise_for_status()
        await work.work(client, patients=patients, turns=turns)
    await engine.dispose()
    return key, seen


async def forget(url: str, key: int) -> dict[str, Any]:
    """Have the privacy officer erase the person; give what the erasure says of itself."""
    engine = create_async_engine(url, hide_parameters=True)
    async with work.client_of(make_app(engine)) as client:
        headers = work.saying("s01", "request 5 under article 17")
        said: dict[str, Any] = (
            (await client.delete(f"/patients/{key}/person", headers=headers)).raise_for_status().json()
        )
    await engine.dispose()
    return said


def tell(url: str, directory: Path, *, patients: int, encounters: int, turns: int) -> None:
    """Tell the whole story."""
    use_keys(KeyRing({"2026": os.urandom(32)}))
    engine = sa.create_engine(url, hide_parameters=True)
    Base.metadata.create_all(engine)
    began = time.perf_counter()
    records.fill(engine, patients_number=patients, encounters_number=encounters)
    print(f"{patients:,} patients and {encounters:,} encounters were loaded in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    key, seen = asyncio.run(visit(url, patients=patients, turns=turns))
    print(f"the staff's work took {time.perf_counter() - began:.0f} s")

    signer = Signer.generate("clinic.example/audit")
    anchor = anchors.open(f"file:{directory}/anchor")
    sa_audit.seal(engine, signer, state=directory / "state", anchors=[anchor], metadata=Base)
    today = dt.datetime.now(dt.UTC).date()
    with Session(engine) as session:
        looked = auditor.who_looked(session, key, today.replace(day=1), today)
        for access in looked:
            print(f"  {access.recorded_at:%d.%m. %H:%M:%S} {access.actor} looked at patient {key}: {access.reason}")
        for reader in auditor.who_looked_at_too_many(session):
            print(f"{reader.actor} read {reader.rows} charts on {reader.day}")
        by_doctor = next(access for access in looked if access.actor == "s04")
        proofs = [auditor.proof_of(session, by_doctor, row=key), auditor.proof_of(session, by_doctor.transaction)]
    print("as the doctor saw it:", auditor.as_it_was_seen(engine, by_doctor, key) == seen)
    for proof in proofs:
        shown = auditor.check(proof, signer.verifier)
        print("proven:", {name: shown[name] for name in ("identity", "actor", "reason") if name in shown})

    for sentence in asyncio.run(forget(url, key))["remains"]:
        print("remains:", sentence)
    with Session(engine) as session, sa_audit.context(actor="auditor"):
        print("the history now says:", sa_audit.history(session, Patient, key)[0].state["name"])
    sa_audit.seal(engine, signer, state=directory / "state", anchors=[anchor], metadata=Base)
    with sa_audit.context(actor="s01", reason="retention of two years"):
        for pruned in sa_audit.prune(engine, dry_run=True, metadata=Base):
            print(f"of {pruned.table}, {pruned.asked} rows are older than {pruned.cutoff:%d.%m.%Y} and due to go")
    report = sa_audit.verify(engine, signer.verifier, anchors=[anchor], metadata=Base)
    print("verified:", report.ok)
    engine.dispose()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of an empty PostgreSQL database")
    parser.add_argument("--directory", type=Path, required=True, help="where the sealer's state and the anchor go")
    parser.add_argument("--patients", type=int, default=1_000)
    parser.add_argument("--encounters", type=int, default=5_000)
    parser.add_argument("--turns", type=int, default=10, help="of each of the staff")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    tell(given.url, given.directory, patients=given.patients, encounters=given.encounters, turns=given.turns)


if __name__ == "__main__":
    main()
