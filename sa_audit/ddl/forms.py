"""What a trigger demands of columns that hold digests or ciphertext: their form, so that no clear value is copied.

Only the form can be seen without a key.  Imports model only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ..model.history import AuditedTable, RecordedColumn
from ..model.stored import COMPARED

KEY: Final = (len("aes-256-gcm:") + 1, 32)
"""Where the name of the key stands in an encrypted form: its first character, and how many."""

_HEX: Final = "[0-9a-f]"
_ENCRYPTED: Final = f"^aes-256-gcm:{_HEX}{{32}}:{_HEX}{{32}}:[A-Za-z0-9+/]{{36,}}={{0,2}}$"
_DIGEST: Final = f"^hmac-sha256:{_HEX}{{8}}:{_HEX}{{64}}$"

Rule = tuple[str, str]
"""What is wrong, as SQL, and what to say then."""


def pattern(column: RecordedColumn) -> str:
    """Give the regular expression of a column's form."""
    return _ENCRYPTED if column.encrypted else _DIGEST


def holds(table: str, column: str) -> str:
    """Give how the message about a column begins, by which triggers that demand its form are known."""
    return f"sa_audit: {table}.{column} holds "


def glob_differs(column: RecordedColumn, value: str) -> str:
    """Give the condition that a value is not of its form, for a database that has globs alone."""
    if column.encrypted:
        head = f"aes-256-gcm:{_HEX * 32}:{_HEX * 32}:"
        rest = f"length({value}) < {COMPARED + 1 + 36} OR substr({value}, {COMPARED + 2}) GLOB '*[^A-Za-z0-9+/=]*'"
        whole = f"{value} NOT GLOB '{head}*' OR {rest}"
    else:
        whole = f"{value} NOT GLOB 'hmac-sha256:{_HEX * 8}:{_HEX * 64}'"
    return f"({value} IS NOT NULL AND (typeof({value}) <> 'text' OR {whole}))".replace(":", "\\:")


def form_rules(
    audited: AuditedTable, quote: Callable[[str], str], differs: Callable[[RecordedColumn, str], str], alias: str
) -> Iterator[Rule]:
    """Give what a row of an alias must not be.

    Args:
        audited: the table.
        quote: quotes a name.
        differs: gives the condition that a column's value is there, and not of its form.
        alias: ``OLD`` or ``NEW``.
    """
    for column in audited.stored:
        kind = "encrypted values" if column.encrypted else "digests"
        said = f"{holds(audited.table.name, column.name)}{kind} alone"
        yield differs(column, f"{alias}.{quote(column.name)}"), said


def person_rules(
    audited: AuditedTable, quote: Callable[[str], str], changed: Callable[[RecordedColumn], str]
) -> Iterator[Rule]:
    """Give what an UPDATE must not do: give a row to another person, and leave values under the former one's key."""
    for column in audited.stored:
        if column.encrypted:
            old, new = (f"substr({alias}.{quote(column.name)}, {KEY[0]}, {KEY[1]})" for alias in ("OLD", "NEW"))
            subject = audited.subject_of(column)
            said = f"sa_audit: {audited.table.name}.{column.name} is encrypted for another {subject.name}"
            yield f"(({changed(subject)}) AND {old} = {new})", said
