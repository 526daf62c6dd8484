"""The trail's fixed tables: who and why, and what columns there were.

One set for each MetaData, in its trail's schema.  Imports only the model's own parts and errors.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from .types import BigId, Name, Salt, ServerDefault, UTCDateTime

TRAIL_TABLE = "sa_audit.trail_table"

PARTITIONED_KEY = ("audit_id", "audit_at")
"""The columns of the primary key of a partitioned history on PostgreSQL; ``audit_id`` alone is unique all the same."""

BASELINE_BEGUN = "baseline begun"
BASELINE_DONE = "baseline done"
IMPORT_BEGUN = "import begun"
IMPORT_DONE = "import done"
PARTITIONED = "partitioned"
"""Events of ``audit_column`` that concern a whole table.

Its rows, or the history that another tool wrote, are being carried in; and all of it is.  The end of an import is
dated with the moment from which on everything is known.  Rows of its history were moved between partitions.
"""

DB_TXID = ServerDefault(postgresql="((pg_current_xact_id())::text)::bigint")
DB_CLOCK = ServerDefault(
    postgresql="clock_timestamp()",
    mysql="(UTC_TIMESTAMP(6))",
    sqlite="(strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
)
RANDOM_SALT = ServerDefault(
    postgresql="uuid_send(gen_random_uuid())",
    mysql="(RANDOM_BYTES(16))",
    sqlite="(randomblob(16))",
)


def transaction_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_transaction``: one row for each context in each database transaction with audited changes.

    A reflected table of that name is taken, with the types given here.

    ``first_id`` ties the further rows of one database transaction to its first one, where it is NULL.
    The columns ``recorded_at`` and ``db_*`` are the database's word; the guard overwrites what a client sends.
    ``audit_salt`` makes the digest of a row unguessable once the row is gone; no client needs the right to write it.
    """
    return sa.Table(
        "audit_transaction",
        metadata,
        sa.Column("id", BigId, sa.Identity(), primary_key=True),
        sa.Column("recorded_at", UTCDateTime(), nullable=False, server_default=DB_CLOCK),
        sa.Column("actor", sa.Text()),
        sa.Column("on_behalf_of", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("remote_addr", sa.Text()),
        sa.Column("context", sa.JSON(none_as_null=True)),
        sa.Column("first_id", BigId),
        sa.Column("db_user", sa.Text(), server_default=ServerDefault(postgresql="SESSION_USER", mysql="(USER())")),
        sa.Column(
            "db_role", sa.Text(), server_default=ServerDefault(postgresql="CURRENT_USER", mysql="(CURRENT_ROLE())")
        ),
        sa.Column("db_addr", sa.Text(), server_default=ServerDefault(postgresql="host(inet_client_addr())")),
        sa.Column(
            "db_application", sa.Text(), server_default=ServerDefault(postgresql="current_setting('application_name')")
        ),
        sa.Column("db_txid", BigId, server_default=DB_TXID),
        sa.Column("audit_salt", Salt, nullable=False, server_default=RANDOM_SALT),
        sa.Index("ix_audit_transaction_recorded_at", "recorded_at"),
        sa.Index("ix_audit_transaction_db_txid", "db_txid"),
        sa.Index("ix_audit_transaction_first_id", "first_id"),
        schema=schema,
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        info={TRAIL_TABLE: "audit_transaction"},
        comment="sa_audit: who changed audited data, when and why",
        extend_existing=True,
    )


def column_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_column``: since when each column of each table is recorded, and under which stable id."""
    return sa.Table(
        "audit_column",
        metadata,
        sa.Column("id", BigId, sa.Identity(), primary_key=True),
        sa.Column("table_name", Name, nullable=False),
        sa.Column("column_id", sa.Integer(), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("event", sa.String(20), nullable=False),
        sa.Column("revision", sa.Text()),
        sa.Column("recorded_at", UTCDateTime(), nullable=False, server_default=DB_CLOCK),
        sa.Index("ix_audit_column_table_name", "table_name", "column_id"),
        schema=schema,
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        info={TRAIL_TABLE: "audit_column"},
        comment="sa_audit: the columns that history tables have held, by stable id",
        extend_existing=True,
    )


def table_note(table: str, event: str) -> dict[str, Any]:
    """Give the row of ``audit_column`` that notes an event of a whole table; its number is that of no column."""
    return {"table_name": table, "column_id": 0, "name": "*", "type": "", "event": event}


def history_sequence(metadata: sa.MetaData, schema: str | None) -> sa.Sequence:
    """Give the sequence of ``audit_id``.

    Uncached on PostgreSQL, where a cache belongs to a session and would break the order of changes to one row.
    MariaDB's cache belongs to the server, so that the order holds, and an uncached one writes at every row.
    """
    return sa.Sequence("audit_id_seq", metadata=metadata, schema=schema, data_type=sa.BigInteger(), start=1)


class PartitionedKey(sa.PrimaryKeyConstraint):
    """The key of a history that PostgreSQL partitions: the partition's column has to be in it there."""


@compiles(PartitionedKey, "postgresql")
def _partitioned_key(element: PartitionedKey, compiler: Any, **_kw: Any) -> str:
    columns = ", ".join(compiler.preparer.quote(name) for name in PARTITIONED_KEY)
    return f"CONSTRAINT {compiler.preparer.format_constraint(element)} PRIMARY KEY ({columns})"


class NextAuditId(sa.sql.expression.ColumnElement[Any]):
    """The server default of ``audit_id``: the sequence's next value; NULL on SQLite, where the rowid serves."""

    inherit_cache = False

    def __init__(self, sequence: sa.Sequence) -> None:
        self.sequence = sequence
        self.type = sa.BigInteger()


@compiles(NextAuditId)
def _next_audit_id(element: NextAuditId, compiler: SQLCompiler, **kw: Any) -> str:
    if compiler.dialect.name not in ("postgresql", "mysql", "mariadb"):
        return "NULL"
    if compiler.dialect.name == "postgresql":
        return compiler.process(element.sequence.next_value(), **kw)
    return f"(nextval({compiler.preparer.format_sequence(element.sequence)}))"
