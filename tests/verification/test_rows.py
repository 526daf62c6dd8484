"""Attacks on rows: whatever is edited, removed or put there is found by name, at its place."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from tests.verification.models import NOTES, note
from tests.verification.sealed import Sealed

HISTORY, ENTRIES = "note_history", "audit_transaction"

SALTS = {"sqlite": "randomblob(16)", "postgresql": "decode(md5('x'), 'hex')", "mariadb": "unhex(md5('x'))"}
EDITS: dict[str, tuple[str, dict[str, str]]] = {
    "a text": ("label", {"": "'somebody else'"}),
    "a space behind": ("label", {"": "label || ' '", "mariadb": "concat(label, ' ')"}),
    "another normal form": ("label", {"": "'cafe\u0301 3'"}),
    "a capital letter": ("label", {"": "upper(label)"}),
    "empty to NULL": ("other", {"": "NULL"}),
    "NULL to a value": ("audit_before", {"": "'{}'"}),
    "a value to NULL": ("amount", {"": "NULL"}),
    "a number": ("amount", {"": "12.5001"}),
    "one ulp": ("rate", {"": "0.10000000000000002e0"}),
    "minus zero": ("rate", {"postgresql": "CAST('-0' AS float8)"}),
    "the text of JSON": ("data", {"": """'{"price": 1.10, "n": 11}'"""}),
    "bytes": ("raw", {"sqlite": "x'0002'", "postgresql": r"'\x0002'", "mariadb": "x'0002'"}),
    "bytes as text": ("raw", {"sqlite": "CAST(raw AS TEXT)"}),
    "a uuid": ("token", {"sqlite": "'0'", "postgresql": "gen_random_uuid()", "mariadb": "replace(uuid(), '-', '')"}),
    "a microsecond": (
        "seen",
        {
            "sqlite": "'2026-03-31 23:59:59.123457'",
            "postgresql": "seen + interval '1 microsecond'",
            "mariadb": "seen + INTERVAL 1 MICROSECOND",
        },
    ),
    "the operation": ("audit_op", {"": "'B'"}),
    "the salt": ("audit_salt", SALTS),
    "a short salt": ("audit_salt", {"sqlite": "x'01'", "postgresql": r"'\x01'"}),
    "the flush": ("audit_flush", {"": "audit_flush + 1"}),
}  # fmt: skip
"""By what is changed: the column, and its new value on each database that can hold it ("" for all others)."""


def test_every_edit_is_found(sealed: Sealed) -> None:
    """One row for each edit, and each of them is found, and nothing else."""
    edits = {
        name: (number, column, values.get(sealed.database.dialect, values.get("")))
        for number, (name, (column, values)) in enumerate(EDITS.items(), 1)
    }
    done = {name: edit for name, edit in edits.items() if edit[2] is not None}
    expected = {
        ("row-changed" if name != "a short salt" else "row-unreadable", HISTORY, row(sealed, number)): name
        for name, (number, _column, _value) in done.items()
    }
    with sealed.unguarded() as connection:
        for name, (number, column, value) in done.items():
            changed = connection.exec_driver_sql(
                f"UPDATE {HISTORY} SET {column} = {value} WHERE id = {number} AND audit_op = 'I'"
            )
            assert changed.rowcount == 1, name
    found = sealed.found(anchored=False)
    assert found - set(expected) == set()
    assert [name for place, name in expected.items() if place not in found] == []


def test_a_value_before_a_change(sealed: Sealed) -> None:
    """What an update says that a column held before can't be changed inside its JSON."""
    changed = "replace(CAST(audit_before AS {text}), '12.5', '12.4')"
    text = {"postgresql": f"CAST({changed.format(text='text')} AS json)", "mariadb": changed.format(text="char")}
    value = text.get(sealed.database.dialect, changed.format(text="text"))
    with sealed.engine.connect() as connection:
        found = f"SELECT min(audit_id) FROM {HISTORY} WHERE audit_op = 'U' AND audit_before IS NOT NULL"
        row_id = connection.exec_driver_sql(found).scalar_one()
    sealed.attack(f"UPDATE {HISTORY} SET audit_before = {value} WHERE audit_id = {row_id}")
    assert ("row-changed", HISTORY, row_id) in sealed.found(anchored=False)


