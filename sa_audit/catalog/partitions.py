"""The partitions of histories by month, as PostgreSQL's catalog has them, and what is not as it should be with them.

Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import backend_for
from ..ddl.postgresql_partitions import INSERT_GUARD, LOWER, UPPER
from ..model.history import AuditedTable, Trail
from .level import Finding

REMEDY: Final = "run sa-audit partitions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition of a history.

    Args:
        name: its full name, quoted where it has to be.
        default: whether it takes what no other does.
        since: from when on (inclusive), None where there is no bound.
        until: until when (exclusive), None where there is no bound.
        lacks: the guards that it has not.
        owned: whether it has the owner of the history.
        granted: who has any right on it beside the owner.
    """

    name: str
    default: bool
    since: dt.datetime | None
    until: dt.datetime | None
    lacks: tuple[str, ...]
    owned: bool
    granted: tuple[str, ...]

    def covers(self, month: dt.datetime) -> bool:
        """Tell whether all of a month, given by its start, belongs here."""
        if self.default:
            return False
        early = self.since is None or self.since <= month
        return early and (self.until is None or self.until >= following(month))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionedHistory:
    """A history that is to be kept by month, as it stands.

    Args:
        audited: whose.
        partitions: its partitions; None if it is not partitioned.
        early: how many rows of which month the default partition holds.
    """

    audited: AuditedTable
    partitions: tuple[Partition, ...] | None
    early: Mapping[dt.datetime, int]

    def missing(self, months: Iterable[dt.datetime]) -> list[dt.datetime]:
        """Give those of some months, by their starts, that have no partition."""
        return [month for month in months if not any(one.covers(month) for one in self.partitions or ())]


def this_month(now: dt.datetime) -> dt.datetime:
    """Give the start of a moment's month of UTC."""
    return now.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def following(month: dt.datetime) -> dt.datetime:
    """Give the start of the month after."""
    return this_month(month + dt.timedelta(days=32))


def coming(now: dt.datetime, ahead: int) -> list[dt.datetime]:
    """Give the starts of the present month and of those that follow it."""
    months = [this_month(now)]
    while len(months) <= ahead:
        months.append(following(months[-1]))
    return months


def read_partitions(connection: Connection, trail: Trail) -> list[PartitionedHistory]:
    """Read the partitions of the histories that are to be kept by month, where they stand.

    Args:
        connection: to PostgreSQL, as an account that may read the histories.
        trail: whose.
    """
    default = connection.dialect.default_schema_name or "public"
    found = []
    for audited in trail.audited.values():
        if not audited.partitioned:
            continue
        place = {"schema": audited.history.schema or default, "name": audited.history.name}
        form = connection.scalar(_FORM, place)
        if form is None:
            continue
        rows = connection.execute(_PARTITIONS, place).all() if form == "p" else ()
        parts = tuple(_partition(row, row.by_statement) for row in rows) if form == "p" else None
        early = next((_early(connection, audited, row) for row in rows if row.is_default), {})
        found.append(PartitionedHistory(audited=audited, partitions=parts, early=early))
    return found


def _partition(row: sa.Row[tuple[object, ...]], by_statement: bool) -> Partition:
    needed = {"sa_audit_guard_row", "sa_audit_guard_truncate", INSERT_GUARD if by_statement else "sa_audit_insert"}
    return Partition(
        name=row.name,
        default=row.is_default,
        since=_utc(row.since),
        until=_utc(row.until),
        lacks=tuple(sorted(needed - set(row.guards))),
        owned=row.owned,
        granted=tuple(row.granted),
    )


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.replace(tzinfo=dt.UTC)


def _early(connection: Connection, audited: AuditedTable, row: sa.Row[tuple[object, ...]]) -> dict[dt.datetime, int]:
    """Count the rows of the default partition; through the history, where it may not be read by itself."""
    backend = backend_for(connection.dialect)
    history = backend.table_name(audited.history, {}).replace("\\:", ":")
    source = row.name if row.readable else f"{history} WHERE tableoid = {int(row.oid)}"
    rows = connection.exec_driver_sql(
        f"SELECT date_trunc('month', audit_at AT TIME ZONE 'UTC') AS month, count(*) AS number FROM {source}"
        " GROUP BY 1 ORDER BY 1".replace("%", "%%")
    )
    return {moment.replace(tzinfo=dt.UTC): number for moment, number in rows}


