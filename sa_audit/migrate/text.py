"""SQL text as it stands in a migration: escaped for ``op.execute``, and printed as Python that a reviewer reads.

Alembic indents every line that a renderer gives, inside triple quotes too, hence ``dedent``.  Imports SQLAlchemy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

WIDTH: Final = 100
_BIND: Final = re.compile(r"(?<![:\w$\\]):(?=[\w$])")
_AWKWARD: Final = re.compile(r'"""|\t|[ \r]$|\\\Z', re.MULTILINE)


def escaped(sql: str) -> str:
    """Give SQL as :func:`sqlalchemy.text`, and so ``op.execute``, takes it: ``:name`` would be a parameter."""
    return _BIND.sub(r"\\:", sql)


def python_string(text: str) -> str:
    """Give a Python expression whose value is a text, but for blank lines around it: one line or a dedented block."""
    if "\n" not in text:
        return _one_line(text)
    lines = text.split("\n")
    if _AWKWARD.search(text) or not lines[0] or lines[0][0] == " " or not lines[-1].strip():
        return repr(text)
    body = text.replace("\\", "\\\\")
    indented = "\n".join(f"    {line}" if line else "" for line in body.split("\n"))
    return f'dedent("""\n{indented}\n""")'


def _one_line(text: str) -> str:
    """Give a literal in double quotes where that needs no escapes, as formatters write it."""
    plain = not any(sign in text for sign in '"\\') and text.isprintable()
    return f'"{text}"' if plain else repr(text)


def wrapped(parts: Iterable[str], indent: str, width: int = WIDTH) -> str:
    """Join parts with commas into lines, each begun by the indent."""
    lines: list[str] = []
    line = ""
    for part in parts:
        longer = f"{line}, {part}" if line else part
        if line and len(indent) + len(longer) + 1 > width:
            lines.append(f"{indent}{line},")
            line = part
        else:
            line = longer
    return "\n".join([*lines, f"{indent}{line}"])


def section(title: str, width: int = 78) -> str:
    """Give the comment that opens a section of a migration."""
    return f"# -- sa_audit: {title} ".ljust(width, "-")
