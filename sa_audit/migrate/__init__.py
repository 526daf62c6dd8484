"""ALEMBIC: ``import sa_audit.migrate`` in ``env.py`` makes ``--autogenerate`` write what the trail needs.

The tables of the trail with their indexes and guards are printed into the migration as plain SQL and Alembic's own
calls; a migration never imports this library.  Imports model, ddl, errors, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from alembic.operations import Operations

from . import autogenerate, render
from .filters import include_name, include_object
from .steps import TrailOperation, perform

Operations.implementation_for(TrailOperation)(perform)

__all__ = ["autogenerate", "include_name", "include_object", "render"]
