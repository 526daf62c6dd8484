"""The environment of the migrations: database and models are those of [tool.sa_audit] in pyproject.toml.

SA_AUDIT_URL in the environment comes before the url there.
"""

import os
from logging.config import fileConfig
from pathlib import Path

import sqlalchemy as sa
from alembic import context

import sa_audit.migrate  # autogenerate writes the trail's tables and guards
from sa_audit.cli.models import load_models
from sa_audit.cli.settings import find_settings

settings = find_settings(os.environ.get("SA_AUDIT_URL"), None, Path.cwd())
target_metadata = load_models(settings.models, settings.directories).trail.metadata
render_as_batch = sa.make_url(settings.url).get_backend_name() == "sqlite"

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def run_offline() -> None:
    """Print the SQL, without a database."""
    context.configure(
        url=settings.url,
        target_metadata=target_metadata,
        render_as_batch=render_as_batch,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run(connection: sa.Connection) -> None:
    """Run the migrations on a connection."""
    context.configure(connection=connection, target_metadata=target_metadata, render_as_batch=render_as_batch)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Connect, and run them."""
    engine = sa.create_engine(settings.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        run(connection)


if context.is_offline_mode():
    run_offline()
else:
    run_online()
