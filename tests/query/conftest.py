"""A database with the models of these tests, and sessions to it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from tests.standing import Tables

from .models import Base


@pytest.fixture
def bank(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine whose database holds the tables of the models; foreign keys act on SQLite, too."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _enforce(connection: Any, record: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    tables(engine, Base.metadata)
    return engine


@pytest.fixture
def open_session(bank: sa.Engine) -> Iterator[Callable[[], Session]]:
    """Return a function that opens sessions, closed after the test."""
    make, opened = sessionmaker(bank), []

    def open_() -> Session:
        opened.append(make())
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session: Callable[[], Session]) -> Session:
    """A session."""
    return open_session()


@pytest.fixture
def tick() -> Callable[[], dt.datetime]:
    """Return a function that gives a moment between what was recorded before and what will be after it."""

    def now() -> dt.datetime:
        time.sleep(0.003)
        moment = dt.datetime.now(dt.UTC)
        time.sleep(0.003)
        return moment

    return now
