"""History rows as they are read: with who and why, values of the columns' own types, and the decoded before-values.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ..errors import CaptureMissing, IntegrityFinding, NotAudited
from ..model import AuditedTable, Trail
from .before import Reader, members_of, reader_for
from .change import TransactionInfo
from .contexts import Contexts
from .decrypting import decrypted_rows, row_label
from .entity import Identity, Part, Subject
from .formers import column_of, formers_of, kept_in
from .names import ColumnNames, column_names, names_of, renamed

KEYS_PER_STATEMENT = 200
Condition = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True, eq=False)
class HistoryRow:
    """One history row.

    Attributes:
        part: the table that it belongs to.
        audit_id: its id.
        op: the letter of its operation.
        flush: which flush or statement of the transaction.
        info: who and why.
        values: the row as recorded, by source column.
        before: the before-values, by database column name; empty unless ``op`` is ``U``.
        flags: the values of the flags that were asked for.
        former: the columns whose value, and before-value, is of a type that they had formerly.
    """

    part: Part
    audit_id: int
    op: str
    flush: int
    info: TransactionInfo
    values: dict[sa.Column[Any], Any]
    before: dict[str, Any]
    flags: tuple[Any, ...]
    former: frozenset[sa.Column[Any]] = frozenset()

    def without_last_flag(self) -> HistoryRow:
        """Give it without the value of the last flag."""
        return replace(self, flags=self.flags[:-1])

    @property
    def identity(self) -> Identity:
        """The key's values; empty for a truncate."""
        return () if self.op == "T" else tuple(self.values[column] for column in self.part.key)


class Source:
    """A connection to the database that holds a trail, with that database's reader."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.reader: Reader = reader_for(connection)
        self._names: dict[AuditedTable, ColumnNames] = {}
        self._contexts = Contexts(connection)

    def info(self, trail: Trail, values: Sequence[Any]) -> TransactionInfo:
        """Make a :class:`TransactionInfo` of the columns :data:`INFO` of a trail, in that order."""
        return TransactionInfo(**self._contexts.shown(trail, dict(zip(INFO, values, strict=True))))

    def known_names(self, audited: AuditedTable) -> ColumnNames | None:
        """Give under which names the columns of a table were recorded, if that has been asked for."""
        return self._names.get(audited)

    def read_names(self, audited: AuditedTable) -> None:
        """Read under which names and types the columns of a table were recorded."""
        rows = [tuple(row) for row in self.execute(names_of(audited), audited.trail)]
        names = column_names([column.name for column in audited.columns], rows)
        self._names[audited] = replace(names, formers=formers_of(self.connection, audited, names, rows))

    def execute(self, statement: sa.Executable, trail: Trail, **options: Any) -> sa.CursorResult[Any]:
        """Execute a statement on tables of the trail.

        Args:
            statement: the statement.
            trail: the trail, for the message.
            options: execution options.

        Raises:
            CaptureMissing: if a table or column of the trail is not there.
        """
        with self.named_if_missing(trail):
            return self.connection.execute(statement, execution_options=options)

    @contextmanager
    def named_if_missing(self, trail: Trail) -> Iterator[None]:
        """Turn a database error into :class:`CaptureMissing` where it comes from a trail that is not there."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if not self.reader.misses_table(error):
                raise
            raise CaptureMissing(
                f"the database lacks a table or column of the trail ({error.orig}): create the tables of the trail "
                f"beside {trail.transaction.fullname} with metadata.create_all(), or run the migration"
            ) from error

    def order(self, row: HistoryRow) -> tuple[Any, ...]:
        """Give what sorts rows of one entity, or of one transaction, in the order of their changes."""
        if self.reader.one_sequence:
            return (row.audit_id,)
        return (row.info.first_id or row.info.id, row.flush, row.part.rank, row.audit_id)


def source_of(session: Session, bind_arguments: dict[str, Any]) -> Source:
    """Give the source that a session reads a subject from.

    Raises:
        NotAudited: if it is no :class:`sqlalchemy.orm.Session`.
    """
    if not isinstance(session, Session):
        if isinstance(session, orm.scoped_session):
            return source_of(session(), bind_arguments)
        raise NotAudited(
            f"{type(session).__name__} is no sqlalchemy.orm.Session: give one; "
            "for an AsyncSession there are the awaitable functions of sa_audit.asyncio"
        )
    return Source(session.connection(bind_arguments=bind_arguments))


def rows_of(
    source: Source, subject: Subject, identities: Sequence[Identity], flags: Callable[[Part], list[Any]] | None = None
) -> list[HistoryRow]:
    """Read all history rows of some entities, unsorted; a truncate belongs to each of them.

    Args:
        source: where to read.
        subject: whose they are.
        identities: their keys.
        flags: gives further expressions to select for a part, whose values come in :attr:`HistoryRow.flags`.
    """
    rows: list[HistoryRow] = []
    for part in subject.parts:
        for start in range(0, len(identities), KEYS_PER_STATEMENT):
            chunk = identities[start : start + KEYS_PER_STATEMENT]
            rows += read(source, part, key_condition(part, chunk), flags(part) if flags else [])
    return rows


def key_condition(part: Part, identities: Sequence[Identity]) -> Condition:
    """Give the condition for the history rows of these keys, and for truncates, which have no key."""
    key = part.history_key
    truncated = sa.and_(key[0].is_(None), part.history.c.audit_op == "T")
    return sa.or_(matches(key, identities), truncated)


