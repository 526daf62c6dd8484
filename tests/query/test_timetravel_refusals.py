"""What a past session refuses: to write, to lock, to read the present unasked, and what it can't see through."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

from sa_audit import Audited, ConfigurationError, Exclude, InvalidMoment, Mask, NotAudited, ReadOnlyPast
from sa_audit.errors import AuditError
from sa_audit.query.timetravel import as_of

from .timetravel_zoo import pause


class Base(DeclarativeBase):
    pass


class Currency(Base):
    __tablename__ = "currency"

    code: Mapped[str] = mapped_column(sa.String(3), primary_key=True)


class Account(Audited, Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(20))
    currency_code: Mapped[str] = mapped_column(sa.ForeignKey("currency.code"))
    pin: Mapped[int | None] = mapped_column(info={"sa_audit": Mask()})
    seen: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})
    currency: Mapped[Currency] = relationship()


ACCOUNT = Account.__table__
VIEW = sa.table("account_view", sa.column("id"))


@pytest.fixture
def past(engine: sa.Engine) -> Iterator[Session]:
    """A past session over an account."""
    with as_of(engine, filled(engine)) as session:
        yield session


def filled(engine: sa.Engine) -> dt.datetime:
    """Give a moment at which there is an account."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Currency(code="NOK"))
        session.flush()
        session.add(Account(id=1, owner="ann", currency_code="NOK", pin=1234, seen=5))
        session.commit()
    return pause()


READ_ONLY: dict[str, Callable[[Session], Any]] = {
    "core insert": lambda past: past.execute(sa.insert(Account).values(id=2, owner="b", currency_code="NOK")),
    "core update": lambda past: past.execute(sa.update(Account).values(owner="b")),
    "core delete": lambda past: past.execute(sa.delete(Account)),
    "update on the connection": lambda past: past.connection().execute(sa.update(ACCOUNT).values(owner="b")),
    "write of a table without history": lambda past: past.execute(sa.insert(Currency).values(code="EUR")),
    "bulk insert": lambda past: past.execute(sa.insert(Account), [{"id": 2, "owner": "b", "currency_code": "NOK"}]),
    "bulk_save_objects": lambda past: past.bulk_save_objects([Account(id=2, owner="b", currency_code="NOK")]),
    "query update": lambda past: past.query(Account).update({"owner": "b"}),
    "insert in a cte": lambda past: past.execute(
        sa.select(sa.insert(ACCOUNT).values(id=2, owner="b", currency_code="NOK").returning(ACCOUNT.c.id).cte())
    ),
    "for update": lambda past: past.scalars(sa.select(Account).with_for_update()).all(),
    "get for update": lambda past: past.get(Account, 1, with_for_update=True),
    "text": lambda past: past.execute(sa.text("SELECT owner FROM account")).all(),
    "text as columns": lambda past: past.execute(sa.text("SELECT owner FROM account").columns(ACCOUNT.c.owner)).all(),
    "entities from text": lambda past: past.scalars(
        sa.select(Account).from_statement(sa.text("SELECT * FROM account"))
    ).all(),
    "text in from": lambda past: past.execute(sa.select(sa.literal(1)).select_from(sa.text("account"))).all(),
    "subquery in text": lambda past: past.scalars(
        sa.select(Account).where(sa.text("id IN (SELECT id FROM account)"))
    ).all(),
    "subquery in a literal column": lambda past: past.execute(
        sa.select(sa.literal_column("(select max(owner) from account)"))
    ).all(),
    "subquery in an operator": lambda past: past.execute(
        sa.select(Account.id.op("IN (SELECT id FROM account) OR 1 =")(1))
    ).all(),
    "subquery in a suffix": lambda past: past.execute(
        sa.select(Account.id).suffix_with("UNION SELECT id FROM account")
    ).all(),
    "two statements in text": lambda past: past.execute(sa.select(sa.text("1; DELETE FROM account"))).all(),
    "driver": lambda past: past.connection().exec_driver_sql("SELECT owner FROM account").all(),
    "ddl": lambda past: past.execute(sa.schema.DropTable(ACCOUNT)),
    "sequence": lambda past: past.execute(sa.select(sa.Sequence("audit_id_seq").next_value())),
}


