"""PostgreSQL: the script by which a database administrator makes the roles, once for each cluster.

Imports model only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model.configuration import Roles


def provisioning(
    quote: Callable[[str], str],
    roles: Roles,
    *,
    since_16: bool,
    database: str,
    schemas: Sequence[str],
    made: Sequence[str],
    application: str | None,
    migrator: str | None,
) -> str:
    """Give the script.

    Args:
        quote: quotes an identifier.
        roles: the roles' names.
        since_16: whether the server knows ``GRANT ... WITH INHERIT, SET``.
        database: the database's name.
        schemas: schemas of the trail that exist already.
        made: those that the migration makes.
        application: the application's account, or None.
        migrator: the migrations' account, or None.
    """
    owner, groups = quote(roles.owner), [quote(name) for name in roles.groups]
    writer, reader, sealer, eraser = groups
    parts = [
        "-- sa_audit: the roles of the audit trail.  Run this as a superuser, once, before the migration.",
        f"CREATE ROLE {owner} NOLOGIN;  -- owns the trail; nobody logs in as it",
        f"CREATE ROLE {writer} NOLOGIN;  -- records: for the application",
        f"CREATE ROLE {reader} NOLOGIN;  -- asks: for auditors, and for an application that shows history",
        f"CREATE ROLE {sealer} NOLOGIN;  -- seals: for the sealer's account",
        f"CREATE ROLE {eraser} NOLOGIN;  -- destroys keys of persons: for whoever erases",
        _membership(writer, eraser, "", since_16=since_16),
        "",
        "-- to see since when other accounts' transactions are open, which a reader has to wait for",
        f"GRANT pg_read_all_stats TO {reader};",
        "",
        *_schemas(quote, owner, groups, database, schemas, made),
        "",
        "-- the account that runs the migrations acts as the owner",
        _membership(owner, quote(migrator) if migrator else None, "<migrator>", since_16=since_16, set_role=True),
        "",
        "-- the application's account writes history, owns nothing, and is no member of the owner",
        *(
            _membership(role, quote(application) if application else None, "<application>", since_16=since_16)
            for role in (writer, reader)
        ),
        "--   it needs SELECT, INSERT, UPDATE and DELETE on the audited tables, and TEMPORARY on the database",
    ]
    if not since_16:
        parts.append("--   before PostgreSQL 16 rights are inherited by roles with INHERIT only, which is the default")
    return "\n".join(parts) + "\n"


def _schemas(
    quote: Callable[[str], str],
    owner: str,
    groups: Sequence[str],
    database: str,
    schemas: Sequence[str],
    made: Sequence[str],
) -> list[str]:
    parts = []
    for schema in schemas:
        parts += [
            f"GRANT USAGE, CREATE ON SCHEMA {quote(schema)} TO {owner};",
            f"GRANT USAGE ON SCHEMA {quote(schema)} TO {', '.join(groups)};",
        ]
    if schemas:
        parts.append(
            "-- whoever owns a schema, or a database whose schema public it is, can drop what stands in it: better give"
            "\n-- the trail a schema of its own, by configure(base, schema=...)"
        )
    if made:
        parts.append(
            f"GRANT CREATE ON DATABASE {quote(database)} TO {owner};  -- the migration makes {', '.join(made)}"
        )
    return parts


def _membership(role: str, member: str | None, place: str, *, since_16: bool, set_role: bool = False) -> str:
    """Give one GRANT of a role; as a comment where the member isn't known."""
    options = f" WITH INHERIT TRUE, SET {'TRUE' if set_role else 'FALSE'}" if since_16 else ""
    text = f"GRANT {role} TO {member or place}{options};"
    return text if member else f"-- {text}"
