"""A database whose roles a DBA made with the printed script: an account for migrations, one for the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sa_audit import Roles, configure
from sa_audit.ddl.privileges import privileges_for
from sa_audit.model import complete
from tests.databases import Database
from tests.migrate.project import Project


@dataclass(frozen=True, slots=True)
class Secured:
    """A project that is run by the migrator, and engines of both accounts and the superuser.

    Attributes:
        project: the migrations.
        base: the models' base.
        roles: the names of the roles.
        engine: the superuser's.
        application: the application's.
        migrator: the migrator's.
        names: the names of both accounts, the application's first.
    """

    project: Project
    base: Any
    roles: Roles
    engine: sa.Engine
    application: sa.Engine
    migrator: sa.Engine
    names: tuple[str, str]

    def grant_data(self) -> None:
        """Let the application work on the audited tables, as the owner of the data does."""
        tables = [table for table in self.base.metadata.sorted_tables if not table.info.get("sa_audit.trail_table")]
        with self.migrator.begin() as connection:
            for table in tables:
                connection.exec_driver_sql(
                    f'GRANT SELECT, INSERT, UPDATE, DELETE ON {table.fullname} TO "{self.names[0]}"'
                )
                for column in table.primary_key.columns:
                    if column.autoincrement is True or (column is table.autoincrement_column):
                        connection.exec_driver_sql(
                            f'GRANT USAGE ON SEQUENCE {table.fullname}_{column.name}_seq TO "{self.names[0]}"'
                        )

    def run(self, *statements: str) -> None:
        """Run statements as the superuser."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))


def roles_of(database: Database) -> Roles:
    """Give roles whose names end with the test."""
    prefix = database.role_prefix
    return Roles(
        owner=f"{prefix}own",
        writer=f"{prefix}write",
        reader=f"{prefix}read",
        sealer=f"{prefix}seal",
        eraser=f"{prefix}erase",
    )


def script(
    engine: sa.Engine, metadata: sa.MetaData, roles: Roles, application: str | None, migrator: str | None
) -> str:
    """Give the script that ``sa-audit roles`` prints."""
    trail = complete(metadata)
    assert trail is not None
    with engine.connect() as connection:
        version = connection.dialect.server_version_info or ()
    return privileges_for(engine.dialect).provisioning(
        trail,
        roles,
        version=tuple(version),
        database=str(engine.url.database),
        application=application,
        migrator=migrator,
    )


def secure(
    directory: Path,
    database: Database,
    engine: sa.Engine,
    make: Callable[[sa.URL], sa.Engine],
    base: Any,
    **options: Any,
) -> Secured:
    """Make roles and accounts, and give the project; nothing is migrated yet."""
    roles = roles_of(database)
    configure(base, roles=roles, **options)
    application, migrator = f"{database.role_prefix}app", f"{database.role_prefix}mig"
    statements = [
        f'CREATE ROLE "{application}" LOGIN',
        f'CREATE ROLE "{migrator}" LOGIN',
        f'GRANT CREATE ON SCHEMA public TO "{migrator}"',
        f'GRANT CREATE ON DATABASE "{engine.url.database}" TO "{migrator}"',
    ]
    with engine.begin() as connection:
        for statement in [*statements, script(engine, base.metadata, roles, application, migrator)]:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    url = database.url.set(username=migrator)
    return Secured(
        Project(directory, url, base.metadata),
        base,
        roles,
        engine,
        make(database.url.set(username=application)),
        make(url),
        (application, migrator),
    )
