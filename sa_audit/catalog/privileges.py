"""Owners and rights on the objects of a trail as PostgreSQL's catalog has them.

Imports ddl and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.privileges import Right, Securable
from ..model.configuration import Roles

PUBLIC: Final = "PUBLIC"

Key = tuple[str, str, str]
"""Kind, schema and name of an object."""


@dataclass(frozen=True, slots=True)
class Held:
    """Who owns an object, and who may do what with it; the owner's own rights are left out."""

    owner: str
    rights: frozenset[Right]


def read_rights(connection: Connection, schemas: Iterable[str]) -> dict[Key, Held]:
    """Read owners and rights of all tables, sequences and the library's functions in some schemas, and of these.

    Args:
        connection: to PostgreSQL.
        schemas: their real names.
    """
    owners: dict[Key, str] = {}
    rights: dict[Key, set[Right]] = {}
    for row in connection.execute(_RIGHTS, {"schemas": list(schemas)}):
        key = (row.kind, row.schema, row.name)
        owners[key] = row.owner
        found = rights.setdefault(key, set())
        if row.privilege is not None:
            found.add(Right(row.grantee or PUBLIC, row.privilege, row.column_name))
    return {key: Held(owner, frozenset(rights[key])) for key, owner in owners.items()}


def lacking(entry: Securable, held: Held | None, roles: Roles) -> frozenset[Right]:
    """Give the rights that the roles should have on an object and have not."""
    return entry.rights - (held.rights if held is not None else frozenset())


def beyond(entry: Securable, held: Held, roles: Roles) -> frozenset[Right]:
    """Give the rights of PUBLIC and the groups that they should not have.

    A right to insert a column that is the application's to write stays after the model has dropped the column.
    """
    groups = {PUBLIC, *roles.groups}
    return frozenset(
        right for right in held.rights - entry.rights if right.grantee in groups and not _left_over(entry, right, roles)
    )


def _left_over(entry: Securable, right: Right, roles: Roles) -> bool:
    written = right.grantee == roles.writer and right.privilege == "INSERT" and right.column is not None
    return written and right.column not in entry.server_made


def differs(entry: Securable, known: Mapping[Key, Held], roles: Roles) -> bool:
    """Tell whether an object's owner or rights are not what they should be; a missing object does."""
    held = known.get((entry.kind, entry.schema or "public", entry.name))
    if held is None or held.owner != roles.owner:
        return True
    return bool(lacking(entry, held, roles) or beyond(entry, held, roles))


_RIGHTS: Final = sa.text(
    """
    SELECT e.kind, e.schema, e.name, e.column_name, o.rolname AS owner, g.rolname AS grantee,
        a.privilege_type AS privilege
    FROM (
        SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, n.nspname AS schema, c.relname AS name,
            CAST(NULL AS name) AS column_name, c.relowner AS owner,
            c.relacl AS acl
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'S')
        UNION ALL
        SELECT 'table', n.nspname, c.relname, k.attname, c.relowner, k.attacl
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS k ON k.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p') AND k.attacl IS NOT NULL AND NOT k.attisdropped
        UNION ALL
        SELECT 'function', n.nspname, p.proname, NULL, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE starts_with(p.proname, 'sa_audit_')
        UNION ALL
        SELECT 'schema', n.nspname, n.nspname, NULL, n.nspowner, n.nspacl
        FROM pg_namespace AS n
    ) AS e
    JOIN pg_roles AS o ON o.oid = e.owner
    LEFT JOIN LATERAL aclexplode(e.acl) AS a ON a.grantee <> e.owner
    LEFT JOIN pg_roles AS g ON g.oid = a.grantee
    WHERE e.schema = ANY (:schemas)
    """
).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())))
