"""A wallet whose cards are known by digests only, and what refers to them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Digest
from sa_audit.privacy import KeyRing

SECRET = b"k" * 32


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, keys=KeyRing({"2026": SECRET}), testing=True, text_dml="allow")


class Owner(Audited, Base):
    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True)


class Card(Audited, Base):
    __tablename__ = "card"
    __audit__ = AuditOptions(attempts=True, reads=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str | None] = mapped_column(sa.String(60), info={"sa_audit": Digest()})
    code: Mapped[int | None] = mapped_column(info={"sa_audit": Digest()})
    note: Mapped[str | None] = mapped_column(sa.String(60))
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("owner.id", ondelete="CASCADE"))


class Seat(Audited, Base):
    """Its key has two columns, one of them a text with signs that SQL and JSON paths take for their own."""

    __tablename__ = "seat"

    row: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    guest: Mapped[bytes | None] = mapped_column(sa.LargeBinary(40), info={"sa_audit": Digest()})
