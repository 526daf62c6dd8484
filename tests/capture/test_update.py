"""UPDATE by Core and the ORM: the rows that it changes are recorded with their values before, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, with_loader_criteria

from tests.capture.conftest import Standing
from tests.capture.replay import history_of
from tests.capture.twins import AUDITED, Bank, compare, refused, seen

pytestmark = pytest.mark.both_captures

CORE: dict[str, Any] = {
    "where": lambda b, t: (sa.update(t).where(t.c.owner == "ann").values(balance=0), None),
    "everything": lambda b, t: (sa.update(t).values(balance=t.c.balance * 2), None),
    "nothing": lambda b, t: (sa.update(t).where(t.c.id == 99).values(balance=0), None),
    "to the same value": lambda b, t: (sa.update(t).values(balance=t.c.balance, owner=t.c.owner), None),
    "some to the same value": lambda b, t: (sa.update(t).values(balance=30), None),
    "to null and back": lambda b, t: (sa.update(t).values(note=sa.case((t.c.note.is_(None), "was null"))), None),
    "a masked column": lambda b, t: (sa.update(t).where(t.c.id < 3).values(pin="9"), None),
    "an excluded column": lambda b, t: (sa.update(t).values(seen=5), None),
    "an excluded and a recorded column": lambda b, t: (sa.update(t).values(seen=5, balance=t.c.balance + 1), None),
    "parameters": lambda b, t: (
        sa.update(t).where(t.c.owner == sa.bindparam("who")).values(balance=sa.bindparam("amount")),
        {"who": "ann", "amount": 3},
    ),
    "values as parameters": lambda b, t: (sa.update(t).where(t.c.owner == "ann"), {"balance": 3, "note": "w"}),
    "ordered values": lambda b, t: (
        sa.update(t).ordered_values((t.c.balance, t.c.balance + 1), (t.c.note, "w")).where(t.c.id > 2),
        None,
    ),
    "in a subquery": lambda b, t: (
        sa.update(t)
        .where(t.c.id.in_(sa.select(b.Payment.account_id).where(b.Payment.amount < 20)))
        .values(balance=t.c.balance - 1),
        None,
    ),
    "a correlated subquery": lambda b, t: (
        sa.update(t).where(sa.exists().where(b.Payment.account_id == t.c.id)).values(note="paid"),
        None,
    ),
    "a value from a correlated subquery": lambda b, t: (
        sa.update(t).values(
            balance=sa.select(sa.func.coalesce(sa.func.sum(b.Payment.amount), 0))
            .where(b.Payment.account_id == t.c.id)
            .scalar_subquery()
        ),
        None,
    ),
    "a join": lambda b, t: (
        sa.update(t).where(t.c.owner == b.Rate.owner, b.Rate.percent > 3).values(note="rated"),
        None,
    ),
    "a value from a join": lambda b, t: (
        sa.update(t).where(t.c.owner == b.Rate.owner).values(balance=t.c.balance + b.Rate.__table__.c.percent),
        None,
    ),
    "two joins": lambda b, t: (
        sa.update(t)
        .where(t.c.owner == b.Rate.owner, b.Payment.account_id == t.c.id, b.Payment.branch == "oslo")
        .values(note="both"),
        None,
    ),
    "a cte": lambda b, t: (
        sa.update(t).where(t.c.id == sa.select(t.c.id).where(t.c.balance > 20).cte("rich").c.id).values(grade="R"),
        None,
    ),
    "a cte with a name like ours": lambda b, t: (
        sa.update(t)
        .where(t.c.id.in_(sa.select(sa.select(t.c.id).where(t.c.balance > 20).cte("sa_audit_rows").c.id)))
        .values(grade="R"),
        None,
    ),
    "an alias in a subquery": lambda b, t: (
        sa.update(t)
        .where(t.c.balance > sa.select(sa.func.avg((o := t.alias("o")).c.balance)).where(o.c.id > 0).scalar_subquery())
        .values(grade="R"),
        None,
    ),
    "an in list": lambda b, t: (sa.update(t).where(t.c.id.in_([1, 3, 99])).values(balance=0), None),
    "an empty in list": lambda b, t: (sa.update(t).where(t.c.id.in_([])).values(balance=0), None),
    "a parameter with an in list": lambda b, t: (
        sa.update(t).where(t.c.id.in_(sa.bindparam("ids", expanding=True))).values(balance=0),
        {"ids": [1, 2]},
    ),
    "text in its criteria": lambda b, t: (sa.update(t).where(sa.text("balance > 20")).values(balance=0), None),
    "text with a parameter": lambda b, t: (
        sa.update(t).where(sa.text("balance > :least").bindparams(least=20)).values(balance=0),
        None,
    ),
    "many by key": lambda b, t: (
        sa.update(t).where(t.c.id == sa.bindparam("b_id")).values(balance=sa.bindparam("b_balance")),
        [{"b_id": i, "b_balance": 100 + i} for i in (1, 3, 99)],
    ),
    "many by the same key": lambda b, t: (
        sa.update(t).where(t.c.id == sa.bindparam("b_id")).values(balance=sa.bindparam("b_balance")),
        [{"b_id": 1, "b_balance": 100 + i} for i in range(3)],
    ),
    "many by key and more": lambda b, t: (
        sa.update(t)
        .where(t.c.id == sa.bindparam("b_id"), t.c.owner == "ann")
        .values(balance=sa.bindparam("b_balance")),
        [{"b_id": i, "b_balance": 100 + i} for i in (1, 2, 3)],
    ),
    "many by other criteria": lambda b, t: (
        sa.update(t).where(t.c.owner == sa.bindparam("who")).values(balance=sa.bindparam("b_balance")),
        [{"who": who, "b_balance": i} for i, who in enumerate(["ann", "bob", "nobody"])],
    ),
    "many that run into each other": lambda b, t: (
        sa.update(t).where(t.c.balance == sa.bindparam("then")).values(balance=sa.bindparam("b_now")),
        [{"then": 10, "b_now": 20}, {"then": 20, "b_now": 30}, {"then": 30, "b_now": 10}],
    ),
    "many without criteria": lambda b, t: (sa.update(t), [{"balance": 1}, {"balance": 2}]),
    "many with a fixed key": lambda b, t: (
        sa.update(t).where(t.c.id == 2).values(balance=sa.bindparam("b_balance")),
        [{"b_balance": 1}, {"b_balance": 2}],
    ),
    "many with one row": lambda b, t: (
        sa.update(t).where(t.c.id == sa.bindparam("b_id")).values(balance=sa.bindparam("b_balance")),
        [{"b_id": 1, "b_balance": 7}],
    ),
    "a key": lambda b, t: (sa.update(t).where(t.c.id == 1).values(id=100), None),
    "all keys": lambda b, t: (sa.update(t).values(id=t.c.id + 100), None),
    "a key by parameters": lambda b, t: (sa.update(t).where(t.c.id == 1), {"id": 100}),
    "a key by a named parameter": lambda b, t: (
        sa.update(t).where(t.c.id == sa.bindparam("old")).values(id=sa.bindparam("new")),
        {"old": 1, "new": 100},
    ),
    "a key and more": lambda b, t: (sa.update(t).where(t.c.owner == "ann").values(id=t.c.id + 50, balance=1), None),
    "a key to itself": lambda b, t: (sa.update(t).values(id=t.c.id, balance=t.c.balance + 1), None),
    "some keys": lambda b, t: (
        sa.update(t).values(id=sa.case((t.c.id < 3, t.c.id + 100), else_=t.c.id), note="n"),
        None,
    ),
}


@pytest.mark.parametrize("case", CORE)
def test_core(standing: Standing, case: str) -> None:
    """An UPDATE by Core does what it does without auditing, and is recorded."""
    compare(standing, lambda session, twin: _core(session, twin, CORE[case]))


def _core(session: Session, twin: Bank, case: Any) -> Any:
    statement, parameters = case(twin, twin.Account.__table__)
    return seen(session.connection().execute(statement, parameters))


RETURNING: dict[str, Any] = {
    "the key": lambda t: sa.update(t).where(t.c.owner == "ann").values(balance=0).returning(t.c.id),
    "without the key": lambda t: sa.update(t).values(balance=t.c.balance + 1).returning(t.c.owner, t.c.balance * 2),
    "all": lambda t: sa.update(t).where(t.c.balance > 20).values(note="r").returning(t),
    "nothing": lambda t: sa.update(t).where(t.c.id == 99).values(note="r").returning(t),
    "a changed key": lambda t: sa.update(t).values(id=t.c.id + 100).returning(t.c.id, t.c.owner),
    "defaults": lambda t: (
        sa.update(t).where(t.c.id == 1).values(balance=sa.literal(1) + 1).return_defaults(t.c.balance)
    ),
}


@pytest.mark.parametrize("case", RETURNING)
def test_returning(standing: Standing, case: str) -> None:
    """RETURNING gives the user what it gives without auditing."""

    def run(session: Session, twin: Bank) -> Any:
        told = seen(session.connection().execute(RETURNING[case](twin.Account.__table__)))
        return {**told, "all": sorted(told["all"])} if isinstance(told["all"], list) else told

    compare(standing, run)


ORM: dict[str, Any] = {
    "where": lambda b: (sa.update(b.Account).where(b.Account.remark.is_(None)).values(remark="w"), None),
    "everything": lambda b: (sa.update(b.Account).values({b.Account.balance: b.Account.balance + 1}), None),
    "attribute names in values": lambda b: (sa.update(b.Account).values({"remark": "w"}), None),
    "by primary key": lambda b: (
        sa.update(b.Account),
        [{"id": 1, "remark": "one"}, {"id": 2, "balance": 5}, {"id": 3, "remark": "three", "balance": 6}],
    ),
    "by primary key, all alike": lambda b: (sa.update(b.Account), [{"id": i, "balance": 5} for i in (1, 2, 3)]),
    "by composite primary key": lambda b: (
        sa.update(b.Payment),
        [{"branch": "oslo", "number": 1, "amount": 1}, {"branch": "bern", "number": 2, "amount": 2}],
    ),
    "a subclass in the same table": lambda b: (sa.update(b.Cat).values(lives=b.Cat.lives - 1), None),
    "a subclass without columns": lambda b: (sa.update(b.Dog).values(name="rex"), None),
    "a subclass with criteria": lambda b: (sa.update(b.Cat).where(b.Cat.name == "cat").values(name="tom"), None),
    "a base class": lambda b: (sa.update(b.Animal).values(name="x"), None),
    "loader criteria": lambda b: (
        sa.update(b.Account).values(balance=0).options(with_loader_criteria(b.Account, b.Account.owner == "ann")),
        None,
    ),
    "loader criteria by lambda": lambda b: (
        sa.update(b.Account).values(balance=0).options(with_loader_criteria(b.Account, lambda cls: cls.balance > 20)),
        None,
    ),
    "the joined base": lambda b: (sa.update(b.Employee).values(name="x"), None),
    "the joined subclass": lambda b: (sa.update(b.Engineer).values(language="x"), None),
    "a join of entities": lambda b: (
        sa.update(b.Account).where(b.Account.id == b.Payment.account_id, b.Payment.branch == "oslo").values(remark="j"),
        None,
    ),
    "an alias in a subquery": lambda b: (
        sa.update(b.Account)
        .where(b.Account.id.in_(sa.select((o := aliased(b.Account)).id).where(o.balance > 20)))
        .values(remark="j"),
        None,
    ),
    "a key": lambda b: (sa.update(b.Account).where(b.Account.id == 2).values(id=200), None),
}
SYNCHRONIZE = ("auto", "evaluate", "fetch", False)


@pytest.mark.parametrize("case", ORM)
def test_orm(standing: Standing, case: str) -> None:
    """An ORM-enabled UPDATE does what it does without auditing, and is recorded."""
    compare(standing, lambda session, twin: _orm(session, twin, ORM[case]))


def _orm(session: Session, twin: Bank, case: Any) -> Any:
    session.execute(sa.insert(twin.Engineer), [{"name": "ada", "language": "c"}, {"name": "bo", "language": "d"}])
    statement, parameters = case(twin)
    return seen(session.execute(statement, parameters))


@pytest.mark.parametrize("synchronize", SYNCHRONIZE)
def test_synchronize_session(standing: Standing, synchronize: Any) -> None:
    """Loaded objects are synchronized as they are without auditing."""

    def run(session: Session, twin: Bank) -> Any:
        account = twin.Account
        loaded = session.scalars(sa.select(account).order_by(account.id)).all()
        statement = sa.update(account).where(account.owner == "ann").values(balance=account.balance + 1)
        session.execute(statement, execution_options={"synchronize_session": synchronize})
        dirty = [sorted(sa.inspect(one).expired_attributes) for one in loaded]
        return dirty, [one.balance for one in loaded]

    compare(standing, run)


@pytest.mark.needs("update-returning")
@pytest.mark.parametrize("synchronize", SYNCHRONIZE)
def test_orm_returning(standing: Standing, synchronize: Any) -> None:
    """An ORM UPDATE with RETURNING gives entities and attributes as without auditing."""

    def run(session: Session, twin: Bank) -> Any:
        account = twin.Account
        options = {"synchronize_session": synchronize, "populate_existing": True}
        one = sa.update(account).where(account.owner == "ann").values(balance=account.balance + 1).returning(account)
        two = sa.update(account).values(balance=account.balance + 1).returning(account.owner, account.remark)
        three = sa.select(account).from_statement(one)
        return [sorted(seen(session.execute(s, execution_options=options))["all"], key=str) for s in (one, two, three)]

    compare(standing, run)


@pytest.mark.session_capture("triggers record it")
@pytest.mark.only_on("sqlite", "postgresql")
@pytest.mark.parametrize("case", ["a table", "an entity"])
def test_alias_is_refused(standing: Standing, case: str) -> None:
    """An UPDATE of an alias is refused before it changes anything."""

    def run(session: Session, twin: Bank) -> Any:
        if case == "a table":
            alias = twin.Account.__table__.alias("a")
            session.connection().execute(sa.update(alias).where(alias.c.balance > 20).values(balance=0))
            return
        entity = aliased(twin.Account)
        statement = sa.update(entity).where(entity.balance > 20).values(balance=0)
        session.execute(statement, execution_options={"synchronize_session": False})

    refused(standing, run)


def test_volatile_criteria(standing: Standing) -> None:
    """Criteria that say something else each time change no row that was not read."""
    function = sa.func.rand() if standing.database.dialect in ("mysql", "mariadb") else sa.func.random()
    middle = 0.5 if standing.database.dialect != "sqlite" else 0

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Account.__table__
        if twin is AUDITED:
            for _turn in range(5):
                session.connection().execute(
                    sa.update(table).where(function > middle).values(balance=table.c.balance + 1)
                )
            session.connection().execute(sa.update(table).values(balance=1))
        else:
            session.connection().execute(sa.update(table).values(balance=1))

    compare(standing, run)


@pytest.mark.session_capture("triggers record it")
@pytest.mark.parametrize("form", ["a function", "many rows"])
def test_unknown_new_key_is_refused(standing: Standing, form: str) -> None:
    """A new key that can't be known before it is written is refused."""

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Account.__table__
        if form == "a function":
            session.connection().execute(sa.update(table).where(table.c.id == 1).values(id=sa.func.abs(-100)))
        else:
            statement = sa.update(table).where(table.c.id == sa.bindparam("old")).values(id=sa.bindparam("new"))
            session.connection().execute(statement, [{"old": 1, "new": 100}, {"old": 2, "new": 200}])

    refused(standing, run)


def test_key_of_another_row(standing: Standing) -> None:
    """A key that is set to that of a row moved away in the same transaction begins a second life."""

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Account.__table__
        execute = session.connection().execute
        execute(sa.update(table).where(table.c.id == 1).values(id=100))
        execute(sa.update(table).where(table.c.id == 2).values(id=1))
        execute(sa.update(table).where(table.c.id == 1).values(balance=0))

    compare(standing, run)


@pytest.mark.session_capture("counts the statements of the session")
def test_each_statement_is_its_own_change(standing: Standing) -> None:
    """Two statements that change one row are two history rows, with different numbers of their flush."""

    def run(session: Session, twin: Bank) -> None:
        table = twin.Account.__table__
        for balance in (1, 2):
            session.connection().execute(sa.update(table).where(table.c.id == 1).values(balance=balance))
        if twin is AUDITED:
            first, second = [row for row in history_of(session.connection(), twin.Account) if row.op == "U"]
            assert (first.before, second.before) == ({"balance": 10}, {"balance": 1})
            assert first.tx == second.tx
            assert first.flush < second.flush

    compare(standing, run)
