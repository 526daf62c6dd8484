"""MariaDB: the text of trigger capture.

A session says who it is by a variable, and by which transaction of the connection it was said in: the server counts
the transactions that a connection has begun and ended, so that what stays behind after one is not believed in the next.
Foreign keys change rows past all triggers; so a trigger of the table that they refer to does first what they would do,
or refuses it.  Imports model, and of ddl the form of before-values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import sqlalchemy as sa

from ..model.history import AuditedTable, RecordedColumn
from ..model.names import short_name
from .forms import Rule, form_rules, pattern, person_rules
from .objects import TrailObject, spoken

CLAIMED: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr")
EVENTS: Final = ("insert", "update", "delete")
ENTRY: Final = "sa_audit_entry_v1"
MARK: Final = "/* sa_audit, in place of a foreign key of "
LIST: Final = "sa_audit_triggers_v1"
LIST_BODY: Final = (
    "EXECUTE IMMEDIATE CONCAT(\n"
    "    'SELECT JSON_ARRAYAGG(trigger_name) INTO @sa_audit_triggers FROM information_schema.triggers ',\n"
    "    'WHERE trigger_schema = ', QUOTE(of_schema)\n)"
)
"""With a schema that stands in the text, the server reads that schema only, and no other that is changing."""

PARAMETERS: Final = "IN need_actor BOOLEAN, IN need_reason BOOLEAN, OUT this_entry BIGINT"

TRANSACTION: Final = (
    "(SELECT CAST(SUM(variable_value) AS CHAR) FROM information_schema.session_status WHERE variable_name IN "
    "('COM_BEGIN', 'COM_COMMIT', 'COM_ROLLBACK', 'COM_XA_START', 'COM_XA_PREPARE', 'COM_XA_COMMIT', 'COM_XA_ROLLBACK'))"
)
"""How many transactions the connection has begun and ended so far: names the one under way."""

TELL: Final = (
    f"SET @sa_audit_claims = :claims, @sa_audit_said_in = {TRANSACTION}, "
    "@sa_audit_entry = NULL, @sa_audit_statement = NULL"
)

TELL_FIRST: Final = f"{TELL}, @sa_audit_first = :first, @sa_audit_first_in = {TRANSACTION}"
"""The same where the session has written the transaction's first entry."""


class Texts(Protocol):
    """What the text needs of the backend: names, literals, and columns as text."""

    def quote(self, name: str) -> str:
        """Quote a name."""

    def literal(self, text: str) -> str:
        """Quote a string."""

    def column_text(self, column: RecordedColumn, alias: str) -> str:
        """Give the SQL of a column as text that says its value exactly."""

    def members(self, audited: AuditedTable, *, old_row: str, new_row: str) -> list[str]:
        """Give the SQL of each column's member of a before-object, for two rows of these aliases."""


class Place(Protocol):
    """Where tables stand: names as a trigger of one table writes those of others, and names of triggers."""

    def schema(self, table: sa.Table) -> str:
        """Give a table's schema, bare."""

    def name(self, table: sa.Table, seen_from: sa.Table) -> str:
        """Give a table's quoted name, with its schema where that is another."""

    def routine(self, trail: sa.Table, seen_from: sa.Table) -> str:
        """Give what stands before a routine of the trail: its schema with a dot, or nothing."""

    def trigger(self, name: str, table: sa.Table) -> str:
        """Give the quoted full name of a trigger of a table."""

    def full(self, table: sa.Table) -> str:
        """Give a table's quoted name as it is created."""


def entry_procedure(place: str | None, prefix: str, transaction: str) -> TrailObject:
    """Give the procedure that opens the entry of the present context, or finds it if the transaction has it.

    Args:
        place: the trail's schema, bare, or None.
        prefix: the trail's schema with a dot, quoted, or nothing.
        transaction: ``audit_transaction``, as seen from that schema.
    """
    return entry_object(place, f"{prefix}{ENTRY}", _entry_text(transaction))


def entry_object(place: str | None, name: str, body: str) -> TrailObject:
    """Give that procedure by its body.

    Args:
        place: the trail's schema, bare, or None.
        name: its full name, quoted.
        body: what it does.
    """
    return TrailObject(
        kind="procedure",
        schema=place,
        name=ENTRY,
        create=(f"CREATE OR REPLACE PROCEDURE {name}({PARAMETERS})\n    MODIFIES SQL DATA\n{body}",),
        drop=(f"DROP PROCEDURE IF EXISTS {name}",),
        definition=spoken(body),
        shared=True,
    )


