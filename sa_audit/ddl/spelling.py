"""The text that all databases share: quoting, names, literals.

Imports SQLAlchemy only.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from .values import SchemaMap


class Spelling:
    """How one database spells identifiers, literals and types."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def quote(self, name: str) -> str:
        """Quote an identifier for use in :func:`sqlalchemy.text`."""
        quoted = self.dialect.identifier_preparer.quote(name)
        if "%" in name:
            quoted = quoted.replace("%%", "%")
        return quoted.replace(":", "\\:")

    def table_name(self, table: sa.Table, schemas: SchemaMap) -> str:
        """Give a table's quoted name, its schema translated."""
        schema = schemas.get(table.schema, table.schema)
        return f"{self.quote(schema)}.{self.quote(table.name)}" if schema else self.quote(table.name)

    def literal(self, text: str) -> str:
        """Give a string as a SQL literal for use in :func:`sqlalchemy.text`."""
        return "'" + text.replace("'", "''").replace(":", "\\:") + "'"

    def json_key(self, name: str) -> str:
        """Give ``,"name":`` as a SQL literal: the start of one member of a before-object."""
        return self.literal("," + json.dumps(name, ensure_ascii=False) + ":")

    def type_name(self, type_: TypeEngine[Any]) -> str:
        """Give the database's name of a type, for a CAST in :func:`sqlalchemy.text`."""
        return self.dialect.type_compiler_instance.process(type_).replace(":", "\\:")

    def database_type(self, type_: TypeEngine[Any]) -> TypeEngine[Any]:
        """Give the type that the database sees behind decorators and variants."""
        return type_._unwrapped_dialect_impl(self.dialect)
