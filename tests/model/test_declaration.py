"""Importing the models is all it takes: the history tables are there, complete, in the same MetaData."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, declared_attr, mapped_column, registry

import sa_audit
from sa_audit import Audited, AuditOptions, Exclude, Mask
from tests.capture.recorded import check, history_of, trail_at

OWN = ["audit_id", "audit_tx", "audit_txid", "audit_op", "audit_at", "audit_before", "audit_salt", "audit_flush"]


FIXED = ("audit_block", "audit_checkpoint", "audit_column", "audit_sealed", "audit_transaction")


def new_base() -> Any:
    """Give a declarative base with a MetaData of its own."""

    class Base(DeclarativeBase):
        pass

    return Base


def recorded(table: sa.Table) -> dict[str, str]:
    """Give the recorded columns of a history table with their types."""
    assert [column.name for column in table.columns][: len(OWN)] == OWN
    return {column.name: str(column.type) for column in list(table.columns)[len(OWN) :]}


# -- complete at once ----------------------------------------------------------------------


def test_the_history_is_there_with_the_model() -> None:
    """The history and the trail's tables are in the MetaData as soon as the class is, and told from the others."""
    base = new_base()

    class Account(Audited, base):
        __tablename__ = "account"

        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str] = mapped_column("own_er", sa.String(40), unique=True, server_default="nobody")
        seen: Mapped[dt.datetime | None] = mapped_column(info={"sa_audit": Exclude()})
        pin: Mapped[str | None] = mapped_column(info={"sa_audit": Mask()})

    tables = base.metadata.tables
    assert sorted(tables) == sorted(["account", "account_history", "audit_event", *FIXED])
    assert recorded(tables["account_history"]) == {"id": "INTEGER", "own_er": "VARCHAR(40)"}
    assert [name for name, table in tables.items() if not sa_audit.is_trail_table(table)] == ["account"]
    assert tables["account_history"] in base.metadata.sorted_tables


def test_recorded_columns_are_plain() -> None:
    """A recorded column has its source's name and type, and no default, constraint, key, identity or comment."""
    base = new_base()

    class Parent(base):
        __tablename__ = "parent"

        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(Audited, base):
        __tablename__ = "child"

        id: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
        parent_id: Mapped[int] = mapped_column(sa.ForeignKey("parent.id", ondelete="CASCADE"), default=1)
        kind: Mapped[str] = mapped_column(sa.Enum("a", "b", name="kind"), server_default="a")
        twice: Mapped[int] = mapped_column(sa.Computed("parent_id * 2"))
        flag: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=True), unique=True)
        changed: Mapped[dt.datetime] = mapped_column(onupdate=sa.func.now(), server_default=sa.func.now())

    for column in list(history_of(Child).columns)[len(OWN) :]:
        assert column.nullable
        assert not column.primary_key
        assert not column.foreign_keys
        assert (column.default, column.server_default, column.onupdate, column.computed, column.identity) == (None,) * 5
        assert not column.unique
    assert not [item for item in history_of(Child).constraints if not isinstance(item, sa.PrimaryKeyConstraint)]


def test_indexes() -> None:
    """A history has indexes for the row, the transaction and each foreign key; the latter can be left out."""
    base = new_base()

    class Parent(base):
        __tablename__ = "parent"

        id: Mapped[int] = mapped_column(primary_key=True)

    def child(name: str, options: AuditOptions | None) -> set[tuple[str, ...]]:
        columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("parent_id", sa.ForeignKey("parent.id"))
        table = sa.Table(name, base.metadata, *columns)
        sa_audit.track(table, options)
        return {tuple(index.columns.keys()) for index in history_of(table).indexes}

    always = {("id", "audit_id"), ("audit_tx",)}
    assert child("indexed", None) == always | {("parent_id",)}
    assert child("bare", AuditOptions(fk_indexes=False)) == always


def test_columns_that_come_later() -> None:
    """Columns of mixins, of declared_attr, of single-table subclasses, and added by hand all reach the history."""
    base = new_base()

    class Owned:
        created: Mapped[dt.datetime | None]

        @declared_attr
        def owner_id(cls) -> Mapped[str | None]:  # noqa: N805 - that is how declared_attr is written
            return mapped_column(sa.ForeignKey("owner.id"))

    class Thing(Owned, Audited, base):
        __tablename__ = "thing"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}

        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.String(9))

    history = history_of(Thing)
    assert set(recorded(history)) == {"id", "kind", "created", "owner_id"}

    class Book(Thing):
        __mapper_args__ = {"polymorphic_identity": "book"}
        pages: Mapped[int | None]

    Thing.weight = mapped_column(sa.Integer)
    Thing.__table__.append_column(sa.Column("price", sa.Integer))
    assert {"pages", "weight", "price"} <= set(recorded(history))

    class Owner(base):
        __tablename__ = "owner"

        id: Mapped[str] = mapped_column(sa.String(7), primary_key=True)

    assert recorded(history)["owner_id"] == "VARCHAR(7)"
    assert ("owner_id",) in {tuple(index.columns.keys()) for index in history.indexes}


