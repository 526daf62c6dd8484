"""Writes to an audited table under another Python name: a lightweight ``table()``, or one reflected elsewhere.

What they change would not be recorded, so they are refused where the database holds the table's history.
Imports model, ddl and errors.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import OWN, backend_for
from ..errors import UnauditedWrite
from ..model.history import AuditedTable, is_trail_table, known_trails

_HOLDS: Final = "_sa_audit_holds"


def refuse_other_name(connection: Connection, table: Any) -> None:
    """Refuse DML on a table that is audited under another name.

    Raises:
        UnauditedWrite: naming the audited table.
    """
    name = getattr(table, "name", None)
    if name is None or (isinstance(table, sa.Table) and is_trail_table(table)):
        return
    schema = getattr(table, "schema", None)
    for trail in known_trails():
        for audited in list(trail.audited.values()):
            if audited.table.name != name or not same_schema(connection.dialect, audited.table.schema, schema):
                continue
            if audited.table is not table and not audited.by_trigger and holds_history(connection, audited):
                raise UnauditedWrite(
                    f"a write to {name!r} by another object than the audited table would not be recorded: "
                    "use the model, or its __table__"
                )


def same_schema(dialect: sa.Dialect, one: str | None, other: str | None) -> bool:
    """Tell whether two names, None being the default, mean one schema."""
    default = dialect.default_schema_name
    return (one or default) == (other or default)


def holds_history(connection: Connection, audited: AuditedTable) -> bool:
    """Tell whether the database of a connection holds the history of a table; a yes is remembered on the dialect.

    Asked by a query that finds nothing where there is no such table: it can't fail, and so can't end a transaction.
    """
    known: set[tuple[str | None, str]] = connection.dialect.__dict__.setdefault(_HOLDS, set())
    history = audited.history
    if (history.schema, history.name) in known:
        return True
    backend = backend_for(connection.dialect)
    statement = sa.text(backend.table_exists)
    parameters = {"schema": history.schema or connection.dialect.default_schema_name, "name": history.name}
    if connection.execute(statement, parameters, execution_options=OWN).first() is None:
        return False
    known.add((history.schema, history.name))
    return True
