"""Whatever is written, in whichever way and however interleaved: the trail has it exactly, and the past stays.

`SA_AUDIT_HYPOTHESIS=thorough` runs many long examples, and looks at everything after each step.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event

from tests.databases import Database
from tests.property.checks import Ground
from tests.property.machine import Machine
from tests.property.models import Base

pytestmark = [pytest.mark.both_captures, pytest.mark.wide_on("mariadb")]

FIRST_WORDS: dict[str, tuple[str, ...]] = {
    "postgresql": ("SET lock_timeout = '20ms'",),
    "mariadb": ("SET SESSION innodb_lock_wait_timeout = 0",),
    "sqlite": ("PRAGMA foreign_keys = ON", "PRAGMA synchronous = OFF"),
}
"""What a session says first: where others can hold it up, that it gives up at once; on SQLite, to mind foreign keys."""

COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
    "report_multiple_bugs": False,
}
QUICK = settings(
    **COMMON,
    max_examples=6,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink],
)
"""Always the same examples; a failing one is shown as it is, since to make it smaller can take minutes."""
EXAMPLES = int(os.environ.get("SA_AUDIT_HYPOTHESIS_EXAMPLES", "60"))
THOROUGH = settings(**COMMON, max_examples=EXAMPLES, stateful_step_count=50)


@pytest.fixture
def ground(database: Database, make_engine: Callable[..., sa.Engine]) -> Ground:
    """The models' tables in an empty database, with an engine for the sessions under test and one for the checks."""
    engine = make_engine()

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for statement in FIRST_WORDS[database.dialect]:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    Base.metadata.create_all(engine)
    thorough = os.environ.get("SA_AUDIT_HYPOTHESIS") == "thorough"
    with engine.connect() as connection:
        repeatable = connection.get_isolation_level() == "REPEATABLE READ"
    return Ground(database=database, engine=engine, reader=make_engine(), thorough=thorough, repeatable=repeatable)


@pytest.mark.session_capture("triggers refuse what MariaDB's foreign keys would do in one table", on="mariadb")
@pytest.mark.filterwarnings("ignore:Dialect sqlite.*does .not. support Decimal:sqlalchemy.exc.SAWarning")
def test_the_trail_tells_what_was_done(ground: Ground) -> None:
    """After every step, history, blame, diff and as_of at every moment are what an oracle in memory says."""
    profile = THOROUGH if ground.thorough else QUICK
    machine: Any = partial(Machine, ground)
    run_state_machine_as_test(machine, settings=profile)
    assert ground.counts["commit"] >= ground.counts["example"]
    assert ground.counts["step"] > 4 * ground.counts["example"]
