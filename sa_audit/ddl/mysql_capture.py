"""MariaDB: trigger capture: what stands in the database for it, and how a session says who it is.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ..errors import CaptureMissing
from ..model.history import AuditedTable, RecordedColumn, Trail
from ..model.names import short_name
from ..model.stored import COMPARED
from ..model.types import UTCDateTime
from .backend import Entry, SchemaMap, Target, internal
from .mysql_capture_text import (
    EVENTS,
    LIST,
    LIST_BODY,
    TELL,
    TELL_FIRST,
    TRANSACTION,
    capture_name,
    entry_procedure,
    list_object,
    stand_in_names,
    table_objects,
)
from .mysql_guards import MariaDBGuards
from .mysql_types import text_form
from .objects import TrailObject, dropped

ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT")
NO_TABLE, NO_ROUTINE, MAY_NOT_EXECUTE = 1146, 1305, 1370
"""Error codes of the server."""


class MariaDBCapture(MariaDBGuards):
    """What lets MariaDB record by itself."""

    # -- trigger capture -----------------------------------------------------------

    told_rolls_back = False
    records_truncate = False

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the procedure that opens an entry, and the one that lists triggers."""
        place = schemas.get(trail.transaction.schema, trail.transaction.schema)
        entry = entry_procedure(place, self._beside(trail, schemas, ""), self.quote(trail.transaction.name))
        return [entry, list_object(place, self._beside(trail, schemas, LIST), LIST_BODY)]

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the epochs, and the routines of trigger capture."""
        objects = self.capture_shared(trail, schemas, default_schema)
        return [*super().after_drop(trail, schemas, default_schema), *dropped(objects)]

    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give a table's triggers, and those that stand in for the foreign keys that lead to it."""
        return table_objects(self, audited, Place(self, schemas, default_schema))

    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Look for the triggers of the table, and for those that stand in for its foreign keys in the database.

        A procedure of the trail lists them, since a user without the TRIGGER privilege sees none; it stands beside
        the trail's tables, which such a user does not see either.
        That the history is there is seen by its guard: the database may hold another table of that name.

        Raises:
            CaptureMissing: if the user may not ask.
        """
        audited = target.audited
        place = Place(self, target.schemas, connection.dialect.default_schema_name)
        wanted = {(place.schema(audited.table), capture_name(audited.table, event)) for event in EVENTS}
        wanted |= self._stand_ins(connection, place.names(audited.table))
        guard = (place.schema(audited.history), short_name(f"{audited.history.name}_guard_delete"))
        procedure = self._beside(target.trail, target.schemas, LIST)
        found: set[tuple[str, str]] = set()
        try:
            for schema in sorted({schema for schema, _name in (*wanted, guard)}):
                internal(connection, sa.text(f"CALL {procedure}(:schema)"), {"schema": schema})
                names = internal(connection, sa.text("SELECT @sa_audit_triggers")).scalar()
                found |= {(schema, name) for name in json.loads(names or "[]")}
        except DBAPIError as error:
            if _code(error) == NO_ROUTINE:
                return f"procedure {LIST}"
            if _code(error) != MAY_NOT_EXECUTE:
                raise
            raise CaptureMissing(
                f"the user may not ask whether {audited.table.fullname} is recorded: GRANT EXECUTE ON PROCEDURE {LIST}"
            ) from error
        missing = sorted(wanted - found)
        if missing and guard not in found:
            return f"table {audited.history.fullname}"
        return f"trigger {missing[0][1]}" if missing else None

    def misses_table(self, error: BaseException, names: Collection[str]) -> bool:
        """Go by the code: of a table in a trigger's text the server's error may give the alias instead of the name."""
        return error.args[:1] == (NO_TABLE,) or super().misses_table(error, names)

    def _stand_ins(self, connection: Connection, names: Mapping[str, str]) -> set[tuple[str, str]]:
        """Give schema and name of the triggers that have to stand in for a table's foreign keys in the database."""
        statement = sa.text(
            "SELECT k.referenced_table_schema, r.delete_rule, r.update_rule, GROUP_CONCAT(k.column_name "
            "ORDER BY k.ordinal_position) FROM information_schema.referential_constraints AS r "
            "JOIN information_schema.key_column_usage AS k ON k.constraint_schema = r.constraint_schema "
            "AND k.constraint_name = r.constraint_name AND k.table_name = r.table_name "
            "WHERE r.constraint_schema = :schema AND r.table_name = :name GROUP BY r.constraint_name"
        )
        found: set[tuple[str, str]] = set()
        for schema, on_delete, on_update, columns in internal(connection, statement, names):
            at_delete, at_update = stand_in_names(names["name"], columns.split(","))
            found |= {(schema, at_delete)} if on_delete in ACTIONS else set()
            found |= {(schema, at_update)} if on_update in ACTIONS else set()
        return found

    def tell(
        self,
        connection: Connection,
        targets: Sequence[Target],
        firsts: Sequence[Entry | None],
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Say who and why, and in which transaction of the connection."""
        said = {name: value for name, value in claims.items() if value is not None}
        parameters: dict[str, Any] = {"claims": json.dumps(said, ensure_ascii=False)}
        first = next((entry for entry in firsts if entry is not None), None)
        if first is not None:
            parameters["first"] = first.id
        internal(connection, sa.text(TELL if first is None else TELL_FIRST), parameters)

    def told_first(self, connection: Connection, target: Target, token: str) -> Entry | None:
        """Ask for the entry that the connection's variable refers to, if it is of this transaction."""
        entries = self.table_name(target.trail.transaction, target.schemas)
        statement = sa.text(
            f"SELECT x.id, x.recorded_at FROM {entries} AS x "
            f"WHERE x.id = @sa_audit_first AND @sa_audit_first_in <=> {TRANSACTION}"
        ).columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        row = internal(connection, statement).first()
        return Entry(row.id, row.recorded_at) if row is not None else None

    def column_text(self, column: RecordedColumn, alias: str) -> str:
        """Give the SQL of a column as text that says its value exactly."""
        return self._text(column, alias)

    # -- texts ---

    def _text(self, column: RecordedColumn, alias: str) -> str:
        """Give an image as a text whose type JSON_ARRAY takes for a string, whatever is in it."""
        return f"CONVERT({self._image(column, alias)} USING utf8mb4)"

    def _image(self, column: RecordedColumn, alias: str) -> str:
        text = text_form(self.database_type(column.source.type), f"{alias}.{self.quote(column.name)}")
        return f"SHA2({text}, 256)" if column.masked else text

    def person_text(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        """Collate it like the names of persons."""
        return f"{self._text(column, alias)} COLLATE utf8mb4_nopad_bin"

    def joined(self, *texts: str) -> str:
        """Concatenate them."""
        return f"CONCAT({', '.join(texts)})"

    def protected_member(self, audited: AuditedTable, alias: str, member: str) -> str:
        """Look it up in the document."""
        return f"JSON_VALUE(:protected, CONCAT('$.', {self.row_label(audited, alias)}, '.{member}'))"

    def members(self, audited: AuditedTable, image: str = "v.o", *, old_row: str = "", new_row: str = "t") -> list[str]:
        """Give, for each column that is no key, the SQL of its member of the before-object, empty where unchanged.

        Args:
            audited: the table.
            image: what the names of the texts before begin with, such as ``v.o`` for ``v.o0`` and ``v.o1``.
            old_row: the alias of the row before, if there is one.
            new_row: the alias of the row after.
        """
        keys = {column.name for column in audited.key}
        members = []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                continue
            if column.protected:
                members.append(f"COALESCE(CONCAT({self.json_key(column.name)}, {image}{i}), '')")
                continue
            old = self._text(column, old_row) if old_row else f"{image}{i}"
            value = "'true'" if column.masked else f"COALESCE(JSON_QUOTE({old}), 'null')"
            new = self._text(column, new_row)
            told = (f"substr({text}, 1, {COMPARED})" for text in (old, new))
            left, right = told if column.stored and column.encrypted else (old, new)
            members.append(f"IF(BINARY {left} <=> BINARY {right}, '', CONCAT({self.json_key(column.name)}, {value}))")
        return members


def _code(error: DBAPIError) -> Any:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments else None


class Place:
    """Where the tables of one connection stand, whose schemas may be translated."""

    def __init__(self, backend: MariaDBGuards, schemas: SchemaMap, default_schema: str | None) -> None:
        self._backend, self._schemas, self._default = backend, schemas, default_schema

    def schema(self, table: sa.Table) -> str:
        """Give a table's schema."""
        return self._schemas.get(table.schema, table.schema) or self._default or ""

    def names(self, table: sa.Table) -> dict[str, str]:
        """Give a table's schema and name."""
        return {"schema": self.schema(table), "name": table.name}

    def name(self, table: sa.Table, seen_from: sa.Table) -> str:
        """Give a table's quoted name, with its schema where that is another than that of the one that writes it."""
        return f"{self.routine(table, seen_from)}{self._backend.quote(table.name)}"

    def routine(self, trail: sa.Table, seen_from: sa.Table) -> str:
        """Give what stands before a routine of the trail: its schema with a dot, or nothing."""
        schema = self.schema(trail)
        return "" if schema == self.schema(seen_from) else f"{self._backend.quote(schema)}."

    def trigger(self, name: str, table: sa.Table) -> str:
        """Give the quoted full name of a trigger of a table."""
        schema = self._schemas.get(table.schema, table.schema)
        return f"{self._backend.quote(schema)}.{self._backend.quote(name)}" if schema else self._backend.quote(name)

    def full(self, table: sa.Table) -> str:
        """Give a table's quoted name as it is created."""
        return self._backend.table_name(table, self._schemas)
