"""The models that the questions are asked about."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column, relationship

import sa_audit
from sa_audit import Audited, Exclude, Mask


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Cents(sa.types.TypeDecorator[Decimal]):
    """Decimals stored as integers."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Any) -> int | None:
        return None if value is None else int(value * 100)

    def process_result_value(self, value: int | None, dialect: Any) -> Decimal | None:
        return None if value is None else Decimal(value) / 100


@dataclasses.dataclass
class Point:
    x: int | None
    y: int | None


class Account(Audited, Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column("own er%", sa.String(40))
    balance: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    keys: Mapped[str | None] = mapped_column(sa.String(40))
    pin: Mapped[str | None] = mapped_column(sa.String(40), info={"sa_audit": Mask()})
    seen: Mapped[str | None] = mapped_column(sa.String(40), info={"sa_audit": Exclude()})


class Sample(Audited, Base):
    """A column of each type that behaves differently somewhere."""

    __tablename__ = "sample"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(sa.Text())
    color: Mapped[Color | None] = mapped_column(sa.Enum(Color))
    uid: Mapped[uuid.UUID | None]
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary())
    big: Mapped[int | None] = mapped_column(sa.BigInteger())
    flag: Mapped[bool | None]
    number: Mapped[Decimal | None] = mapped_column(sa.Numeric(20, 6))
    ratio: Mapped[float | None] = mapped_column(sa.Double())
    single: Mapped[float | None] = mapped_column(sa.Float())
    day: Mapped[dt.date | None]
    clock: Mapped[dt.time | None]
    naive: Mapped[dt.datetime | None]
    span: Mapped[dt.timedelta | None]
    data: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    cents: Mapped[Decimal | None] = mapped_column(Cents())
    place: Mapped[Point] = composite(
        mapped_column("place_x", sa.Integer(), nullable=True), mapped_column("place_y", sa.Integer(), nullable=True)
    )
    doubled: Mapped[int | None] = mapped_column(sa.BigInteger(), sa.Computed("big * 2", persisted=True))


class Person(Audited, Base):
    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(40))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Engineer(Person):
    __tablename__ = "engineer"

    engineer_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"), primary_key=True)
    skill: Mapped[str] = mapped_column(sa.String(40))
    __mapper_args__ = {"polymorphic_identity": "engineer"}


class Manager(Person):
    __tablename__ = "manager"

    id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"), primary_key=True)
    level: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "manager"}


class Vehicle(Audited, Base):
    """Single-table inheritance."""

    __tablename__ = "vehicle"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Car(Vehicle):
    doors: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "car"}


class Boat(Vehicle):
    sails: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "boat"}


membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("team_id", sa.ForeignKey("team.id", ondelete="CASCADE")),
    sa.Column("player_id", sa.ForeignKey("player.id", ondelete="CASCADE")),
)


class Team(Audited, Base):
    __tablename__ = "team"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    players: Mapped[list[Player]] = relationship(secondary=membership)
    matches: Mapped[list[Match]] = relationship(passive_deletes=True, cascade="all")


class Player(Audited, Base):
    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40))


class Match(Audited, Base):
    """Two parts in its key, and deleted by the database with its team."""

    __tablename__ = "match"

    team_id: Mapped[int] = mapped_column(sa.ForeignKey("team.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    score: Mapped[str | None] = mapped_column(sa.String(40))


class Node(Audited, Base):
    """Refers to its own table."""

    __tablename__ = "node"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("node.id"))
    parent: Mapped[Node | None] = relationship(remote_side=[id])


class Page(Audited, Base):
    """Has a version counter."""

    __tablename__ = "page"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    text: Mapped[str] = mapped_column(sa.String(40))
    __mapper_args__ = {"version_id_col": version}


class Secret(Audited, Base):
    """Has a masked column that no row can do without."""

    __tablename__ = "secret"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40))
    pin: Mapped[str] = mapped_column(sa.String(40), info={"sa_audit": Mask()})


class Plain(Base):
    """Not audited."""

    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)


setting = sa.Table(
    "setting",
    Base.metadata,
    sa.Column("scope", sa.String(20), primary_key=True),
    sa.Column("name", sa.String(20), primary_key=True, key="nom"),
    sa.Column("value", sa.String(40), key="valeur"),
)
sa_audit.track(setting)
