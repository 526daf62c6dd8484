"""Values on their way to columns that hold ciphertext themselves: encrypted before the statement runs.

Triggers copy what stands in the row, and have no key; so what a statement sets is encrypted here, where row and person
are known.  What can't be is refused before it runs.  Imports model, ddl, privacy, errors, and of capture the criteria,
the keys, the persons' keys, the recording and the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.dml import Insert, Update

from ..ddl.backend import Key
from ..errors import UnauditedWrite
from ..model.history import AuditedTable, RecordedColumn
from ..model.types import EncryptedType
from ..privacy.encryption import decrypted, key_name, places_of
from . import statement as dml
from .criteria import effective_criteria, read_keys
from .keys import keys_by_equality, labelled_keys
from .person_keys import PersonKeys
from .recording import lock_writer
from .storing_insert import encrypt_insert
from .storing_statement import Row, Writing
from .upserts import any_key

CHUNK: Final = 500


def encrypt_values(
    connection: Connection, audited: AuditedTable, element: Any, rows: list[Row], options: Any
) -> tuple[Any, list[Row]]:
    """Give a statement and its parameters with the values of encrypted columns encrypted.

    Args:
        connection: the connection.
        audited: a table that triggers record.
        element: an INSERT, UPDATE or DELETE on it.
        rows: its parameters, one mapping for each execution.
        options: its execution options.

    Raises:
        UnauditedWrite: if a value, or whose it is, is not known before the statement runs.
    """
    columns = [column for column in audited.stored if column.encrypted]
    if not columns or not isinstance(element, Insert | Update):
        return element, rows
    job = dml.begin(connection, audited, element, rows, options)
    dml.refuse_unrecordable(job)
    writing = Writing(job, columns)
    if isinstance(element, Insert):
        encrypt_insert(writing)
    else:
        _encrypt_update(writing)
    return writing.job.element, writing.job.rows


# -- UPDATE ------------------------------------------------------------------------------------


def _encrypt_update(writing: Writing) -> None:
    rows = writing.job.rows or [{}]
    watched = [*writing.columns, *dict.fromkeys(writing.subjects.values())]
    touched = [column for column in watched if any(_is_updated(writing, column, row) for row in rows)]
    if not touched:
        return
    for column in touched:
        writing.value(column, rows[0])  # refuses SQL expressions before anything is read
    job = writing.job
    lock_writer(job.connection, job.recording, job.target)
    keys = _keys(writing)
    if keys is not None:
        _update_by_key(writing, keys, rows)
    elif len(rows) > 1:
        raise UnauditedWrite(
            f"an {writing.label} of several rows of parameters that sets {touched[0].name!r} can only be encrypted "
            "where its criteria are the key: execute it row by row"
        )
    else:
        _update_by_criteria(writing, rows[0])


def _is_updated(writing: Writing, column: RecordedColumn, row: Row) -> bool:
    key = column.source.key
    return key in writing.sets or (key in row and not writing.binds(key))


def _keys(writing: Writing) -> list[Key] | None:
    """Give the keys of the rows that the executions change, where the statement names them."""
    audited, rows = writing.audited, writing.job.rows
    labels = [str(column._label) for column in audited.key]
    if rows and "compiled_cache" in writing.job.options and all(label in rows[0] for label in labels):
        return labelled_keys(audited, rows)
    if len(rows) < 2:
        return None
    return keys_by_equality(audited, writing.job.element._where_criteria, rows)


def _columns_read(writing: Writing) -> list[Any]:
    subjects = list(dict.fromkeys(writing.subjects.values()))
    return [
        *(subject.source for subject in subjects),
        *(sa.type_coerce(column.source, EncryptedType()) for column in writing.columns),
    ]


def _read_row(writing: Writing, values: Sequence[Any]) -> dict[RecordedColumn, Any]:
    names = [*dict.fromkeys(writing.subjects.values()), *writing.columns]
    return dict(zip(names, values, strict=True))


def _update_by_key(writing: Writing, keys: Sequence[Key], rows: Sequence[Row]) -> None:
    """Encrypt for rows that are named by their keys, each for its own person."""
    width, found = len(writing.audited.key), {}
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), CHUNK):
        chosen = any_key(writing.audited.key, unique[start : start + CHUNK])
        read = read_keys(writing.job, [chosen], extra=_columns_read(writing))
        found.update({row[:width]: _read_row(writing, row[width:]) for row in read})
    stored = []
    for key in keys:
        if key not in found:
            raise StaleDataError(f"the row {key!r} of {writing.audited.table.fullname} is not there any more")
        stored.append(found[key])
    _encrypt_into(writing, rows, stored)


def _update_by_criteria(writing: Writing, row: Row) -> None:
    """Encrypt once for all rows of a statement, which have to be one person's."""
    job, width = writing.job, len(writing.audited.key)
    read = read_keys(job, effective_criteria(job.element), extra=_columns_read(writing))
    stored = [_read_row(writing, each[width:]) for each in read]
    columns = [column for column in writing.columns if _is_updated(writing, column, row)]
    moving = [column for column in writing.columns if any(_moves(writing, column, row, held) for held in stored)]
    if not stored:
        job.element = job.element.where(sa.false())  # whose rows come in the meantime is not known
        if columns:
            writing.place([dict.fromkeys(columns)])
        return
    if moving and len(stored) > 1:
        raise UnauditedWrite(
            f"{writing.label} gives {len(stored)} rows to another person, and what is encrypted in them for the former "
            "one differs: execute it row by row"
        )
    for column in columns:
        if len({_person_now(writing, column, row, held) for held in stored}) > 1:
            raise UnauditedWrite(
                f"{writing.label} sets {column.name!r} in rows of several persons, and each value is encrypted for its "
                "own: execute it for each of them"
            )
    if columns or moving:
        _encrypt_into(writing, [row], [stored[0]])
        _narrow(writing, row, stored[0], read[0][:width] if moving else None)


