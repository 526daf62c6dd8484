"""Rows as they are read for the history: images, and the values that the history holds in another form.

Imports model and the values only.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from ..model.history import AuditedTable, RecordedColumn
from .stages import Stages
from .values import Image, Key, Protected, Target, internal


class Images(Stages):
    """One database's way to read rows by their keys, locked."""

    chunk: ClassVar[int] = 1000
    row_lock: ClassVar[str] = " FOR UPDATE"

    def look_up(self, audited: AuditedTable) -> str:
        """Give what stands behind a table's alias to have rows looked up by key, so that no others are locked."""
        return ""

    @abstractmethod
    def image_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Give the SQL expressions that an :class:`Image` is read with, for a table or alias of that quoted name."""

    def images_parts(self, target: Target, expressions: Sequence[str] | None = None) -> tuple[str, str]:
        """Give what stands before and behind the keys' predicate in the SELECT that reads and locks rows.

        Args:
            target: the table.
            expressions: what is read beside the keys; by default images.
        """
        audited = target.audited
        if expressions is None:
            expressions = self.image_columns(audited, "t")
        names = [f"t.{self.quote(column.name)} AS k{i}" for i, column in enumerate(audited.key)]
        images = [f"{expression} AS o{i}" for i, expression in enumerate(expressions)]
        settings = self.settings_expression(audited)
        pinned = f" AND (SELECT {settings}) IS NOT NULL" if settings is not None else ""
        order = ", ".join(f"t.{self.quote(column.name)}" for column in audited.key)
        table = f"{self.table_name(audited.table, target.schemas)} AS t{self.look_up(audited)}"
        return (
            f"SELECT {', '.join(names + images)} FROM {table} WHERE ",
            f"{pinned} ORDER BY {order}{self.row_lock}",
        )

    def settings_expression(self, audited: AuditedTable) -> str | None:
        """Give a SQL expression that pins settings which would falsify images, until the transaction ends.

        It has to be evaluated before them: as a scalar subquery in WHERE, since a target list has no sure order.
        """
        return None

    def key_predicate(self, audited: AuditedTable, alias: str) -> str:
        """Give ``alias.key IN :keys`` for a bound expanding parameter."""
        names = [f"{alias}.{self.quote(column.name)}" for column in audited.key]
        left = names[0] if len(names) == 1 else "(" + ", ".join(names) + ")"
        return f"{left} IN :keys"

    def keys_parameter(self, audited: AuditedTable) -> sa.BindParameter[Any]:
        """Give the expanding parameter for :meth:`key_predicate`."""
        types = [column.type for column in audited.key]
        type_: TypeEngine[Any] = types[0] if len(types) == 1 else sa.types.TupleType(*types)
        return sa.bindparam("keys", expanding=True, type_=type_)

    def keys_value(self, audited: AuditedTable, keys: Sequence[Key]) -> list[Any]:
        """Give keys in the shape that :meth:`keys_parameter` takes."""
        return [key[0] for key in keys] if len(audited.key) == 1 else [tuple(key) for key in keys]

    # -- protected values ----------------------------------------------------------

    protected_chunk: ClassVar[int] = 200
    """How many rows are recorded by one statement that has the document ``protected``."""

    def image_values(self, image: Image) -> list[Any]:
        """Give the values of an image, one for each recorded column; by default it is one JSON array."""
        values: list[Any] = json.loads(image.values[0])
        return values

    def image_of(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Give values in the form in which an image holds them."""
        return (json.dumps(values, ensure_ascii=False),)

    @abstractmethod
    def protected_member(self, audited: AuditedTable, alias: str, member: str) -> str:
        """Give the SQL of a member of a row's part of the document ``protected``, as text."""

    @abstractmethod
    def row_label(self, audited: AuditedTable, alias: str) -> str:
        """Give the SQL of the text by which the document ``protected`` knows a row."""

    def with_document(self, query: sa.Select[Any], document: str) -> sa.Select[Any]:
        """Give a query that takes protected members from a document."""
        return query.params(protected=document)

    def protected_text(self, value: Any) -> str | None:
        """Give the text of a value of an image."""
        text: str | None = value
        return text

    @abstractmethod
    def insert_absent(self, table: sa.Table, column: str) -> Any:
        """Give the INSERT of a row that does nothing where another one has its value of a unique column."""

    def among(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        """Give the condition that a column of texts has one of the values of a parameter, which is a list."""
        return column.in_(sa.bindparam(name, expanding=True, type_=column.type))

    def current(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Give a query that sees what is committed now, within a transaction whose snapshot may be older."""
        return query

    def image_width(self, audited: AuditedTable) -> int:
        """Give the number of values of an image that is recorded."""
        return len(audited.columns) + len(audited.protected)

    def history_values(
        self, audited: AuditedTable, alias: str = "t", *, image: Callable[[int], str] | None = None
    ) -> str:
        """Give the SQL of what the history takes of a row, each with a comma before it.

        Args:
            audited: the table.
            alias: of the row.
            image: gives the SQL of a value of its image by the place; by default there is a document instead.
        """
        values = []
        for column in audited.recorded:
            name = self.quote(column.name)
            if column.protected:
                place = audited.protected.index(column)
                look_up = self.protected_member(audited, alias, f"n{place}")
                form = look_up if image is None else image(len(audited.columns) + place)
                values.append(f", {form} AS {name}")
            else:
                values.append(f", {alias}.{name}")
        return "".join(values)

    def read_protected(self, connection: Connection, target: Target, keys: Sequence[Key]) -> list[Protected]:
        """Read the protected columns of rows, and which keys their persons have, and lock the rows."""
        memo, cache_key = target.audited.memo, (self, "protected", tuple(target.schemas.items()))
        statement = memo.get(cache_key)
        if statement is None:
            statement = memo[cache_key] = self._protected_statement(target)
        width, count = len(target.audited.key), len(target.audited.protected_reads)
        rows: list[Protected] = []
        for start in range(0, len(keys), self.chunk):
            parameters = {"keys": self.keys_value(target.audited, keys[start : start + self.chunk])}
            for found in internal(connection, statement, parameters):
                row = tuple(found)
                values, persons = row[width + 1 : width + 1 + count], row[width + 1 + count :]
                rows.append(Protected(row[:width], row[width], values, [text for text in persons if text]))
        return rows

    @abstractmethod
    def person_text(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        """Give the SQL of the text of a column that says whose values others are, to be compared with persons."""

    @abstractmethod
    def joined(self, *texts: str) -> str:
        """Give the SQL of texts one behind the other."""

    def _person_key(self, target: Target, column: RecordedColumn) -> str:
        """Give the SQL of the name of a person's key, and the person behind it; NULL if there is none."""
        keys: Any = target.trail.person_key
        table = self.table_name(keys, target.schemas)
        text = self.person_text(target.audited, column, "t")
        return f"(SELECT {self.joined('k.name', 'k.subject')} FROM {table} AS k WHERE k.subject = {text})"

    def _protected_statement(self, target: Target) -> Any:
        audited = target.audited
        staged = self.staged_columns(audited, "t")
        values = [staged[audited.columns.index(column)] for column in audited.protected_reads]
        subjects = dict.fromkeys(audited.subject_of(column) for column in audited.encrypted)
        persons = [self._person_key(target, column) for column in subjects]
        head, tail = self.images_parts(target, [self.row_label(audited, "t"), *values, *persons])
        columns: list[Any] = [sa.column(f"k{i}", column.type) for i, column in enumerate(audited.key)]
        columns += [sa.column(f"o{i}") for i in range(1 + len(values) + len(persons))]
        sql = head + self.key_predicate(audited, "t") + tail
        return sa.text(sql).bindparams(self.keys_parameter(audited)).columns(*columns)
