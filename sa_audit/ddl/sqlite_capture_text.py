"""SQLite: the text of trigger capture.

Who writes, and why, stands in the one row of ``audit_context``: there is one writer, and what he says is rolled back
with what he does.  A program that says nothing is told apart from the next by SQLite's clock, which stands still
while a statement runs, so that each of its statements is an entry of its own.
Imports model, and of ddl the form of before-values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import sqlalchemy as sa

from ..errors import ConfigurationError
from ..model.history import AuditedTable, RecordedColumn
from ..model.stored import COMPARED
from .forms import form_rules, glob_differs, person_rules
from .objects import TrailObject, spoken

CONTEXT: Final = "audit_context"
CLAIMS: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr", "context")
STATEMENT: Final = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
"""The instant of the statement under way, to the millisecond, in the form of ``recorded_at``."""

BLANKS: Final = "char(32, 9, 10, 11, 12, 13)"
SUFFIXES: Final = ("insert", "update", "move", "delete")


class Texts(Protocol):
    """What the text needs of the backend: names, literals and before-objects."""

    def quote(self, name: str) -> str:
        """Quote a name."""

    def members(self, audited: AuditedTable, old: str, new: str) -> list[str]:
        """Give the SQL of each column's member of a before-object, for two rows of these aliases."""


def shared_objects(place: str | None, prefix: str) -> list[TrailObject]:
    """Give the table in which a writer says who he is.

    Args:
        place: the attached database that holds the trail, or None.
        prefix: the quoted name of the attached database that holds the trail, with its dot; or nothing.
    """
    claims = ", ".join(f"{name} TEXT" for name in CLAIMS)
    return [
        TrailObject(
            kind="table",
            schema=place,
            name=CONTEXT,
            create=(
                f"CREATE TABLE IF NOT EXISTS {prefix}{CONTEXT} (\n"
                "    id INTEGER PRIMARY KEY CHECK (id = 1),\n"
                "    token TEXT, said_at TEXT, entry INTEGER, first_id INTEGER, replaced TEXT,\n"
                f"    {claims}\n)",
                f"INSERT OR IGNORE INTO {prefix}{CONTEXT} (id) VALUES (1)",
            ),
            drop=(f"DROP TABLE IF EXISTS {prefix}{CONTEXT}",),
            definition="",
            shared=True,
        )
    ]


def tell_text(table: str, transaction: str) -> str:
    """Give the statement by which a session says who writes: an entry that says the same is used again."""
    said = " AND ".join(f"x.{name} IS :{name}" for name in CLAIMS)
    first = f"coalesce(:first, CASE WHEN {table}.token IS :token THEN {table}.first_id END)"
    return (
        f"UPDATE {table} SET token = :token, said_at = :said_at, first_id = {first}, entry = (\n"
        f"    SELECT x.id FROM {transaction} AS x WHERE (x.id = {first} OR x.first_id = {first}) AND {said}\n"
        f"), {', '.join(f'{name} = :{name}' for name in CLAIMS)}"
    )


def hush_text(table: str) -> str:
    """Give the statement that takes it back."""
    names = ("token", "said_at", "entry", "first_id", "replaced", *CLAIMS)
    return f"UPDATE {table} SET {', '.join(f'{name} = NULL' for name in names)}"


