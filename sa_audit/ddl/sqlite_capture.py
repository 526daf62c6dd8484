"""SQLite: trigger capture: what stands in the database for it, and how a session says who it is.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from ..model.history import AuditedTable, RecordedColumn, Trail
from ..model.stored import COMPARED
from ..model.types import UTCDateTime
from .backend import Entry, SchemaMap, Target, claim_parameters, internal, moment_parameter
from .objects import TrailObject, dropped
from .sqlite_capture_text import (
    CONTEXT,
    SUFFIXES,
    hush_text,
    refuse_elsewhere,
    shared_objects,
    table_objects,
    tell_text,
)
from .sqlite_guards import SQLiteGuards
from .sqlite_types import json_form


class SQLiteCapture(SQLiteGuards):
    """What lets SQLite record by itself."""

    # -- trigger capture -----------------------------------------------------------

    tells_always = True
    selects_write = False

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the table in which a writer says who he is."""
        place = schemas.get(trail.transaction.schema, trail.transaction.schema)
        return shared_objects(place, self._names(trail.transaction, schemas)[0])

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the table in which writers said who they are."""
        return dropped(self.capture_shared(trail, schemas, default_schema))

    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give a table's triggers."""
        tables = (audited.table, audited.history, audited.trail.transaction)
        own, *others = (schemas.get(table.schema, table.schema) for table in tables)
        refuse_elsewhere(audited, own, *others)
        return table_objects(self, audited, own, self._names(audited.table, schemas)[0])

    def capture_is_late(self, connection: Connection, audited: AuditedTable, schemas: SchemaMap) -> bool:
        """Tell whether triggers of the table were made after ours: SQLite fires the newest first."""
        prefix, _name = self._names(audited.table, schemas)
        mine = [f"{audited.table.name}_capture_{suffix}" for suffix in SUFFIXES]
        statement = sa.text(
            f"SELECT 1 FROM {prefix}sqlite_master AS s WHERE s.type = 'trigger' AND s.tbl_name = :name "
            f"AND substr(s.name, 1, length(:start)) <> :start AND s.rowid > (SELECT min(m.rowid) "
            f"FROM {prefix}sqlite_master AS m WHERE m.type = 'trigger' AND m.name IN :mine) LIMIT 1"
        ).bindparams(sa.bindparam("mine", expanding=True))
        parameters = {"name": audited.table.name, "mine": mine, "start": f"{audited.table.name}_capture_"}
        return internal(connection, statement, parameters).first() is not None

    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Look for the triggers, and for the tables that they write."""
        audited = target.audited
        prefix, _name = self._names(audited.table, target.schemas)
        wanted = [f"table {table.name}" for table in (audited.trail.transaction, audited.history)]
        wanted += [f"table {CONTEXT}", *(f"trigger {audited.table.name}_capture_{suffix}" for suffix in SUFFIXES)]
        statement = sa.text(f"SELECT type || ' ' || name FROM {prefix}sqlite_master WHERE type IN ('table', 'trigger')")
        found = set(internal(connection, statement).scalars())
        return next((name for name in wanted if name not in found), None)

    def can_be_told(self, connection: Connection, target: Target) -> bool:
        """Look for the table in which a writer says who he is, and for that of the entries."""
        table = target.trail.transaction
        schema = target.schemas.get(table.schema, table.schema) or "main"
        statement = sa.text(
            "SELECT count(*) FROM pragma_table_list WHERE schema = :schema AND name IN (:own, :entries)"
        )
        parameters = {"schema": schema, "own": CONTEXT, "entries": table.name}
        return bool(internal(connection, statement, parameters).scalar() == 2)

    def tell(
        self,
        connection: Connection,
        targets: Sequence[Target],
        firsts: Sequence[Entry | None],
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Take the write lock, and write down who and why; the moment is that of the transaction's first write."""
        for target, first in zip(targets, firsts, strict=True):
            self.lock_writer(connection, target)
            table = f"{self._names(target.trail.transaction, target.schemas)[0]}{CONTEXT}"
            text = tell_text(table, self.table_name(target.trail.transaction, target.schemas))
            said = {"token": token, "said_at": now(), "first": first.id if first else None}
            statement = sa.text(text).bindparams(moment_parameter("said_at"), *claim_parameters())
            internal(connection, statement, {**claims, **said})

    def told_first(self, connection: Connection, target: Target, token: str) -> Entry | None:
        """Ask for the entry that the table of who writes refers to."""
        table = f"{self._names(target.trail.transaction, target.schemas)[0]}{CONTEXT}"
        entries = self.table_name(target.trail.transaction, target.schemas)
        statement = (
            sa.text(
                f"SELECT x.id, x.recorded_at FROM {table} AS c JOIN {entries} AS x ON x.id = c.first_id "
                "WHERE c.token = :token"
            )
            .bindparams(token=token)
            .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        )
        row = internal(connection, statement).first()
        return Entry(row.id, row.recorded_at) if row is not None else None

    def hush(self, connection: Connection, targets: Sequence[Target]) -> None:
        """Take it back, since the row would be committed."""
        for target in targets:
            table = f"{self._names(target.trail.transaction, target.schemas)[0]}{CONTEXT}"
            try:
                internal(connection, sa.text(hush_text(table)))
            except DBAPIError:
                if self.can_be_told(connection, target):
                    raise  # else a migration back has just dropped it, and nothing stays

    # -- protected values -------------------------------------------------------------

    def row_label(self, audited: AuditedTable, alias: str) -> str:
        """Take the hexadecimal digits of the key's literals, which a path can name without quotes."""
        literals = " || ',' || ".join(f"quote({alias}.{self.quote(column.name)})" for column in audited.key)
        return f"'k' || hex({literals})"

    def person_text(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        """Take it as text."""
        return f"CAST({alias}.{self.quote(column.name)} AS TEXT)"

    def joined(self, *texts: str) -> str:
        """Put bars between them."""
        return " || ".join(texts)

    def protected_member(self, audited: AuditedTable, alias: str, member: str) -> str:
        """Look it up in the document, which the statement names as a table, since the driver counts parameters."""
        path = f"'$.' || {self.row_label(audited, alias)} || '.{member}'"
        return f"json_extract((SELECT document FROM sa_audit_protected), {path})"

    # -- before-objects ---------------------------------------------------------------

    def members(self, audited: AuditedTable, old_row: str = "", new_row: str = "t") -> list[str]:
        """Give, for each column that is no key, the SQL of its member of the before-object, empty where unchanged.

        Args:
            audited: the table.
            old_row: the alias of the row before; by default its values are ``v.o0``, ``v.o1`` and so on.
            new_row: the alias of the row after.
        """
        keys = {column.name for column in audited.key}
        members = []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                continue
            name = self.quote(column.name)
            if column.protected:
                members.append(f"coalesce({self.json_key(column.name)} || v.o{i}, '')")
                continue
            old, new = f"{old_row}.{name}" if old_row else f"v.o{i}", f"{new_row}.{name}"
            value = "'true'" if column.masked else json_form(old)
            told = (f"substr({text}, 1, {COMPARED})" for text in (old, new))
            left, right = told if column.stored and column.encrypted else (old, new)
            same = f"{left} IS {right} COLLATE BINARY"
            if not self._has_affinity(column.source.type):
                same += f" AND typeof({old}) = typeof({new})"
            members.append(f"CASE WHEN {same} THEN '' ELSE {self.json_key(column.name)} || {value} END")
        return members

    def _has_affinity(self, type_: TypeEngine[Any]) -> bool:
        """Tell whether a column's declared type keeps equal numbers in one form, so that 1 and 1.0 can't both stand."""
        declared = self.dialect.type_compiler_instance.process(self.database_type(type_)).upper()
        return bool(declared) and "BLOB" not in declared