def matches(columns: Sequence[sa.ColumnElement[Any]], identities: Sequence[Sequence[Any]]) -> Condition:
    """Give the condition that columns together have one of some lists of values, None included."""
    if len(columns) == 1 and all(identity[0] is not None for identity in identities):
        return columns[0].in_([identity[0] for identity in identities])
    return sa.or_(*(sa.and_(*map(_equal, columns, identity)) for identity in identities))


def _equal(column: sa.ColumnElement[Any], value: Any) -> Condition:
    return column.is_(None) if value is None else column == value


def read(
    source: Source,
    part: Part,
    condition: Condition,
    flags: Sequence[sa.ColumnElement[Any]] = (),
    *,
    current: bool = False,
) -> Iterator[HistoryRow]:
    """Read the history rows of one table that meet a condition, in the order of their ids.

    Args:
        source: where to read.
        part: the table.
        condition: on its history table.
        flags: further expressions to select.
        current: read what is committed now, where the transaction's snapshot is older and the database allows it.
    """
    if not part.audited.encrypted:
        return _read(source, part, condition, flags, current=current)
    labelled = [*flags, row_label(source.connection.dialect, part.audited, part.history)]
    rows = _read(source, part, condition, labelled, current=current)
    return decrypted_rows(source.connection, source.reader, rows)


def _read(
    source: Source, part: Part, condition: Condition, flags: Sequence[sa.ColumnElement[Any]], *, current: bool
) -> Iterator[HistoryRow]:
    audited, history, entry = part.audited, part.history, part.audited.trail.transaction
    names = source.known_names(audited)
    asked = renamed(audited) if names is None else None
    known = names or ColumnNames()
    formers = [former for formers in known.formers.values() for former in formers]
    extras = source.reader.extra_columns(audited, known)
    if asked is not None:  # a name may have been another column's, whose values this one's type refuses
        extras = {name: sa.case((sa.not_(asked), extra)) for name, extra in extras.items()}
    groups: list[list[Any]] = [
        _head(source.reader, history, asked),
        [entry.c[name] for name in INFO],
        [sa.type_coerce(history.c[column.source.key], column.shown_type) for column in audited.recorded],
        [column_of(former) for former in formers],
        list(extras.values()),
        list(flags),
    ]
    statement = (
        sa.select(*itertools.chain(*groups))
        .select_from(history.outerjoin(entry, entry.c.id == history.c.audit_tx))
        .where(condition)
        .order_by(history.c.audit_id)
    )
    decoders = source.reader.decoders(audited, known)
    if current:
        statement = source.reader.current(statement)
    for row in source.execute(statement, audited.trail):
        cells = iter(row)
        head, about, recorded, other, cast, rest = (tuple(itertools.islice(cells, len(group))) for group in groups)
        audit_id, tx, op, flush, at, document, was_renamed = head
        if was_renamed:
            source.read_names(audited)
            yield from _read(source, part, condition, flags, current=current)
            return
        members = members_of(document, audited)
        if names is not None:
            members = {names.present(name, at): value for name, value in members.items()}
        state = dict(zip((column.source for column in audited.recorded), recorded, strict=True))
        kept = _kept(audited, known, state, dict(zip((former.name for former in formers), other, strict=True)), at)
        yield HistoryRow(
            part=part,
            audit_id=audit_id,
            op=op,
            flush=flush if flush is not None else 0,
            info=_info(source, about, part, audit_id, tx),
            values=state,
            before=source.reader.before(audited, decoders, members, dict(zip(extras, cast, strict=True)), kept),
            flags=rest,
            former=frozenset(
                column.source for column in audited.recorded if kept.get(column.name, column.name) != column.name
            ),
        )


def _head(reader: Reader, history: sa.FromClause, asked: sa.ColumnElement[bool] | None) -> list[Any]:
    """Give what is selected of every history row: what it is, its before-values, and whether names have to be read."""
    own: list[Any] = [history.c[name] for name in ("audit_id", "audit_tx", "audit_op", "audit_flush", "audit_at")]
    return [*own, reader.document(history.c.audit_before), sa.false() if asked is None else asked]


def _kept(
    audited: AuditedTable, names: ColumnNames, state: dict[sa.Column[Any], Any], others: dict[str, Any], at: Any
) -> dict[str, str]:
    """Give the column that keeps a row's value, for each that had other types, and put the value into the state."""
    kept = {}
    for column in audited.recorded:
        formers = names.formers.get(column.name)
        if formers:
            values = {column.name: state[column.source], **others}
            kept[column.name] = name = kept_in(column.name, values, formers, at)
            state[column.source] = values[name]
    return kept


INFO = (
    "id",
    "recorded_at",
    "actor",
    "on_behalf_of",
    "reason",
    "request_id",
    "remote_addr",
    "context",
    "db_user",
    "first_id",
)


def _info(source: Source, values: Sequence[Any], part: Part, audit_id: int, tx: int) -> TransactionInfo:
    if values[0] is None:
        raise IntegrityFinding(
            f"row {audit_id} of {part.history.fullname} names transaction {tx}, which is not in "
            f"{part.audited.trail.transaction.fullname}: somebody removed it"
        )
    return source.info(part.audited.trail, values)