@pytest.mark.parametrize("column", ["actor", "reason", "context", "audit_salt", "db_user"])
def test_who_and_why(sealed: Sealed, column: str) -> None:
    """What the trail says of a transaction can't be changed."""
    value = SALTS[sealed.database.dialect] if column == "audit_salt" else """'{"a": 1}'"""
    sealed.attack(f"UPDATE {ENTRIES} SET {column} = {value} WHERE id = 2")
    assert sealed.found() == {("row-changed", ENTRIES, 2)}


def test_when(sealed: Sealed) -> None:
    """By a microsecond, in the entry and in its rows: both are changed; in one of them alone they differ as well."""
    later = {
        "sqlite": "'2026-01-01 00:00:00.000001'",
        "postgresql": "{0} + interval '1 microsecond'",
        "mariadb": "{0} + INTERVAL 1 MICROSECOND",
    }[sealed.database.dialect]
    sealed.attack(f"UPDATE {ENTRIES} SET recorded_at = {later.format('recorded_at')} WHERE id = 2")
    changed = rows_of(sealed, 2)
    assert len(changed) == 1
    assert sealed.found() == {("row-changed", ENTRIES, 2), *(("row-misdated", HISTORY, each) for each in changed)}
    sealed.attack(f"UPDATE {HISTORY} SET audit_at = {later.format('audit_at')} WHERE audit_tx = 2")
    assert sealed.found() == {("row-changed", ENTRIES, 2), *(("row-changed", HISTORY, each) for each in changed)}


def test_the_transaction_of_a_row(sealed: Sealed) -> None:
    """A row can't be given to another transaction, nor to one that is not there."""
    third = row(sealed, 3)
    sealed.attack(f"UPDATE {HISTORY} SET audit_tx = 2 WHERE audit_id = {third}")
    assert sealed.found() == {("row-changed", HISTORY, third), ("row-misdated", HISTORY, third)}
    sealed.attack(f"UPDATE {HISTORY} SET audit_tx = 77 WHERE audit_id = {third}")
    assert sealed.found() == {("row-changed", HISTORY, third), ("row-orphaned", HISTORY, third)}


def test_a_further_entry(sealed: Sealed) -> None:
    """It has the moment and the transaction of its first one, which has to be there and to be a first one."""
    first, further = two_entries(sealed)
    sealed.seal()
    assert sealed.found() == set()
    changed = ("row-changed", ENTRIES, further)
    sealed.attack(f"UPDATE {ENTRIES} SET first_id = 2 WHERE id = {further}")  # of an older transaction
    assert sealed.found() == {changed, ("row-misdated", ENTRIES, further)}
    sealed.attack(f"UPDATE {ENTRIES} SET first_id = 9999 WHERE id = {further}")
    assert sealed.found() == {changed, ("row-orphaned", ENTRIES, further)}
    sealed.attack(f"UPDATE {ENTRIES} SET first_id = {further} WHERE id = {further}")
    assert sealed.found() == {changed, ("row-misdated", ENTRIES, further)}
    sealed.attack(
        f"UPDATE {ENTRIES} SET first_id = {first} WHERE id = {further}",
        f"UPDATE {ENTRIES} SET db_txid = db_txid - 1 WHERE id = {further}",
    )
    if sealed.database.dialect != "sqlite":  # where nothing else tells transactions apart
        assert ("row-misdated", ENTRIES, further) in sealed.found()


def test_a_further_entry_that_nobody_sealed(sealed: Sealed) -> None:
    """No leaf speaks of it yet, and still it has to fit its first one."""
    _first, further = two_entries(sealed)
    assert sealed.found() == set()
    sealed.attack(f"UPDATE {ENTRIES} SET first_id = 2 WHERE id = {further}")
    assert sealed.found() == {("row-misdated", ENTRIES, further)}


@pytest.mark.parametrize("which", ["min(audit_id)", "max(audit_id)", "max(audit_id) - 9"])
def test_a_removed_row(sealed: Sealed, which: str) -> None:
    """The first, the last, and one in between."""
    gone = sealed.scalar(f"SELECT audit_id FROM {HISTORY} WHERE audit_id >= (SELECT {which} FROM {HISTORY}) ORDER BY 1")
    sealed.attack(f"DELETE FROM {HISTORY} WHERE audit_id = {gone}")
    assert sealed.found(anchored=False) == {("row-missing", HISTORY, gone)}


def test_an_emptied_table(sealed: Sealed) -> None:
    """Each of its rows is missed."""
    kept = sealed.scalar(f"SELECT count(*) FROM {HISTORY}")
    sealed.attack(f"DELETE FROM {HISTORY}" if sealed.database.dialect == "sqlite" else f"TRUNCATE TABLE {HISTORY}")
    found = sealed.found(anchored=False)
    assert {kind for kind, _table, _row in found} == {"row-missing"}
    assert len(found) == kept == NOTES + 3


