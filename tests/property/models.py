"""The models that the property test writes: one of each kind that the trail has to know.

Many types, renamed and awkwardly named attributes, a computed column, SQL made on update, composite keys, joined and
single-table inheritance, associations with and without a primary key, a tree, database cascades, masked and excluded
columns, and a version counter.  Every example uses keys of its own, so that they can share one set of tables.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator, TypeEngine

from sa_audit import Audited, Exclude, Mask

SPAN = 100
"""How many keys an example has for itself: those from its number, a multiple of this, to the next one's."""


class Base(DeclarativeBase):
    pass


class Instant(TypeDecorator[dt.datetime]):
    """An aware moment, kept in UTC."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        exact = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
        return dialect.type_descriptor(exact)

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        return value if value is None or dialect.name == "postgresql" else value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Kind(enum.Enum):
    PLAIN = "plain"
    ROUND = "round one"
    SHARP = "sharp"


def own_key() -> Any:
    """Give a key column that the application fills."""
    return mapped_column(primary_key=True, autoincrement=False)


sheet_tag = sa.Table(
    "prop_sheet_tag",
    Base.metadata,
    sa.Column("sheet_id", sa.ForeignKey("prop_sheet.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("prop_tag.id"), primary_key=True),
)
item_tag = sa.Table(
    "prop_item_tag",
    Base.metadata,
    sa.Column("item_id", sa.ForeignKey("prop_item.id"), nullable=False),
    sa.Column("tag_id", sa.ForeignKey("prop_tag.id"), nullable=False),
)


class Sheet(Audited, Base):
    """Many types."""

    __tablename__ = "prop_sheet"

    id: Mapped[int] = own_key()
    title: Mapped[str | None] = mapped_column("the_title", sa.String(200))
    values: Mapped[str | None] = mapped_column("order", sa.Text())
    count: Mapped[int | None]
    doubled: Mapped[int | None] = mapped_column(sa.Integer(), sa.Computed("count * 2", persisted=True))
    big: Mapped[int | None] = mapped_column(sa.BigInteger())
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 2))
    ratio: Mapped[float | None] = mapped_column(sa.Double())
    flag: Mapped[bool | None]
    day: Mapped[dt.date | None]
    noted: Mapped[dt.datetime | None] = mapped_column(
        sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    )
    instant: Mapped[dt.datetime | None] = mapped_column(Instant())
    clock: Mapped[dt.time | None] = mapped_column(sa.Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb"))
    span: Mapped[dt.timedelta | None] = mapped_column(sa.Interval())
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary())
    doc: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON(none_as_null=True)))
    kind: Mapped[Kind | None] = mapped_column(sa.Enum(Kind, name="prop_kind"))
    uid: Mapped[uuid.UUID | None]

    lines: Mapped[list[Line]] = relationship(cascade="all, delete-orphan", back_populates="sheet")
    items: Mapped[list[Item]] = relationship(back_populates="sheet")
    tags: Mapped[list[Tag]] = relationship(secondary=sheet_tag, back_populates="sheets")


class Line(Audited, Base):
    """A part of a sheet, deleted as its orphan; its key is made by the database."""

    __tablename__ = "prop_line"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    sheet_id: Mapped[int] = mapped_column(sa.ForeignKey("prop_sheet.id"))
    text: Mapped[str | None] = mapped_column(sa.String(200))
    sheet: Mapped[Sheet] = relationship(back_populates="lines")


class Item(Audited, Base):
    """Single-table inheritance; loses its sheet when that is deleted."""

    __tablename__ = "prop_item"
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "item"}

    id: Mapped[int] = own_key()
    type: Mapped[str] = mapped_column(sa.String(10))
    label: Mapped[str | None] = mapped_column(sa.String(200))
    sheet_id: Mapped[int | None] = mapped_column(sa.ForeignKey("prop_sheet.id"))
    sheet: Mapped[Sheet | None] = relationship(back_populates="items")
    tags: Mapped[list[Tag]] = relationship(secondary=item_tag, back_populates="items")


class Book(Item):
    __mapper_args__ = {"polymorphic_identity": "book"}

    author: Mapped[str | None] = mapped_column(sa.String(200))


class Disc(Item):
    __mapper_args__ = {"polymorphic_identity": "disc"}

    seconds: Mapped[int | None]


class Tag(Audited, Base):
    """Linked to sheets and items; has a default of the database."""

    __tablename__ = "prop_tag"

    id: Mapped[int] = own_key()
    label: Mapped[str | None] = mapped_column(sa.String(200))
    rank: Mapped[int | None] = mapped_column(server_default="7")
    sheets: Mapped[list[Sheet]] = relationship(secondary=sheet_tag, back_populates="tags")
    items: Mapped[list[Item]] = relationship(secondary=item_tag, back_populates="tags")


class Card(Audited, Base):
    """A composite key, and a value that the database makes at every update."""

    __tablename__ = "prop_card"

    deck: Mapped[int] = own_key()
    name: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    note: Mapped[str | None] = mapped_column(sa.Text())
    touched: Mapped[int] = mapped_column(default=0, onupdate=sa.literal_column("touched") + 1)


class Party(Audited, Base):
    """Joined inheritance over three levels; the key is made by the database."""

    __tablename__ = "prop_party"
    __table_args__ = {"sqlite_autoincrement": True}
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "party"}

    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(sa.String(10))
    name: Mapped[str | None] = mapped_column(sa.String(200))


class Person(Party):
    __tablename__ = "prop_person"
    __mapper_args__ = {"polymorphic_identity": "person"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("prop_party.id"), primary_key=True)
    born: Mapped[dt.date | None]


class Officer(Person):
    __tablename__ = "prop_officer"
    __mapper_args__ = {"polymorphic_identity": "officer"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("prop_person.id"), primary_key=True)
    badge: Mapped[str | None] = mapped_column(sa.String(200), info={"sa_audit": Mask()})


class Firm(Party):
    __tablename__ = "prop_firm"
    __mapper_args__ = {"polymorphic_identity": "firm"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("prop_party.id"), primary_key=True)
    tax: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 2))


class Node(Audited, Base):
    """A tree, whose branches the database deletes."""

    __tablename__ = "prop_node"

    id: Mapped[int] = own_key()
    label: Mapped[str | None] = mapped_column(sa.String(200))
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("prop_node.id", ondelete="CASCADE"))
    children: Mapped[list[Node]] = relationship(passive_deletes=True, cascade="save-update, merge, delete")


class Leaf(Audited, Base):
    """Goes with its node, and follows its key, by the database's own action."""

    __tablename__ = "prop_leaf"

    id: Mapped[int] = own_key()
    label: Mapped[str | None] = mapped_column(sa.String(200))
    node_id: Mapped[int] = mapped_column(sa.ForeignKey("prop_node.id", ondelete="CASCADE", onupdate="CASCADE"))