def table_objects(texts: Texts, audited: AuditedTable, place: str | None, prefix: str) -> list[TrailObject]:
    """Give the triggers of one table.

    Args:
        texts: the backend.
        audited: the table.
        place: the attached database that holds the table, or None.
        prefix: the quoted name of the attached database that holds the table, with its dot; or nothing.
    """
    unique = _unique_columns(audited)
    watched = [column.name for column in audited.table.primary_key.columns]
    watched += [name for names in unique for name in names if name not in watched]
    columns = ", ".join(texts.quote(name) for name in watched)
    bodies: dict[str, tuple[str, str, list[str]]] = {
        "BEFORE INSERT": ("replace", "", [_victims(texts, audited, unique, "")]),
        "AFTER INSERT": ("insert", "", _insert(texts, audited)),
        "AFTER UPDATE": ("update", f"WHEN {_changed(texts, audited)}", _update(texts, audited)),
        "AFTER  UPDATE": ("move", f"WHEN {_moved(texts, audited)}", _move(texts, audited)),
        "AFTER DELETE": ("delete", "", _delete(texts, audited)),
    }
    for event, body in _forms(texts, audited).items():
        bodies[event] = (*bodies[event][:2], [*body, *bodies[event][2]])
    if watched:
        victims = _victims(texts, audited, unique, _other(texts, audited))
        bodies[f"BEFORE UPDATE OF {columns}"] = ("replace_update", "", [victims])
        bodies[f"AFTER UPDATE OF {columns}"] = ("replaced_update", "", [_refuse_replaced(audited, "replaced")])
    return [_trigger(texts, audited, (place, prefix), event, *rest) for event, rest in bodies.items()]


def _trigger(
    texts: Texts,
    audited: AuditedTable,
    where: tuple[str | None, str],
    event: str,
    suffix: str,
    when: str,
    body: list[str],
) -> TrailObject:
    place, prefix = where
    name = f"{audited.table.name}_capture_{suffix}"
    lines = "\n".join(f"    {statement};" for statement in body)
    rest = f"{' '.join(event.split())} ON {texts.quote(audited.table.name)}"
    rest = "\n".join(filter(None, (rest, when, "BEGIN", lines, "END")))
    return TrailObject(
        kind="trigger",
        schema=place,
        table=audited.table.name,
        name=name,
        create=(f"CREATE TRIGGER {prefix}{texts.quote(name)} {rest}",),
        drop=(f"DROP TRIGGER IF EXISTS {prefix}{texts.quote(name)}",),
        definition=spoken(rest),
    )


def _forms(texts: Texts, audited: AuditedTable) -> dict[str, list[str]]:
    """Give what refuses values in the clear, old ones too: they would come into the history as before-values."""
    new, old = (list(form_rules(audited, texts.quote, glob_differs, alias)) for alias in ("NEW", "OLD"))
    passed = list(person_rules(audited, texts.quote, lambda column: _differs(texts, column)))
    rules = {"INSERT": new, "UPDATE": [*new, *old, *passed], " UPDATE": [*new, *old, *passed], "DELETE": old}
    return {f"AFTER {event}": [_raise(*rule) for rule in told] for event, told in rules.items() if told}


def _raise(wrong: str, said: str) -> str:
    quoted = said.replace("'", "''")
    return f"SELECT RAISE(ABORT, '{quoted}') WHERE {wrong}"


# -- what is recorded -------------------------------------------------------------------------


def _insert(texts: Texts, audited: AuditedTable) -> list[str]:
    key, replaced = _quoted(texts, audited.table.primary_key.columns), "replaced"
    if len(key) == 1:  # before an INSERT, a key that SQLite is yet to make is -1
        replaced = f"replace(replaced, '<' || quote(-1) || '>', iif(NEW.{key[0]} IS -1, replaced, ''))"
    return [
        _refuse_replaced(audited, replaced),
        *_refuse_overtaken(texts, audited),
        *_entry(audited),
        _row(texts, audited, "I", "NEW"),
    ]


def _update(texts: Texts, audited: AuditedTable) -> list[str]:
    before = f"'{{' || substr({_before(texts, audited)}, 2) || '}}'"
    return [*_refuse_overtaken(texts, audited), *_entry(audited), _row(texts, audited, "U", "NEW", before)]


def _move(texts: Texts, audited: AuditedTable) -> list[str]:
    rows = [_row(texts, audited, "D", "OLD"), _row(texts, audited, "I", "NEW")]
    return [*_refuse_overtaken(texts, audited), *_entry(audited), *rows]


