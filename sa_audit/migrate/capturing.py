"""Trigger capture in migrations: what records a table is lifted before the table changes, and set again after it.

A function that can be replaced while triggers use it is restated in place.  Everything else is lifted first thing in
the revision and set before its baselines; a table that goes on being recorded refuses writes in between, where the
database can't hold other writers off until the migration is done.
Imports script, operations, live, following, model, ddl and Alembic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.operations import ops

from ..ddl import TrailObject
from ..ddl.forms import holds
from ..errors import ConfigurationError
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
    there: Mapping[Place, Collection[str]],
) -> Capturing:
    """Compare what records the tables of a trail with what should.

    Args:
        script: the database's.
        live: the trail objects that stand in the database.
        histories: the audited tables of this environment.
        following: what happens to them.
        changed: the tables that the migration changes.
        unrecorded: tables of the environment that are not audited, or go.
        there: the columns of the tables with digests or ciphertext that stand in the database already.

    Raises:
        ConfigurationError: if the values of a table that stands would have to be brought into another form.
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
    captured = {(script.known(entry.schema), entry.table) for entry in standing.values()}
    for audited in histories:
        place = script.place(audited.table)
        if place in there:
            _refuse_switch(audited, place in captured)
            _refuse_clear(audited, there[place], [entry.definition for entry in standing.values()])
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


def _refuse_switch(audited: AuditedTable, captured: bool) -> None:
    """Refuse to switch the capture of a table whose columns hold values now, and would have to hold forms; or back."""
    if audited.formed and captured != audited.by_trigger:
        column, now = audited.formed[0], "trigger" if audited.by_trigger else "session"
        raise ConfigurationError(
            f"column {column.source} has the policy {column.policy!r}, and {audited.table.fullname} stands already: "
            f"with capture={now!r} the column would hold another form of its values than it does, and a migration has "
            "no key to make it: make a new table, and copy the rows over through the application's models"
        )


def _refuse_clear(audited: AuditedTable, columns: Collection[str], definitions: Collection[str]) -> None:
    """Refuse a policy for a column that stands, of whose values the triggers that stand demand no form."""
    for column in audited.stored:
        former = column.source.info.get("sa_audit.renamed_from")
        names = [str(name) for name in (column.name, former) if name in columns]
        tables = [name for name in (audited.table.name, audited.options.renamed_from) if name]
        said = [holds(table, name).replace("'", "''") for table in tables for name in names]
        if names and not any(each in definition for each in said for definition in definitions):
            raise ConfigurationError(
                f"column {column.source} has the policy {column.policy!r} and holds values already, which the "
                "migration can't bring into the form that the column shall hold: add a new column with the policy and "
                "no server default, and copy the values over by an UPDATE through the application's models"
            )


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
