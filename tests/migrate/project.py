"""A migration project of a test: Alembic's own commands on a directory of its own, and what the database then holds."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import sa_audit.migrate
from sa_audit import is_trail_table
from sa_audit.model import complete

ENV = """\
import asyncio

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

import sa_audit.migrate

given = context.config.attributes
options = {"target_metadata": given["metadata"], **given["options"]}


def run(connection):
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()


async def run_async(engine):
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    context.configure(url=given["url"], literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
    with context.begin_transaction():
        context.run_migrations()
elif given["async_url"] is not None:
    asyncio.run(run_async(create_async_engine(given["async_url"])))
else:
    engine = sa.create_engine(given["url"])
    try:
        with engine.connect() as connection:
            run(connection)
    finally:
        engine.dispose()
"""

SCRIPT = '''\
"""${message}"""
from alembic import op
import sqlalchemy as sa
${"import tests.migrate.models" if "tests.migrate.models." in upgrades else ""}
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''


class Project:
    """Migrations of one database; the models may change between two revisions.

    Args:
        directory: where the files go.
        url: the database.
        metadata: the models' MetaData, or several.
        async_url: run the commands on an async engine.
        options: further arguments of ``context.configure``.
    """

    def __init__(
        self, directory: Path, url: sa.URL, metadata: Any, async_url: sa.URL | None = None, **options: Any
    ) -> None:
        self.url = url
        self.metadata = metadata
        self.async_url = async_url
        self.options = {"render_as_batch": url.get_backend_name() == "sqlite", **options}
        self.directory = directory / "migrations"
        (self.directory / "versions").mkdir(parents=True)
        (self.directory / "env.py").write_text(ENV)
        (self.directory / "script.py.mako").write_text(SCRIPT)
        self._number = 0

    def _config(self, output: Any = None, **x: str) -> Config:
        config = Config(output_buffer=output, stdout=io.StringIO())
        config.set_main_option("script_location", str(self.directory))
        given = {"metadata": self.metadata, "options": self.options, "url": self.url, "async_url": self.async_url}
        config.attributes.update(given)
        config.cmd_opts = argparse.Namespace(x=[f"{name}={value}" for name, value in x.items()])
        return config

    def revision(self, **x: str) -> str:
        """Write a revision by autogenerate and give the text of its file."""
        self._number += 1
        revision = f"{self._number:04}"
        command.revision(self._config(**x), message="audit", autogenerate=True, rev_id=revision)
        (file,) = self.directory.glob(f"versions/{revision}_*.py")
        return file.read_text()

    def upgrade(self, revision: str = "head") -> None:
        """Run the migrations up to a revision."""
        command.upgrade(self._config(), revision)

    def downgrade(self, revision: str = "-1", *, archive: bool = False) -> None:
        """Run them backwards."""
        command.downgrade(self._config(**({"sa_audit.downgrade": "archive"} if archive else {})), revision)

    def sql(self, *, down: bool = False) -> str:
        """Give all migrations as SQL, without a database."""
        output = io.StringIO()
        if down:
            command.downgrade(self._config(output), "head:base", sql=True)
        else:
            command.upgrade(self._config(output), "head", sql=True)
        return output.getvalue()

    def check(self) -> None:
        """Run ``alembic check``, which raises if there is anything left to migrate."""
        command.check(self._config())

    def add(self, text: str) -> None:
        """Write a revision by hand; the text is the body of ``upgrade``."""
        self._number += 1
        script = ScriptDirectory.from_config(self._config())
        head = script.get_current_head()
        body = "\n".join(f"    {line}" for line in text.splitlines())
        header = f'"""By hand."""\nfrom alembic import op\nimport sqlalchemy as sa\n\nrevision = "{self._number:04}"\n'
        functions = f"down_revision = {head!r}\n\n\ndef upgrade():\n{body}\n\n\ndef downgrade():\n    pass\n"
        (self.directory / "versions" / f"{self._number:04}_hand.py").write_text(header + functions)

    def migrate(self, **x: str) -> str:
        """Write a revision, run it, and make sure that nothing is left to do."""
        text = self.revision(**x)
        assert "sa_audit.model" not in text
        assert "import sa_audit" not in text
        assert "sa_audit.migrate" not in text
        self.upgrade()
        self.check()
        return text


def differences(engine: sa.Engine, metadata: Any, **options: Any) -> list[Any]:
    """Give what Alembic would change, as ``alembic check`` sees it, defaults compared too."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"target_metadata": metadata, "compare_server_default": True, **options}
        )
        return list(compare_metadata(context, metadata))


def trail_tables(metadata: sa.MetaData) -> list[sa.Table]:
    """Give the tables of a trail."""
    complete(metadata)
    return [table for table in metadata.sorted_tables if is_trail_table(table)]


def holds(engine: sa.Engine, metadata: sa.MetaData) -> dict[str, Any]:
    """Give everything of the trail that the catalog shows: columns, keys, indexes, triggers, functions, sequences."""
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        found: dict[str, Any] = {}
        for table in trail_tables(metadata):
            where = {"schema": table.schema}
            columns = [
                (column["name"], str(column["type"]), column["nullable"], _default(column), column.get("identity"))
                for column in inspector.get_columns(table.name, **where)
            ]
            indexes = sorted(
                (index["name"], index["column_names"]) for index in inspector.get_indexes(table.name, **where)
            )
            found[table.fullname] = (columns, inspector.get_pk_constraint(table.name, **where), indexes)
            if connection.dialect.supports_comments:
                found[f"comment on {table.fullname}"] = inspector.get_table_comment(table.name, **where)
        found["objects"] = _objects(connection)
        return found


def _default(column: Any) -> Any:
    """Give a column's default; none and NULL are the same, and so is an expression in parentheses that enclose it all.

    (SQLAlchemy 2.0.30 writes those of SQLite's defaults twice.)
    """
    default = column["default"]
    while isinstance(default, str) and default.startswith("(") and default.endswith("))"):
        default = default[1:-1]
    return None if default == "NULL" else default


def _objects(connection: sa.Connection) -> list[Any]:
    """Read triggers, functions, sequences and options from each database's own catalog."""
    queries = {
        "sqlite": [
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
            "SELECT name, instr(sql, 'AUTOINCREMENT') > 0 FROM sqlite_master "
            "WHERE type = 'table' AND name LIKE '%audit%' ORDER BY name",
        ],
        "postgresql": [
            "SELECT tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 3",
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'sa_audit%' ORDER BY 1",
            "SELECT schemaname, sequencename, data_type, start_value, cache_size FROM pg_sequences ORDER BY 1, 2",
        ],
        "mysql": [
            "SELECT trigger_name, action_timing, event_manipulation, action_statement FROM information_schema.triggers "
            "WHERE trigger_schema = database() ORDER BY 1",
            "SELECT table_name, engine, table_comment FROM information_schema.tables WHERE table_schema = database() "
            "AND table_name LIKE '%audit%' ORDER BY 1",
        ],
    }
    name = "mysql" if connection.dialect.name == "mariadb" else connection.dialect.name
    return [tuple(row) for query in queries[name] for row in connection.execute(sa.text(query))]


@contextmanager
def refused() -> Iterator[Any]:
    """Expect the database to refuse, with the library's own message."""
    import pytest

    with pytest.raises(sa.exc.DBAPIError) as caught:
        yield caught
    assert "sa_audit" in str(caught.value)


__all__ = ["Project", "differences", "holds", "refused", "sa_audit", "trail_tables"]
