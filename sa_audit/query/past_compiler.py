"""The compiler of past sessions: it puts the state of each audited table at the moment into the table's place.

It is a subclass of the compiler of the database's dialect, on a copy of that dialect, so that statements, mappers and
loader strategies stay as they are.  What can't be answered from the history, or could write, is refused here, before
any SQL is sent.  Tables without history are noted, since each session says for itself which of them it may read.
Follows :mod:`sqlalchemy.sql.compiler`; touches no connection.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import CompiledCacheType
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause, ColumnElement, Label
from sqlalchemy.sql.operators import exists as exists_operator
from sqlalchemy.sql.selectable import FromClause, TableClause
from sqlalchemy.types import TypeEngine, UserDefinedType
from sqlalchemy.util import LRUCache

from ..errors import NotAudited, ReadOnlyPast
from ..model import AuditedTable, Marker, audited_of
from .moment import Moment
from .past_database import PastDatabase, past_database
from .past_state import PastTable, past_table, unrecorded

_MEMO: Final = "_sa_audit_past"
_CACHE_SIZE: Final = 500
_UNSEEN: Final = re.compile(
    r"\b(select|from|table|into|insert|update|delete|merge|truncate|share|lock|call|copy|execute)\b|;", re.IGNORECASE
)


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
    live = dialect.statement_compiler
    past.statement_compiler = cast(
        type[SQLCompiler], type(f"Past{live.__name__}", (PastCompiler, live), {"kind": kind, "database": database})
    )
    return PastDialect(past, database, LRUCache(_CACHE_SIZE))


class PastCompiler(SQLCompiler):
    """Compiles a statement so that it reads the past; mixed into the dialect's own compiler.

    Attributes:
        touched: the audited tables that the statement reads.
        present: what it reads as it is now, for want of a history.
    """

    kind: ClassVar[type[Moment]]
    database: ClassVar[PastDatabase]

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.touched: dict[AuditedTable, PastTable] = {}
        self.present: dict[TableClause, None] = {}
        self._in_state = False
        self._plain_lists: list[bool] = []
        self._revealed: tuple[int, Marker] | None = None
        self._after_exists = False
        super().__init__(*args, **kw)

    # -- tables ---------------------------------------------------------------------------------------------------

    def visit_table(self, table: TableClause, asfrom: bool = False, **kw: Any) -> str:
        """Render the state of an audited table in its place; note a table that has no history."""
        if self._in_state or not (asfrom or kw.get("within_tstring")):
            return super().visit_table(table, asfrom=asfrom, **kw)  # type: ignore[no-any-return, no-untyped-call]
        audited = audited_of(table) if isinstance(table, sa.Table) else None
        if audited is None:
            self.present[table._deannotate() if table._annotations else table] = None
            return super().visit_table(table, asfrom=asfrom, **kw)  # type: ignore[no-any-return, no-untyped-call]
        if table in (kw.get("fromhints") or {}):
            raise ReadOnlyPast(f"a hint for table {table.fullname} can't be kept in a past session: leave it out")
        return self._render_past(table, audited, **kw)

    def _render_past(
        self, table: TableClause, audited: AuditedTable, from_linter: Any = None, enclosing_alias: Any = None, **_kw: Any
    ) -> str:
        if from_linter:
            from_linter.froms[table] = table.fullname
        past = self._past(audited)
        enclosed = enclosing_alias is not None and enclosing_alias.element is table
        in_state, self._in_state = self._in_state, True
        try:
            return self.process(past.state if enclosed else past.named, asfrom=True)
        finally:
            self._in_state = in_state

    def _past(self, audited: AuditedTable) -> PastTable:
        past = self.touched.get(audited)
        if past is None:
            past = self.touched[audited] = past_table(audited, self.kind, self.database)
        return past

    def visit_tablesample(self, tablesample: Any, asfrom: bool = False, **kw: Any) -> str:
        """Refuse a sample of a table: the past has no pages to sample."""
        raise NotAudited("TABLESAMPLE reads pages of the present table: sample with a condition or ORDER BY random()")

    # -- columns --------------------------------------------------------------------------------------------------

    def visit_column(
        self, column: ColumnClause[Any], add_to_result_map: Any = None, include_table: bool = True, **kw: Any
    ) -> str:
        """Render a column under the name of its table's state; refuse one that has no recorded value."""
        if self._in_state:
            return super().visit_column(column, add_to_result_map, include_table, **kw)
        if (marker := self._marker_of(column)) is not None:
            if self._revealed is None or self._revealed[0] != hash(column):
                _refuse_use(column, marker)
            super().visit_column(column, add_to_result_map, include_table, **kw)
            return self.database.null_of(column.type)
        audited = audited_of(column.table) if isinstance(column.table, sa.Table) else None
        if audited is None or not include_table:
            return super().visit_column(column, add_to_result_map, include_table, **kw)
        name = super().visit_column(column, add_to_result_map, include_table=False, **kw)
        return f"{self.preparer.quote(self._past(audited).alias)}.{name}"

    def visit_label(self, label: Label[Any], *args: Any, **kw: Any) -> str:
        """Render a label; refuse it where it stands for a value that has not been recorded."""
        if not self._in_state and kw.get("render_label_as_label") is label:
            marker = self._marker_of(_unlabelled(label))
            if marker is not None:
                _refuse_use(_unlabelled(label), marker)
        return super().visit_label(label, *args, **kw)  # type: ignore[no-any-return, no-untyped-call]

    def _marker_of(self, column: Any) -> Marker | None:
        """Give the marker of a column, or of the one that a subquery's column comes from."""
        if not isinstance(column, ColumnClause):
            return None
        if isinstance(column.table, sa.Table):
            return _marker(column)
        if column.table is None:
            return None
        markers = {_marker(base) for base in column.base_columns} - {None}
        return min(markers, key=lambda marker: marker.name, default=None)  # type: ignore[union-attr]

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kw: Any) -> Any:
        """Let a column with no recorded value stand in a plain list of columns, and nowhere else."""
        if self._in_state:
            return super()._label_select_column(select, column, *args, **kw)  # type: ignore[no-untyped-call]
        plain = _unlabelled(column)
        marker = self._marker_of(plain)
        if marker is not None:
            self._require_plain_list(select, plain, marker)
        revealed, self._revealed = self._revealed, None if marker is None else (hash(plain), marker)
        try:
            text = super()._label_select_column(select, column, *args, **kw)  # type: ignore[no-untyped-call]
        finally:
            self._revealed = revealed
        if marker is not None and text == self.database.null_of(plain.type):
            return f"{text} AS {self.preparer.quote(plain.name)}"
        return text

    def _add_to_result_map(self, keyname: str, name: str, objects: tuple[Any, ...], type_: TypeEngine[Any]) -> None:
        """Give the marker as the result of a column that has no recorded value."""
        shown = type_ if self._revealed is None else _MARKER_TYPES[self._revealed[1]]
        super()._add_to_result_map(keyname, name, objects, shown)

    def _require_plain_list(self, select: Any, column: ColumnClause[Any], marker: Marker) -> None:
        if not self._plain_lists or not self._plain_lists[-1]:
            _refuse_use(column, marker)
        if select._distinct and not _has_key(select, column):
            raise NotAudited(
                f"DISTINCT over {column} has no answer in the past, since its values are not in the history ({marker}): "
                "leave the column out, or add the primary key of its table"
            )

    # -- selects --------------------------------------------------------------------------------------------------

    def visit_select(self, select_stmt: Any, asfrom: bool = False, **kw: Any) -> str:
        """Render a SELECT, knowing whether its columns go into a result as they are."""
        if self._in_state:
            return super().visit_select(select_stmt, asfrom=asfrom, **kw)  # type: ignore[no-any-return, no-untyped-call]
        with self._list(asfrom, compound=kw.get("compound_index") is not None):
            return super().visit_select(select_stmt, asfrom=asfrom, **kw)  # type: ignore[no-any-return, no-untyped-call]

    def visit_compound_select(self, cs: Any, asfrom: bool = False, **kw: Any) -> str:
        """Render a UNION or its like, if each place holds recorded values in all of its parts, or in none."""
        with self._list(asfrom, compound=kw.get("compound_index") is not None):
            self._check_compound(cs)
            return super().visit_compound_select(cs, asfrom=asfrom, **kw)  # type: ignore[no-any-return, no-untyped-call]

    @contextmanager
    def _list(self, asfrom: bool, *, compound: bool) -> Iterator[None]:
        inherited = bool(compound and self._plain_lists and self._plain_lists[-1])
        plain = inherited or not self.stack or asfrom or self._after_exists
        self._plain_lists.append(plain)
        after, self._after_exists = self._after_exists, False
        try:
            yield
        finally:
            self._plain_lists.pop()
            self._after_exists = after

    def visit_unary(self, unary: Any, add_to_result_map: Any = None, result_map_targets: Any = (), **kw: Any) -> str:
        """Render a unary expression; the list of columns within EXISTS is never looked at."""
        after, self._after_exists = self._after_exists, unary.operator is exists_operator
        try:
            return super().visit_unary(  # type: ignore[no-any-return, no-untyped-call]
                unary, add_to_result_map=add_to_result_map, result_map_targets=result_map_targets, **kw
            )
        finally:
            self._after_exists = after

    def _check_compound(self, compound: Any) -> None:
        columns = [list(select.selected_columns) for select in compound.selects]
        keeps_all = "UNION_ALL" in str(compound.keyword) or str(getattr(compound.keyword, "value", "")) == "UNION ALL"
        for place in zip(*columns, strict=False):
            plain = [_unlabelled(column) for column in place]
            markers = [self._marker_of(column) for column in plain]
            if not any(markers):
                continue
            known = [column for column, marker in zip(plain, markers, strict=True) if marker is None and not _is_null(column)]
            if known or not keeps_all:
                shown = next(column for column, marker in zip(plain, markers, strict=True) if marker is not None)
                raise NotAudited(
                    f"{shown} can't stand in this {compound.keyword.name.replace('_', ' ')}, since its values are not in "
                    "the history: leave the column out, or use union_all() of selects that all have it"
                )

    # -- what is refused ------------------------------------------------------------------------------------------

    def visit_insert(self, insert_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("INSERT")

    def visit_update(self, update_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("UPDATE")

    def visit_delete(self, delete_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("DELETE")

    def visit_sequence(self, sequence: Any, **_kw: Any) -> NoReturn:
        """Refuse to move a sequence."""
        _refuse_write(f"the next value of sequence {sequence.name}")

    def visit_next_value_func(self, next_value: Any, **_kw: Any) -> NoReturn:
        """Refuse to move a sequence."""
        _refuse_write(f"the next value of sequence {next_value.sequence.name}")

    def for_update_clause(self, select: Any, **_kw: Any) -> NoReturn:
        """Refuse to lock."""
        raise ReadOnlyPast("SELECT ... FOR UPDATE locks rows of the present: leave with_for_update() out in a past session")

    def visit_textual_select(self, taf: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse text whose tables can't be seen."""
        _refuse_text(str(taf.element))

    def visit_textclause(self, textclause: Any, add_to_result_map: Any = None, **kw: Any) -> str:
        """Refuse text that is a statement, stands for a table, or could name one."""
        if not self._in_state and (not self.stack or kw.get("asfrom") or _UNSEEN.search(textclause.text)):
            _refuse_text(textclause.text)
        return super().visit_textclause(textclause, add_to_result_map=add_to_result_map, **kw)  # type: ignore[no-any-return, no-untyped-call]

    def visit_tstring(self, tstring: Any, add_to_result_map: Any = None, **kw: Any) -> str:
        """Refuse a template string that is a statement or stands for a table."""
        if not self.stack or kw.get("asfrom"):
            _refuse_text("".join(getattr(part, "text", "...") for part in tstring.parts))
        return super().visit_tstring(tstring, add_to_result_map=add_to_result_map, **kw)  # type: ignore[misc, no-any-return]

    def visit_tstring_text(self, element: Any, **kw: Any) -> str:
        """Refuse a part of a template string that could name a table."""
        self._check_text(str(getattr(element, "text", element)))
        return super().visit_tstring_text(element, **kw)  # type: ignore[misc, no-any-return]

    def escape_literal_column(self, text: str) -> str:
        """Refuse a literal column that could name a table."""
        if not self._in_state:
            self._check_text(text)
        return super().escape_literal_column(text)  # type: ignore[no-any-return, no-untyped-call]

    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> str:
        """Refuse an operator that could name a table."""
        self._check_text(operator.opstring)
        return super().visit_custom_op_binary(element, operator, **kw)  # type: ignore[no-any-return, no-untyped-call]

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:
        """Refuse a hint that could name a table."""
        self._check_text(text or "")
        return super().get_from_hint_text(table, text)  # type: ignore[no-any-return, no-untyped-call]

    def get_statement_hint_text(self, hint_texts: Iterable[str]) -> str:
        """Refuse a hint that could name a table."""
        for text in hint_texts:
            self._check_text(text)
        return super().get_statement_hint_text(hint_texts)  # type: ignore[no-any-return, no-untyped-call]

    def _check_text(self, text: str) -> None:
        if _UNSEEN.search(text):
            _refuse_text(text)


_MARKER_TYPES: Final = {marker: MarkerType(marker) for marker in Marker}


def _marker(column: Any) -> Marker | None:
    audited = audited_of(column.table) if isinstance(getattr(column, "table", None), sa.Table) else None
    return unrecorded(audited).get(column.name) if audited is not None else None


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
    source = column.table  # type: ignore[attr-defined]
    table = source if isinstance(source, sa.Table) else getattr(source, "element", None)
    audited = audited_of(table) if isinstance(table, sa.Table) else None
    if audited is None or not isinstance(source, FromClause):
        return False
    selected = {hash(_unlabelled(each)) for each in select.selected_columns}
    return all(hash(source.c[key.key]) in selected for key in audited.key)


def _refuse_use(column: Any, marker: Marker) -> NoReturn:
    raise NotAudited(
        f"{column} can't be used in the past, since its values are not in the history ({marker}): "
        "such a column may only stand in a plain list of columns"
    )


def _refuse_write(what: str) -> NoReturn:
    raise ReadOnlyPast(f"{what} in a past session: the past can't be written; use sa_audit.restore() or revert()")


def _refuse_text(text: str) -> NoReturn:
    raise ReadOnlyPast(
        f"text in a past session can't be read for the tables it names: {text!r}; write it as SQLAlchemy expressions"
    )


__all__ = ["MarkerType", "PastCompiler", "PastDialect", "past_dialect"]
