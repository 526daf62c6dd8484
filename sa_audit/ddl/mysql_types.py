"""MariaDB: the text of a column's value.  Imports SQLAlchemy only."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql


def text_form(type_: sa.types.TypeEngine[Any], column: str) -> str:
    """Give the SQL that turns a column into text that says its value exactly."""
    if isinstance(type_, sa.LargeBinary | mysql.BINARY | mysql.VARBINARY):
        return f"HEX({column})"
    if isinstance(type_, mysql.BIT):
        return f"CAST({column} + 0 AS CHAR)"
    if isinstance(type_, sa.Float) and not isinstance(type_, mysql.DOUBLE):
        return f"CAST({column} + 0e0 AS CHAR)"
    return f"CAST({column} AS CHAR)"
