"""PostgreSQL: history by month.  One function makes the coming partitions, guards them, and takes all rights on them.

A history is partitioned by RANGE of ``audit_at``, in months of UTC.  What has no month yet goes into the default
partition, so that a missing one stops no write; a month of which the default partition holds rows can't be made.
A partition has the row guards from its parent, and neither the guards of statements nor any right: those are put up,
and taken, here.  Imports model, and of ddl the objects and the guard functions.
"""

from __future__ import annotations

from typing import Final

from ..model.names import short_name
from .objects import TrailObject, spoken
from .postgresql_functions import drop_unused, function_definition

AHEAD: Final = 3
"""The months that are made beside the present one, with the table and by ``sa-audit partitions``."""

NAME: Final = "sa_audit_partitions"
"""The name of the object that says that a history has partitions; no object of the database is called so."""

FUNCTION: Final = "sa_audit_partitions_v1"
INSERT_GUARD: Final = "sa_audit_partition_insert"
STEM: Final = 63 - len("_default_99")

_BOUND: Final = "substring(pg_get_expr(c.relpartbound, c.oid) FROM '{0} [(]''([^'']+)''[)]')"
LOWER: Final = f"CAST({_BOUND.format('FROM')} AS timestamptz)"
UPPER: Final = f"CAST({_BOUND.format('TO')} AS timestamptz)"
"""SQL for the bounds of a partition ``c`` of ``pg_class``; NULL where it has none."""


PARTITIONED: Final = (
    "SELECT n.nspname AS schema, c.relname AS name, p.partdefid <> 0 AS has_default FROM pg_partitioned_table AS p"
    " JOIN pg_class AS c ON c.oid = p.partrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE starts_with(obj_description(c.oid, 'pg_class'), 'sa_audit:')"
)
"""The query of the histories that have partitions; the colon is no parameter's."""


def partitions_definition(*, has_default: bool) -> str:
    """Give what is compared of a history's partitions."""
    return f"by month, {'with' if has_default else 'without'} a default partition"


def making(schema: str, history: str, stem: str, months: int = AHEAD) -> str:
    """Give the statement that makes what is missing of a history's partitions.

    Args:
        schema: the trail's schema, quoted.
        history: the history's full name as a literal.
        stem: the start of the partitions' names as a literal; see :func:`stem_of`.
        months: how many months ahead of the present one.
    """
    return f"SELECT {schema}.{FUNCTION}({history}, {stem}, {months})"


def stem_of(history: str) -> str:
    """Give what the names of a history's partitions begin with, as ``account_history`` in ``account_history_2026_04``.

    Args:
        history: its name, bare.
    """
    return short_name(history, STEM)


def partitions_object(schema: str, history: str, create: str) -> TrailObject:
    """Give the object that says that a history has its partitions."""
    definition = partitions_definition(has_default=True)
    return TrailObject(
        kind="partitions", schema=schema, table=history, name=NAME, create=(create,), drop=(), definition=definition
    )


def partitions_function(place: str, schema: str, guard: str, rows: str) -> TrailObject:
    """Give the function.

    Args:
        place: the trail's schema, bare.
        schema: the same, quoted.
        guard: the full name of the function that refuses changes, as a literal.
        rows: that of the function that fits rows to their entry.
    """
    text = _function(f"{schema}.{FUNCTION}", guard, rows)
    return TrailObject(
        kind="function",
        schema=place,
        name=FUNCTION,
        create=(text,),
        drop=(drop_unused(f"{schema}.{FUNCTION}(regclass, text, integer)"),),
        definition=function_definition(spoken(text)),
        shared=True,
    )


def unguarded(history: str) -> str:
    """Give the block that lifts the guards of a history's partitions, for fixtures in tests.

    Args:
        history: its full name as a literal.
    """
    return f"""DO $sa_audit$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT CAST(h.inhrelid AS regclass) AS name FROM pg_inherits AS h
        WHERE h.inhparent = to_regclass({history})
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS sa_audit_guard_truncate ON %s', part.name);
        EXECUTE format('DROP TRIGGER IF EXISTS {INSERT_GUARD} ON %s', part.name);
    END LOOP;
END
$sa_audit$"""


def _function(name: str, guard: str, rows: str) -> str:
    return f"""CREATE OR REPLACE FUNCTION {name}(history regclass, stem text, months integer)
RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET DateStyle = 'ISO'
AS $sa_audit$
DECLARE
    this_month CONSTANT timestamp := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC');
    since timestamptz;
    until timestamptz;
    bounds text;
    query text;
    place text;
    made text;
    number integer;
    holds boolean;
    part record;
    guard name;
    grantee text;
BEGIN
    SELECT n.nspname INTO place FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = history AND c.relkind = 'p';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sa_audit: % is not partitioned', history;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', history);
{_made()}
{_guards(guard, rows)}
END
$sa_audit$"""


