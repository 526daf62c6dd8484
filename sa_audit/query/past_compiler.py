"""The compiler of past sessions: it puts the state of each audited table at the moment into the table's place.

It is a subclass of the compiler of the database's dialect, on a copy of that dialect, so that statements, mappers and
loader strategies stay as they are.  What can't be answered from the history, or could write, is refused here, before
any SQL is sent.  Tables without history are noted, since each session says for itself which of them it may read.
Follows :mod:`sqlalchemy.sql.compiler`; touches no connection.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import CompiledCacheType
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause, ColumnElement, Label
from sqlalchemy.sql.operators import exists as exists_operator
from sqlalchemy.sql.selectable import TableClause
from sqlalchemy.types import TypeEngine, UserDefinedType
from sqlalchemy.util import LRUCache

from ..errors import NotAudited, ReadOnlyPast
from ..model import AuditedTable, Marker, audited_of
from .moment import Moment
from .names import Former
from .past_database import PastDatabase, past_database
from .past_refusal import ReadOnlyCompiler, Unusable, reason, refuse_use
from .past_state import PastTable, past_table, unrecorded

_MEMO: Final = "_sa_audit_past"
_CACHE_SIZE: Final = 500


class MarkerType(UserDefinedType[Marker]):
    """The type of a result column that stands for values which the history does not hold."""

    cache_ok = True

    def __init__(self, marker: Marker) -> None:
        self.marker = marker

    def get_col_spec(self, **_kw: Any) -> str:
        """Give a name, which is never sent."""
        return "TEXT"

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Give the marker, whatever the database sent."""
        marker = self.marker
        return lambda _value: marker


class PastDialect:
    """A copy of a dialect that compiles for the past, with the statements that it has compiled.

    Args:
        dialect: the copy.
        database: what the database needs.
        cache: compiled statements; separate from the live engine's.
    """

    def __init__(self, dialect: Dialect, database: PastDatabase, cache: CompiledCacheType) -> None:
        self.dialect = dialect
        self.database = database
        self.cache = cache
        self._knowing: dict[Any, Dialect] = {}

    def knowing(self, formers: Mapping[AuditedTable, Mapping[str, Former]]) -> Dialect:
        """Give the dialect that reads the columns which had another type at the moment from what keeps their values."""
        key = frozenset(
            (audited, column, former.name, former.type.compile(self.dialect))
            for audited, columns in formers.items()
            for column, former in columns.items()
        )
        if key not in self._knowing:
            dialect = copy.copy(self.dialect)
            own = self.dialect.statement_compiler
            dialect.statement_compiler = type(own.__name__, (own,), {"formers": dict(formers)})
            self._knowing[key] = dialect
        return self._knowing[key]


def past_dialect(dialect: Dialect, kind: type[Moment]) -> PastDialect:
    """Give the past side of a dialect; made once for each kind of moment, and kept by the dialect itself.

    Args:
        dialect: a live engine's, after its first connect.
        kind: the kind of moment.

    Raises:
        ConfigurationError: for a database that the library does not know.
    """
    memo: dict[type[Moment], PastDialect] = dialect.__dict__.setdefault(_MEMO, {})
    known = memo.get(kind)
    return known if known is not None else memo.setdefault(kind, _copied(dialect, kind))


def _copied(dialect: Dialect, kind: type[Moment]) -> PastDialect:
    database = past_database(dialect)
    dialect.dispatch  # noqa: B018 - made now, so that the copy shares the listeners that come later
    past = copy.copy(dialect)
    past.__dict__.pop(_MEMO, None)
    past.do_begin = database.begin  # type: ignore[method-assign]
    live = dialect.statement_compiler
    past.statement_compiler = cast(
        type[SQLCompiler], type(f"Past{live.__name__}", (PastCompiler, live), {"kind": kind, "database": database})
    )
    return PastDialect(past, database, LRUCache(_CACHE_SIZE))