# -- check -------------------------------------------------------------------------------------


def partition_findings(connection: Connection, trail: Trail, now: dt.datetime) -> Iterator[Finding]:
    """Say what is not as it should be with a trail's partitions.

    Args:
        connection: to PostgreSQL.
        trail: whose.
        now: the moment whose month, and the one after it, should have partitions.
    """
    histories = read_partitions(connection, trail)
    for history in histories:
        yield from _of_history(history, coming(now, 1))
    if histories:
        schemas = {entry.audited.history.schema or connection.dialect.default_schema_name for entry in histories}
        for row in connection.execute(_DETACHED, {"schemas": sorted(map(str, schemas))}):
            yield Finding(
                kind="detached-partition",
                place=row.name,
                message="it was a partition of a history, whose rows are no longer seen: attach it again",
            )


def _of_history(history: PartitionedHistory, months: Sequence[dt.datetime]) -> Iterator[Finding]:
    name = history.audited.history.fullname
    if history.partitions is None:
        yield Finding(
            kind="not-partitioned",
            place=name,
            message="the model asks for a history by month, and this one is a plain table: leave partition out, or "
            "begin another history by AuditOptions(history_table=...)",
            blocks=None,
        )
        return
    for month in history.missing(months):
        if month not in history.early:
            yield Finding(
                kind="missing-partition",
                place=name,
                message=f"there is no partition for {month:%Y-%m}, so its rows go to the default one: {REMEDY}",
                blocks=None,
            )
    for month, number in history.early.items():
        yield Finding(
            kind="rows-in-default-partition",
            place=name,
            message=f"{number} rows of {month:%Y-%m} stand in the default partition: {REMEDY} --move",
            blocks=None,
        )
    for part in history.partitions:
        if part.lacks:
            yield Finding(
                kind="unguarded-partition",
                place=part.name,
                message=f"the partition lacks {', '.join(part.lacks)}, or it is not ENABLE ALWAYS: {REMEDY}",
            )
        if not part.owned or part.granted:
            yield Finding(
                kind="partition-rights",
                place=part.name,
                message="the partition has "
                + ("rights of its own" if part.owned else "another owner than its history")
                + f": {REMEDY}",
                got=", ".join(part.granted) or None,
                blocks=2,
            )


_FORM: Final = sa.text(
    "SELECT CAST(c.relkind AS text) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE n.nspname = :schema AND c.relname = :name AND c.relkind IN ('r', 'p')"
)

_PARTITIONS: Final = sa.text(
    "SELECT c.oid, CAST(CAST(c.oid AS regclass) AS text) AS name, p.partdefid = c.oid AS is_default,"
    f" ({LOWER}) AT TIME ZONE 'UTC' AS since, ({UPPER}) AT TIME ZONE 'UTC' AS until,"
    " c.relowner = h.relowner AS owned, has_table_privilege(c.oid, 'SELECT') AS readable,"
    " EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = h.oid AND t.tgname = 'sa_audit_insert'"
    " AND t.tgtype % 2 = 0) AS by_statement,"
    " ARRAY(SELECT CAST(t.tgname AS text) FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal"
    " AND (t.tgenabled = 'A' OR (t.tgenabled = 'O' AND t.tgname NOT LIKE 'sa!_audit!_guard%' ESCAPE '!'))) AS guards,"
    " ARRAY(SELECT DISTINCT CAST(coalesce(r.rolname, 'PUBLIC') AS text) FROM aclexplode(c.relacl) AS a"
    " LEFT JOIN pg_roles AS r ON r.oid = a.grantee WHERE a.grantee <> c.relowner ORDER BY 1) AS granted"
    " FROM pg_partitioned_table AS p JOIN pg_class AS h ON h.oid = p.partrelid"
    " JOIN pg_namespace AS n ON n.oid = h.relnamespace"
    " JOIN pg_inherits AS i ON i.inhparent = h.oid JOIN pg_class AS c ON c.oid = i.inhrelid"
    " WHERE n.nspname = :schema AND h.relname = :name ORDER BY since NULLS LAST"
)

_DETACHED: Final = sa.text(
    "SELECT CAST(CAST(c.oid AS regclass) AS text) AS name FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND NOT c.relispartition AND n.nspname = ANY (:schemas)"
    " AND starts_with(obj_description(c.oid, 'pg_class'), 'sa_audit\\: partition of ') ORDER BY 1"
).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())))
