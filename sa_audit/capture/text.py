"""Textual DML that names an audited table: found by its words, and refused.

Imports model only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from ..errors import UnauditedWrite
from ..model.history import Trail

_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_VERB = re.compile(r"\b(?:insert|update|delete|replace|merge|truncate|copy|load)\b", re.IGNORECASE)
_TARGET = re.compile(
    r"\b(?:insert\s+(?:\w+\s+){0,2}?into|replace\s+(?:into)?|update(?:\s+or\s+\w+)?(?:\s+only)?|"
    r"delete\s+(?:\w+\s+)?from(?:\s+only)?|merge\s+into|truncate(?:\s+table)?(?:\s+only)?|copy|"
    r"load\s+data\s.*?\binto\s+table|,)\s*"
    r"((?:[`\"\[]?[\w$ -]+[`\"\]]?\s*\.\s*)?(?:`[^`]+`|\"[^\"]+\"|\[[^\]]+\]|[\w$]+))",
    re.IGNORECASE | re.DOTALL,
)


@functools.lru_cache(maxsize=2048)
def written_tables(sql: str) -> frozenset[str]:
    """Give the lower-case names, without schema, of tables that a text may write; empty for a plain read."""
    if not _VERB.search(sql):
        return frozenset()
    bare = _NOISE.sub(" ", sql)
    if not _VERB.search(bare):
        return frozenset()
    names = (match.group(1).split(".")[-1].strip().strip('`"[]').lower() for match in _TARGET.finditer(bare))
    return frozenset(names)


def refuse_text(sql: str, trails: Iterable[Trail]) -> None:
    """Refuse a text that writes an audited table.

    Raises:
        UnauditedWrite: naming the table and the way out.
    """
    names = written_tables(sql)
    if not names:
        return
    for trail in trails:
        if trail.configuration.text_dml == "allow":
            continue
        for table in trail.audited:
            if table.name.lower() in names:
                raise UnauditedWrite(
                    f"a textual statement that writes the audited table {table.fullname} would not be recorded: "
                    f"use insert(), update() or delete(), or configure(text_dml='allow'); it begins {sql.strip()[:60]!r}"
                )
