"""PostgreSQL: events and reads of an application that has no right to write the trail, by functions of its owner.

Where triggers write all history and roles are configured, the writer's role may call these functions and insert
nothing.  What they write belongs to the transaction that calls them: its entry, moment and ids are not the caller's
to say.  Imports model, SQLAlchemy, and of ddl the objects and the guard functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from ..model.types import UTCDateTime
from .objects import TrailObject, spoken
from .postgresql_functions import XID, drop_unused, function_definition
from .postgresql_guards import PostgreSQLGuards
from .values import Entry, internal

EVENT_COLUMNS: Final = {
    "audit_flush": "integer",
    "action": "text",
    "entity": "text",
    "table_name": "text",
    "identity": "text",
    "data": "json",
    "durable": "smallint",
}
KEY_COLUMNS: Final = {"name": "text", "event": "text", "commitment": "text", "reason": "text"}
ACCESS_COLUMNS: Final = {
    "entity": "text",
    "table_name": "text",
    "columns": "json",
    "statement": "text",
    "criteria": "json",
    "identities": "text",
    "row_count": "bigint",
}


class PostgreSQLRecords(PostgreSQLGuards):
    """What writes events and reads on PostgreSQL."""

    def insert_event(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> None:
        """Insert it, or have it inserted."""
        if not writes_by_functions(trail):
            super().insert_event(connection, trail, entry, values)
            return
        said = {name: values.get(name) for name in EVENT_COLUMNS}
        self._call(connection, trail, "sa_audit_event_v1", {"entry": (entry.id, "bigint")}, said, EVENT_COLUMNS)

    def insert_created(
        self, connection: Connection, trail: Trail, entry: Entry, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert them, or have them inserted one by one."""
        if not writes_by_functions(trail):
            super().insert_created(connection, trail, entry, rows)
            return
        keys: Any = trail.person_key
        there = sa.select(keys.c.name).where(keys.c.name.in_([row["name"] for row in rows]))
        names = set(internal(connection, there).scalars())
        for row in rows:
            if row["name"] in names:
                said = {"name": row["name"], "event": "created", "commitment": row["commitment"]}
                self.insert_key(connection, trail, entry, said)

    def insert_key(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> None:
        """Insert it, or have it inserted."""
        if not writes_by_functions(trail):
            super().insert_key(connection, trail, entry, values)
            return
        said = {name: values.get(name) for name in KEY_COLUMNS}
        self._call(connection, trail, "sa_audit_key_v1", {"entry": (entry.id, "bigint")}, said, KEY_COLUMNS)

    def insert_access(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> int:
        """Insert it, or have it inserted; give its id."""
        if not writes_by_functions(trail):
            return super().insert_access(connection, trail, entry, values)
        said = {name: values.get(name) for name in ACCESS_COLUMNS}
        fixed = {"entry": (entry.id, "bigint")}
        return int(self._call(connection, trail, "sa_audit_access_v1", fixed, said, ACCESS_COLUMNS))

    def insert_access_rows(
        self, connection: Connection, trail: Trail, entry: Entry, access: int, table: str, texts: Sequence[str]
    ) -> None:
        """Insert them, or have them inserted."""
        if not writes_by_functions(trail):
            super().insert_access_rows(connection, trail, entry, access, table, texts)
            return
        fixed = {"entry": (entry.id, "bigint"), "access": (access, "bigint")}
        said = {"table_name": table, "identities": list(texts)}
        types = {"table_name": "text", "identities": "json"}
        self._call(connection, trail, "sa_audit_access_rows_v1", fixed, said, types)

    def _call(
        self,
        connection: Connection,
        trail: Trail,
        function: str,
        fixed: Mapping[str, tuple[int, str]],
        said: Mapping[str, Any],
        types: Mapping[str, str],
    ) -> Any:
        """Call a function of the trail's with named arguments; give what it gives."""
        place = self._called(connection, trail, function)
        all_types = {name: type_ for name, (_value, type_) in fixed.items()} | dict(types)
        arguments = ", ".join(f"the_{name} => CAST(:{name} AS {type_})" for name, type_ in all_types.items())
        values: dict[str, Any] = {name: value for name, (value, _type) in fixed.items()}
        values |= {name: _text(value) if types[name] == "json" else value for name, value in said.items()}
        parameters = [sa.bindparam(name, type_=_TYPES[type_]) for name, type_ in all_types.items()]
        statement = sa.text(f"SELECT {place}({arguments})").bindparams(*parameters)
        return internal(connection, statement, values).scalar()

    def _called(self, connection: Connection, trail: Trail, function: str) -> str:
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        return f"{self._schema(trail.transaction, schemas, connection.dialect.default_schema_name)}.{function}"

    def open_entry(self, connection: Connection, trail: Trail, claims: Mapping[str, Any]) -> Entry:
        """Have the transaction's entry for a context opened, or found."""
        said = {name: value for name, value in claims.items() if value is not None}
        statement = (
            sa.text(
                "SELECT e.the_id AS id, e.the_moment AT TIME ZONE 'UTC' AS recorded_at "
                f"FROM {self._called(connection, trail, 'sa_audit_open_v1')}(CAST(:claims AS json)) AS e"
            )
            .bindparams(sa.bindparam("claims", type_=sa.Text()))
            .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        )
        row = internal(connection, statement, {"claims": _text(said)}).one()
        return Entry(row.id, row.recorded_at)


_TYPES: Final[Mapping[str, Any]] = {
    "bigint": sa.BigInteger(),
    "integer": sa.Integer(),
    "smallint": sa.SmallInteger(),
    "text": sa.Text(),
    "json": sa.Text(),
}


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def writes_by_functions(trail: Trail) -> bool:
    """Tell whether the application has no right to insert into a trail, also not events and reads."""
    return trail.configuration.roles is not None and trail.captures_all


# -- the text of the functions -----------------------------------------------------------------


def record_functions(place: str, schema: str, *, keys: bool) -> list[TrailObject]:
    """Give the functions by which events and reads are written.

    Args:
        place: the trail's schema, bare.
        schema: the same, quoted.
        keys: whether there are keys of persons.
    """
    given = [
        _open_function(schema),
        _row_function(schema, "audit_event", "sa_audit_event_v1", EVENT_COLUMNS),
        _row_function(schema, "audit_access", "sa_audit_access_v1", ACCESS_COLUMNS),
        _rows_function(schema),
        *([_row_function(schema, "audit_key", "sa_audit_key_v1", KEY_COLUMNS)] if keys else []),
    ]
    return [
        TrailObject(
            kind="function",
            schema=place,
            name=name,
            create=(text, f"REVOKE ALL ON FUNCTION {schema}.{name}({arguments}) FROM PUBLIC"),
            drop=(drop_unused(f"{schema}.{name}({arguments})"),),
            definition=function_definition(spoken(text)),
            shared=True,
            called=True,
        )
        for name, arguments, text in given
    ]


def _function(schema: str, name: str, arguments: str, returns: str, body: str) -> str:
    return f"""CREATE OR REPLACE FUNCTION {schema}.{name}({arguments}) RETURNS {returns}
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
{body}
$sa_audit$"""


def _open_function(schema: str) -> tuple[str, str, str]:
    """Give what says who is there, as ``sa_audit_context_v1`` does, and opens the entry of that."""
    body = f"""DECLARE
    opened bigint;
BEGIN
    PERFORM {schema}.sa_audit_context_v1(claims);
    opened := {schema}.sa_audit_entry_v1(false, false);
    RETURN QUERY SELECT x.id, x.recorded_at FROM {schema}.audit_transaction AS x WHERE x.id = opened;
END"""
    returns = "TABLE (the_id bigint, the_moment timestamptz)"
    name = "sa_audit_open_v1"
    return name, "json", _function(schema, name, "claims json", returns, body)


_REFUSE: Final = """    IF {nothing} THEN
        RAISE EXCEPTION 'sa_audit: entry % does not belong to the current transaction', the_entry
            USING ERRCODE = 'insufficient_privilege';
    END IF;"""


def _row_function(schema: str, table: str, name: str, columns: Mapping[str, str]) -> tuple[str, str, str]:
    """Give what writes one row under an entry of the current transaction, and gives its id."""
    arguments = ", ".join(["the_entry bigint", *(f"the_{column} {type_}" for column, type_ in columns.items())])
    refusal = _REFUSE.format(nothing="made_id IS NULL")
    body = f"""DECLARE
    made_id bigint;
BEGIN
    INSERT INTO {schema}.{table} (audit_tx, audit_at, {", ".join(columns)})
        SELECT x.id, x.recorded_at, {", ".join(f"the_{column}" for column in columns)}
        FROM {schema}.audit_transaction AS x
        WHERE x.id = the_entry AND x.db_txid = {XID}
        RETURNING audit_id INTO made_id;
{refusal}
    RETURN made_id;
END"""
    return name, ", ".join(["bigint", *columns.values()]), _function(schema, name, arguments, "bigint", body)


def _rows_function(schema: str) -> tuple[str, str, str]:
    """Give what writes the rows that a read showed."""
    name = "sa_audit_access_rows_v1"
    arguments = "the_entry bigint, the_access bigint, the_table_name text, the_identities json"
    refusal = _REFUSE.format(nothing="NOT FOUND")
    body = f"""BEGIN
    INSERT INTO {schema}.audit_access_row (audit_tx, audit_at, access_id, table_name, identity)
        SELECT x.id, x.recorded_at, the_access, the_table_name, v.identity
        FROM {schema}.audit_transaction AS x
        CROSS JOIN json_array_elements_text(the_identities) AS v(identity)
        WHERE x.id = the_entry AND x.db_txid = {XID};
{refusal}
END"""
    return name, "bigint, bigint, text, json", _function(schema, name, arguments, "void", body)
