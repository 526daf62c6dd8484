"""A model whose history is kept by month, made anew for each test."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions
from sa_audit.catalog.drift import check
from sa_audit.catalog.partitions import coming
from sa_audit.model import complete


def ledger(**options: Any) -> Any:
    """Give the base of a model by month; the options are those of `configure`, which is left to others without any."""

    class Base(DeclarativeBase):
        pass

    if options:
        sa_audit.configure(Base, **options)

    class Booking(Audited, Base):
        __tablename__ = "booking"
        __audit__ = AuditOptions(partition="month")

        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(sa.String(40))

    Base.model = Booking  # type: ignore[attr-defined] # kept alive
    return Base


def use(engine: sa.Engine, base: Any, key: int = 1) -> None:
    """Write a booking, and change it."""
    with sa_audit.context(actor="clerk"), Session(engine) as session:
        session.add(base.model(id=key, text="a"))
        session.commit()
        session.get_one(base.model, key).text = "b"
        session.commit()


def months(ahead: int) -> list[dt.datetime]:
    """Give the starts of this month and the next ones."""
    return coming(dt.datetime.now(dt.UTC), ahead)


def partition(month: dt.datetime) -> str:
    """Give the name of a month's partition."""
    return f"booking_history_{month:%Y_%m}"


def findings(engine: sa.Engine, base: Any) -> set[tuple[str, str]]:
    """Give kind and place of each difference that check finds."""
    with engine.connect() as connection:
        return findings_on(connection, base)


def findings_on(connection: sa.Connection, base: Any) -> set[tuple[str, str]]:
    """Give the same, as a transaction sees it."""
    trail = complete(base.metadata)
    assert trail is not None
    return {(one.kind, one.place) for one in check(connection, trail).drift}


def where(engine: sa.Engine) -> list[str]:
    """Give the partition of each history row."""
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT CAST(tableoid AS regclass) AS part FROM booking_history ORDER BY audit_id")
        )
        return [str(row.part) for row in rows]


def run(engine: sa.Engine, *statements: str) -> None:
    """Run statements."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