def _narrow(writing: Writing, row: Row, held: Mapping[RecordedColumn, Any], key: Key | None) -> None:
    """Narrow a statement to the person for whom its values were encrypted, or to the one row that passes on."""
    job = writing.job
    if key is not None:
        job.element = job.element.where(any_key(writing.audited.key, [key]))
        return
    for subject in dict.fromkeys(writing.subjects.values()):
        if not _is_updated(writing, subject, row):
            value = held[subject]
            job.element = job.element.where(subject.source.is_(None) if value is None else subject.source == value)


def _encrypt_into(writing: Writing, rows: Sequence[Row], stored: Sequence[Mapping[RecordedColumn, Any]]) -> None:
    """Encrypt what rows are set to, and, where a row passes to another person, what it holds."""
    places: dict[tuple[int, RecordedColumn], Any] = {}
    moved = {
        column
        for column in writing.columns
        if any(_moves(writing, column, row, held) for row, held in zip(rows, stored, strict=True))
    }
    wanted: list[tuple[RecordedColumn, str | None, str | None]] = []
    order: list[tuple[int, RecordedColumn]] = []
    opened = _opener(writing, [held[column] for held in stored for column in moved])
    for number, (row, held) in enumerate(zip(rows, stored, strict=True)):
        for column in writing.columns:
            if _is_updated(writing, column, row):
                text = writing.text(column, writing.value(column, row))
            elif column not in moved:
                continue
            elif not _moves(writing, column, row, held):
                places[number, column] = held[column]
                continue
            else:
                text = opened(column, held[column])
            person = None if text is None else writing.person(column, _person_now(writing, column, row, held))
            wanted.append((column, person, text))
            order.append((number, column))
    places.update(zip(order, writing.encrypt(wanted), strict=True))
    columns = [column for column in writing.columns if (0, column) in places]
    if columns:
        writing.place([{column: places[number, column] for column in columns} for number in range(len(rows))])


def _person_now(writing: Writing, column: RecordedColumn, row: Row, held: Mapping[RecordedColumn, Any]) -> Any:
    subject = writing.subjects[column]
    return writing.value(subject, row) if _is_updated(writing, subject, row) else held[subject]


def _moves(writing: Writing, column: RecordedColumn, row: Row, held: Mapping[RecordedColumn, Any]) -> bool:
    """Tell whether a row that holds a value passes to another person."""
    if held[column] is None:
        return False
    return bool(_person_now(writing, column, row, held) != held[writing.subjects[column]])


def _opener(writing: Writing, values: Iterable[str | None]) -> Callable[[RecordedColumn, str], str]:
    """Give what opens stored values under the keys of the persons whose they were."""
    names = {key_name(value) for value in values if value is not None}
    keys = PersonKeys(writing.job.connection, writing.job.target.trail, writing.job.target.schemas)
    found = keys.named(names) if names else {}

    def opened(column: RecordedColumn, value: str) -> str:
        key = found[key_name(value)]
        if key is None:
            raise UnauditedWrite(
                f"{writing.label} gives a row to another person, and its value of {column.name!r} was erased, so it "
                "can't be encrypted for that one: set it in the same statement"
            )
        return decrypted(key, places_of(writing.audited, column, ""), value)

    return opened
