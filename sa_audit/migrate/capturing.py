"""Trigger capture in migrations: what records a table is lifted before the table changes, and set again after it.

A function that can be replaced while triggers use it is restated in place.  Everything else is lifted first thing in
the revision and set before its baselines; a table that goes on being recorded refuses writes in between, where the
database can't hold other writers off until the migration is done.
Imports script, operations, live, following, model, ddl and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.operations import ops

from ..ddl import TrailObject
from ..model.history import AuditedTable
from .following import Following
from .operations import ReplaceObject
from .script import Key, Place, Script
from .steps import ExecuteText, Remark, Step, TrailOperation
from .text import section

Objects = dict[Key, TrailObject]


class LiftCapture(TrailOperation):
    """What records tables, taken away before they change; it comes back at the end of a downgrade.

    Args:
        script: the database's.
        title: what its section is called.
        objects: what stands there now, in the order in which it was made.
        closing: those of them whose place is kept by a trigger that refuses writes until the others are set.
    """

    def __init__(
        self, script: Script, title: str, objects: Sequence[TrailObject], closing: Sequence[TrailObject]
    ) -> None:
        self.script = script
        self.title = title
        self.objects = tuple(objects)
        self.closing = tuple(closing)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Drop each, the last made first."""
        yield Remark((section(self.title),))
        yield from map(ExecuteText, self.script.lifted(self.objects, self.closing))

    def reverse(self) -> SetCapture:
        """Create them as they were."""
        return SetCapture(self.script, self.title, self.objects, self.closing)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "lift", *(entry.label for entry in self.objects))


class SetCapture(TrailOperation):
    """What records tables, made after they have changed; it is lifted first thing in a downgrade.

    Args:
        script: the database's.
        title: what its section is called.
        objects: what is made, in order.
        closing: those of them in whose place a downgrade puts a trigger that refuses writes.
    """

    def __init__(
        self, script: Script, title: str, objects: Sequence[TrailObject], closing: Sequence[TrailObject]
    ) -> None:
        self.script = script
        self.title = title
        self.objects = tuple(objects)
        self.closing = tuple(closing)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create each, in place of what keeps its place."""
        yield Remark((section(self.title),))
        yield from map(ExecuteText, self.script.set_again(self.objects, self.closing))

    def reverse(self) -> LiftCapture:
        """Take them away."""
        return LiftCapture(self.script, self.title, self.objects, self.closing)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "set", *(entry.label for entry in self.objects))


@dataclass(slots=True)
class Capturing:
    """What a migration does about trigger capture.

    Args:
        first: what comes before everything else.
        last: what comes when the histories are as they should be, and before their baselines.
    """

    first: list[ops.MigrateOperation] = field(default_factory=list)
    last: list[ops.MigrateOperation] = field(default_factory=list)


def follow_capture(
    script: Script,
    live: Objects,
    histories: Iterable[AuditedTable],
    following: Following,
    changed: set[Place],
    unrecorded: set[Place],
) -> Capturing:
    """Compare what records the tables of a trail with what should.

    Args:
        script: the database's.
        live: the trail objects that stand in the database.
        histories: the audited tables of this environment.
        following: what happens to them.
        changed: the tables that the migration changes.
        unrecorded: tables of the environment that are not audited, or go.
    """
    found = Capturing()
    places = set(unrecorded)
    expected: Objects = {}
    for audited in histories:
        place = script.place(audited.table)
        places |= {place, (place[0], following.tables.get(place, place[1]))}
        if audited.by_trigger:
            expected |= {script.key(entry): entry for entry in script.capture_of(audited)}
    standing = script.capturing(live, places)
    again, lifted = _affected(script, standing, expected, following, changed)
    for key in expected.keys() - again.keys():
        if key in standing and standing[key].definition != expected[key].definition:
            found.last.append(ReplaceObject(standing[key], expected[key]))
    closing = again.keys() & set(map(script.key, lifted))
    if lifted:
        kept = [entry for entry in lifted if script.key(entry) in closing]
        title = "what records " + _tables(lifted) + (", until the tables are as they should be" if again else "")
        found.first.append(LiftCapture(script, title, lifted, kept))
    if again:
        made = [expected[key] for key in expected if key in again]
        kept = [entry for entry in made if script.key(entry) in closing]
        found.last.append(SetCapture(script, "what records " + _tables(made), made, kept))
    return found


def _affected(
    script: Script, standing: Objects, expected: Objects, following: Following, changed: set[Place]
) -> tuple[Objects, list[TrailObject]]:
    """Give what is to be made, and what is to be taken away before."""
    again = {
        key: entry
        for key, entry in expected.items()
        if key not in standing
        or (entry.table is not None and (script.known(entry.schema), entry.table) in changed and script.lifts)
        or (standing[key].definition != entry.definition and not script.restates(entry))
    }
    lifted = [entry for key, entry in standing.items() if key not in expected or key in again]
    return again, lifted


def _tables(objects: Iterable[TrailObject]) -> str:
    return ", ".join(dict.fromkeys(entry.table for entry in objects if entry.table)) or "a table"


__all__ = ["Capturing", "LiftCapture", "SetCapture", "follow_capture"]
