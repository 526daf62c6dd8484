"""The history that SQLAlchemy-Continuum wrote, carried over as history rows under entries of their own.

Each of Continuum's transactions becomes an entry that is dated when it was issued, and marked as imported; each
version becomes a history row, with the before-values computed from the version before it.  The transactions come in
their order, in batches that are a database transaction each; the guard that would date them by the present clock is
lifted by :mod:`.door`.  Where a batch ends is read off the trail, so an import that was broken off is run again.

Imports door, notes, versions, model, ddl, query, errors and SQLAlchemy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..ddl import Backend, Target, backend_for
from ..ddl.backend import OWN, internal
from ..ddl.events import run, schemas_of
from ..errors import CaptureMissing, ConfigurationError, Conflict, IntegrityFinding
from ..model import AuditedTable, Trail
from ..model.tables import IMPORT_BEGUN, IMPORT_DONE
from ..query.before import Reader, reader_for
from .door import Door, door_of
from .keyset import unrecorded
from .notes import newest_note, note
from .versions import MAP, STAGE, Naming, Versions

REASON: Final = "sa_audit: imported from SQLAlchemy-Continuum"
TRANSACTIONS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was carried over of one table.

    Args:
        table: the audited table's full name.
        versions: how many versions were read; those that an earlier run had carried over don't count.
        rows: how many history rows were written; a version that changes nothing gets none.
        since: from when on the history is complete, so that :func:`sa_audit.as_of` can go back to it; None where rows
            stand in the table of which there is no version, so that it is not known what else there was.
    """

    table: str
    versions: int
    rows: int
    since: dt.datetime | None


def import_continuum(
    engine: Engine,
    tables: Iterable[AuditedTable],
    *,
    naming: Naming | None = None,
    actor: str | None = None,
    reason: str | None = None,
    transactions: int = TRANSACTIONS,
    progress: Callable[[int], None] | None = None,
) -> list[Imported]:
    """Carry the version tables of SQLAlchemy-Continuum over into the history.

    Let nobody write the tables from the migration that makes the trail until the import has ended: history rows come
    in the order of changes, and nothing can be put before a row that is there.  So let the migration leave the
    baseline (``alembic -x audit_baseline=later``), import, and run :func:`baseline` for rows without versions then.

    Run it as the owner of the trail.  A table that was imported is left alone, and an import that was broken off goes
    on where it ended.

    Args:
        engine: of the database.
        tables: the audited tables; those without a version table are left out.
        naming: how Continuum's tables and columns are called.
        actor: who imports; kept in each entry's context, since its actor is the one of Continuum's transaction.
        reason: why; likewise.
        transactions: how many of Continuum's transactions a database transaction carries over.
        progress: called after each batch with the number of transactions in it.

    Returns:
        What was done, for each table that has a version table.

    Raises:
        ConfigurationError: if no table has versions, or a version table lacks a recorded column.
        CaptureMissing: if the database has no trail, or its guards are not as they should be.
        Conflict: if keys have history already that was not imported, or another set of tables was begun.
        IntegrityFinding: if versions name a transaction that is missing or has no moment.
    """
    if transactions < 1:
        raise ConfigurationError(f"transactions={transactions!r}: give their number in a batch, from 1 on")
    by_trail: dict[Trail, list[AuditedTable]] = {}
    for audited in tables:
        if audited.formed:
            raise ConfigurationError(
                f"column {audited.formed[0].source} has the policy {audited.formed[0].policy!r}, and the import "
                "copies versions inside the database, which must not have the key: import before the policy is "
                "declared, or leave this table out and give it a baseline"
            )
        by_trail.setdefault(audited.trail, []).append(audited)
    naming = naming or Naming()
    with engine.connect() as plain:
        isolation = backend_for(plain.dialect).fresh_isolation
    options = {"isolation_level": isolation} if isolation else {}
    done: list[Imported] = []
    with engine.execution_options(**options).connect() as connection:
        for trail, group in by_trail.items():
            by = {"imported_by": actor, "import_reason": reason}
            done += _Import(connection, trail, group, naming, by, transactions, progress).run()
    if not done:
        raise ConfigurationError(
            f"none of the audited tables has a version table (such as {naming.version_table % 'account'}): "
            "name them by version_table"
        )
    return done


