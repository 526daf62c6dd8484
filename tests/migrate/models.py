"""A bank's models, made anew for each test, since a MetaData can be changed only once."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sa_audit
from sa_audit import Audited, Exclude, Mask


class Kind(enum.Enum):
    PRIVATE = "private"
    BUSINESS = "business"


class Upper(sa.types.TypeDecorator[str]):
    """A type of the user's own."""

    impl = sa.String(20)
    cache_ok = True


def bank() -> Any:
    """Give the base of fresh models: a foreign key, an association table, many types, and both policies."""

    class Base(DeclarativeBase):
        pass

    member = sa.Table(
        "member",
        Base.metadata,
        sa.Column("customer_id", sa.ForeignKey("customer.id"), primary_key=True),
        sa.Column("branch_id", sa.ForeignKey("branch.id"), primary_key=True),
    )

    class Branch(Base):
        __tablename__ = "branch"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Customer(Audited, Base):
        __tablename__ = "customer"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(50))
        code: Mapped[str | None] = mapped_column(Upper)
        pin: Mapped[str | None] = mapped_column(sa.String(20), info={"sa_audit": Mask()})
        seen: Mapped[dt.datetime | None] = mapped_column(info={"sa_audit": Exclude()})
        branches: Mapped[list[Branch]] = relationship(secondary=lambda: member)

    class Account(Audited, Base):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner_id: Mapped[int] = mapped_column(sa.ForeignKey("customer.id", ondelete="CASCADE"))
        balance: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
        kind: Mapped[Kind] = mapped_column(sa.Enum(Kind, native_enum=False), default=Kind.PRIVATE)
        opened: Mapped[dt.datetime | None]
        data: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
        photo: Mapped[bytes | None]
        active: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=True), default=True)

    Base.registry.configure()
    Base.models = {"Branch": Branch, "Customer": Customer, "Account": Account}  # type: ignore[attr-defined] # kept alive
    return Base


def of(base: Any, name: str) -> Any:
    """Give a model of a base by its name."""
    return base.models[name]


def use(engine: sa.Engine, base: Any, name: str = "a") -> None:
    """Write a customer and an account, and change it."""
    customer, account = of(base, "Customer"), of(base, "Account")
    with sa_audit.context(actor="teller:1"), Session(engine) as session:
        session.add(customer(id=1, name=name, code="x", pin="1234"))
        session.flush()
        session.add(account(id=1, owner_id=1, balance=Decimal("1.50"), data={"a": [1]}, photo=b"\0\1"))
        session.commit()
        session.get_one(account, 1).balance += 1
        session.commit()
