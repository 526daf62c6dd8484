"""How the operations are printed into a migration: as Alembic's own calls, and nothing of this library.

Imports operations, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations import ops

from .plain import named_schema
from .steps import DOWNGRADE, Choice, ExecuteText, IfMissing, Remark, RenameTable, Step, TrailOperation, placed_steps
from .text import python_string


def revision_of(context: AutogenContext) -> str | None:
    """Give the identifier of the migration that is being written, or None outside of a command."""
    environment = context.migration_context.environment_context
    options: dict[str, Any] = environment.context_opts if environment is not None else {}
    revisions = getattr(options.get("revision_context"), "generated_revisions", None)
    return revisions[-1].rev_id if revisions else None


@renderers.dispatch_for(TrailOperation)
def _operation(context: AutogenContext, operation: TrailOperation) -> list[str]:
    steps = placed_steps(operation, revision_of(context), named_schema(context.dialect))
    return [line for step in steps for line in _step(context, step)]


@renderers.dispatch_for(ExecuteText)
def _execute(context: AutogenContext, operation: ExecuteText) -> str:
    text = python_string(str(operation.sqltext))
    if text.startswith("dedent("):
        context.imports.add("from textwrap import dedent")
    return f"{_prefix(context)}execute({text})"


@renderers.dispatch_for(RenameTable)
def _rename_table(context: AutogenContext, operation: RenameTable) -> str:
    schema = f", schema={str(operation.schema)!r}" if operation.schema else ""
    return f"{_prefix(context)}rename_table({operation.table_name!r}, {operation.new_table_name!r}{schema})"


def _step(context: AutogenContext, step: Step) -> list[str]:
    if isinstance(step, Remark):
        return list(step.lines)
    if isinstance(step, Choice):
        context.imports.add("from alembic import context")
        condition = f'context.get_x_argument(as_dictionary=True).get("{DOWNGRADE}") != "archive"'
        otherwise, archive = _block(context, step.otherwise), _block(context, step.archive)
        return [f"if {condition}:\n{otherwise}\nelse:\n{archive}"]
    if isinstance(step, IfMissing):
        return [_if_missing(context, step)]
    lines = render_op(context, step)
    return [_indented(line) for line in lines] if isinstance(step, ops.CreateTableOp) else lines


def _indented(call: str) -> str:
    """Indent the arguments of a call that Alembic printed on lines of their own."""
    first, *lines = call.split("\n")
    if not lines or lines[-1] != ")":
        return call
    return "\n".join([first, *(f"    {line}" for line in lines[:-1]), ")"])


def _if_missing(context: AutogenContext, step: IfMissing) -> str:
    context.imports.add("from alembic import context")
    schema = f", schema={step.table.schema!r}" if step.table.schema else ""
    columns = f"sa.inspect({_prefix(context)}get_bind()).get_columns({step.table.name!r}{schema})"
    condition = f'{step.column!r} not in [column["name"] for column in {columns}]'
    return f"if context.is_offline_mode() or {condition}:\n{_block(context, [step.step])}"


def _block(context: AutogenContext, steps: Iterable[Step]) -> str:
    lines = [line for step in steps for part in _step(context, step) for line in part.split("\n")]
    return "\n".join(f"    {line}" if line else "" for line in lines) or "    pass"


def _prefix(context: AutogenContext) -> str:
    return str(context.opts.get("alembic_module_prefix") or "")
