"""Models for the tests of the command line: keys of several kinds, a plain table, inheritance."""

from __future__ import annotations

import datetime as dt
import enum
import uuid

import sqlalchemy as sa
from sqlalchemy import ForeignKey, String, orm
from sqlalchemy.orm import Mapped, mapped_column

import sa_audit
from sa_audit import Audited, Exclude, Mask


class Odd(sa.types.UserDefinedType[str]):
    """A type that does not say its Python type."""

    cache_ok = True


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Base(orm.DeclarativeBase):
    type_annotation_map = {str: String(50)}


class Item(Audited, Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]
    pin: Mapped[str | None] = mapped_column(info={"sa_audit": Mask()})
    seen: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})
    colour: Mapped[Colour] = mapped_column(default=Colour.RED)


class Line(Audited, Base):
    __tablename__ = "order_line"

    order: Mapped[int] = mapped_column("order_id", primary_key=True, autoincrement=False)
    number: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str | None]


class Token(Audited, Base):
    __tablename__ = "token"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    day: Mapped[dt.date | None]


class Vehicle(Audited, Base):
    __tablename__ = "vehicle"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    wheels: Mapped[int]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Truck(Vehicle):
    __tablename__ = "truck"

    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    load: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "truck"}


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)


rate = sa.Table(
    "rate",
    Base.metadata,
    sa.Column("code", String(3), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("value", sa.Integer),
)
sa_audit.track(rate)

kinds = sa.Table(
    "kinds",
    sa.MetaData(),
    sa.Column("i", sa.Integer),
    sa.Column("f", sa.Float),
    sa.Column("n", sa.Numeric(10, 2)),
    sa.Column("b", sa.Boolean),
    sa.Column("u", sa.Uuid),
    sa.Column("x", sa.LargeBinary),
    sa.Column("dt", sa.DateTime),
    sa.Column("d", sa.Date),
    sa.Column("t", sa.Time),
    sa.Column("e", sa.Enum(Colour)),
    sa.Column("s", sa.String),
    sa.Column("j", sa.JSON),
    sa.Column("null", sa.types.NullType()),
    sa.Column("odd", Odd()),
)
"""Not audited: columns of each type that a key can have."""

bare = sa.MetaData()
nothing = object()
