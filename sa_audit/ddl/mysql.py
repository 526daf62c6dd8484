"""MariaDB: guards as triggers, images as text in one JSON document, epochs in place of transaction ids.

MariaDB has no transaction id that SQL can read: each entry share-locks the open row of ``audit_epoch`` and carries
its number, and so do the history rows under it.  Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

from ..model.history import AuditedTable, RecordedColumn, Trail
from ..model.names import short_name
from ..model.types import UTCDateTime
from .backend import (
    CLAIMS,
    MESSAGE,
    Backend,
    Batch,
    Entry,
    Recorded,
    SchemaMap,
    Target,
    claim_parameters,
    internal,
    moment_parameter,
)
from .capture import CaptureObject, dropped
from .mysql_capture import EVENTS, TELL, capture_name, entry_procedure, stand_in_names, table_objects

ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT")


class MariaDB(Backend):
    """MariaDB 10.10 and later, InnoDB tables."""

    name = "mariadb"

    def literal(self, text: str) -> str:
        """Escape the backslash as well, which MariaDB reads in literals."""
        return super().literal(text.replace("\\", "\\\\"))

    # -- guards ------------------------------------------------------------------

    def before_transaction_table(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Create the epochs, the first one open."""
        name = self._beside(trail, schemas, "audit_epoch")
        return [
            f"CREATE TABLE IF NOT EXISTS {name} (epoch BIGINT NOT NULL PRIMARY KEY, closed TINYINT NOT NULL) "
            "ENGINE=InnoDB COMMENT='sa_audit: epochs of writing transactions'",
            f"INSERT IGNORE INTO {name} (epoch, closed) VALUES (1, 0)",
        ]

    def after_drop(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the epochs, and the procedure of trigger capture."""
        epochs = f"DROP TABLE IF EXISTS {self._beside(trail, schemas, 'audit_epoch')}"
        return [epochs, *dropped(self.capture_shared(trail, schemas, default_schema))]

    def guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Give guards of UPDATE and DELETE (REPLACE is a DELETE), and what fits an inserted row to its transaction."""
        name = self.table_name(table, schemas)
        statements = []
        for event in ("UPDATE", "DELETE"):
            message = f"{MESSAGE}: {event} on {table.name} refused"[:128].replace("'", "''")
            statements.append(
                f"CREATE TRIGGER {self._trigger(table, schemas, event)} BEFORE {event} ON {name} FOR EACH ROW\n"
                f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
            )
        body = None
        if table is trail.transaction:
            body = self._transaction_body(trail, schemas)
        elif table is not trail.column:
            body = self._history_body(table, trail, schemas, default_schema)
        if body is not None:
            statements.append(
                f"CREATE TRIGGER {self._trigger(table, schemas, 'INSERT')} BEFORE INSERT ON {name} FOR EACH ROW\n{body}"
            )
        return statements

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the three triggers."""
        events = ("UPDATE", "DELETE", "INSERT")
        return [f"DROP TRIGGER IF EXISTS {self._trigger(table, schemas, event)}" for event in events]

    def _trigger(self, table: sa.Table, schemas: SchemaMap, event: str) -> str:
        schema = schemas.get(table.schema, table.schema)
        name = self.quote(short_name(f"{table.name}_guard_{event.lower()}"))
        return f"{self.quote(schema)}.{name}" if schema else name

    def _beside(self, trail: Trail, schemas: SchemaMap, name: str) -> str:
        schema = schemas.get(trail.transaction.schema, trail.transaction.schema)
        prefix = f"{self.quote(schema)}." if schema else ""
        return f"{prefix}{self.quote(name)}" if name else prefix

    def _transaction_body(self, trail: Trail, schemas: SchemaMap) -> str:
        epochs, table = self._beside(trail, schemas, "audit_epoch"), self.table_name(trail.transaction, schemas)
        return f"""BEGIN
    DECLARE open_epoch BIGINT;
    DECLARE is_closed TINYINT DEFAULT 1;
    SET open_epoch = (SELECT max(epoch) FROM {epochs});
    WHILE is_closed DO
        SET is_closed = (SELECT closed FROM {epochs} WHERE epoch = open_epoch LOCK IN SHARE MODE);
        IF is_closed IS NULL THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: there is no open epoch';
        END IF;
        SET open_epoch = open_epoch + is_closed;
    END WHILE;
    SET NEW.db_txid = open_epoch;
    SET NEW.db_user = USER();
    SET NEW.db_role = CURRENT_ROLE();
    SET NEW.recorded_at = UTC_TIMESTAMP(6);
    IF NEW.first_id IS NOT NULL THEN
        SET NEW.recorded_at = (SELECT recorded_at FROM {table} WHERE id = NEW.first_id);
    END IF;
END"""

    def _history_body(self, history: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> str:
        table = self.table_name(trail.transaction, schemas)
        own, other = (schemas.get(entry.schema, entry.schema) for entry in (trail.transaction, history))
        if own is None and other is not None and default_schema is not None:
            table = f"{self.quote(default_schema)}.{table}"  # a trigger looks for names in its own table's schema
        return f"""BEGIN
    SET NEW.audit_txid = (
        SELECT db_txid FROM {table} WHERE id = NEW.audit_tx AND recorded_at = NEW.audit_at
    );
    IF NEW.audit_txid IS NULL THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: history row without its transaction';
    END IF;
END"""

    # -- trigger capture -----------------------------------------------------------

    told_rolls_back = False
    records_truncate = False

    def capture_shared(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give the procedure that opens an entry."""
        return [entry_procedure(self._beside(trail, schemas, ""), self.quote(trail.transaction.name))]

    def capture(self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None) -> list[CaptureObject]:
        """Give a table's triggers, and those that stand in for the foreign keys that lead to it."""
        return table_objects(self, audited, _Place(self, schemas, default_schema))

    def missing_capture(self, connection: Connection, target: Target) -> str | None:
        """Look for the triggers and the tables that they write, and for foreign keys that change rows past them."""
        audited = target.audited
        place = _Place(self, target.schemas, connection.dialect.default_schema_name)
        for table in (audited.trail.transaction, audited.history):
            found = internal(connection, sa.text(self.table_exists), place.names(table)).first()
            if found is None:
                return f"table {table.fullname}"
        wanted = {(place.schema(audited.table), capture_name(audited.table, event)) for event in EVENTS}
        wanted |= self._stand_ins(connection, place.names(audited.table))
        statement = sa.text(
            "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE trigger_schema IN :schemas"
        ).bindparams(sa.bindparam("schemas", expanding=True))
        rows = internal(connection, statement, {"schemas": sorted({schema for schema, _name in wanted})})
        missing = sorted(wanted - {(row[0], row[1]) for row in rows})
        return f"trigger {missing[0][1]}" if missing else None

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
        claims: Mapping[str, Any],
        token: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Say who and why, and in which transaction of the connection."""
        said = {name: value for name, value in claims.items() if value is not None}
        internal(connection, sa.text(TELL), {"claims": json.dumps(said, ensure_ascii=False)})

    def column_text(self, column: RecordedColumn, alias: str) -> str:
        """Give the SQL of a column as text that says its value exactly."""
        return self._text(column, alias)

    # -- state ---------------------------------------------------------------------

    def in_autocommit(self, connection: Connection) -> bool:
        """Ask the driver's connection, since an engine's isolation level is not in the execution options."""
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "get_autocommit"):
            return bool(driver.get_autocommit())
        return bool(getattr(driver, "autocommit", False))

    # -- images --------------------------------------------------------------------

    def look_up(self, audited: AuditedTable) -> str:
        """Force the key's index: InnoDB locks all rows of a small table that it rather reads as a whole."""
        return " FORCE INDEX (PRIMARY)" if audited.table.primary_key.columns else ""

    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Read the recorded columns as texts in one JSON array."""
        return [f"JSON_ARRAY({', '.join(self.staged_columns(audited, alias))})"]

    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Keep each recorded column as text."""
        return [self._text(column, alias) for column in audited.columns]

    def _text(self, column: RecordedColumn, alias: str) -> str:
        """Give an image as a text whose type JSON_ARRAY takes for a string, whatever is in it."""
        return f"CONVERT({self._image(column, alias)} USING utf8mb4)"

    def _image(self, column: RecordedColumn, alias: str) -> str:
        text = text_form(self.database_type(column.source.type), f"{alias}.{self.quote(column.name)}")
        return f"SHA2({text}, 256)" if column.masked else text

    # -- recording -------------------------------------------------------------------

    def record(
        self,
        connection: Connection,
        target: Target,
        batch: Batch,
        *,
        flush: int,
        entry: Entry | None,
        claims: Mapping[str, Any],
        first: Entry | None,
        now: dt.datetime,
    ) -> Recorded:
        """Write the entry, if there is none yet, and then each kind of row by one statement."""
        if entry is None and (batch.inserted or batch.deleted):
            entry = self.insert_entry(connection, target, claims, first, now)
        elif entry is None:
            entry = self._entry_if_changed(connection, target, batch, claims, first)
            if entry is None:
                return Recorded(None, 0, 0)
        inserted = sum(
            self._copy(connection, target, "I", batch.inserted[start : start + self.chunk], flush, entry)
            for start in range(0, len(batch.inserted), self.chunk)
        )
        others = sum(
            self._copy(connection, target, "D", batch.deleted[start : start + self.chunk], flush, entry)
            for start in range(0, len(batch.deleted), self.chunk)
        )
        for start in range(0, len(batch.images), self.chunk):
            statement = self._changed_statement(connection, target)
            parameters = {
                "tx": entry.id,
                "at": entry.recorded_at,
                "flush": flush,
                "rows": _document(batch.images[start : start + self.chunk]),
            }
            others += int(internal(connection, statement, parameters).rowcount)
        return Recorded(entry, inserted, others)

    def insert_entry(
        self, connection: Connection, target: Target, claims: Mapping[str, Any], first: Entry | None, now: dt.datetime
    ) -> Entry:
        """Write an entry by itself."""
        table = self.table_name(target.trail.transaction, target.schemas)
        statement = (
            sa.text(
                f"INSERT INTO {table} (first_id, {', '.join(CLAIMS)}) "
                f"VALUES (:first_id, {', '.join(':' + name for name in CLAIMS)}) RETURNING id, recorded_at"
            )
            .bindparams(sa.bindparam("first_id"), *claim_parameters())
            .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
        )
        row = internal(connection, statement, {**claims, "first_id": first.id if first else None}).one()
        return Entry(row.id, row.recorded_at)

    def _copy(self, connection: Connection, target: Target, op: str, keys: Any, flush: int, entry: Entry) -> int:
        audited = target.audited
        cache_key = (self, "copy", op, tuple(target.schemas.items()))
        statement = audited.memo.get(cache_key)
        if statement is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            sql = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush{columns}) SELECT :tx, '{op}', :at, :flush"
                f"{''.join(f', t.{self.quote(column.name)}' for column in audited.recorded)} "
                f"FROM {self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)} "
                f"WHERE {self.key_predicate(audited, 't')}" + (" FOR UPDATE" if op == "D" else "")
            )
            statement = audited.memo[cache_key] = sa.text(sql).bindparams(
                moment_parameter("at"), sa.bindparam("tx"), sa.bindparam("flush"), self.keys_parameter(audited)
            )
        parameters = {
            "tx": entry.id,
            "at": entry.recorded_at,
            "flush": flush,
            "keys": self.keys_value(audited, keys),
        }
        return int(internal(connection, statement, parameters).rowcount)

    def _entry_if_changed(
        self, connection: Connection, target: Target, batch: Batch, claims: Mapping[str, Any], first: Entry | None
    ) -> Entry | None:
        """Write an entry if any row differs from its image, by one statement that looks and writes."""
        cache_key = (self, "entry", tuple(target.schemas.items()))
        statement = target.audited.memo.get(cache_key)
        if statement is None:
            sql = (
                f"INSERT INTO {self.table_name(target.trail.transaction, target.schemas)} "
                f"(first_id, {', '.join(CLAIMS)}) SELECT :first_id, {', '.join(':' + name for name in CLAIMS)} "
                f"FROM DUAL WHERE EXISTS (SELECT 1 FROM ({self._changed_rows(connection, target)}) AS d) "
                "RETURNING id, recorded_at"
            )
            statement = target.audited.memo[cache_key] = (
                sa.text(sql)
                .bindparams(sa.bindparam("first_id"), sa.bindparam("rows"), *claim_parameters())
                .columns(sa.column("id", sa.BigInteger()), sa.column("recorded_at", UTCDateTime()))
            )
        for start in range(0, len(batch.images), self.chunk):
            rows = _document(batch.images[start : start + self.chunk])
            parameters = {**claims, "first_id": first.id if first else None, "rows": rows}
            row = internal(connection, statement, parameters).first()
            if row is not None:
                return Entry(row.id, row.recorded_at)
        return None

    def _changed_statement(self, connection: Connection, target: Target) -> sa.TextClause:
        audited = target.audited
        cache_key = (self, "changed", tuple(target.schemas.items()))
        statement: sa.TextClause | None = audited.memo.get(cache_key)
        if statement is None:
            columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
            sql = (
                f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
                f"(audit_tx, audit_op, audit_at, audit_flush, audit_before{columns}) "
                "SELECT :tx, 'U', :at, :flush, CONCAT('{', SUBSTR(d.audit_before, 2), '}')"
                f"{''.join(f', d.{self.quote(column.name)}' for column in audited.recorded)} "
                f"FROM ({self._changed_rows(connection, target)}) AS d"
            )
            statement = audited.memo[cache_key] = sa.text(sql).bindparams(
                moment_parameter("at"), sa.bindparam("tx"), sa.bindparam("flush"), sa.bindparam("rows")
            )
        return statement

    def _changed_rows(self, connection: Connection, target: Target) -> str:
        """Give the SELECT of the rows that differ from their images, with their before-objects."""
        audited = target.audited
        keys = {column.name for column in audited.key}
        collations = self._collations(connection, target)
        members, paths, match = self.members(audited), [], []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                paths.append(f"o{i} {self._key_type(column, collations)} PATH '$[{i}]'")
                match.append(f"t.{self.quote(column.name)} = {self._key_value(column, f'v.o{i}')}")
            else:
                paths.append(f"o{i} LONGTEXT CHARACTER SET utf8mb4 PATH '$[{i}]'")
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        join = "STRAIGHT_JOIN" if audited.table.primary_key.columns else "JOIN"
        return (
            f"SELECT * FROM (SELECT CONCAT({', '.join(members) or chr(39) * 2}) AS audit_before{columns} "
            f"FROM JSON_TABLE(:rows, '$[*]' COLUMNS ({', '.join(paths)})) AS v "
            f"{join} {self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)} "
            f"ON {' AND '.join(match)}) AS c "
            "WHERE c.audit_before <> ''"
        )

    def members(self, audited: AuditedTable, old_row: str = "", new_row: str = "t") -> list[str]:
        """Give, for each column that is no key, the SQL of its member of the before-object, empty where unchanged.

        Args:
            audited: the table.
            old_row: the alias of the row before; by default its texts are ``v.o0``, ``v.o1`` and so on.
            new_row: the alias of the row after.
        """
        keys = {column.name for column in audited.key}
        members = []
        for i, column in enumerate(audited.columns):
            if column.name in keys:
                continue
            old = self._text(column, old_row) if old_row else f"v.o{i}"
            value = "'true'" if column.masked else f"COALESCE(JSON_QUOTE({old}), 'null')"
            members.append(
                f"IF(BINARY {old} <=> BINARY {self._text(column, new_row)}, '', "
                f"CONCAT({self.json_key(column.name)}, {value}))"
            )
        return members

    # -- many rows -------------------------------------------------------------------

    def create_stage(self, target: Target, name: str) -> list[str]:
        """Create a temporary table like the images in one statement (ALTER would commit), its keys collated alike."""
        keys = [f"t.{self.quote(column.name)} AS k{i}" for i, column in enumerate(target.audited.key)]
        names = ", ".join(f"k{i}" for i in range(len(keys)))
        texts = ", ".join(f"o{i} LONGTEXT CHARACTER SET utf8mb4" for i in range(len(target.audited.columns)))
        return [
            f"CREATE TEMPORARY TABLE {name} ({texts}, PRIMARY KEY ({names})) ENGINE=InnoDB AS SELECT {', '.join(keys)} "
            f"FROM {self.table_name(target.audited.table, target.schemas)} AS t LIMIT 0"
        ]

    def drop_stage(self, name: str) -> list[str]:
        """Drop the temporary table; without that word it would commit."""
        return [f"DROP TEMPORARY TABLE IF EXISTS {name}"]

    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images."""
        audited = target.audited
        members = ", ".join(self.members(audited)) or "''"
        match = " AND ".join(f"t.{self.quote(column.name)} = v.k{i}" for i, column in enumerate(audited.key))
        columns = "".join(f", t.{self.quote(column.name)}" for column in audited.recorded)
        names = "".join(f", c.{self.quote(column.name)}" for column in audited.recorded)
        return (
            f"SELECT 'U', CONCAT('{{', SUBSTR(c.audit_before, 2), '}}'){names} "
            f"FROM (SELECT CONCAT({members}) AS audit_before{columns} "
            f"FROM {name} AS v JOIN {self.table_name(audited.table, target.schemas)} AS t ON {match}) AS c "
            "WHERE c.audit_before <> ''"
        )

    def _key_type(self, column: RecordedColumn, collations: Mapping[str, str | None]) -> str:
        collation = collations.get(column.name)
        if collation:
            return f"VARCHAR(768) CHARACTER SET {collation.split('_')[0]} COLLATE {collation}"
        type_ = self.database_type(column.source.type)
        if isinstance(type_, sa.Integer):
            return "BIGINT UNSIGNED" if getattr(type_, "unsigned", False) else "BIGINT"
        return "VARCHAR(768)"

    def _key_value(self, column: RecordedColumn, value: str) -> str:
        if isinstance(self.database_type(column.source.type), sa.LargeBinary | mysql.BINARY | mysql.VARBINARY):
            return f"UNHEX({value})"
        return value

    def _collations(self, connection: Connection, target: Target) -> dict[str, str | None]:
        """Ask once for the collations of text keys: a JSON_TABLE column must have the same to use the index."""
        table = target.audited.table
        if not any(isinstance(self.database_type(key.type), sa.String | sa.Enum) for key in target.audited.key):
            return {}
        schema = target.schemas.get(table.schema, table.schema)
        statement = sa.text(
            "SELECT column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :name"
        )
        rows = internal(connection, statement, {"schema": schema, "name": table.name})
        return {row[0]: row[1] for row in rows}


class _Place:
    """Where the tables of one connection stand, whose schemas may be translated."""

    def __init__(self, backend: MariaDB, schemas: SchemaMap, default_schema: str | None) -> None:
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


def text_form(type_: sa.types.TypeEngine[Any], column: str) -> str:
    """Give the SQL that turns a column into text that says its value exactly."""
    if isinstance(type_, sa.LargeBinary | mysql.BINARY | mysql.VARBINARY):
        return f"HEX({column})"
    if isinstance(type_, mysql.BIT):
        return f"CAST({column} + 0 AS CHAR)"
    if isinstance(type_, sa.Float) and not isinstance(type_, mysql.DOUBLE):
        return f"CAST({column} + 0e0 AS CHAR)"
    return f"CAST({column} AS CHAR)"


def _document(images: Any) -> str:
    return "[" + ",".join(image.values[0] for image in images) + "]"
