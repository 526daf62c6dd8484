"""Tables in schemas: same names in two of them, translate maps, a schema for the trail, awkward names."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

import sa_audit
from sa_audit import Audited
from sa_audit.query.timetravel import as_of
from tests.databases import Database

from .timetravel_zoo import pause

pytestmark = pytest.mark.both_captures


@pytest.mark.parametrize("place", ["beside", "own"])
def test_same_names_in_two_schemas(engine: sa.Engine, other_schema: str, place: str) -> None:
    """A table and its namesake elsewhere are told apart, in joins, aliases and lazy loads, wherever the history is."""

    class Base(DeclarativeBase):
        pass

    if place == "own":
        sa_audit.configure(Base, schema=other_schema)

    class Here(Audited, Base):
        __tablename__ = "thing"
        __audit__ = sa_audit.AuditOptions(history_table="here_history")
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(80))

    class There(Audited, Base):
        __tablename__ = "thing"
        __table_args__ = {"schema": other_schema}
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(80))
        here_id: Mapped[int] = mapped_column(sa.ForeignKey(Here.id))
        here: Mapped[Here] = relationship()

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(There(id=1, name="there", here=Here(id=1, name="here")))
        session.commit()
        moment = pause()
        there = session.get_one(There, 1)
        there.name = there.here.name = "changed"
        session.commit()
    other = aliased(There)
    with as_of(engine, moment) as past:
        there = past.get_one(There, 1)
        assert (there.name, there.here.name) == ("there", "here")
        statement = sa.select(Here.name, There.name, other.name).join(There, There.here_id == Here.id)
        rows = past.execute(statement.join(other, other.id == There.id).where(There.name == "there")).all()
        assert rows == [("here", "there", "there")]
        tables = sa.select(Here.__table__.c.name, There.__table__.c.name).where(Here.id == There.here_id)
        assert past.execute(tables.order_by(There.id)).all() == [("here", "there")]


def test_users_translate_map(engine: sa.Engine, other_schema: str) -> None:
    """A tenant's map reaches the tables, their history and the account of what is tracked."""

    class Base(DeclarativeBase):
        pass

    class Thing(Audited, Base):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(80))

    moments: dict[str | None, dt.datetime] = {}
    for tenant in (None, other_schema):
        tenant_engine = engine.execution_options(schema_translate_map={None: tenant})
        Base.metadata.create_all(tenant_engine)
        with Session(tenant_engine) as session:
            session.add(Thing(id=1, name=f"of {tenant}"))
            session.commit()
            moments[tenant] = pause()
            session.get_one(Thing, 1).name = "changed"
            session.commit()
    for tenant, moment in moments.items():
        options = {"schema_translate_map": {None: tenant}}
        with as_of(engine.execution_options(**options), moment) as past:
            assert past.scalars(sa.select(Thing.name)).all() == [f"of {tenant}"]
        with as_of(engine, moment) as past:
            found = past.scalars(sa.select(Thing.name).where(Thing.id == 1), execution_options=options)
            assert found.all() == [f"of {tenant}"]


def test_awkward_names(engine: sa.Engine, database: Database) -> None:
    """Names that need quotes, contain a percent sign, or fill the limit, and attributes named unlike their columns."""
    metadata = sa.MetaData()
    long = "t" * 54
    table = sa.Table(
        "Order %",
        metadata,
        sa.Column("Key %", sa.Integer, primary_key=True, key="number"),
        sa.Column("select", sa.String(80), key="chosen"),
    )
    longest = sa.Table(long, metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table)
    sa_audit.track(longest)
    metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(sa.insert(table).values(number=1, chosen="then"))
        session.execute(sa.insert(longest).values(id=1))
        session.commit()
        moment = pause()
        session.execute(sa.update(table).values(chosen="now"))
        session.execute(sa.delete(longest))
        session.commit()
    with as_of(engine, moment) as past:
        assert past.execute(sa.select(table).where(table.c.chosen == "then")).all() == [(1, "then")]
        alias = table.alias("x y")
        assert past.execute(sa.select(alias.c.chosen, longest.c.id).where(alias.c.number == longest.c.id)).all() == [
            ("then", 1)
        ]


def test_association_table_without_primary_key(engine: sa.Engine) -> None:
    """A many-to-many table with no primary key is told by its foreign keys, NULL among them."""
    metadata = sa.MetaData()
    left = sa.Table("left_side", metadata, sa.Column("id", sa.Integer, primary_key=True))
    link = sa.Table(
        "link",
        metadata,
        sa.Column("left_id", sa.ForeignKey("left_side.id")),
        sa.Column("right_id", sa.ForeignKey("left_side.id")),
    )
    sa_audit.track(left)
    sa_audit.track(link)
    metadata.create_all(engine)
    pairs = [{"left_id": 1, "right_id": 2}, {"left_id": 2, "right_id": 1}]
    with Session(engine) as session:
        session.execute(sa.insert(left), [{"id": 1}, {"id": 2}])
        session.execute(sa.insert(link), pairs)
        session.commit()
        moment = pause()
        session.execute(sa.delete(link).where(link.c.left_id == 1))
        session.commit()
    with as_of(engine, moment) as past:
        assert past.execute(sa.select(link).order_by(link.c.left_id)).all() == [(1, 2), (2, 1)]
    with as_of(engine, dt.datetime.now(dt.UTC)) as past:
        assert past.execute(sa.select(link)).all() == [(2, 1)]
