"""The columns and indexes of one history compared with the live ones.

A new column is nullable and comes without a default; one that the model no longer has stays; a type is changed only
where no recorded value can change.  Imports the operations, fitting, plain, privileges, script, live, model,
Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from ..errors import ConfigurationError
from ..model.history import AuditedTable
from .fitting import fits
from .following import Following
from .history_operations import (
    AddHistoryColumn,
    AddHistoryIndex,
    RenameHistoryColumn,
    ReplaceHistoryColumn,
    WidenHistoryColumn,
)
from .live import Live
from .plain import plain_column
from .privileges import granted
from .script import Note, Place, Script
from .steps import RenameColumn


@dataclass(slots=True)
class Result:
    """The operations of one trail, in groups that are run in this order, and what is recorded at the end."""

    schemas: list[ops.MigrateOperation] = field(default_factory=list)
    changes: list[ops.MigrateOperation] = field(default_factory=list)
    created: list[ops.MigrateOperation] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    baselines: list[AuditedTable] = field(default_factory=list)
    later: list[AuditedTable] = field(default_factory=list)


def indexes_of(table: sa.Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give name and columns of each index of a trail table, in the order of the names."""
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield str(index.name), tuple(column.name for column in index.columns)


def type_of(script: Script, column: sa.Column[Any]) -> str:
    """Give the name of a column's type, for the account of columns."""
    return str(column.type.compile(script.dialect))


def follow_columns(
    script: Script, live: Live, following: Following, audited: AuditedTable, place: Place, result: Result
) -> set[str]:
    """Compare the columns of a history that stands in the database.

    Args:
        script: the database's.
        live: what stands there.
        following: what happens to the audited tables.
        audited: the audited table.
        place: where its history stands now.
        result: where operations and notes go.

    Returns:
        The names of columns that are replaced, whose indexes are made anew already.
    """
    return _Columns(script, live, following, audited, place, result).compare()


def follow_indexes(live: Live, audited: AuditedTable, place: Place, replaced: set[str], result: Result) -> None:
    """Add the indexes that a history lacks; those that the model no longer has stay."""
    known = live.indexes(place)
    renamed = {
        operation.rename.column_name: operation.rename.modify_name
        for operation in result.changes
        if isinstance(operation, RenameHistoryColumn) and operation.table is audited.history
    }
    standing = {tuple(renamed.get(column) or column for column in columns) for columns in known}
    for name, columns in indexes_of(audited.history):
        if columns not in standing and not replaced & set(columns):
            result.changes.append(AddHistoryIndex(audited.history, name, columns))


class _Columns:
    """The comparison of one history's columns."""

    def __init__(
        self, script: Script, live: Live, following: Following, audited: AuditedTable, place: Place, result: Result
    ) -> None:
        self.script = script
        self.live = live
        self.audited = audited
        self.place = place
        self.result = result
        source = script.place(audited.table)
        self.renamed = following.columns.get(source, {})
        self.added = following.added.get(source, set())
        self.dropped = following.dropped.get(source, set())
        former = (source[0], following.tables.get(source, source[1]))
        self.source = live.columns(former) if live.has_table(former) else {}
        self.known = live.columns(place)

    def compare(self) -> set[str]:
        """Compare each recorded column with its live one."""
        replaced = set()
        for column in self.audited.recorded:
            recorded = column.recorded
            if recorded is None:
                continue
            former = self.renamed.get(column.name)
            if former in self.known and column.name not in self.known:
                self._rename(column.source, str(former))
                live_name = str(former)
            elif column.name not in self.known:
                self._add(column.source, recorded)
                continue
            else:
                live_name = column.name
            if column.name in self.added and self.source:
                self._refuse_protected(column.source)
                self._baseline()  # it was dropped once, and comes back with other values
            if self._retype(column.source, recorded, live_name):
                replaced.add(column.name)
        for name in sorted(self.dropped & self.known.keys()):
            self._note(name, str(self.known[name]["type"].compile(self.script.dialect)), "drop", name)
        return replaced

    def _add(self, source: sa.Column[Any], recorded: sa.Column[Any]) -> None:
        """Add a column; the rows need a baseline where it holds values already, or a default gives it some."""
        plain = plain_column(recorded, self.script.dialect)
        self.result.changes.append(AddHistoryColumn(self.script, self.audited.history, plain))
        self._note(source.name, type_of(self.script, source), "create", None)
        if self.source and (source.name in self.source or source.server_default is not None):
            self._refuse_protected(source)
            self._baseline()

    def _rename(self, source: sa.Column[Any], former: str) -> None:
        column = self._live_column(former)
        history = self.audited.history
        rename = RenameColumn(history.name, former, source.name, schema=history.schema, column=column)
        self.result.changes.append(RenameHistoryColumn(history, rename))
        self._note(source.name, type_of(self.script, source), "rename", former)

    def _retype(self, source: sa.Column[Any], recorded: sa.Column[Any], live_name: str) -> bool:
        """Let a type be, widen it, or keep the column and add another; tell whether the last."""
        plain = plain_column(recorded, self.script.dialect)
        column = self._live_column(live_name)
        if fits(plain.type, column.type, self.script.dialect) or self._same(plain.type, column.type):
            return False
        history = self.audited.history
        self._note(source.name, type_of(self.script, source), "retype", source.name)
        if self.script.retypes and fits(column.type, plain.type, self.script.dialect):
            nullable = bool(column.nullable)
            self.result.changes.append(WidenHistoryColumn(history, source.name, column.type, plain.type, nullable))
            return False
        column.name = source.name
        known = self.live.indexes(self.place)
        indexes = [
            (known.get(columns, name), columns)
            for name, columns in indexes_of(history)
            if source.name in columns and columns in known
        ]
        self.result.changes.append(
            ReplaceHistoryColumn(history, column, plain, indexes, granted(self.script, self.audited, source.name))
        )
        if self.source:
            self._refuse_protected(source)
            self._baseline()
        return True

    def _refuse_protected(self, source: sa.Column[Any]) -> None:
        """Refuse to carry in values that only Python can bring into the form that the history shall hold.

        Raises:
            ConfigurationError: naming the column.
        """
        for column in self.audited.formed:
            if column.source is source:
                raise ConfigurationError(
                    f"column {source} has the policy {column.policy!r} and holds values already, which the migration "
                    "can't bring into the form that the history shall hold: add a new column with the policy and no "
                    "server default, and copy the values over by an UPDATE through the application's models"
                )

    def _same(self, type_: Any, live: Any) -> bool:
        """Compare as Alembic does, which knows each database's other names of a type."""
        return not self.live.types_differ(sa.Column("x", live), sa.Column("x", type_))

    def _live_column(self, name: str) -> sa.Column[Any]:
        found = self.known[name]
        return sa.Column(name, found["type"], nullable=found["nullable"])

    def _note(self, name: str, type_: str, event: str, former: str | None) -> None:
        self.result.notes.append(
            Note(table=self.audited.table.fullname, column_id=None, name=name, type=type_, event=event, former=former)
        )

    def _baseline(self) -> None:
        if self.audited not in self.result.baselines:
            self.result.baselines.append(self.audited)