class PastCompiler(ReadOnlyCompiler):
    """Compiles a statement so that it reads the past; mixed into the dialect's own compiler.

    Attributes:
        touched: the audited tables that the statement reads.
        present: what it reads as it is now, for want of a history.
    """

    kind: ClassVar[type[Moment]]
    database: ClassVar[PastDatabase]
    formers: ClassVar[Mapping[AuditedTable, Mapping[str, Former]]] = {}

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.touched: dict[AuditedTable, PastTable] = {}
        self.present: dict[TableClause, None] = {}
        self._in_state = False
        self._lists: list[_Columns] = []
        self._revealed: tuple[int, Unusable] | None = None
        self._after_exists = False
        super().__init__(*args, **kw)

    # -- tables ---------------------------------------------------------------------------------------------------

    def visit_table(self, table: Any, asfrom: Any = False, *args: Any, **kw: Any) -> Any:
        """Render the state of an audited table in its place; note a table that has no history."""
        if self._in_state or not (asfrom or kw.get("within_tstring")):
            return self._live.visit_table(table, asfrom, *args, **kw)
        audited = audited_of(table) if isinstance(table, sa.Table) else None
        if audited is None:
            self.present[table._deannotate() if table._annotations else table] = None
            return self._live.visit_table(table, asfrom, *args, **kw)
        if table in (kw.get("fromhints") or {}):
            raise ReadOnlyPast(f"a hint for table {table.fullname} can't be kept in a past session: leave it out")
        return self._render_past(table, audited, **kw)

    def _render_past(
        self, table: sa.Table, audited: AuditedTable, from_linter: Any = None, enclosing_alias: Any = None, **_kw: Any
    ) -> str:
        if from_linter:
            from_linter.froms[table] = table.fullname
        past = self._past(audited)
        enclosed = enclosing_alias is not None and enclosing_alias.element is table
        in_state, self._in_state = self._in_state, True
        try:
            text = self.process(past.state, asfrom=True)
        finally:
            self._in_state = in_state
        return text if enclosed else text + f" AS {self.preparer.quote(past.alias)}"

    def _past(self, audited: AuditedTable) -> PastTable:
        past = self.touched.get(audited)
        if past is None:
            past = self.touched[audited] = past_table(audited, self.kind, self.database, self.formers.get(audited, {}))
        return past

    def visit_tablesample(self, tablesample: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse a sample of a table: the past has no pages to sample."""
        raise NotAudited("TABLESAMPLE reads pages of the present table: sample with a condition or ORDER BY random()")

    # -- columns --------------------------------------------------------------------------------------------------

    def visit_column(
        self, column: Any, add_to_result_map: Any = None, include_table: bool = True, *args: Any, **kw: Any
    ) -> str:
        """Render a column under the name of its table's state; refuse one that has no recorded value."""
        if self._in_state:
            return super().visit_column(column, add_to_result_map, include_table, *args, **kw)
        marker = self._marker_of(column)
        if marker and self.stack and (self._revealed is None or self._revealed[0] != hash(column)):
            refuse_use(column, marker)
        if isinstance(marker, Marker):
            super().visit_column(column, add_to_result_map, include_table, *args, **kw)
            return self.database.null_of(column.type)
        audited = audited_of(column.table) if isinstance(column.table, sa.Table) else None
        if audited is None or not include_table:
            return super().visit_column(column, add_to_result_map, include_table, *args, **kw)
        name = super().visit_column(column, add_to_result_map, False, *args, **kw)
        return f"{self.preparer.quote(self._past(audited).alias)}.{name}"

    def visit_label(self, label: Any, *args: Any, **kw: Any) -> Any:
        """Render a label; refuse it where it stands for a value that has not been recorded."""
        if not self._in_state and kw.get("render_label_as_label") is label:
            marker = self._marker_of(_unlabelled(label))
            if marker is not None:
                refuse_use(_unlabelled(label), marker)
        return self._live.visit_label(label, *args, **kw)

    def _marker_of(self, column: Any) -> Unusable | None:
        """Give why a column, or the one that a subquery's column comes from, may only be shown, if so."""
        if not isinstance(column, ColumnClause):
            return None
        if isinstance(column.table, sa.Table):
            return self._marker(column)
        if column.table is None:
            return None
        markers = {self._marker(base) for base in column.base_columns} - {None}
        return min(markers, key=lambda marker: marker.name, default=None)  # type: ignore[union-attr]

    def _marker(self, column: Any) -> Unusable | None:
        audited = audited_of(column.table) if isinstance(getattr(column, "table", None), sa.Table) else None
        if audited is None:
            return None
        return unrecorded(audited).get(column.name) or self.formers.get(audited, {}).get(column.name)

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kw: Any) -> Any:
        """Let a column with no recorded value stand in a plain list of columns, and nowhere else."""
        if self._in_state:
            return self._live._label_select_column(select, column, *args, **kw)
        plain = _unlabelled(column)
        marker = self._marker_of(plain)
        if self._lists:
            self._lists[-1].places.append((plain, marker))
        if marker is not None:
            self._require_plain_list(select, plain, marker)
        revealed, self._revealed = self._revealed, None if marker is None else (hash(plain), marker)
        try:
            text = self._live._label_select_column(select, column, *args, **kw)
        finally:
            self._revealed = revealed
        if isinstance(marker, Marker) and text == self.database.null_of(plain.type):
            return f"{text} AS {self.preparer.quote(plain.name)}"
        return text

    def _add_to_result_map(self, keyname: str, name: str, objects: tuple[Any, ...], type_: TypeEngine[Any]) -> None:
        """Give the marker as the result of a column that has no recorded value."""
        shown = type_ if self._revealed is None else _shown_type(self._revealed[1])
        super()._add_to_result_map(keyname, name, objects, shown)

    def _require_plain_list(self, select: Any, column: ColumnClause[Any], marker: Unusable) -> None:
        if not self._lists or not self._lists[-1].plain:
            refuse_use(column, marker)
        if select._distinct and not _has_key(select, column):
            raise NotAudited(
                f"DISTINCT over {column} has no answer in the past, since {reason(marker)}: "
                "leave the column out, or add the primary key of its table"
            )

    # -- selects --------------------------------------------------------------------------------------------------

    def visit_select(self, select_stmt: Any, asfrom: Any = False, *args: Any, **kw: Any) -> Any:
        """Render a SELECT, knowing whether its columns go into a result as they are."""
        if self._in_state:
            return self._live.visit_select(select_stmt, asfrom, *args, **kw)
        with self._list(asfrom, compound=kw.get("compound_index") is not None):
            return self._live.visit_select(select_stmt, asfrom, *args, **kw)

    def visit_compound_select(self, cs: Any, asfrom: Any = False, *args: Any, **kw: Any) -> Any:
        """Render a UNION or its like, if each place holds recorded values in all of its parts, or in none."""
        with self._list(asfrom, compound=kw.get("compound_index") is not None) as columns:
            text = self._live.visit_compound_select(cs, asfrom, *args, **kw)
            columns.places = _compound_places(cs, columns.parts)
            return text

    @contextmanager
    def _list(self, asfrom: bool, *, compound: bool) -> Iterator[_Columns]:
        outer = self._lists[-1] if compound and self._lists else None
        plain = not self.stack or asfrom or self._after_exists or (outer is not None and outer.plain)
        columns = _Columns(plain=bool(plain))
        after, self._after_exists = self._after_exists, False
        self._lists.append(columns)
        try:
            yield columns
        finally:
            self._lists.pop()
            self._after_exists = after
        if outer is not None:
            outer.parts.append(columns.places)

    def visit_unary(self, unary: Any, *args: Any, **kw: Any) -> Any:
        """Render a unary expression; the list of columns within EXISTS is never looked at."""
        after, self._after_exists = self._after_exists, unary.operator is exists_operator
        try:
            return self._live.visit_unary(unary, *args, **kw)
        finally:
            self._after_exists = after

    def group_by_clause(self, select: Any, **kw: Any) -> Any:
        """Render GROUP BY, with the columns that depend on a key in it: the database knows no key of a past table."""
        text = self._live.group_by_clause(select, **kw)
        if self._in_state or not text or not self.database.infers_grouping:
            return text
        return ", ".join([text, *(self.process(column, **kw) for column in _dependent_columns(select))])


