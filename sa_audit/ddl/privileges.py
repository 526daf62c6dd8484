"""Who may do what with the trail: the rights of the roles, and the text that gives them, one class per database.

What a role needs follows from the kind of a table alone, so that a new kind is one line here.
Imports model, ddl and SQLAlchemy only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ..model.configuration import Roles
from ..model.history import AUDITED, TRAIL, AuditedTable, Trail
from ..model.log import LOG
from ..model.records import ACCESS, ACCESS_ROW, EVENT, KEY, PERSON_KEY
from ..model.tables import TRAIL_TABLE
from .backend import backend_for
from .objects import TrailObject, spoken
from .values import CLAIMS

SecurableKind = Literal["table", "sequence", "function", "schema"]


class Right(NamedTuple):
    """One right of one role: on the whole object, or on a column of it."""

    grantee: str
    privilege: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Securable:
    """An object of the trail with the rights that it should give.

    Args:
        kind: what it is.
        schema: its schema by its real name.
        name: its name, not quoted.
        rights: all that the roles may do with it; nobody else may do anything.
        server_made: columns that only the database writes.
        arguments: of a function, its arguments in parentheses.
    """

    kind: SecurableKind
    schema: str | None
    name: str
    rights: frozenset[Right] = frozenset()
    server_made: frozenset[str] = frozenset()
    arguments: str = ""

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Written:
    """What a session writes into a kind of table, and what it has to read there to do so."""

    inserts: tuple[str, ...]
    selects: tuple[str, ...]


KEY_READ: Final = ("name", "event", "commitment")
WRAPPED: Final = ("name", "subject", "wrapped", "wrapped_by")
_WRITTEN: Final = {
    "audit_transaction": Written(CLAIMS, ("id", "recorded_at", "first_id", "db_txid")),
    "history": Written(
        ("audit_tx", "audit_op", "audit_at", "audit_before", "audit_flush"), ("audit_tx", "audit_at", "audit_op")
    ),
    EVENT: Written(
        ("audit_tx", "audit_at", "audit_flush", "action", "entity", "table_name", "identity", "data", "durable"),
        ("audit_id",),
    ),
    ACCESS: Written(
        (
            "audit_tx",
            "audit_at",
            "entity",
            "table_name",
            "columns",
            "statement",
            "criteria",
            "identities",
            "row_count",
        ),
        ("audit_id",),
    ),
    KEY: Written(("audit_tx", "audit_at", "name", "event", "commitment", "reason"), KEY_READ),
    PERSON_KEY: Written(WRAPPED, WRAPPED),
    ACCESS_ROW: Written(("audit_tx", "audit_at", "access_id", "table_name", "identity"), ("audit_id",)),
}
"""Of each kind of table that session capture writes; of a history, the recorded columns come to it.

The ids of events and reads may be read, which tell that they are there and nothing more.

