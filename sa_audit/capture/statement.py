"""One Core or ORM-enabled DML statement under way, and the forms of it that are refused.

Imports model, ddl, and of capture recording and foreign keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase

from ..ddl.backend import OWN, Batch, Target
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import foreign_keys
from .failing import abandon
from .recording import Recording, admit, target_of, write
from .returned import buffered_rows


@dataclass(slots=True)
class Statement:
    """A DML statement under way: what to execute in its place, and what to do after it.

    ``columns_fixed`` says that nothing may be added to what it returns.
    """

    connection: Connection
    recording: Recording
    target: Target
    element: Any
    rows: list[dict[str, Any]]
    options: Any
    flush: int
    columns_fixed: bool = False
    after: Callable[[Any], None] | None = None
    reached: list[foreign_keys.Reached] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    savepoint: str | None = None
    entries: list[Any] = field(default_factory=list)

    @property
    def audited(self) -> AuditedTable:
        """The audited table."""
        return self.target.audited

    @property
    def many(self) -> bool:
        """Whether the statement runs once for each of several rows of parameters."""
        return len(self.rows) > 1

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a statement that runs once."""
        return self.rows[0] if len(self.rows) == 1 else {}

    def write(self, **batch: Any) -> int:
        """Record a batch under this statement's number."""
        if not any(batch.values()):
            return 0
        return write(self.connection, self.recording, self.target, Batch(**batch), self.flush)

    def execute(self, element: Any, parameters: Any = None) -> Any:
        """Execute a statement of the library's own under the user's schema translation."""
        options = {
            **OWN,
            "preserve_rowcount": True,
            "schema_translate_map": self.options.get("schema_translate_map"),
        }
        return self.connection.execute(element, parameters, execution_options=options)


def begin(
    connection: Connection, audited: AuditedTable, element: Any, rows: list[dict[str, Any]], options: Any
) -> Statement:
    """Admit a statement and give its state."""
    recording = admit(connection, audited)
    operation = _bulk_operation(element, options)
    flush = recording.next_flush() if operation is None else recording.bulk_flush(operation, audited.table)
    return Statement(connection, recording, target_of(audited, options), element, rows, options, flush)


def _bulk_operation(element: Any, options: Any) -> Any:
    """Give what tells the bulk operations of one inheritance's mappers from others, or None for a plain statement."""
    if "_emit_insert_table" in element._annotations:
        return id(element._propagate_attrs["plugin_subject"]), element.__visit_name__
    cache = options.get("compiled_cache")
    return None if cache is None else (id(cache), element.__visit_name__)


def finish(statement: Statement, result: Any) -> None:
    """Record what the statement did, and what it made the database do."""
    if result.returns_rows:
        buffered_rows(result)
    if statement.after is not None:
        statement.after(result)
    for reached in statement.reached:
        foreign_keys.settle(statement.connection, statement.recording, reached, statement.flush)
    for text in statement.leftovers:
        statement.execute(sa.text(text))
    if statement.savepoint is not None:
        statement.execute(sa.text(f"RELEASE SAVEPOINT {statement.savepoint}"))
        statement.savepoint = None


# -- what is recorded before the statement runs -------------------------------------------


def prepare(statement: Statement) -> None:
    """Get ready to record before the statement runs, so that nothing of it is left if the statement fails.

    The statement is compiled, which finds most mistakes in it; and where the transaction outlives a statement that
    the database refuses, a savepoint is set.
    """
    keys = sorted(statement.rows[0]) if statement.rows else []
    statement.element.compile(dialect=statement.connection.dialect, column_keys=keys, for_executemany=statement.many)
    if statement.recording.backend.outlives_failure:
        statement.entries = list(statement.recording.entries)
        name = f"sa_audit_statement_{statement.flush}"
        statement.execute(sa.text(f"SAVEPOINT {name}"))
        statement.savepoint = name


