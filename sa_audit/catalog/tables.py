"""Which tables of a trail are sealed.

Sealed are ``audit_transaction``, every history, ``audit_column``, and the events and reads where there are any.
Not sealed are the log's own tables, and what the trail may change (people's keys, MariaDB's epochs).
Imports model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import noted_trails
from ..errors import ConfigurationError
from ..model.history import AUDITED, AuditedTable, Trail, known_trails, trail_of
from ..model.tables import TRAIL_TABLE

ROLES: Final = {
    "audit_transaction": "transaction",
    "audit_column": "trail",
    "history": "history",
    "audit_event": "event",
    "audit_access": "access",
}
"""The roles of sealed tables, by the trail's mark in ``Table.info``."""


ENTRIES: Final = 1
"""The number of ``audit_transaction`` in every log: it is the first table that is sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTable:
    """A table whose rows are sealed; ``audited`` is the history's audited table, else None."""

    table: sa.Table
    role: str
    audited: AuditedTable | None = None

    @property
    def txid(self) -> str | None:
        """The column that holds the database's own transaction id (MariaDB: the epoch), if there is one."""
        return next((name for name in ("audit_txid", "db_txid") if name in self.table.c), None)


def sealed_tables(trail: Trail) -> list[SealedTable]:
    """Give the sealed tables of a trail: entries first, then the account of columns, then the rest by name."""
    found = [
        SealedTable(table=table, role=ROLES[kind], audited=_audited(table))
        for table in trail.metadata.tables.values()
        if (kind := table.info.get(TRAIL_TABLE)) in ROLES
    ]
    order = list(ROLES.values())
    return sorted(found, key=lambda entry: (order.index(entry.role), entry.table.fullname))


def _audited(table: sa.Table) -> AuditedTable | None:
    audited = table.info.get(AUDITED)
    return audited if isinstance(audited, AuditedTable) else None


def trail_at(connection: Connection, metadata: Any = None) -> Trail:
    """Give the trail whose log is meant: that of the MetaData or base, or the one that stands in the database.

    Args:
        connection: to the database.
        metadata: a MetaData, or a declarative base; None where one trail only is known to stand there.

    Raises:
        ConfigurationError: if there is none, or more than one.
    """
    if metadata is not None:
        trail = trail_of(metadata if isinstance(metadata, sa.MetaData) else metadata.metadata)
        if trail is None:
            raise ConfigurationError(f"{metadata!r} has no audited table, so there is no trail")
        return trail
    noted = noted_trails(connection.dialect)
    here = noted or [trail for trail in known_trails() if _stands(connection, trail)]
    if len(here) == 1:
        return here[0]
    if not here:
        raise ConfigurationError(
            "no trail of a model that is imported stands in this database: import the models, and create the tables"
        )
    names = "; ".join(sorted(", ".join(sorted(table.fullname for table in trail.audited)) for trail in here))
    raise ConfigurationError(f"several trails stand in this database ({names}): say which, by metadata=")


def _stands(connection: Connection, trail: Trail) -> bool:
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    inspector = sa.inspect(connection)
    return any(
        inspector.has_table(audited.history.name, schema=schemas.get(audited.history.schema, audited.history.schema))
        for audited in trail.audited.values()
    )
