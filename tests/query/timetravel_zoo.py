"""A small zoo: every kind of mapping and relationship that a past session has to read as the live one does."""

from __future__ import annotations

import datetime as dt
import enum
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    Session,
    WriteOnlyMapped,
    column_property,
    composite,
    configure_mappers,
    deferred,
    mapped_column,
    polymorphic_union,
    relationship,
)

from sa_audit import Audited, Exclude, Mask


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    WARY = "w"
    CALM = "c"
    BRAVE = "b"


@dataclass(frozen=True)
class Place:
    street: str | None
    town: str | None


keeper_animal = sa.Table(
    "keeper_animal",
    Base.metadata,
    sa.Column("keeper_id", sa.ForeignKey("keeper.id"), primary_key=True),
    sa.Column("animal_id", sa.ForeignKey("animal.id"), primary_key=True),
)


class Keeper(Audited, Base):
    """Everything about columns."""

    __tablename__ = "keeper"

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column("name", sa.String(50))
    salary: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    born: Mapped[dt.date | None]
    seen: Mapped[dt.datetime | None]
    shift: Mapped[dt.timedelta | None] = mapped_column(sa.Interval())
    mood: Mapped[Mood | None]
    badge: Mapped[uuid.UUID | None]
    photo: Mapped[bytes | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON().with_variant(JSONB(), "postgresql"))
    on_leave: Mapped[bool] = mapped_column(default=False)
    weight: Mapped[float | None]
    note: Mapped[str | None] = deferred(mapped_column(sa.Text()))
    home: Mapped[Place] = composite(mapped_column("street", sa.String(40)), mapped_column("town", sa.String(40)))
    boss_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keeper.id"))
    pin: Mapped[str | None] = mapped_column(sa.String(20), info={"sa_audit": Mask()})
    opened: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})

    boss: Mapped[Keeper | None] = relationship(remote_side=[id], back_populates="staff")
    staff: Mapped[list[Keeper]] = relationship(back_populates="boss", order_by=id)
    animals: Mapped[list[Animal]] = relationship(
        secondary=keeper_animal, back_populates="keepers", order_by="Animal.id"
    )
    meals: Mapped[list[Meal]] = relationship(back_populates="keeper", order_by="Meal.id")
    meals_dynamic: DynamicMapped[Meal] = relationship(order_by="Meal.id", viewonly=True)
    meals_write_only: WriteOnlyMapped[Meal] = relationship(order_by="Meal.id", viewonly=True)
    animal_names: AssociationProxy[list[str]] = association_proxy("animals", "name")

    @hybrid_property
    def yearly(self) -> Decimal:
        return self.salary * 12


class Animal(Audited, Base):
    """Joined inheritance."""

    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(50))
    diet: Mapped[list[Any] | None] = mapped_column(sa.JSON())
    keepers: Mapped[list[Keeper]] = relationship(
        secondary=keeper_animal, back_populates="animals", order_by="Keeper.id"
    )
    meals: Mapped[list[Meal]] = relationship(back_populates="animal", order_by="Meal.id")

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Lion(Animal):
    __tablename__ = "lion"

    id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
    mane: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "lion"}


class Parrot(Animal):
    __tablename__ = "parrot"

    id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
    words: Mapped[str | None] = mapped_column(sa.String(100))

    __mapper_args__ = {"polymorphic_identity": "parrot"}


class Meal(Audited, Base):
    """An association object, with single-table inheritance."""

    __tablename__ = "meal"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    keeper_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keeper.id"))
    animal_id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"))
    grams: Mapped[int]
    keeper: Mapped[Keeper | None] = relationship(back_populates="meals")
    animal: Mapped[Animal] = relationship(back_populates="meals")

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "meal"}


class Feast(Meal):
    guests: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "feast"}


Keeper.meal_count = column_property(
    sa.select(sa.func.count(Meal.id)).where(Meal.keeper_id == Keeper.id).correlate_except(Meal).scalar_subquery()
)


