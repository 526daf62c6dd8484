"""The operations that make the trail, each with its reverse and its line in ``alembic check``.

Imports steps, script, model, ddl, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from ..ddl import TrailObject
from ..model.history import AuditedTable, Trail
from ..model.log import PRUNE
from ..model.names import short_name
from ..model.tables import BASELINE_BEGUN
from .script import Note, Script
from .steps import DOWNGRADE, Choice, ExecuteText, Nothing, Remark, RenameTable, Step, TrailOperation
from .text import section


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A table of the trail that a migration creates.

    Args:
        title: what its section is called.
        table: its plain form.
        indexes: name and columns of each index.
        objects: what stands on it.
        source: the audited table, for a history.
    """

    title: str
    table: sa.Table
    indexes: tuple[tuple[str, tuple[str, ...]], ...]
    objects: tuple[TrailObject, ...]
    source: sa.Table | None = None


class CreateSchema(TrailOperation):
    """The trail's own schema.  It stays on downgrade, since it may hold what was put aside."""

    def __init__(self, script: Script, schema: str) -> None:
        self.script = script
        self.schema = schema

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create it."""
        yield Remark((section("the schema of the trail"),))
        yield ExecuteText(self.script.create_schema(self.schema))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the schema."""
        return ("sa_audit", "create_schema", self.schema)


class CreateObjects(TrailOperation):
    """Trail objects that are missing."""

    def __init__(self, title: str, objects: Sequence[TrailObject]) -> None:
        self.title = title
        self.objects = tuple(objects)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create each."""
        yield Remark((section(self.title),))
        for entry in self.objects:
            yield from map(ExecuteText, entry.create)

    def reverse(self) -> ops.MigrateOperation:
        """Drop them; a guard that was missing stays, since nothing may be unguarded by going back."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "create", *(entry.label for entry in self.objects))


class ReplaceObject(TrailOperation):
    """A trail object that is not what it should be; the former text comes back on downgrade."""

    def __init__(self, former: TrailObject, now: TrailObject) -> None:
        self.former = former
        self.now = now

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Drop what is there, and create what should be; a function is replaced, since triggers depend on it."""
        yield Remark((section(f"{self.now.kind} {self.now.label} again"),))
        if self.now.kind not in ("function", "procedure"):
            yield from map(ExecuteText, self.former.drop)
        yield from map(ExecuteText, self.now.create)

    def reverse(self) -> ReplaceObject:
        """Give the way back to the text that was read from the database."""
        return ReplaceObject(self.now, self.former)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the object, and what it was and is to be."""
        return ("sa_audit", "replace", self.now.label, self.former.definition, self.now.definition)


class DropObjects(TrailOperation):
    """Trail objects of an earlier state; they come back on downgrade."""

    def __init__(self, title: str, objects: Sequence[TrailObject]) -> None:
        self.title = title
        self.objects = tuple(objects)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Drop each."""
        yield Remark((section(self.title),))
        for entry in self.objects:
            yield from map(ExecuteText, entry.drop)

    def reverse(self) -> ops.MigrateOperation:
        """Create them as they were."""
        return CreateObjects(self.title, self.objects)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "drop", *(entry.label for entry in self.objects))


class CreateTrail(TrailOperation):
    """Tables of the trail with their indexes and guards, and what they need."""

    def __init__(self, script: Script, trail: Trail, objects: Sequence[TrailObject], parts: Sequence[Part]) -> None:
        self.script = script
        self.trail = trail
        self.objects = tuple(objects)
        self.parts = tuple(parts)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create everything."""
        if self.objects:
            yield Remark((section("what the trail's tables need"),))
            for entry in self.objects:
                yield from map(ExecuteText, entry.create)
        for part in self.parts:
            yield Remark((section(part.title),))
            yield ops.CreateTableOp.from_table(part.table)
            for name, columns in part.indexes:
                yield ops.CreateIndexOp(
                    name, part.table.name, list(columns), schema=part.table.schema, unique=name.startswith("uq_")
                )
            for entry in part.objects:
                yield from map(ExecuteText, entry.create)

    def reverse(self) -> DropTrail:
        """Give the downgrade, which drops no recorded history."""
        return DropTrail(self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "create_trail", *(part.table.fullname for part in self.parts))


