"""Migrations and `create_all()` make the same tables of events and reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import UpgradeOps
from sqlalchemy.orm import Session

import sa_audit
import sa_audit.migrate

from .models import Base, Patient


def test_what_create_all_makes_compares_clean(clinic: sa.Engine) -> None:
    """Autogenerate has nothing to add to it."""
    with clinic.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_migration_makes_what_is_needed(engine: sa.Engine) -> None:
    """An empty database that is migrated records reads, and compares clean."""
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        upgrade = produce_migrations(context, Base.metadata).upgrade_ops
        assert isinstance(upgrade, UpgradeOps)
        operations = Operations(context)
        for step in upgrade.ops:
            operations.invoke(step)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add(Patient(id=1, name="n"))
        session.commit()
        session.get_one(Patient, 1)
        session.rollback()
        assert [read.actor for read in sa_audit.reads(session, Patient, 1)] == ["alice"]
