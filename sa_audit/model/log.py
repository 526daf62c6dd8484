"""The sealed log's tables: blocks of leaves, where a row was sealed, and signed checkpoints.

One set for each MetaData, beside ``audit_transaction``.  Only the sealer writes here, and it only appends.
Imports only the model's own parts and errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from ..errors import ConfigurationError
from .tables import DB_CLOCK, TRAIL_TABLE, column_table, transaction_table
from .types import BigId, UTCDateTime

MAX_BLOB: Final = (1 << 24) - 1
"""The most bytes of a value of the log: what MariaDB's MEDIUMBLOB takes."""


def block_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_block``: the leaves of the log, in blocks.

    ``entries`` is an entry bundle (docs/format/entries.md, "Blocks") of the leaves from ``first_leaf`` on.
    ``tiles`` holds the tiles that came to be or grew with them: see :mod:`sa_audit.catalog.log`.
    """
    return _table(
        metadata,
        schema,
        "audit_block",
        sa.Column("number", BigId, primary_key=True, autoincrement=False),
        sa.Column("first_leaf", BigId, nullable=False),
        sa.Column("leaves", sa.Integer(), nullable=False),
        sa.Column("entries", sa.LargeBinary(MAX_BLOB), nullable=False),
        sa.Column("tiles", sa.LargeBinary(MAX_BLOB), nullable=False),
        sa.Index("ix_audit_block_first_leaf", "first_leaf"),
        comment="sa_audit: the leaves of the sealed log, in blocks",
    )


def sealed_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_sealed``: which rows of each table a block holds, so that a row's leaf is found."""
    return _table(
        metadata,
        schema,
        "audit_sealed",
        sa.Column("block", BigId, primary_key=True, autoincrement=False),
        sa.Column("table_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("first_row", BigId, nullable=False),
        sa.Column("last_row", BigId, nullable=False),
        sa.Column("leaves", sa.Integer(), nullable=False),
        sa.Index("ix_audit_sealed_rows", "table_id", "last_row", "first_row"),
        comment="sa_audit: which rows of a table each block of the log holds",
    )


def checkpoint_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_checkpoint``: each signed checkpoint, and again with the token of each anchor that took it."""
    return _table(
        metadata,
        schema,
        "audit_checkpoint",
        sa.Column("id", BigId, sa.Identity(), primary_key=True),
        sa.Column("size", BigId, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("anchor", sa.Text()),
        sa.Column("token", sa.LargeBinary(MAX_BLOB)),
        sa.Column("recorded_at", UTCDateTime(), nullable=False, server_default=DB_CLOCK),
        sa.Index("ix_audit_checkpoint_size", "size"),
        comment="sa_audit: signed checkpoints of the log, and what anchors gave for them",
        sqlite_autoincrement=True,
    )


def prune_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_prune``: which rows of a history may go, each range as a leaf of the log says it.

    ``leaf`` is the index of that leaf, ``table_name`` the history's name with its schema, ``request`` the event of
    ``audit_event`` that asked for it.  All rows of the range were recorded before ``recorded_before``, and from
    ``whole_since`` on every moment of the table can be travelled to.
    """
    return _table(
        metadata,
        schema,
        PRUNE,
        sa.Column("leaf", BigId, primary_key=True, autoincrement=False),
        sa.Column("table_name", PlaceName, nullable=False),
        sa.Column("first_row", BigId, nullable=False),
        sa.Column("last_row", BigId, nullable=False),
        sa.Column("row_count", BigId, nullable=False),
        sa.Column("root", sa.String(64), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("approver", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request", BigId, nullable=False),
        sa.Column("recorded_before", UTCDateTime(), nullable=False),
        sa.Column("whole_since", UTCDateTime(), nullable=False),
        sa.Column("recorded_at", UTCDateTime(), nullable=False, server_default=DB_CLOCK),
        sa.Index("ix_audit_prune_rows", "table_name", "last_row", "first_row"),
        comment="sa_audit: which rows of a history may be pruned",
    )


FIXED: Final[dict[str, Callable[[sa.MetaData, str | None], sa.Table]]] = {
    "audit_transaction": transaction_table,
    "audit_column": column_table,
    "audit_block": block_table,
    "audit_sealed": sealed_table,
    "audit_checkpoint": checkpoint_table,
}
"""The trail's fixed tables by name, in the order in which they are made."""
PRUNE: Final = "audit_prune"
"""The one that is there where a model has a retention."""
LOG: Final = ("audit_block", "audit_sealed", "audit_checkpoint", PRUNE)
"""Those that hold the log or follow from it, are written by the sealer alone, and are not sealed themselves."""
PlaceName: Final = sa.String(260).with_variant(sa.VARCHAR(260, collation="utf8mb4_bin"), "mysql", "mariadb")
"""The type of a table's name with its schema."""


def clear_the_way(metadata: sa.MetaData, schema: str | None) -> None:
    """Make ready reflected tables of the trail, to be described anew; refuse others of their names.

    Raises:
        ConfigurationError: naming the table that is in the way.
    """
    for name, make in FIXED.items():
        existing = metadata.tables.get(f"{schema}.{name}" if schema else name)
        if existing is None:
            continue
        if not set(make(sa.MetaData(), schema).c.keys()) - {"audit_salt"} <= set(existing.c.keys()):
            raise ConfigurationError(
                f"table {existing.fullname} is in the way of the trail's own table of that name: "
                "rename it, or have the trail in a schema of its own, by configure(base, schema=...) before it"
            )
        existing.indexes.clear()


def _table(metadata: sa.MetaData, schema: str | None, name: str, *items: sa.schema.SchemaItem, **kw: Any) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        *items,
        schema=schema,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        info={TRAIL_TABLE: name},
        extend_existing=True,
        **kw,
    )