Tables that a trigger writes alone have no line here: nobody is given a right to write them.
"""


_ARGUMENTS: Final = re.compile(r"FUNCTION [^(]*(\([^)]*\))")


class Privileges(ABC):
    """One database's way to give rights on a trail."""

    supported: ClassVar[bool]
    """Whether a migration can give and take rights so that nothing else is left over."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.backend = backend_for(dialect)

    @abstractmethod
    def provisioning(
        self,
        trail: Trail,
        roles: Roles,
        *,
        version: tuple[int, ...],
        database: str,
        application: str | None,
        migrator: str | None,
    ) -> str:
        """Give the script by which a database administrator makes the roles, once.

        Args:
            trail: the trail, complete.
            roles: their names.
            version: the server's version.
            database: the database's name.
            application: the account that the application works as, if it is known.
            migrator: the account that runs the migrations, if it is known.
        """

    def statements(self, entries: Sequence[Securable], roles: Roles) -> list[str]:
        """Give the statements that give objects to the owner, take everybody's rights and give the roles theirs."""
        return []

    def grants(self, entries: Sequence[Securable]) -> list[str]:
        """Give the GRANTs of objects, without taking anything first."""
        return []

    def back(self, entries: Sequence[tuple[Securable, str]], roles: Roles) -> list[str]:
        """Give the statements that take the roles' rights again, and give each object back to its former owner."""
        return []

    def assertion(self, entries: Sequence[Securable], roles: Roles) -> list[str]:
        """Give the statements that fail while anybody could change the trail who should not."""
        return []

    def quote(self, name: str) -> str:
        """Quote an identifier."""
        return spoken(self.backend.quote(name))

    def table_right(self, table: sa.Table, roles: Roles, schema: str | None) -> Securable:
        """Give a table of the trail with the rights on it."""
        written = self.written(table)
        columns = {column.name for column in table.columns}
        keys = table.name == PERSON_KEY
        rights = {Right(role, "SELECT") for role in (roles.reader, roles.eraser if keys else roles.sealer)}
        if written is not None:
            rights |= {Right(roles.writer, "SELECT", name) for name in written.selects}
            rights |= {Right(roles.writer, "INSERT", name) for name in written.inserts}
        if table.info.get(TRAIL_TABLE) in LOG:
            rights.add(Right(roles.sealer, "INSERT"))
        if keys:
            rights.add(Right(roles.eraser, "DELETE"))
            rights |= {Right(roles.eraser, "UPDATE", name) for name in ("wrapped", "wrapped_by")}
        inserts = set(written.inserts) if written is not None else set()
        return Securable("table", schema, table.name, frozenset(rights), frozenset(columns - inserts))

    def written(self, table: sa.Table) -> Written | None:
        """Give what a session writes into a table of the trail and reads there, or None if it writes nothing."""
        mark = str(table.info.get(TRAIL_TABLE))
        found = _WRITTEN.get(mark if mark == "history" else table.name)
        audited, trail = table.info.get(AUDITED), table.info.get(TRAIL)
        if isinstance(audited, AuditedTable) and audited.by_trigger:
            return None  # the capture function writes it, as its owner
        if isinstance(trail, Trail) and trail.captures_all and table.name != PERSON_KEY:
            # nor does it write the rest: functions of the owner do
            return Written((), KEY_READ) if table.name == KEY else None
        if found is None or not isinstance(audited, AuditedTable):
            return found
        return Written((*found.inserts, *(column.name for column in audited.recorded)), found.selects)


def securables(
    privileges: Privileges,
    tables: Iterable[sa.Table],
    objects: Iterable[TrailObject],
    roles: Roles,
    default_schema: str | None,
) -> list[Securable]:
    """Give tables of a trail, and the objects beside them, with the rights on each.

    Args:
        privileges: the database's.
        tables: tables of the trail.
        objects: its sequence and functions; others are passed over.
        roles: the roles' names.
        default_schema: the connection's.
    """
    found = [privileges.table_right(table, roles, table.schema or default_schema) for table in tables]
    for entry in objects:
        if entry.kind == "sequence":
            usage = frozenset({Right(roles.writer, "USAGE")})
            found.append(Securable("sequence", entry.schema or default_schema, entry.name, usage))
        elif entry.kind == "function":
            arguments = _ARGUMENTS.search(spoken(entry.create[0]))
            found.append(
                Securable(
                    "function",
                    entry.schema or default_schema,
                    entry.name,
                    frozenset({Right(roles.writer, "EXECUTE")} if entry.called else ()),
                    arguments=arguments[1] if arguments else "()",
                )
            )
    return found


def own_schema(schema: str, roles: Roles) -> Securable:
    """Give the schema that the migration makes for the trail, with the rights on it."""
    return Securable("schema", schema, schema, frozenset(Right(name, "USAGE") for name in roles.groups))


def trail_tables(trail: Trail) -> list[sa.Table]:
    """Give all tables of a trail, in the order of their names."""
    tables = [table for table in trail.metadata.tables.values() if TRAIL_TABLE in table.info]
    return sorted(tables, key=lambda table: table.fullname)


def privileges_for(dialect: Dialect) -> Privileges:
    """Give the privileges of a dialect.

    Raises:
        UnauditedWrite: for a database that the library does not know.
    """
    from .mysql_privileges import MariaDBPrivileges
    from .postgresql_privileges import PostgreSQLPrivileges
    from .sqlite_privileges import SQLitePrivileges

    classes: dict[str, type[Privileges]] = {
        "postgresql": PostgreSQLPrivileges,
        "sqlite": SQLitePrivileges,
        "mariadb": MariaDBPrivileges,
    }
    return classes[backend_for(dialect).name](dialect)