def list_object(place: str | None, name: str, body: str) -> TrailObject:
    """Give the procedure by which any user learns which triggers stand; arguments as for :func:`entry_object`."""
    return TrailObject(
        kind="procedure",
        schema=place,
        name=LIST,
        create=(f"CREATE OR REPLACE PROCEDURE {name}(IN of_schema VARCHAR(64))\n    READS SQL DATA\n{body}",),
        drop=(f"DROP PROCEDURE IF EXISTS {name}",),
        definition=spoken(body),
        shared=True,
    )


def _entry_text(transaction: str) -> str:
    same = " ".join(f"AND BINARY x.{field} <=> BINARY JSON_VALUE(said, '$.{field}')" for field in CLAIMED)
    values = ", ".join(f"JSON_VALUE(said, '$.{field}')" for field in CLAIMED)
    context = "JSON_EXTRACT(said, '$.context')"
    return f"""BEGIN
    DECLARE this_transaction VARCHAR(80);
    DECLARE said LONGTEXT CHARACTER SET utf8mb4;
    SET this_transaction = IF(@@in_transaction, {TRANSACTION}, CONCAT('statement ', SYSDATE(6)));
    IF @sa_audit_said_in <=> this_transaction THEN
        SET said = @sa_audit_claims;
    END IF;
    IF need_actor AND {_blank("JSON_VALUE(said, '$.actor')")} THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: a change with no actor is refused';
    END IF;
    IF need_reason AND {_blank("JSON_VALUE(said, '$.reason')")} THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: a change with no reason is refused';
    END IF;
    IF NOT (@sa_audit_first_in <=> this_transaction) THEN
        SET @sa_audit_first = NULL, @sa_audit_first_in = this_transaction;
    END IF;
    -- SELECT INTO takes no locks, which any other form would, and so keep other writers waiting
    SELECT max(x.id) INTO @sa_audit_first FROM {transaction} AS x WHERE x.id = @sa_audit_first;
    IF @sa_audit_first IS NOT NULL THEN
        SELECT min(x.id) INTO this_entry FROM {transaction} AS x
        WHERE (x.id = @sa_audit_first OR x.first_id = @sa_audit_first)
        {same}
        AND BINARY x.context <=> BINARY {context};
    END IF;
    IF this_entry IS NULL THEN
        INSERT INTO {transaction} (first_id, {", ".join(CLAIMED)}, context)
            VALUES (@sa_audit_first, {values}, {context});
        SET this_entry = LAST_INSERT_ID();
        SET @sa_audit_first = COALESCE(@sa_audit_first, this_entry);
    END IF;
    SET @sa_audit_entry = this_entry, @sa_audit_statement = NOW(6);
END"""


def _blank(value: str) -> str:
    for code in (9, 10, 11, 12, 13):
        value = f"REPLACE({value}, CHAR({code}), '')"
    return f"TRIM(COALESCE({value}, '')) = ''"


def table_objects(texts: Texts, audited: AuditedTable, place: Place) -> list[TrailObject]:
    """Give the triggers of one table, and those that stand in for the foreign keys that lead to it."""
    bodies = {
        "insert": [_row(texts, audited, place, "I", "NEW")],
        "update": _update(texts, audited, place),
        "delete": [_row(texts, audited, place, "D", "OLD")],
    }
    objects = [_trigger(texts, audited, place, event, body) for event, body in bodies.items()]
    return [*objects, *(entry for constraint in leading_to(audited) for entry in _stand_in(texts, constraint, place))]


