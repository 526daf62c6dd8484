"""PostgreSQL: the text of a column's value, which no session setting changes and CAST can read.

Imports SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

# Types whose text no setting changes, or that text_form() spells itself.
EXACT_TEXT = (
    *(sa.Integer, sa.Numeric, sa.Boolean, sa.String, sa.Uuid, sa.LargeBinary, sa.JSON),
    *(sa.DateTime, sa.Date, sa.Time, sa.Interval, pg.INTERVAL, pg.BIT),
)


def is_float(type_: sa.types.TypeEngine[Any]) -> bool:
    """Tell floats from exact numbers; in SQLAlchemy 2.0 each is a kind of the other, or a driver's own."""
    return isinstance(type_, sa.Float) or type_.__visit_name__ == "float"


def text_form(type_: sa.types.TypeEngine[Any], column: str) -> str:
    """Give the SQL that turns a column into text that no session setting changes and CAST can read.

    Types of other types (arrays, ranges) are the exception: :meth:`PostgreSQL.settings_expression` pins those.
    """
    if isinstance(type_, sa.DateTime):
        if type_.timezone:
            utc = f"(pg_catalog.to_jsonb({column} AT TIME ZONE 'UTC') #>> '{{}}') || 'Z'"
            return f"CASE WHEN isfinite({column}) THEN {utc} ELSE CAST({column} AS text) END"
        return f"(pg_catalog.to_jsonb({column}) #>> '{{}}')"
    if isinstance(type_, sa.Date):
        return f"(pg_catalog.to_jsonb({column}) #>> '{{}}')"
    if isinstance(type_, sa.Interval | pg.INTERVAL):
        return (
            f"((EXTRACT(YEAR FROM {column}) * 12 + EXTRACT(MONTH FROM {column})) || ' months ' || "
            f"EXTRACT(DAY FROM {column}) || ' days ' || (EXTRACT(HOUR FROM {column}) * 3600 + "
            f"EXTRACT(MINUTE FROM {column}) * 60 + EXTRACT(SECOND FROM {column})) || ' seconds')"
        )
    if isinstance(type_, sa.LargeBinary):
        return f"('\\x' || pg_catalog.encode({column}, 'hex'))"
    return f"CAST({column} AS text)"
