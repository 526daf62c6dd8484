"""PostgreSQL: ownership, REVOKE and GRANT, the assertion that closes a migration, and the script that makes the roles.

A REVOKE of what somebody else granted does nothing and says nothing; hence the assertion.  Imports ddl only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

from ..model.configuration import Roles
from ..model.history import Trail
from ..model.log import LOG
from ..model.records import PERSON_KEY
from .postgresql_provisioning import provisioning
from .privileges import Privileges, Right, Securable, trail_tables

WIDTH: Final = 100

_SERVER_MADE_ENTRY: Final = ("id", "recorded_at", "first_id", "db_user", "db_role", "db_addr", "db_txid")
_SERVER_MADE_ROW: Final = ("audit_id", "audit_txid", "audit_salt")


class PostgreSQLPrivileges(Privileges):
    """Rights on PostgreSQL."""

    supported: ClassVar[bool] = True

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
        """Give CREATE ROLE and memberships, which PostgreSQL 16 words differently."""
        schemas = {table.schema or self.dialect.default_schema_name or "public" for table in trail_tables(trail)}
        made = {schema for schema in [trail.configuration.schema] if schema is not None}
        return provisioning(
            self.quote,
            roles,
            since_16=version >= (16,),
            database=database,
            schemas=sorted(schemas - made),
            made=sorted(made),
            application=application,
            migrator=migrator,
        )

    # -- a migration's statements --------------------------------------------------------

    def statements(self, entries: Sequence[Securable], roles: Roles) -> list[str]:
        """Give objects to the owner, take every right on them, and give the roles theirs."""
        owners = [
            self._owner(entry, roles.owner) for entry in sorted(entries, key=lambda entry: entry.kind != "schema")
        ]
        return [*owners, *self._revokes(entries, roles), *self.grants(entries)]

    def back(self, entries: Sequence[tuple[Securable, str]], roles: Roles) -> list[str]:
        """Give the statements that take the roles' rights again, and give each object back to its former owner."""
        objects = [entry for entry, _owner in entries]
        return [
            *self._revokes(objects, roles, others=False),
            *(self._owner(entry, owner) for entry, owner in reversed(entries)),
        ]

    def assertion(self, entries: Sequence[Securable], roles: Roles) -> list[str]:
        """Raise, naming roles and rights, while any could change the tables of the trail who should not."""
        tables = [entry for entry in entries if entry.kind in ("table", "sequence")]
        if not tables:
            return []
        names = lines((self.literal(self.name(entry)) for entry in tables), "            ")
        query = indented(changers_query(f"ARRAY[\n{names}\n        ]::regclass[]", roles, self.literal), "    ")
        return [
            f"""DO $sa_audit$
DECLARE
    found text;
BEGIN
    SELECT string_agg(DISTINCT format('%s: %s on %s', c.role, c.held, c.place), '; ') INTO found FROM (
{query}
    ) AS c;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'sa_audit: the trail could be changed by: %', found
            USING HINT = 'REVOKE these as the role that granted them, or end the membership; superusers are not listed';
    END IF;
END
$sa_audit$"""
        ]

    def _owner(self, entry: Securable, owner: str) -> str:
        return f"ALTER {entry.kind.upper()} {self.name(entry)} OWNER TO {self.quote(owner)}"

    def _revokes(self, entries: Sequence[Securable], roles: Roles, *, others: bool = True) -> list[str]:
        """Take everything from PUBLIC and the groups, and what is more than SELECT from all others."""
        groups = ", ".join(["PUBLIC", *(self.quote(name) for name in roles.groups)])
        found = []
        for kind in ("schema", "table", "sequence", "function"):
            names = [self.name(entry) for entry in entries if entry.kind == kind]
            if names:
                found.append(f"REVOKE ALL ON {kind.upper()}\n{lines(names, '    ')}\nFROM {groups}")
        tables = [entry for entry in entries if entry.kind in ("table", "sequence")]
        return [*found, *([self._strangers(tables, roles)] if tables and others else [])]

    def _strangers(self, entries: Sequence[Securable], roles: Roles) -> str:
        names = lines((self.literal(self.name(entry)) for entry in entries), "            ")
        return f"""DO $sa_audit$
DECLARE
    sa_audit_text text;
BEGIN
    -- what default privileges, or somebody by hand, gave to others; the right to read stays
    FOR sa_audit_text IN
        SELECT format('REVOKE %s ON %s %s FROM %I', sa_audit_acl.privilege_type,
            CASE sa_audit_c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            sa_audit_c.oid::regclass, sa_audit_role.rolname)
        FROM pg_class AS sa_audit_c
        CROSS JOIN LATERAL aclexplode(sa_audit_c.relacl) AS sa_audit_acl
        JOIN pg_roles AS sa_audit_role ON sa_audit_role.oid = sa_audit_acl.grantee
        WHERE sa_audit_c.oid = ANY (ARRAY[
{names}
        ]::regclass[])
            AND sa_audit_acl.privilege_type <> 'SELECT' AND sa_audit_acl.grantee <> sa_audit_c.relowner
    LOOP
        EXECUTE sa_audit_text;
    END LOOP;
END
$sa_audit$"""

    def grants(self, entries: Sequence[Securable]) -> list[str]:
        """Give the GRANTs of objects, without taking anything first."""
        return [text for entry in entries for text in self._granted(entry)]

    def _granted(self, entry: Securable) -> list[str]:
        """Give the GRANTs of one object: those on all of it, and those on some of its columns."""
        on = f"ON {entry.kind.upper()} {self.name(entry)}"
        whole: dict[str, list[str]] = {}
        columns: dict[tuple[str, str], list[str]] = {}
        for right in sorted(entry.rights, key=_order):
            if right.column is None:
                whole.setdefault(right.privilege, []).append(self.quote(right.grantee))
            else:
                columns.setdefault((right.grantee, right.privilege), []).append(self.quote(right.column))
        texts = [f"GRANT {privilege} {on} TO {', '.join(names)}" for privilege, names in whole.items()]
        for grantee in dict.fromkeys(grantee for grantee, _privilege in columns):
            parts = ",\n    ".join(
                f"{privilege} (\n{lines(names, '        ')}\n    )"
                for (name, privilege), names in columns.items()
                if name == grantee
            )
            texts.append(f"GRANT\n    {parts}\n{on} TO {self.quote(grantee)}")
        return texts

    # -- names -----------------------------------------------------------------------

    def name(self, entry: Securable) -> str:
        """Give an object's name as GRANT takes it."""
        if entry.kind == "schema":
            return self.quote(entry.name)
        name = f"{self.quote(entry.schema or 'public')}.{self.quote(entry.name)}"
        return f"{name}{entry.arguments}" if entry.kind == "function" else name

    def literal(self, text: str) -> str:
        """Give a string literal."""
        return "'" + text.replace("'", "''") + "'"