def _delete(texts: Texts, audited: AuditedTable) -> list[str]:
    forget = (
        f"UPDATE {CONTEXT} SET replaced = replace(replaced, {_victim(texts, audited, 'OLD')}, '') WHERE replaced <> ''"
    )
    return [forget, *_entry(audited), _row(texts, audited, "D", "OLD")]


def _row(texts: Texts, audited: AuditedTable, op: str, alias: str, before: str | None = None) -> str:
    names = "".join(f", {texts.quote(column.name)}" for column in audited.recorded)
    values = "".join(f", {alias}.{texts.quote(column.name)}" for column in audited.recorded)
    told = (", audit_before", f", {before}") if before else ("", "")
    return (
        f"INSERT INTO {texts.quote(audited.history.name)} (audit_tx, audit_op, audit_at{told[0]}{names})\n"
        f"        SELECT x.id, '{op}', x.recorded_at{told[1]}{values}\n"
        f"        FROM {CONTEXT} AS c JOIN audit_transaction AS x ON x.id = c.entry"
    )


def _entry(audited: AuditedTable) -> list[str]:
    """Give what opens the entry, unless the transaction, or the statement of who says nothing, has one."""
    nothing = "".join(f", {name} = NULL" for name in CLAIMS)
    claims = ", ".join(CLAIMS)
    return [
        f"UPDATE {CONTEXT} SET said_at = {STATEMENT}, entry = NULL, first_id = NULL{nothing}\n"
        f"        WHERE token IS NULL AND said_at IS NOT {STATEMENT}",
        *_required(audited),
        f"INSERT INTO audit_transaction (recorded_at, first_id, {claims})\n"
        "        SELECT coalesce((SELECT recorded_at FROM audit_transaction WHERE id = c.first_id),\n"
        "            max(c.said_at, coalesce((SELECT max(recorded_at) FROM audit_transaction), ''))),\n"
        f"        first_id, {claims} FROM {CONTEXT} AS c WHERE entry IS NULL",
        f"UPDATE {CONTEXT} SET entry = last_insert_rowid(), first_id = coalesce(first_id, last_insert_rowid())\n"
        "        WHERE entry IS NULL",
    ]


def _required(audited: AuditedTable) -> list[str]:
    configuration = audited.trail.configuration
    needed = {"actor": configuration.require_actor, "reason": configuration.require_reason}
    return [
        f"SELECT RAISE(ABORT, 'sa_audit: a change with no {name} is refused') FROM {CONTEXT}\n"
        f"        WHERE trim(coalesce({name}, ''), {BLANKS}) = ''"
        for name, need in needed.items()
        if need
    ]


# -- what changed -------------------------------------------------------------------------------


def _before(texts: Texts, audited: AuditedTable) -> str:
    return " || ".join(texts.members(audited, "OLD", "NEW")) or "''"


def _changed(texts: Texts, audited: AuditedTable) -> str:
    """Give the condition that a row has its key still and another value in some recorded column."""
    key = {column.name for column in audited.key}
    rest = [_differs(texts, column) for column in audited.columns if column.name not in key]
    return f"NOT ({_moved(texts, audited)}) AND ({' OR '.join(rest) or '0'})"


def _moved(texts: Texts, audited: AuditedTable) -> str:
    key = {column.name for column in audited.key}
    return " OR ".join(_differs(texts, column) for column in audited.columns if column.name in key)


def _differs(texts: Texts, column: RecordedColumn) -> str:
    old, new = (f"{alias}.{texts.quote(column.name)}" for alias in ("OLD", "NEW"))
    if column.stored and column.encrypted:
        old, new = (f"substr({value}, 1, {COMPARED})" for value in (old, new))
    return f"{old} IS NOT {new} COLLATE BINARY OR typeof({old}) <> typeof({new})"


# -- what can't be recorded ----------------------------------------------------------------------