def test_an_entry_without_its_rows(sealed: Sealed) -> None:
    """A transaction's row that is gone leaves orphans."""
    changed = rows_of(sealed, 2)
    sealed.attack(f"DELETE FROM {ENTRIES} WHERE id = 2")
    assert sealed.found() == {("row-missing", ENTRIES, 2), *(("row-orphaned", HISTORY, each) for each in changed)}


def test_a_row_put_there_later(sealed: Sealed) -> None:
    """A row of a sealed time that no leaf knows: a replayed one, under an id in a gap or below all others."""
    newest, fourth = sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY}"), row(sealed, 4)
    sealed.attack(copied(sealed, newest, -5), f"DELETE FROM {HISTORY} WHERE audit_id = {fourth}")
    sealed.attack(copied(sealed, newest, fourth))
    assert sealed.found(continuity=False) == {("row-backdated", HISTORY, -5), ("row-changed", HISTORY, fourth)}


def test_a_row_put_behind_all_others_for_a_sealed_transaction(sealed: Sealed) -> None:
    """Its id is new, and its transaction was sealed whole."""
    newest = sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY}")
    sealed.attack(copied(sealed, row(sealed, 4), newest + 1))
    assert ("row-backdated", HISTORY, newest + 1) in sealed.found(continuity=False)


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_row_of_a_transaction_that_is_none(sealed: Sealed) -> None:
    """With an id above every living transaction a row would never be sealed."""
    newest = sealed.scalar(f"SELECT max(audit_id) FROM {HISTORY}")
    sealed.attack(
        copied(sealed, newest, 10_000),
        f"UPDATE {HISTORY} SET audit_txid = 99999999999 WHERE audit_id = 10000",
    )
    assert sealed.found(continuity=False) == {("row-hidden", HISTORY, 10_000), ("row-misdated", HISTORY, 10_000)}


def test_two_rows_that_change_places(sealed: Sealed) -> None:
    """Their contents, or their ids, which is the same."""
    one, two = row(sealed, 5), row(sealed, 6)
    sealed.attack(
        *(f"UPDATE {HISTORY} SET audit_id = {new} WHERE audit_id = {old}" for old, new in
          ((one, -1), (two, one), (-1, two)))
    )  # fmt: skip
    assert sealed.found() == {("row-changed", HISTORY, one), ("row-changed", HISTORY, two)}


def test_another_id(sealed: Sealed) -> None:
    """The row is missed where it was, and not known where it is."""
    old = row(sealed, 5)
    sealed.attack(f"UPDATE {HISTORY} SET audit_id = -1 WHERE audit_id = {old}")
    assert sealed.found() == {("row-missing", HISTORY, old), ("row-backdated", HISTORY, -1)}


@pytest.mark.only_on("postgresql")
def test_the_replica_role(sealed: Sealed) -> None:
    """A superuser for whom no trigger fires leaves the same trace."""
    fourth = row(sealed, 4)
    with sealed.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {HISTORY} ENABLE TRIGGER ALL")  # the guards fire always, until then
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(f"UPDATE {HISTORY} SET label = 'x' WHERE audit_id = {fourth}")
    assert sealed.found() == {("row-changed", HISTORY, fourth), ("guard-changed", HISTORY, None)}
    with sealed.engine.begin() as connection:
        for guard in ("row", "truncate"):
            connection.exec_driver_sql(f"ALTER TABLE {HISTORY} ENABLE ALWAYS TRIGGER sa_audit_guard_{guard}")
    assert sealed.found() == {("row-changed", HISTORY, fourth)}
    assert ("guard-touched", HISTORY, None) in sealed.found(touched=True)


