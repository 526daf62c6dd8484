"""A wallet whose cards are known by digests only, and what refers to them."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Digest, Encrypt
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


class Patient(Audited, Base):
    """Whose data are encrypted under a key of his own."""

    __tablename__ = "patient"
    __audit__ = AuditOptions(subject="id", reads=True, attempts=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(60), info={"sa_audit": Encrypt()})
    born: Mapped[dt.date | None] = mapped_column(info={"sa_audit": Encrypt()})
    ward: Mapped[str | None] = mapped_column(sa.String(60))


class Letter(Audited, Base):
    """To somebody, by name."""

    __tablename__ = "letter"

    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[str] = mapped_column(sa.String(400))
    text: Mapped[str] = mapped_column(sa.Text, info={"sa_audit": Encrypt(subject="person")})


class Note(Audited, Base):
    """Of a patient, by its number; the same note can pass to another one."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int | None]
    size: Mapped[int | None] = mapped_column(info={"sa_audit": Encrypt(subject="patient_id")})
