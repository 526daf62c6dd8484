"""The web application: what staff may do, and the middleware that says who does it and why."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import selectinload
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import sa_audit
import sa_audit.asyncio

from .models import Encounter, Patient

CHANGEABLE = ("name", "address", "phone", "ward")


class WhoAndWhy:
    """ASGI middleware: every request is made by somebody, for a purpose, and all that it does is recorded so.

    The bearer token stands for whatever tells a real application who is logged in; here it is the login itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        actor = request.headers.get("authorization", "").removeprefix("Bearer ")
        purpose = request.headers.get("x-purpose", "")
        if not actor or not purpose:
            refusal = JSONResponse({"error": "say who you are and for what purpose"}, status_code=403)
            await refusal(scope, receive, send)
            return
        request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        address = request.client.host if request.client else None
        with sa_audit.context(actor=actor, reason=purpose, request_id=request_id, remote_addr=address):
            await self.app(scope, receive, send)


def make_app(engine: AsyncEngine) -> ASGIApp:
    """Make the application on a database."""
    app = Starlette(
        routes=[
            Route("/patients", list_ward, methods=["GET"]),
            Route("/patients", register, methods=["POST"]),
            Route("/patients/{id:int}", show_chart, methods=["GET"]),
            Route("/patients/{id:int}", change, methods=["PATCH"]),
            Route("/patients/{id:int}/encounters", add_encounter, methods=["POST"]),
            Route("/patients/{id:int}/person", erase_person, methods=["DELETE"]),
        ]
    )
    app.state.engine = engine
    return WhoAndWhy(app)


def session_of(request: Request) -> AsyncSession:
    """Open the session of a request."""
    return AsyncSession(request.app.state.engine, expire_on_commit=False)


async def list_ward(request: Request) -> JSONResponse:
    """Show who lies on a ward: names only."""
    query = sa.select(Patient.id, Patient.name).where(Patient.ward == request.query_params["ward"]).order_by(Patient.id)
    async with session_of(request) as session:
        found = (await session.execute(query.limit(int(request.query_params.get("limit", 20))))).all()
    return JSONResponse([{"id": row.id, "name": row.name} for row in found])


async def show_chart(request: Request) -> JSONResponse:
    """Show a chart: the patient, and all encounters."""
    async with session_of(request) as session:
        patient = await session.get(Patient, request.path_params["id"], options=[selectinload(Patient.encounters)])
        if patient is None:
            return JSONResponse({"error": "there is no such patient"}, status_code=404)
        return JSONResponse(chart(patient))


def chart(patient: Patient) -> dict[str, Any]:
    """Give a chart as JSON."""
    encounters = [
        {"id": entry.id, "at": entry.at.isoformat(), "diagnosis": entry.diagnosis, "note": entry.note}
        for entry in patient.encounters
    ]
    born = patient.born.isoformat() if patient.born else None
    return {
        "id": patient.id,
        "name": patient.name,
        "born": born,
        "address": patient.address,
        "phone": patient.phone,
        "ward": patient.ward,
        "encounters": encounters,
    }


async def register(request: Request) -> JSONResponse:
    """Register a patient."""
    given = await request.json()
    given["born"] = dt.date.fromisoformat(given["born"])
    async with session_of(request) as session:
        patient = Patient(**given)
        session.add(patient)
        await session.flush()
        await sa_audit.asyncio.record(session, "patient.registered", target=patient)
        await session.commit()
        return JSONResponse({"id": patient.id}, status_code=201)


async def change(request: Request) -> JSONResponse:
    """Change what may be changed of a patient."""
    given = await request.json()
    async with session_of(request) as session:
        patient = await session.get_one(Patient, request.path_params["id"])
        for name in CHANGEABLE:
            if name in given:
                setattr(patient, name, given[name])
        patient.seen_at = dt.datetime.now(dt.UTC)
        await session.commit()
    return JSONResponse({"changed": sorted(set(given) & set(CHANGEABLE))})


async def add_encounter(request: Request) -> JSONResponse:
    """Add an encounter to a chart."""
    given = await request.json()
    async with session_of(request) as session:
        encounter = Encounter(patient_id=request.path_params["id"], at=dt.datetime.now(dt.UTC), **given)
        session.add(encounter)
        await session.commit()
        return JSONResponse({"id": encounter.id}, status_code=201)


async def erase_person(request: Request) -> JSONResponse:
    """Make a patient nobody: what stands in the clinic's own tables is overwritten, then the person's key destroyed.

    The library destroys the key and so what the history holds; the rows of the application are its own affair.  They
    are overwritten first, since a later change of one would be recorded under a new key.
    """
    key = request.path_params["id"]
    async with session_of(request) as session:
        patient = await session.get_one(Patient, key, options=[selectinload(Patient.encounters)])
        patient.name = "(erased)"
        patient.born = patient.address = patient.phone = patient.national_id = patient.portal_password = None
        for encounter in patient.encounters:
            encounter.note = encounter.diagnosis = None
        done = await sa_audit.asyncio.erase(session, key)
        await session.commit()
    return JSONResponse({"effective_at": done.effective_at.isoformat(), "remains": done.remains})