def _trigger(texts: Texts, audited: AuditedTable, place: Place, event: str, body: list[str]) -> TrailObject:
    name = capture_name(audited.table, event)
    configuration = audited.trail.configuration
    needed = ", ".join("TRUE" if n else "FALSE" for n in (configuration.require_actor, configuration.require_reason))
    routine = f"{place.routine(audited.trail.transaction, audited.table)}{ENTRY}"
    same_statement = "@sa_audit_statement <=> NOW(6) AND TIMESTAMPDIFF(MINUTE, NOW(), SYSDATE()) BETWEEN 0 AND 60"
    opened = [
        "DECLARE this_entry BIGINT;",
        f"SET this_entry = IF({same_statement}, @sa_audit_entry, NULL);",
        "IF this_entry IS NULL THEN",
        f"    CALL {routine}({needed}, this_entry);",
        "END IF;",
    ]
    forms = _forms(texts, audited, event)
    lines = [opened[0], *forms, *opened[1:], *body]
    if event == "update":
        changed = ", ".join(texts.members(audited, old_row="OLD", new_row="NEW")) or "''"
        declare = "DECLARE changed LONGTEXT CHARACTER SET utf8mb4;"
        head = [f"SET changed = CONCAT({changed});", f"IF changed <> '' OR {_moved(texts, audited)} THEN"]
        lines = [opened[0], declare, *forms, *head, *(f"    {line}" for line in (*opened[1:], *body)), "END IF;"]
    text = "\n".join(f"    {line}" for line in lines)
    return _object(place, name, audited.table, f"AFTER {event.upper()}", f"BEGIN\n{text}\nEND")


def _forms(texts: Texts, audited: AuditedTable, event: str) -> list[str]:
    """Give what refuses values in the clear, old ones too: they would come into the history as before-values."""

    def differs(column: RecordedColumn, value: str) -> str:
        return f"BINARY {value} NOT REGEXP {texts.literal(pattern(column))}"

    def changed(column: RecordedColumn) -> str:
        old, new = (texts.column_text(column, alias) for alias in ("OLD", "NEW"))
        return f"NOT (BINARY {old} <=> BINARY {new})"

    rules: list[Rule] = []
    for alias, events in (("NEW", ("insert", "update")), ("OLD", ("update", "delete"))):
        if event in events:
            rules += form_rules(audited, texts.quote, differs, alias)
    if event == "update":
        rules += person_rules(audited, texts.quote, changed)
    return [line for wrong, said in rules for line in (f"IF {wrong} THEN", f"    {_signal(texts, said)}", "END IF;")]


def _object(place: Place, name: str, table: sa.Table, when: str, body: str) -> TrailObject:
    full = place.trigger(name, table)
    return TrailObject(
        kind="trigger",
        schema=place.schema(table),
        table=table.name,
        name=name,
        create=(f"CREATE TRIGGER {full} {when} ON {place.full(table)} FOR EACH ROW\n{body}",),
        drop=(f"DROP TRIGGER IF EXISTS {full}",),
        definition=f"{when} {spoken(body)}",
    )


def capture_name(table: sa.Table, event: str) -> str:
    """Give the name of the trigger that records a table's rows at an event."""
    return short_name(f"{table.name}_capture_{event}")


def _row(texts: Texts, audited: AuditedTable, place: Place, op: str, alias: str, before: str | None = None) -> str:
    names = "".join(f", {texts.quote(column.name)}" for column in audited.recorded)
    values = "".join(f", {alias}.{texts.quote(column.name)}" for column in audited.recorded)
    told = (", audit_before", f", {before}") if before else ("", "")
    history, transaction = (place.name(t, audited.table) for t in (audited.history, audited.trail.transaction))
    return (
        f"INSERT INTO {history} (audit_tx, audit_op, audit_at{told[0]}{names})\n"
        f"        SELECT x.id, '{op}', x.recorded_at{told[1]}{values}\n"
        f"        FROM {transaction} AS x WHERE x.id = this_entry;\n"
        "    IF ROW_COUNT() <> 1 THEN\n"
        "        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: the entry of a change is not there';\n"
        "    END IF;"
    )


def _update(texts: Texts, audited: AuditedTable, place: Place) -> list[str]:
    before = "CONCAT('{', SUBSTR(changed, 2), '}')"
    return [
        f"IF {_moved(texts, audited)} THEN",
        f"    {_row(texts, audited, place, 'D', 'OLD')}",
        f"    {_row(texts, audited, place, 'I', 'NEW')}",
        "ELSE",
        f"    {_row(texts, audited, place, 'U', 'NEW', before)}",
        "END IF;",
    ]


def _moved(texts: Texts, audited: AuditedTable) -> str:
    keys = {column.name for column in audited.key}
    same = [
        f"BINARY {texts.column_text(column, 'OLD')} <=> BINARY {texts.column_text(column, 'NEW')}"
        for column in audited.columns
        if column.name in keys
    ]
    return f"NOT ({' AND '.join(same)})"