@pytest.mark.only_on("postgresql")
def test_a_copy_on_the_search_path(sealed: Sealed) -> None:
    """A shadow of the table, found first by its name, is not what is read."""
    try:
        with sealed.engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA shadow")
            connection.exec_driver_sql(f"CREATE TABLE shadow.{HISTORY} AS SELECT * FROM {HISTORY}")
        sealed.attack(f"DELETE FROM {HISTORY} WHERE audit_id = {row(sealed, 4)}")
        gone = sealed.scalar(f"SELECT audit_id FROM shadow.{HISTORY} WHERE id = 4 AND audit_op = 'I'")
        sealed.engine.dispose()

        @sa.event.listens_for(sealed.engine, "connect")
        def _misled(connection: object, _record: object) -> None:
            connection.execute("SET search_path = shadow, public")  # type: ignore[attr-defined] # a driver's connection

        assert sealed.found() == {("row-missing", HISTORY, gone), ("table-shadowed", HISTORY, None)}
        sa.event.remove(sealed.engine, "connect", _misled)
    finally:
        sealed.engine.dispose()
        with sealed.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA shadow CASCADE")


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("lift", ["unguarded", "writable_schema"])
def test_sqlite_replaces(sealed: Sealed, lift: str) -> None:
    """REPLACE in place of an update; and guards that were taken out of the schema by hand."""
    statement = f"REPLACE INTO {HISTORY} SELECT * FROM (SELECT * FROM {HISTORY} WHERE audit_id = 7)"
    if lift == "unguarded":
        sealed.attack(statement, f"UPDATE {HISTORY} SET label = 'x' WHERE audit_id = 7")
    else:
        with sealed.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA writable_schema = ON")
            connection.exec_driver_sql("DELETE FROM sqlite_master WHERE type = 'trigger'")
        sealed.engine.dispose()
        with sealed.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {HISTORY} SET label = 'x' WHERE audit_id = 7")
        missing = {each.name for each in sealed.tables()}
        assert sealed.found() == {("row-changed", HISTORY, 7), *(("guard-missing", name, None) for name in missing)}
        return
    assert sealed.found() == {("row-changed", HISTORY, 7)}


@pytest.mark.only_on("sqlite")
def test_the_bytes_of_the_file(sealed: Sealed) -> None:
    """A value changed with an editor, past the database."""
    sealed.engine.dispose()
    path = str(sealed.database.url.database)
    with open(path, "rb") as file:
        data = file.read()
    assert data.count(b'"ticket": "13"') == 1
    with open(path, "wb") as file:
        file.write(data.replace(b'"ticket": "13"', b'"ticket": "14"'))
    assert sealed.kinds() == {"row-changed"}


@pytest.mark.only_on("sqlite")
def test_text_that_is_none(sealed: Sealed) -> None:
    """Text that is not UTF-8, and a text where a number stood, are rows that were changed; nothing breaks off."""
    sealed.attack(
        f"UPDATE {HISTORY} SET label = CAST(x'ff00' AS TEXT) WHERE audit_id = 7",
        f"UPDATE {HISTORY} SET audit_flush = 'one' WHERE audit_id = 8",
    )
    assert sealed.found() == {("row-changed", HISTORY, 7), ("row-changed", HISTORY, 8)}


# -- places ------------------------------------------------------------------------------


def row(sealed: Sealed, number: int) -> int:
    """Give the id of the row that recorded a note's insert."""
    return sealed.scalar(f"SELECT audit_id FROM {HISTORY} WHERE id = {number} AND audit_op = 'I'")


def two_entries(sealed: Sealed) -> tuple[int, int]:
    """Write under two reasons in one transaction; give the ids of its entries."""
    with sa_audit.context(actor="erin"), Session(sealed.engine) as session:
        session.add(note(601))
        session.flush()
        with sa_audit.context(reason="another"):
            session.add(note(602))
            session.commit()
    further = sealed.scalar(f"SELECT max(id) FROM {ENTRIES} WHERE first_id IS NOT NULL")
    return sealed.scalar(f"SELECT first_id FROM {ENTRIES} WHERE id = {further}"), further


def rows_of(sealed: Sealed, transaction: int) -> list[int]:
    """Give the ids of a transaction's rows."""
    with sealed.engine.connect() as connection:
        statement = sa.text(f"SELECT audit_id FROM {HISTORY} WHERE audit_tx = {transaction}")
        return [int(each) for each in connection.scalars(statement)]


def copied(sealed: Sealed, source: int, target: int) -> str:
    """Give the statement that puts a copy of a row under another id."""
    names = [column.name for column in table(sealed, HISTORY).columns]
    values = [str(target) if name == "audit_id" else name for name in names]
    return f"INSERT INTO {HISTORY} ({', '.join(names)}) SELECT {', '.join(values)} FROM {HISTORY} WHERE audit_id = {source}"  # noqa: E501


def table(sealed: Sealed, name: str) -> sa.Table:
    """Give a table of the trail."""
    return next(each for each in sealed.tables() if each.name == name)
