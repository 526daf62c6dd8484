"""The same models twice in one database, audited and plain: what a user sees of a statement has to be the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Exclude, Mask
from tests.capture.conftest import Standing
from tests.capture.replay import assert_recorded


class Nothing:
    """In place of the mixin, for the plain twin."""


class Bank:
    """One of the twins: its models as attributes, with tables named after a prefix."""

    def __init__(self, prefix: str, mixin: type[Any]) -> None:
        class Base(DeclarativeBase):
            pass

        class Account(mixin, Base):
            __tablename__ = f"{prefix}account"
            id: Mapped[int] = mapped_column(primary_key=True)
            owner: Mapped[str] = mapped_column(sa.String(50))
            balance: Mapped[int] = mapped_column(default=0)
            grade: Mapped[str | None] = mapped_column(sa.String(10), server_default="C")
            remark: Mapped[str | None] = mapped_column("note", sa.String(50))
            pin: Mapped[str | None] = mapped_column(sa.String(10), info={"sa_audit": Mask()})
            seen: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})

        class Payment(mixin, Base):
            __tablename__ = f"{prefix}payment"
            branch: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
            number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            account_id: Mapped[int | None]
            amount: Mapped[int]

        class Animal(mixin, Base):
            __tablename__ = f"{prefix}animal"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str] = mapped_column(sa.String(10))
            name: Mapped[str] = mapped_column(sa.String(50))
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

        class Cat(Animal):
            lives: Mapped[int | None]
            __mapper_args__ = {"polymorphic_identity": "cat"}

        class Dog(Animal):
            __mapper_args__ = {"polymorphic_identity": "dog"}

        class Employee(mixin, Base):
            __tablename__ = f"{prefix}employee"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str] = mapped_column(sa.String(10))
            name: Mapped[str] = mapped_column(sa.String(50))
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

        class Engineer(Employee):
            __tablename__ = f"{prefix}engineer"
            id: Mapped[int] = mapped_column(sa.ForeignKey(f"{prefix}employee.id"), primary_key=True)
            language: Mapped[str | None] = mapped_column(sa.String(50))
            __mapper_args__ = {"polymorphic_identity": "engineer"}

        class Rate(Base):  # not audited in either twin
            __tablename__ = f"{prefix}rate"
            owner: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
            percent: Mapped[int]

        self.Base, self.Account, self.Payment, self.Rate = Base, Account, Payment, Rate
        self.Animal, self.Cat, self.Dog, self.Employee, self.Engineer = Animal, Cat, Dog, Employee, Engineer
        self.tag = sa.Table(  # without a mapper
            f"{prefix}tag",
            Base.metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("label", sa.String(20), unique=True),
            sa.Column("weight", sa.Integer),
        )
        if mixin is not Nothing:
            sa_audit.track(self.tag)
        sa.orm.configure_mappers()

    @property
    def metadata(self) -> sa.MetaData:
        """The twin's MetaData."""
        return self.Base.metadata

    def seed(self, session: Session) -> None:
        """Fill the tables with a few rows each, by the statements that need no care."""
        run = session.connection().execute
        run(sa.insert(self.Account.__table__), ACCOUNTS)
        run(sa.insert(self.Payment.__table__), PAYMENTS)
        run(sa.insert(self.Rate.__table__), [{"owner": "ann", "percent": 3}, {"owner": "bob", "percent": 5}])
        run(sa.insert(self.tag), [{"label": "red", "weight": 1}, {"label": "blue", "weight": 2}])
        run(
            sa.insert(self.Animal.__table__),
            [{"kind": kind, "name": kind, "lives": 9} for kind in ("cat", "dog", "cat")],
        )


ACCOUNTS = [
    {"owner": owner, "balance": balance, "grade": "A", "note": note, "pin": "1234", "seen": 0}
    for owner, balance, note in [
        ("ann", 10, "x"),
        ("bob", 20, None),
        ("ann", 30, "y"),
        ("cid", 40, None),
        ("dan", 50, "z"),
    ]
]
PAYMENTS = [
    {"branch": branch, "number": number, "account_id": account, "amount": number * 10}
    for branch, number, account in [("oslo", 1, 1), ("oslo", 2, 2), ("bern", 1, 1), ("bern", 2, 4)]
]

