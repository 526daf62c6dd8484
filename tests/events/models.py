"""Models with a trail, with `attempts` and without."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_audit
from sa_audit import AuditOptions, Mask


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, testing=True)


class Payment(sa_audit.Audited, Base):
    __tablename__ = "payment"
    __audit__ = AuditOptions(attempts=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(20), unique=True)


class Token(sa_audit.Audited, Base):
    __tablename__ = "token"
    __audit__ = AuditOptions(attempts=True)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    secret: Mapped[str] = mapped_column(sa.String(20), info={"sa_audit": Mask()})


class Plain(Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
