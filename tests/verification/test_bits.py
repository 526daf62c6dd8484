"""Any single bit of a stored row or of the log that flips is found, whatever else it says."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.verification.sealed import Sealed

ROWS = ("audit_transaction", "audit_column", "note_history", "tag_history")
LOG = {
    "audit_block": ("number", "first_leaf", "leaves", "entries", "tiles"),
    "audit_sealed": ("block", "table_id", "first_row", "last_row", "leaves"),
    "audit_checkpoint": ("size", "note"),
}
RARELY = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


@contextmanager
def opened(sealed: Sealed) -> Iterator[sqlite3.Connection]:
    """Give a connection to the file itself, with the guards lifted."""
    sealed.engine.dispose()
    connection = sqlite3.connect(str(sealed.database.url.database))
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    try:
        for name, _sql in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        yield connection
        for _name, sql in triggers:
            connection.execute(sql if isinstance(sql, str) else sql.decode())
        connection.commit()
    finally:
        connection.close()


def flipped(value: Any, chosen: int) -> tuple[Any, str]:
    """Give a value with one bit of it flipped, and the SQL that stores it in the same class."""
    if isinstance(value, int):
        return value ^ (1 << chosen % 63), "?"
    if isinstance(value, float):
        (bits,) = struct.unpack(">Q", struct.pack(">d", value))
        return struct.unpack(">d", struct.pack(">Q", bits ^ (1 << chosen % 64)))[0], "?"
    raw = bytearray(value if isinstance(value, bytes) else str(value).encode())
    assume(raw)
    raw[chosen // 8 % len(raw)] ^= 1 << chosen % 8
    return bytes(raw), "?" if isinstance(value, bytes) else "CAST(? AS TEXT)"


def flip(sealed: Sealed, data: st.DataObject, table: str, columns: tuple[str, ...] | None) -> str:
    """Flip one bit of one value; say which."""
    with opened(sealed) as connection:
        names = columns or tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
        column = data.draw(st.sampled_from(names))
        rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table} WHERE {column} IS NOT NULL")]
        assume(rows)
        row = data.draw(st.sampled_from(rows))
        raw = f"SELECT typeof({column}), CAST({column} AS BLOB), {column} FROM {table} WHERE rowid = ?"
        connection.text_factory = bytes
        before = connection.execute(raw, (row,)).fetchone()
        value = before[2].decode() if before[0] == b"text" else before[2]
        new, sql = flipped(value, data.draw(st.integers(0, 1 << 20)))
        try:
            connection.execute(f"UPDATE {table} SET {column} = {sql} WHERE rowid = ?", (new, row))
        except sqlite3.IntegrityError:
            assume(False)  # the database itself refuses it
        key = "rowid" if column not in ("id", "audit_id", "number") else column
        after = connection.execute(
            f"SELECT typeof({column}), CAST({column} AS BLOB), {column} FROM {table} WHERE {key} = ?",
            (new if key != "rowid" else row,),
        ).fetchone()
        assume(after != before)  # SQLite has no -0.0, and no NaN
    return f"{table}.{column} of row {row}"


@pytest.mark.only_on("sqlite")
@RARELY
@given(data=st.data())
def test_any_flipped_bit_of_a_row_is_found(sealed: Sealed, data: st.DataObject) -> None:
    """In every table that is sealed, and every column."""
    sealed.undo()
    place = flip(sealed, data, data.draw(st.sampled_from(ROWS)), None)
    assert sealed.kinds(anchored=False), place


@pytest.mark.only_on("sqlite")
@RARELY
@given(data=st.data())
def test_any_flipped_bit_of_the_log_is_found(sealed: Sealed, data: st.DataObject) -> None:
    """In its blocks, their tiles and index, and the signed checkpoints."""
    sealed.undo()
    table = data.draw(st.sampled_from(tuple(LOG)))
    place = flip(sealed, data, table, LOG[table])
    assert sealed.kinds(anchored=False), place


@pytest.mark.only_on("sqlite")
@RARELY
@given(data=st.data())
def test_any_flipped_bit_of_a_token_is_found(sealed: Sealed, data: st.DataObject) -> None:
    """With the anchor that gave it."""
    sealed.undo()
    place = flip(sealed, data, "audit_checkpoint", ("token",))
    assert sealed.kinds(anchored=True), place


ANY = {**LOG, "audit_checkpoint": (*LOG["audit_checkpoint"], "token"), "note_history": ("audit_id", "audit_tx")}


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(("table", "column"), [(table, column) for table in ANY for column in ANY[table]])
def test_a_value_of_another_kind(sealed: Sealed, table: str, column: str) -> None:
    """What a column can't hold, in a copy of the table that holds anything, is reported, and breaks nothing off."""
    silent = []
    for value in ("NULL", "'x'", "x'ff00'", "CAST(x'ff00' AS TEXT)", "1.5", "-1", "9223372036854775807"):
        sealed.undo()
        with opened(sealed) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO aside")
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM aside")
            connection.execute("DROP TABLE aside")
        copied = sealed.found()
        with opened(sealed) as connection:
            last = f"(SELECT max(rowid) FROM {table} WHERE {column} IS NOT NULL)"
            connection.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid = {last}")
        report = sealed.verify()
        json.dumps(report.as_json())
        if not {(each.kind, each.table, each.row) for each in report.findings} - copied:
            silent.append(value)
    assert silent == []
