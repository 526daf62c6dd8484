"""A trail object: one named thing of the database beside its tables, with the text that creates and drops it.

The same values serve ``create_all()``, which runs the texts, and the generated migrations, which print them and
compare the definition with what the live database holds.  Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sequence", "function", "procedure", "table", "trigger", "partitions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailObject:
    """One named SQL object of the trail.

    Args:
        kind: what it is.
        schema: its schema by its real name, or None where the database's default one is meant.
        table: the table that a trigger stands on, or None.
        name: its name, not quoted.
        create: the statements that create it, one each, as :func:`sqlalchemy.text` takes them.
        drop: the statements that drop it.
        definition: what it does, in a form that is the same when read from the catalog; never run.
        shared: whether others than this MetaData's trail may use it, so that a downgrade leaves it.
        fixture: whether :func:`sa_audit.testing.unguarded` lifts it, since it records what only fixtures do.
        called: whether who writes calls it by name, and so needs the right to.
    """

    kind: Kind
    schema: str | None
    table: str | None = None
    name: str
    create: tuple[str, ...]
    drop: tuple[str, ...]
    definition: str
    shared: bool = False
    fixture: bool = False
    called: bool = False

    @property
    def place(self) -> tuple[str, str | None, str | None, str]:
        """What tells it from the others of its database: kind, schema, table and name."""
        return self.kind, self.schema, self.table, self.name

    @property
    def label(self) -> str:
        """Its name for people: ``schema.table.name`` as far as there is one of each."""
        return ".".join(part for part in (self.schema, self.table, self.name) if part)


def statements(objects: Iterable[TrailObject]) -> list[str]:
    """Give the statements that create objects, in order."""
    return [statement for entry in objects for statement in entry.create]


def replacing(objects: Iterable[TrailObject]) -> list[str]:
    """Give the statements that create objects, in order, where some may be there already."""
    return [
        statement
        for entry in objects
        for statement in ((*entry.drop, *entry.create) if entry.kind == "trigger" else entry.create)
    ]


def dropped(objects: Iterable[TrailObject]) -> list[str]:
    """Give the statements that drop objects, the last made first."""
    return [statement for entry in reversed(list(objects)) for statement in entry.drop]


def spoken(text: str) -> str:
    """Give a text for :func:`sqlalchemy.text` as the database hears it: without the escapes before colons."""
    return text.replace("\\:", ":")
