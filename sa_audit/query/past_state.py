"""The state of an audited table at a moment, as SQL: the query over its history that stands in the table's place.

A row of the history is the state of its key if it leaves a row (insert, update, baseline) and no later row of the key,
nor a later truncate, had been recorded at the moment.  What a prune carried forward stands for the row that it was
copied from, once that one is gone.  The moment is a bound parameter, so that one statement serves
all moments of its kind.  Touches no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql.selectable import CTE, FromClause

from ..catalog.prunes import is_carried
from ..model import AuditedTable, Excluded, Marker, Masked, RecordedColumn
from ..model.names import short_name
from .decrypting import PastEncrypted, row_label
from .formers import column_of
from .moment import Epoch, LastEntry, Moment, Snapshot, WallClock
from .names import Former
from .past_database import PastDatabase
from .past_refusal import Held

_NO_FORMERS: Final[Mapping[str, Former]] = {}
MOMENT: Final = "sa_audit_moment"
"""The name of the bound parameter that holds the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTable:
    """What stands for an audited table in a statement about the past.

    Args:
        audited: the table.
        state: its rows at the moment, under a reserved name.
        alias: the name by which the statement's columns call it.
    """

    audited: AuditedTable
    state: CTE
    alias: str


def past_table(
    audited: AuditedTable, kind: type[Moment], database: PastDatabase, formers: Mapping[str, Former]
) -> PastTable:
    """Give what stands for an audited table; made once for each kind of moment and database.

    Args:
        audited: the table.
        kind: the kind of moment.
        database: the database.
        formers: for columns that had another type at the moment, what keeps their values of then.
    """
    if formers:
        return _past_table(audited, kind, database, formers)
    key = ("sa_audit.past", kind, database.state_key)
    known: PastTable | None = audited.memo.get(key)
    if known is None:
        known = audited.memo.setdefault(key, _past_table(audited, kind, database, {}))
    return known


def unrecorded(audited: AuditedTable) -> dict[str, Marker | Held]:
    """Give the columns whose values the history does not hold, by database name, with what it has for each."""
    known: dict[str, Marker | Held] | None = audited.memo.get("sa_audit.unrecorded")
    if known is None:
        masked = {column.name: Masked for column in audited.columns if column.recorded is None}
        held = {
            column.name: Held("Encrypt", PastEncrypted(audited, column))
            if column.encrypted
            else Held("Digest", column.shown_type)
            for column in audited.formed
        }
        known = {**masked, **held, **{column.name: Excluded for column in audited.excluded}}
        audited.memo["sa_audit.unrecorded"] = known
    return known


def recorded_at(history: FromClause, moment: Moment) -> sa.ColumnElement[bool]:
    """Give the condition that a row of the history belongs to the state at the moment or to what led to it."""
    type_ = _parameter_type(history, type(moment))
    return _recorded(history, type(moment), sa.bindparam(None, moment.parameter, type_=type_))


def seen_at(audited: AuditedTable, moment: Moment) -> sa.ColumnElement[bool]:
    """Give the condition that a row of a table's history tells of its state at a moment: recorded, or carried forward.

    The moment has to be one that the table can be travelled to.
    """
    history = audited.history
    return sa.or_(recorded_at(history, moment), _stands_for_older(audited, history.alias("sa_audit_earlier")))


def _stands_for_older(audited: AuditedTable, earlier: FromClause) -> sa.ColumnElement[bool]:
    """Give the condition that a row, which a prune carried forward, is the first that is left of its key.

    The row whose values it has was there at the prune's cutoff, and is pruned.
    """
    history = audited.history
    one: sa.ColumnClause[int] = sa.literal_column("1")
    former = sa.exists(one).where(
        *(_same(earlier.c[column.key], history.c[column.key], column) for column in audited.key),
        earlier.c.audit_id < history.c.audit_id,
    )
    return sa.and_(is_carried(history), sa.not_(former.correlate(history)))


