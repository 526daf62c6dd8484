"""The clinic's tables, and what the trail may hold of each column."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import sa_audit
from sa_audit import Audited, AuditOptions, Digest, Encrypt, Exclude, Mask, Retention
from sa_audit.privacy import KeyProvider

TWO_YEARS = Retention(keep=dt.timedelta(days=730))
"""How long the history of patients and encounters is kept; what it says of those that are there is carried forward."""


class Base(DeclarativeBase):
    type_annotation_map = {dt.datetime: sa.DateTime(timezone=True)}


class Staff(Audited, Base):
    __tablename__ = "staff"

    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(sa.String(40), unique=True)
    role: Mapped[str] = mapped_column(sa.String(40))


class Patient(Audited, Base):
    __tablename__ = "patient"
    __audit__ = AuditOptions(reads=True, subject="id", retention=TWO_YEARS)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), info={"sa_audit": Encrypt()})
    born: Mapped[dt.date | None] = mapped_column(info={"sa_audit": Encrypt()})
    address: Mapped[str | None] = mapped_column(sa.String(200), info={"sa_audit": Encrypt()})
    phone: Mapped[str | None] = mapped_column(sa.String(40), info={"sa_audit": Encrypt()})
    national_id: Mapped[str | None] = mapped_column(sa.String(20), info={"sa_audit": Digest()})
    portal_password: Mapped[str | None] = mapped_column(sa.String(100), info={"sa_audit": Mask()})
    seen_at: Mapped[dt.datetime | None] = mapped_column(info={"sa_audit": Exclude()})
    ward: Mapped[str | None] = mapped_column(sa.String(20), index=True)
    encounters: Mapped[list[Encounter]] = relationship(order_by="Encounter.id")


class Encounter(Audited, Base):
    __tablename__ = "encounter"
    __audit__ = AuditOptions(reads=True, subject="patient_id", retention=TWO_YEARS)

    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    patient_id: Mapped[int] = mapped_column(sa.ForeignKey("patient.id"), index=True)
    staff_id: Mapped[int] = mapped_column(sa.ForeignKey("staff.id"))
    at: Mapped[dt.datetime]
    kind: Mapped[str] = mapped_column(sa.String(20))
    diagnosis: Mapped[str | None] = mapped_column(sa.String(100), info={"sa_audit": Encrypt()})
    note: Mapped[str | None] = mapped_column(sa.Text, info={"sa_audit": Encrypt()})


def use_keys(keys: KeyProvider) -> None:
    """Say where the key-encryption keys come from, and that nobody writes without saying who he is; once."""
    sa_audit.configure(Base, keys=keys, require_actor=True)
