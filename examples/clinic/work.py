"""Days at the clinic: staff who read and write through the web application, and one who reads what is not his."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx

from .records import SEED, WARDS

SNOOPER = "s13"
PURPOSES = ("ward round", "treatment", "laboratory result", "billing")


def client_of(app: Any) -> httpx.AsyncClient:
    """Make a client that speaks to the application in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://clinic.example")


def saying(login: str, purpose: str) -> dict[str, str]:
    """Give the headers of a request."""
    return {"authorization": f"Bearer {login}", "x-purpose": purpose}


async def duty(client: httpx.AsyncClient, login: str, *, patients: int, turns: int) -> None:
    """Have one of the staff read a ward list, charts, and write now and then."""
    chance = random.Random(f"{SEED} {login}")
    for turn in range(turns):
        headers = saying(login, chance.choice(PURPOSES))
        key = chance.randrange(patients) + 1
        (await client.get(f"/patients/{key}", headers=headers)).raise_for_status()
        if turn % 5 == 0:
            ward = {"ward": chance.choice(WARDS)}
            (await client.get("/patients", params=ward, headers=headers)).raise_for_status()
        if turn % 4 == 0:
            given: dict[str, Any] = {"staff_id": int(login[1:]), "kind": "visit", "note": f"seen, {turn}"}
            (await client.post(f"/patients/{key}/encounters", json=given, headers=headers)).raise_for_status()
        if turn % 9 == 0:
            given = {"phone": f"+47 {chance.randrange(10**8):08d}"}
            (await client.patch(f"/patients/{key}", json=given, headers=headers)).raise_for_status()


async def snoop(client: httpx.AsyncClient, *, patients: int, charts: int = 230) -> None:
    """Read chart after chart, with a purpose that says nothing."""
    for key in random.Random(SEED + 2).sample(range(1, patients + 1), charts):
        (await client.get(f"/patients/{key}", headers=saying(SNOOPER, "checking"))).raise_for_status()


async def work(client: httpx.AsyncClient, *, patients: int, staff: int = 40, turns: int = 10) -> None:
    """Have all staff work at the same time, the snooper among them."""
    logins = [f"s{number:02d}" for number in range(2, staff + 1)]
    duties = (duty(client, login, patients=patients, turns=turns) for login in logins)
    await asyncio.gather(*duties, snoop(client, patients=patients))