class _Import:
    """The import into one trail, on one connection."""

    def __init__(
        self,
        connection: Connection,
        trail: Trail,
        group: Sequence[AuditedTable],
        naming: Naming,
        by: Mapping[str, Any],
        batch: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.connection = connection
        self.trail = trail
        self.group = group
        self.naming = naming
        self.by = {name: value for name, value in by.items() if value is not None}
        self.batch = batch
        self.progress = progress
        self.backend: Backend = backend_for(connection.dialect)
        self.reader: Reader = reader_for(connection)
        self.sources: list[Versions] = []
        self.counts: dict[str, list[int]] = {}
        self.number = 0
        self.looked = 0

    def run(self) -> list[Imported]:
        """Begin or go on, batch by batch, and note the end."""
        with self.connection.begin():
            self._require_trail()
            found = [Versions(audited, self.naming) for audited in self.group]
            found = [versions for versions in found if versions.check(self.connection)]
            ended = [versions for versions in found if self._noted(versions) == IMPORT_DONE]
            self.sources = [versions for versions in found if versions not in ended]
            self.counts = {versions.audited.table.fullname: [0, 0] for versions in found}
            after = self._begin() if self.sources else None
        if self.sources:
            self._import_after(after)
        return [self._result(versions) for versions in found]

    def _require_trail(self) -> None:
        inspector, schemas = sa.inspect(self.connection), schemas_of(self.connection)
        for table in (self.trail.transaction, *(audited.history for audited in self.group)):
            if not inspector.has_table(table.name, schema=schemas.get(table.schema, table.schema)):
                raise CaptureMissing(f"the database lacks {table.fullname}: run the migration first")

    # -- where it stands -----------------------------------------------------------

    def _noted(self, versions: Versions) -> str | None:
        return newest_note(self.connection, versions.audited, IMPORT_BEGUN, IMPORT_DONE)

    def _begin(self) -> int | None:
        """Note the beginning, or find it noted; give the last of Continuum's transactions that is there."""
        begun = [versions for versions in self.sources if self._noted(versions) == IMPORT_BEGUN]
        if begun and len(begun) < len(self.sources):
            names = ", ".join(versions.audited.table.fullname for versions in begun)
            raise Conflict(f"an import of {names} was broken off: run it again with these tables, and then the others")
        self._refuse_foreign()
        if not begun:
            for versions in self.sources:
                note(self.connection, versions.audited, IMPORT_BEGUN)
        columns, tables = self.trail.column, [versions.audited.table.fullname for versions in self.sources]
        numbers = sa.select(sa.func.max(columns.c.id)).where(
            columns.c.table_name.in_(tables), columns.c.event == IMPORT_BEGUN
        )
        self.number = int(internal(self.connection, numbers).scalar())
        return self._last() if begun else None

    def _last(self) -> int | None:
        entries = self.trail.transaction
        newest = sa.select(entries.c.context).where(entries.c.reason == REASON).order_by(entries.c.id.desc()).limit(1)
        context = internal(self.connection, newest).scalar()
        if context is None or context.get("import") != self.number:
            return None
        return int(context["continuum"]["id"])

    def _refuse_foreign(self) -> None:
        """Refuse keys with other history; looked for only where others have written entries since the last time."""
        entries = self.trail.transaction
        other = sa.or_(entries.c.reason.is_(None), entries.c.reason != REASON)
        newer = sa.select(entries.c.id).where(entries.c.id > self.looked, other).limit(1)
        if internal(self.connection, newer).first() is None:
            return
        for versions in self.sources:
            key = internal(self.connection, versions.foreign(self.reader, other)).first()
            if key is not None:
                raise Conflict(
                    f"{versions.history.fullname} holds history of {tuple(key)!r} already, and nothing can be put "
                    "before it: import before anything is recorded, and leave the baseline to sa-audit baseline"
                )

    # -- batches -------------------------------------------------------------------

    def _import_after(self, after: int | None) -> None:
        door = door_of(self.connection, self.trail, [versions.history for versions in self.sources])
        with door.around():
            while numbers := self._next(after):
                with self.connection.begin():
                    self._batch(door, numbers)
                after = numbers[-1]
                if self.progress is not None:
                    self.progress(len(numbers))
        with self.connection.begin():
            for versions in self.sources:
                note(self.connection, versions.audited, IMPORT_DONE, self._since(versions))

    def _next(self, after: int | None) -> list[int]:
        """Give the numbers of the next transactions that have versions of any of the tables."""
        with self.connection.begin():
            found = {
                number
                for versions in self.sources
                for number in internal(self.connection, versions.transactions(after, self.batch)).scalars()
            }
        return sorted(found)[: self.batch]

    def _batch(self, door: Door, numbers: Sequence[int]) -> None:
        target = Target(self.sources[0].audited, schemas_of(self.connection))
        self.backend.lock_writer(self.connection, target)
        with door.lifted():
            self._refuse_foreign()
            self._write_entries(numbers)
            for versions in self.sources:
                self._write_rows(versions, {"first": numbers[0], "last": numbers[-1]})
            run(self.connection, self.backend.drop_stage(MAP))

    def _write_rows(self, versions: Versions, stretch: dict[str, int]) -> None:
        target: Any = Target(versions, schemas_of(self.connection))  # type: ignore[arg-type] # the shape of an audited table
        run(self.connection, [*self.backend.drop_stage(STAGE), *self.backend.create_stage(target, STAGE)])
        internal(self.connection, versions.fill_stage(self.backend, target), stretch)
        rows = internal(self.connection, versions.write(self.connection, self.backend, target), stretch).rowcount
        run(self.connection, self.backend.drop_stage(STAGE))
        within = versions.transaction.between(stretch["first"], stretch["last"])
        read = internal(self.connection, sa.select(sa.func.count()).select_from(versions.table).where(within)).scalar()
        count = self.counts[versions.audited.table.fullname]
        count[0] += read
        count[1] += rows

    def _write_entries(self, numbers: Sequence[int]) -> None:
        """Write an entry for each transaction, and keep which is which in a temporary table."""
        entries = self.trail.transaction
        rows = [self._entry(row) for row in self._transactions(numbers)]
        insert = sa.insert(entries).returning(entries.c.id, sort_by_parameter_order=True)
        ids = self.connection.execute(insert, rows, execution_options=OWN).scalars().all()
        self.looked = max(ids)  # nobody else has written since: the guard keeps others out until the batch is committed
        create = f"CREATE TEMPORARY TABLE {MAP} (source BIGINT PRIMARY KEY, entry BIGINT NOT NULL)"
        run(self.connection, [*self.backend.drop_stage(MAP), create])
        pairs = [{"source": source, "entry": entry} for source, entry in zip(numbers, ids, strict=True)]
        internal(self.connection, sa.text(f"INSERT INTO {MAP} (source, entry) VALUES (:source, :entry)"), pairs)

    def _transactions(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Read Continuum's transactions, each with what its plugin kept of it."""
        table = self._reflected(self.naming.transaction_table)
        if table is None:
            raise ConfigurationError(f"there is no table {self.naming.transaction_table!r}: name that of transactions")
        found = internal(self.connection, sa.select(table).where(table.c.id.in_(numbers))).mappings()
        known = {row["id"]: dict(row) for row in found}
        for number in numbers:
            if known.get(number, {}).get("issued_at") is None:
                raise IntegrityFinding(
                    f"versions name transaction {number}, which is not in {table.fullname} or has no issued_at: "
                    "when they were made is not known"
                )
        meta = self._reflected(self.naming.meta_table)
        if meta is not None:
            said = sa.select(meta.c.transaction_id, meta.c.key, meta.c.value).where(meta.c.transaction_id.in_(numbers))
            for number, key, value in internal(self.connection, said):
                known[number].setdefault("meta", {})[key] = value
        return [known[number] for number in numbers]

    def _reflected(self, name: str) -> sa.Table | None:
        schema, _, bare = name.rpartition(".")
        if not sa.inspect(self.connection).has_table(bare, schema=schema or None):
            return None
        return sa.Table(bare, sa.MetaData(), schema=schema or None, autoload_with=self.connection, resolve_fks=False)

    def _entry(self, row: dict[str, Any]) -> dict[str, Any]:
        issued: dt.datetime = row["issued_at"]
        user, rest = row.get("user_id"), {"issued_at", "remote_addr"}
        return {
            "recorded_at": issued.replace(tzinfo=dt.UTC) if issued.tzinfo is None else issued.astimezone(dt.UTC),
            "actor": None if user is None else str(user),
            "remote_addr": row.get("remote_addr"),
            "reason": REASON,
            "context": {
                "import": self.number,
                "continuum": {name: _plain(value) for name, value in row.items() if name not in rest},
                **self.by,
            },
        }

    # -- the end -------------------------------------------------------------------

    def _since(self, versions: Versions) -> dt.datetime | None:
        """Give the moment from which on every row is known, or None if there is no such moment yet."""
        rows = versions.audited.table.alias("t")
        lacking = sa.select(sa.literal(1)).select_from(rows).where(unrecorded(versions.audited, rows, self.reader))
        if internal(self.connection, lacking.limit(1)).first() is not None:
            return None
        moments = [internal(self.connection, query).scalar() for query in versions.since()]
        return next((moment for moment in moments if moment is not None), None)

    def _result(self, versions: Versions) -> Imported:
        name, columns = versions.audited.table.fullname, self.trail.column
        with self.connection.begin():
            dated = sa.select(columns.c.recorded_at).where(columns.c.table_name == name, columns.c.event == IMPORT_DONE)
            at = internal(self.connection, dated.order_by(columns.c.id.desc()).limit(1)).scalar()
            begun = sa.select(sa.func.max(columns.c.recorded_at)).where(
                columns.c.table_name == name, columns.c.event == IMPORT_BEGUN
            )
            since = at if at < internal(self.connection, begun).scalar() else None
        read, rows = self.counts[name]
        return Imported(table=name, versions=read, rows=rows, since=since)


def _plain(value: Any) -> Any:
    """Give a value as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
