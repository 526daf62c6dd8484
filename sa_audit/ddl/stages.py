"""Many rows: their images are kept in a temporary table, and compared and recorded by one statement.

Imports model and the values only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import AuditedTable
from ..model.types import BigId, UTCDateTime
from .spelling import Spelling
from .values import Entry, Target, internal, moment_parameter


class Stages(Spelling, ABC):
    """One database's way to stage images and to record what differs from them."""

    locks_rows: ClassVar[bool] = True

    @abstractmethod
    def create_stage(self, target: Target, name: str) -> list[str]:
        """Give the statements that create a temporary table for images: columns ``k0..`` and ``o0..``."""

    def drop_stage(self, name: str) -> list[str]:
        """Give the statements that drop such a table if it is there, without ending the transaction."""
        return [f"DROP TABLE IF EXISTS {name}"]

    @abstractmethod
    def staged_rows(self, connection: Connection, target: Target, name: str) -> str:
        """Give the SELECT of the rows that differ from their staged images: operation, before-object, columns."""

    @abstractmethod
    def staged_columns(self, audited: AuditedTable, alias: str) -> list[str]:
        """Give the SQL expressions that a stage keeps of a row, one for each recorded column."""

    def stage(self, audited: AuditedTable, name: str) -> sa.TableClause:
        """Give a stage as a table to write expressions with."""
        keys = [sa.column(f"k{i}", column.type) for i, column in enumerate(audited.key)]
        images: list[Any] = [sa.column(f"o{i}") for i in range(len(audited.columns))]
        return sa.table(name, *keys, *images)

    def stage_rows(self, target: Target, name: str, condition: Any) -> Any:
        """Give the INSERT that reads, locks and stages the rows of a condition."""
        audited = target.audited
        source = self.table_name(audited.table, target.schemas).replace("\\:", ":")
        images: list[Any] = [
            sa.literal_column(text.replace("\\:", ":")) for text in self.staged_columns(audited, source)
        ]
        stage = self.stage(audited, name)
        query = sa.select(*audited.key, *images).select_from(audited.table).where(condition)
        if self.locks_rows:
            query = query.with_for_update(of=audited.table, key_share=True)
        return sa.insert(stage).from_select(list(stage.c), query)

    def record_staged(self, connection: Connection, target: Target, name: str, flush: int, entry: Entry) -> int:
        """Record the rows that differ from their staged images; give their number."""
        audited = target.audited
        columns = "".join(f", {self.quote(column.name)}" for column in audited.recorded)
        sql = (
            f"INSERT INTO {self.table_name(audited.history, target.schemas)} "
            f"(audit_tx, audit_at, audit_flush, audit_op, audit_before{columns}) "
            f"SELECT :tx, :at, :flush, r.* FROM ({self.staged_rows(connection, target, name)}) AS r"
        )
        statement = sa.text(sql).bindparams(
            moment_parameter("at"), sa.bindparam("tx", type_=BigId), sa.bindparam("flush", type_=sa.Integer())
        )
        parameters = {"tx": entry.id, "at": entry.recorded_at, "flush": flush}
        return int(internal(connection, statement, parameters).rowcount)

    def any_staged(self, connection: Connection, target: Target, name: str) -> bool:
        """Tell whether any row differs from its staged image."""
        sql = f"SELECT 1 FROM ({self.staged_rows(connection, target, name)}) AS r LIMIT 1"
        return internal(connection, sa.text(sql)).first() is not None

    def copy_where(self, target: Target, condition: Any, flush: int, entry: Entry) -> Any:
        """Give the INSERT that copies the rows of a condition into the history as deleted."""
        audited = target.audited
        names = ["audit_tx", "audit_op", "audit_at", "audit_flush"]
        query = (
            sa.select(
                sa.literal(entry.id, sa.BigInteger()),
                sa.literal("D", sa.String()),
                sa.literal(entry.recorded_at, UTCDateTime()),
                sa.literal(flush, sa.Integer()),
                *(column.source for column in audited.recorded),
            )
            .select_from(audited.table)
            .where(condition)
        )
        if self.locks_rows:
            query = query.with_for_update(of=audited.table)
        columns = [audited.history.c[name] for name in names]
        columns += [column.recorded for column in audited.recorded if column.recorded is not None]
        return sa.insert(audited.history).from_select(columns, query, include_defaults=False)