def recorded_table(definition: str, table: str | None) -> str | None:
    """Give the table whose rows a trigger records, or stands in for the foreign keys of; None for any other trigger.

    Args:
        definition: what the trigger does.
        table: the table that it stands on.
    """
    if "@sa_audit_statement" in definition:
        return table
    _head, found, rest = definition.partition(MARK)
    return rest.partition(" */")[0] if found else None


def _remark(name: str) -> str:
    return name.replace("*/", "* /").replace(":", "\\:")


# -- foreign keys ------------------------------------------------------------------------------------


def leading_to(audited: AuditedTable) -> list[sa.ForeignKeyConstraint]:
    """Give the foreign keys with an action through which the database would change the table's rows by itself."""
    found: dict[sa.ForeignKeyConstraint, None] = {}
    waiting, seen = [audited.table], {audited.table}
    while waiting:
        table = waiting.pop()
        for constraint in table.foreign_key_constraints:
            if not (_acts(constraint.ondelete) or _acts(constraint.onupdate)):
                continue
            found[constraint] = None
            if constraint.referred_table not in seen:
                seen.add(constraint.referred_table)
                waiting.append(constraint.referred_table)
    return list(found)


def _acts(action: str | None) -> str | None:
    words = " ".join((action or "").upper().split())
    return words if words in ("CASCADE", "SET NULL", "SET DEFAULT") else None


def stand_in_names(table: str, columns: list[str]) -> tuple[str, str]:
    """Give the names of the triggers that stand in for a foreign key, at DELETE and at UPDATE."""
    name = f"{table}_{'_'.join(columns)}"
    return short_name(f"{name}_capture_delete_by_key"), short_name(f"{name}_capture_update_by_key")


def _stand_in(texts: Texts, constraint: sa.ForeignKeyConstraint, place: Place) -> Iterator[TrailObject]:
    """Give the triggers of the table that is referred to: they do what the foreign key would, or refuse it."""
    child, parent = constraint.table, constraint.referred_table
    pairs = [(element.parent.name, element.column.name) for element in constraint.elements]
    name, mark = place.name(child, parent), f"{MARK}{_remark(child.name)} */"
    where = " AND ".join(f"c.{texts.quote(own)} = OLD.{texts.quote(other)}" for own, other in pairs)
    there = f"EXISTS (SELECT 1 FROM {name} AS c WHERE {where})"
    names = stand_in_names(child.name, [own for own, _other in pairs])
    refused = _signal(texts, f"sa_audit: the foreign key of {child.name} would change rows unseen: change them first")
    on_delete = _acts(constraint.ondelete)
    if on_delete is not None:
        if parent in _reached_from(child) or on_delete == "SET DEFAULT":
            body = f"IF @@foreign_key_checks AND {there} THEN\n        {refused}\n    END IF;"
        elif on_delete == "CASCADE":
            body = f"IF @@foreign_key_checks THEN\n        DELETE c FROM {name} AS c WHERE {where};\n    END IF;"
        else:
            nulls = ", ".join(f"c.{texts.quote(own)} = NULL" for own, _other in pairs)
            body = f"IF @@foreign_key_checks THEN\n        UPDATE {name} AS c SET {nulls} WHERE {where};\n    END IF;"
        yield _object(place, names[0], parent, "BEFORE DELETE", f"BEGIN\n    {mark}\n    {body}\nEND")
    if _acts(constraint.onupdate) is not None:
        same = " AND ".join(f"OLD.{texts.quote(other)} <=> NEW.{texts.quote(other)}" for _own, other in pairs)
        body = f"IF @@foreign_key_checks AND NOT ({same}) AND {there} THEN\n        {refused}\n    END IF;"
        yield _object(place, names[1], parent, "BEFORE UPDATE", f"BEGIN\n    {mark}\n    {body}\nEND")


def _signal(texts: Texts, message: str) -> str:
    return f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {texts.literal(message[:128])};"


def _reached_from(table: sa.Table) -> set[sa.Table]:
    """Give the table, and those whose rows would go or change with its rows: a trigger may not write them again."""
    found, waiting = {table}, [table]
    while waiting:
        parent = waiting.pop()
        for other in table.metadata.tables.values():
            acts = any(
                constraint.referred_table is parent and _acts(constraint.ondelete)
                for constraint in other.foreign_key_constraints
            )
            if acts and other not in found:
                found.add(other)
                waiting.append(other)
    return found
