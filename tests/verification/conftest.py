"""One sealed trail for each database and worker, attacked by test after test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import databases, servers
from tests.databases import CAPABILITIES, Database
from tests.verification.sealed import Sealed


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for a sealed trail on all databases, or on those that its `only_on` mark names."""
    if "sealed" in metafunc.fixturenames or "fresh" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("only_on")
        names = databases.parameters(every_server=False, only=mark.args if mark else ())
        metafunc.parametrize("place", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def place(
    request: pytest.FixtureRequest,
    find_database: Callable[[str, Path], Database],
    tmp_path_factory: pytest.TempPathFactory,
) -> Database:
    """The worker's database."""
    try:
        return find_database(request.param, tmp_path_factory.mktemp("sealed"))
    except servers.Unavailable as error:
        if request.param in databases.required():
            pytest.fail(f"{request.param} is required: {error}", pytrace=False)
        pytest.skip(f"{request.param}: {error}")


@pytest.fixture(scope="session")
def _made() -> Iterator[dict[str, Sealed]]:
    made: dict[str, Sealed] = {}
    yield made
    for sealed in made.values():
        sealed.engine.dispose()


@pytest.fixture
def sealed(
    request: pytest.FixtureRequest,
    place: Database,
    _made: dict[str, Sealed],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sealed]:
    """The trail as it was sealed; what a test does to its rows is undone behind it."""
    _require(request, place)
    found = _made.get(place.name)
    if found is None or not found.stands():
        found = _made[place.name] = Sealed.make(place, tmp_path_factory.mktemp("sealer"))
    yield found
    try:
        found.undo()
    except Exception:
        del _made[place.name]  # it is made anew
        raise


@pytest.fixture
def fresh(
    request: pytest.FixtureRequest, place: Database, _made: dict[str, Sealed], tmp_path: Path
) -> Iterator[Sealed]:
    """A sealed trail of the test's own, whose tables it may change."""
    _require(request, place)
    known = _made.pop(place.name, None)
    if known is not None:
        known.engine.dispose()
    made = Sealed.make(place, tmp_path)
    yield made
    made.engine.dispose()


def _require(request: pytest.FixtureRequest, place: Database) -> None:
    for capability in (capability for mark in request.node.iter_markers("needs") for capability in mark.args):
        if capability not in place.capabilities:
            pytest.skip(f"{place.name} has no {CAPABILITIES[capability]}")
