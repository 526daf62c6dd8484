"""Version tables of SQLAlchemy-Continuum, and the SQL that makes history rows of them.

A version is a row's whole state after a transaction; its operation is 0 (insert), 1 (update) or 2 (delete).  The one
before it is that of the greatest transaction below its own, under either of Continuum's strategies.  What changed is
compared by the same SQL that records changes, so an imported before-value has the same form as any other.

Imports ddl, model, query, errors and SQLAlchemy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import Backend, Target
from ..errors import ConfigurationError
from ..model import AuditedTable, RecordedColumn, Trail
from ..query.before import Reader

STAGE: Final = "sa_audit_versions"
MAP: Final = "sa_audit_imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How Continuum's tables and columns are called.

    Args:
        version_table: the name of a version table, with ``%s`` for the name of its table.
        transaction_table: the table of transactions, with its schema before a dot if it has one.
        meta_table: the table of ``TransactionMetaPlugin``, which is read if it is there.
        transaction: the column of a version that names its transaction.
        operation: the column of a version that holds its operation.
    """

    version_table: str = "%s_version"
    transaction_table: str = "transaction"
    meta_table: str = "transaction_meta"
    transaction: str = "transaction_id"
    operation: str = "operation_type"

    def __post_init__(self) -> None:
        if self.version_table.count("%s") != 1 or "%" in self.version_table.replace("%s", ""):
            raise ConfigurationError(f"version_table={self.version_table!r}: give a name with one %s in it")