def test_what_would_write_or_hide_is_refused(past: Session) -> None:
    """Each way to write, lock, or read through text raises, and leaves the session usable."""
    for what, attempt in READ_ONLY.items():
        with pytest.raises(ReadOnlyPast) as raised:
            attempt(past)
        assert "past" in str(raised.value), what
    assert past.scalars(sa.select(Account.owner)).all() == ["ann"]


def test_compiled_statement_is_refused(past: Session) -> None:
    """SQL that was compiled for the present does not run in the past (SQLAlchemy 2.1 runs none anywhere)."""
    compiled = sa.select(ACCOUNT.c.owner).compile(dialect=past.get_bind().dialect.__class__())
    with pytest.raises((ReadOnlyPast, sa.exc.ObjectNotExecutableError)):
        past.connection().execute(compiled)


def test_objects_changed_in_the_past_are_refused(past: Session) -> None:
    """add, delete and assignment raise when they would be flushed, naming the class and the way out."""
    for change in (
        lambda: past.add(Account(id=2, owner="b", currency_code="NOK")),
        lambda: past.delete(past.get_one(Account, 1)),
        lambda: setattr(past.get_one(Account, 1), "owner", "b"),
    ):
        change()
        for write in (past.flush, past.commit):
            with pytest.raises(ReadOnlyPast, match=r"Account was changed in a past session.*restore"):
                write()
        past.expunge_all()


@pytest.mark.parametrize("over", ["engine", "session"])
def test_nothing_is_written_by_what_is_refused(engine: sa.Engine, over: str) -> None:
    """After all those attempts the present is as it was, and so is the uncommitted work of a session travelled from."""
    moment = filled(engine)
    with Session(engine) as session:
        session.get_one(Account, 1).owner = "mine"
        session.flush()
        if over == "session":
            with as_of(session, moment) as past:
                for attempt in READ_ONLY.values():
                    with pytest.raises(AuditError):
                        attempt(past)
                with pytest.raises(sa.exc.DBAPIError):
                    past.execute(sa.select(sa.func.no_such_function(1)))
                past.rollback()
                past.commit()
                past.close()
        expected = "mine" if engine.dialect.name != "postgresql" or over == "engine" else None
        if expected is None:
            session.rollback()  # the error above has ended the transaction, as any error does there
        else:
            assert session.scalar(sa.select(Account.owner)) == expected
            session.commit()
    with Session(engine) as session:
        assert session.execute(sa.select(Account.id, Account.owner)).all() == [(1, expected or "ann")]


NOT_AUDITED: dict[str, Callable[[Session], Any]] = {
    "entity": lambda past: past.scalars(sa.select(Currency)).all(),
    "relationship": lambda past: past.get_one(Account, 1).currency,
    "join": lambda past: past.execute(sa.select(Account.id).join(Account.currency)).all(),
    "subquery": lambda past: past.execute(sa.select(Account.id).where(sa.exists().where(Currency.code == "NOK"))).all(),
    "lightweight": lambda past: past.execute(sa.select(VIEW)).all(),
    "history": lambda past: past.execute(sa.select(Base.metadata.tables["account_history"].c.audit_id)).all(),
    "catalog": lambda past: sa.inspect(past.connection()).get_table_names(),
}


def test_tables_without_history_are_refused(past: Session) -> None:
    """Neither an entity, a join, nor a lightweight table mixes the present into the past."""
    for what, attempt in NOT_AUDITED.items():
        with pytest.raises((NotAudited, ReadOnlyPast)) as raised:
            attempt(past)
        assert "present" in str(raised.value) or what == "catalog", what


def test_present_allows_what_it_names(engine: sa.Engine) -> None:
    """present= lets a class and a lightweight table through, in this session only."""
    moment = filled(engine)
    view = sa.select(ACCOUNT.c.id)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE VIEW account_view AS {view.compile(engine)}"))
    with as_of(engine, moment, present={Currency, VIEW}) as past:
        assert past.get_one(Account, 1).currency.code == "NOK"
        assert past.execute(sa.select(VIEW)).all() == [(1,)]
    with as_of(engine, moment) as past, pytest.raises(NotAudited, match="table currency has no history"):
        past.get_one(Account, 1).currency.code  # noqa: B018


