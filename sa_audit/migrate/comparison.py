"""One trail compared with the live database: the operations that make the database what the models say.

Alembic's own comparison leaves the trail's tables to this: it would set defaults and constraints in a history, and
drop what the models no longer have.  Imports the operations, columns, privileges and the like,
model, ddl, Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from alembic.operations import ops

from ..ddl import TrailObject
from ..errors import ConfigurationError
from ..model.history import AuditedTable, Trail
from ..model.tables import TRAIL_TABLE
from .columns import Result, follow_columns, follow_indexes, indexes_of, type_of
from .following import Following
from .history_operations import AddSalt, Name, RenameHistory
from .live import Live
from .operations import (
    Baseline,
    CreateObjects,
    CreateSchema,
    CreateTrail,
    DropObjects,
    LaterBaseline,
    NoteColumns,
    Part,
    ReplaceObject,
    under_name,
)
from .plain import plain_column, plain_table
from .privileges import privilege_operations
from .script import Key, Note, Place, Script

SALT: Final = "audit_salt"
TITLES: Final = {
    "audit_transaction": "who changed audited data, when and why",
    "audit_column": "since when each column is recorded",
    "audit_block": "the sealed log: its leaves, in blocks",
    "audit_sealed": "the sealed log: which rows are in which block",
    "audit_checkpoint": "the sealed log: its signed checkpoints",
    "audit_prune": "the sealed log: which rows may be pruned",
}
"""What a migration says above each fixed table."""


class Comparison:
    """The comparison of one trail.

    Args:
        script: the database's.
        live: what stands there.
        trail: the trail, complete.
        histories: the audited tables that belong to this migration environment.
        following: what happens to the audited tables.
        done: places of trail tables that another MetaData's trail has dealt with.
        objects: the trail objects that stand there.
        later: leave the rows that stand in newly audited tables to ``sa-audit baseline``.
    """

    def __init__(
        self,
        script: Script,
        live: Live,
        trail: Trail,
        histories: list[AuditedTable],
        following: Following,
        done: set[Place],
        objects: dict[Key, TrailObject],
        later: bool = False,
    ) -> None:
        self.script = script
        self.live = live
        self.trail = trail
        self.histories = histories
        self.following = following
        self.done = done
        self.later = later
        self.objects = objects
        self.result = Result()
        self.tables: list[sa.Table] = []

    def structure(self) -> Iterator[ops.MigrateOperation]:
        """Give the operations on tables and objects, in order."""
        if not self.histories:
            return
        result = self.result
        tables = self.tables = self._tables()
        self._schemas(tables, result)
        renamed = {audited.history: former for audited in self.histories if (former := self._former_name(audited))}
        missing = [table for table in tables if table not in renamed and not self._stands(table)]
        present = [table for table in tables if table not in renamed and table not in missing]
        self._objects(present, missing, result)
        self._salt(present, result)
        histories = [self.script.place(audited.history) for audited in self.histories]
        self.live.warm([*(self.script.place(audited.table) for audited in self.histories), *histories], histories)
        for audited in self.histories:
            former = renamed.get(audited.history)
            if former is not None:
                self._rename(audited, former, result)
            if audited.history in missing:
                self._new_history(audited, result)
            elif audited.history in tables:
                if former is None:
                    self._refuse_form(audited)
                place = (self.script.known(audited.history.schema), former or audited.history.name)
                replaced = follow_columns(self.script, self.live, self.following, audited, place, result)
                follow_indexes(self.live, audited, place, replaced, result)
        yield from [*result.schemas, *result.changes, *result.created]

    def contents(self) -> Iterator[ops.MigrateOperation]:
        """Give the operations that write rows, once the structure is there and everybody else's rows are recorded."""
        if self.result.later:
            yield LaterBaseline(self.script, self.trail, self.result.later)
        if self.result.notes:
            yield NoteColumns(self.script, self.trail, self.result.notes)
        if self.result.baselines:
            yield Baseline(self.script, self.result.baselines)
        yield from privilege_operations(self.script, self.trail, self.tables, self.live.connection)

    def _tables(self) -> list[sa.Table]:
        """Give the trail's tables that nobody has dealt with yet."""
        tables = []
        trail, histories = self.trail, [audited.history for audited in self.histories]
        for table in [*trail.fixed, *trail.records, *trail.secrets_tables, *histories]:
            place = self.script.place(table)
            if place not in self.done:
                self.done.add(place)
                tables.append(table)
        return tables

    def _stands(self, table: sa.Table) -> bool:
        return self.live.has_table(self.script.place(table))

    # -- objects -----------------------------------------------------------------------

    def _schemas(self, tables: list[sa.Table], result: Result) -> None:
        for schema in dict.fromkeys(self.script.known(table.schema) for table in tables):
            if schema is not None and not self.live.has_schema(schema):
                result.schemas.append(CreateSchema(self.script, schema))

    def _objects(self, present: list[sa.Table], missing: list[sa.Table], result: Result) -> None:
        shared = self.script.shared_objects(self.trail)
        guards = [entry for table in present for entry in self.script.objects_of(table, self.trail)]
        needed = [entry for entry in shared if self.script.key(entry) not in self.objects]
        lacking = [entry for entry in guards if self.script.key(entry) not in self.objects]
        replaced = [entry for entry in guards if self._is_another(entry)]  # they may use what is needed
        if needed and (replaced or not missing):
            needed, lacking = [], [*needed, *lacking]
        if lacking:
            result.changes.append(CreateObjects("guards that are missing", lacking))
        for entry in [*shared, *guards]:
            former = self.objects.get(self.script.key(entry))
            if former is not None and self._is_another(entry):
                result.changes.append(ReplaceObject(former, entry))
                result.changes += self._guarded_again(entry, guards)
        self._unexpected(present, guards, result)
        if missing:
            parts = [self._part(table) for table in missing]
            result.created.append(CreateTrail(self.script, self.trail, needed, parts))

    def _is_another(self, entry: TrailObject) -> bool:
        former = self.objects.get(self.script.key(entry))
        return former is not None and former.definition != entry.definition

    def _guarded_again(self, changed: TrailObject, guards: list[TrailObject]) -> Iterator[CreateObjects]:
        """Give what puts up the guards of a history's partitions again, after one of its own has changed."""
        for entry in guards:
            if changed.kind == "trigger" and entry.kind == "partitions" and entry.table == changed.table:
                yield CreateObjects(f"guards of the partitions of {entry.table}", [entry])

    def _refuse_form(self, audited: AuditedTable) -> None:
        """Refuse to go on where a history stands in another form than the model asks for.

        Raises:
            ConfigurationError: a table can't be partitioned, or be put together again, in place.
        """
        place = self.script.place(audited.history)
        stands = any(entry.kind == "partitions" and self._at(entry) == place for entry in self.objects.values())
        if self.script.partitions and audited.partitioned and not stands:
            raise ConfigurationError(
                f"{audited.history.fullname} is a plain table, and {audited.table.fullname} asks for "
                "partition='month', which PostgreSQL can't change in place: leave it out, or begin another history "
                "beside it by AuditOptions(history_table=..., partition='month')"
            )
        if stands and not audited.partitioned:
            raise ConfigurationError(
                f"{audited.history.fullname} is kept by month, which PostgreSQL can't change in place: give "
                f"{audited.table.fullname} AuditOptions(partition='month') again"
            )

    def _at(self, entry: TrailObject) -> Place:
        return self.script.known(entry.schema), str(entry.table)

    def _salt(self, present: list[sa.Table], result: Result) -> None:
        """Give the salt to entries that were made without one."""
        entries = self.trail.transaction
        salted = entries not in present or SALT in self.live.columns(self.script.place(entries))
        if not salted:
            column = self.script.column_of_salt(plain_column(entries.c[SALT], self.script.dialect))
            result.changes.append(AddSalt(self.script, entries, column))

    def _unexpected(self, present: list[sa.Table], guards: list[TrailObject], result: Result) -> None:
        places = {self.script.place(table) for table in present}
        expected = {self.script.key(entry) for entry in guards}
        former = [
            entry
            for key, entry in self.objects.items()
            if key not in expected and (key[1], entry.table) in places and _is_ours(entry)
        ]
        if former:
            result.changes.append(DropObjects("what an earlier version left", former))

    def _part(self, table: sa.Table) -> Part:
        source = next((audited.table for audited in self.histories if audited.history is table), None)
        title = TITLES.get(str(table.info[TRAIL_TABLE]), str(table.comment).removeprefix("sa_audit: "))
        if source is not None:
            title = f"history of {source.fullname}"
        return Part(
            title=title,
            table=plain_table(table, self.script.dialect),
            indexes=tuple(indexes_of(table)),
            objects=tuple(self.script.objects_of(table, self.trail)),
            source=source,
        )

    # -- histories -----------------------------------------------------------------------

    def _new_history(self, audited: AuditedTable, result: Result) -> None:
        result.notes += [
            Note(
                table=audited.table.fullname,
                column_id=number,
                name=column.name,
                type=type_of(self.script, column.source),
                event="create",
            )
            for number, column in enumerate(audited.columns, 1)
        ]
        if self._stands(audited.table) or self.script.place(audited.table) in self.following.tables:
            keyed = len(audited.table.primary_key.columns) > 0
            if audited.formed and not keyed:
                raise ConfigurationError(
                    f"column {audited.formed[0].source} has the policy {audited.formed[0].policy!r}, which only "
                    f"sa-audit baseline can apply to the rows that stand in {audited.table.fullname} now, and the "
                    "table has no primary key for it to go by: give it one, or use Mask() for the column"
                )
            later = keyed and (self.later or bool(audited.formed))
            (result.later if later else result.baselines).append(audited)

    def _former_name(self, audited: AuditedTable) -> str | None:
        """Give the name of the history that a renamed table has already, the present one included."""
        former = self.following.tables.get(self.script.place(audited.table))
        if former is None:
            return None
        name = audited.options.history_table or f"{former}_history"
        return name if self.live.has_table((self.script.known(audited.history.schema), name)) else None

    def _rename(self, audited: AuditedTable, name: str, result: Result) -> None:
        """Rename a history with its indexes, its key and the guards that have its name in them."""
        history = audited.history
        place = (self.script.known(history.schema), name)
        source = self.following.tables[self.script.place(audited.table)]
        known = self.live.indexes(place)
        pairs = [(columns, known[columns], index) for index, columns in indexes_of(history) if columns in known]
        guards = {entry.name for entry in self.script.objects_of(under_name(history, name), self.trail)}
        standing = [entry for entry in self.objects.values() if entry.table == name and entry.name in guards]
        drops, creates = self.script.carried(standing, self.script.objects_of(history, self.trail))
        if name == history.name:
            drops, creates = (), ()
        key = history.primary_key.name
        former = Name(
            table=name,
            source=f"{audited.table.schema}.{source}" if audited.table.schema else source,
            key=self.live.key(place),
            indexes=tuple(index for _columns, index, _name in pairs),
            objects=tuple(drops),
            comment=self.live.comment(place) if self.script.dialect.supports_comments else None,
        )
        now = Name(
            table=history.name,
            source=audited.table.fullname,
            key=str(key) if isinstance(key, str) else None,
            indexes=tuple(index for _columns, _former, index in pairs),
            objects=tuple(creates),
            comment=history.comment,
        )
        columns = [columns for columns, _former, _index in pairs]
        result.changes.append(RenameHistory(self.script, self.trail, history, former, now, columns))


def _is_ours(entry: TrailObject) -> bool:
    """Tell a trigger that an earlier version of the library made from one of the user's."""
    return entry.kind == "trigger" and entry.name.startswith(("sa_audit_", f"{entry.table}_guard_"))