class Mark(Audited, Base):
    """Loses its node, by the database's own action."""

    __tablename__ = "prop_mark"

    id: Mapped[int] = own_key()
    label: Mapped[str | None] = mapped_column(sa.String(200))
    node_id: Mapped[int | None] = mapped_column(sa.ForeignKey("prop_node.id", ondelete="SET NULL", onupdate="CASCADE"))


class Client(Audited, Base):
    """Masked and excluded columns, and a version counter."""

    __tablename__ = "prop_client"

    id: Mapped[int] = own_key()
    name: Mapped[str | None] = mapped_column(sa.String(200))
    pin: Mapped[str | None] = mapped_column(sa.String(200), info={"sa_audit": Mask()})
    seen: Mapped[int | None] = mapped_column(info={"sa_audit": Exclude()})
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


def table_of(model: type[Base]) -> sa.Table:
    """Give a model's own table."""
    table = sa.inspect(model).local_table
    assert isinstance(table, sa.Table)
    return table


HIERARCHY = tuple(map(table_of, (Party, Person, Officer, Firm)))
"""The tables that together hold one party, the root's first."""

TABLES = (
    *map(table_of, (Sheet, Line, Tag, Item, Card, Node, Leaf, Mark, Client)),
    *HIERARCHY,
    sheet_tag,
    item_tag,
)
ROOTS: dict[sa.Table, Any] = {
    **{table_of(model): model for model in (Sheet, Line, Tag, Item, Card, Node, Leaf, Mark, Client)},
    **dict.fromkeys(HIERARCHY, Party),
    sheet_tag: sheet_tag,
    item_tag: item_tag,
}
"""What to ask about for the rows of each table: a class, or the table itself."""
MADE_KEYS = (table_of(Line), *HIERARCHY)
"""The tables whose keys the database makes."""


def key_columns(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    """Give the columns that tell a table's rows apart."""
    return tuple(table.primary_key.columns) or tuple(column for column in table.columns if column.foreign_keys)