def _made() -> str:
    """Give what makes the default partition and those of the months that have none."""
    return f"""    FOR month IN -1 .. months LOOP
        IF month < 0 THEN
            CONTINUE WHEN EXISTS (SELECT FROM pg_partitioned_table AS p
                WHERE p.partrelid = history AND p.partdefid <> 0);
            bounds := 'DEFAULT';
            made := 'default';
        ELSE
            since := (this_month + month * interval '1 month') AT TIME ZONE 'UTC';
            until := (this_month + (month + 1) * interval '1 month') AT TIME ZONE 'UTC';
            CONTINUE WHEN EXISTS (SELECT FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhrelid
                WHERE h.inhparent = history
                    AND {_wrapped(LOWER)} <= since
                    AND {_wrapped(UPPER)} >= until);
            -- rows that came before their partition stay where they are, and are the default partition's to keep
            SELECT format('SELECT EXISTS (SELECT FROM %s WHERE audit_at >= %L AND audit_at < %L)',
                CAST(p.partdefid AS regclass), since, until) INTO query
                FROM pg_partitioned_table AS p WHERE p.partrelid = history;
            EXECUTE query INTO holds;
            CONTINUE WHEN holds;
            bounds := format('FOR VALUES FROM (%L) TO (%L)', since, until);
            made := to_char(since, 'YYYY_MM');
        END IF;
        made := concat(stem, '_', made);
        number := 0;
        WHILE to_regclass(format('%I.%I', place, concat(made, '_' || nullif(number, 0)))) IS NOT NULL LOOP
            number := number + 1; -- the history of that name was put aside, and has kept it
        END LOOP;
        made := format('%I.%I', place, concat(made, '_' || nullif(number, 0)));
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING STORAGE)', made, history);
        EXECUTE format('COMMENT ON TABLE %s IS %L', made, concat('sa_audit: partition of ', history));
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s %s', history, made, bounds);
        RETURN NEXT made;
    END LOOP;"""


def _wrapped(expression: str) -> str:
    """Give a bound's expression in two lines."""
    return expression.replace(" FROM '", "\n                        FROM '")


def _guards(guard: str, rows: str) -> str:
    """Give what puts up the guards of all partitions, gives them to the history's owner and takes others' rights."""
    return f"""    FOR part IN
        SELECT c.oid, CAST(c.oid AS regclass) AS name, c.relowner, p.relowner AS owner
        FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhrelid JOIN pg_class AS p ON p.oid = h.inhparent
        WHERE h.inhparent = history
    LOOP
        IF NOT EXISTS (SELECT FROM pg_trigger AS t
            WHERE t.tgrelid = part.oid AND t.tgname = 'sa_audit_guard_truncate') THEN
            EXECUTE format('CREATE TRIGGER sa_audit_guard_truncate BEFORE TRUNCATE ON %s '
                'FOR EACH STATEMENT EXECUTE FUNCTION %s()', part.name, {guard});
        END IF;
        IF EXISTS (SELECT FROM pg_trigger AS t
                WHERE t.tgrelid = history AND t.tgname = 'sa_audit_insert' AND t.tgtype % 2 = 0)
            AND NOT EXISTS (SELECT FROM pg_trigger AS t
                WHERE t.tgrelid = part.oid AND t.tgname = '{INSERT_GUARD}') THEN
            EXECUTE format('CREATE TRIGGER {INSERT_GUARD} AFTER INSERT ON %s '
                'REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION %s()',
                part.name, {rows});
        END IF;
        FOR guard IN SELECT t.tgname FROM pg_trigger AS t
            WHERE t.tgrelid = part.oid AND t.tgenabled <> 'A'
                AND t.tgname IN ('sa_audit_guard_row', 'sa_audit_guard_truncate')
        LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', part.name, guard);
        END LOOP;
        IF part.relowner <> part.owner THEN
            EXECUTE format('ALTER TABLE %s OWNER TO %I', part.name, pg_get_userbyid(part.owner));
        END IF;
        -- rights are asked of the history that a statement names; a partition needs none
        FOR grantee IN SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
            FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
            LEFT JOIN pg_roles AS r ON r.oid = a.grantee
            WHERE c.oid = part.oid AND a.grantee <> c.relowner
        LOOP
            EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', part.name, grantee);
        END LOOP;
    END LOOP;"""
