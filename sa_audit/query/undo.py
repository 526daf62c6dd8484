"""Write recorded rows back: the statements that undo the rows of one flush.

Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..errors import Conflict
from ..model import Marker, Trail
from .entity import Identity, Part, Subject
from .rows import KEYS_PER_STATEMENT, HistoryRow, Source, matches
from .writable import Values, check_erased, check_insertable, version_of, writable

ROWS_PER_UPDATE = 1000


class Undo:
    """The undoing of a transaction, with the present versions of its rows."""

    def __init__(self, source: Source, trail: Trail, subjects: Mapping[Part, Subject]) -> None:
        self.source = source
        self.subjects = subjects
        self._place = {table: number for number, table in enumerate(trail.metadata.sorted_tables)}
        self._versions: dict[tuple[Part, Identity], Any] = {}

    def present(self, part: Part, identities: Sequence[Identity]) -> dict[Identity, Values]:
        """Lock the rows with these keys, and give them by their keys."""
        columns = [column.source for column in part.audited.recorded]
        found: dict[Identity, Values] = {}
        for start in range(0, len(identities), KEYS_PER_STATEMENT):
            chunk = identities[start : start + KEYS_PER_STATEMENT]
            condition = matches(part.key, chunk)
            statement = sa.select(*columns).where(condition).order_by(*part.key).with_for_update()
            for row in self.source.connection.execute(statement):
                values = dict(zip(columns, row, strict=True))
                found[tuple(values[column] for column in part.key)] = values
        version = self._version(part)
        if version is not None:
            for identity, values in found.items():
                self._versions[part, identity] = values.get(version[0])
        return found

    def check_insertable(self, part: Part) -> None:
        """Refuse what can't be inserted again; see :func:`writable.check_insertable`."""
        check_insertable(part.audited, self.subjects[part].name, self.source.connection.dialect)

    def flush(self, rows: Sequence[HistoryRow]) -> None:
        """Undo the rows of one flush."""
        by_part: dict[Part, list[HistoryRow]] = {}
        for row in rows:
            by_part.setdefault(row.part, []).append(row)
        parts = sorted(by_part, key=lambda part: self._place[part.audited.table])
        for part in parts:
            self._insert(part, parents_first(part, [row for row in by_part[part] if row.op == "D"]))
        for part in reversed(parts):
            self._update(part, [row for row in reversed(by_part[part]) if row.op == "U"])
        for part in reversed(parts):
            self._delete(part, parents_first(part, [row for row in by_part[part] if row.op == "I"])[::-1])

    def _insert(self, part: Part, rows: Sequence[HistoryRow]) -> None:
        if not rows:
            return
        parameters = []
        for row in rows:
            check_erased(row.values, self.subjects[part].name)
            values = writable(row.values)
            self._count_on(part, row.identity, values, row.values)
            parameters.append({column.key: value for column, value in values.items()})
        self.source.connection.execute(sa.insert(part.audited.table), parameters)

    def _update(self, part: Part, rows: Sequence[HistoryRow]) -> None:
        """Set the before-values, rows with the same columns together as long as no row comes twice."""
        batch: dict[Identity, Values] = {}
        columns: list[sa.Column[Any]] = []
        for row in rows:
            values = self._before(part, row)
            if not values:
                continue
            if batch and (columns != list(values) or row.identity in batch or len(batch) == ROWS_PER_UPDATE):
                self._execute_update(part, columns, batch)
                batch = {}
            columns = list(values)
            batch[row.identity] = values
        if batch:
            self._execute_update(part, columns, batch)

    def _before(self, part: Part, row: HistoryRow) -> Values:
        columns = {column.name: column.source for column in part.audited.columns}
        changed = {columns[name]: value for name, value in row.before.items() if name in columns}
        values = writable(changed)
        version = self._version(part)
        if version is not None:
            values.pop(version[0], None)
        if values:
            self._count_on(part, row.identity, values, row.values)
        return values

    def _count_on(self, part: Part, identity: Identity, values: Values, recorded: Mapping[Any, Any]) -> None:
        """Give the row the version after its present one, or after its last one if there is none."""
        version = self._version(part)
        if version is None:
            return
        column, following = version
        values.pop(column, None)
        if following is not None:
            present = self._versions.get((part, identity), recorded.get(column))
            values[column] = self._versions[part, identity] = following(present)

    def _version(self, part: Part) -> Any:
        for mapper in self.subjects[part].mappers:
            version = version_of(mapper, part.audited.table)
            if version is not None:
                return version
        return None

    def _execute_update(self, part: Part, names: Sequence[sa.Column[Any]], batch: Mapping[Identity, Values]) -> None:
        table = part.audited.table
        key = [column == sa.bindparam(f"sa_audit_key_{n}", type_=column.type) for n, column in enumerate(part.key)]
        new = {column: sa.bindparam(f"sa_audit_new_{n}", type_=column.type) for n, column in enumerate(names)}
        parameters = [
            {f"sa_audit_key_{n}": value for n, value in enumerate(identity)}
            | {f"sa_audit_new_{n}": values[column] for n, column in enumerate(names)}
            for identity, values in batch.items()
        ]
        result = self.source.connection.execute(sa.update(table).where(*key).values(new), parameters)
        self._check(result, part, len(batch), many=len(batch) > 1)

    def _delete(self, part: Part, rows: Sequence[HistoryRow]) -> None:
        for start in range(0, len(rows), KEYS_PER_STATEMENT):
            chunk = rows[start : start + KEYS_PER_STATEMENT]
            condition = matches(part.key, [row.identity for row in chunk])
            result = self.source.connection.execute(sa.delete(part.audited.table).where(condition))
            self._check(result, part, len(chunk), many=False)

    def _check(self, result: sa.CursorResult[Any], part: Part, expected: int, *, many: bool) -> None:
        dialect = self.source.connection.dialect
        sane = dialect.supports_sane_multi_rowcount if many else dialect.supports_sane_rowcount
        if sane and result.rowcount >= 0 and result.rowcount != expected:
            raise Conflict(
                f"{result.rowcount} rows of {part.audited.table.fullname} were there to be undone where {expected} "
                "were recorded: the transaction is rolled back, so try again"
            )


def parents_first(part: Part, rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Sort the rows of one table so that a row comes after those that it refers to in the same table."""
    table = part.audited.table
    own = [c for c in table.foreign_key_constraints if c.referred_table is table]
    if not own or len(rows) < 2:
        return list(rows)
    placed: dict[int, None] = {}
    by_key: list[tuple[sa.ForeignKeyConstraint, dict[tuple[Any, ...], int]]] = [
        (c, {_of(row, [element.column for element in c.elements]): n for n, row in enumerate(rows)}) for c in own
    ]
    for start in range(len(rows)):
        path = [start]
        while path:
            row = rows[path[-1]]
            parents = [known.get(_of(row, [e.parent for e in c.elements])) for c, known in by_key]
            waiting = [n for n in parents if n is not None and n not in placed and n not in path]
            if waiting:
                path.append(waiting[0])
            else:
                placed[path.pop()] = None
    return [rows[n] for n in placed]


def _of(row: HistoryRow, columns: Sequence[sa.Column[Any]]) -> tuple[Any, ...]:
    values = (row.values.get(column) for column in columns)
    return tuple(None if isinstance(value, Marker) else value for value in values)
