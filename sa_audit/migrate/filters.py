"""Filters for ``env.py`` that leave the trail's tables to the library, or out, and chain those of the project.

Where the library joins autogenerate, trail tables are its own business whatever a filter says.  These are for other
environments on the same database, which would drop tables that they have no model of: of another service, or of a
project that has switched the library off.  Imports model and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sqlalchemy as sa

from ..model.history import is_trail_table
from .autogenerate import trail_columns

IncludeObject: TypeAlias = Callable[[Any, "str | None", str, bool, Any], bool]
IncludeName: TypeAlias = Callable[["str | None", str, Any], bool]


def include_object(chained: IncludeObject | None = None) -> IncludeObject:
    """Give an ``include_object`` that leaves out the trail's tables, told by their columns, and what stands on them.

    Args:
        chained: the project's own, which decides on everything else.
    """

    def include(item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
        table = item if isinstance(item, sa.Table) else getattr(item, "table", None)
        if isinstance(table, sa.Table) and _is_trails(table):
            return False
        return chained is None or chained(item, name, type_, reflected, compare_to)

    return include


def include_name(metadata: sa.MetaData, chained: IncludeName | None = None) -> IncludeName:
    """Give an ``include_name`` that keeps Alembic from reading the trail's tables of some models.

    Args:
        metadata: that of the audited models, whose mappers are configured.
        chained: the project's own, which decides on everything else.
    """

    def include(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "table":
            schema = parents.get("schema_name")
            table = metadata.tables.get(f"{schema}.{name}" if schema else str(name))
            if table is not None and is_trail_table(table):
                return False
        return chained is None or chained(name, type_, parents)

    return include


def _is_trails(table: sa.Table) -> bool:
    return is_trail_table(table) or trail_columns(table.name, {column.name for column in table.columns})
