"""Association tables are audited with the class whose relationship they belong to, whoever writes them first."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

import sa_audit
from sa_audit import Audited
from tests.capture.recorded import ops, story
from tests.model.test_declaration import new_base


def link_table(metadata: sa.MetaData) -> sa.Table:
    """Give an association table between `left_row` and `right_row`."""
    return sa.Table(
        "link",
        metadata,
        sa.Column("left_id", sa.ForeignKey("left_row.id"), primary_key=True),
        sa.Column("right_id", sa.ForeignKey("right_row.id"), primary_key=True),
    )


def linked(named: str) -> Any:
    """Declare two classes with an association table that is named in a certain way; give the base."""
    base = new_base()
    early = link_table(base.metadata) if named == "table" else None

    class Right(*([Audited] if named.startswith("backref") else []), base):  # type: ignore[misc] # bases by parameter
        __tablename__ = "right_row"

        id: Mapped[int] = mapped_column(primary_key=True)

    secondary: Any = {"table": early, "lambda": lambda: base.metadata.tables["link"]}.get(named, "link")

    class Left(*([] if named.startswith("backref") else [Audited]), base):  # type: ignore[misc] # bases by parameter
        __tablename__ = "left_row"

        id: Mapped[int] = mapped_column(primary_key=True)
        rights = relationship(Right, secondary=secondary, backref="lefts")

    if early is None:
        link_table(base.metadata)
    base.keep = Left, Right
    return base


NAMED = pytest.mark.parametrize("named", ["table", "string", "lambda", "backref"])


@NAMED
def test_a_secondary_is_audited_with_its_class(engine: sa.Engine, named: str) -> None:
    """However the association table is named, and from whichever side: it is complete when tables are created."""
    base = linked(named)
    base.metadata.create_all(engine)
    left, right = base.keep
    with Session(engine) as session:
        session.add(left(id=1, rights=[right(id=2)]))
        session.commit()
    assert story(engine, base.metadata.tables["link"], "left_id", "right_id") == [("I", None, 1, 2)]


@NAMED
def test_a_secondary_that_core_writes_first(engine: sa.Engine, named: str) -> None:
    """In a process that has configured no mapper yet, Core SQL and text on the association table are known, too."""
    first = linked(named)
    first.metadata.create_all(engine)
    with engine.begin() as connection:
        for table in ("left_row", "right_row"):
            connection.connection.cursor().execute(f"INSERT INTO {table} (id) VALUES (1)")
    base = linked(named)  # the same models as another process would have them
    link = base.metadata.tables["link"]
    with engine.connect() as connection, pytest.raises(sa_audit.UnauditedWrite, match="link"):
        connection.execute(sa.text("INSERT INTO link (left_id, right_id) VALUES (1, 1)"))
    base = linked(named)
    link = base.metadata.tables["link"]
    with engine.begin() as connection:
        connection.execute(sa.insert(link).values(left_id=1, right_id=1))
        connection.execute(sa.delete(link))
    assert ops(engine, link) == "ID"


def test_models_that_are_not_finished(engine: sa.Engine) -> None:
    """Where it can't be told whether a table is an association table, a write is refused; other tables don't matter."""
    base = new_base()

    class Left(Audited, base):
        __tablename__ = "left_row"

        id: Mapped[int] = mapped_column(primary_key=True)
        rights = relationship("NobodyDeclaredThis", secondary="link")

    sa.Table("right_row", base.metadata, sa.Column("id", sa.Integer, primary_key=True))
    link = link_table(base.metadata)
    for table in (Left.__table__, base.metadata.tables["right_row"], link):
        table.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(base.metadata.tables["right_row"]).values(id=1))
        connection.rollback()
        with pytest.raises(sa_audit.UnauditedWrite, match="NobodyDeclaredThis"):
            connection.execute(sa.insert(link).values(left_id=1, right_id=1))
    base.registry.dispose()


def test_unfinished_models_of_another_base(engine: sa.Engine) -> None:
    """Models that can't be configured stop nothing of another MetaData."""
    broken, base = new_base(), new_base()

    class Broken(Audited, broken):
        __tablename__ = "broken"

        id: Mapped[int] = mapped_column(primary_key=True)
        others = relationship("NobodyDeclaredThis")

    class Whole(Audited, base):
        __tablename__ = "whole"

        id: Mapped[int] = mapped_column(primary_key=True)

    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Whole(id=1))
        session.commit()
        assert len(sa_audit.history(session, Whole, 1)) == 1
    broken.registry.dispose()