def undo(statement: Statement) -> None:
    """Take back what was recorded before a statement that the database then refused."""
    if statement.savepoint is None:
        return
    name, statement.savepoint = statement.savepoint, None
    try:
        statement.execute(sa.text(f"ROLLBACK TO SAVEPOINT {name}"))
        statement.execute(sa.text(f"RELEASE SAVEPOINT {name}"))
    except sa.exc.DBAPIError:
        # the database has ended the transaction by itself (a deadlock, a lost connection)
        abandon(statement.connection)
        return
    statement.recording.entries[:] = statement.entries


# -- refusals ----------------------------------------------------------------------------


def refuse_unrecordable(statement: Statement) -> None:
    """Refuse forms of a statement whose changes can't be known.

    Raises:
        UnauditedWrite: naming the form and the way out.
    """
    element, name = statement.element, statement.audited.table.fullname
    verb = element.__visit_name__
    if element._prefixes:
        words = " ".join(str(prefix[0]) for prefix in element._prefixes)
        raise UnauditedWrite(
            f"{verb} on {name} with the prefix {words!r} can't be recorded: "
            "use on_conflict_do_nothing(), on_conflict_do_update() or on_duplicate_key_update()"
        )
    if isinstance(element, Update | Delete):
        _refuse_update_or_delete(element, statement.audited.table)
    for inner in nested_writes(element):
        raise UnauditedWrite(
            f"{inner.__visit_name__} inside another statement on {name} can't be recorded: "
            "execute it as a statement of its own"
        )


def _refuse_update_or_delete(element: Any, table: sa.Table) -> None:
    verb, name = element.__visit_name__, table.fullname
    if any(value is not None for key, value in element.kwargs.items() if key.endswith("_limit")):
        raise UnauditedWrite(
            f"{verb} on {name} with LIMIT can't be recorded, since which rows it takes is not known: "
            "select the keys first"
        )
    if not is_table(element._annotations.get("_emit_update_table", element.table), table):
        raise UnauditedWrite(f"{verb} on an alias of {name} can't be recorded: write it on the table itself")
    for column in getattr(element, "_values", None) or {}:
        other = getattr(column, "table", None)
        if isinstance(other, sa.Table) and not is_table(other, table):
            raise UnauditedWrite(
                f"an update of {name} that sets columns of {other.fullname} as well can't be recorded: "
                "update each table by a statement of its own"
            )


def refuse_silent_conflicts(statement: Statement) -> None:
    """Refuse to write a table on which the database, by itself, drops or replaces rows that collide.

    Raises:
        UnauditedWrite: naming the constraint.
    """
    if isinstance(statement.element, Delete):
        return
    clause = statement.recording.backend.conflict_clause(statement.audited.table)
    if clause is not None:
        raise UnauditedWrite(
            f"{statement.audited.table.fullname} has a constraint with {clause}, which removes or skips rows without "
            "a word: leave it out, and use on_conflict_do_update() or on_conflict_do_nothing()"
        )


def is_table(entry: Any, table: sa.Table) -> bool:
    """Tell whether something to select from is a table, annotated or not."""
    return entry is table or getattr(entry, "_deannotate", lambda: entry)() is table


def nested_writes(element: Any) -> Iterator[UpdateBase]:
    """Iterate over the INSERTs, UPDATEs and DELETEs inside a statement, such as those in its CTEs."""
    for inner in visitors.iterate(element):
        if inner is not element and isinstance(inner, UpdateBase):
            yield inner
    for cte in getattr(element, "_independent_ctes", ()):
        yield from (inner for inner in visitors.iterate(cte.element) if isinstance(inner, UpdateBase))


__all__ = [
    "Delete",
    "Insert",
    "Statement",
    "Update",
    "begin",
    "finish",
    "is_table",
    "nested_writes",
    "prepare",
    "refuse_silent_conflicts",
    "refuse_unrecordable",
    "undo",
]