class Cage(Audited, Base):
    """Concrete inheritance, over a polymorphic union; the history of each table stands alone."""

    __tablename__ = "cage"

    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]

    __mapper_args__ = {"polymorphic_identity": "cage", "concrete": True}


class Aviary(Cage):
    __tablename__ = "aviary"

    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    height: Mapped[int]

    __mapper_args__ = {"polymorphic_identity": "aviary", "concrete": True}


class Currency(Base):
    """Not audited."""

    __tablename__ = "currency"

    code: Mapped[str] = mapped_column(sa.String(3), primary_key=True)
    rate: Mapped[Decimal] = mapped_column(sa.Numeric(8, 4))


configure_mappers()
cage_union = polymorphic_union({"cage": Cage.__table__, "aviary": Aviary.__table__}, "kind", "cage_union")


def pause() -> dt.datetime:
    """Give a moment that lies between what was recorded before the call and what will be after it."""
    time.sleep(0.003)
    moment = dt.datetime.now(dt.UTC)
    time.sleep(0.003)
    return moment


def populate(session: Session) -> None:
    """Fill the zoo, and commit."""
    ann = Keeper(
        id=1,
        full_name="ann",
        salary=Decimal("1234.50"),
        born=dt.date(1980, 2, 29),
        seen=dt.datetime(2026, 1, 2, 3, 4, 5),
        shift=dt.timedelta(hours=7, minutes=30),
        mood=Mood.BRAVE,
        badge=uuid.UUID(int=7),
        photo=b"\x00\xff",
        settings={"theme": ["dark", 1.5, None]},
        weight=0.1,
        note="likes lions",
        home=Place("Main St", "Oslo"),
        pin="1234",
        opened=3,
    )
    bob = Keeper(id=2, full_name="bob", salary=Decimal("1.00"), boss=ann, mood=Mood.WARY, home=Place(None, None))
    cat = Keeper(id=3, full_name="cat", salary=Decimal("2.25"), boss=bob, on_leave=True, home=Place("Elm", "Rome"))
    leo, rio = Lion(id=1, name="leo", mane=9, diet=["meat", {"kg": 5}]), Parrot(id=2, name="rio", words="hello")
    ann.animals, bob.animals = [leo, rio], [rio]
    session.add_all([ann, bob, cat, leo, rio, Animal(id=3, name="ox")])
    session.flush()
    session.add_all(
        [
            Meal(id=1, keeper=ann, animal=leo, grams=500),
            Meal(id=2, keeper=ann, animal=rio, grams=20),
            Feast(id=3, keeper=bob, animal=leo, grams=900, guests=4),
            Meal(id=4, animal=rio, grams=30),
            Cage(id=1, size=10),
            Aviary(id=1, size=20, height=30),
        ]
    )
    session.commit()


def upset(session: Session) -> None:
    """Change, delete, move and add all sorts of rows, and commit."""
    ann, bob, cat = (session.get_one(Keeper, number) for number in (1, 2, 3))
    ann.full_name, ann.salary, ann.mood, ann.settings = "ANN", Decimal("0.00"), None, None
    ann.note, ann.home, ann.photo, ann.pin = None, Place("x", None), b"", "9"
    bob.boss, cat.boss = None, ann
    ann.animals = [session.get_one(Animal, 3)]
    session.get_one(Lion, 1).mane = None
    session.delete(session.get_one(Meal, 2))
    session.get_one(Meal, 1).grams = 1
    session.get_one(Feast, 3).keeper = cat
    session.add_all([Meal(id=5, keeper=ann, animal_id=3, grams=7), Keeper(id=4, full_name="dan", salary=Decimal(4))])
    session.get_one(Cage, 1).size = 11
    session.delete(session.get_one(Aviary, 1))
    session.commit()
    session.execute(sa.update(Keeper).where(Keeper.id == 2).values(full_name="robert"))
    session.execute(sa.delete(Meal).where(Meal.id == 4))
    session.commit()
