"""What a migration does to the audited tables themselves, which their histories have to follow: renames above all.

Alembic sees a rename as a drop and an addition.  Where a hint says so, both are replaced by a rename; where none
does, the file says how to give one.  Imports operations, steps, script, model, errors, SQLAlchemy and Alembic.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops

from ..errors import ConfigurationError
from ..model.history import AuditedTable
from .live import Live
from .operations import PossibleRename
from .script import Place, Script
from .steps import RenameColumn, RenameTable

RENAMED_FROM: Final = "sa_audit.renamed_from"
HINT: Final = "audit_rename"
BASELINE: Final = "audit_baseline"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Following:
    """What happens to audited tables, by their places after it.

    Args:
        columns: for each renamed column its former name.
        tables: the former name of a renamed table.
        added: the columns that are added.
        dropped: the columns that are dropped.
    """

    columns: dict[Place, dict[str, str]] = field(default_factory=dict)
    tables: dict[Place, str] = field(default_factory=dict)
    added: dict[Place, set[str]] = field(default_factory=dict)
    dropped: dict[Place, set[str]] = field(default_factory=dict)


class Hints:
    """The renames that ``alembic -x audit_rename=table.column:name`` or ``=table:name`` says."""

    def __init__(self, context: AutogenContext) -> None:
        environment = context.migration_context.environment_context
        arguments: Any = environment.get_x_argument() if environment is not None else []
        self._given: list[str] = [text.partition("=")[2] for text in arguments if text.partition("=")[0] == HINT]
        self._used: set[str] = set()
        for text in self._given:
            if ":" not in text.strip(":"):
                raise ConfigurationError(
                    f"-x {HINT}={text}: give the former name and the new one, as in account.email:mail or acct:account"
                )

    def table(self, table: sa.Table) -> str | None:
        """Give the former name of a table."""
        return self._former(table.name, "", table.schema)

    def column(self, table: sa.Table, name: str) -> str | None:
        """Give the former name of a column."""
        return self._former(name, f"{table.name}.", table.schema)

    def _former(self, name: str, start: str, schema: str | None) -> str | None:
        for text in self._given:
            former, _, now = text.rpartition(":")
            bare = former.removeprefix(f"{schema}.") if schema else former
            if now == name and bare.startswith(start) and "." not in bare[len(start) :]:
                self._used.add(text)
                return bare[len(start) :]
        return None

    def require_used(self) -> None:
        """Refuse a hint that names nothing.

        Raises:
            ConfigurationError: with the hint.
        """
        for text in self._given:
            if text not in self._used:
                raise ConfigurationError(
                    f"-x {HINT}={text} names no column or table of an audited model: the new name is the model's, "
                    "the former one the database's"
                )


def baseline_is_later(context: AutogenContext) -> bool:
    """Tell whether ``alembic -x audit_baseline=later`` leaves the baseline to ``sa-audit baseline``.

    Raises:
        ConfigurationError: for another value.
    """
    environment = context.migration_context.environment_context
    arguments: Any = environment.get_x_argument(as_dictionary=True) if environment is not None else {}
    given = arguments.get(BASELINE, "now")
    if given not in ("now", "later"):
        raise ConfigurationError(f"-x {BASELINE}={given}: give now or later")
    return bool(given == "later")


def follow(
    context: AutogenContext, script: Script, live: Live, upgrade_ops: ops.UpgradeOps, audited: list[AuditedTable]
) -> Following:
    """Put renames in place of drops and additions, and tell what else happens to the audited tables.

    Raises:
        ConfigurationError: for a hint that names nothing.
    """
    following, hints = Following(), Hints(context)
    names = {script.place(table) for table in context.sorted_tables}
    for entry in audited:
        place = script.place(entry.table)
        former = entry.options.renamed_from or hints.table(entry.table)
        if (
            former
            and not live.has_table(place)
            and live.has_table((place[0], former))
            and (place[0], former) not in names
        ):
            following.tables[place] = former
            _rename_table(context, script, upgrade_ops, entry.table, former)
    for entry in audited:
        _columns(context, script, live, upgrade_ops, entry, hints, following)
    hints.require_used()
    return following


# -- tables ------------------------------------------------------------------------------


def _rename_table(
    context: AutogenContext, script: Script, upgrade_ops: ops.UpgradeOps, table: sa.Table, former: str
) -> None:
    """Replace the creation of a table and the drop of another by a rename and what else differs."""
    schema = script.known(table.schema)
    drop = next(
        operation
        for operation in upgrade_ops.ops
        if isinstance(operation, ops.DropTableOp) and _place(script, operation) == (schema, former)
    )
    gone = {(schema, former), (schema, table.name)}
    rest = [operation for operation in upgrade_ops.ops if _place(script, operation) not in gone]
    for operation in rest:
        if isinstance(operation, ops.ModifyTableOps):
            operation.ops[:] = _without_moved_keys(operation.ops, former, table.name)
    rest = [operation for operation in rest if not isinstance(operation, ops.ModifyTableOps) or operation.ops]
    changes = _changes(context, drop.to_table(), table, former, schema)
    upgrade_ops.ops[:] = [RenameTable(former, table.name, schema=schema), *([changes] if changes.ops else []), *rest]


def _without_moved_keys(
    operations: list[ops.MigrateOperation], former: str, name: str
) -> Iterator[ops.MigrateOperation]:
    """Leave out the foreign keys that only follow the table to its new name."""
    added = {
        tuple(operation.local_cols)
        for operation in operations
        if isinstance(operation, ops.CreateForeignKeyOp) and operation.referent_table == name
    }
    dropped = set()
    for operation in operations:
        if isinstance(operation, ops.DropConstraintOp) and operation.constraint_type == "foreignkey":
            constraint: Any = operation.to_constraint()
            if constraint.elements[0].target_fullname.split(".")[-2] == former:
                dropped.add(tuple(constraint.column_keys))
    moved = added & dropped
    for operation in operations:
        if isinstance(operation, ops.CreateForeignKeyOp) and tuple(operation.local_cols) in moved:
            continue
        if isinstance(operation, ops.DropConstraintOp) and operation.constraint_type == "foreignkey":
            keys: Any = operation.to_constraint()
            if tuple(keys.column_keys) in moved:
                continue
        yield operation


def _changes(
    context: AutogenContext, live: sa.Table, table: sa.Table, former: str, schema: str | None
) -> ops.ModifyTableOps:
    """Give what differs between a table under its former name and its model, beside the name."""
    changes = ops.ModifyTableOps(former, [], schema=schema)
    known = {column.name: column for column in live.columns}
    for column in table.columns:
        if column.name not in known:
            changes.ops.append(ops.AddColumnOp.from_column_and_tablename(schema, former, column))
            continue
        altered = _altered(context, schema, former, known[column.name], column)
        if altered.has_changes():
            changes.ops.append(altered)
    dispatch = context.comparators.dispatch("table", qualifier=context.dialect.name)
    dispatch(context, changes, schema, former, live, table)
    names = {column.name for column in table.columns}
    changes.ops.extend(
        ops.DropColumnOp.from_column_and_tablename(schema, former, column)
        for name, column in known.items()
        if name not in names
    )
    changes.table_name = table.name
    for operation in changes.ops:
        for attribute in ("table_name", "source_table"):
            if hasattr(operation, attribute):
                setattr(operation, attribute, table.name)
    return changes


def _altered(
    context: AutogenContext, schema: str | None, table: str, live: sa.Column[Any], column: sa.Column[Any]
) -> ops.AlterColumnOp:
    altered = ops.AlterColumnOp(table, column.name, schema=schema)
    dispatch = context.comparators.dispatch("column", qualifier=context.dialect.name)
    dispatch(context, altered, schema, table, column.name, live, column)
    return altered


# -- columns -----------------------------------------------------------------------------


def _columns(
    context: AutogenContext,
    script: Script,
    live: Live,
    upgrade_ops: ops.UpgradeOps,
    entry: AuditedTable,
    hints: Hints,
    following: Following,
) -> None:
    place = script.place(entry.table)
    changes = next(
        (
            operation
            for operation in upgrade_ops.ops
            if isinstance(operation, ops.ModifyTableOps) and _place(script, operation) == place
        ),
        None,
    )
    names = {column.name for column in entry.table.columns}
    for column in entry.table.columns:
        former = column.info.get(RENAMED_FROM) or hints.column(entry.table, column.name)
        if changes is not None and former and former not in names:
            _rename_column(context, changes, column, former, following.columns.setdefault(place, {}))
    if changes is None:
        return
    added = {op.column.name: op for op in changes.ops if isinstance(op, ops.AddColumnOp)}
    dropped = {op.column_name: op for op in changes.ops if isinstance(op, ops.DropColumnOp)}
    following.added[place], following.dropped[place] = set(added), set(dropped)
    remarks = [
        f"{entry.table.fullname}.{former}:{name}"
        for former, gone in dropped.items()
        for name, new in added.items()
        if gone.to_column().type._type_affinity is new.column.type._type_affinity
    ]
    if remarks:
        log.warning("a column goes and another comes; for a rename: alembic -x %s=%s", HINT, remarks[0])
        upgrade_ops.ops.insert(upgrade_ops.ops.index(changes), PossibleRename(HINT, remarks))
    if place in following.columns:
        _apart(upgrade_ops, changes)


def _apart(upgrade_ops: ops.UpgradeOps, changes: ops.ModifyTableOps) -> None:
    """Put drops of indexes and constraints before the renames, and the rest behind them, in batches of their own.

    So each index is dropped and made under the column names of its moment, on the way back as well.  SQLite's batch
    makes a table from its former columns and can't put an index on a name that it only just gave.
    """
    drops = [entry for entry in changes.ops if isinstance(entry, (ops.DropIndexOp, ops.DropConstraintOp))]
    renames = [entry for entry in changes.ops if isinstance(entry, RenameColumn)]
    rest = [entry for entry in changes.ops if entry not in drops and entry not in renames]
    index = upgrade_ops.ops.index(changes)
    upgrade_ops.ops[index : index + 1] = [
        ops.ModifyTableOps(changes.table_name, group, schema=changes.schema)
        for group in (drops, renames, rest)
        if group
    ]


def _rename_column(
    context: AutogenContext, changes: ops.ModifyTableOps, column: sa.Column[Any], former: str, found: dict[str, str]
) -> None:
    """Replace the addition of a column and the drop of another by a rename and what else differs."""
    add = next((op for op in changes.ops if isinstance(op, ops.AddColumnOp) and op.column.name == column.name), None)
    drop = next((op for op in changes.ops if isinstance(op, ops.DropColumnOp) and op.column_name == former), None)
    if add is None or drop is None:
        return
    live = drop.to_column()
    altered = _altered(context, changes.schema, changes.table_name, live, column)
    rename = RenameColumn(
        changes.table_name,
        former,
        column.name,
        schema=changes.schema,
        column=live,
        altered=altered if altered.has_changes() else None,
    )
    changes.ops[:] = [rename, *(entry for entry in changes.ops if entry is not add and entry is not drop)]
    found[column.name] = former


def _place(script: Script, operation: Any) -> Place:
    return script.known(getattr(operation, "schema", None)), getattr(operation, "table_name", "")
