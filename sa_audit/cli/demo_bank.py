"""The demo's bank: its models, and half a year of its business.

An ordinary application: it knows of the trail only the mixin, two column policies and the context.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import ForeignKey, orm
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column

from ..capture.context import context
from ..model import Audited, Exclude, Mask


class Money(sa.types.TypeDecorator[Decimal]):
    """An amount in whole cents, stored as an integer, which no database rounds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Give the cents of an amount; one with a fraction of a cent is refused, not rounded."""
        if value is None:
            return None
        cents = value.scaleb(2)
        if cents != cents.to_integral_value():
            raise ValueError(f"{value} is no amount in whole cents")
        return int(cents)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """Give the amount of some cents."""
        return None if value is None else Decimal(value).scaleb(-2)


class Status(enum.Enum):
    """What may be done with an account."""

    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


class Base(orm.DeclarativeBase):
    """The models of the bank."""


class Customer(Audited, Base):
    """Who holds accounts; of the PIN the trail records only that it changed, of the last login nothing."""

    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None]
    pin_hash: Mapped[str | None] = mapped_column(info={"sa_audit": Mask()})
    last_login: Mapped[dt.datetime | None] = mapped_column(info={"sa_audit": Exclude()})
    accounts: Mapped[list[Account]] = orm.relationship(back_populates="customer")


class Account(Audited, Base):
    """One account, with what is on it."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    kind: Mapped[str]
    balance: Mapped[Decimal] = mapped_column(Money)
    status: Mapped[Status] = mapped_column(default=Status.OPEN)
    customer: Mapped[Customer] = orm.relationship(back_populates="accounts")


class Transfer(Audited, Base):
    """Money that went from one account to another."""

    __tablename__ = "transfer"

    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    target_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    amount: Mapped[Decimal] = mapped_column(Money)


class Calendar:
    """The demo's clock: simulated days, each of which begins at nine, with a minute between any two readings."""

    def __init__(self, year: int) -> None:
        self.year = year
        self.moment = dt.datetime(year, 1, 1, 9, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        """Give the present simulated moment, and go on by a minute."""
        self.moment += dt.timedelta(minutes=1)
        return self.moment

    def go_to(self, month: int, day: int) -> None:
        """Go on to nine o'clock of a day."""
        self.moment = dt.datetime(self.year, month, day, 9, tzinfo=dt.UTC)


Business = Callable[[orm.Session], Any]


def open_accounts(session: orm.Session) -> None:
    """Take three customers and their accounts in."""
    opening = (("A", "checking", "1200"), ("B", "checking", "800"), ("B", "savings", "5000"), ("C", "checking", "60"))
    customers = {
        letter: Customer(name=f"Customer {letter}", email=f"{letter.lower()}@example.com", pin_hash=f"hash-{letter}")
        for letter in "ABC"
    }
    session.add_all(customers.values())
    for letter, kind, amount in opening:
        session.add(Account(customer=customers[letter], kind=kind, balance=Decimal(amount)))


def transfer(source: int, target: int, amount: str) -> Business:
    """Give the business of moving money between two accounts."""

    def move(session: orm.Session) -> None:
        payer, payee = session.get_one(Account, source), session.get_one(Account, target)
        payer.balance -= Decimal(amount)
        payee.balance += Decimal(amount)
        session.add(Transfer(source_id=source, target_id=target, amount=Decimal(amount)))

    return move


def pay_interest(session: orm.Session) -> None:
    """Credit a month's interest, 3 % a year, to all savings accounts with one UPDATE."""
    cents = sa.type_coerce(Account.balance, sa.BigInteger)
    interest = sa.type_coerce(cents + cents * 3 // 1200, Money)
    session.execute(sa.update(Account).where(Account.kind == "savings").values(balance=interest))


def change(model: type[Base], identity: int, **values: Any) -> Business:
    """Give the business of setting attributes of one row."""

    def set_them(session: orm.Session) -> None:
        row = session.get_one(model, identity)
        for name, value in values.items():
            setattr(row, name, value)

    return set_them


def leave(session: orm.Session) -> None:
    """Let the customer of the empty account 4 go."""
    account = session.get_one(Account, 4)
    session.delete(account)
    session.delete(account.customer)


DIARY: Final[tuple[tuple[int, int, str, str, Business], ...]] = (
    (1, 8, "teller:7", "accounts opened at the desk", open_accounts),
    (1, 19, "app:online", "rent", transfer(2, 1, "450.00")),
    (1, 31, "batch:interest", "interest for January", pay_interest),
    (2, 6, "app:online", "savings to checking", transfer(3, 2, "700.00")),
    (2, 20, "teller:3", "cash desk", transfer(1, 2, "125.50")),
    (2, 29, "batch:interest", "interest for February", pay_interest),
    (
        3,
        12,
        "desk:service",
        "identity checked by phone",
        change(Customer, 2, email="b@example.org", pin_hash="hash-b2"),
    ),
    (3, 19, "app:online", "rent", transfer(2, 1, "450.00")),
    (3, 27, "desk:fraud", "unusual log-ins", change(Account, 2, status=Status.FROZEN)),
    (3, 28, "batch:interest", "interest for March", pay_interest),
    (4, 3, "desk:fraud", "log-ins explained by the customer", change(Account, 2, status=Status.OPEN)),
    (4, 19, "app:online", "rent", transfer(2, 1, "450.00")),
    (4, 30, "batch:interest", "interest for April", pay_interest),
    (5, 14, "teller:7", "cash desk", transfer(4, 1, "60.00")),
    (5, 21, "teller:7", "account closed on request", leave),
    (5, 31, "batch:interest", "interest for May", pay_interest),
    (6, 4, "app:online", "savings to checking", transfer(3, 2, "300.00")),
    (6, 28, "batch:interest", "interest for June", pay_interest),
)
"""Month, day, actor, reason and business."""


def run_the_bank(engine: sa.Engine, calendar: Calendar) -> None:
    """Do the business of half a year, each piece in a transaction of its own with its actor and reason.

    Args:
        engine: a database with the bank's empty tables.
        calendar: is set to each day in turn; the caller makes the library read it.
    """
    for number, (month, day, actor, reason, business) in enumerate(DIARY, 1):
        calendar.go_to(month, day)
        with context(actor=actor, reason=reason, request_id=f"demo-{number}"), orm.Session(engine) as session:
            business(session)
            session.commit()
