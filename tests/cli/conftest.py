"""A database with the ledger's tables and some history, and a way to run commands on it."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from typer.testing import CliRunner, Result

import sa_audit
from sa_audit.cli.app import app
from tests.databases import Database
from tests.standing import Tables

from . import ledger
from .ledger import Item, Line, Token, Truck

MODELS = "tests.cli.ledger:Base"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs one command in this process, with no settings from outside."""
    for name in ("SA_AUDIT_URL", "COLUMNS", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@dataclass(frozen=True, slots=True)
class Ledger:
    """A filled database.

    Attributes:
        url: for ``--url``.
        engine: the same.
        moments: moments between the transactions, as texts; each sees what was committed before it.
        invoke: runs a command on this database.
    """

    url: str
    engine: sa.Engine
    moments: list[str]
    invoke: Callable[..., Result]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command, and give its output."""
        result = self.invoke(*arguments, "--url", self.url, "--models", MODELS)
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``, and give what it printed."""
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def ledger_database(database: Database, engine: sa.Engine, tables: Tables, run: Callable[..., Result]) -> Ledger:
    """The ledger, with four transactions by two actors."""
    tables(engine, ledger.Base.metadata)
    moments = [_now(engine)]
    for actor, reason, work in (
        ("clerk:1", "start", _first),
        ("clerk:2", "price rise", _second),
        ("clerk:1", "cleared", _third),
        ("clerk:2", None, _fourth),
    ):
        with sa_audit.context(actor=actor, reason=reason, branch="Oslo"), orm.Session(engine) as session:
            work(session)
            session.commit()
        moments.append(_now(engine))
    url = database.url.render_as_string(hide_password=False)
    return Ledger(url, engine, moments, run)


def _first(session: orm.Session) -> None:
    session.add_all(
        [Item(id=1, name="nail", price=5, pin="p1", seen=1), Item(id=2, name="saw \x1b[31m[red]", price=90)]
    )
    session.add_all([Line(order=7, number="a,b", text="x"), Token(id=uuid.UUID(int=7), day=dt.date(2026, 3, 31))])
    session.add(Truck(id=1, wheels=6, load=10))
    session.execute(sa.insert(ledger.rate).values(code="EUR", day=dt.date(2026, 1, 1), value=11))


def _second(session: orm.Session) -> None:
    item = session.get_one(Item, 1)
    item.price, item.pin = 6, "p2"
    session.get_one(Truck, 1).load = 12


def _third(session: orm.Session) -> None:
    session.delete(session.get_one(Item, 2))


def _fourth(session: orm.Session) -> None:
    session.get_one(Item, 1).price = 7


def _now(engine: sa.Engine) -> str:
    """Give a moment by the clock that the trail of this database goes by."""
    if engine.dialect.name == "sqlite":
        return dt.datetime.now(dt.UTC).isoformat()
    clock = {"postgresql": "clock_timestamp() AT TIME ZONE 'UTC'"}.get(engine.dialect.name, "UTC_TIMESTAMP(6)")
    with engine.connect() as connection:
        found: dt.datetime = connection.execute(sa.text(f"SELECT {clock}")).scalar_one()
    return found.replace(tzinfo=dt.UTC).isoformat()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file with the ledger's empty tables."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    engine = sa.create_engine(url)
    ledger.Base.metadata.create_all(engine)
    engine.dispose()
    return url
