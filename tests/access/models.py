"""A clinic whose reads are recorded, and beside it what isn't."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import sa_audit
from sa_audit import AuditOptions, Mask


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, testing=True)


class Patient(sa_audit.Audited, Base):
    __tablename__ = "patient"
    __audit__ = AuditOptions(reads=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("full_name", sa.String(40))
    pin: Mapped[str | None] = mapped_column(sa.String(40), info={"sa_audit": Mask()})
    visits: Mapped[list[Visit]] = relationship(back_populates="patient", order_by="Visit.number")
    ward_id: Mapped[int | None] = mapped_column(sa.ForeignKey("ward.id"))
    ward: Mapped[Ward | None] = relationship(back_populates="patients")


class Visit(sa_audit.Audited, Base):
    __tablename__ = "visit"
    __audit__ = AuditOptions(reads="relaxed")

    patient_id: Mapped[int] = mapped_column(sa.ForeignKey("patient.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[str] = mapped_column(sa.String(40))
    patient: Mapped[Patient] = relationship(back_populates="visits")


class Ward(Base):
    __tablename__ = "ward"

    id: Mapped[int] = mapped_column(primary_key=True)
    patients: Mapped[list[Patient]] = relationship(back_populates="ward")


class Person(sa_audit.Audited, Base):
    __tablename__ = "person"
    __audit__ = AuditOptions(reads=True)

    id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Nurse(Person):
    __tablename__ = "nurse"
    __audit__ = AuditOptions(reads=True)

    nurse_id: Mapped[str] = mapped_column(sa.ForeignKey("person.id"), primary_key=True)
    shift: Mapped[str] = mapped_column(sa.String(10))
    __mapper_args__ = {"polymorphic_identity": "nurse"}
