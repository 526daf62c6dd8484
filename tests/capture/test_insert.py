"""INSERT by Core and the ORM: each row is recorded as stored, and the user sees what he sees without auditing."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.capture.conftest import Standing
from tests.capture.replay import history_of
from tests.capture.twins import AUDITED, Bank, compare, seen

pytestmark = pytest.mark.both_captures

ROW = {"owner": "eve", "balance": 7}
ROWS = [{"owner": "eve", "balance": 7}, {"owner": "fay", "balance": 8}, {"owner": "gus", "balance": 9}]


CORE: dict[str, Any] = {
    "one row of values": lambda t: (sa.insert(t).values(ROW), None),
    "one row of parameters": lambda t: (sa.insert(t), ROW),
    "one row in a list": lambda t: (sa.insert(t), [ROW]),
    "many rows of parameters": lambda t: (sa.insert(t), ROWS),
    "many rows with keys": lambda t: (sa.insert(t), [{"id": 100 + i, **row} for i, row in enumerate(ROWS)]),
    "several rows of values": lambda t: (sa.insert(t).values(ROWS), None),
    "several rows of values with keys": lambda t: (
        sa.insert(t).values([{"id": 100 + i, **row} for i, row in enumerate(ROWS)]),
        None,
    ),
    "several tuples": lambda t: (sa.insert(t).values([(200, "eve", 7, "B"), (201, "fay", 8, "B")]), None),
    "from a select": lambda t: (
        sa.insert(t).from_select(["owner", "balance"], sa.select(t.c.owner, t.c.balance).where(t.c.balance > 20)),
        None,
    ),
    "from a select with keys": lambda t: (
        sa.insert(t).from_select(["id", "owner", "balance"], sa.select(t.c.id + 100, t.c.owner, t.c.balance)),
        None,
    ),
    "from a select with parameters": lambda t: (
        sa.insert(t).from_select(
            ["owner", "balance"], sa.select(t.c.owner, t.c.balance).where(t.c.balance > sa.bindparam("least"))
        ),
        {"least": 30},
    ),
    "from a select that finds nothing": lambda t: (
        sa.insert(t).from_select(["owner", "balance"], sa.select(t.c.owner, t.c.balance).where(sa.false())),
        None,
    ),
    "from a cte": lambda t: (
        sa.insert(t).from_select(
            ["owner", "balance"],
            sa.select(
                (rich := sa.select(t.c.owner, t.c.balance).where(t.c.balance > 20).cte("rich")).c.owner, rich.c.balance
            ),
        ),
        None,
    ),
    "inline": lambda t: (sa.insert(t).inline().values(ROW), None),
    "sql expressions": lambda t: (
        sa.insert(t).values(owner=sa.func.upper("eve"), balance=sa.literal(1) + 2, grade=sa.null()),
        None,
    ),
    "a key that is an expression": lambda t: (
        sa.insert(t).values(id=sa.select(sa.func.max(t.c.id) + 1).scalar_subquery(), **ROW),
        None,
    ),
    "a value that is a bind parameter": lambda t: (
        sa.insert(t).values(owner=sa.bindparam("who"), balance=1),
        {"who": "eve"},
    ),
    "return_defaults": lambda t: (sa.insert(t).values(ROW).return_defaults(), None),
    "return_defaults of columns": lambda t: (sa.insert(t).values(ROW).return_defaults(t.c.grade), None),
    "returning the key": lambda t: (sa.insert(t).values(ROW).returning(t.c.id), None),
    "returning without the key": lambda t: (sa.insert(t).values(ROW).returning(t.c.owner, t.c.grade), None),
    "returning all": lambda t: (sa.insert(t).values(ROW).returning(t), None),
    "returning an expression": lambda t: (
        sa.insert(t).values(ROW).returning((t.c.balance * 2).label("double"), t.c.owner.label("who")),
        None,
    ),
    "returning the key under another name": lambda t: (
        sa.insert(t).values(ROW).returning(t.c.id.label("number"), t.c.owner),
        None,
    ),
    "returning the key twice": lambda t: (
        sa.insert(t).values(ROW).returning(t.c.id, t.c.owner, t.c.id.label("again")),
        None,
    ),
    "returning of several rows of values": lambda t: (sa.insert(t).values(ROWS).returning(t.c.owner), None),
    "returning from a select": lambda t: (
        sa.insert(t)
        .from_select(["owner", "balance"], sa.select(t.c.owner, t.c.balance).where(t.c.balance > 20))
        .returning(t.c.balance),
        None,
    ),
    "returning of many rows": lambda t: (sa.insert(t).returning(t.c.owner), ROWS),
    "returning all of many rows in their order": lambda t: (
        sa.insert(t).returning(t, sort_by_parameter_order=True),
        ROWS,
    ),
    "returning of many rows in their order without the key": lambda t: (
        sa.insert(t).returning(t.c.owner, t.c.balance, sort_by_parameter_order=True),
        ROWS,
    ),
}


@pytest.mark.parametrize("case", CORE)
def test_core(standing: Standing, case: str) -> None:
    """An INSERT by Core gives what it gives without auditing, and each new row is an I."""

    def run(session: Session, twin: Bank) -> Any:
        statement, parameters = CORE[case](twin.Account.__table__)
        return seen(session.connection().execute(statement, parameters))

    compare(standing, run)


ORM: dict[str, Any] = {
    "one row of values": lambda a: (sa.insert(a).values(owner="eve", remark="r"), None),
    "one row of parameters": lambda a: (sa.insert(a), {"owner": "eve", "remark": "r"}),
    "many rows": lambda a: (sa.insert(a), [{**row, "remark": "r"} for row in ROWS]),
    "many rows of unequal shape": lambda a: (sa.insert(a), [{"owner": "eve"}, {"owner": "fay", "remark": "r"}, *ROWS]),
    "many rows with values of SQL": lambda a: (sa.insert(a).values(grade=sa.func.upper("b")), ROWS),
    "several rows of values": lambda a: (sa.insert(a).values(ROWS), None),
    "from a select": lambda a: (
        sa.insert(a).from_select(["owner", "balance"], sa.select(a.owner, a.balance).where(a.balance > 20)),
        None,
    ),
    "returning the entity": lambda a: (sa.insert(a).values(owner="eve", remark="r").returning(a), None),
    "returning the entity of many": lambda a: (sa.insert(a).returning(a, sort_by_parameter_order=True), ROWS),
    "returning attributes": lambda a: (sa.insert(a).values(owner="eve", remark="r").returning(a.owner, a.remark), None),
    "returning attributes of many": lambda a: (
        sa.insert(a).returning(a.owner, a.remark, sort_by_parameter_order=True),
        ROWS,
    ),
    "returning the key": lambda a: (sa.insert(a).values(owner="eve").returning(a.id), None),
    "returning an expression": lambda a: (sa.insert(a).returning(a.balance + 1, a.owner), ROWS),
    "returning several rows of values": lambda a: (sa.insert(a).values(ROWS).returning(a), None),
    "returning attributes from a select": lambda a: (
        sa.insert(a).from_select(["owner", "balance"], sa.select(a.owner, a.balance)).returning(a.owner, a.balance),
        None,
    ),
    "returning with a strategy of raw": lambda a: (
        sa.insert(a).returning(a.owner).execution_options(dml_strategy="raw"),
        ROWS,
    ),
    "from_statement": lambda a: (
        sa.select(a).from_statement(sa.insert(a).values(ROWS).returning(a)),
        None,
    ),
}


@pytest.mark.parametrize("case", ORM)
def test_orm(standing: Standing, case: str) -> None:
    """An ORM-enabled INSERT gives what it gives without auditing, and each new row is an I."""

    def run(session: Session, twin: Bank) -> Any:
        statement, parameters = ORM[case](twin.Account)
        return seen(session.execute(statement, parameters))

    compare(standing, run)


@pytest.mark.parametrize("returning", [False, True])
def test_joined_inheritance(standing: Standing, returning: bool) -> None:
    """An ORM bulk INSERT of a joined subclass records a row of each of its tables."""

    def run(session: Session, twin: Bank) -> Any:
        statement = sa.insert(twin.Engineer)
        if returning:
            statement = statement.returning(twin.Engineer, sort_by_parameter_order=True)
        return seen(session.execute(statement, [{"name": "ada", "language": "c"}, {"name": "bo", "language": None}]))

    compare(standing, run)


def test_composite_key(standing: Standing) -> None:
    """Rows with a composite key are recorded under the whole key."""

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Payment.__table__
        rows = [{"branch": "rome", "number": n, "amount": n} for n in (1, 2)]
        one = seen(session.connection().execute(sa.insert(table), rows))
        return one, seen(session.connection().execute(sa.insert(table).values(branch="rome", number=3, amount=3)))

    compare(standing, run)


def test_returning_result_can_be_used_like_any_other(standing: Standing) -> None:
    """Scalars, mappings, partitions, unique, one: the result behaves although a key was read from it first."""

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Account.__table__
        execute = session.connection().execute
        statement = sa.insert(table).values(ROWS).returning(table.c.owner, table.c.balance)
        found: list[Any] = [
            execute(statement).scalars(1).all(),
            [dict(row) for row in execute(statement).mappings()],
            execute(statement).columns("balance").all(),
            execute(statement).first(),
            [row.owner for row in execute(statement)],
            execute(sa.insert(table).values(ROW).returning(table.c.owner)).scalar_one(),
            [list(part) for part in execute(statement).partitions(2)],
            execute(statement).fetchmany(2),
            execute(statement).freeze()().all(),
            session.scalars(sa.insert(twin.Account).returning(twin.Account.owner), ROWS).all(),
        ]
        result = execute(statement)
        found.append((result.fetchone(), list(result.keys()), result.fetchall(), result.fetchone(), result.closed))
        return found

    compare(standing, run)


def test_history_has_what_is_stored(standing: Standing) -> None:
    """Defaults of Python and of the server, and what SQL makes of a value, are in the history as stored."""

    def run(session: Session, twin: Bank) -> None:
        session.execute(sa.insert(twin.Account).values(owner=sa.func.upper("eve"), seen=1, pin="9"))
        if twin is AUDITED:
            last = history_of(session.connection(), AUDITED.Account)[-1]
            assert last.op == "I"
            assert {**last.values, "id": 0} == {"id": 0, "owner": "EVE", "balance": 0, "grade": "C", "note": None}

    compare(standing, run)
