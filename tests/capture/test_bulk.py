"""The bulk methods of the ORM, and statements on so many rows that their images stay inside the database."""

from __future__ import annotations

import datetime as dt
import tracemalloc
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Exclude, Mask
from sa_audit.model.history import audited_of
from tests.capture.conftest import Standing
from tests.capture.replay import history_of
from tests.capture.twins import AUDITED, Bank, compare, seen

pytestmark = pytest.mark.both_captures

MANY = 1050


class TestBulkMethods:
    """The legacy bulk methods, which run no unit of work."""

    @pytest.mark.parametrize("defaults", [True, False])
    def test_save_objects(self, standing: Standing, defaults: bool) -> None:
        """bulk_save_objects() records what it inserts and what it updates."""

        def run(session: Session, twin: Bank) -> Any:
            account = twin.Account
            new = [account(owner=f"o{i}", balance=i) for i in range(3)]
            old = session.scalars(sa.select(account).order_by(account.id).limit(2)).all()
            for one in old:
                one.remark = "bulk"
            session.bulk_save_objects([*new, *old], return_defaults=defaults)
            return [one.id for one in new] if defaults else None

        compare(standing, run)

    @pytest.mark.parametrize("render_nulls", [True, False])
    def test_insert_mappings(self, standing: Standing, render_nulls: bool) -> None:
        """bulk_insert_mappings() records each row, also of joined inheritance."""

        def run(session: Session, twin: Bank) -> Any:
            rows = [{"owner": f"o{i}", "balance": i, "remark": None if i % 2 else "r"} for i in range(4)]
            session.bulk_insert_mappings(twin.Account, rows, render_nulls=render_nulls)
            session.bulk_insert_mappings(twin.Engineer, [{"name": "a", "language": "c"}, {"name": "b"}])

        compare(standing, run)

    def test_update_mappings(self, standing: Standing) -> None:
        """bulk_update_mappings() records what changes, by composite keys as well."""

        def run(session: Session, twin: Bank) -> Any:
            session.bulk_update_mappings(twin.Account, [{"id": 1, "remark": "b"}, {"id": 2, "balance": 20}])
            session.bulk_update_mappings(twin.Payment, [{"branch": "oslo", "number": 2, "amount": 1}])

        compare(standing, run)

    @pytest.mark.session_capture("counts the flushes of the session")
    def test_joined_update(self, standing: Standing) -> None:
        """Bulk statements of a joined subclass record a row of each table, under one number as one change."""

        def run(session: Session, twin: Bank) -> Any:
            engineer = twin.Engineer
            session.execute(sa.insert(engineer), [{"name": "a", "language": "c"}, {"name": "b", "language": "d"}])
            first, second = session.scalars(sa.select(engineer.id).order_by(engineer.id)).all()
            session.bulk_insert_mappings(engineer, [{"name": "c", "language": "e"}])
            session.execute(
                sa.update(engineer), [{"id": first, "name": "x", "language": "y"}, {"id": second, "name": "z"}]
            )

            if twin is AUDITED:
                flushes = {table: _flushes(session, table) for table in (twin.Employee, engineer)}
                assert flushes[twin.Employee] == flushes[engineer]
                assert [len(rows) for rows in flushes[engineer].values()] == [2, 1, 1]

        def _flushes(session: Session, entity: Any) -> dict[int, list[Any]]:
            found: dict[int, list[Any]] = {}
            for row in history_of(session.connection(), entity):
                if not (row.op == "U" and row.values.get("name") == "z"):
                    found.setdefault(row.flush, []).append(row.key)
            return found

        compare(standing, run)


# -- many rows ---------------------------------------------------------------------------------

