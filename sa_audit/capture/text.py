"""Textual DML that names an audited table: found by its words.

No SQL is parsed: a text is split into words, names and signs, and the names after each writing verb are taken.
Where databases read a text differently (comments, backslashes in strings), it is split each way.  Better one name
too many than one too few.  Imports model only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from ..model.declaration import late_secondary
from ..model.history import AuditedTable, Trail

_VERB: Final = re.compile(
    r"\b(?:insert|update|delete|replace|merge|truncate|copy|load|call|do|execute)\b", re.IGNORECASE
)
_TRUNCATE: Final = re.compile(r"\btruncate\b", re.IGNORECASE)
_COMMON: Final = r"/\*(?!M?!).*?\*/|/\*M?!\d*|\*/|\$\w*\$"
_STANDARD: Final = re.compile(
    rf"--[^\n]*|{_COMMON}|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]\n]+\]|[^\W\d][\w$]*|[^\s\w]",
    re.DOTALL,
)
_MARIADB: Final = re.compile(
    rf"--(?=\s)[^\n]*|\#[^\n]*|{_COMMON}|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`"
    r"|[^\W\d][\w$]*|[^\s\w]",
    re.DOTALL,
)
_UNICODE_NAME: Final = re.compile(r"\bu&\"(?:[^\"]|\"\")*\"", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"\\([0-9a-f]{4})|\\\+(0[0-9a-f]{5}|10[0-9a-f]{4})", re.IGNORECASE)
_SKIPPED: Final = ("--", "/*", "*/", "#", "$")
_DEFINES: Final = frozenset({"create", "alter", "drop", "grant", "revoke", "comment"})
_BLOCKS: Final = frozenset(
    {"do", "call", "execute", "prepare", "begin", "if", "case", "for", "while", "loop", "repeat"}
)
_ENDS: Final = {
    "insert": frozenset({"(", "values", "value", "set", "select", "with", "default", "on", ";"}),
    "replace": frozenset({"(", "values", "value", "set", "select", "with", "default", ";"}),
    "merge": frozenset({"using", ";"}),
    "update": frozenset({"set", ";"}),
    "delete": frozenset({"where", "returning", "limit", ";"}),
    "truncate": frozenset({";", "cascade", "restrict"}),
    "copy": frozenset({"(", "from", ";"}),
    "load": frozenset({";"}),
}
_NOT_AFTER: Final = frozenset({"for", "on", "key", "do", "then", "before", "after", "of", ".", "no"})
_NOT_BEFORE: Final = frozenset({"on", "of", "or", ",", ")", "cascade", "no", "restrict"})


def written_tables(sql: str) -> frozenset[str]:
    """Give the lower-case names, without schema, of tables that a text may write; empty for a plain read."""
    if not _VERB.search(sql):
        return frozenset()
    return _written(sql) if len(sql) > 10_000 else _remembered(sql)


def _written(sql: str) -> frozenset[str]:
    found: set[str] = set()
    sql = _UNICODE_NAME.sub(lambda name: _ESCAPE.sub(_unescaped, name[0]), sql)
    for pattern in (_STANDARD, _MARIADB):
        found |= _targets([token for token in pattern.findall(sql) if not token.startswith(_SKIPPED)])
    return frozenset(found)


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1] or escape[2], 16))


_remembered = functools.lru_cache(maxsize=1024)(_written)


def _targets(tokens: list[str]) -> set[str]:
    """Give the names after each verb of one reading of a text."""
    words = [token.lower() for token in tokens]
    if words[:2] == ["set", "statement"] and "for" in words:
        del words[: words.index("for") + 1]
    if not words or (words[0] in _DEFINES and not _makes_table(words)):
        return set()
    if words[0] in _BLOCKS and words[1:2] != [";"]:
        if words[0] in ("do", "begin") and not any(_VERB.search(token) for token in tokens[1:]):
            return set()
        # what a block or a prepared statement does may stand in its strings
        return {name for token in tokens for name in re.findall(r"\w+", token.lower())}
    found: set[str] = set()
    for place, word in enumerate(words):
        if word in _ENDS and _is_verb(words, place):
            found.update(_names(word, words, place + 1))
    return found


def _makes_table(words: list[str]) -> bool:
    """Tell whether a definition fills a table from a query, in whose CTEs a write may stand."""
    return "table" in words[:6] and "as" in words


def _is_verb(words: list[str], place: int) -> bool:
    before = words[place - 1] if place else ";"
    after = words[place + 1] if place + 1 < len(words) else ";"
    if before in _NOT_AFTER or (after in _NOT_BEFORE and words[place : place + 2] != ["update", "or"]):
        return False
    if words[place] == "replace":
        return after != "("
    return not (words[place] == "update" and before == "share")


def _names(verb: str, words: list[str], start: int) -> Iterator[str]:
    ends, rest = _ENDS[verb], words[start:]
    if verb == "update" and "set" not in rest:
        return
    if verb == "copy" and (rest[:1] == ["("] or next((word for word in rest if word in ("to", "from")), "to") == "to"):
        return
    for place in range(start, len(words)):
        word = words[place]
        if word in ends:
            return
        if words[place + 1 : place + 2] != ["."]:
            yield word.strip("'\"`[]").replace('""', '"').replace("``", "`").replace("''", "'")


_CONTROLS: Final = re.compile(
    r"\s*(?:begin|commit|rollback|savepoint|release|start\s+transaction|set|reset|show|pragma|use|xa)\b", re.IGNORECASE
)


_ENDS_TRANSACTION: Final = re.compile(r"\s*(?:begin|commit|rollback|start\s+transaction|xa)\b", re.IGNORECASE)


def ends_transaction(sql: str) -> bool:
    """Tell a text that ends a transaction, or begins another, past the connection's own methods."""
    return _ENDS_TRANSACTION.match(sql) is not None


