"""A clinic whose history is kept for a time, made anew for each test, with a sealer and an anchor."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, Pruned, Report, Retention
from sa_audit.anchors import FileAnchor
from sa_audit.anchors import open as open_anchor
from sa_audit.model import AuditedTable, Trail, complete
from sa_audit.proof import Checkpoint, Signer
from sa_audit.seal.sealer import Sealer

ORIGIN = "clinic.example/audit"
KEEP = dt.timedelta(days=730)
WHO = {"actor": "archivist", "reason": "two years are over"}


def clinic(*, retention: bool = True, partition: Any = None, configured: bool = True) -> Any:
    """Give the base of patients, whose history is kept for two years unless a legal hold names them, and of wards."""

    class Base(DeclarativeBase):
        pass

    if configured:
        sa_audit.configure(Base, testing=True)

    class LegalHold(Base):
        __tablename__ = "legal_hold"

        patient_id: Mapped[int] = mapped_column(primary_key=True)

    class Patient(Audited, Base):
        __tablename__ = "patient"
        __audit__ = AuditOptions(
            partition=partition,
            retention=Retention(keep=KEEP, hold=lambda: Patient.id.in_(sa.select(LegalHold.patient_id)))
            if retention
            else None,
        )

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(sa.String(40))
        ward: Mapped[str | None] = mapped_column(sa.String(40))

    class Ward(Audited, Base):
        """One without retention, with a key of two columns."""

        __tablename__ = "ward"

        house: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
        floor: Mapped[int] = mapped_column(primary_key=True)

    kept: Any = Base
    kept.hold, kept.patient, kept.ward = LegalHold, Patient, Ward
    return Base


def keep_only(base: Any, since: dt.datetime | None = None) -> None:
    """Have the policy keep nothing that is recorded by now, or only what is recorded since a moment."""
    audited = audited_of(base)
    retention = audited.options.retention
    assert retention is not None
    keep = dt.timedelta(microseconds=1) if since is None else dt.datetime.now(dt.UTC) - since
    audited.options = replace(audited.options, retention=replace(retention, keep=keep))


def keep_days(base: Any, days: float) -> None:
    """Have every policy keep what is younger than so many days."""
    trail = complete(base.metadata)
    assert trail is not None
    for audited in trail.audited.values():
        if (retention := audited.options.retention) is not None:
            audited.options = replace(audited.options, retention=replace(retention, keep=dt.timedelta(days=days)))


def audited_of(base: Any) -> AuditedTable:
    """Give the audited table of patients."""
    trail = complete(base.metadata)
    assert trail is not None
    return trail.audited[base.patient.__table__]


@dataclass
class Clinic:
    """A database with the models' tables, its log's key, the sealer's state and an anchor."""

    base: Any
    engine: sa.Engine
    directory: Path

    def __post_init__(self) -> None:
        self.signer = Signer.generate(ORIGIN)

    def create(self) -> Clinic:
        """Create the models' tables."""
        self.base.metadata.create_all(self.engine)
        return self

    @property
    def trail(self) -> Trail:
        """The trail."""
        return audited_of(self.base).trail

    @property
    def history(self) -> sa.Table:
        """The history of patients."""
        return audited_of(self.base).history

    @property
    def anchor(self) -> FileAnchor:
        """The anchor, as another process would open it."""
        made = open_anchor(f"file:{self.directory}/anchors")
        assert isinstance(made, FileAnchor)
        return made

    def sealer(self, **options: Any) -> Sealer:
        """Give a sealer of its own, as a process of its own would have."""
        given = {"state": self.directory / "state", "anchors": [self.anchor], "metadata": self.base}
        return Sealer(self.engine, self.signer, **{**given, **options})

    def seal(self, **options: Any) -> Checkpoint | None:
        """Seal once."""
        return self.sealer(**options).seal()

    def verify(self, **options: Any) -> Report:
        """Verify with the anchor."""
        given = {"anchors": [self.anchor], "metadata": self.base}
        return sa_audit.verify(self.engine, self.signer.verifier, **{**given, **options})

    def kinds(self, **options: Any) -> set[tuple[str, str | None]]:
        """Give kind and table of each finding, but for guards that a test lifted and put back."""
        findings = self.verify(**options).findings
        return {(each.kind, each.table) for each in findings if each.kind != "guard-touched"}

    def prune(self, **options: Any) -> Pruned:
        """Prune, and give what was done with the patients."""
        with sa_audit.context(**WHO):
            (done,) = sa_audit.prune(self.engine, metadata=self.base, **options)
        return done

    def prune_wholly(self) -> Pruned:
        """Ask, seal, and take away."""
        self.prune()
        self.seal()
        return self.prune()

    def prune_at(self, cutoff: dt.datetime) -> Pruned:
        """Prune with exactly this cutoff, wholly, and seal; give what was asked for."""
        with pytest.MonkeyPatch.context() as patch:
            for database in ("PastPostgreSQL", "PastMariaDB", "PastSQLite"):
                patch.setattr(f"sa_audit.query.past_database.{database}.now", lambda *_: cutoff + KEEP)
            keep_days(self.base, KEEP.days)
            asked = self.prune()
        keep_only(self.base, cutoff)
        self.seal()
        self.prune()
        self.seal()
        return asked

    def write(self, *changes: tuple[int, str | None]) -> None:
        """Name patients, each in a transaction of its own; None discharges one."""
        for key, name in changes:
            with sa_audit.context(actor="nurse", reason="care"), Session(self.engine) as session:
                known = session.get(self.base.patient, key)
                if name is None:
                    session.delete(known)
                elif known is None:
                    session.add(self.base.patient(id=key, name=name))
                else:
                    known.name = name
                session.commit()

    def rows(self) -> list[tuple[Any, ...]]:
        """Give key, operation and name of each row of the history."""
        columns = self.history.c
        statement = sa.select(columns.id, columns.audit_op, columns.name).order_by(columns.audit_id)
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(statement)]

    def names(self, when: Any) -> dict[int, str]:
        """Give the patients' names as of a moment."""
        with sa_audit.as_of(self.engine, when) as past:
            return {patient.id: patient.name for patient in past.scalars(sa.select(self.base.patient))}

    def now(self) -> dt.datetime:
        """Give a moment that lies between what was and what will be recorded."""
        time.sleep(0.01)
        moment = dt.datetime.now(dt.UTC)
        time.sleep(0.01)
        return moment

    def run(self, *statements: str) -> None:
        """Run statements past the library."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement, execution_options={"sa_audit_internal": True})

    def hold(self, *keys: int) -> None:
        """Hold patients."""
        with Session(self.engine) as session:
            session.add_all([self.base.hold(patient_id=key) for key in keys])
            session.commit()


def ids(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Give the keys of rows."""
    return [row[0] for row in rows]
