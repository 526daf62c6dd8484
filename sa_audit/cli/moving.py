"""``sa-audit partitions --move``: rows that stand in a default partition get partitions of their own.

The guards refuse to delete rows, so nothing is deleted: the default partition is taken off the history, its rows are
copied into new tables, which become the partitions of their months, and only if these hold the very same rows is the
old table dropped, all in one transaction that leaves an event.  Ids, salts and moments stay, so what was sealed still
verifies.  Imports adoption, capture, catalog, ddl and model.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..adoption.notes import note
from ..capture import clock
from ..capture.afterwards import claims_alone
from ..capture.context import current_context
from ..catalog.partitions import PartitionedHistory, following
from ..ddl.backend import OWN
from ..ddl.events import run
from ..ddl.postgresql import PostgreSQL
from ..ddl.postgresql_partitions import stem_of
from ..ddl.values import Target
from ..model import AuditedTable
from ..model.tables import PARTITIONED
from .failure import CantRun

ACTION: Final = "sa_audit.partitioned"


def move_early(connection: Connection, backend: PostgreSQL, history: PartitionedHistory) -> Mapping[dt.datetime, int]:
    """Move the rows of a history's default partition into partitions of their months; give how many of which month.

    Nobody can read or write the history until the transaction ends.

    Args:
        connection: in a transaction, as a member of the owner's role.
        backend: the connection's.
        history: as it stands.

    Raises:
        CantRun: if the copies are not what they should be; nothing is changed then.
    """
    default = next((part.name for part in history.partitions or () if part.default), None)
    if default is None or not history.early:
        return {}
    audited, name = history.audited, backend.table_name(history.audited.history, {}).replace("\\:", ":")
    _run(connection, f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    columns = ", ".join(backend.quote(text).replace("\\:", ":") for text in _columns(connection, default))
    counts = _counts(connection, default)
    before = _digest(connection, [default], columns)
    _run(connection, f"ALTER TABLE {name} DETACH PARTITION {default}")
    made = [_partition(connection, backend, audited, default, columns, month) for month in counts]
    if _digest(connection, made, columns) != before or before[0] != sum(counts.values()):
        raise CantRun(f"the rows of {default} could not be copied as they are, so nothing was changed")
    _run(connection, f"DROP TABLE {default}")
    run(connection, [backend.make_partitions(audited, {}, connection.dialect.default_schema_name)])
    note(connection, audited, PARTITIONED)  # so that verification knows why another relation stands there
    _tell(connection, backend, audited, default, counts)
    return counts


def _partition(
    connection: Connection, backend: PostgreSQL, audited: AuditedTable, default: str, columns: str, month: dt.datetime
) -> str:
    """Make a month's partition of the rows that stand in a table; give its name."""
    history = backend.table_name(audited.history, {}).replace("\\:", ":")
    schema = audited.history.schema or connection.dialect.default_schema_name or "public"
    made = _free(connection, schema, f"{stem_of(audited.history.name)}_{month:%Y_%m}")
    since, until = (f"'{moment:%Y-%m-%d} 00:00:00+00'" for moment in (month, following(month)))
    _run(connection, f"CREATE TABLE {made} (LIKE {history} INCLUDING DEFAULTS INCLUDING STORAGE)")
    comment = backend.literal(f"sa_audit: partition of {audited.history.fullname}").replace("\\:", ":")
    _run(connection, f"COMMENT ON TABLE {made} IS {comment}")
    _run(
        connection,
        f"INSERT INTO {made} ({columns}) SELECT {columns} FROM {default}"
        f" WHERE audit_at >= {since} AND audit_at < {until}",
    )
    _run(connection, f"ALTER TABLE {history} ATTACH PARTITION {made} FOR VALUES FROM ({since}) TO ({until})")
    return made


def _free(connection: Connection, schema: str, name: str) -> str:
    """Give a table's full name, with a number behind it where there is one of that name."""
    number, wanted = 0, name
    while connection.scalar(_NAMED, {"schema": schema, "name": wanted}) is not None:
        number += 1
        wanted = f"{name}_{number}"
    quote = connection.dialect.identifier_preparer.quote
    return f"{quote(schema)}.{quote(wanted)}".replace("%%", "%")


def _columns(connection: Connection, table: str) -> list[str]:
    return list(connection.scalars(_COLUMNS, {"name": table}))


def _counts(connection: Connection, table: str) -> dict[dt.datetime, int]:
    rows = _run(
        connection,
        "SELECT date_trunc('month', audit_at AT TIME ZONE 'UTC') AS month, count(*) AS number"
        f" FROM {table} GROUP BY 1 ORDER BY 1",
    )
    return {month.replace(tzinfo=dt.UTC): number for month, number in rows}


def _digest(connection: Connection, tables: Sequence[str], columns: str) -> tuple[Any, ...]:
    """Give number and sum of hashes of all rows of some tables, whatever their order."""
    rows = " UNION ALL ".join(f"SELECT CAST(ROW({columns}) AS text) AS row FROM {table}" for table in tables)
    text = f"SELECT count(*), sum(CAST(hashtextextended(row, 0) AS numeric)) FROM ({rows}) AS r"
    return tuple(_run(connection, text).one())


def _tell(
    connection: Connection,
    backend: PostgreSQL,
    audited: AuditedTable,
    default: str,
    counts: Mapping[dt.datetime, int],
) -> None:
    """Leave an event, under who and why of the context."""
    claims = claims_alone(connection, Target(audited), current_context(), None)
    entry = backend.insert_entry(connection, Target(audited), claims, None, clock.now())
    moved = {f"{month:%Y-%m}": number for month, number in counts.items()}
    values = {
        "action": ACTION,
        "entity": None,
        "table_name": audited.table.fullname,
        "identity": None,
        "data": {"history": audited.history.fullname, "from": default, "rows": moved},
        "durable": 0,
    }
    backend.insert_event(connection, audited.trail, entry, values)


def _run(connection: Connection, sql: str) -> Any:
    return connection.exec_driver_sql(sql.replace("%", "%%"), execution_options=OWN)


_NAMED: Final = sa.text("SELECT to_regclass(format('%I.%I', CAST(:schema AS text), CAST(:name AS text)))")
_COLUMNS: Final = sa.text(
    "SELECT CAST(attname AS text) FROM pg_attribute WHERE attrelid = CAST(:name AS regclass) AND attnum > 0"
    " AND NOT attisdropped ORDER BY attnum"
)