@dataclass(slots=True, kw_only=True)
class _Columns:
    """The columns of a SELECT or compound that is being rendered.

    Args:
        plain: whether they go into a result, or a FROM, as they are.
        places: for each column, the column itself and its marker.
        parts: the places of a compound's parts.
    """

    plain: bool
    places: list[tuple[Any, Unusable | None]] = field(default_factory=list)
    parts: list[list[tuple[Any, Unusable | None]]] = field(default_factory=list)


_MARKER_TYPES: Final = {marker: MarkerType(marker) for marker in Marker}


def _shown_type(marker: Unusable) -> TypeEngine[Any]:
    return _MARKER_TYPES[marker] if isinstance(marker, Marker) else marker.type


def _compound_places(
    compound: Any, parts: list[list[tuple[Any, Unusable | None]]]
) -> list[tuple[Any, Unusable | None]]:
    """Give the columns of a compound, having refused what would mix recorded and unrecorded values, or compare them."""
    result: list[tuple[Any, Unusable | None]] = []
    for place in zip(*parts, strict=False):
        unrecorded_one = next(((column, marker) for column, marker in place if marker is not None), None)
        result.append(unrecorded_one or place[0])
        if unrecorded_one is None:
            continue
        known = any(marker is None and not _is_null(column) for column, marker in place)
        if known or compound.keyword.name != "UNION_ALL":
            raise NotAudited(
                f"{unrecorded_one[0]} can't stand in this {compound.keyword.name.replace('_', ' ')}, since "
                f"{reason(unrecorded_one[1])}: leave the column out, or use union_all() of selects "
                "that all have it"
            )
    return result


