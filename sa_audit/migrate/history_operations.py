"""The operations by which a history follows its table: columns that come, change or get another name.

Recorded values are never converted and never dropped.  Imports operations, steps, script, model, SQLAlchemy, Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.types import TypeEngine

from ..ddl import TrailObject
from ..model.history import Trail
from ..model.names import short_name
from .operations import renamed_names, under_name
from .script import Script
from .steps import ExecuteText, IfMissing, Remark, RenameColumn, RenameTable, Step, TrailOperation
from .text import section


class AddHistoryColumn(TrailOperation):
    """A further column of a history.  It stays on downgrade, since it may hold recorded values."""

    def __init__(self, script: Script, table: sa.Table, column: sa.Column[Any]) -> None:
        self.script = script
        self.table = table
        self.column = column

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Add it, unless an earlier upgrade has."""
        add = ops.AddColumnOp(self.table.name, self.column, schema=self.table.schema)
        if not self.script.adds_columns_if_missing:
            yield IfMissing(self.table, self.column.name, add)
            return
        add.if_not_exists = True
        yield add

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the column."""
        return ("sa_audit", "add_history_column", self.table.fullname, self.column.name, self.column.type)


class AddSalt(AddHistoryColumn):
    """The salt of entries that were made without one: rows that are there keep none, and their digests.

    Where no column can be added with a default that is an expression, the default follows it.
    """

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Add the column, and then its default."""
        yield from super().steps(revision)
        yield from map(ExecuteText, self.script.defaults_of_salt(self.table))


class AddHistoryIndex(TrailOperation):
    """A further index of a history."""

    def __init__(self, table: sa.Table, name: str, columns: Sequence[str]) -> None:
        self.table = table
        self.name = name
        self.columns = tuple(columns)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Create it, unless an earlier upgrade has."""
        yield ops.CreateIndexOp(
            self.name,
            self.table.name,
            list(self.columns),
            schema=self.table.schema,
            unique=False,
            if_not_exists=True,
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the index."""
        return ("sa_audit", "add_history_index", self.table.fullname, self.name)


class WidenHistoryColumn(TrailOperation):
    """A history column's wider type, which changes no recorded value.  It stays on downgrade."""

    def __init__(
        self, table: sa.Table, name: str, former: TypeEngine[Any], type_: TypeEngine[Any], nullable: bool
    ) -> None:
        self.table = table
        self.name = name
        self.former = former
        self.type = type_
        self.nullable = nullable

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Change the type."""
        yield ops.AlterColumnOp(
            self.table.name,
            self.name,
            schema=self.table.schema,
            existing_type=self.former,
            existing_nullable=self.nullable,
            modify_type=self.type,
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the column and the types."""
        return ("sa_audit", "widen_history_column", self.table.fullname, self.name, self.former, self.type)


class ReplaceHistoryColumn(TrailOperation):
    """A history column of another type, beside the one that keeps what was recorded.

    Indexes with the column are made anew, for the column that is used from now on, and it is granted to who writes; the
    right to the one that is put aside stays with it, and comes back with it on downgrade.
    """

    def __init__(
        self,
        table: sa.Table,
        former: sa.Column[Any],
        column: sa.Column[Any],
        indexes: Sequence[tuple[str, tuple[str, ...]]],
        grants: Sequence[str] = (),
        *,
        back: bool = False,
    ) -> None:
        self.table = table
        self.former = former
        self.column = column
        self.indexes = tuple(indexes)
        self.grants = tuple(grants)
        self.back = back

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Put the present column aside, and add one, or on downgrade, take the former one back."""
        schema, name = self.table.schema, self.column.name
        until, since = (short_name(f"{name}_{word}_{revision or 'change'}") for word in ("until", "since"))
        for index, _columns in self.indexes:
            yield ops.DropIndexOp(index, self.table.name, schema=schema)
        kept = since if self.back else until
        yield Remark((f"# recorded values are never converted: those of the other type stay in {kept}",))
        if self.back:
            yield RenameColumn(self.table.name, name, since, schema=schema, column=self.column)
            yield RenameColumn(self.table.name, until, name, schema=schema, column=self.former)
        else:
            yield RenameColumn(self.table.name, name, until, schema=schema, column=self.former)
            yield ops.AddColumnOp(self.table.name, self.column, schema=schema)
            yield from map(ExecuteText, self.grants)
        for index, columns in self.indexes:
            yield ops.CreateIndexOp(index, self.table.name, list(columns), schema=schema, unique=False)

    def reverse(self) -> ReplaceHistoryColumn:
        """Give the way back, or forth again."""
        return ReplaceHistoryColumn(self.table, self.former, self.column, self.indexes, self.grants, back=not self.back)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the column and the types."""
        return ("sa_audit", "replace_history_column", self.table.fullname, self.column.name, self.column.type)


class RenameHistoryColumn(TrailOperation):
    """A history column's new name, which follows the data's."""

    def __init__(self, table: sa.Table, rename: RenameColumn) -> None:
        self.table = table
        self.rename = rename

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Rename it."""
        yield self.rename

    def reverse(self) -> RenameHistoryColumn:
        """Give the way back."""
        return RenameHistoryColumn(self.table, self.rename.reverse())

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the column, before and after."""
        return (
            "sa_audit",
            "rename_history_column",
            self.table.fullname,
            self.rename.column_name,
            self.rename.modify_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What a history is called, with what hangs on it.

    Args:
        table: the history's name.
        source: the audited table's full name.
        key: the primary key's name, or None.
        indexes: the name of each index, in the same order before and after.
        objects: the objects that stand on it only under this name.
        comment: the table's comment.
    """

    table: str
    source: str
    key: str | None
    indexes: tuple[str, ...]
    objects: tuple[TrailObject, ...]
    comment: str | None


class RenameHistory(TrailOperation):
    """A history's new name, which follows the table's."""

    def __init__(
        self,
        script: Script,
        trail: Trail,
        table: sa.Table,
        former: Name,
        now: Name,
        columns: Sequence[tuple[str, ...]],
        *,
        back: bool = False,
    ) -> None:
        self.script = script
        self.trail = trail
        self.table = table
        self.former = former
        self.now = now
        self.columns = tuple(columns)
        self.back = back

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Rename the table, its key and its indexes, and put up the guards that have its name in them."""
        former, now, script = self.former, self.now, self.script
        yield Remark((section(f"history of {now.source}, before of {former.source}"),))
        for entry in former.objects:
            yield from map(ExecuteText, entry.drop)
        if former.table != now.table:
            yield RenameTable(former.table, now.table, schema=self.table.schema)
        target = under_name(self.table, now.table)
        yield from renamed_names(script, target, zip(former.indexes, now.indexes, self.columns, strict=True))
        if former.key and now.key and former.key != now.key:
            text = script.rename_key(target, former.key, now.key)
            yield from map(ExecuteText, [text] if text else [])
        if script.dialect.supports_comments:
            yield ops.CreateTableCommentOp(
                now.table, now.comment, schema=self.table.schema, existing_comment=former.comment
            )
        for entry in now.objects:
            yield from map(ExecuteText, entry.create)
        if not self.back:  # the account of the former name is still there
            yield ExecuteText(script.moved(self.trail, former.source, now.source))

    def reverse(self) -> RenameHistory:
        """Give the way back."""
        return RenameHistory(
            self.script, self.trail, self.table, self.now, self.former, self.columns, back=not self.back
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the history, before and after."""
        return ("sa_audit", "rename_history", self.former.table, self.now.table)
