"""SQLite: there are no roles, and what stands in their place."""

from __future__ import annotations

from typing import ClassVar

from ..model.configuration import Roles
from ..model.history import Trail
from .privileges import Privileges


class SQLitePrivileges(Privileges):
    """Rights on SQLite, which are those on the file."""

    supported: ClassVar[bool] = False

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
        """Say that there is nothing to grant."""
        return (
            "-- SQLite has no roles: whoever can write the file can change everything in it, the guards included.\n"
            "-- Keep the file where only the application's account can write; level 1 is the most that it reaches.\n"
        )