def controls_only(sql: str) -> bool:
    """Tell a text that begins or ends a transaction, or reads or changes a setting, and does nothing else."""
    return _CONTROLS.match(sql) is not None and ";" not in sql.rstrip().rstrip(";")


def may_write(sql: str) -> bool:
    """Tell whether a word for writing is in a text."""
    return _VERB.search(sql) is not None


def truncates(sql: str) -> bool:
    """Tell whether a text may empty a table past its triggers."""
    return _TRUNCATE.search(sql) is not None


def named_tables(sql: str, tables: Iterable[AuditedTable]) -> list[AuditedTable]:
    """Give those of some tables that a text may write."""
    names = written_tables(sql)
    return [audited for audited in tables if audited.table.name.lower() in names] if names else []


def refused_tables(
    sql: str, trails: Iterable[Trail], here: Iterable[Trail], *, truncate: bool = True
) -> list[AuditedTable]:
    """Give the audited tables that a text may write, as far as that would not be recorded and is not allowed.

    Args:
        sql: the text.
        trails: all trails of the process.
        here: those known to stand in the statement's database; for a name that they audit, only they count.
        truncate: whether triggers record TRUNCATE in this database.

    Raises:
        UnauditedWrite: if that can't be told, since the models are not finished.
    """
    names = written_tables(sql)
    if not names:
        return []
    trails = list(trails)
    for trail in trails:
        if trail.configuration.text_dml != "allow":
            _find_secondaries(trail, names)
    mine = _named(names, here)
    settled = {audited.table.name.lower() for audited in mine}
    found = mine + _named(names - settled, trails)
    past_triggers = not truncate and truncates(sql)
    return [
        audited
        for audited in found
        if audited.trail.configuration.text_dml != "allow" and (past_triggers or not audited.by_trigger)
    ]


def _find_secondaries(trail: Trail, names: frozenset[str]) -> None:
    """Have the models configured if one of these tables could turn out to be an association table."""
    for table in list(trail.metadata.tables.values()):
        if table.name.lower() in names and table not in trail.audited:
            late_secondary(table)


def _named(names: Iterable[str], trails: Iterable[Trail]) -> list[AuditedTable]:
    return [
        audited
        for trail in trails
        for audited in list(trail.audited.values())
        if audited.table.name.lower() in set(names)
    ]