def _dependent_columns(select: Any) -> list[ColumnElement[Any]]:
    """Give the columns that a select uses outside of its GROUP BY and whose table's key is all in it."""
    grouped = {hash(_unlabelled(column)) for column in select._group_by_clauses}
    used = [*select.selected_columns, *select._order_by_clauses, *getattr(select, "_having_criteria", ())]
    found: dict[int, ColumnElement[Any]] = {}
    for column in (part for element in used for part in visitors.iterate(element)):
        if not isinstance(column, ColumnClause) or hash(column) in grouped:
            continue
        if (audited := _audited_source(column.table)) is None or _marker_in(audited, column) is not None:
            continue
        if column.table is not None and all(hash(column.table.c[key.key]) in grouped for key in audited.key):
            found.setdefault(hash(column), column)
    return list(found.values())


def _audited_source(source: Any) -> AuditedTable | None:
    """Give the audited table that a FROM is, or is an alias of."""
    table = source if isinstance(source, sa.Table) else getattr(source, "element", None)
    return audited_of(table) if isinstance(table, sa.Table) else None


def _marker_in(audited: AuditedTable, column: Any) -> Unusable | None:
    return unrecorded(audited).get(column.name)


def _unlabelled(column: Any) -> Any:
    while isinstance(column, Label):
        column = column.element
    return column


def _is_null(column: Any) -> bool:
    while isinstance(column, Label | sa.Cast | sa.TypeCoerce):
        column = column.clause if isinstance(column, sa.Cast | sa.TypeCoerce) else column.element
    return isinstance(column, sa.sql.elements.Null)


def _has_key(select: Any, column: ColumnElement[Any]) -> bool:
    """Tell whether the select's columns include the key of the table, or alias, that the column is of."""
    source: Any = getattr(column, "table", None)
    audited = _audited_source(source)
    selected = {hash(_unlabelled(each)) for each in select.selected_columns}
    return audited is not None and all(hash(source.c[key.key]) in selected for key in audited.key)


__all__ = ["MarkerType", "PastCompiler", "PastDialect", "past_dialect"]
