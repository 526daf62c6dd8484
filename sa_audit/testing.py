"""For the users' own tests: lift the guards for fixtures.

Imports model and ddl.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .ddl import backend_for
from .ddl.capture import created, dropped
from .ddl.events import run, schemas_of
from .ddl.events import unguarded as _unguarded
from .errors import ConfigurationError
from .model.history import AUDITED, AuditedTable, Trail, known_trails

__all__ = ["unguarded"]


@contextmanager
def unguarded(engine: Engine) -> Iterator[None]:
    """Lift the guards of the trail while the block runs.

    Fixtures can then clear it with ``drop_all()``, ``delete()`` or TRUNCATE.  The guards of the tables that are
    still there come back at the end, also after an error.

    Args:
        engine: the engine of the test's database.

    Raises:
        ConfigurationError: unless ``configure(testing=True)`` or the environment's ``SA_AUDIT_TESTING=1`` says that
            this is a test.
    """
    trails = [trail for trail in known_trails() if _is_test(trail)]
    if not trails:
        raise ConfigurationError(
            "unguarded() lifts the protection of the trail and is for tests: say that this is one, by "
            "configure(base, testing=True) or SA_AUDIT_TESTING=1 in the environment"
        )
    with engine.begin() as connection:
        for trail, table in _present(connection, trails):
            _execute(connection, trail, table, lift=True)
    token = _unguarded.set(True)
    try:
        yield
    finally:
        _unguarded.reset(token)
        with engine.begin() as connection:
            for trail, table in _present(connection, trails):
                _execute(connection, trail, table, lift=True)
                _execute(connection, trail, table, lift=False)


def _is_test(trail: Trail) -> bool:
    return trail.configuration.testing or os.environ.get("SA_AUDIT_TESTING") == "1"


def _present(connection: Connection, trails: list[Trail]) -> Iterator[tuple[Trail, sa.Table]]:
    inspector = sa.inspect(connection)
    schemas = schemas_of(connection)
    seen: set[Any] = set()
    for trail in trails:
        histories = [audited.history for audited in trail.audited.values()]
        for table in [*histories, trail.transaction, trail.column]:
            schema = schemas.get(table.schema, table.schema)
            if (schema, table.name) not in seen and inspector.has_table(table.name, schema=schema):
                seen.add((schema, table.name))
                yield trail, table


def _execute(connection: Connection, trail: Trail, table: sa.Table, *, lift: bool) -> None:
    backend = backend_for(connection.dialect)
    schemas, default = schemas_of(connection), connection.dialect.default_schema_name
    if lift:
        run(connection, backend.unguards(table, schemas, default))
    else:
        run(connection, backend.guards(table, trail, schemas, default))
    audited = table.info.get(AUDITED)
    if isinstance(audited, AuditedTable) and audited.by_trigger and _is_there(connection, audited.table):
        fixtures = [entry for entry in backend.capture(audited, schemas, default) if entry.fixture]
        run(connection, dropped(fixtures) if lift else created(fixtures))


def _is_there(connection: Connection, table: sa.Table) -> bool:
    schema = schemas_of(connection).get(table.schema, table.schema)
    return sa.inspect(connection).has_table(table.name, schema=schema)