def _refuse_overtaken(texts: Texts, audited: AuditedTable) -> list[str]:
    """Give what refuses a row that a user's trigger changed again before it was recorded."""
    if not audited.table.primary_key.columns:
        return []
    name = texts.quote(audited.table.name)
    same = " AND ".join(
        f"t.{texts.quote(column.name)} IS NEW.{texts.quote(column.name)} COLLATE BINARY" for column in audited.columns
    )
    key = " AND ".join(f"t.{quoted} IS NEW.{quoted}" for quoted in _quoted(texts, audited.table.primary_key.columns))
    message = f"sa_audit: a trigger changed a row of {audited.table.name} again before it was recorded: drop it, "
    message += "and create it again before those of sa_audit, or call create_all()"
    text = message.replace("'", "''")
    return [
        f"SELECT RAISE(ABORT, '{text}')\n        WHERE NOT EXISTS (SELECT 1 FROM {name} AS t WHERE {key} AND {same})"
    ]


def _refuse_replaced(audited: AuditedTable, replaced: str) -> str:
    message = f"sa_audit: REPLACE removes rows of {audited.table.name} past all triggers: use ON CONFLICT DO UPDATE, "
    message += "or PRAGMA recursive_triggers = ON"
    text = message.replace("'", "''")
    return f"SELECT RAISE(ABORT, '{text}')\n        FROM {CONTEXT} WHERE {replaced} <> ''"


def _victims(texts: Texts, audited: AuditedTable, unique: list[tuple[str, ...]], other: str) -> str:
    """Give what notes the keys of the rows that stand in the way, and would be gone if the statement is a REPLACE."""
    own = tuple(column.name for column in audited.table.primary_key.columns)
    clashes = [
        "(" + " AND ".join(f"t.{texts.quote(name)} = NEW.{texts.quote(name)}" for name in names) + ")"
        for names in (own, *unique)
        if names
    ]
    name, clash = texts.quote(audited.table.name), " OR ".join(clashes) or "0"
    return (
        f"UPDATE {CONTEXT} SET replaced = (SELECT group_concat({_victim(texts, audited, 't')}, '')\n"
        f"        FROM {name} AS t WHERE ({clash}){other})"
    )


def _victim(texts: Texts, audited: AuditedTable, alias: str) -> str:
    values = " || ',' || ".join(f"quote({alias}.{quoted})" for quoted in _quoted(texts, audited.key))
    return f"'<' || {values} || '>'"


def _other(texts: Texts, audited: AuditedTable) -> str:
    same = " AND ".join(f"t.{quoted} IS OLD.{quoted}" for quoted in _quoted(texts, audited.key))
    return f" AND NOT ({same})"


def _quoted(texts: Texts, columns: Iterable[sa.Column[Any]]) -> list[str]:
    return [texts.quote(column.name) for column in columns]


def _unique_columns(audited: AuditedTable) -> list[tuple[str, ...]]:
    """Give the columns of each unique constraint and index; those on expressions, or of some rows, are left out."""
    table = audited.table
    found = [tuple(c.name for c in each.columns) for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
    for index in table.indexes:
        columns = [expression for expression in index.expressions if isinstance(expression, sa.Column)]
        plain = index.dialect_options["sqlite"].get("where") is None and len(columns) == len(index.expressions)
        if index.unique and plain:
            found.append(tuple(column.name for column in columns))
    return found


def refuse_elsewhere(audited: AuditedTable, table: str | None, *others: str | None) -> None:
    """Refuse a table whose trail stands in another attached database, where its triggers can't write.

    Raises:
        ConfigurationError: naming both.
    """
    for other in others:
        if other != table:
            raise ConfigurationError(
                f"the triggers of {audited.table.fullname} would stand in the database {table or 'main'!r} and write "
                f"into {other or 'main'!r}, which SQLite does not let them: keep both in one, or use capture='session'"
            )
