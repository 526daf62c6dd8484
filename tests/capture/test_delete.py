"""DELETE by Core and the ORM: the rows that go are recorded as they were, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, with_loader_criteria

import sa_audit
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded, history_of
from tests.capture.twins import AUDITED, PLAIN, Bank, compare, fill, refused, seen

pytestmark = pytest.mark.both_captures

CORE: dict[str, Any] = {
    "where": lambda b, t: (sa.delete(t).where(t.c.owner == "ann"), None),
    "everything": lambda b, t: (sa.delete(t), None),
    "nothing": lambda b, t: (sa.delete(t).where(t.c.id == 99), None),
    "parameters": lambda b, t: (sa.delete(t).where(t.c.owner == sa.bindparam("who")), {"who": "ann"}),
    "in a subquery": lambda b, t: (
        sa.delete(t).where(t.c.id.in_(sa.select(b.Payment.account_id).where(b.Payment.amount < 20))),
        None,
    ),
    "not in a subquery": lambda b, t: (sa.delete(t).where(t.c.id.not_in(sa.select(b.Payment.account_id))), None),
    "a correlated subquery": lambda b, t: (
        sa.delete(t).where(sa.exists().where(b.Payment.account_id == t.c.id)),
        None,
    ),
    "a join": lambda b, t: (sa.delete(t).where(t.c.owner == b.Rate.owner, b.Rate.percent > 3), None),
    "two joins": lambda b, t: (
        sa.delete(t).where(t.c.owner == b.Rate.owner, b.Payment.account_id == t.c.id, b.Payment.branch == "oslo"),
        None,
    ),
    "a cte": lambda b, t: (
        sa.delete(t).where(
            t.c.id.in_(sa.select(sa.select(t.c.id, t.c.balance).where(t.c.balance > 20).cte("rich").c.id))
        ),
        None,
    ),
    "text": lambda b, t: (sa.delete(t).where(sa.text("balance > 20")), None),
    "many by key": lambda b, t: (
        sa.delete(t).where(t.c.id == sa.bindparam("b_id")),
        [{"b_id": i} for i in (1, 3)],
    ),
    "many by key, some missing": lambda b, t: (
        sa.delete(t).where(t.c.id == sa.bindparam("b_id")),
        [{"b_id": i} for i in (1, 99, 3, 1)],
    ),
    "many by other criteria": lambda b, t: (
        sa.delete(t).where(t.c.owner == sa.bindparam("who")),
        [{"who": who} for who in ("ann", "bob", "ann", "nobody")],
    ),
    "returning": lambda b, t: (sa.delete(t).where(t.c.owner == "cid").returning(t.c.id, t.c.owner), None),
    "returning without the key": lambda b, t: (sa.delete(t).where(t.c.owner == "cid").returning(t.c.owner), None),
    "returning nothing": lambda b, t: (sa.delete(t).where(t.c.owner == "zoe").returning(t), None),
}


@pytest.mark.parametrize("case", CORE)
def test_core(standing: Standing, case: str) -> None:
    """A DELETE by Core does what it does without auditing, and each row that is gone is a D."""

    def run(session: Session, twin: Bank) -> Any:
        statement, parameters = CORE[case](twin, twin.Account.__table__)
        return seen(session.connection().execute(statement, parameters))

    compare(standing, run)


ORM: dict[str, Any] = {
    "where": lambda b: sa.delete(b.Account).where(b.Account.remark.is_(None)),
    "everything": lambda b: sa.delete(b.Account),
    "a subclass in the same table": lambda b: sa.delete(b.Cat),
    "a subclass with criteria": lambda b: sa.delete(b.Cat).where(b.Cat.lives == 9),
    "loader criteria": lambda b: sa.delete(b.Account).options(
        with_loader_criteria(b.Account, b.Account.owner == "ann")
    ),
    "a composite key": lambda b: sa.delete(b.Payment).where(b.Payment.branch == "oslo"),
    "a join of entities": lambda b: sa.delete(b.Account).where(
        b.Account.id == b.Payment.account_id, b.Payment.branch == "oslo"
    ),
}


@pytest.mark.parametrize("case", ORM)
@pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
def test_orm(standing: Standing, case: str, synchronize: Any) -> None:
    """An ORM-enabled DELETE does what it does without auditing, and each row that is gone is a D."""
    if synchronize == "evaluate" and case == "a join of entities":
        pytest.skip("SQLAlchemy can't evaluate a join in Python")

    def run(session: Session, twin: Bank) -> Any:
        loaded = session.scalars(sa.select(twin.Account)).all()
        told = seen(session.execute(ORM[case](twin), execution_options={"synchronize_session": synchronize}))
        return told, [one in session for one in loaded]

    compare(standing, run)


def test_query_delete(standing: Standing) -> None:
    """The legacy Query.delete() and update() are recorded as well."""

    def run(session: Session, twin: Bank) -> Any:
        account = twin.Account
        changed = session.query(account).filter(account.owner == "ann").update({"balance": account.balance + 1})
        return changed, session.query(account).filter(account.owner == "bob").delete()

    compare(standing, run)


def test_second_life(standing: Standing) -> None:
    """A row deleted and inserted again under its key has two lives in one history."""

    def run(session: Session, twin: Bank) -> None:
        table = twin.Account.__table__
        execute = session.connection().execute
        for _turn in range(2):
            execute(sa.delete(table).where(table.c.id == 1))
            execute(sa.insert(table).values(id=1, owner="new", balance=1))
        if twin is AUDITED:
            mine = [row.op for row in history_of(session.connection(), table) if row.key == (1,)]
            assert "".join(mine) == "IDIDI"

    compare(standing, run)


@pytest.mark.session_capture("triggers record it")
@pytest.mark.parametrize("returning", [False, True])
def test_volatile_criteria_are_exact_or_fail(standing: Standing, returning: bool) -> None:
    """Criteria that say something else each time never leave a row that is recorded as deleted."""
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    function = sa.func.rand() if standing.database.dialect in ("mysql", "mariadb") else sa.func.random()
    table = AUDITED.Account.__table__
    statement = sa.delete(table).where(function > (0.5 if standing.database.dialect != "sqlite" else 0))
    if returning:
        statement = statement.returning(table.c.id)
    outcomes = set()
    for _turn in range(12):
        with Session(engine) as session:
            try:
                session.connection().execute(statement)
                outcomes.add("exact")
            except sa_audit.UnauditedWrite:
                outcomes.add("refused")
                session.rollback()
            assert_recorded(session.connection(), AUDITED.metadata)
            session.rollback()
    assert outcomes == {"exact", "refused"} or outcomes == {"refused"}


HIDDEN: dict[str, Any] = {
    "a delete in a select": lambda a, o: sa.select(sa.delete(a).returning(a.c.id).cte("gone")),
    "an update in a select": lambda a, o: sa.select(sa.update(a).values(balance=0).returning(a.c.id).cte("gone")),
    "an insert in a select": lambda a, o: sa.select(
        sa.insert(a).values(owner="x", balance=1).returning(a.c.id).cte("gone")
    ),
    "added to a select": lambda a, o: sa.select(sa.literal(1)).add_cte(sa.delete(a).cte("gone")),
    "nested in a select": lambda a, o: sa.select(
        sa.select(sa.delete(a).returning(a.c.id).cte("gone")).subquery().c.id
    ).union_all(sa.select(sa.literal(1))),
    "in an insert elsewhere": lambda a, o: sa.insert(o).from_select(
        ["owner", "percent"],
        sa.select(
            (g := sa.delete(a).where(a.c.id > 3).returning(a.c.owner, a.c.balance).cte("gone")).c.owner, g.c.balance
        ),
    ),
    "in an update of itself": lambda a, o: sa.update(a).values(balance=1).add_cte(sa.delete(o).cte("gone")),
    "in a delete elsewhere": lambda a, o: sa.delete(o).where(
        o.c.owner.in_(sa.select(sa.delete(a).returning(a.c.owner).cte("gone").c.owner))
    ),
    "as text": lambda a, o: sa.select(sa.text(f"DELETE FROM {a.name} RETURNING id").columns(a.c.id).cte("gone")),
}


@pytest.mark.session_capture("triggers record it")
@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("case", HIDDEN)
def test_dml_inside_another_statement_is_refused(standing: Standing, case: str) -> None:
    """An INSERT, UPDATE or DELETE that hides in a CTE is refused, whatever statement it is in."""

    def run(session: Session, twin: Bank) -> None:
        session.connection().execute(HIDDEN[case](twin.Account.__table__, twin.Rate.__table__))

    refused(standing, run)


@pytest.mark.session_capture("triggers record it, or refuse it by themselves")
@pytest.mark.parametrize(
    "make",
    [
        lambda t: sa.insert(t).prefix_with("OR REPLACE", dialect="sqlite").values(id=1, owner="x", balance=1),
        lambda t: sa.insert(t).prefix_with("OR IGNORE").values(id=1, owner="x", balance=1),
        lambda t: sa.update(t).prefix_with("OR IGNORE").values(balance=1),
        lambda t: sa.update(t).prefix_with("OR REPLACE").values(id=1),
    ],
)
@pytest.mark.only_on("sqlite")
def test_sqlite_prefixes_are_refused(standing: Standing, make: Any) -> None:
    """OR REPLACE and OR IGNORE change or skip rows without a word."""
    refused(standing, lambda session, twin: session.connection().execute(make(twin.Account.__table__)))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: sa.insert(t).prefix_with("IGNORE").values(id=1, owner="x", balance=1),
        lambda t: sa.update(t).prefix_with("IGNORE").values(balance=1),
        lambda t: sa.update(t).values(balance=1).with_dialect_options(mysql_limit=2),
        lambda t: sa.update(t).values(balance=1).with_dialect_options(mariadb_limit=2),
    ],
)
@pytest.mark.only_on("mariadb")
@pytest.mark.session_capture("triggers see the rows, however a statement chooses them")
def test_mariadb_prefixes_and_limits_are_refused(standing: Standing, make: Any) -> None:
    """IGNORE skips rows without a word, and which rows a LIMIT takes is not known."""
    refused(standing, lambda session, twin: session.connection().execute(make(twin.Account.__table__)))


@pytest.mark.session_capture("triggers record it")
@pytest.mark.only_on("mariadb")
def test_delete_with_a_limit_is_refused(standing: Standing) -> None:
    """A DELETE with LIMIT, where SQLAlchemy knows it, is refused."""
    try:
        sa.delete(AUDITED.Account).with_dialect_options(mysql_limit=2)
    except sa.exc.ArgumentError:
        pytest.skip("this SQLAlchemy has no DELETE with LIMIT")
    refused(
        standing,
        lambda session, twin: session.execute(sa.delete(twin.Account).with_dialect_options(mysql_limit=2)),
    )


@pytest.mark.session_capture("triggers record it")
@pytest.mark.only_on("mariadb")
def test_update_of_two_tables_is_refused(standing: Standing) -> None:
    """MariaDB's UPDATE that sets columns of several tables is refused."""

    def run(session: Session, twin: Bank) -> None:
        account, rate = twin.Account.__table__, twin.Rate.__table__
        session.connection().execute(
            sa.update(account).where(account.c.owner == rate.c.owner).values({account.c.balance: 0, rate.c.percent: 0})
        )

    refused(standing, run)