def test_all_ways_to_map() -> None:
    """Declarative, imperative, a table of Core, and a class over a reflected-like table have the same history."""
    base, mapping, core = new_base(), registry(), sa.MetaData()

    class Declared(Audited, base):
        __tablename__ = "thing"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(sa.String(9))

    def table(metadata: sa.MetaData) -> sa.Table:
        columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(9))
        return sa.Table("thing", metadata, *columns)

    class Imperative:
        pass

    mapping.map_imperatively(Imperative, table(mapping.metadata))
    sa_audit.track(Imperative)
    sa_audit.track(table(core))
    found = [recorded(metadata.tables["thing_history"]) for metadata in (base.metadata, mapping.metadata, core)]
    assert found == [{"id": "INTEGER", "name": "VARCHAR(9)"}] * 3


def test_options_of_bases() -> None:
    """Options of an unmapped mixin are inherited, those of a mapped parent belong to the parent's table."""
    base = new_base()

    class Quick:
        __audit__ = AuditOptions(fk_indexes=False)

    class Parent(Quick, Audited, base):
        __tablename__ = "parent"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}

        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.String(9))

    class Child(Parent):
        __tablename__ = "child"
        __mapper_args__ = {"polymorphic_identity": "child"}

        id: Mapped[int] = mapped_column(sa.ForeignKey("parent.id"), primary_key=True)

    options = [trail_at(base).audited[table].options for table in (Parent.__table__, Child.__table__)]
    assert [entry.fk_indexes for entry in options] == [False, True]


def test_a_subclass_takes_its_parents_tables_along(engine: sa.Engine) -> None:
    """Where only a joined subclass has the mixin, its parent's table, with the rest of its rows, is audited as well."""
    base = new_base()

    class Animal(base):
        __tablename__ = "animal"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(sa.String(9))
        name: Mapped[str] = mapped_column(sa.String(9))

    class Dog(Audited, Animal):
        __tablename__ = "dog"
        __mapper_args__ = {"polymorphic_identity": "dog"}

        id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
        size: Mapped[int]

    class Stone(base):
        __tablename__ = "stone"

        id: Mapped[int] = mapped_column(primary_key=True)

    class Gem(Audited, Stone):
        __tablename__ = "gem"
        __mapper_args__ = {"concrete": True}

        id: Mapped[int] = mapped_column(primary_key=True)

    assert {"animal_history", "dog_history", "gem_history"} <= set(base.metadata.tables)
    assert "stone_history" not in base.metadata.tables
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Dog(id=1, name="Rex", size=3))
        session.commit()
        session.get_one(Dog, 1).name = "Max"
        session.commit()
        changes = sa_audit.history(session, Dog, 1)
    assert [dict(change.diff) for change in changes[1:]] == [{"name": ("Rex", "Max")}]
    assert dict(changes[0].state) == {"id": 1, "kind": "dog", "name": "Rex", "size": 3}
    check(engine, base.metadata)


def test_a_schema_for_the_trail_after_the_models() -> None:
    """`configure(schema=)` after the models rebuilds the history tables, as long as nobody has used them."""
    base = new_base()

    class Account(Audited, base):
        __tablename__ = "account"

        id: Mapped[int] = mapped_column(primary_key=True)

    sa_audit.configure(base, schema="trail")
    assert sorted(base.metadata.tables) == [
        "account",
        "trail.account_history",
        *(f"trail.{name}" for name in sorted(["audit_event", *FIXED])),
    ]
    other = new_base()

    class Used(Audited, other):
        __tablename__ = "used"

        id: Mapped[int] = mapped_column(primary_key=True)

    sa_audit.history_class(Used)
    with pytest.raises(sa_audit.ConfigurationError, match=r"'trail'.* comes too late"):
        sa_audit.configure(other, schema="trail")
    assert sorted(other.metadata.tables) == [*sorted(["audit_event", *FIXED]), "used", "used_history"]


def test_a_class_over_a_join_is_refused() -> None:
    """What is mapped to a join or subquery has no rows of its own to record, and says which classes have."""
    base = new_base()

    class Left(base):
        __tablename__ = "left_row"

        id: Mapped[int] = mapped_column(primary_key=True)

    class Right(base):
        __tablename__ = "right_row"

        id: Mapped[int] = mapped_column(sa.ForeignKey("left_row.id"), primary_key=True)

    with pytest.raises(sa_audit.ConfigurationError, match="Both is mapped to join"):

        class Both(Audited, base):
            __table__ = sa.join(Left.__table__, Right.__table__)
            id = column_property(Left.__table__.c.id, Right.__table__.c.id)

    with pytest.raises(sa_audit.ConfigurationError, match="mapped to subquery"):

        class Some(Audited, base):
            __table__ = sa.select(Left.__table__).subquery()
            __mapper_args__ = {"primary_key": [__table__.c.id]}

    base.registry.dispose()
