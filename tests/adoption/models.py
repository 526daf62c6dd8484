"""A shop's models, made anew for each test, and its rows from before the audit."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_audit import Audited, Mask


class Kind(enum.Enum):
    OPEN = "open"
    DONE = "done"


def shop() -> Any:
    """Give the base of fresh models: several types, a mask, a key of two columns, a table without key."""

    class Base(DeclarativeBase):
        pass

    class Item(Audited, Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(40))
        price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
        kind: Mapped[Kind] = mapped_column(sa.Enum(Kind), default=Kind.OPEN)
        code: Mapped[str | None] = mapped_column(sa.String(10), info={"sa_audit": Mask()})
        seen: Mapped[dt.datetime | None]

    class Line(Audited, Base):
        __tablename__ = "line"
        order: Mapped[int] = mapped_column("order_id", primary_key=True, autoincrement=False)
        number: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
        amount: Mapped[int]

    Base.models = {"Item": Item, "Line": Line}  # type: ignore[attr-defined] # kept alive
    return Base


def fill(engine: sa.Engine, base: Any, rows: int) -> None:
    """Make the shop's own tables, without a trail, and fill them past the library."""
    item, line = base.metadata.tables["item"], base.metadata.tables["line"]
    with engine.begin() as connection:
        item.c.kind.type.create(connection, checkfirst=True)  # an object of its own on PostgreSQL
        for table in (item, line):
            connection.execute(sa.schema.CreateTable(table))
        insert = "INSERT INTO item (id, name, price, kind, code) VALUES (:id, :name, :price, 'OPEN', 'x')"
        rows_of_item = [{"id": i, "name": f"item {i}", "price": "1.50"} for i in range(1, rows + 1)]
        _execute(connection, insert, rows_of_item)
        insert = "INSERT INTO line (order_id, number, amount) VALUES (:order, :number, 1)"
        _execute(connection, insert, [{"order": i // 3, "number": f"n{i % 3}"} for i in range(rows)])


def _execute(connection: sa.Connection, sql: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.text(sql), rows, execution_options={"sa_audit_internal": True})
