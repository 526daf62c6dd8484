"""PostgreSQL: trigger capture: what stands in the database for it, and how a session says who it is.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.compiler import SQLCompiler

from ..model.history import AuditedTable, RecordedColumn, Trail
from .backend import OWN, Entry, SchemaMap, Target, internal
from .objects import TrailObject, dropped
from .postgresql_capture_text import ROW_TRIGGER, table_objects
from .postgresql_entry import SPEAK, shared_objects
from .postgresql_records import PostgreSQLRecords, record_functions
from .postgresql_types import EXACT_TEXT, is_float, text_form


class PostgreSQLCapture(PostgreSQLRecords):
    """What lets PostgreSQL record by itself."""

    # -- trigger capture -------------------------------------------------------------

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the functions that all captured tables of a trail use."""
        place = self._real_schema(trail.transaction, schemas, default_schema)
        quoted = self.quote(place)
        shared = shared_objects(place, quoted, self._qualified(trail.transaction, schemas, default_schema))
        return [*shared, *record_functions(place, quoted, keys=trail.key is not None)]

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the functions of guards and of capture, unless another trail's tables use them."""
        objects = self.capture_shared(trail, schemas, default_schema)
        return [*super().after_drop(trail, schemas, default_schema), *dropped(objects)]

    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give a table's capture function, its row trigger and its truncate trigger."""
        table, history, transaction = audited.table, audited.history, audited.trail.transaction
        names = {
            "schema": self._real_schema(table, schemas, default_schema),
            "name": table.name,
            "table": self._qualified(table, schemas, default_schema),
            "history": self._qualified(history, schemas, default_schema),
            "history_place": self._real_schema(history, schemas, default_schema),
            "history_schema": self._schema(history, schemas, default_schema),
            "transaction": self._qualified(transaction, schemas, default_schema),
            "trail_schema": self._schema(transaction, schemas, default_schema),
        }
        return table_objects(self, audited, names)

    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Look for the row trigger, enabled for ordinary sessions, and for the tables that it writes.

        The catalog is asked by names, since the role may have no right on the trail, nor on its schema.
        """
        audited, default = target.audited, connection.dialect.default_schema_name
        tables = {"transaction": audited.trail.transaction, "history": audited.history, "own": audited.table}
        parameters = {"trigger": ROW_TRIGGER}
        for key, table in tables.items():
            parameters |= {
                f"{key}_schema": self._real_schema(table, target.schemas, default),
                f"{key}_name": table.name,
            }
        found = internal(connection, sa.text(_STANDS), parameters).one()
        parts = (
            f"table {tables['transaction'].fullname}",
            f"table {audited.history.fullname}",
            f"trigger {ROW_TRIGGER} on {audited.table.fullname}",
        )
        return next((part for part, there in zip(parts, found, strict=True) if not there), None)

    def tell(
        self,
        connection: Connection,
        targets: Sequence[Target],
        firsts: Sequence[Entry | None],
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Set who and why for this transaction, or this savepoint."""
        connection.exec_driver_sql(*self.tell_ahead(claims), execution_options=OWN).close()

    def tell_ahead(self, claims: Mapping[str, Any]) -> tuple[str, Any]:
        """Give the SELECT that sets who and why."""
        text = json.dumps({name: value for name, value in claims.items() if value is not None}, ensure_ascii=False)
        compiled = self._speak
        return str(compiled), (text,) if compiled.positional else {"claims": text}

    @functools.cached_property
    def _speak(self) -> SQLCompiler:
        """The statement as the driver takes it, which spares a writing transaction what a text costs each time."""
        return sa.text(SPEAK).compile(dialect=self.dialect)

    def column_text(self, column: RecordedColumn, value: str) -> str:
        """Give the SQL that turns a column's value into text that says it exactly."""
        return text_form(self.database_type(column.source.type), value)

    def is_virtual(self, column: RecordedColumn) -> bool:
        """Tell a generated column that is computed when it is read: since PostgreSQL 18, unless it is PERSISTED."""
        computed = column.source.computed
        return computed is not None and not computed.persisted and (self.dialect.server_version_info or (0,)) >= (18,)

    def settings(self, audited: AuditedTable) -> dict[str, str]:
        """Give the settings that would make a float's text lossy, or that of dates inside arrays ambiguous."""
        types = [self.database_type(column.source.type) for column in audited.columns]
        others = [type_ for type_ in types if is_float(type_) or not isinstance(type_, EXACT_TEXT)]
        needed = {"extra_float_digits": "'3'"} if others else {}
        if not all(is_float(type_) for type_ in others):
            needed |= {"DateStyle": "'ISO'", "IntervalStyle": "'postgres'"}
        return needed


_TABLE = (
    "pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
    "AND n.nspname = :{0}_schema AND c.relname = :{0}_name"
)
_STANDS = (
    f"SELECT EXISTS (SELECT FROM {_TABLE.format('transaction')}), EXISTS (SELECT FROM {_TABLE.format('history')}), "
    f"EXISTS (SELECT FROM {_TABLE.format('own')} JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid "
    "AND t.tgname = :trigger AND t.tgenabled IN ('A', 'O'))"
)