AUDITED = Bank("", sa_audit.Audited)
PLAIN = Bank("plain_", Nothing)

Run = Callable[[Session, Bank], Any]


def fill(session: Session) -> None:
    """Fill both twins alike."""
    for twin in (PLAIN, AUDITED):
        twin.seed(session)


def rows_of(session: Session, twin: Bank) -> dict[str, list[Any]]:
    """Give all rows of all tables of one twin, by the names of the audited one."""
    found = {}
    for name, table in AUDITED.metadata.tables.items():
        if not sa_audit.is_trail_table(table):
            mine = twin.metadata.tables[name if twin is AUDITED else f"plain_{name}"]
            found[name] = session.connection().execute(sa.select(mine).order_by(*mine.primary_key)).all()
    return found


def compare(standing: Standing, run: Run) -> Any:
    """Run the same on both twins: what it gives, what then stands in the tables, and the record have to fit.

    All is rolled back, and then has to be as before.

    Returns:
        what it gave.
    """
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    standing.untouched = False
    with Session(engine) as session:
        begin(session)
        try:
            expected = run(session, PLAIN)
        except (sa.exc.DBAPIError, sa.exc.CompileError, NotImplementedError) as error:
            session.rollback()  # the databases may not be alike any more: a sequence does not go back
            pytest.skip(f"{standing.database.name} does not know this statement: {str(error).splitlines()[0]}")
        rows = rows_of(session, PLAIN)
        session.rollback()
    with sa_audit.context(actor="alice"), Session(engine) as session:
        before = rows_of(session, AUDITED)
        got = run(session, AUDITED)
        assert got == expected, f"the result is another: {got!r}, not {expected!r}"
        assert rows_of(session, AUDITED) == rows
        assert_recorded(session.connection(), AUDITED.metadata)
        session.rollback()
        assert rows_of(session, AUDITED) == before
        assert_recorded(session.connection(), AUDITED.metadata, actor="seed")
    standing.untouched = True
    return got


def begin(session: Session) -> None:
    """Begin SQLite's transaction, which its driver would not do before a statement that opens with WITH."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")


def refused(standing: Standing, run: Run) -> None:
    """Run what can't be recorded: it is refused, and nothing has changed."""
    engine = standing.make(PLAIN.metadata, AUDITED.metadata, fill=fill)
    standing.untouched = False
    with Session(engine) as session:
        begin(session)
        run(session, PLAIN)
        session.rollback()
        before = rows_of(session, AUDITED)
        with pytest.raises(sa_audit.UnauditedWrite):
            run(session, AUDITED)
        session.rollback()
        assert rows_of(session, AUDITED) == before
        assert_recorded(session.connection(), AUDITED.metadata, actor="seed")


def seen(result: Any) -> dict[str, Any]:
    """Give what a user can see of a result.

    Left out are counts that say less than they could: -1 ("not known"), and those of statements with RETURNING, which
    SQLite's driver counts as far as the rows were fetched.
    """
    told: dict[str, Any] = {"type": type(result).__name__, "returns_rows": getattr(result, "returns_rows", None)}
    for name in ("rowcount", "is_insert", "inserted_primary_key", "inserted_primary_key_rows", "keys", "all"):
        try:
            value = getattr(result, name)
            if name == "keys":
                value = list(value())
            elif name == "all":
                value = [tuple(_plain(part) for part in row) for row in value()]
            told[name] = value
        except (sa.exc.SQLAlchemyError, AttributeError) as error:
            told[name] = type(error).__name__
    if told.get("all") == []:  # rows fetched for the session alone: SQLAlchemy takes their columns from a set
        told["keys"] = sorted(told["keys"])
    if told["returns_rows"] or told["rowcount"] == -1:
        told["rowcount"] = ANY
    return told


def _plain(value: Any) -> Any:
    """Give an entity as its class's name and loaded attributes, anything else as it is."""
    state = sa.inspect(value, raiseerr=False)
    if state is None or not hasattr(state, "mapper"):
        return value
    return type(value).__name__, {
        attribute.key: getattr(value, attribute.key) for attribute in state.mapper.column_attrs
    }
