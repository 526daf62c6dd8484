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
        present = _Present(connection)
        for trail, table in _tables_of(trails, present):
            _execute(trail, table, present, lift=True)
    token = lifted.set((str(engine.url), frozenset(map(id, trails))))
    try:
        yield
    finally:
        lifted.reset(token)
        with engine.begin() as connection:
            present = _Present(connection)
            for trail, table in _tables_of(trails, present):
                _execute(trail, table, present, lift=True)
                _execute(trail, table, present, lift=False)


def _is_test(trail: Trail) -> bool:
    return trail.configuration.testing or os.environ.get("SA_AUDIT_TESTING") == "1"


def _trails_of_tests(connection: Connection) -> list[Trail]:
    """Give the trails in this database that are a test's; all that are one, where no trail is there.

    Raises:
        ConfigurationError: if there is none.
    """
    known, present = known_trails(), _Present(connection)
    here = [trail for trail in known if any(present.has(audited.history) for audited in trail.audited.values())]
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


class _Present:
    """Which tables are in the database: the names of each schema are read once, however many are asked about."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._inspector = sa.inspect(connection)
        self._schemas = schemas_of(connection)
        self._names: dict[str | None, set[str]] = {}

    def has(self, table: sa.Table) -> bool:
        """Tell whether a table is there; servers differ in the case of names, and so the table itself is asked for."""
        schema = self._schemas.get(table.schema, table.schema)
        if schema not in self._names:
            self._names[schema] = self._read(schema)
        return table.name.lower() in self._names[schema] and self._inspector.has_table(table.name, schema=schema)

    def _read(self, schema: str | None) -> set[str]:
        if schema is not None and schema not in self._inspector.get_schema_names():
            return set()
        return {name.lower() for name in self._inspector.get_table_names(schema=schema)}


def _tables_of(trails: list[Trail], present: _Present) -> Iterator[tuple[Trail, sa.Table]]:
    """Give the tables of some trails that are there, but for those that they share with a trail of no test."""
    real = {trail for trail in noted_trails(present.connection.dialect) if not _is_test(trail)}
    shared = {table.fullname for trail in real for table in (*trail.fixed, *trail.records, *trail.secrets_tables)}
    seen: set[str] = set()
    for trail in trails:
        histories = [audited.history for audited in trail.audited.values()]
        for table in [*histories, *trail.secrets_tables, *trail.records, *trail.fixed]:
            if table.fullname not in seen | shared and present.has(table):
                seen.add(table.fullname)
                yield trail, table


def _execute(trail: Trail, table: sa.Table, present: _Present, *, lift: bool) -> None:
    connection = present.connection
    backend = backend_for(connection.dialect)
    schemas, default = schemas_of(connection), connection.dialect.default_schema_name
    if lift:
        run(connection, backend.unguards(table, schemas, default))
    else:
        run(connection, backend.guards(table, trail, schemas, default))
    audited = table.info.get(AUDITED)
    if isinstance(audited, AuditedTable) and audited.by_trigger and present.has(audited.table):
        fixtures = [entry for entry in backend.capture(audited, schemas, default) if entry.fixture]
        run(connection, dropped(fixtures) if lift else replacing(fixtures))
