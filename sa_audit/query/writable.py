"""What of a recorded row can be written back, and what stands against it.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper

from ..errors import ErasedValue, NotAudited
from ..model import AuditedTable, Digested, Erased, Marker
from ..model.stored import StoredType

Values = dict[sa.Column[Any], Any]
NextVersion = Callable[[Any], Any]


def writable(values: Mapping[sa.Column[Any], Any]) -> Values:
    """Give the values that the history holds and the database lets be written: not masked, digested or computed."""
    return {
        column: value
        for column, value in values.items()
        if not isinstance(value, Marker) and column.computed is None
        if isinstance(column.type, StoredType) or not isinstance(value, Digested)
    }


def check_erased(values: Mapping[sa.Column[Any], Any], name: str) -> None:
    """Refuse to bring back a row that can't be without a value whose key was destroyed.

    Raises:
        ErasedValue: naming the column.
    """
    for column, value in values.items():
        if value is Erased and not column.nullable and not _has_default(column):
            raise ErasedValue(
                f"{name} can't be brought back: the key of its value of {column.name} was destroyed, and the column is "
                "NOT NULL without a default: insert the row yourself with a new value for it"
            )


def check_insertable(audited: AuditedTable, name: str, dialect: Dialect) -> None:
    """Refuse to bring back a row that lacks something that the database insists on.

    Args:
        audited: the row's table.
        name: what the row is called in the message.
        dialect: the database's.

    Raises:
        NotAudited: naming the column.
    """
    for column in unrecorded(audited):
        if not column.nullable and not _has_default(column):
            policies = {one.source: "digested" if one.digested else "masked" for one in audited.columns}
            policy = policies.get(column, "excluded")
            raise NotAudited(
                f"{name} can't be brought back: its column {column.name} is {policy}, so its value is not in the "
                "history, and it is NOT NULL without a default: insert the row yourself with a new value for it"
            )
    for column in audited.table.columns:
        if column.identity is not None and column.identity.always and dialect.supports_identity_columns:
            raise NotAudited(
                f"{name} can't be brought back: its column {column.name} is GENERATED ALWAYS AS IDENTITY, so that the "
                "database gives every new row another value: declare it with Identity(always=False)"
            )


def check_types(former: Iterable[str], name: str) -> None:
    """Refuse to write values back that were recorded while their columns had another type.

    Args:
        former: the names of these columns or attributes.
        name: what the row is called in the message.

    Raises:
        NotAudited: naming one.
    """
    for column in sorted(former):
        raise NotAudited(
            f"{name} can't be brought back: its column {column} had another type when the value was recorded: "
            "read it with history(), and write what it is in the type of today yourself"
        )


def unrecorded(audited: AuditedTable) -> Iterable[sa.Column[Any]]:
    """Give the columns whose values the history does not hold."""
    yield from audited.excluded
    yield from (column.source for column in audited.columns if column.masked or (column.digested and not column.stored))


def _has_default(column: sa.Column[Any]) -> bool:
    given = (column.default, column.server_default, column.computed, column.identity)
    return any(default is not None for default in given)


def version_of(mapper: Mapper[Any] | None, table: sa.Table) -> tuple[sa.Column[Any], NextVersion | None] | None:
    """Give a table's version column, and what makes the next version (None if the database does).

    Args:
        mapper: the mapper of the table.
        table: the table.
    """
    column = mapper.version_id_col if mapper is not None else None
    if mapper is None or not isinstance(column, sa.Column) or column.table is not table:
        return None
    generator = mapper.version_id_generator
    return column, generator if callable(generator) else None
