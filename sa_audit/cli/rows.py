"""Rows of the past as dicts, of a class by its attributes, of a table by its columns.  Imports the models' file."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from .models import Entity


def one_row(past: orm.Session, entity: Entity, identity: Any) -> dict[str, Any] | None:
    """Give a row of the past by its key, or None."""
    if entity.mapped:
        found = past.get(entity.target, identity)
        return None if found is None else _attributes(found)
    values = identity if isinstance(identity, tuple) else (identity,)
    columns = (column for _name, column in entity.key)
    where = [column == value for column, value in zip(columns, values, strict=True)]
    row = past.execute(sa.select(entity.table).where(*where)).mappings().first()
    return None if row is None else {str(name): value for name, value in row.items()}


def some_rows(past: orm.Session, entity: Entity, limit: int) -> list[dict[str, Any]]:
    """Give the first rows of the past by their keys."""
    order = [column for _name, column in entity.key]
    if entity.mapped:
        statement = sa.select(entity.target).order_by(*order).limit(limit)
        return [_attributes(found) for found in past.scalars(statement)]
    rows = past.execute(sa.select(entity.table).order_by(*order).limit(limit)).mappings()
    return [{str(name): value for name, value in row.items()} for row in rows]


def _attributes(found: Any) -> dict[str, Any]:
    mapper = orm.object_mapper(found)
    return {prop.key: getattr(found, prop.key) for prop in mapper.column_attrs}


def all_names(rows: list[dict[str, Any]]) -> list[str]:
    """Give the names of all columns, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))