METADATA = sa.MetaData()
WIDE = sa.Table(
    "wide",
    METADATA,
    sa.Column("part", sa.String(5), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("flag", sa.Boolean),
    sa.Column("amount", sa.Numeric(12, 2, asdecimal=True).with_variant(sa.String(20), "sqlite")),
    sa.Column("ratio", sa.Float),
    sa.Column("huge", sa.BigInteger),
    sa.Column("day", sa.Date),
    sa.Column("moment", sa.DateTime),
    sa.Column("aware", sa.DateTime(timezone=True)),
    sa.Column("hour", sa.Time),
    sa.Column("span", sa.Interval),
    sa.Column("raw", sa.LargeBinary),
    sa.Column("doc", sa.JSON),
    sa.Column("token", sa.Uuid),
    sa.Column("kind", sa.Enum("one", "two", name="wide_kind")),
    sa.Column("The %Text: it's", sa.String(100), key="text"),
    sa.Column("secret", sa.String(20), info={"sa_audit": Mask()}),
    sa.Column("seen", sa.Integer, info={"sa_audit": Exclude()}),
)
OTHER = sa.Table("other", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("least", sa.Integer))
sa_audit.track(WIDE)
CHANGES: dict[str, Any] = {
    "flag": False,
    "amount": "12.50",
    "ratio": 0.1,
    "huge": 2**60,
    "day": dt.date(2026, 2, 28),
    "moment": dt.datetime(2026, 1, 2, 3, 4, 5),
    "aware": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    "hour": dt.time(23, 59, 59),
    "span": dt.timedelta(days=3, seconds=5),
    "raw": b"\x00\xff'%:",
    "doc": {"a": [1, None, "it's 100% :x"]},
    "token": uuid.UUID(int=7),
    "kind": "two",
    "text": 'it\'s "100%" \\ :x æ',
}


def _wide(number: int) -> dict[str, Any]:
    return {
        "part": f"p{number % 3}",
        "number": number,
        "flag": True if number % 2 else None,
        "amount": "12.5" if number % 2 else "1.00",
        "ratio": number / 3,
        "huge": number - 2**53,
        "day": dt.date(2026, 1, 1),
        "moment": dt.datetime(2026, 1, 1, 12),
        "aware": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
        "hour": dt.time(12),
        "span": dt.timedelta(hours=number % 30),
        "raw": bytes([number % 256]),
        "doc": {"n": number} if number % 5 else None,
        "token": uuid.UUID(int=number),
        "kind": "one",
        "text": f"line {number}\n'\"",
        "secret": "a",
        "seen": number,
    }


def _fill(session: Session) -> None:
    session.connection().execute(sa.insert(WIDE), [_wide(number) for number in range(MANY)])
    session.connection().execute(sa.insert(OTHER), [{"id": 1, "least": 50}])


def _recorded(engine: Engine, run: Callable[[Session], Any], *, chunked: bool) -> list[Any]:
    """Give the history rows, without their own numbers, that a statement makes; it is then rolled back."""
    audited = audited_of(WIDE)
    assert audited is not None
    history = audited.history
    own = {"audit_id", "audit_tx", "audit_txid", "audit_at", "audit_salt", "audit_flush"}
    columns = [column for column in history.columns if column.name not in own]
    with Session(engine) as session:
        if chunked:
            for start in range(0, MANY, 500):
                session.connection().execute(run(WIDE.c.number.between(start, start + 499)))
        else:
            session.connection().execute(run(sa.true()))
        rows = session.execute(
            sa.select(*columns)
            .join(audited.trail.transaction, audited.trail.transaction.c.id == history.c.audit_tx)
            .where(audited.trail.transaction.c.actor.is_(None))
            .order_by(history.c.number, history.c.audit_id)
        ).all()
        assert_live(session)
        session.rollback()
    return [tuple(row) for row in rows]


def assert_live(session: Session) -> None:
    """Assert that the last history row of each key is the live row."""
    audited = audited_of(WIDE)
    assert audited is not None
    history = audited.history
    last = sa.select(sa.func.max(history.c.audit_id)).group_by(history.c.part, history.c.number)
    columns = [history.c[column.source.key] for column in audited.recorded]
    living = (
        sa.select(*columns).where(history.c.audit_id.in_(last), history.c.audit_op != "D").order_by(history.c.number)
    )
    now = sa.select(*(column.source for column in audited.recorded)).order_by(WIDE.c.number)
    assert session.execute(living).all() == session.execute(now).all()


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "update of every type": lambda where: sa.update(WIDE).where(where).values(CHANGES),
    "update to null": lambda where: sa.update(WIDE).where(where).values(dict.fromkeys(CHANGES, sa.null())),
    "update of some": lambda where: sa.update(WIDE).where(where).values(flag=True, amount="12.5"),
    "update of a masked column": lambda where: sa.update(WIDE).where(where).values(secret="b"),
    "update of an excluded column": lambda where: sa.update(WIDE).where(where).values(seen=0),
    "update of nothing": lambda where: sa.update(WIDE).where(where).values(huge=WIDE.c.huge, kind="one"),
    "update with a join": lambda where: (
        sa.update(WIDE).where(where, WIDE.c.number > OTHER.c.least).values(huge=OTHER.c.least)
    ),
    "update of keys": lambda where: sa.update(WIDE).where(where).values(part="q"),
    "delete": lambda where: sa.delete(WIDE).where(where),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_many_rows_are_recorded_as_few_are(standing: Standing, case: str) -> None:
    """A statement on more than 1000 rows records, byte for byte, what it records in parts of 500."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    one, parts = (_recorded(engine, STATEMENTS[case], chunked=chunked) for chunked in (False, True))
    assert one == parts
    assert bool(one) == (case not in ("update of an excluded column", "update of nothing"))
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(WIDE)) == MANY
        assert len(history_of(connection, WIDE)) == MANY
    standing.untouched = True


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (
            sa.update(WIDE).where(WIDE.c.number >= sa.bindparam("least")).values(huge=sa.bindparam("b_huge")),
            {"least": 0, "b_huge": 5},
        ),
        (sa.update(WIDE).where(WIDE.c.number >= sa.bindparam("least")), {"least": 0, "huge": 5, "text": "x"}),
        (sa.delete(WIDE).where(WIDE.c.number.not_in(sa.bindparam("some", expanding=True))), {"some": [1, 2]}),
        (sa.update(WIDE).where(sa.text("number >= :least")).values(huge=5), {"least": 0}),
    ],
)
def test_parameters_of_many_rows(standing: Standing, statement: Any, parameters: dict[str, Any]) -> None:
    """Parameters of the criteria and values of a statement on many rows go where they belong."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    with Session(engine) as session:
        session.connection().execute(statement, parameters)
        assert_live(session)
        session.rollback()
    standing.untouched = True


def test_rollback_takes_many_rows_back(standing: Standing) -> None:
    """What staged the rows ends no transaction: a rollback takes back the data and the record, and what was before."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    for statement in (sa.update(WIDE).values(huge=1), sa.delete(WIDE)):
        with engine.connect() as connection:
            connection.execute(sa.insert(WIDE), [_wide(MANY + 1)])
            connection.execute(statement)
            connection.execute(sa.update(WIDE).values(huge=2))
            connection.rollback()
            assert connection.scalar(sa.select(sa.func.count()).select_from(WIDE)) == MANY
            assert connection.scalar(sa.select(sa.func.count()).where(WIDE.c.huge.in_([1, 2]))) == 0
            assert len(history_of(connection, WIDE)) == MANY
    standing.untouched = True


def test_failure_among_many_rows(standing: Standing) -> None:
    """A statement on many rows that fails leaves nothing, and the next one on the connection is recorded right."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    with Session(engine) as session:
        connection = session.connection()
        with pytest.raises(sa.exc.DBAPIError), connection.begin_nested():
            connection.execute(sa.update(WIDE).values(part=sa.null()))
        mistake: Any = 1 / sa.case((WIDE.c.number == MANY - 1, 0), else_=1)
        if standing.database.dialect != "postgresql":
            mistake = sa.func.no_such_function(WIDE.c.number)
        with pytest.raises(sa.exc.DBAPIError), connection.begin_nested():
            connection.execute(sa.update(WIDE).values(huge=mistake))
        connection.execute(sa.update(WIDE).values(huge=1))
        assert_live(session)
        session.rollback()
    standing.untouched = True


@pytest.mark.needs("update-returning")
@pytest.mark.parametrize("kind", ["update", "delete"])
def test_returning_many_rows(standing: Standing, kind: str) -> None:
    """RETURNING of a statement on many rows gives them all, whenever they are fetched."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    statement = sa.update(WIDE).values(huge=1) if kind == "update" else sa.delete(WIDE)
    with Session(engine) as session:
        result = session.connection().execute(statement.returning(WIDE.c.number))
        assert_live(session)
        assert sorted(result.scalars()) == list(range(MANY))
        session.rollback()
    standing.untouched = True


def test_executemany_of_many_rows(standing: Standing) -> None:
    """More than 1000 rows of parameters, by key and by other criteria, are recorded."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    by_key = sa.update(WIDE).where(WIDE.c.part == sa.bindparam("p"), WIDE.c.number == sa.bindparam("n"))
    by_number = sa.update(WIDE).where(WIDE.c.number == sa.bindparam("n"))
    gone = sa.delete(WIDE).where(WIDE.c.number == sa.bindparam("n"))
    with Session(engine) as session:
        connection = session.connection()
        rows = [{"p": f"p{n % 3}", "n": n, "b": n} for n in range(MANY + 5)]
        connection.execute(by_key.values(huge=sa.bindparam("b")), rows)
        connection.execute(by_number.values(text="x"), [{"n": n} for n in range(300)])
        connection.execute(gone, [{"n": n} for n in range(300)])
        assert_live(session)
        assert connection.scalar(sa.select(sa.func.count()).select_from(WIDE)) == MANY - 300
        session.rollback()
    standing.untouched = True


def test_insert_of_many_rows(standing: Standing) -> None:
    """More rows than one statement of recording takes are recorded, inserted from a SELECT."""

    def run(session: Session, twin: Bank) -> Any:
        table = twin.Account.__table__
        for _turn in range(10):
            query = sa.select(table.c.owner, table.c.balance + 1)
            result = session.connection().execute(sa.insert(table).from_select(["owner", "balance"], query))
        return seen(result)["rowcount"]

    compare(standing, run)


@pytest.mark.slow
def test_memory_is_flat(engine: Engine) -> None:
    """An UPDATE and a DELETE of 200,000 rows take no more memory in Python than one of 2,000."""
    metadata = sa.MetaData()
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)  # 0 is a key, too
    table = sa.Table("t", metadata, key, sa.Column("n", sa.Integer))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"id": i, "n": i} for i in range(200_000)])
    sa_audit.track(table)
    metadata.create_all(engine)
    used = {}
    for statement in (sa.update(table).values(n=table.c.n + 1), sa.delete(table)):
        for rows in (2_000, 200_000):
            with engine.connect() as connection:
                tracemalloc.start()
                connection.execute(statement.where(table.c.id < rows))
                used[rows] = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                connection.rollback()
        assert used[200_000] < used[2_000] + 1_000_000


def test_decimals_are_exact(standing: Standing) -> None:
    """A numeric column's before-value is the stored one, at its scale."""
    engine = standing.make(METADATA, fill=_fill)
    standing.untouched = False
    with Session(engine) as session:
        session.connection().execute(sa.update(WIDE).values(amount="99.99"))
        changed = [row for row in history_of(session.connection(), WIDE) if row.op == "U"]
        assert len(changed) == MANY
        first = str(changed[0].before["amount"]) if changed[0].before else ""
        assert Decimal(first) in (Decimal("12.5"), Decimal("1.00"))
        session.rollback()
    standing.untouched = True