class DropTrail(TrailOperation):
    """The downgrade of :class:`CreateTrail`: drops what holds no recorded row, or puts everything aside."""

    def __init__(self, created: CreateTrail) -> None:
        self.created = created

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Refuse first, unless everything is to be put aside."""
        yield Remark(
            (
                section("the trail"),
                "# It is dropped only while it holds nothing but baselines.  To keep recorded history under other",
                f"# names instead, closed to changes: alembic -x {DOWNGRADE}=archive downgrade ...",
            )
        )
        yield Choice(tuple(self._drop()), tuple(self._archive(revision or "archived")))

    def _drop(self) -> Iterator[Step]:
        script, parts = self.created.script, self.created.parts
        histories = [part for part in parts if part.source is not None]
        trail = self.created.trail
        entries, blocks = (self._part(table.name) for table in (trail.transaction, trail.block))
        sources = [part.source for part in histories if part.source is not None]
        fixed = [table for table in (entries, blocks) if table is not None]
        yield from map(ExecuteText, script.lock([*sources, *fixed]))
        prunes = self._part(PRUNE)
        kept = [*(part.table for part in histories), *([] if prunes is None else [prunes])]
        if kept or fixed:
            yield from map(ExecuteText, script.refuse(kept, entries, blocks))
        for part in reversed(parts):
            yield ops.DropTableOp(part.table.name, schema=part.table.schema)
        for entry in reversed(self.created.objects):
            yield from map(ExecuteText, entry.drop)

    def _part(self, name: str) -> sa.Table | None:
        """Give the fixed table of a name if it is one of those that go."""
        return next((part.table for part in self.created.parts if part.table.name == name), None)

    def _archive(self, revision: str) -> Iterator[Step]:
        for part in reversed(self.created.parts):
            yield from put_aside(self.created.script, self.created.trail, part, revision)

    def reverse(self) -> CreateTrail:
        """Give what it undoes."""
        return self.created

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "drop_trail", *(part.table.fullname for part in self.created.parts))


def put_aside(script: Script, trail: Trail, part: Part, revision: str) -> Iterator[Step]:
    """Give the steps that keep a table of the trail under another name, closed to further rows.

    Its indexes and its key are renamed too where their names would be in the way of new ones.
    """
    table = under_name(part.table, short_name(f"{part.table.name}_{revision}"))
    drops, creates = script.put_aside(part.objects, table, trail)
    for entry in drops:
        yield from map(ExecuteText, entry.drop)
    yield RenameTable(part.table.name, table.name, schema=table.schema)
    yield from renamed_names(
        script, table, [(name, short_name(f"{name}_{revision}"), columns) for name, columns in part.indexes]
    )
    key = part.table.primary_key.name
    text = script.rename_key(table, str(key), short_name(f"{key}_{revision}")) if isinstance(key, str) else None
    yield from map(ExecuteText, [text] if text else [])
    for entry in creates:
        yield from map(ExecuteText, entry.create)


def renamed_names(
    script: Script, table: sa.Table, indexes: Iterable[tuple[str, str, tuple[str, ...]]]
) -> Iterator[Step]:
    """Give the steps that rename indexes: by a statement, or where there is none, by making them anew."""
    for former, name, columns in indexes:
        if script.index_names_are_per_table or former == name:
            continue
        text = script.rename_index(table, former, name)
        if text is not None:
            yield ExecuteText(text)
            continue
        yield ops.DropIndexOp(former, table.name, schema=table.schema)
        yield ops.CreateIndexOp(name, table.name, list(columns), schema=table.schema, unique=False)


def under_name(table: sa.Table, name: str) -> sa.Table:
    """Give a table of the trail with the same key under another name."""
    key = [column.name for column in table.primary_key.columns]
    columns = [sa.Column(column, sa.BigInteger()) for column in key]
    return sa.Table(name, sa.MetaData(), *columns, sa.PrimaryKeyConstraint(*key), schema=table.schema)


class Baseline(TrailOperation):
    """The rows that stand in audited tables, recorded as found and not as made."""

    def __init__(self, script: Script, tables: Sequence[AuditedTable]) -> None:
        self.script = script
        self.tables = tuple(tables)

    @property
    def names(self) -> list[str]:
        """The audited tables' full names."""
        return [audited.table.fullname for audited in self.tables]

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Copy the rows."""
        yield Remark((section("baseline, the rows that stand in the tables now"),))
        reason = "sa_audit: baseline" + (f", revision {revision}" if revision else "")
        yield from map(ExecuteText, self.script.baseline(self.tables, reason))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "baseline", *self.names)


class LaterBaseline(TrailOperation):
    """The note that the rows of audited tables are carried in after the migration, by ``sa-audit baseline``."""

    def __init__(self, script: Script, trail: Trail, tables: Sequence[AuditedTable]) -> None:
        self.script = script
        self.trail = trail
        self.names = tuple(audited.table.fullname for audited in tables)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Write the notes."""
        yield Remark(
            (
                section("the rows that stand in the tables now are recorded later"),
                "# After this migration run: sa-audit baseline",
                "# Until it has ended, these tables have no past that could be asked about.",
            )
        )
        notes = [Note(table=name, column_id=0, name="*", type="", event=BASELINE_BEGUN) for name in self.names]
        yield from map(ExecuteText, self.script.notes(self.trail, notes, revision))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the tables."""
        return ("sa_audit", "later_baseline", *self.names)


class NoteColumns(TrailOperation):
    """The account of the columns that the history has from this revision on."""

    def __init__(self, script: Script, trail: Trail, notes: Sequence[Note]) -> None:
        self.script = script
        self.trail = trail
        self.notes = tuple(notes)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Write the notes."""
        yield Remark((section("which columns are recorded from now on"),))
        yield from map(ExecuteText, self.script.notes(self.trail, self.notes, revision))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the columns."""
        return ("sa_audit", "note", *(f"{note.table}.{note.name}" for note in self.notes))


class PossibleRename(TrailOperation):
    """The remark that a drop and an addition may be meant as a rename."""

    def __init__(self, hint: str, renames: Sequence[str]) -> None:
        self.hint = hint
        self.renames = tuple(renames)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Say what to call for each."""
        lines = [f"#   alembic -x {self.hint}={rename} revision --autogenerate" for rename in self.renames]
        yield Remark(
            (
                "# sa_audit: below, a column goes and another comes.  Its recorded values stay under the old name.",
                "# If it only gets another name, write this revision again by",
                *lines,
            )
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the columns."""
        return ("sa_audit", "possible_rename", *self.renames)
