"""What an operation of the library consists of: Alembic's own operations, comments, and two kinds of condition.

A :class:`TrailOperation` says its steps; performing runs them and rendering prints them, so that a migration holds
core calls only.  Imports plain, text, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from alembic.operations import Operations, ops

from ..ddl.objects import spoken
from .plain import named_schema
from .text import escaped

DOWNGRADE: Final = "sa_audit.downgrade"


@dataclass(frozen=True, slots=True)
class Remark:
    """Comment lines of a migration."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps of a downgrade, and those with ``alembic -x sa_audit.downgrade=archive``."""

    otherwise: tuple[Step, ...]
    archive: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class IfMissing:
    """A column to add where the database has no ``ADD COLUMN IF NOT EXISTS``."""

    table: sa.Table
    column: str
    step: ops.MigrateOperation


Step = ops.MigrateOperation | Remark | Choice | IfMissing


class ExecuteText(ops.ExecuteSQLOp):
    """One SQL statement, printed so that it can be read."""

    def __init__(self, sql: str) -> None:
        super().__init__(escaped(spoken(sql)))

    def reverse(self) -> ops.MigrateOperation:
        """Give nothing: what is undone is undone by the operation that this is a step of."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say what is run."""
        return ("sa_audit", "execute", self.sqltext)


class RenameTable(ops.RenameTableOp):
    """A table's new name, with both directions."""

    def reverse(self) -> RenameTable:
        """Give the way back."""
        return RenameTable(self.new_table_name, self.table_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say which table gets which name."""
        return ("sa_audit", "rename_table", self.schema, self.table_name, self.new_table_name)


class RenameColumn(ops.AlterColumnOp):
    """A column's new name, with both directions, and what else changes of it.

    Args:
        table: the table's name.
        former: the column's name before.
        name: its name after.
        schema: the table's schema.
        column: the column as it is before.
        altered: what else changes of it, or None.
    """

    def __init__(
        self,
        table: str,
        former: str,
        name: str,
        *,
        schema: str | None,
        column: sa.Column[Any],
        altered: ops.AlterColumnOp | None = None,
    ) -> None:
        default = column.server_default
        super().__init__(
            table,
            former,
            schema=schema,
            existing_type=column.type,
            existing_nullable=column.nullable,
            existing_server_default=default if isinstance(default, sa.DefaultClause) else False,
            existing_comment=column.comment,
            modify_name=name,
        )
        self.column = column
        self.altered = altered
        if altered is not None:
            self.modify_type = altered.modify_type
            self.modify_nullable = altered.modify_nullable
            self.modify_server_default = altered.modify_server_default
            self.modify_comment = altered.modify_comment

    def has_changes(self) -> bool:
        """Tell that it changes something."""
        return True

    def reverse(self) -> RenameColumn:
        """Give the way back."""
        former, name = self.column_name, self.modify_name or self.column_name
        altered = self.altered.reverse() if self.altered is not None else None
        back = RenameColumn(self.table_name, name, former, schema=self.schema, column=self.column, altered=altered)
        if altered is not None:
            back.existing_type = altered.existing_type
            back.existing_nullable = altered.existing_nullable
            back.existing_server_default = altered.existing_server_default
            back.existing_comment = altered.existing_comment
        return back

    def to_diff_tuple(self) -> Any:
        """Say which column gets which name."""
        return [("sa_audit", "rename_column", self.schema, self.table_name, self.column_name, self.modify_name)]


class TrailOperation(ops.MigrateOperation):
    """The root of what the library adds to a migration."""

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Give what it does.

        Args:
            revision: the identifier of the migration, where it is known.
        """
        raise NotImplementedError

    def reverse(self) -> ops.MigrateOperation:
        """Give what undoes it; as a rule nothing, since nothing that is recorded is taken back."""
        return Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say what it does, for ``alembic check``."""
        raise NotImplementedError


class Nothing(TrailOperation):
    """The reverse of what stays."""

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Give nothing."""
        return iter(())

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Say so."""
        return ("sa_audit", "nothing")


def placed_steps(operation: TrailOperation, revision: str | None, schema: str | None) -> Iterator[Step]:
    """Give the steps of an operation, whose tables stand in a schema where they name none.

    The texts of guards name the schema of each table.  So do the calls then, whatever ``search_path`` they run under.

    Args:
        operation: what is done.
        revision: the identifier of the migration, where it is known.
        schema: the default schema by name; None where tables are not named with theirs.
    """
    for step in operation.steps(revision):
        yield _placed(step, schema) if schema else step


def _placed(step: Step, schema: str) -> Step:
    if isinstance(step, Choice):
        otherwise, archive = (
            tuple(_placed(entry, schema) for entry in part) for part in (step.otherwise, step.archive)
        )
        return Choice(otherwise, archive)
    if isinstance(step, ops.MigrateOperation) and getattr(step, "schema", schema) is None:
        step.schema = schema  # type: ignore[attr-defined] # what operations on tables have
    return step


def perform(operations: Operations, operation: TrailOperation) -> None:
    """Run the steps of an operation, as the file that is rendered from it would."""
    for step in placed_steps(operation, None, named_schema(operations.migration_context.dialect)):
        _run(operations, step)


def _run(operations: Operations, step: Step) -> None:
    if isinstance(step, ops.MigrateOperation):
        operations.invoke(step)
    elif isinstance(step, Choice):
        for entry in step.archive if _archives(operations) else step.otherwise:
            _run(operations, entry)
    elif isinstance(step, IfMissing) and not _has_column(operations, step):
        operations.invoke(step.step)


def _archives(operations: Operations) -> bool:
    environment = operations.migration_context.environment_context
    given: Any = environment.get_x_argument(as_dictionary=True) if environment is not None else {}
    return bool(given.get(DOWNGRADE) == "archive")


def _has_column(operations: Operations, step: IfMissing) -> bool:
    if operations.migration_context.as_sql:
        return False
    inspector = sa.inspect(operations.get_bind())
    columns = inspector.get_columns(step.table.name, schema=step.table.schema)
    return step.column in {column["name"] for column in columns}
