"""Keys of new rows, however they are made: each row is found again, or the INSERT is refused."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import sa_audit
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded, history_of

pytestmark = pytest.mark.both_captures

METADATA = sa.MetaData()
_numbers = itertools.count(1000)


def _table(name: str, *columns: sa.Column[Any], **options: Any) -> sa.Table:
    table = sa.Table(name, METADATA, *columns, sa.Column("n", sa.Integer), **options)
    sa_audit.track(table)
    return table


INTEGER = _table("k_integer", sa.Column("id", sa.Integer, primary_key=True))
SEQUENCE = _table("k_sequence", sa.Column("id", sa.Integer, sa.Sequence("k_seq"), primary_key=True))
IDENTITY = _table("k_identity", sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True))
CALLABLE = _table("k_callable", sa.Column("id", sa.Integer, primary_key=True, default=lambda: next(_numbers)))
SCALAR = _table(
    "k_scalar",
    sa.Column("place", sa.String(5), primary_key=True, default="here"),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
)
EXPRESSION = _table(
    "k_expression",
    sa.Column("id", sa.Integer, primary_key=True, default=sa.select(sa.literal(41) + 1).scalar_subquery()),
)
UUID = _table("k_uuid", sa.Column("id", sa.Uuid, primary_key=True, default=uuid.uuid4))
TEXT = _table("k_text", sa.Column("id", sa.String(20), primary_key=True))
QUOTED = _table("K Quoted", sa.Column("The Id", sa.Integer, primary_key=True, key="ident"))
TYPED = _table("k_typed", sa.Column("id", sa.Enum("one", "two", native_enum=False), primary_key=True))

SERVER = sa.MetaData()
SERVER_UUID = sa.Table(
    "k_server_uuid",
    SERVER,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
    sa.Column("n", sa.Integer),
)
sa_audit.track(SERVER_UUID)


def _insert(
    standing: Standing, table: sa.Table, rows: list[dict[str, Any]], *, metadata: sa.MetaData = METADATA
) -> None:
    """Insert rows in every form, and have all of them recorded."""
    engine = standing.make(metadata)
    standing.untouched = False
    for form in (_one_by_one, _many, _returning_other, _values):
        with Session(engine) as session:
            form(session.connection(), table, rows)
            assert len(history_of(session.connection(), table)) == len(rows), form
            assert_recorded(session.connection(), metadata)
            session.rollback()
    standing.untouched = True


def _one_by_one(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        result = connection.execute(sa.insert(table).values(row))
        assert None not in tuple(result.inserted_primary_key)


def _many(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    result = connection.execute(sa.insert(table), rows)
    assert not result.returns_rows or len(rows) == 1
    assert result.rowcount in (len(rows), -1)


def _returning_other(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    result = connection.execute(sa.insert(table).returning(table.c.n, sort_by_parameter_order=len(rows) < 2), rows)
    assert list(result.keys()) == ["n"]
    assert sorted(result.scalars()) == sorted(row["n"] for row in rows)


def _values(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if table is SEQUENCE or any(
        column.default is not None and not column.default.is_scalar for column in table.primary_key
    ):
        rows = [{"n": row["n"], **row} for row in rows]
    for row in rows:
        connection.execute(sa.insert(table).values([row]))


@pytest.mark.parametrize("table", [INTEGER, IDENTITY, CALLABLE, UUID, QUOTED, SEQUENCE], ids=lambda table: table.name)
def test_made_key(standing: Standing, table: sa.Table) -> None:
    """A key made by the database or by a Python default is known for each row."""
    if table is SEQUENCE and not standing.has("sequences"):
        pytest.skip("no sequences")
    _insert(standing, table, [{"n": n} for n in range(3)])


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        (SCALAR, [{"id": 1, "n": 1}, {"id": 2, "n": 2}]),
        (EXPRESSION, [{"n": 1}]),
        (TEXT, [{"id": "a", "n": 1}, {"id": "it's: 100%", "n": 2}, {"id": "æ\\", "n": 3}]),
        (TYPED, [{"id": "one", "n": 1}, {"id": "two", "n": 2}]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_given_key(standing: Standing, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """A key that is given, as a whole or in part, is the one that is recorded."""
    _insert(standing, table, rows)


@pytest.mark.only_on("postgresql")
def test_server_default(standing: Standing) -> None:
    """A key made by a server default, which no sequence counts, is known for each row."""
    _insert(standing, SERVER_UUID, [{"n": n} for n in range(3)], metadata=SERVER)


@pytest.mark.session_capture("triggers record it")
def test_key_from_a_trigger_is_refused(engine: Engine, database: Any) -> None:
    """A row whose key a trigger of the database changes can't be found again: the INSERT fails, and leaves nothing."""
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    sa_audit.track(table)
    metadata.create_all(engine)
    with engine.begin() as connection:
        for text in TRIGGERS[database.dialect]:
            connection.exec_driver_sql(text)
    with engine.connect() as connection:
        with pytest.raises(sa_audit.UnauditedWrite, match="1 rows were inserted into t, but 0"):
            connection.execute(sa.insert(table).values(id=1, n=1))
        connection.rollback()
        assert connection.execute(sa.select(table)).all() == []
        assert history_of(connection, table) == []


