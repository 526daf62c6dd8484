"""Upserts: new rows are I, updated ones U with their values before, skipped ones nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import sa_audit
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded, history_of
from tests.capture.twins import AUDITED, Bank, compare, refused, seen
from tests.databases import Database

pytestmark = pytest.mark.both_captures

ROWS = [{"id": 1, "owner": "new", "balance": 1}, {"id": 77, "owner": "fresh", "balance": 2}]
TAGS = [{"label": "red", "weight": 10}, {"label": "green", "weight": 20}]


def insert(standing: Standing, target: Any) -> Any:
    """Give an INSERT of the database's own kind."""
    return _insert(standing.database, target)


def _insert(database: Database, target: Any) -> Any:
    dialects = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql, "mariadb": mysql}
    return dialects[database.dialect].insert(target)


def upsert(standing: Standing, target: Any, rows: Any, columns: list[str], on: list[str]) -> Any:
    """Give an INSERT of rows that updates these columns where a row is there."""
    statement = insert(standing, target) if rows is None else insert(standing, target).values(rows)
    if standing.database.dialect in ("mysql", "mariadb"):
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in columns})
    return statement.on_conflict_do_update(index_elements=on, set_={name: statement.excluded[name] for name in columns})


FORMS: dict[str, Callable[[Standing, Any], tuple[Any, Any]]] = {
    "one that is there": lambda s, t: (upsert(s, t, ROWS[0], ["owner", "balance"], ["id"]), None),
    "one that is new": lambda s, t: (upsert(s, t, ROWS[1], ["owner", "balance"], ["id"]), None),
    "several rows of values": lambda s, t: (upsert(s, t, ROWS, ["owner", "balance"], ["id"]), None),
    "many rows of parameters": lambda s, t: (upsert(s, t, None, ["owner", "balance"], ["id"]), ROWS),
    "one row of parameters": lambda s, t: (upsert(s, t, None, ["owner"], ["id"]), ROWS[0]),
    "to the same value": lambda s, t: (
        upsert(s, t, {"id": 2, "owner": "bob", "balance": 20}, ["balance"], ["id"]),
        None,
    ),
    "a named parameter as key": lambda s, t: (
        upsert(s, t, {"id": sa.bindparam("b_id"), "owner": "new"}, ["owner"], ["id"]),
        [{"b_id": 1}, {"b_id": 78}],
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_update_on_conflict(standing: Standing, case: str) -> None:
    """An upsert does what it does without auditing; each row it touches is an I or a U."""

    def run(session: Session, twin: Bank) -> Any:
        statement, parameters = FORMS[case](standing, twin.Account.__table__)
        told = seen(session.connection().execute(statement, parameters))
        return [told[name] for name in ("returns_rows", "inserted_primary_key", "all")]

    compare(standing, run)


@pytest.mark.parametrize("key_given", [True, False])
@pytest.mark.parametrize("many", [True, False])
def test_unique_constraint(standing: Standing, key_given: bool, many: bool) -> None:
    """Rows that collide by another unique key than the primary one are found as well."""

    def run(session: Session, twin: Bank) -> Any:
        rows = [{"id": 50 + i, **row} for i, row in enumerate(TAGS)] if key_given else TAGS
        statement = upsert(standing, twin.tag, None if many else rows, ["weight"], ["label"])
        session.connection().execute(statement, rows if many else None)

    compare(standing, run)


def test_key_of_the_row(standing: Standing) -> None:
    """The user learns the key that the database made, as without auditing."""

    def run(session: Session, twin: Bank) -> Any:
        execute = session.connection().execute
        made = execute(upsert(standing, twin.tag, TAGS[1], ["weight"], ["label"])).inserted_primary_key
        assert made is not None
        assert made.id == made[0] == session.scalar(sa.select(twin.tag.c.id).where(twin.tag.c.label == "green"))

    compare(standing, run)


@pytest.mark.parametrize("many", [True, False])
def test_returning(standing: Standing, many: bool) -> None:
    """RETURNING gives the user his columns, in his order, and nothing of ours."""

    def run(session: Session, twin: Bank) -> Any:
        statement = upsert(standing, twin.tag, None if many else TAGS, ["weight"], ["label"])
        statement = statement.returning(twin.tag.c.weight, (twin.tag.c.weight * 2).label("double"))
        return seen(session.connection().execute(statement, TAGS if many else None))

    compare(standing, run)


@pytest.mark.parametrize("entity", [True, False])
def test_orm(standing: Standing, entity: bool) -> None:
    """An ORM upsert with RETURNING gives entities, or attributes without the key."""

    def run(session: Session, twin: Bank) -> Any:
        account = twin.Account
        statement = upsert(standing, account, ROWS, ["owner", "balance"], ["id"])
        statement = statement.returning(account) if entity else statement.returning(account.owner, account.remark)
        return seen(session.execute(statement, execution_options={"populate_existing": True}))

    compare(standing, run)


def test_orm_many(standing: Standing) -> None:
    """An ORM upsert of a list of rows is recorded."""

    def run(session: Session, twin: Bank) -> Any:
        rows = [{**row, "remark": "r"} for row in ROWS]
        session.execute(upsert(standing, twin.Account, None, ["owner"], ["id"]), rows)

    compare(standing, run)


@pytest.mark.only_on("sqlite", "postgresql")
@pytest.mark.parametrize("returning", [True, False])
@pytest.mark.parametrize("many", [True, False])
def test_do_nothing(standing: Standing, returning: bool, many: bool) -> None:
    """DO NOTHING records the rows that were new, and none that was there."""

    def run(session: Session, twin: Bank) -> Any:
        statement = insert(standing, twin.tag).on_conflict_do_nothing()
        if returning:
            statement = statement.returning(twin.tag.c.label)
        return {
            **seen(session.connection().execute(statement if many else statement.values(TAGS), TAGS if many else None)),
            "rowcount": 0,
        }

    compare(standing, run)


@pytest.mark.only_on("sqlite", "postgresql")
def test_do_nothing_with_nothing_new(standing: Standing) -> None:
    """DO NOTHING on a row that is there records nothing, not even who tried."""

    def run(session: Session, twin: Bank) -> Any:
        statement = insert(standing, twin.tag).values(TAGS[0]).on_conflict_do_nothing(index_elements=["label"])
        told = seen(session.connection().execute(statement))
        assert told["rowcount"] == 0
        # SQLite's driver gives the key of another row that was inserted before
        return told["inserted_primary_key"] if standing.database.dialect != "sqlite" else None

    compare(standing, run)


@pytest.mark.only_on("sqlite", "postgresql")
def test_where_of_the_update(standing: Standing) -> None:
    """Rows that the condition of DO UPDATE leaves alone are not recorded."""

    def run(session: Session, twin: Bank) -> Any:
        statement = insert(standing, twin.tag).values([{"label": "red", "weight": 10}, {"label": "blue", "weight": 10}])
        statement = statement.on_conflict_do_update(
            index_elements=["label"],
            set_={"weight": twin.tag.c.weight + statement.excluded.weight},
            where=twin.tag.c.weight > 1,
        )
        session.connection().execute(statement)
        if twin is AUDITED:
            assert [row.key for row in history_of(session.connection(), twin.tag) if row.op == "U"] == [(2,)]

    compare(standing, run)


@pytest.mark.only_on("postgresql")
def test_named_constraint(standing: Standing) -> None:
    """ON CONFLICT ON CONSTRAINT is an upsert like any other."""

    def run(session: Session, twin: Bank) -> Any:
        statement = postgresql.insert(twin.tag).values(TAGS)
        name = f"{twin.tag.name}_label_key"
        session.connection().execute(
            statement.on_conflict_do_update(constraint=name, set_={"weight": statement.excluded.weight})
        )

    compare(standing, run)


@pytest.mark.only_on("mariadb")
def test_key_set_to_itself(standing: Standing) -> None:
    """ON DUPLICATE KEY UPDATE id = id, which skips rows that are there, records the new ones only."""

    def run(session: Session, twin: Bank) -> Any:
        statement = mysql.insert(twin.tag).values(TAGS)
        session.connection().execute(statement.on_duplicate_key_update(id=twin.tag.c.id))

    compare(standing, run)


@pytest.mark.session_capture("triggers record it")
def test_setting_the_key_is_refused(standing: Standing) -> None:
    """An upsert that gives the row another key is refused."""
    refused(
        standing,
        lambda session, twin: session.connection().execute(
            upsert(standing, twin.tag, [{"id": 60, "label": "red"}], ["id"], ["label"])
        ),
    )


@pytest.mark.session_capture("triggers record it")
def test_from_a_select_is_refused(standing: Standing) -> None:
    """An upsert from a SELECT is refused, since its rows are not known."""

    def run(session: Session, twin: Bank) -> None:
        statement = insert(standing, twin.tag).from_select(
            ["label", "weight"], sa.select(twin.tag.c.label, twin.tag.c.weight + 1).where(sa.true())
        )
        if standing.database.dialect in ("mysql", "mariadb"):
            statement = statement.on_duplicate_key_update(weight=statement.inserted.weight)
        else:
            statement = statement.on_conflict_do_update(
                index_elements=["label"], set_={"weight": statement.excluded.weight}
            )
        session.connection().execute(statement)

    refused(standing, run)


@pytest.mark.session_capture("triggers record it")
def test_key_of_sql_is_refused(standing: Standing) -> None:
    """A colliding key that is a SQL expression is refused."""

    def run(session: Session, twin: Bank) -> None:
        rows = {"label": sa.func.lower("RED"), "weight": 1}
        session.connection().execute(upsert(standing, twin.tag, rows, ["weight"], ["label"]))

    refused(standing, run)


def test_quoted_names_and_collations(engine: Engine, database: Database) -> None:
    """An upsert on a table with quoted names, and by a key that another spelling equals, is recorded."""
    metadata = sa.MetaData()
    collation = {"sqlite": "NOCASE"}.get(database.dialect)
    table = sa.Table(
        "Tag List",
        metadata,
        sa.Column("The Id", sa.Integer, primary_key=True, key="ident"),
        sa.Column("The Label", sa.String(20, collation=collation), key="label", unique=True),
        sa.Column("weight", sa.Integer),
    )
    sa_audit.track(table)
    metadata.create_all(engine)
    for label, weight in (("ann", 1), ("ann", 2), ("ANN", 3)):
        statement = _insert(database, table).values(label=label, weight=weight)
        if database.dialect in ("mysql", "mariadb"):
            statement = statement.on_duplicate_key_update(weight=statement.inserted.weight)
        else:
            statement = statement.on_conflict_do_update(
                index_elements=[table.c.label], set_={table.c.weight: statement.excluded.weight}
            )
        with engine.begin() as connection:
            connection.execute(statement)
    assert_recorded(engine, metadata)
    ops = "".join(row.op for row in history_of(engine, table))
    assert ops == ("IUI" if database.dialect == "postgresql" else "IUU")


@pytest.mark.session_capture("triggers record it")
@pytest.mark.only_on("sqlite")
def test_unique_expression(engine: Engine) -> None:
    """A unique index on an expression, by which SQLite could update a row that was not looked for, is refused."""
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("label", sa.String(20)))
    sa.Index("lower_label", sa.func.lower(table.c.label), unique=True)
    sa_audit.track(table)
    metadata.create_all(engine)
    statement = sqlite.insert(table).values(label="x")
    statement = statement.on_conflict_do_update(
        index_elements=[sa.text("lower(label)")], set_={"label": statement.excluded.label}
    )
    with engine.begin() as connection, pytest.raises(sa_audit.UnauditedWrite, match="lower_label"):
        connection.execute(statement)
