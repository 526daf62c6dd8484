"""MariaDB: the grants that would be right, for a database administrator to run.

A right on a database, or on all, can't be taken away for one of its tables, and no statement of a migration could make
sure that nobody has one.  So a migration gives and takes nothing here, and the script says so.  Imports ddl only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import sqlalchemy as sa

from ..model.configuration import Roles
from ..model.history import Trail
from ..model.records import ACCESS
from .privileges import Privileges, Right, Securable, Written, trail_tables


class MariaDBPrivileges(Privileges):
    """Rights on MariaDB."""

    supported: ClassVar[bool] = False

    def table_right(self, table: sa.Table, roles: Roles, schema: str | None) -> Securable:
        """Let the writer read all of what it writes: an INSERT with RETURNING and a guard asks for that on MariaDB.

        It asks for the right to insert the returned columns, too; the guard writes ``recorded_at`` whatever is sent.
        """
        entry = super().table_right(table, roles, schema)
        if self.written(table) is None:
            return entry
        inserts = {right for right in entry.rights if right.privilege == "INSERT" or right.grantee != roles.writer}
        return replace(entry, rights=frozenset({*inserts, Right(roles.writer, "SELECT")}))

    def written(self, table: sa.Table) -> Written | None:
        """A session says to which entry a further one belongs, since the database has no transaction id."""
        found = super().written(table)
        if found is not None and table.name == "audit_transaction":
            return Written((*found.inserts, "first_id", "id", "recorded_at"), ())
        if found is not None and table.name == ACCESS:
            return Written((*found.inserts, "audit_id"), ())
        return found

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
        """Give CREATE ROLE and the grants, table by table."""
        groups = [self.quote(name) for name in roles.groups]
        writer, reader, _sealer, eraser = groups
        parts = [
            "-- sa_audit: the roles of the audit trail.  Run this as an administrator after each migration that",
            "-- makes a history table or adds a column.",
            "-- MariaDB can't take a right on a database away for one of its tables: an account with INSERT, UPDATE,",
            "-- DELETE, DROP, ALTER or TRIGGER on the whole database, or on *.*, can change the trail whatever stands",
            "-- here, and DROP alone is enough to TRUNCATE it, which no guard sees.  Give the application's account",
            "-- rights on its tables one by one, and nothing on the database.  There are no owners of tables, so the",
            "-- owner's role is not used.",
            *(f"CREATE ROLE IF NOT EXISTS {name};" for name in groups),
            f"GRANT {writer} TO {eraser};",
            "",
            *(text for table in trail_tables(trail) for text in self._table(table, roles, database)),
        ]
        schema = trail.sequence.schema or database
        parts.append(f"GRANT SELECT, INSERT ON {self.quote(schema)}.{self.quote(trail.sequence.name)} TO {writer};")
        if application:
            account = self._account(application)
            parts += ["", f"GRANT {writer} TO {account};", f"GRANT {reader} TO {account};"]
            parts += [f"-- an account has one default role: SET DEFAULT ROLE {writer} FOR {account};"]
        else:
            parts += ["", f"-- GRANT {writer} TO <application>;", f"-- SET DEFAULT ROLE {writer} FOR <application>;"]
        return "\n".join(parts) + "\n"

    def _table(self, table: sa.Table, roles: Roles, database: str) -> list[str]:
        entry = self.table_right(table, roles, table.schema or database)
        on = f"ON {self.quote(entry.schema or database)}.{self.quote(entry.name)}"
        whole = sorted((right.grantee, right.privilege) for right in entry.rights if right.column is None)
        found = [f"GRANT {privilege} {on} TO {self.quote(name)};" for name, privilege in whole]
        updates = sorted(
            f"UPDATE ({self.quote(right.column)})"
            for right in entry.rights
            if right.privilege == "UPDATE" and right.column
        )
        if updates:
            found.append(f"GRANT {', '.join(updates)} {on} TO {self.quote(roles.eraser)};")
        writes = self._columns(entry)
        if writes:
            found.append(f"GRANT {writes} {on} TO {self.quote(roles.writer)};")
        return found

    def _columns(self, entry: Securable) -> str:
        parts = []
        for privilege in ("SELECT", "INSERT"):
            names = sorted(str(right.column) for right in entry.rights if right.column and right.privilege == privilege)
            if names:
                parts.append(f"{privilege} ({', '.join(self.quote(name) for name in names)})")
        return ", ".join(parts)

    def _account(self, name: str) -> str:
        user, _, host = name.partition("@")
        return f"{self.literal(user)}@{self.literal(host or '%')}"

    def literal(self, text: str) -> str:
        """Give a string literal."""
        return self.backend.literal(text).replace("\\:", ":")
