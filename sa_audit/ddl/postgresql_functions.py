"""PostgreSQL: the text of the guard functions.  Each is versioned by name; a later text gets a new name.

Imports of ddl the messages only.
"""

from __future__ import annotations

from .backend import KEY_LOST, KEY_MOVED, MESSAGE

XID = "((pg_catalog.pg_current_xact_id())::text)::bigint"


def guard_function(schema: str) -> str:
    """Give the function that refuses UPDATE, DELETE and TRUNCATE."""
    return f"""CREATE OR REPLACE FUNCTION {schema}.sa_audit_guard_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
BEGIN
    RAISE EXCEPTION '{MESSAGE}: % on %.% refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$sa_audit$"""


def person_key_function(schema: str) -> str:
    """Give the function that lets a person's key be wrapped anew, and destroyed once that is recorded."""
    return f"""CREATE OR REPLACE FUNCTION {schema}.sa_audit_person_key_v1() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.name <> OLD.name OR NEW.subject <> OLD.subject THEN
            RAISE EXCEPTION '{KEY_MOVED}' USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END IF;
    IF NOT EXISTS (
        SELECT FROM {schema}.audit_key AS k WHERE k.name = OLD.name AND k.event = 'destroyed'
    ) THEN
        RAISE EXCEPTION '{KEY_LOST}' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END
$sa_audit$"""


def transaction_function(schema: str, table: str) -> str:
    """Give the function that writes the database's word into each entry, and ties a transaction's entries."""
    return f"""CREATE OR REPLACE FUNCTION {schema}.sa_audit_transaction_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
BEGIN
    NEW.db_txid := {XID};
    NEW.db_user := SESSION_USER;
    NEW.db_role := CASE current_setting('role') WHEN 'none' THEN SESSION_USER ELSE current_setting('role') END;
    NEW.db_addr := host(inet_client_addr());
    NEW.db_application := nullif(current_setting('application_name'), '');
    SELECT f.id, f.recorded_at INTO NEW.first_id, NEW.recorded_at
        FROM (
            SELECT x.id, x.recorded_at, x.first_id FROM {table} AS x
            WHERE x.db_txid = NEW.db_txid
            OFFSET 0 -- by the index on db_txid alone, whatever the statistics say
        ) AS f
        WHERE f.first_id IS NULL AND f.recorded_at >= transaction_timestamp()
        ORDER BY f.id LIMIT 1;
    IF NOT FOUND THEN
        NEW.recorded_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$sa_audit$"""


def history_function(schema: str, table: str) -> str:
    """Give the function that lets history rows belong to the current transaction only.

    It looks once at all rows of a statement: a row trigger that looked up each row's entry cost four times the insert.
    """
    return f"""CREATE OR REPLACE FUNCTION {schema}.sa_audit_history_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
DECLARE
    txid CONSTANT bigint := {XID};
BEGIN
    IF EXISTS (
        SELECT FROM inserted AS i
        LEFT JOIN {table} AS x
            ON x.id = i.audit_tx AND x.recorded_at = i.audit_at AND x.db_txid = txid
        WHERE x.id IS NULL OR i.audit_txid IS DISTINCT FROM txid
    ) THEN
        RAISE EXCEPTION 'sa_audit: history row of %.% does not belong to the current transaction',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END
$sa_audit$"""


def drop_unused(*functions: str) -> str:
    """Give the block that drops functions, all of them or, where triggers still use one, none."""
    drops = "\n".join(f"    DROP FUNCTION IF EXISTS {function};" for function in functions)
    return f"""DO $sa_audit$
BEGIN
{drops}
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        NULL; -- the trail of another MetaData stands in this schema, too
END
$sa_audit$"""


def function_definition(text: str) -> str:
    """Give what is compared of a function, from the text that creates it; the body is stored as it is sent."""
    head, body, _tail = text.split("$sa_audit$")
    security = "definer" if "SECURITY DEFINER" in head else "invoker"
    pairs = [line.removeprefix("SET ").split(" = ") for line in head.split("\n") if line.startswith("SET ")]
    return catalog_definition(body, security, [f"{name}={value.strip(chr(39))}" for name, value in pairs])


def catalog_definition(body: str, security: str, settings: list[str]) -> str:
    """Give the same from ``prosrc``, ``prosecdef`` and ``proconfig``."""
    return f"security {security}, {'; '.join(settings) or 'no settings'}{body}"


def trigger_definition(code: int, enabled: str, function: str, new_table: str | None) -> str:
    """Give what is compared of a trigger: ``tgtype``, ``tgenabled``, the function, ``tgnewtable``."""
    return f"type {code}, enabled {enabled}, function {function}, new table {new_table or '-'}"


def trigger_function(definition: str) -> str:
    """Give the function in such a text: schema and name, bare."""
    return definition.partition(", function ")[2].rpartition(", new table ")[0]
