"""The rows of a trail table in canonical forms: one SELECT, in which the database makes most of them.

Imports the room's own parts and proof.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import Unencodable
from ..proof.canonical import RowEncoder
from ..proof.row_entries import row_entries
from ..proof.schema import Descriptor
from .database import CatalogDatabase, Convert
from .describe import SALT

ROW_IDS: Final = ("audit_id", "id")
TRANSACTIONS: Final = ("audit_tx",)
NO_SALT: Final = b""
NO_CONDITION: Final = "WHERE 1 = 1"


class SealedRow(NamedTuple):
    """A row: its id, its ``audit_transaction`` row or None, its salt, and its forms in the descriptor's order."""

    id: int
    transaction: int | None
    salt: bytes
    forms: Sequence[Any]


class RowReader:
    """Reads the rows of one table under one descriptor.

    Args:
        database: how to read it.
        descriptor: which columns, in which order, of which types.
        names: the present names of the descriptor's columns by id, where they are not the descriptor's; a column
            that is gone must not be among those that are read.
        salted: whether the table has ``audit_salt``.
    """

    def __init__(
        self,
        database: CatalogDatabase,
        descriptor: Descriptor,
        *,
        names: Mapping[int, str] | None = None,
        salted: bool = True,
    ) -> None:
        self.database = database
        self.descriptor = descriptor
        self.encoder = RowEncoder(descriptor)
        self.table = database.name_of(descriptor.schema, descriptor.name)
        self._names = [(names or {}).get(column.id, column.name) for column in descriptor.columns]
        self._salted = salted
        self._id = self._position(ROW_IDS)
        self._transaction = self._id if descriptor.role == "transaction" else self._position(TRANSACTIONS, needed=False)
        self._converters = [
            (position, converter)
            for position, column in enumerate(descriptor.columns)
            if (converter := database.converter(column.type)) is not None
        ]

    @property
    def id_column(self) -> str:
        """The quoted name of the column that identifies a row."""
        return self.database.spelling.quote(self._names[self._id or 0])

    def _position(self, wanted: Sequence[str], *, needed: bool = True) -> int | None:
        for position, column in enumerate(self.descriptor.columns):
            if column.name in wanted and (self.descriptor.role != "history" or column.id < 0):
                return position
        if needed:
            raise Unencodable(f"table {self.descriptor.name} has no column {' or '.join(wanted)}, so no row has an id")
        return None

    def select(self, condition: str = NO_CONDITION, *, order: str | None = None, alias: str = "r") -> str:
        """Give the SELECT, for :func:`sqlalchemy.text`: the salt, a flag, and then the forms.

        Args:
            condition: what stands behind FROM: joins of the alias, and WHERE, whose last part is not an OR.
            order: what the rows are ordered by; by default their id.
            alias: the table's.
        """
        quote = self.database.spelling.quote
        salt = f"{alias}.{SALT}" if self._salted else "NULL"
        forms = [
            f"{self.database.expression(column.type, f'{alias}.{quote(name)}')} AS f{position}"
            for position, (column, name) in enumerate(zip(self.descriptor.columns, self._names, strict=True))
        ]
        return (
            f"SELECT {salt} AS salt, {self._flag(alias)} AS unusual, {', '.join(forms)} "
            f"FROM {self.table} AS {alias} {condition} ORDER BY {order or f'{alias}.{self.id_column}'}"
        )

    def _flag(self, alias: str) -> str:
        """Give SQL that is NULL or false for rows of which no value has to be converted."""
        quote = self.database.spelling.quote
        flags = []
        for position, _converter in self._converters:
            type_ = self.descriptor.columns[position].type
            flag = self.database.unusual(type_, f"{alias}.{quote(self._names[position])}")
            if flag is None:
                return "1 = 1"
            flags.append(flag)
        return " OR ".join(flags) or "1 = 0"

    def raw(
        self, connection: Connection, condition: str = NO_CONDITION, parameters: Mapping[str, Any] | None = None
    ) -> Generator[Any, None, None]:
        """Yield the rows of the SELECT as they come; they go through :meth:`row`."""
        with contextlib.closing(self._batches(connection, condition, parameters)) as batches:
            for batch in batches:
                yield from batch

    def _batches(
        self, connection: Connection, condition: str, parameters: Mapping[str, Any] | None
    ) -> Generator[Sequence[Any], None, None]:
        """Yield the rows of the SELECT, some thousand at a time."""
        given = dict(parameters or {})
        if self.database.page is None:
            yield from self.database.batches(connection, self.select(condition), given)
            return
        size, position = self.database.page, 2 + (self._id or 0)
        first, paged = f" LIMIT {size}", f"{condition} AND r.{self.id_column} > :after_page"
        rows = connection.execute(sa.text(self.select(condition) + first), given).all()
        yield rows
        following = sa.text(self.select(paged) + first)
        while len(rows) == size:
            rows = connection.execute(following, {**given, "after_page": int(rows[-1][position])}).all()
            yield rows

    def row(self) -> Callable[[Any], SealedRow]:
        """Give the function that turns a row of the SELECT into a :class:`SealedRow`."""
        id_, transaction, convert = self._id or 0, self._transaction, self._converter()

        def make(raw: Any) -> SealedRow:
            forms = convert(raw)
            return SealedRow(forms[id_], None if transaction is None else forms[transaction], raw[0] or NO_SALT, forms)

        return make

    def rows(
        self, connection: Connection, condition: str = NO_CONDITION, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[SealedRow]:
        """Yield rows, ordered by id.

        Args:
            connection: in a transaction with pinned settings.
            condition: see :meth:`select`.
            parameters: those of the condition.
        """
        return map(self.row(), self.raw(connection, condition, parameters))

    def entries(
        self, connection: Connection, condition: str = NO_CONDITION, parameters: Mapping[str, Any] | None = None
    ) -> Generator[tuple[list[int], list[bytes]], None, None]:
        """Yield ids of rows and the entries, encoded, of some thousand rows at a time, ordered by id.

        Arguments as of :meth:`rows`.
        """
        id_, transaction, convert = self._id or 0, self._transaction, self._converter()
        entry, digest = row_entries(self.descriptor.table, self.descriptor.digest), self.encoder.digest
        with contextlib.closing(self._batches(connection, condition, parameters)) as batches:
            for batch in batches:
                ids: list[int] = []
                entries: list[bytes] = []
                for raw in batch:
                    forms = convert(raw) if raw[1] else raw[2:]
                    row = forms[id_]
                    owner = None if transaction is None else forms[transaction]
                    ids.append(row)
                    entries.append(entry(row, owner, digest(raw[0] or NO_SALT, forms)))
                if ids:
                    yield ids, entries

    def _converter(self) -> Callable[[Any], Sequence[Any]]:
        converters: list[tuple[int, Convert]] = self._converters

        def convert(raw: Any) -> Sequence[Any]:
            if not raw[1]:
                plain: Sequence[Any] = raw[2:]
                return plain
            forms = list(raw[2:])
            for position, converter in converters:
                value = forms[position]
                if value is not None:
                    forms[position] = converter(value)
            return forms

        return convert