def test_the_key_zero(engine: Engine) -> None:
    """0 is a key like others, but where MariaDB puts the next number in its place: there the message says so."""
    metadata = sa.MetaData()
    made = sa.Table("made", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    given = sa.Table("given", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    sa_audit.track(made)
    sa_audit.track(given)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(given).values(id=0))
    assert_recorded(engine, metadata)
    with engine.begin() as connection:
        if engine.dialect.name == "mariadb":
            connection.exec_driver_sql("SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')")
        connection.execute(sa.insert(made).values(id=0))
    assert [tuple(row.key) for row in history_of(engine, made)] == [(0,)]


@pytest.mark.only_on("mariadb")
@pytest.mark.session_capture("a trigger knows the key that was made")
@pytest.mark.parametrize("rows", [[{"id": 0}], [{"id": 5}, {"id": 0}]], ids=["one", "many"])
def test_the_key_zero_is_refused(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """What MariaDB would store under another number is refused with the reason, by Core and by a session."""
    metadata = sa.MetaData()
    table = sa.Table("made", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    sa_audit.track(table)
    metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match="NO_AUTO_VALUE_ON_ZERO"):
        connection.execute(sa.insert(table), rows)
    with engine.connect() as connection:
        assert connection.execute(sa.select(table)).all() == []
    assert history_of(engine, table) == []


TRIGGERS = {
    "sqlite": ["CREATE TRIGGER move AFTER INSERT ON t BEGIN UPDATE t SET id = NEW.id + 1000 WHERE id = NEW.id; END"],
    "mysql": ["CREATE TRIGGER move BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id + 1000"],
    "mariadb": ["CREATE TRIGGER move BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id + 1000"],
    "postgresql": [
        "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET id = NEW.id + 1000 "
        "WHERE id = NEW.id; RETURN NULL; END'",
        "CREATE TRIGGER move AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION move()",
    ],
}


@pytest.mark.session_capture("triggers record it, or refuse it by themselves")
@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("clause", ["REPLACE", "IGNORE", "FAIL"])
@pytest.mark.parametrize("where", ["column", "constraint"])
def test_silent_conflict_clause_is_refused(engine: Engine, clause: str, where: str) -> None:
    """A table on which SQLite itself replaces or skips rows that collide can't be written unnoticed."""
    metadata = sa.MetaData()
    options: dict[str, Any] = {"sqlite_on_conflict_unique": clause, "unique": True} if where == "column" else {}
    constraints = [] if where == "column" else [sa.UniqueConstraint("n", sqlite_on_conflict=clause)]
    table = sa.Table(
        "t",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("n", sa.Integer, **options),
        *constraints,
    )
    sa_audit.track(table)
    metadata.create_all(engine)
    for statement in (sa.insert(table).values(n=1), sa.update(table).values(n=1)):
        with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match=f"ON CONFLICT {clause}"):
            connection.execute(statement)
