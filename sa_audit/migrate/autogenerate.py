"""The two places where the library joins ``alembic revision --autogenerate``: before the comparison and after it.

Before, the trails are completed, for secondaries that are named by a string.  After, what Alembic proposes for the
trail's tables is taken out of the list, and what :mod:`.comparison` finds is put behind the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult

from ..ddl import TrailObject
from ..errors import ConfigurationError
from ..model.declaration import complete
from ..model.history import RESERVED, AuditedTable, Trail, is_trail_table, trail_of
from .capturing import Capturing, follow_capture
from .comparison import Comparison
from .following import Following, baseline_is_later, follow
from .live import Live
from .noting import NoteMigration, changes_of
from .script import Key, Place, Script, script_for

NAME: Final = "sa_audit"

SIGNATURES: Final = (
    frozenset(RESERVED),
    frozenset({"recorded_at", "first_id", "on_behalf_of", "db_user", "db_role", "db_addr", "db_txid"}),
    frozenset({"audit_id", "audit_tx", "audit_at", "action", "entity", "table_name", "identity"}),
    frozenset({"audit_id", "audit_tx", "audit_at", "entity", "table_name", "statement", "row_count"}),
    frozenset({"audit_id", "audit_tx", "audit_at", "access_id", "table_name", "identity"}),
    frozenset({"audit_id", "audit_tx", "audit_at", "name", "event", "commitment"}),
    frozenset({"name", "subject", "wrapped", "wrapped_by"}),
    frozenset({"table_name", "column_id", "name", "type", "event", "revision", "recorded_at"}),
    frozenset({"number", "first_leaf", "leaves", "entries", "tiles"}),
    frozenset({"block", "table_id", "first_row", "last_row", "leaves"}),
    frozenset({"id", "size", "note", "anchor", "token", "recorded_at"}),
    frozenset({"leaf", "table_name", "first_row", "last_row", "row_count", "root", "request"}),
    frozenset({"said_at", "entry", "first_id", "replaced", "on_behalf_of"}),
)
"""Columns by which a reflected table of a trail is known: those of a history, of the fixed tables, and of
``audit_context``, which trigger capture on SQLite has."""

OBJECTS: Final = "sa_audit_"
"""What the names of the trail's functions and triggers begin with on PostgreSQL."""

Plugin(NAME)  # so that autogenerate_plugins may name it, and fails loudly where this import is missing


def switched_off(context: AutogenContext) -> bool:
    """Tell whether ``autogenerate_plugins`` leaves the library out by ``"~sa_audit"``."""
    return f"~{NAME}" in (context.opts.get("autogenerate_plugins") or ())