def changers_query(tables: str, roles: Roles, literal: Callable[[str], str]) -> str:
    """Give the query of who could change tables of the trail, though he is neither superuser nor their owner.

    The words of statements that write stand nowhere in it, so that no hook takes a block with it for a write.

    A row has the role, what it holds or is, and the table.  Rights count that are the role's own, PUBLIC's, or those
    of any role that it is a member of, also by a membership that has to be taken up by SET ROLE (NOINHERIT), or that
    it could give to itself (ADMIN).  Members of the owner's role are those who run the migrations; they count unless
    they write, read or seal as well.

    Args:
        tables: a SQL expression for the array of the tables' ``regclass``.
        roles: the roles' names.
        literal: what makes a string literal.
    """
    others = ", ".join(literal(name) for name in roles.groups)
    entry = ", ".join(f"'{name}'" for name in _SERVER_MADE_ENTRY)
    row = ", ".join(f"'{name}'" for name in _SERVER_MADE_ROW)
    log = ", ".join(f"'{name}'" for name in LOG)
    keys = literal(PERSON_KEY)
    owner, sealer, eraser = (literal(name) for name in (roles.owner, roles.sealer, roles.eraser))
    return f"""    WITH named AS (
        SELECT t.oid FROM unnest({tables}) AS t(oid)
    ), place AS (
        SELECT c.oid, c.relname, c.relowner, c.relacl, n.nspowner
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid IN (
            SELECT t.oid FROM named AS t
            UNION ALL
            SELECT h.inhrelid FROM pg_inherits AS h JOIN named AS t ON t.oid = h.inhparent
        )
    ), given AS (
        SELECT p.oid, a.grantee, a.privilege_type AS held
        FROM place AS p CROSS JOIN LATERAL aclexplode(p.relacl) AS a
        WHERE a.privilege_type NOT IN ('SELECT', 'USAGE') AND a.grantee <> p.relowner
            AND NOT (p.relname IN ({log}) AND left(a.privilege_type, 3) = 'INS'
                AND a.grantee IN (SELECT s.oid FROM pg_roles AS s WHERE s.rolname = {sealer}))
            AND NOT (p.relname = {keys} AND left(a.privilege_type, 3) = 'DEL'
                AND a.grantee IN (SELECT s.oid FROM pg_roles AS s WHERE s.rolname = {eraser}))
        UNION ALL
        SELECT p.oid, a.grantee, format('%s (%s)', a.privilege_type, k.attname)
        FROM place AS p JOIN pg_attribute AS k ON k.attrelid = p.oid
        CROSS JOIN LATERAL aclexplode(k.attacl) AS a
        WHERE a.privilege_type <> 'SELECT' AND (
            left(a.privilege_type, 3) <> 'INS' OR p.relname = 'audit_column'
            OR (p.relname = 'audit_transaction' AND k.attname IN ({entry}))
            OR k.attname IN ({row})
        ) AND NOT (p.relname = {keys} AND k.attname IN ('wrapped', 'wrapped_by')
            AND a.grantee IN (SELECT s.oid FROM pg_roles AS s WHERE s.rolname = {eraser}))
        UNION ALL
        SELECT p.oid, p.relowner, 'ownership' FROM place AS p
        UNION ALL
        SELECT p.oid, p.nspowner, 'ownership of its schema' FROM place AS p
        UNION ALL
        SELECT p.oid, g.oid, 'membership in pg_write_all_data'
        FROM place AS p JOIN pg_roles AS g ON g.rolname = 'pg_write_all_data'
    )
    SELECT r.rolname AS role, g.held, g.oid::regclass AS place
    FROM given AS g
    JOIN pg_roles AS r ON g.grantee = 0 OR pg_has_role(r.oid, g.grantee, 'MEMBER')
    JOIN pg_roles AS o ON o.rolname = {owner}
    WHERE NOT r.rolsuper AND r.oid <> o.oid AND r.rolname NOT LIKE 'pg!_%' ESCAPE '!'
        AND (NOT pg_has_role(r.oid, o.oid, 'MEMBER') OR EXISTS (
            SELECT FROM pg_roles AS w
            WHERE w.rolname IN ({others}) AND pg_has_role(r.oid, w.oid, CASE
                WHEN current_setting('server_version_num')::integer >= 160000 THEN 'USAGE, SET'
                ELSE 'MEMBER'
            END)
        ))"""


def lines(names: Iterable[str], indent: str, width: int = WIDTH) -> str:
    """Give names with commas between them, in lines."""
    rows: list[str] = []
    row = ""
    for name in names:
        longer = f"{row}, {name}" if row else name
        if row and len(indent) + len(longer) + 1 > width:
            rows.append(f"{indent}{row},")
            row = name
        else:
            row = longer
    return "\n".join([*rows, f"{indent}{row}"])


def indented(text: str, margin: str) -> str:
    """Indent all lines."""
    return "\n".join(f"{margin}{line}" if line else line for line in text.split("\n"))


def _order(right: Right) -> tuple[str, str, str]:
    return right.grantee, right.privilege, right.column or ""
