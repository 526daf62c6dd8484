"""For the users' own tests: lift the guards for fixtures.

Imports model and ddl.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .ddl import backend_for
from .ddl.backend import noted_trails
from .ddl.events import lifted, run, schemas_of
from .ddl.objects import dropped, replacing
from .errors import ConfigurationError
from .model.history import AUDITED, AuditedTable, Trail, known_trails

__all__ = ["unguarded"]


@contextmanager
def unguarded(engine: Engine) -> Iterator[None]:
    """Lift the guards of the trail while the block runs.

    Fixtures can then clear it with ``drop_all()``, ``delete()`` or TRUNCATE.  The guards of the tables that are
    still there come back at the end, also after an error.  Another trail in the same database, of which nobody said
    that it is a test's, stays guarded, and so do the tables that it shares with this one.

    Args:
        engine: the engine of the test's database.

    Raises:
        ConfigurationError: unless ``configure(testing=True)`` for the models whose trail is there, or the
            environment's ``SA_AUDIT_TESTING=1``, says that this is a test.
    """
    with engine.begin() as connection:
        trails = _trails_of_tests(connection)
        for trail, table in _present(connection, trails):
            _execute(connection, trail, table, lift=True)
    token = lifted.set((str(engine.url), frozenset(map(id, trails))))
    try:
        yield
    finally:
        lifted.reset(token)
        with engine.begin() as connection:
            for trail, table in _present(connection, trails):
                _execute(connection, trail, table, lift=True)
                _execute(connection, trail, table, lift=False)


def _is_test(trail: Trail) -> bool:
    return trail.configuration.testing or os.environ.get("SA_AUDIT_TESTING") == "1"


def _trails_of_tests(connection: Connection) -> list[Trail]:
    """Give the trails in this database that are a test's; all that are one, where no trail is there.

    Raises:
        ConfigurationError: if there is none.
    """
    known = known_trails()
    here = [trail for trail in known if any(_stands(connection, audited.history) for audited in trail.audited.values())]
    noted = noted_trails(connection.dialect)
    here = [trail for trail in here if trail in noted] or here
    tests = [trail for trail in here or known if _is_test(trail)]
    if not tests:
        names = sorted({audited.table.fullname for trail in here for audited in trail.audited.values()})
        raise ConfigurationError(
            "unguarded() lifts the protection of the trail and is for tests: say that this is one, by "
            "configure(base, testing=True) or SA_AUDIT_TESTING=1 in the environment"
            + (f"; the trail in this database is that of {', '.join(names)}" if names else "")
        )
    return tests


def _stands(connection: Connection, table: sa.Table) -> bool:
    schema = schemas_of(connection).get(table.schema, table.schema)
    return sa.inspect(connection).has_table(table.name, schema=schema)


def _present(connection: Connection, trails: list[Trail]) -> Iterator[tuple[Trail, sa.Table]]:
    """Give the tables of some trails that are there, but for those that they share with a trail of no test."""
    real = {trail for trail in noted_trails(connection.dialect) if not _is_test(trail)}
    shared = {table.fullname for trail in real for table in (*trail.fixed, *trail.records, *trail.secrets_tables)}
    seen: set[str] = set()
    for trail in trails:
        histories = [audited.history for audited in trail.audited.values()]
        for table in [*histories, *trail.secrets_tables, *trail.records, *trail.fixed]:
            if table.fullname not in seen | shared and _stands(connection, table):
                seen.add(table.fullname)
                yield trail, table


def _execute(connection: Connection, trail: Trail, table: sa.Table, *, lift: bool) -> None:
    backend = backend_for(connection.dialect)
    schemas, default = schemas_of(connection), connection.dialect.default_schema_name
    if lift:
        run(connection, backend.unguards(table, schemas, default))
    else:
        run(connection, backend.guards(table, trail, schemas, default))
    audited = table.info.get(AUDITED)
    if isinstance(audited, AuditedTable) and audited.by_trigger and _stands(connection, audited.table):
        fixtures = [entry for entry in backend.capture(audited, schemas, default) if entry.fixture]
        run(connection, dropped(fixtures) if lift else replacing(fixtures))