@comparators.dispatch_for("autogenerate", priority=DispatchPriority.FIRST)
def complete_trails(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Finish the history tables, and let several MetaData share the trail's fixed tables."""
    if not switched_off(context):
        metadatas = metadatas_of(context)
        for metadata in metadatas:
            complete(metadata)
        if len(metadatas) > 1:
            _share(context, metadatas)
        if context.connection is not None and _known(context):
            _hide(context, metadatas)
    return PriorityDispatchResult.CONTINUE


@comparators.dispatch_for("autogenerate", priority=DispatchPriority.LAST)
def compare_trails(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Replace what Alembic proposes for the trail's tables by what the library does."""
    if switched_off(context) or context.connection is None:
        return PriorityDispatchResult.CONTINUE
    trails = [trail for trail in map(trail_of, metadatas_of(context)) if trail is not None]
    _unmark(upgrade_ops.ops)
    if not trails and not _known(context):
        return PriorityDispatchResult.CONTINUE
    _refuse_translation(context)
    script = script_for(context.dialect)
    live = Live(script, context.inspector, context.migration_context.impl.compare_type)
    _leave_out(script, upgrade_ops, trails)
    histories = {
        trail: [audited for audited in trail.audited.values() if _included(context, audited)] for trail in trails
    }
    following = follow(context, script, live, upgrade_ops, [entry for group in histories.values() for entry in group])
    done: set[Place] = set()
    later = baseline_is_later(context)
    objects = live.objects(_schemas(context, script, trails, upgrade_ops))
    formed = [each for group in histories.values() for each in group if each.formed]
    there = {
        place: live.columns(place)
        for place in map(script.place, (each.table for each in formed))
        if live.has_table(place)
    }
    capturing = _capture(context, script, objects, upgrade_ops, histories, following, there)
    comparisons = [Comparison(script, live, *pair, following, done, objects, later) for pair in histories.items()]
    structure = [operation for comparison in comparisons for operation in comparison.structure()]
    contents = [operation for comparison in comparisons for operation in comparison.contents()]
    noted = _noted(script, live, trails, [*capturing.first, *structure, *capturing.last, *contents])
    upgrade_ops.ops[:] = [*noted, *capturing.first, *upgrade_ops.ops, *structure, *capturing.last, *contents]
    return PriorityDispatchResult.CONTINUE


def _noted(
    script: Script, live: Live, trails: list[Trail], operations: Iterable[ops.MigrateOperation]
) -> list[NoteMigration]:
    """Give what records the revision in each trail that stands already, once for those that share their tables."""
    changes = changes_of(operations)
    places = {script.place(trail.event): trail for trail in reversed(trails)}
    standing = [
        trail
        for place, trail in places.items()
        if live.has_table(place) and live.has_table(script.place(trail.transaction))
    ]
    return [NoteMigration(script, trail, changes) for trail in standing] if changes else []


def _schemas(
    context: AutogenContext, script: Script, trails: list[Trail], upgrade_ops: ops.UpgradeOps
) -> set[str | None]:
    """Give the schemas of all tables, audited or not, of their trails, and of what goes."""
    tables = [*context.sorted_tables, *(table for trail in trails for table in trail.metadata.tables.values())]
    return {script.known(table.schema) for table in tables} | {_place(script, entry)[0] for entry in upgrade_ops.ops}


def _capture(
    context: AutogenContext,
    script: Script,
    objects: dict[Key, TrailObject],
    upgrade_ops: ops.UpgradeOps,
    histories: dict[Trail, list[AuditedTable]],
    following: Following,
    there: Mapping[Place, Collection[str]],
) -> Capturing:
    """Give what is done about trigger capture, of tables that are not audited any more too."""
    gone = {_place(script, operation) for operation in upgrade_ops.ops if isinstance(operation, ops.DropTableOp)}
    made = {_place(script, operation) for operation in upgrade_ops.ops if isinstance(operation, ops.CreateTableOp)}
    changed = {_place(script, operation) for operation in upgrade_ops.ops} - gone - made
    audited = {script.place(table) for trail in histories for table in trail.audited}
    plain = {script.place(table) for table in context.sorted_tables if not is_trail_table(table)}
    group = [entry for group in histories.values() for entry in group]
    return follow_capture(script, objects, group, following, changed, (gone | plain) - audited, there)


def metadatas_of(context: AutogenContext) -> list[sa.MetaData]:
    """Give the MetaData that the environment compares."""
    given = context.metadata
    if given is None:
        return []
    return [given] if isinstance(given, sa.MetaData) else list(given)


def _share(context: AutogenContext, metadatas: list[sa.MetaData]) -> None:
    """Show Alembic, which refuses two tables of the same name, the fixed tables of the first trail only."""
    tables: dict[str, sa.Table] = {}
    ordered: list[sa.Table] = []
    for metadata in metadatas:
        for table in metadata.sorted_tables:
            known = tables.setdefault(table.key, table)
            if known is table:
                ordered.append(table)
            elif not (is_trail_table(known) and is_trail_table(table)):
                return  # left to Alembic, whose error names the table
    context.__dict__.update(sorted_tables=ordered, table_key_to_table=tables)


def _known(context: AutogenContext) -> bool:
    """Tell whether the library knows the database; for another one, models without a trail are left to Alembic."""
    name = context.dialect.name
    return name in ("postgresql", "sqlite") or (name in ("mysql", "mariadb") and _is_mariadb(context))


def _is_mariadb(context: AutogenContext) -> bool:
    return bool(getattr(context.dialect, "is_mariadb", False))


def _hide(context: AutogenContext, metadatas: list[sa.MetaData]) -> None:
    """Keep Alembic from reading the trail's tables, whose reflection would double its time."""
    script = script_for(context.dialect)
    schemas = {script.known(table.schema) for metadata in metadatas for table in metadata.tables.values()}
    there = {script.known(schema) for schema in context.inspector.get_schema_names()}
    marked = script.trail_tables(context.connection, (schemas | {None}) & (there | {None}))  # type: ignore[arg-type] # quoted names

    def is_data(name: str | None, type_: str, parents: Any) -> bool:
        return type_ != "table" or (script.known(parents.get("schema_name")), name) not in marked

    context._name_filters.append(is_data)


def _unmark(operations: Iterable[ops.MigrateOperation]) -> None:
    """Take the library's marks out of ``Table.info``, which Alembic would print into the migration."""
    for operation in operations:
        if isinstance(operation, ops.CreateTableOp) and operation.info:
            operation.info = {
                key: value for key, value in operation.info.items() if not str(key).startswith("sa_audit.")
            }


def _refuse_translation(context: AutogenContext) -> None:
    connection = context.connection
    if connection is not None and connection.get_execution_options().get("schema_translate_map"):
        raise ConfigurationError(
            "the migration's connection has a schema_translate_map, which the text of guards can't follow: run "
            "autogenerate on a connection without one, for each schema that differs"
        )


def _included(context: AutogenContext, audited: AuditedTable) -> bool:
    """Tell whether the environment's filters let an audited table in; its history follows it."""
    table = audited.table
    parents = {"schema_name": table.schema}
    return context.run_name_filters(
        table.name,
        "table",
        parents,  # type: ignore[arg-type] # what Alembic passes
    ) and context.run_object_filters(table, table.name, "table", False, None)


def _leave_out(script: Script, upgrade_ops: ops.UpgradeOps, trails: list[Trail]) -> None:
    """Take out every operation on a table of a trail, also one that the models no longer have."""
    places = {
        script.place(table)
        for trail in trails
        for table in [
            *trail.fixed,
            *trail.records,
            *trail.secrets_tables,
            *(audited.history for audited in trail.audited.values()),
        ]
    }
    places |= {
        _place(script, operation)
        for operation in upgrade_ops.ops
        if isinstance(operation, ops.DropTableOp) and looks_like_trail(operation)
    }
    upgrade_ops.ops[:] = [
        operation
        for operation in upgrade_ops.ops
        if _place(script, operation) not in places and not drops_own_object(operation)
    ]


def drops_own_object(operation: ops.MigrateOperation) -> bool:
    """Tell whether alembic-utils, which drops what it has no entity of, would drop an object of the trail."""
    if type(operation).__name__ != "DropOp" or type(operation).__module__.partition(".")[0] != "alembic_utils":
        return False
    signature: str = getattr(getattr(operation, "target", None), "signature", "")
    return signature.strip('"').startswith(OBJECTS)


def looks_like_trail(operation: ops.DropTableOp) -> bool:
    """Tell a table of a trail by its columns, where no model says so, or it was put aside."""
    return trail_columns(operation.table_name, {column.name for column in operation.to_table().columns})


def trail_columns(name: str, columns: set[str]) -> bool:
    """Tell whether a table of these columns is one of a trail."""
    epochs = name == "audit_epoch" and columns == {"epoch", "closed"}
    return epochs or any(signature <= columns for signature in SIGNATURES)


def _place(script: Script, operation: Any) -> Place:
    return script.known(getattr(operation, "schema", None)), getattr(operation, "table_name", "")
