"""``sa-audit roles``: the SQL by which a database administrator makes the roles.  Imports ddl and model."""

from __future__ import annotations

import sqlalchemy as sa

from ..ddl.privileges import privileges_for
from ..model import Roles, Trail


def provisioning_script(engine: sa.Engine, trail: Trail, application: str | None, migrator: str | None) -> str:
    """Give the script for the server that an engine reaches; the database need not have a trail yet.

    Args:
        engine: to the database.
        trail: the models' trail; where its configuration names no roles, the default names are taken.
        application: the application's account, or None.
        migrator: the account that runs the migrations, or None.
    """
    with engine.connect() as connection:
        version = tuple(part for part in connection.dialect.server_version_info or () if isinstance(part, int))
    return privileges_for(engine.dialect).provisioning(
        trail,
        trail.configuration.roles or Roles(),
        version=version,
        database=engine.url.database or "",
        application=application,
        migrator=migrator,
    )
