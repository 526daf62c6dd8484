"""A checkpoint of the sealed log as a moment: the state that all rows sealed up to it show, exactly.

The header of the last block under the checkpoint says how far the rows were complete: a snapshot of PostgreSQL, an
epoch of MariaDB, the last entry of SQLite.  What the log says is taken as it is here; whether it is true,
:func:`sa_audit.verify` tells.  Imports catalog, proof, model, errors and the moment.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import noted_trails
from ..errors import IntegrityFinding, InvalidMoment
from ..model import Trail
from ..model.history import known_trails
from .moment import Epoch, LastEntry, Moment, Snapshot, parse_moment

if TYPE_CHECKING:
    from ..proof.checkpoint import Checkpoint
    from ..proof.entries import BlockEntry

_START = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@runtime_checkable
class _NamesTree(Protocol):
    origin: str
    size: int
    root: Any


def is_checkpoint(when: Any) -> TypeGuard[Checkpoint]:
    """Tell whether ``when`` is a checkpoint, without loading what makes one."""
    return not isinstance(when, type) and isinstance(when, _NamesTree)


def moment_of(connection: Connection, when: Any) -> Moment:
    """Read what a caller gave as ``when``, a checkpoint included.

    Args:
        connection: to the database, for a checkpoint.
        when: as :func:`sa_audit.as_of` takes it.

    Raises:
        InvalidMoment: as :func:`parse_moment`; and for a checkpoint that is not of the log in this database, before
            anything was sealed, or of another incarnation of the database.
        IntegrityFinding: if the log can't be read.
    """
    return _moment_at(connection, when) if is_checkpoint(when) else parse_moment(when)


def _moment_at(connection: Connection, checkpoint: Checkpoint) -> Moment:
    header, last = _headers(connection, _trail_of(connection, checkpoint), checkpoint)
    if header.incarnation != last.incarnation:
        raise InvalidMoment(
            f"{_named(checkpoint)} was made before the database was restored (incarnation {header.incarnation}, now "
            f"{last.incarnation}), and transaction ids mean something else now: give a moment on the clock"
        )
    at = _START + dt.timedelta(microseconds=header.sealed_at)
    match header.horizon:
        case ("snapshot", str(text)):
            return Snapshot(text=text)
        case ("epoch", int(number)):
            return Epoch(number=number, at=at)
        case ("rowid", rows):
            from ..catalog.tables import ENTRIES

            return LastEntry(number=dict(rows).get(ENTRIES, 0), at=at)
        case other:
            raise IntegrityFinding(f"block {header.number} has the horizon {other!r:.80}, which is none")


def _headers(connection: Connection, trail: Trail, checkpoint: Checkpoint) -> tuple[BlockEntry, BlockEntry]:
    """Give the header of the last block under a checkpoint up to which the rows are complete, and the last one's."""
    table = trail.block
    covered = table.c.first_leaf + table.c.leaves <= checkpoint.size
    numbers = sa.select(table.c.number).where(covered).order_by(table.c.number.desc())
    for number in connection.scalars(numbers):
        header = _header(connection, trail, table.c.number == number)
        if header.closes:
            newest = sa.select(sa.func.max(table.c.number)).scalar_subquery()
            return header, _header(connection, trail, table.c.number == newest)
    raise InvalidMoment(f"{_named(checkpoint)} covers no rows yet: give a later one")


def _header(connection: Connection, trail: Trail, condition: sa.ColumnElement[bool]) -> BlockEntry:
    from ..proof.blocks import unpack_entries
    from ..proof.entries import BlockEntry, decode_entry

    table = trail.block
    number, data = connection.execute(sa.select(table.c.number, table.c.entries).where(condition)).one()
    entry = decode_entry(next(iter(unpack_entries(bytes(data)))))
    if not isinstance(entry, BlockEntry):
        raise IntegrityFinding(f"block {number} does not begin with its header: run sa_audit.verify()")
    return entry


def _trail_of(connection: Connection, checkpoint: Checkpoint) -> Trail:
    """Find the trail in whose log the checkpoint was written down."""
    trails = noted_trails(connection.dialect) or known_trails()
    there = [trail for trail in trails if _has_log(connection, trail) and _has(connection, trail, checkpoint)]
    if not there:
        raise InvalidMoment(
            f"{_named(checkpoint)} is not of the log in this database: give one that was sealed here "
            "(sa_audit.verify() tells whether the log has been cut)"
        )
    return there[0]


def _has_log(connection: Connection, trail: Trail) -> bool:
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    schema = trail.checkpoint.schema
    return sa.inspect(connection).has_table(trail.checkpoint.name, schema=schemas.get(schema, schema))


def _has(connection: Connection, trail: Trail, checkpoint: Checkpoint) -> bool:
    from ..proof.checkpoint import Checkpoint

    table = trail.checkpoint
    notes = connection.scalars(sa.select(table.c.note).where(table.c.size == checkpoint.size))
    return any(Checkpoint.parse(note).text == checkpoint.text for note in notes)


def _named(checkpoint: Checkpoint) -> str:
    return f"the checkpoint of {checkpoint.origin} at {checkpoint.size} leaves"


__all__ = ["is_checkpoint", "moment_of"]
