"""Undo what one transaction did, as new recorded changes.

The recorded rows are undone flush by flush, the last one first, and within a flush in the reverse of the order in
which a unit of work writes: deleted rows are inserted (parents first), then updates are undone, then inserted rows
are deleted (children first).  So each step meets the constraints that held when the step was recorded.
Imports model, ddl, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..ddl.backend import Target, backend_for
from ..errors import ConfigurationError, Conflict, NotAudited
from ..model import Trail
from .change import Change
from .entity import Identity, Part, Subject
from .fold import fold, same
from .history import shown
from .rows import KEYS_PER_STATEMENT, HistoryRow, Source, key_condition, matches, read
from .stretches import Stretch, stretches_of
from .undo import Undo
from .writable import check_types, writable

Touched = dict[Part, dict[Identity, list[HistoryRow]]]
LISTED = 10


def revert(session: Session, transaction_id: int, *, base: Any = None) -> int:
    """Undo what one row of ``audit_transaction`` recorded, as new changes that are recorded like any other.

    All touched rows are locked, and everything is checked, before anything is written; the caller commits.  Rows are
    written by Core statements, and the session's objects are expired.  Deleted rows come back in all tables, those
    that the database deleted by cascade as well; a version counter is never set back; masked and excluded columns
    keep their present value, or get their default when a row is inserted.

    Args:
        session: where to undo; it is flushed first.
        transaction_id: the id of the row of ``audit_transaction``.
        base: the declarative base or MetaData it belongs to; by default all that have tables in the database.

    Returns:
        The number of history rows that were undone.

    Raises:
        NotAudited: if there is no such transaction, a deleted row lacks a value that the history does not hold, or a
            value was recorded while its column had another type.
        Conflict: if the same rows were changed later, are not as recorded, or other rows refer to those to be deleted.
        CaptureMissing: if the database has no trail.
    """
    session.flush()
    stretch = _stretch_of(session, transaction_id, base)
    rows = _recorded(stretch, transaction_id)
    if any(row.op == "T" for _subject, row in rows):
        raise Conflict(f"transaction {transaction_id} truncated a table, which can't be undone row by row")
    rows = [(subject, row) for subject, row in rows if row.op != "B"]
    for subject, row in rows:
        check_types(_former(row), f"{subject.name} {shown(row.identity)}")
    touched = _touched(row for _subject, row in rows)
    subjects = {row.part: subject for subject, row in rows}
    undo = Undo(stretch.source, stretch.trail, subjects)
    _lock_writer(stretch, touched)
    present = {part: undo.present(part, list(identities)) for part, identities in touched.items()}
    _check_later(stretch.source, subjects, touched, transaction_id)
    _check_present(subjects, touched, present)
    _check_referring(stretch, subjects, touched, transaction_id)
    for part, identities in touched.items():
        if any(row.op == "D" for own in identities.values() for row in own):
            undo.check_insertable(part)
    try:
        for flush in sorted({row.flush for _subject, row in rows}, reverse=True):
            undo.flush([row for _subject, row in rows if row.flush == flush])
    except BaseException:
        session.rollback()
        raise
    session.expire_all()
    return len(rows)


def _stretch_of(session: Session, transaction_id: Any, base: Any) -> Stretch:
    if isinstance(transaction_id, bool) or not isinstance(transaction_id, int):
        raise ConfigurationError(f"transaction {transaction_id!r}: give the id of a transaction, an integer")
    found = []
    for stretch in stretches_of(session, base):
        entry = stretch.trail.transaction
        statement = sa.select(entry.c.id).where(entry.c.id == transaction_id)
        if stretch.source.execute(statement, stretch.trail).first() is not None:
            found.append(stretch)
    if not found:
        raise NotAudited(f"there is no transaction {transaction_id} in the trail")
    if len(found) > 1:
        names = ", ".join(stretch.name for stretch in found)
        raise ConfigurationError(f"transaction {transaction_id} is in several trails ({names}): give base=")
    return found[0]


def _recorded(stretch: Stretch, transaction_id: int) -> list[tuple[Subject, HistoryRow]]:
    return [
        (subject, row)
        for subject in stretch.subjects
        for part in subject.parts
        for row in read(stretch.source, part, part.history.c.audit_tx == transaction_id)
    ]


def _former(row: HistoryRow) -> list[str]:
    """Give the columns that would be written back with a value of a type that they had formerly."""
    written = {"U": row.before, "D": {column.name: value for column, value in row.values.items()}}.get(row.op, {})
    return [column.name for column in row.former if written.get(column.name) is not None]


def _touched(rows: Iterable[HistoryRow]) -> Touched:
    touched: Touched = {}
    for row in rows:
        touched.setdefault(row.part, {}).setdefault(row.identity, []).append(row)
    ordered = sorted(touched.items(), key=lambda entry: entry[0].audited.table.fullname)
    return dict(ordered)


def _lock_writer(stretch: Stretch, touched: Touched) -> None:
    connection = stretch.source.connection
    for part in touched:
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        backend_for(connection.dialect).lock_writer(connection, Target(part.audited, schemas))
        return


def _check_later(source: Source, subjects: dict[Part, Subject], touched: Touched, transaction_id: int) -> None:
    """Refuse if a row was changed again, by whatever other transaction row."""
    later: list[str] = []
    for part, identities in touched.items():
        keys = list(identities)
        for start in range(0, len(keys), KEYS_PER_STATEMENT):
            chunk = keys[start : start + KEYS_PER_STATEMENT]
            first = min(identities[key][0].audit_id for key in chunk)
            history = part.history
            condition = sa.and_(
                key_condition(part, chunk), history.c.audit_id > first, history.c.audit_tx != transaction_id
            )
            for row in read(source, part, condition, current=True):
                if row.op == "T" or row.audit_id > identities.get(row.identity, identities[chunk[0]])[0].audit_id:
                    later += [_later(change) for change in fold(subjects[part], row.identity, [row])]
    if later:
        raise Conflict(f"transaction {transaction_id} can't be undone, because of later changes: {_listed(later)}")


def _later(change: Change) -> str:
    who = f" by {change.actor}" if change.actor is not None else ""
    return (
        f"{change.operation} of {change.entity} {shown(change.identity) if change.identity else ''} in transaction "
        f"{change.transaction.id}{who} at {change.recorded_at.isoformat()}"
    )


def _listed(items: Sequence[str]) -> str:
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more


def _check_present(
    subjects: dict[Part, Subject], touched: Touched, present: dict[Part, dict[Identity, dict[sa.Column[Any], Any]]]
) -> None:
    """Refuse if a row is not as it was recorded last: something changed it past the trail."""
    wrong = []
    for part, identities in touched.items():
        for identity, rows in identities.items():
            now, last = present[part].get(identity), rows[-1]
            expected = None if last.op == "D" else last.values
            if (now is None) != (expected is None) or (now and expected and not _equal(now, expected)):
                wrong.append(f"{subjects[part].name} {shown(identity)}")
    if wrong:
        raise Conflict(
            f"these rows are not as they were recorded, so they were changed unrecorded: {_listed(wrong)}; "
            "see reconcile(), and write them as they should be"
        )


def _equal(now: dict[sa.Column[Any], Any], recorded: dict[sa.Column[Any], Any]) -> bool:
    return all(same(now[column], value) for column, value in writable(recorded).items() if column in now)


def _check_referring(stretch: Stretch, subjects: dict[Part, Subject], touched: Touched, transaction_id: int) -> None:
    """Refuse to delete rows that others refer to: a cascade would take along what the transaction never touched."""
    referring: list[str] = []
    for part, identities in touched.items():
        inserted = [rows[-1].values for rows in identities.values() if rows[0].op == "I" and rows[-1].op != "D"]
        for constraint in _constraints_on(stretch.trail, part.audited.table) if inserted else ():
            referring += _referring(stretch.source, constraint, inserted, touched)
    if referring:
        raise Conflict(
            f"transaction {transaction_id} can't be undone, because rows that it inserted are referred to by others: "
            + _listed(referring)
        )


def _constraints_on(trail: Trail, table: sa.Table) -> list[sa.ForeignKeyConstraint]:
    return [
        constraint
        for other in trail.metadata.tables.values()
        for constraint in other.foreign_key_constraints
        if constraint.referred_table is table
    ]


def _referring(
    source: Source,
    constraint: sa.ForeignKeyConstraint,
    inserted: Sequence[dict[sa.Column[Any], Any]],
    touched: Touched,
) -> list[str]:
    table = constraint.table
    known = next(
        ((part.audited.key, identities) for part, identities in touched.items() if part.audited.table is table),
        (tuple(table.primary_key.columns), {}),
    )
    key, own = known
    pairs = [(element.parent, element.column) for element in constraint.elements]
    if any(column not in inserted[0] for _parent, column in pairs):
        return []
    found = []
    for start in range(0, len(inserted), KEYS_PER_STATEMENT):
        chunk = inserted[start : start + KEYS_PER_STATEMENT]
        condition = matches([parent for parent, _c in pairs], [[row[c] for _p, c in pairs] for row in chunk])
        statement = sa.select(*(key or tuple(table.columns))).where(condition)
        found += [tuple(row) for row in source.connection.execute(statement)]
    return [f"{table.fullname} {shown(identity)}" for identity in found if identity not in own]
