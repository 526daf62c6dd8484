"""The privilege section of a migration: what the roles may do with the trail, compared with the live database.

Imports steps, script, text, catalog, ddl, model, Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from sqlalchemy.engine import Connection

from ..catalog.privileges import differs, read_rights
from ..ddl.privileges import Securable, own_schema, privileges_for, securables
from ..model.configuration import Roles
from ..model.history import AuditedTable, Trail
from .script import Script
from .steps import ExecuteText, Nothing, Remark, Step, TrailOperation
from .text import section


@dataclass(frozen=True, slots=True)
class Former:
    """An object that stood before, with its former owner."""

    entry: Securable
    owner: str


class GivePrivileges(TrailOperation):
    """Owner and rights of objects of the trail; those that stood before go back to their owner on downgrade."""

    def __init__(
        self,
        script: Script,
        roles: Roles,
        entries: Sequence[Securable],
        former: Sequence[Former],
        partitions: Sequence[str] = (),
    ) -> None:
        self.script = script
        self.roles = roles
        self.entries = tuple(entries)
        self.former = tuple(former)
        self.partitions = tuple(partitions)

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Give owners and rights, and assert that nobody has more."""
        privileges = privileges_for(self.script.dialect)
        yield Remark(
            (
                section("who may do what with the trail"),
                "# The roles have to be there, and this account has to be a member of the owner's role:",
                "# sa-audit roles prints the SQL for a DBA.",
            )
        )
        yield from map(ExecuteText, privileges.statements(self.entries, self.roles))
        yield from _following(self.partitions)
        yield Remark((section("nobody else can change it"),))
        yield from map(ExecuteText, privileges.assertion(self.entries, self.roles))

    def reverse(self) -> ops.MigrateOperation:
        """Take the rights from what stood before; what this revision made goes with its rights."""
        return TakePrivileges(self) if self.former else Nothing()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "privileges", *(entry.label for entry in self.entries))


class TakePrivileges(TrailOperation):
    """The downgrade of :class:`GivePrivileges`, for objects that had another owner."""

    def __init__(self, given: GivePrivileges) -> None:
        self.given = given

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Take the roles' rights, and give the objects back."""
        privileges = privileges_for(self.given.script.dialect)
        yield Remark((section("who may do what with the trail"),))
        former = [(entry.entry, entry.owner) for entry in self.given.former]
        yield from map(ExecuteText, privileges.back(former, self.given.roles))
        yield from _following(self.given.partitions)

    def reverse(self) -> GivePrivileges:
        """Give what it undoes."""
        return self.given

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the objects."""
        return ("sa_audit", "take_privileges", *(entry.entry.label for entry in self.given.former))


def _following(partitions: Sequence[str]) -> Iterator[Step]:
    """Give the steps by which partitions follow their history to its owner."""
    if partitions:
        yield Remark(("# partitions have the owner of their history, and give no right to anybody else",))
        yield from map(ExecuteText, partitions)


def privilege_operations(
    script: Script, trail: Trail, tables: Sequence[sa.Table], connection: Connection
) -> Iterator[GivePrivileges]:
    """Give the privilege section of one trail, if the configuration names roles and anything is not as it should be.

    Args:
        script: the database's.
        trail: the trail, complete.
        tables: those of its tables that this environment has to do with.
        connection: to the live database.
    """
    roles = trail.configuration.roles
    privileges = privileges_for(script.dialect)
    if roles is None or not privileges.supported:
        return
    default = script.default_schema or "public"
    if not tables:
        return
    objects = script.shared_objects(trail)
    objects += [
        entry for audited in trail.captured() if audited.history in tables for entry in script.capture_of(audited)
    ]
    wanted = securables(privileges, tables, objects, roles, default)
    if trail.configuration.schema is not None:
        wanted.insert(0, own_schema(trail.configuration.schema, roles))
    known = read_rights(connection, {entry.schema or default for entry in wanted})
    wrong = [entry for entry in wanted if differs(entry, known, roles)]
    if wrong:
        former = [
            Former(entry, held.owner)
            for entry in wrong
            if (held := known.get((entry.kind, entry.schema or default, entry.name))) and held.owner != roles.owner
        ]
        names = {(entry.schema or default, entry.name) for entry in wrong if entry.kind == "table"}
        moved = [
            text
            for audited in trail.audited.values()
            if (audited.history.schema or default, audited.history.name) in names
            and (text := script.make_partitions(audited)) is not None
        ]
        yield GivePrivileges(script, roles, wrong, former, moved)


def granted(script: Script, audited: AuditedTable, name: str) -> list[str]:
    """Give the GRANTs of one column of a history, for one that takes the place of another of that name."""
    roles = audited.trail.configuration.roles
    privileges = privileges_for(script.dialect)
    if roles is None or not privileges.supported:
        return []
    (entry,) = securables(privileges, [audited.history], [], roles, script.default_schema or "public")
    rights = frozenset(right for right in entry.rights if right.column == name)
    return privileges.grants([replace(entry, rights=rights)])


__all__ = ["Former", "GivePrivileges", "TakePrivileges", "granted", "privilege_operations"]
