"""What trigger capture puts into a database, as values: named objects with the text that creates and drops each.

``create_all()`` executes these texts; whoever writes migrations prints the same.  Imports nothing of the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["table", "function", "procedure", "trigger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureObject:
    """One object of trigger capture.

    Args:
        kind: what it is.
        name: its name, not quoted, without schema.
        table: of a trigger, the full name of the table that it stands on; else None.
        create: statements that create it, one each; they succeed where it is there already, but for triggers.
        drop: statements that drop it if it is there.
        fixture: whether :func:`sa_audit.testing.unguarded` lifts it, since it records what only fixtures do.
    """

    kind: Kind
    name: str
    table: str | None = None
    create: tuple[str, ...]
    drop: tuple[str, ...]
    fixture: bool = False

    def __post_init__(self) -> None:
        """Undo the escapes that text with parameters needs: these are the statements as they stand."""
        for field in ("create", "drop"):
            object.__setattr__(self, field, tuple(text.replace("\\:", ":") for text in getattr(self, field)))


def created(objects: Iterable[CaptureObject]) -> list[str]:
    """Give the statements that create objects, in their order; what is there already is replaced."""
    return [
        text
        for entry in objects
        for text in ((*entry.drop, *entry.create) if entry.kind == "trigger" else entry.create)
    ]


def dropped(objects: Iterable[CaptureObject]) -> list[str]:
    """Give the statements that drop objects, the last made first."""
    return [text for entry in reversed(list(objects)) for text in entry.drop]
