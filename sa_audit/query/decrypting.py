"""Encrypted values as they are read: with the keys of persons, and the marker ``Erased`` where those are destroyed.

Imports model, ddl, privacy, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import UserDefinedType

from ..capture.person_keys import PersonKeys, secrets_of
from ..ddl.backend import backend_for
from ..model import AuditedTable, Encrypted, Erased, RecordedColumn
from ..privacy.encryption import PersonKey, decrypted, key_name, places_of
from .before import Reader, reader_of

if TYPE_CHECKING:
    from .rows import HistoryRow

BATCH: Final = 200


def row_label(dialect: Dialect, audited: AuditedTable, table: sa.Table) -> sa.ColumnElement[str]:
    """Give what the database calls a row of a table, or of its history: what its encrypted values are bound to."""
    backend = backend_for(dialect)
    text = backend.row_label(audited, backend.quote(table.name)).replace("\\:", ":")
    return sa.literal_column(text, sa.Text())


def decrypted_rows(connection: Connection, reader: Reader, rows: Iterator[HistoryRow]) -> Iterator[HistoryRow]:
    """Decrypt history rows, whose last flag is their label, some at a time."""
    while batch := list(islice(rows, BATCH)):
        audited = batch[0].part.audited
        names = {key_name(value) for row in batch for value in _encrypted(row)}
        keys = PersonKeys(connection, audited.trail).named(names) if names else {}
        for row in batch:
            yield _decrypted(row, reader, keys)


def _encrypted(row: HistoryRow) -> Iterable[str]:
    return (value for value in (*row.values.values(), *row.before.values()) if isinstance(value, Encrypted))


def _decrypted(row: HistoryRow, reader: Reader, keys: dict[str, PersonKey | None]) -> HistoryRow:
    audited, label = row.part.audited, row.flags[-1]
    held: list[tuple[dict[Any, Any], Any, RecordedColumn]] = []
    for column in audited.encrypted:
        held += [(row.values, column.source, column), (row.before, column.name, column)]
    for values, name, column in held:
        value = values.get(name)
        if isinstance(value, Encrypted):
            values[name] = opened(audited, column, label, value, keys[key_name(value)], reader)
    return row.without_last_flag()


def opened(
    audited: AuditedTable, column: RecordedColumn, label: str, value: str, key: PersonKey | None, reader: Reader
) -> Any:
    """Give the value of an encrypted one, or the marker ``Erased``."""
    if key is None:
        return Erased
    return reader.decoded(column.declared, decrypted(key, places_of(audited, column, label), value))


class PastEncrypted(UserDefinedType[Any]):
    """The type of an encrypted column in a past session: its text, a blank and the row's label become its value.

    The keys have to be loaded by then, by :func:`load_keys`.
    """

    cache_ok = True

    def __init__(self, audited: AuditedTable, column: RecordedColumn) -> None:
        self.audited = audited
        self.column = column

    def get_col_spec(self, **_kw: Any) -> str:
        """Give a name, which is never sent."""
        return "TEXT"

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Decrypt what was selected."""
        reader = reader_of(dialect)

        def process(value: str | None) -> Any:
            if value is None:
                return None
            text, _blank, label = value.partition(" ")
            key = secrets_of(self.audited.trail).open(key_name(text))
            return opened(self.audited, self.column, label, text, key, reader)

        return process


def load_keys(connection: Connection, tables: Iterable[AuditedTable]) -> None:
    """Load the keys for the encrypted columns of some tables, if they have any."""
    for trail in {audited.trail for audited in tables if audited.encrypted}:
        PersonKeys(connection, trail).load()
