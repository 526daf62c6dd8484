"""The audited tables of the attacked trail: one column of each kind that somebody might want to change."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited

MOMENT = dt.datetime(2026, 3, 31, 23, 59, 59, 123456, tzinfo=dt.UTC)


class Base(DeclarativeBase):
    """The models of these tests alone."""


sa_audit.configure(Base, testing=True)


class Note(Audited, Base):
    """A row with a value of each kind."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None] = mapped_column(sa.String(80))
    other: Mapped[str | None] = mapped_column(sa.String(80))
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 4))
    rate: Mapped[float | None] = mapped_column(sa.Double())
    data: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    raw: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    token: Mapped[uuid.UUID | None]
    seen: Mapped[dt.datetime | None] = mapped_column(
        sa.DateTime(timezone=True).with_variant(DATETIME(fsp=6), "mysql", "mariadb")
    )


class Tag(Audited, Base):
    """A second table, so that tables can be mistaken for each other."""

    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None] = mapped_column(sa.String(80))


NOTES = 36
"""How many notes are written; their history has the same ids, 1 to 36, where the table counts for itself."""


def write(engine: sa.Engine, first: int, last: int) -> None:
    """Write notes and tags from ``first`` on up to ``last``, in one transaction."""
    with sa_audit.context(actor="alice", reason="because", ticket=str(first)), Session(engine) as session:
        session.add_all(note(number) for number in range(first, last + 1))
        session.add_all(Tag(id=number, label=f"tag {number}") for number in range(first, last + 1))
        session.commit()


def note(number: int) -> Note:
    """Give a note."""
    return Note(
        id=number,
        label=f"caf\u00e9 {number}",
        other="",
        amount=Decimal("12.5"),
        rate=0.1 if number % 2 else 0.0,
        data={"price": 1.1, "n": number},
        raw=b"\x00\x01",
        token=uuid.UUID(int=number),
        seen=MOMENT,
    )


def amend(engine: sa.Engine, *numbers: int) -> None:
    """Change notes, each in a transaction of its own."""
    for number in numbers:
        with sa_audit.context(actor="bob", reason="amended"), Session(engine) as session:
            found = session.get_one(Note, number)
            found.amount = Decimal("99.5")
            found.other = None
            session.commit()
