"""Fixtures that hand each test an empty database and engines to it; `tests/databases.py` says which there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests import databases, servers
from tests.captures import captured_by, default_capture
from tests.databases import CAPABILITIES, Database, Server
from tests.standing import Tables, stand

_run_directory = pytest.StashKey[Path | None]()


def pytest_configure(config: pytest.Config) -> None:
    """Open the run whose servers all workers share; tests keep their files beside the servers' if that is in memory."""
    directory = config.stash[_run_directory] = servers.open_run()
    if directory is not None and directory.is_relative_to(servers.MEMORY) and config.option.basetemp is None:
        config.option.basetemp = directory / "files"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's servers in the process that opened it."""
    directory = config.stash.get(_run_directory, None)
    if directory is not None:
        servers.close_run(directory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for a database on all of them, or on those that its `only_on` mark names.

    On the oldest server of a kind, and on the kinds that its `wide_on` mark names, a test is wide.
    A test with the mark `both_captures` runs with session capture and, as a slow one unless `always=True`, with trigger
    capture, if it has not the mark `session_capture` as well.
    """
    closest = metafunc.definition.get_closest_marker
    alone = closest("session_capture")
    both = closest("both_captures")
    if both is not None and (alone is None or alone.kwargs):
        slow = () if both.kwargs.get("always") else (pytest.mark.slow,)
        metafunc.parametrize("capture", ["session", pytest.param("trigger", marks=slow)], indirect=True)
    if any(each.baseid != "tests" for each in metafunc._arg2fixturedefs.get("tables", ())):
        raise pytest.UsageError(f"{metafunc.module.__name__} has a fixture `tables` of its own: give it another name")
    if "database" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("only_on")
    every_server = metafunc.definition.get_closest_marker("every_server") is not None
    names = databases.parameters(every_server=every_server, only=mark.args if mark else ())
    wide = {kind for mark in metafunc.definition.iter_markers("wide_on") for kind in mark.args}
    wide |= set() if databases.all_servers() else {name for name in names if name.endswith("-oldest")}
    marks = {name: (pytest.mark.wide,) if name in wide else () for name in names}
    metafunc.parametrize("database", [pytest.param(name, marks=marks[name]) for name in names], indirect=True)


@pytest.fixture(autouse=True)
def capture(request: pytest.FixtureRequest) -> Iterator[str]:
    """Who writes the history of models that don't say so: "session", or "trigger"."""
    mode: str = getattr(request, "param", default_capture())
    alone = request.node.get_closest_marker("session_capture")
    if alone is not None and not alone.kwargs:
        mode = "session"
    elif alone is not None and mode == "trigger" and alone.kwargs["on"] in str(request.node.callspec.params):
        pytest.skip(alone.args[0])
    with captured_by(mode):
        yield mode


@pytest.fixture
def database(
    request: pytest.FixtureRequest, tmp_path: Path, find_database: Callable[[str, Path], Database]
) -> Database:
    """An empty database of the test's own; the test is skipped where it needs a capability that the database lacks."""
    name = request.param
    try:
        found = find_database(name, tmp_path)
    except servers.Unavailable as error:
        if name in databases.required():
            pytest.fail(f"{name} is required: {error}", pytrace=False)
        pytest.skip(f"{name}: {error}")
    for capability in (capability for mark in request.node.iter_markers("needs") for capability in mark.args):
        if capability not in CAPABILITIES:
            raise pytest.UsageError(f"unknown capability {capability!r}; there are: {', '.join(CAPABILITIES)}")
        if capability not in found.capabilities:
            pytest.skip(f"{name} has no {CAPABILITIES[capability]}")
    if "tables" not in request.fixturenames:
        found.renew()
    return found


@pytest.fixture
def tables(database: Database, capture: str) -> Iterator[Tables]:
    """Return a function with which a fixture makes a module's tables in the empty database, before all else.

    It does what `create_all()` does, which it calls the first time; from then on the worker has a copy of the database
    where that is faster. It is for tests of what is recorded, not of how its tables come to be.
    """
    called = False

    def make(engine: sa.Engine, metadata: sa.MetaData) -> None:
        nonlocal called
        assert not called, "the tables of one MetaData only"
        called = True
        stand(database, engine, metadata)

    yield make
    assert called, "the database was not emptied, since the fixture `tables` was asked for and not called"


@pytest.fixture(scope="session")
def find_database(worker_id: str) -> Iterator[Callable[[str, Path], Database]]:
    """Return a function that gives the worker's database of a name, not yet emptied; dropped after the last test."""
    worker = f"{servers.run_name()}_{worker_id}"
    found: dict[str, Server] = {}

    def find(name: str, directory: Path) -> Database:
        if name == "sqlite":
            return databases.sqlite_database(directory)
        if name not in found:
            found[name] = databases.find_server(name)
        return found[name].database(name, worker)

    yield find
    for server in found.values():
        server.close(worker)


@pytest.fixture
def other_schema(database: Database) -> str:
    """The name of a second, empty schema (on MariaDB, a second database)."""
    if database.other_schema is None:
        pytest.skip(f"{database.name} has no {CAPABILITIES['schemas']}")
    engine = sa.create_engine(database.url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(database.other_schema))
    engine.dispose()
    return database.other_schema


@pytest.fixture
def make_engine(database: Database) -> Iterator[Callable[..., sa.Engine]]:
    """Return a function that makes engines to the test's database, as `create_engine` does with these options."""
    engines: list[sa.Engine] = []

    def make(**options: Any) -> sa.Engine:
        engines.append(sa.create_engine(database.url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def connect_as(database: Database) -> Iterator[Callable[[sa.URL], sa.Engine]]:
    """Return a function that makes an engine to a URL, such as that of another account; asked for before accounts."""
    engines: list[sa.Engine] = []

    def make(url: sa.URL) -> sa.Engine:
        engines.append(sa.create_engine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., sa.Engine]) -> sa.Engine:
    """An engine to the test's database, with no options."""
    return make_engine()


@pytest.fixture
async def make_async_engine(database: Database) -> AsyncIterator[Callable[..., AsyncEngine]]:
    """Return a function that makes async engines; `driver` is a key of `Database.async_urls`, by default the first."""
    engines: list[AsyncEngine] = []

    def make(driver: str | None = None, **options: Any) -> AsyncEngine:
        url = database.async_urls[driver or next(iter(database.async_urls))]
        engines.append(create_async_engine(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def async_engine(make_async_engine: Callable[..., AsyncEngine]) -> AsyncEngine:
    """An async engine to the test's database, with the usual driver and no options."""
    return make_async_engine()