def state_query(
    audited: AuditedTable, kind: type[Moment], database: PastDatabase, formers: Mapping[str, Former] = _NO_FORMERS
) -> sa.Select[Any]:
    """Give the query for the table's rows at the moment that the parameter ``sa_audit_moment`` names.

    It finds the rows of a key through the index (key, audit_id), and never reads all of the history for one of them.
    The comparison with the last truncate is a CASE: as a plain one it made the planner of PostgreSQL walk the index of
    ``audit_id``, and expect a third of the rows.  A key without value had another type when it was recorded.
    """
    history = audited.history
    later, cut = history.alias("sa_audit_later"), history.alias("sa_audit_cut")
    moment = sa.bindparam(MOMENT, type_=_parameter_type(history, kind), required=True)
    first = cut.c[audited.key[0].key]
    truncated = sa.select(sa.func.max(cut.c.audit_id)).where(
        first.is_(sa.null()), cut.c.audit_op == sa.literal_column("'T'"), _recorded(cut, kind, moment)
    )
    one: sa.ColumnClause[int] = sa.literal_column("1")
    superseded = sa.exists(one).where(
        *(_same(later.c[column.key], history.c[column.key], column) for column in audited.key),
        later.c.audit_id > history.c.audit_id,
        _recorded(later, kind, moment),
    )
    columns = [
        _in_state(audited, column, column.recorded, database, formers).label(column.source.name)
        for column in audited.columns
        if column.recorded is not None
    ]
    recorded = _recorded(history, kind, moment)
    if audited.options.retention is not None:
        recorded = sa.or_(recorded, _stands_for_older(audited, history.alias("sa_audit_earlier")))
    return sa.select(*columns).where(
        *(history.c[column.key].is_not(sa.null()) for column in audited.key if column.primary_key),
        history.c.audit_op.in_([sa.literal_column(f"'{operation}'") for operation in "IUB"]),
        recorded,
        sa.not_(superseded.correlate(history)),
        sa.case((history.c.audit_id <= truncated.scalar_subquery(), one), else_=sa.literal_column("0")) != one,
    )


def _in_state(
    audited: AuditedTable,
    column: RecordedColumn,
    recorded: sa.Column[Any],
    database: PastDatabase,
    formers: Mapping[str, Former],
) -> sa.ColumnElement[Any]:
    if column.name in formers:
        return column_of(formers[column.name])
    if column.encrypted:
        return sa.type_coerce(recorded, sa.Text()) + " " + row_label(database.dialect, audited, audited.history)
    return recorded if column.formed else database.as_live(recorded, column.source)


def _past_table(
    audited: AuditedTable, kind: type[Moment], database: PastDatabase, formers: Mapping[str, Former]
) -> PastTable:
    table = audited.table
    state = state_query(audited, kind, database, formers).cte(short_name(f"sa_audit_past.{table.fullname}"))
    for prefix in database.cte_prefixes:
        state = state.prefix_with(prefix)
    return PastTable(audited=audited, state=state, alias=short_name(table.fullname))


def _same(one: sa.ColumnElement[Any], other: sa.ColumnElement[Any], source: sa.Column[Any]) -> sa.ColumnElement[bool]:
    if source.primary_key or not source.nullable:
        return one == other
    return sa.or_(one == other, sa.and_(one.is_(sa.null()), other.is_(sa.null())))


def _recorded(history: FromClause, kind: type[Moment], moment: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    if kind is Snapshot:
        return _visible(history.c.audit_txid, sa.cast(moment, sa.Text()))
    return history.c[_COLUMNS[kind]] <= moment


_COLUMNS: Final[dict[type[Moment], str]] = {WallClock: "audit_at", Epoch: "audit_txid", LastEntry: "audit_tx"}
"""What is compared with a moment of each kind, but for a snapshot."""


def _visible(transaction: sa.ColumnElement[Any], snapshot: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Say ``pg_visible_in_snapshot`` in numbers, for which the planner has statistics: begun, and not still running."""
    colon: sa.ColumnClause[str] = sa.literal_column("':'")
    comma: sa.ColumnClause[str] = sa.literal_column("','")
    following = sa.func.split_part(snapshot, colon, sa.literal_column("2"))
    running = sa.func.string_to_array(sa.func.split_part(snapshot, colon, sa.literal_column("3")), comma)
    return sa.and_(
        transaction < sa.cast(following, sa.BigInteger()),
        transaction != sa.all_(sa.cast(running, sa.ARRAY(sa.BigInteger()))),
    )


def _parameter_type(history: FromClause, kind: type[Moment]) -> sa.types.TypeEngine[Any]:
    return sa.Text() if kind is Snapshot else history.c[_COLUMNS[kind]].type