@pytest.mark.parametrize("item", [Account, ACCOUNT, "currency", 7])
def test_present_refuses_what_is_audited_or_no_table(item: Any) -> None:
    """Asking for the present of an audited table is a contradiction, and a name is no table."""
    with pytest.raises(ConfigurationError, match="present"):
        as_of(sa.create_engine("sqlite://"), "2026-01-01T00:00:00Z", present=[item])
    with pytest.raises(ConfigurationError, match="present"):
        as_of(sa.create_engine("sqlite://"), "2026-01-01T00:00:00Z", present=item)


OTHER = aliased(Account)
SUB = sa.select(Account).subquery()
USES: dict[str, sa.Select[Any]] = {
    "where": sa.select(Account.id).where(Account.pin == 1),
    "where of an alias": sa.select(OTHER.id).where(OTHER.seen.is_(None)),
    "where of a subquery": sa.select(SUB.c.id).where(SUB.c.pin.is_(None)),
    "order": sa.select(Account).order_by(Account.pin),
    "order by name": sa.select(Account.id, Account.pin).order_by("pin"),
    "order by label": sa.select(Account.id, (label := Account.pin.label("p"))).order_by(label),
    "order by label's name": sa.select(Account.id, Account.pin.label("p")).order_by(sa.desc("p")),
    "order of a subquery": sa.select(SUB.c.pin).order_by(SUB.c.pin),
    "group": sa.select(sa.func.count()).select_from(Account).group_by(Account.pin),
    "group by label": sa.select(sa.func.count(), label).group_by(label),
    "having": sa.select(Account.owner).group_by(Account.owner).having(sa.func.max(Account.pin) > 1),
    "function": sa.select(sa.func.coalesce(Account.pin, 0)),
    "aggregate": sa.select(sa.func.count(Account.seen)),
    "expression": sa.select(Account.pin + 1),
    "cast": sa.select(sa.cast(Account.pin, sa.String(10))),
    "case": sa.select(sa.case((Account.pin == 1, "a"), else_="b")),
    "join": sa.select(Account.id).join(OTHER, OTHER.pin == Account.pin),
    "distinct": sa.select(Account.pin).distinct(),
    "distinct without key": sa.select(Account.owner, Account.pin).distinct(),
    "scalar subquery": sa.select(sa.select(Account.pin).limit(1).scalar_subquery()),
    "in subquery": sa.select(Account.id).where(Account.id.in_(sa.select(Account.pin))),
    "window": sa.select(sa.func.row_number().over(order_by=Account.pin)),
}
COMPOUNDS: dict[str, sa.CompoundSelect[Any]] = {
    "union": sa.union(sa.select(Account.pin), sa.select(Account.pin)),
    "mixed": sa.union_all(sa.select(Account.pin), sa.select(Account.id)),
    "mixed entities": sa.union_all(sa.select(Account.id, Account.seen), sa.select(Account.seen, Account.id)),
    "except": sa.except_(sa.select(Account.id, Account.pin), sa.select(Account.id, Account.pin)),
}


def test_unrecorded_columns_are_refused_in_use(past: Session) -> None:
    """Wherever the value would matter, the query raises and names the column."""
    for what, statement in {**USES, **COMPOUNDS}.items():
        with pytest.raises(NotAudited, match=r"pin|seen"):
            print(what, past.execute(statement).all())


def test_marker_as_a_parameter_is_refused(past: Session) -> None:
    """Nothing is found by a value that is not known."""
    account = past.get_one(Account, 1)
    with pytest.raises(NotAudited, match="not in the history"):
        past.execute(sa.select(Account.id).where(Account.id == sa.bindparam("p")), {"p": account.pin})


@pytest.mark.only_on("postgresql")
def test_sample_is_refused(past: Session) -> None:
    """The past has no pages to sample."""
    with pytest.raises(NotAudited, match="TABLESAMPLE"):
        past.execute(sa.select(sa.tablesample(ACCOUNT, 10)))


@pytest.mark.parametrize("given", ["sqlite://", None, 7, Session])
def test_only_engines_and_sessions(given: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ConfigurationError, match="give an Engine"):
        as_of(given, "2026-01-01T00:00:00Z")


def test_future_is_refused(engine: sa.Engine) -> None:
    """What will be recorded is not known; today is not over."""
    soon, today = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), dt.datetime.now(dt.UTC).date()
    for when in (soon, today, "9999-12-31T23:59:59.999999Z"):
        with pytest.raises(InvalidMoment, match="lies in the future"), as_of(engine, when):
            pass
