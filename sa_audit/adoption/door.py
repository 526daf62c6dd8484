"""The guard of inserted entries, lifted for an import and put back: only the owner of the trail can.

An imported entry is dated by the tool that wrote it, and the guards date every entry by the database's clock.
Where DDL is part of a transaction, the guard is lifted and put back inside of it, so that nobody else ever sees it
lifted.  MariaDB commits DDL: there the guard is replaced by one that refuses every connection but the import's, and if
that is broken off it goes on refusing, until the import is run again or a migration mends the guard.

One class for each database, chosen by name.  Imports ddl, model, errors and SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject, backend_for
from ..ddl.backend import internal
from ..ddl.events import run, schemas_of
from ..ddl.mysql_guards import IMPORTING, MariaDBGuards
from ..errors import CaptureMissing
from ..model import Trail


class Door:
    """How the guard is lifted on one database.

    Args:
        connection: the connection that imports; not in a transaction.
        trail: the trail.
        histories: the history tables to be written.
    """

    def __init__(self, connection: Connection, trail: Trail, histories: Sequence[sa.Table]) -> None:
        self.connection = connection
        self.trail = trail
        self.histories = histories
        self.backend = backend_for(connection.dialect)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Do what has to be done around all of the import's transactions."""
        yield

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the guard within a transaction of the import.

        Raises:
            CaptureMissing: if the guard is not there, or can't be put back as it was.
        """
        yield

    def _guard(self, table: sa.Table) -> TrailObject:
        """Give the guard of inserted rows that should stand on a table of the trail."""
        schemas, default = schemas_of(self.connection), self.connection.dialect.default_schema_name
        objects = self.backend.guard_objects(table, self.trail, schemas, default)
        return next(entry for entry in objects if entry.name.endswith("_insert"))

    def _one(self, sql: str, **parameters: Any) -> Any:
        return internal(self.connection, sa.text(sql), parameters).one_or_none()

    def _require(self, found: Any, guard: TrailObject) -> Any:
        if found is None:
            raise CaptureMissing(f"{guard.label} is not there: run the migration that mends it, and then import")
        return found


def _not_back(guard: TrailObject) -> CaptureMissing:
    return CaptureMissing(f"{guard.label} could not be put back as it was, so nothing was imported: mend it first")


class PostgreSQLDoor(Door):
    """PostgreSQL: the trigger is disabled, which locks writers out until the transaction ends."""

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """See :meth:`Door.lifted`; the guard of history rows stays, since they fit their entry."""
        guard = self._guard(self.trail.transaction)
        on = self.backend.quote(guard.schema or "public") + "." + self.backend.quote(guard.table or "")
        before = self._require(self._look(guard), guard)
        run(self.connection, [f"ALTER TABLE {on} DISABLE TRIGGER {guard.name}"])
        yield
        kind = {"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}.get(before.enabled, "ENABLE")
        run(self.connection, [f"ALTER TABLE {on} {kind} TRIGGER {guard.name}"])
        if self._look(guard) != before or before.enabled == "D":
            raise _not_back(guard)

    def _look(self, guard: TrailObject) -> Any:
        return self._one(
            "SELECT CAST(t.tgenabled AS text) AS enabled, pg_get_triggerdef(t.oid) AS text, p.prosrc AS body"
            " FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_proc AS p ON p.oid = t.tgfoid"
            " WHERE n.nspname = :schema AND c.relname = :table AND t.tgname = :name",
            schema=guard.schema,
            table=guard.table,
            name=guard.name,
        )


class SQLiteDoor(Door):
    """SQLite: the triggers are dropped and made again from their own text; there is no other writer."""

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """See :meth:`Door.lifted`; history rows are lifted too, since they come after their entries."""
        guards = [self._guard(table) for table in (self.trail.transaction, *self.histories)]
        before = [self._require(self._look(guard), guard) for guard in guards]
        for guard in guards:
            run(self.connection, guard.drop)
        yield
        for (text,) in before:
            self.connection.exec_driver_sql(text, execution_options={"sa_audit_internal": True})
        for guard, found in zip(guards, before, strict=True):
            if self._look(guard) != found:
                raise _not_back(guard)

    def _look(self, guard: TrailObject) -> Any:
        prefix = f"{self.backend.quote(guard.schema)}." if guard.schema else ""
        return self._one(
            f"SELECT sql FROM {prefix}sqlite_master WHERE type = 'trigger' AND name = :name", name=guard.name
        )


class MariaDBDoor(Door):
    """MariaDB: the trigger is replaced, in one step of the server's, by one that lets this connection in alone."""

    @contextmanager
    def around(self) -> Iterator[None]:
        """See :meth:`Door.around`; what a broken-off import has left is replaced, too."""
        guard = self._guard(self.trail.transaction)
        before = self._require(self._look(guard), guard)
        if before != self._body(guard) and IMPORTING not in before:
            raise CaptureMissing(f"{guard.label} is not the one of this release: run the migration that mends it first")
        number = internal(self.connection, sa.text("SELECT CONNECTION_ID()")).scalar()
        self.connection.rollback()
        self._replace(self._import_guard(int(number)))
        try:
            yield
        finally:
            self._replace(guard)

    def _import_guard(self, number: int) -> TrailObject:
        if not isinstance(self.backend, MariaDBGuards):
            raise TypeError(f"{self.backend!r} is not MariaDB's")
        return self.backend.import_guard(self.trail, schemas_of(self.connection), number)

    def _replace(self, guard: TrailObject) -> None:
        """Replace the guard on a connection of its own, also when the import's was lost."""
        with self.connection.engine.connect() as other:
            run(other, [text.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1) for text in guard.create])
            other.commit()
            found = self._read(other, guard)
        if found != self._body(guard):
            raise CaptureMissing(f"{guard.label} could not be put in place: mend it by a migration, or import again")

    def _look(self, guard: TrailObject) -> Any:
        return self._read(self.connection, guard)

    def _read(self, connection: Connection, guard: TrailObject) -> str | None:
        statement = sa.text(
            "SELECT ACTION_STATEMENT FROM information_schema.TRIGGERS"
            " WHERE TRIGGER_SCHEMA = coalesce(:schema, DATABASE()) AND TRIGGER_NAME = :name"
        )
        found = internal(connection, statement, {"schema": guard.schema, "name": guard.name}).scalar()
        return None if found is None else str(found).strip()

    def _body(self, guard: TrailObject) -> str:
        return guard.definition.removeprefix("BEFORE INSERT ").strip()


def door_of(connection: Connection, trail: Trail, histories: Sequence[sa.Table]) -> Door:
    """Give the door of a connection's database."""
    known: dict[str, type[Door]] = {"postgresql": PostgreSQLDoor, "sqlite": SQLiteDoor, "mariadb": MariaDBDoor}
    return known[backend_for(connection.dialect).name](connection, trail, histories)
