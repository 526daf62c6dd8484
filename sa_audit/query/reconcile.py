"""Rows whose present state is not the last recorded one: what went past the trail.

The comparison is the database's, bytewise, and rows are streamed.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..model import RecordedColumn
from .change import Discrepancy
from .entity import Part, Subject, subject_of
from .looks import look_through
from .protected import Protected
from .rows import Source, source_of

STREAM = 500


def reconcile(session: Session, entity: Any) -> Iterator[Discrepancy]:
    """Iterate over the rows whose present state differs from the last recorded one.

    Such rows were changed by something that the trail does not see: textual SQL, another program, a bulk load.
    Masked and excluded columns are not compared, nor encrypted values whose key was destroyed.  Of a table without
    primary key, the number of rows with each key is compared with the number recorded.
    Where reads are recorded, this is one of the rows that it yields.

    Args:
        session: where to ask; what it has not flushed is not seen.
        entity: a mapped class (all tables of its hierarchy are compared), a mapper, or an audited table.

    Returns:
        An iterator over :class:`Discrepancy`; nothing if all is recorded.

    Raises:
        NotAudited: if nothing of the kind is recorded.
        CaptureMissing: if the database has no trail.
    """
    subject = subject_of(entity)
    source = source_of(session, subject.bind_arguments)
    return look_through(session, reconcile.__name__, subject, _discrepancies(source, subject))


def _discrepancies(source: Source, subject: Subject) -> Generator[Discrepancy, None, None]:
    for part in subject.parts:
        if part.audited.table.primary_key.columns:
            yield from _present(source, subject, part)
            yield from _missing(source, subject, part)
        else:
            yield from _counted(source, subject, part)


def _present(source: Source, subject: Subject, part: Part) -> Iterator[Discrepancy]:
    """Compare each row that is there with its last recorded state."""
    table, last = part.audited.table, part.history.alias("last")
    columns = part.audited.recorded
    protected = Protected(source, part.audited)
    differs = [protected.differs(source, _in(last, column), column) for column in columns]
    gone = sa.or_(last.c.audit_id.is_(None), last.c.audit_op == "D")
    statement = (
        sa.select(
            gone,
            *differs,
            *(sa.type_coerce(_in(last, column), column.shown_type) for column in columns),
            *(protected.present(column) for column in columns),
            *protected.labels,
        )
        .select_from(table.outerjoin(last, sa.and_(_same_row(source, part, last, table), _is_last(source, part, last))))
        .where(sa.or_(gone, *differs))
    )
    count = len(columns)
    for row in _stream(source, part, statement):
        unrecorded, flags = row[0], row[1 : 1 + count]
        found = protected.compared(row[1 + count : 1 + 2 * count], row[1 + 2 * count :], flags)
        recorded, present, differing = found
        if unrecorded:
            yield _discrepancy(subject, part, "unrecorded", present, [None] * count, present, [True] * count)
        elif any(differing):
            yield _discrepancy(subject, part, "changed", present, recorded, present, differing)


def _missing(source: Source, subject: Subject, part: Part) -> Iterator[Discrepancy]:
    """Find recorded rows that are gone, although the history does not end with a delete."""
    table, last = part.audited.table, part.history.alias("last")
    columns = part.audited.recorded
    there = sa.exists().where(_same_row(source, part, last, table))
    statement = sa.select(*(sa.type_coerce(_in(last, column), column.shown_type) for column in columns)).where(
        *(last.c[column.key].is_not(None) for column in part.audited.key),  # else the key had another type then
        last.c.audit_op.in_(("I", "U", "B")),
        _is_last(source, part, last),
        ~there,
    )
    count = len(columns)
    for row in _stream(source, part, statement):
        yield _discrepancy(subject, part, "missing", row, row, [None] * count, [True] * count)


def _counted(source: Source, subject: Subject, part: Part) -> Iterator[Discrepancy]:
    """Compare how many rows of each key there are, and are recorded: without a primary key, rows have no other name."""
    names = [subject.names(subject.mapper)[column] for column in part.key]
    for row in _stream(source, part, _counts(part)):
        *key, recorded, present = tuple(row)
        pairs = [(None, value) if present > recorded else (value, None) for value in key]
        yield Discrepancy(
            entity=subject.name,
            table=part.audited.table.fullname,
            identity=tuple(key),
            kind="unrecorded" if present > recorded else "missing",
            diff=dict(zip(names, pairs, strict=True)),
        )


def _counts(part: Part) -> sa.Select[*tuple[Any, ...]]:
    """Give the query for keys with their recorded and present numbers of rows, where these differ."""
    history, later = part.history, part.history.alias("later")
    emptied = sa.exists().where(
        later.c[part.key[0].key].is_(None), later.c.audit_op == "T", later.c.audit_id > history.c.audit_id
    )
    weight = sa.case((history.c.audit_op.in_(("I", "B")), 1), (history.c.audit_op == "D", -1), else_=0)
    names = [f"key_{number}" for number in range(len(part.key))]
    in_history = sa.select(
        *(history.c[column.key].label(name) for name, column in zip(names, part.key, strict=True)),
        weight.label("recorded"),
        sa.literal_column("0").label("present"),
    ).where(history.c.audit_op != "T", ~emptied)
    in_table = sa.select(*part.key, sa.literal_column("0"), sa.literal_column("1"))
    both = sa.union_all(in_history, in_table).subquery("counted")
    key = [sa.type_coerce(both.c[name], column.type) for name, column in zip(names, part.key, strict=True)]
    recorded, present = sa.func.sum(both.c.recorded), sa.func.sum(both.c.present)
    return sa.select(*key, recorded, present).group_by(*(both.c[name] for name in names)).having(recorded != present)


def _same_row(source: Source, part: Part, history: sa.FromClause, table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(
        *(
            source.reader.same_key(history.c[column.key], table.c[column.key], nullable=bool(column.nullable))
            for column in part.audited.key
        )
    )


def _is_last(source: Source, part: Part, row: sa.FromClause) -> sa.ColumnElement[bool]:
    """Give the condition that no later row of the same key, and no later truncate, follows."""
    later, emptied = part.history.alias("later"), part.history.alias("emptied")
    same = (
        source.reader.same_key(later.c[column.key], row.c[column.key], nullable=bool(column.nullable))
        for column in part.audited.key
    )
    return sa.and_(
        ~sa.exists().where(*same, later.c.audit_id > row.c.audit_id),
        ~sa.exists().where(
            emptied.c[part.audited.key[0].key].is_(None),
            emptied.c.audit_op == "T",
            emptied.c.audit_id > row.c.audit_id,
        ),
    )


def _in(history: sa.FromClause, column: RecordedColumn) -> sa.ColumnElement[Any]:
    return history.c[column.source.key]


def _stream(source: Source, part: Part, statement: sa.Executable) -> Iterator[sa.Row[Any]]:
    with source.execute(statement, part.audited.trail, yield_per=STREAM) as result:
        yield from result


def _discrepancy(
    subject: Subject,
    part: Part,
    kind: Literal["changed", "unrecorded", "missing"],
    key_values: Any,
    recorded: Any,
    present: Any,
    flags: Any,
) -> Discrepancy:
    columns = [column.source for column in part.audited.recorded]
    values = dict(zip(columns, key_values, strict=True))
    mapper = subject.mapper_for(values)
    names = subject.names(mapper)
    return Discrepancy(
        entity=mapper.class_.__name__ if mapper is not None else subject.name,
        table=part.audited.table.fullname,
        identity=tuple(values[column] for column in part.key),
        kind=kind,
        diff={
            names[column]: (old, new)
            for column, old, new, differs in zip(columns, recorded, present, flags, strict=True)
            if differs
        },
    )
