"""What each database has to be asked by the verifier in its own way.

One class for each, chosen by name; a row is *covered* by a horizon if that says that the row was sealed.
Imports proof, catalog and errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..catalog import CatalogDatabase, catalog_for
from ..proof.entries import Horizon
from .ids import BITS
from .plans import LiveTable

COVERED, HIDDEN, OPEN = "covered", "hidden", "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """A SQL expression that says of a row whether it is covered, hidden or open, and its parameters."""

    expression: str
    parameters: dict[str, Any] = field(default_factory=dict)


class VerifierDatabase(ABC):
    """One database's way to be verified."""

    isolation = "REPEATABLE READ"

    def __init__(self, catalog: CatalogDatabase) -> None:
        self.catalog = catalog

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Give a connection in a transaction that sees one state, its settings pinned."""
        with engine.connect() as connection:
            connection = connection.execution_options(isolation_level=self.isolation)
            with connection.begin(), self.catalog.pinned(connection):
                self.only_read(connection)
                yield connection

    def only_read(self, connection: Connection) -> None:  # noqa: B027 (nothing to do by default)
        """Have the database refuse writing, where it can."""

    def chunk(self, column: str) -> str:
        """Give SQL for the number of an id's stretch."""
        return f"{column} >> {BITS}"

    def chunk_number(self, number: int) -> int:
        """Give the number of a stretch from what :meth:`chunk` gave."""
        return number

    @abstractmethod
    def coverage(self, table: LiveTable, horizon: Horizon | None, *, epochs: str, entries: int | None) -> Coverage:
        """Give what says of the rows of a table, called ``r``, how they stand to a horizon.

        Args:
            table: the table.
            horizon: the last one that is closed, or None.
            epochs: the quoted name of MariaDB's table of epochs.
            entries: the number in the log of the table of transactions, if it has one.
        """


class PostgreSQLVerifier(VerifierDatabase):
    """PostgreSQL."""

    def only_read(self, connection: Connection) -> None:
        """Make the transaction read-only."""
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))

    def coverage(self, table: LiveTable, horizon: Horizon | None, *, epochs: str, entries: int | None) -> Coverage:
        """Compare with the snapshot of the horizon; an id that the present snapshot does not know can't be there."""
        column = table.txid_column
        if column is None:
            return Coverage(expression=f"'{OPEN}'")
        txid = f"r.{self.catalog.spelling.quote(column)}"
        hidden = f"{txid} IS NULL OR {txid} <= 0 OR NOT {_VISIBLE.format(txid, 'pg_current_snapshot()')}"
        if horizon is None or horizon[0] != "snapshot":
            return Coverage(expression=f"CASE WHEN {hidden} THEN '{HIDDEN}' ELSE '{OPEN}' END")
        visible = _VISIBLE.format(txid, "CAST(:horizon AS pg_snapshot)")
        return Coverage(
            expression=f"CASE WHEN {hidden} THEN '{HIDDEN}' WHEN {visible} THEN '{COVERED}' ELSE '{OPEN}' END",
            parameters={"horizon": horizon[1]},
        )


class MariaDBVerifier(VerifierDatabase):
    """MariaDB."""

    def chunk_number(self, number: int) -> int:
        """Undo that shifting takes negative ids for great ones."""
        return number - (1 << 64 - BITS) if number >= 1 << 63 - BITS else number

    def coverage(self, table: LiveTable, horizon: Horizon | None, *, epochs: str, entries: int | None) -> Coverage:
        """Compare with the epoch of the horizon; an epoch that has not been opened can't be there."""
        column = table.txid_column
        if column is None:
            return Coverage(expression=f"'{OPEN}'")
        epoch = f"r.{self.catalog.spelling.quote(column)}"
        hidden = f"{epoch} IS NULL OR {epoch} > (SELECT max(epoch) FROM {epochs})"
        last = horizon[1] if horizon is not None and horizon[0] == "epoch" else -(1 << 62)
        covered = f"{epoch} <= :horizon"
        return Coverage(
            expression=f"CASE WHEN {hidden} THEN '{HIDDEN}' WHEN {covered} THEN '{COVERED}' ELSE '{OPEN}' END",
            parameters={"horizon": last},
        )


class SQLiteVerifier(VerifierDatabase):
    """SQLite: the ids say it all."""

    isolation = "SERIALIZABLE"

    def coverage(self, table: LiveTable, horizon: Horizon | None, *, epochs: str, entries: int | None) -> Coverage:
        """Compare with the last rows of the horizon: the row's own id, and its transaction.

        The sealer holds the write lock, so that what belongs to a transaction is sealed with its entry or never.
        """
        last = dict(horizon[1]) if horizon is not None and horizon[0] == "rowid" else {}
        limits = {table.id_column: last.get(table.number or 0)}
        if any(column.name == "audit_tx" for column in table.columns):
            limits["audit_tx"] = last.get(entries or 0)
        known = {column: limit for column, limit in limits.items() if limit is not None}
        if not known:
            return Coverage(expression=f"'{OPEN}'")
        quote = self.catalog.spelling.quote
        covered = " OR ".join(f"r.{quote(column)} <= :{column}" for column in known)
        return Coverage(expression=f"CASE WHEN {covered} THEN '{COVERED}' ELSE '{OPEN}' END", parameters=dict(known))


def verifier_for(engine: Engine) -> VerifierDatabase:
    """Give the class for an engine's database.

    Raises:
        ConfigurationError: for a database that the library does not know.
    """
    catalog = catalog_for(engine.dialect)
    known: dict[str, type[VerifierDatabase]] = {
        "postgresql": PostgreSQLVerifier,
        "mysql": MariaDBVerifier,
        "mariadb": MariaDBVerifier,
        "sqlite": SQLiteVerifier,
    }
    return known[engine.dialect.name](catalog)


_VISIBLE: Final = "pg_visible_in_snapshot(CAST(CAST({0} AS text) AS xid8), {1})"
