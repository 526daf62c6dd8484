"""What lets a history's rows go: a range that ``audit_prune`` names, under a checkpoint that an anchor has taken.

The text for each database's guard of DELETE.  Imports model, and of ddl the message.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ..model.history import AUDITED, AuditedTable
from .backend import MESSAGE
from .values import SchemaMap

PRUNE_GUARD: Final = "sa_audit_prune_guard_v1"
"""PostgreSQL's function that guards the rows of a history with a retention."""


def is_pruned(table: sa.Table) -> bool:
    """Tell whether a table is a history whose model has a retention."""
    audited = table.info.get(AUDITED)
    return isinstance(audited, AuditedTable) and table is audited.history and audited.options.retention is not None


def place_of(table: sa.Table, schemas: SchemaMap) -> str:
    """Give the name by which ``audit_prune`` knows a history on SQLite and MariaDB."""
    schema = schemas.get(table.schema, table.schema)
    return f"{schema}.{table.name}" if schema else str(table.name)


def allowed(place: str, prune: str = "audit_prune", checkpoint: str = "audit_checkpoint", *, indent: str = "") -> str:
    """Give the condition under which the row ``OLD`` of a history may be deleted.

    Args:
        place: the history's name in ``audit_prune``, as a literal.
        prune: the name of ``audit_prune``, quoted.
        checkpoint: that of ``audit_checkpoint``, quoted.
        indent: what the lines after the first begin with.
    """
    return f"""EXISTS (
{indent}    SELECT 1 FROM {prune} AS p
{indent}    WHERE p.table_name = {place} AND p.first_row <= OLD.audit_id AND p.last_row >= OLD.audit_id
{indent}    AND EXISTS (SELECT 1 FROM {checkpoint} AS c WHERE c.size > p.leaf AND c.anchor IS NOT NULL)
{indent})"""


def prune_guard_function(schema: str, prune: str, checkpoint: str) -> str:
    """Give PostgreSQL's function that refuses UPDATE, and DELETE outside of what may be pruned.

    Args:
        schema: the trail's schema, quoted.
        prune: the full name of ``audit_prune``, quoted.
        checkpoint: that of ``audit_checkpoint``, quoted.
    """
    return f"""CREATE OR REPLACE FUNCTION {schema}.{PRUNE_GUARD}() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $sa_audit$
DECLARE
    place text := concat(TG_TABLE_SCHEMA, '.', TG_TABLE_NAME);
    root CONSTANT regclass := pg_partition_root(TG_RELID);
BEGIN
    IF root IS NOT NULL THEN
        SELECT concat(n.nspname, '.', t.relname) INTO place
            FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace WHERE t.oid = root;
    END IF;
    IF TG_OP = 'DELETE' AND {allowed("place", prune, checkpoint, indent="    ")} THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '{MESSAGE}: % on %.% refused',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$sa_audit$"""
