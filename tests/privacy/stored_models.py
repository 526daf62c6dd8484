"""Tables that triggers record, whose columns hold ciphertext and digests themselves."""

from __future__ import annotations

import datetime as dt
import uuid

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Digest, Encrypt
from sa_audit.privacy import KeyRing

SECRET = b"k" * 32


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, capture="trigger", keys=KeyRing({"2026": SECRET}), testing=True, text_dml="allow")


class Upper(sa.types.TypeDecorator[str]):
    """An application's own type, whose values are not what is stored."""

    impl = sa.String(60)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.lower()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.upper()


class Patient(Audited, Base):
    """Whose data are encrypted under a key of his own."""

    __tablename__ = "stored_patient"
    __audit__ = AuditOptions(subject="id", reads=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(60), info={"sa_audit": Encrypt()})
    born: Mapped[dt.date | None] = mapped_column(info={"sa_audit": Encrypt()})
    room: Mapped[int | None] = mapped_column(info={"sa_audit": Encrypt()})
    card: Mapped[str | None] = mapped_column(sa.String(60), info={"sa_audit": Digest()})
    ward: Mapped[str | None] = mapped_column(sa.String(60))


class Note(Audited, Base):
    """Of a patient, by its number; the same note can pass to another one."""

    __tablename__ = "stored_note"

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int | None]
    size: Mapped[int | None] = mapped_column(info={"sa_audit": Encrypt(subject="patient_id")})
    title: Mapped[str | None] = mapped_column(Upper, info={"sa_audit": Encrypt(subject="patient_id")})


class Letter(Audited, Base):
    """To somebody, whose identity Python makes."""

    __tablename__ = "stored_letter"
    __audit__ = AuditOptions(subject="id")

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    text: Mapped[str] = mapped_column(sa.Text, default="dear", info={"sa_audit": Encrypt()})
