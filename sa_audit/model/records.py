"""The trail's tables of what is not a change: domain events, and reads with the rows that they showed.

Their rows have ``audit_tx``, ``audit_txid``, ``audit_at`` and ``audit_salt`` like history rows, so that the same guards
fit them to their transaction, and whoever reads the trail finds who and when where it finds them for a change.
Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from ..errors import ConfigurationError
from .tables import DB_TXID, RANDOM_SALT, TRAIL_TABLE, NextAuditId
from .types import BigId, Name, Salt, UTCDateTime

EVENT: Final = "audit_event"
ACCESS: Final = "audit_access"
ACCESS_ROW: Final = "audit_access_row"
KEY: Final = "audit_key"
PERSON_KEY: Final = "audit_person_key"

MAX_SUBJECT: Final = 255
"""Length of what says whose data a value is, in characters."""
MAX_IDENTITY: Final = 480
"""Length of the text of a key, in characters; MariaDB indexes no more beside the table's name and the moment."""
Identity = sa.Text().with_variant(sa.VARCHAR(MAX_IDENTITY, collation="utf8mb4_bin"), "mysql", "mariadb")


def event_table(metadata: sa.MetaData, schema: str | None, sequence: sa.Sequence) -> sa.Table:
    """Give ``audit_event``: what happened that is not a row, and to which row.

    ``table_name`` and ``identity`` (the key as JSON text) name the row, ``entity`` its class; ``durable`` says that the
    event was written on a connection of its own.
    """
    return _table(
        metadata,
        schema,
        sequence,
        EVENT,
        sa.Column("audit_flush", sa.Integer()),
        sa.Column("action", Name, nullable=False),
        sa.Column("entity", Name),
        sa.Column("table_name", Name),
        sa.Column("identity", Identity),
        sa.Column("data", sa.JSON(none_as_null=True)),
        sa.Column("durable", sa.SmallInteger(), nullable=False),
        sa.Index("ix_audit_event_row", "table_name", "identity", "audit_at"),
        sa.Index("ix_audit_event_action", "action", "audit_at"),
        comment="sa_audit: domain events",
    )


def access_table(metadata: sa.MetaData, schema: str | None, sequence: sa.Sequence) -> sa.Table:
    """Give ``audit_access``: one row for each statement that read rows of a model with ``reads``.

    ``identities`` says whether the rows that it showed stand in ``audit_access_row``: ``"known"``, ``"streamed"``
    (they follow as the rows are fetched, and ``row_count`` is NULL) or ``"none"`` (its criteria are kept instead).
    """
    return _table(
        metadata,
        schema,
        sequence,
        ACCESS,
        sa.Column("entity", Name, nullable=False),
        sa.Column("table_name", Name, nullable=False),
        sa.Column("columns", sa.JSON(none_as_null=True)),
        sa.Column("statement", sa.String(80), nullable=False),
        sa.Column("criteria", sa.JSON(none_as_null=True)),
        sa.Column("identities", sa.String(10), nullable=False),
        sa.Column("row_count", BigId),
        sa.Index("ix_audit_access_table", "table_name", "audit_at"),
        comment="sa_audit: statements that read audited data",
    )


def access_row_table(metadata: sa.MetaData, schema: str | None, sequence: sa.Sequence) -> sa.Table:
    """Give ``audit_access_row``: the rows that a statement showed, by the text of their keys."""
    return _table(
        metadata,
        schema,
        sequence,
        ACCESS_ROW,
        sa.Column("access_id", BigId, nullable=False),
        sa.Column("table_name", Name, nullable=False),
        sa.Column("identity", Identity, nullable=False),
        sa.Index("ix_audit_access_row_row", "table_name", "identity", "audit_at"),
        sa.Index("ix_audit_access_row_access_id", "access_id"),
        comment="sa_audit: the rows that a statement has shown",
        mark=ACCESS,
    )


def key_table(metadata: sa.MetaData, schema: str | None, sequence: sa.Sequence) -> sa.Table:
    """Give ``audit_key``: that the key of a person was made, with what it is bound to, or destroyed.

    ``name`` says nothing of the person.  ``commitment`` is that of docs/format/entries.md, "Person key", as 64
    hexadecimal digits, and NULL for ``destroyed``.
    """
    return _table(
        metadata,
        schema,
        sequence,
        KEY,
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("event", sa.String(10), nullable=False),
        sa.Column("commitment", sa.String(64)),
        sa.Column("reason", sa.Text()),
        sa.Index("uq_audit_key_name_event", "name", "event", unique=True),
        comment="sa_audit: keys of persons, made and destroyed",
        mark=EVENT,
    )


def person_key_table(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    """Give ``audit_person_key``: the keys of persons, each wrapped by a key-encryption key.

    The one table of the trail whose rows are changed and deleted, by rotation and by erasure, so it is not sealed.  Its
    guards let a row be wrapped anew, and be deleted once ``audit_key`` says that the key was destroyed.
    """
    exact = sa.VARCHAR(MAX_SUBJECT, collation="utf8mb4_nopad_bin")  # which tells a name from one with a blank behind it
    text = sa.String(MAX_SUBJECT).with_variant(exact, "mysql", "mariadb")
    return sa.Table(
        PERSON_KEY,
        metadata,
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("subject", text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(2000), nullable=False),
        sa.Column("wrapped_by", sa.String(255), nullable=False),
        sa.Index("uq_audit_person_key_subject", "subject", unique=True),
        schema=schema,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        info={TRAIL_TABLE: PERSON_KEY},
        comment="sa_audit: wrapped keys of persons, without which nobody can read what is encrypted",
        extend_existing=True,
    )


def _table(
    metadata: sa.MetaData,
    schema: str | None,
    sequence: sa.Sequence,
    name: str,
    *items: sa.schema.SchemaItem,
    comment: str,
    mark: str | None = None,
) -> sa.Table:
    _clear_the_way(metadata, schema, name)
    return sa.Table(
        name,
        metadata,
        sa.Column(
            "audit_id", BigId, sequence, server_default=NextAuditId(sequence), primary_key=True, autoincrement=True
        ),
        sa.Column("audit_tx", BigId, nullable=False),
        sa.Column("audit_txid", BigId, server_default=DB_TXID),
        sa.Column("audit_at", UTCDateTime(), nullable=False),
        sa.Column("audit_salt", Salt, nullable=False, server_default=RANDOM_SALT),
        *items,
        sa.Index(f"ix_{name}_audit_tx", "audit_tx"),
        sa.PrimaryKeyConstraint("audit_id", name=f"pk_{name}"),
        schema=schema,
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
        info={TRAIL_TABLE: mark or name},
        comment=comment,
        extend_existing=True,
    )


def _clear_the_way(metadata: sa.MetaData, schema: str | None, name: str) -> None:
    """Make ready a reflected table, to be described anew; refuse another one of its name."""
    existing: Any = metadata.tables.get(f"{schema}.{name}" if schema else name)
    if existing is None:
        return
    if not {"audit_id", "audit_tx", "audit_at", "audit_salt"} <= set(existing.c.keys()):
        raise ConfigurationError(
            f"table {existing.fullname} is in the way of the trail's own table of that name: "
            "rename it, or have the trail in a schema of its own, by configure(base, schema=...) before it"
        )
    existing.indexes.clear()
