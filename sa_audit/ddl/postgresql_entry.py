"""PostgreSQL: the text of what all captured tables share: who and why, and the entry of the trail that says it.

A session says who it is by a setting that holds to the end of its transaction and begins with that transaction's
instant, so that one left over from another is not believed.  Imports of ddl the objects and the guard functions.
"""

from __future__ import annotations

from typing import Final

from .objects import TrailObject, spoken
from .postgresql_functions import XID, drop_unused, function_definition

TOKEN: Final = "to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"
"""Twenty digits that name a transaction among those of its session."""

SPEAK: Final = (
    "SELECT pg_catalog.set_config('sa_audit.claims', "
    "pg_catalog.to_char(pg_catalog.transaction_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') || :claims, "
    "true), pg_catalog.set_config('sa_audit.entry', '', true)"
)
"""What a session says who it is with; ``:claims`` is a JSON object of strings, its member ``context`` an object."""

CLAIMED: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr")


def shared_objects(place: str, schema: str, transaction: str) -> list[TrailObject]:
    """Give what all captured tables of a trail use.

    Args:
        place: the trail's schema, bare.
        schema: the same, quoted.
        transaction: the full name of ``audit_transaction``, quoted.
    """
    texts = {
        "sa_audit_entry_v1(boolean, boolean)": _entry_function(f"{schema}.sa_audit_entry_v1", transaction),
        "sa_audit_context_v1(json)": _context_function(f"{schema}.sa_audit_context_v1"),
        "sa_audit_history_row_v1()": _history_row_function(f"{schema}.sa_audit_history_row_v1", transaction),
    }
    return [_function(place, f"{schema}.{signature}", text) for signature, text in texts.items()]


def _function(place: str, signature: str, text: str) -> TrailObject:
    name = signature.rpartition(".")[2].partition("(")[0]
    revoke = f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC"
    return TrailObject(
        kind="function",
        schema=place,
        name=name,
        create=(text, revoke) if name == "sa_audit_entry_v1" else (text,),
        drop=(drop_unused(signature),),
        definition=function_definition(spoken(text)),
        shared=True,
        called=name == "sa_audit_context_v1",
    )


def _entry_function(name: str, transaction: str) -> str:
    """Give the function that opens the entry of the present context, or finds it if the transaction has it."""
    said = "\n".join(f"        AND x.{field} IS NOT DISTINCT FROM said ->> '{field}'" for field in CLAIMED)
    values = ", ".join(f"said ->> '{field}'" for field in CLAIMED)
    return f"""CREATE OR REPLACE FUNCTION {name}(need_actor boolean, need_reason boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
DECLARE
    claims CONSTANT text := current_setting('sa_audit.claims', true);
    blanks CONSTANT text := concat(' ', chr(9), chr(10), chr(11), chr(12), chr(13));
    txid CONSTANT bigint := {XID};
    said json;
    found_id bigint;
BEGIN
    IF left(claims, 20) = {TOKEN} THEN
        said := CAST(substr(claims, 21) AS json);
    END IF;
    IF need_actor AND coalesce(btrim(said ->> 'actor', blanks), '') = '' THEN
        RAISE EXCEPTION 'sa_audit: a change with no actor is refused'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'make it inside sa_audit.context(actor=...), or call sa_audit_context_v1 first';
    END IF;
    IF need_reason AND coalesce(btrim(said ->> 'reason', blanks), '') = '' THEN
        RAISE EXCEPTION 'sa_audit: a change with no reason is refused'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'make it inside sa_audit.context(reason=...), or call sa_audit_context_v1 first';
    END IF;
    SELECT x.id INTO found_id
        FROM (
            SELECT t.* FROM {transaction} AS t
            WHERE t.db_txid = txid
            OFFSET 0 -- by the index on db_txid alone, whatever the statistics say
        ) AS x
        WHERE x.recorded_at >= transaction_timestamp()
{said}
        AND CAST(x.context AS text) IS NOT DISTINCT FROM CAST(said -> 'context' AS text)
        ORDER BY x.id LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO {transaction} ({", ".join(CLAIMED)}, context)
            VALUES ({values}, said -> 'context')
            RETURNING id INTO found_id;
    END IF;
    PERFORM set_config('sa_audit.entry', CAST(found_id AS text), true);
    RETURN found_id;
END
$sa_audit$"""


def _context_function(name: str) -> str:
    """Give the function by which any program says who it is, until its transaction ends."""
    return f"""CREATE OR REPLACE FUNCTION {name}(claims json) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
BEGIN
    PERFORM set_config('sa_audit.claims', {TOKEN} || CAST(claims AS text), true),
        set_config('sa_audit.entry', '', true);
END
$sa_audit$"""


def _history_row_function(name: str, transaction: str) -> str:
    """Give the function that checks history rows which do not come from a trigger, such as a baseline."""
    return f"""CREATE OR REPLACE FUNCTION {name}() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
DECLARE
    txid CONSTANT bigint := {XID};
BEGIN
    PERFORM FROM {transaction} AS x
        WHERE x.id = NEW.audit_tx AND x.recorded_at = NEW.audit_at AND x.db_txid = txid;
    IF NOT FOUND OR NEW.audit_txid IS DISTINCT FROM txid THEN
        RAISE EXCEPTION 'sa_audit: history row of %.% does not belong to the current transaction',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$sa_audit$"""
