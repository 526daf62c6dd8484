"""Fixtures that keep tables standing between tests, since making guarded tables costs more than most tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.model import trail_of
from tests import databases, servers
from tests.databases import CAPABILITIES, Database
from tests.standing import stand

Fill = Callable[[Session], None]


@dataclass(slots=True)
class Standing:
    """A worker's database in which the tables of one MetaData stand from test to test.

    Attributes:
        database: the database.
        engine: an engine to it, the same for all tests.
        untouched: whether the last test left the tables as it found them; if not, they are made anew.
    """

    database: Database
    engine: sa.Engine
    untouched: bool = False
    metadata: list[sa.MetaData] = field(default_factory=list)
    captures: list[bool] = field(default_factory=list)

    def has(self, capability: str) -> bool:
        """Tell whether the database has one of `CAPABILITIES`."""
        assert capability in CAPABILITIES
        return capability in self.database.capabilities

    def make(self, *metadata: sa.MetaData, fill: Fill | None = None) -> sa.Engine:
        """Have the tables of these MetaData stand, filled by the actor "seed".

        A test that commits has to say so, by setting ``untouched`` to False.
        """
        captures = [trail is not None and trail.captures for trail in map(trail_of, metadata)]
        known = self.metadata == list(metadata) and self.captures == captures
        if self.untouched and known and self._are_there():
            return self.engine
        self.engine.dispose()
        if len(metadata) == 1:
            stand(self.database, self.engine, metadata[0])
        else:
            self.database.renew()
            for one in metadata:
                one.create_all(self.engine)
        self.metadata, self.captures, self.untouched = list(metadata), captures, True
        if fill is not None:
            with sa_audit.context(actor="seed"), Session(self.engine) as session:
                fill(session)
                session.commit()
        return self.engine

    def _are_there(self) -> bool:
        try:
            with self.engine.connect() as connection:
                return all(
                    connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)) is not None
                    for metadata in self.metadata
                    for table in metadata.sorted_tables[:1]
                )
        except sa.exc.DBAPIError:
            self.engine.dispose()
            return False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for standing tables on all databases, or on those that its `only_on` mark names."""
    if "standing" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("only_on")
        names = databases.parameters(every_server=False, only=mark.args if mark else ())
        metafunc.parametrize("standing", names, indirect=True)


@pytest.fixture(scope="session")
def _standings() -> Iterator[dict[str, Standing]]:
    found: dict[str, Standing] = {}
    yield found
    for standing in found.values():
        standing.engine.dispose()


@pytest.fixture
def standing(
    request: pytest.FixtureRequest,
    _standings: dict[str, Standing],
    find_database: Callable[[str, Path], Database],
    tmp_path_factory: pytest.TempPathFactory,
) -> Standing:
    """The worker's database with tables that stay; the test is skipped where it lacks a needed capability."""
    name: Any = request.param
    if name not in _standings:
        try:
            database = find_database(name, tmp_path_factory.mktemp("standing"))
        except servers.Unavailable as error:
            if name in databases.required():
                pytest.fail(f"{name} is required: {error}", pytrace=False)
            pytest.skip(f"{name}: {error}")
        _standings[name] = Standing(database, sa.create_engine(database.url))
    found = _standings[name]
    for capability in (capability for mark in request.node.iter_markers("needs") for capability in mark.args):
        if not found.has(capability):
            pytest.skip(f"{name} has no {CAPABILITIES[capability]}")
    return found
