"""PostgreSQL: the text of trigger capture.

One function for each table, fired for each row, writes the history as the owner of the trail.
Imports model, and of ddl the objects and the guard functions.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import sqlalchemy as sa

from ..model.history import AuditedTable, RecordedColumn
from ..model.names import short_name
from ..model.stored import COMPARED
from .forms import Rule, form_rules, pattern, person_rules
from .objects import TrailObject, spoken
from .postgresql_functions import XID, function_definition, trigger_definition

CAPTURES: Final = "AA_sa_audit_"
"""How the names of triggers that record begin."""

ROW_TRIGGER: Final = f"{CAPTURES}capture"
"""Triggers of a row fire by name: what a user's own trigger changes then comes, and is recorded, after ours."""

TRUNCATE_TRIGGER: Final = f"{CAPTURES}truncate"

# Types of which equal values are the same bytes; others are compared as stored, and then as text.
EQUAL_IS_SAME: Final = (sa.Integer, sa.Boolean, sa.Uuid, sa.LargeBinary, sa.DateTime, sa.Date)


class Texts(Protocol):
    """What the text needs of the backend: names, literals and the text form of a column."""

    def quote(self, name: str) -> str:
        """Quote a name."""

    def literal(self, text: str) -> str:
        """Quote a string."""

    def json_key(self, name: str) -> str:
        """Give the start of one member of a before-object."""

    def database_type(self, type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        """Give the type that the database sees."""

    def type_name(self, type_: sa.types.TypeEngine[Any]) -> str:
        """Give the database's name of a type."""

    def column_text(self, column: RecordedColumn, value: str) -> str:
        """Give the SQL that turns a column's value into text that says it exactly."""

    def is_virtual(self, column: RecordedColumn) -> bool:
        """Tell a generated column that is computed when it is read, so that a trigger's row has no value of it."""

    def settings(self, audited: AuditedTable) -> dict[str, str]:
        """Give the settings that this text depends on."""


def table_objects(texts: Texts, audited: AuditedTable, names: dict[str, str]) -> list[TrailObject]:
    """Give the capture function of one table and its triggers.

    Args:
        texts: the backend.
        audited: the table.
        names: the bare schema and name of the table (``schema``, ``name``), and quoted: ``table``, ``history``,
            ``history_schema``, ``transaction`` and ``trail_schema``; ``history_place`` is the history's schema, bare.
    """
    name = capture_function(audited)
    function = f"{names['history_schema']}.{texts.quote(name)}"
    text = _capture_function(texts, audited, names, function)
    return [
        TrailObject(
            kind="function",
            schema=names["history_place"],
            name=name,
            create=(text, f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
            drop=(f"DROP FUNCTION IF EXISTS {function}()",),
            definition=function_definition(spoken(text)),
        ),
        _trigger(texts, names, ROW_TRIGGER, f"{names['history_place']}.{name}", function, row=True),
        _trigger(texts, names, TRUNCATE_TRIGGER, f"{names['history_place']}.{name}", function, row=False),
    ]


def capture_function(audited: AuditedTable) -> str:
    """Give the name of the function that records a table."""
    return short_name(f"sa_audit_capture_{audited.history.name}")


def _trigger(texts: Texts, names: dict[str, str], name: str, place: str, function: str, *, row: bool) -> TrailObject:
    quoted, table = texts.quote(name), names["table"]
    event, each = ("INSERT OR UPDATE OR DELETE", "ROW") if row else ("TRUNCATE", "STATEMENT")
    return TrailObject(
        kind="trigger",
        schema=names["schema"],
        table=names["name"],
        name=name,
        create=(
            f"CREATE TRIGGER {quoted} AFTER {event} ON {table}\nFOR EACH {each} EXECUTE FUNCTION {function}()",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {quoted}",
        ),
        drop=(f"DROP TRIGGER IF EXISTS {quoted} ON {table}",),
        definition=trigger_definition(29 if row else 32, "A", place, None),
        fixture=not row,
    )


def _capture_function(texts: Texts, audited: AuditedTable, names: dict[str, str], function: str) -> str:
    settings = "".join(f"\nSET {name} = {value}" for name, value in texts.settings(audited).items())
    said = (
        texts.literal(names["name"]),
        texts.literal(names["schema"]),
        texts.literal(names["table"].replace("\\:", ":")),
    )
    return f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp{settings}
AS $sa_audit$
#variable_conflict use_column
DECLARE
    this_txid CONSTANT bigint := {XID};
    this_entry bigint := CAST(nullif(current_setting('sa_audit.entry', true), '') AS bigint);
    changed text;
BEGIN
    IF (TG_TABLE_NAME <> {said[0]} OR TG_TABLE_SCHEMA <> {said[1]})
        AND pg_partition_root(TG_RELID) IS DISTINCT FROM to_regclass({said[2]}) THEN
        RAISE EXCEPTION 'sa_audit: %.% is not the table that this function records',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
{_forms(texts, audited)}{_nested(texts, audited, names)}
{_changed(texts, audited)}
    IF this_entry IS NULL THEN
        this_entry := {names["trail_schema"]}.sa_audit_entry_v1({_required(audited)});
    END IF;
    FOR attempt IN 1 .. 2 LOOP
{_inserts(texts, audited, names)}
        IF FOUND THEN
            RETURN NULL;
        END IF;
        this_entry := {names["trail_schema"]}.sa_audit_entry_v1({_required(audited)});
    END LOOP;
    RAISE EXCEPTION 'sa_audit: a change of %.% could not be recorded, since something keeps rows out of its history',
        TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$sa_audit$"""


def _forms(texts: Texts, audited: AuditedTable) -> str:
    """Give what refuses values in the clear, old ones too: they would come into the history as before-values."""
    if not audited.stored:
        return ""

    def differs(column: RecordedColumn, value: str) -> str:
        return f"{value} !~ {texts.literal(pattern(column))}"

    new, old = (list(form_rules(audited, texts.quote, differs, alias)) for alias in ("NEW", "OLD"))
    passed = list(person_rules(audited, texts.quote, lambda column: _differs(texts, column)))
    blocks = []
    for test, rules in (("TG_OP = 'INSERT' OR TG_OP = 'UPDATE'", new), ("TG_OP = 'UPDATE' OR TG_OP = 'DELETE'", old)):
        blocks.append(f"    IF {test} THEN\n{_raises(texts, rules)}\n    END IF;\n")
    if passed:
        blocks.append(f"    IF TG_OP = 'UPDATE' THEN\n{_raises(texts, passed)}\n    END IF;\n")
    return "".join(blocks)


def _raises(texts: Texts, rules: list[Rule]) -> str:
    return "\n".join(
        f"        IF {wrong} THEN\n            RAISE EXCEPTION USING MESSAGE = {texts.literal(said)},\n"
        "                ERRCODE = 'check_violation';\n        END IF;"
        for wrong, said in rules
    )


def _nested(texts: Texts, audited: AuditedTable, names: dict[str, str]) -> str:
    """Give what refuses a row that another change, made by a user's trigger, has overtaken.

    Such a change is recorded when it is made, and the one that it follows only after: their order would be false.
    What foreign keys change comes in its place by itself.
    """
    key = {column.name for column in audited.key}
    own = [column for column in audited.columns if not texts.is_virtual(column)]
    same = " AND ".join(f"t.{texts.quote(name)} = NEW.{texts.quote(name)}" for name in _key_names(audited))
    gone = " AND ".join(f"t.{texts.quote(name)} = OLD.{texts.quote(name)}" for name in _key_names(audited))
    rest = [column for column in own if column.name not in key]
    stored = "".join(
        f"\n                AND {_row(f't.{name}')} *= {_row(f'NEW.{name}')}"
        for name in (texts.quote(column.name) for column in rest)
    )
    if not audited.table.primary_key.columns:
        return "    -- rows that nothing tells apart can't be overtaken unseen: each is counted"
    return f"""    IF pg_trigger_depth() > 1 THEN
        PERFORM set_config('sa_audit.nested', '1', true);
    END IF;
    IF TG_LEVEL = 'ROW' AND current_setting('sa_audit.nested', true) = '1' THEN
        IF TG_OP = 'DELETE' THEN
            PERFORM FROM {names["table"]} AS t WHERE {gone};
        ELSE
            PERFORM FROM {names["table"]} AS t WHERE {same}{stored};
        END IF;
        IF FOUND = (TG_OP = 'DELETE') THEN
            RAISE EXCEPTION 'sa_audit: a trigger changed a row of %.% again before its own change was recorded',
                TG_TABLE_SCHEMA, TG_TABLE_NAME
                USING HINT = 'change the rows one by one';
        END IF;
    END IF;"""


def _key_names(audited: AuditedTable) -> list[str]:
    return [column.name for column in audited.key]


def _value(texts: Texts, column: RecordedColumn, alias: str) -> str:
    """Give a column's value in a row of the trigger; one that is computed when read is computed here."""
    if not texts.is_virtual(column) or column.source.computed is None:
        return f"{alias}.{texts.quote(column.name)}"
    made = str(column.source.computed.sqltext)
    type_ = texts.type_name(texts.database_type(column.source.type))
    return f"(SELECT CAST(({made}) AS {type_}) FROM (SELECT {alias}.*) AS generated)"


def _row(value: str) -> str:
    return f"CAST(ROW({value}) AS record)"


def _changed(texts: Texts, audited: AuditedTable) -> str:
    """Give what finds out which columns an UPDATE changed; none: nothing is recorded."""
    key = {column.name for column in audited.key}
    moved = " OR ".join(_differs(texts, column) for column in audited.columns if column.name in key) or "false"
    members = [_member(texts, column) for column in audited.columns if column.name not in key]
    lines = "\n            || ".join(members) or "''"
    return f"""    IF TG_OP = 'UPDATE' AND NOT ({moved}) THEN
        changed := {lines};
        IF changed = '' THEN
            RETURN NULL;
        END IF;
    END IF;"""


def _differs(texts: Texts, column: RecordedColumn) -> str:
    """Give the comparison that is never false where the stored bytes differ."""
    type_ = texts.database_type(column.source.type)
    old, new = (_value(texts, column, alias) for alias in ("OLD", "NEW"))
    if column.stored and column.encrypted:
        old, new = (f"substr({value}, 1, {COMPARED})" for value in (old, new))
    if isinstance(type_, EQUAL_IS_SAME):
        return f"{old} IS DISTINCT FROM {new}"
    if isinstance(type_, sa.String) and not isinstance(type_, sa.Enum):
        return f'CAST({old} AS text) COLLATE "C" IS DISTINCT FROM CAST({new} AS text)'
    return f"{_row(old)} *<> {_row(new)}"


def _member(texts: Texts, column: RecordedColumn) -> str:
    """Give a column's member of the before-object, empty if its text is the same."""
    type_ = texts.database_type(column.source.type)
    old, new = (texts.column_text(column, _value(texts, column, alias)) for alias in ("OLD", "NEW"))
    value = "'true'" if column.masked else f"coalesce(CAST(to_json({old}) AS text), 'null')"
    told = f"{texts.json_key(column.name)} || {value}"
    if not isinstance(type_, (*EQUAL_IS_SAME, sa.String)):
        told = f"CASE WHEN {old} IS DISTINCT FROM {new} COLLATE \"C\" THEN {told} ELSE '' END"
    return f"CASE WHEN {_differs(texts, column)} THEN {told} ELSE '' END"


def _inserts(texts: Texts, audited: AuditedTable, names: dict[str, str]) -> str:
    columns = "".join(f", {texts.quote(column.name)}" for column in audited.recorded)
    head = f"INSERT INTO {names['history']} (audit_tx, audit_txid, audit_op, audit_at{columns})"
    head_before = head.replace("audit_at", "audit_at, audit_before", 1)
    source = f"FROM {names['transaction']} AS e WHERE e.id = this_entry AND e.db_txid = this_txid{_said(audited)}"

    def select(op: str, alias: str | None, before: str = "") -> str:
        values = [_value(texts, column, alias) if alias else "NULL" for column in audited.recorded]
        told = "".join(f", {value}" for value in values)
        return f"SELECT e.id, this_txid, '{op}', e.recorded_at{before}{told}\n                {source}"

    before = ", CAST('{' || substr(changed, 2) || '}' AS json)"
    cases = {
        "TG_OP = 'INSERT'": select("I", "NEW"),
        "TG_OP = 'DELETE'": select("D", "OLD"),
        "TG_OP = 'TRUNCATE'": select("T", None),
        "changed IS NULL": f"{select('D', 'OLD')}\n                UNION ALL {select('I', 'NEW')}",
    }
    lines = [
        f"{'IF' if number == 0 else 'ELSIF'} {test} THEN\n            {head}\n                {query};"
        for number, (test, query) in enumerate(cases.items())
    ]
    lines.append(f"ELSE\n            {head_before}\n                {select('U', 'NEW', before)};\n        END IF;")
    return "\n".join(f"        {line}" for line in lines)


def _said(audited: AuditedTable) -> str:
    """Give the condition that an entry says what the configuration asks for."""
    needed = _needed(audited)
    blanks = "concat(' ', chr(9), chr(10), chr(11), chr(12), chr(13))"
    return "".join(f" AND btrim(e.{name}, {blanks}) <> ''" for name, need in needed.items() if need)


def _required(audited: AuditedTable) -> str:
    return ", ".join("true" if need else "false" for need in _needed(audited).values())


def _needed(audited: AuditedTable) -> dict[str, bool]:
    configuration = audited.trail.configuration
    return {"actor": configuration.require_actor, "reason": configuration.require_reason}