class Versions:
    """A version table, in the shape of an audited table whose key begins with the transaction.

    Args:
        audited: the audited table.
        naming: how things are called.

    Attributes:
        table: the version table.
        key: its transaction and the key of the row.
        columns: the recorded columns, as the version table has them.
        recorded: the transaction, and the recorded columns that the history holds.
    """

    def __init__(self, audited: AuditedTable, naming: Naming) -> None:
        self.audited = audited
        self.trail: Trail = audited.trail
        self.history = audited.history
        self.memo: dict[Any, Any] = {}
        transaction = sa.Column(naming.transaction, sa.BigInteger(), primary_key=True)
        operation = sa.Column(naming.operation, sa.SmallInteger())
        keys = {column.name for column in audited.key}
        columns = {
            column.name: sa.Column(column.name, column.source.type, key=column.name, primary_key=column.name in keys)
            for column in audited.columns
        }
        name = naming.version_table % audited.table.name
        self.table = sa.Table(
            name, sa.MetaData(), transaction, operation, *columns.values(), schema=audited.table.schema
        )
        self.key = (transaction, *(columns[column.name] for column in audited.key))
        self.columns = [RecordedColumn(columns[c.name], c.recorded, c.policy) for c in audited.columns]
        self.recorded = [
            RecordedColumn(transaction, transaction, None),
            *(column for column in self.columns if column.recorded is not None),
        ]
        self.transaction, self.operation = transaction, operation

    def check(self, connection: Connection) -> bool:
        """Tell whether the version table is there.

        Raises:
            ConfigurationError: if it lacks a column.
        """
        inspector = sa.inspect(connection)
        if not inspector.has_table(self.table.name, schema=self.table.schema):
            return False
        there = {column["name"] for column in inspector.get_columns(self.table.name, schema=self.table.schema)}
        for column in self.table.columns:
            if column.name not in there:
                raise ConfigurationError(
                    f"{self.table.fullname} has no column {column.name!r}, so its values are not known: "
                    f"exclude the column of {self.audited.table.fullname} by Exclude() until it is imported, "
                    "or name the right columns"
                )
        return True

    # -- SQL -----------------------------------------------------------------------

    def fill_stage(self, backend: Backend, target: Target) -> sa.TextClause:
        """Give the INSERT that stages, for each update of a stretch of transactions, the version before it."""
        names = [*(f"k{i}" for i in range(len(self.key))), *(f"o{i}" for i in range(len(self.columns)))]
        values = [f"n.{backend.quote(column.name)}" for column in self.key]
        values += backend.staged_columns(self, "p")  # type: ignore[arg-type] # the shape of an audited table
        operation = backend.quote(self.operation.name)
        return sa.text(
            f"INSERT INTO {STAGE} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM {self._pairs(backend, target, 'JOIN')} "
            f"WHERE {self._stretch(backend)} AND n.{operation} <> 2 AND p.{operation} <> 2"
        )

    def write(self, connection: Connection, backend: Backend, target: Target) -> sa.TextClause:
        """Give the INSERT of the history rows of a stretch of transactions, in their order."""
        names = [backend.quote(column.name) for column in self.recorded[1:]]
        tx = backend.quote(self.transaction.name)
        operation = backend.quote(self.operation.name)
        deleted = f"n.{operation} = 2 AND p.{tx} IS NOT NULL"
        states = [f"CASE WHEN {deleted} THEN p.{name} ELSE n.{name} END AS {name}" for name in names]
        others = (
            f"SELECT CASE WHEN n.{operation} = 2 THEN 'D' WHEN p.{tx} IS NULL AND n.{operation} = 1 THEN 'B' "
            f"ELSE 'I' END AS audit_op, NULL AS audit_before, n.{tx}, {', '.join(states)} "
            f"FROM {self._pairs(backend, target, 'LEFT JOIN')} WHERE {self._stretch(backend)} AND "
            f"(p.{tx} IS NULL OR (p.{operation} = 2) <> (n.{operation} = 2))"
        )
        updates = backend.staged_rows(connection, target, STAGE)
        entries = backend.table_name(self.trail.transaction, target.schemas)
        columns = "".join(f", {name}" for name in names)
        return sa.text(
            f"INSERT INTO {backend.table_name(self.history, target.schemas)} "
            f"(audit_tx, audit_at, audit_flush, audit_op, audit_before{columns}) "
            f"SELECT e.id, e.recorded_at, 1, r.audit_op, r.audit_before{''.join(f', r.{name}' for name in names)} "
            f"FROM (SELECT * FROM ({updates}) AS u UNION ALL {others}) AS r "
            f"JOIN {MAP} AS m ON m.source = r.{tx} JOIN {entries} AS e ON e.id = m.entry ORDER BY r.{tx}"
        )

    def _pairs(self, backend: Backend, target: Target, join: str) -> str:
        """Give each version ``n`` joined with the one before it, ``p``."""
        table, tx = backend.table_name(self.table, target.schemas), backend.quote(self.transaction.name)
        keys = [backend.quote(column.name) for column in self.key[1:]]
        same = " AND ".join(f"p.{key} = n.{key}" for key in keys)
        earlier = " AND ".join(f"q.{key} = n.{key}" for key in keys)
        return (
            f"{table} AS n {join} {table} AS p ON {same} AND p.{tx} = "
            f"(SELECT max(q.{tx}) FROM {table} AS q WHERE {earlier} AND q.{tx} < n.{tx})"
        )

    def _stretch(self, backend: Backend) -> str:
        tx = backend.quote(self.transaction.name)
        return f"n.{tx} >= :first AND n.{tx} <= :last"

    # -- queries -------------------------------------------------------------------

    def transactions(self, after: int | None, limit: int) -> sa.Select[Any]:
        """Give the query for the numbers of the next transactions."""
        query = sa.select(self.transaction).distinct().order_by(self.transaction).limit(limit)
        return query if after is None else query.where(self.transaction > after)

    def foreign(self, reader: Reader, other: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Give the query for a key that has versions, and history under entries that meet a condition."""
        history, entries, table = self.history, self.trail.transaction, self.table
        same = (
            reader.same_key(history.c[column.key], table.c[column.name], nullable=False) for column in self.audited.key
        )
        return (
            sa.select(*(history.c[column.key] for column in self.audited.key))
            .select_from(history.join(entries, entries.c.id == history.c.audit_tx))
            .where(other, sa.exists().where(*same))
            .limit(1)
        )

    def since(self) -> tuple[sa.Select[Any], sa.Select[Any]]:
        """Give the queries for the latest first record that is no insert, and for the earliest record at all."""
        history, earlier = self.history, self.history.alias("earlier")
        same = (earlier.c[column.key] == history.c[column.key] for column in self.audited.key)
        begun = sa.select(sa.func.max(history.c.audit_at)).where(
            history.c.audit_op != "I", ~sa.exists().where(*same, earlier.c.audit_id < history.c.audit_id)
        )
        return begun, sa.select(sa.func.min(history.c.audit_at))
