"""INSERT into a table that holds ciphertext: values are encrypted for the persons whom the new rows name.

Imports model, errors, and of capture the statement whose values are encrypted and the upserts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..errors import UnauditedWrite
from ..model.history import RecordedColumn
from .storing_statement import MISSING, Row, Writing
from .upserts import updates, upsert_clauses


def encrypt_insert(writing: Writing) -> None:
    """Encrypt what an INSERT sets.

    Raises:
        UnauditedWrite: if a value, or whose it is, is not known before the row is written.
    """
    element = writing.job.element
    own = {column.source.key for column in writing.columns}
    if element.select is not None:
        if own & {writing.key_of(name) for name in element._select_names}:
            raise UnauditedWrite(
                f"{writing.label} from a SELECT can't encrypt what it copies: select the rows first and pass them as "
                "values"
            )
        return
    _refuse_upsert(writing)
    if element._multi_values:
        _encrypt_multi_values(writing)
        return
    rows = writing.job.rows or [{}]
    rows, wanted = _with_defaults(writing, rows)
    writing.job.rows = rows if writing.job.rows or any(rows) else []
    given = [_given(writing, wanted, row) for row in writing.job.rows or [{}]]
    if wanted:
        writing.place(_encrypted_rows(writing, given, writing.job.rows or [{}]))


def _with_defaults(writing: Writing, rows: list[Row]) -> tuple[list[Row], list[RecordedColumn]]:
    """Give rows with the defaults that are made in Python, and the encrypted columns that are set."""
    made = [dict(row) for row in rows]
    wanted = [column for column in writing.columns if _is_set(writing, column, made)]
    for column in dict.fromkeys([*wanted, *(writing.subjects[column] for column in wanted)]):
        for row in made:
            if column.source.key not in row and column.source.key not in writing.sets:
                value = _default(column.source)
                if value is not MISSING:
                    row[column.source.key] = value
    return made, wanted


def _is_set(writing: Writing, column: RecordedColumn, rows: Sequence[Row]) -> bool:
    key = column.source.key
    return key in writing.sets or any(key in row for row in rows) or _default(column.source) is not MISSING


def _default(column: sa.Column[Any]) -> Any:
    default: Any = column.default
    if default is None or not (default.is_scalar or default.is_callable):
        return MISSING
    if default.is_scalar:
        return default.arg
    try:
        return default.arg(None)
    except (AttributeError, TypeError) as error:
        raise UnauditedWrite(
            f"the default of {column} looks at the statement that it is for, and values are encrypted before that is "
            "made: give the value in the statement"
        ) from error


def _given(writing: Writing, columns: Sequence[RecordedColumn], row: Row) -> dict[RecordedColumn, Any]:
    values = {column: writing.value(column, row) for column in columns}
    return {column: value for column, value in values.items() if value is not MISSING}


def _encrypted_rows(
    writing: Writing, given: Sequence[Mapping[RecordedColumn, Any]], rows: Sequence[Row]
) -> list[dict[RecordedColumn, Any]]:
    wanted: list[tuple[RecordedColumn, str | None, str | None]] = []
    for values, row in zip(given, rows, strict=True):
        for column, value in values.items():
            text = writing.text(column, value)
            wanted.append((column, None if text is None else _inserted_person(writing, column, row), text))
    forms = iter(writing.encrypt(wanted))
    return [{column: next(forms) for column in values} for values in given]


def _inserted_person(writing: Writing, column: RecordedColumn, row: Row) -> str:
    subject = writing.subjects[column]
    value = writing.value(subject, row)
    source = subject.source
    made = source.server_default is not None or source is source.table._autoincrement_column or source.default
    if made and (value is MISSING or (value is None and source.primary_key)):
        raise UnauditedWrite(
            f"{writing.label} leaves {subject.name!r} to the database, which says whose value of {column.name!r} it "
            "is, and with trigger capture that is encrypted before the row is written: give it in the statement, or "
            "have it made by a default in Python"
        )
    return writing.person(column, None if value is MISSING else value)


def _encrypt_multi_values(writing: Writing) -> None:
    """Encrypt ``insert().values([...])``: its rows become those of one statement that has them as parameters."""
    element = writing.job.element
    table = writing.audited.table
    parts = [row for part in element._multi_values for row in part]
    plain = [row if hasattr(row, "items") else dict(zip(table.c, row, strict=False)) for row in parts]
    parameters = writing.job.parameters
    rows = []
    for row in plain:
        values = {writing.key_of(name): value for name, value in row.items()}
        rows.append({key: _literal(value, parameters) for key, value in values.items()})
    rows, wanted = _with_defaults(writing, rows)
    given = [{column: _checked(writing, column, row) for column in wanted if column.source.key in row} for row in rows]
    made = _encrypted_rows(writing, given, rows)
    for row, forms in zip(rows, made, strict=True):
        row.update({column.source.key: value for column, value in forms.items()})
    executed = element._generate()
    executed._multi_values = ([{table.c[key]: value for key, value in row.items()} for row in rows],)
    writing.job.element = executed


def _literal(value: Any, parameters: Row) -> Any:
    if isinstance(value, sa.BindParameter):
        return parameters.get(value.key, value.effective_value)
    return value


def _checked(writing: Writing, column: RecordedColumn, row: Row) -> Any:
    value = row[column.source.key]
    if isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__"):
        raise UnauditedWrite(
            f"{writing.label} sets {column.name!r} to a SQL expression, and what is not known before it is written "
            "can't be encrypted: select the value first"
        )
    return value


def _refuse_upsert(writing: Writing) -> None:
    """Refuse an upsert that sets an encrypted column, or whose it is, in a row that is there: whose is not known."""
    watched = {column.source.key for column in (*writing.columns, *writing.subjects.values())}
    for clause in filter(updates, upsert_clauses(writing.job.element)):
        values = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or {}
        for name, _value in values.items() if hasattr(values, "items") else values:
            key = writing.key_of(name)
            if key in watched:
                raise UnauditedWrite(
                    f"an upsert into {writing.audited.table.fullname} that sets {key!r} in a row that is there can't "
                    "encrypt for the person of that row: select the row first, and insert or update it"
                )
