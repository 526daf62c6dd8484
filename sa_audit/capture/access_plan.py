"""What a statement reads of models with ``reads``: worked out once for each compiled statement, touching no connection.

A result column is followed through aliases, subqueries and CTEs to the table column that it comes from; where all
columns of a key come from one FROM, the rows of the result name the rows that they show.
Imports model, ddl, and of capture the text of keys and what tells tables of one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, TextClause

from ..ddl.backend import speaks_for
from ..model.history import AUDITED, AuditedTable, Trail, is_trail_table
from ..model.policy import policy_of
from .identity import root_of
from .same_table import same_schema

_MEMO: Final = "reads"
HIDDEN: Final = "(hidden)"
_ABOUT_TABLES: Final = ("pragma", "show", "describe", "desc ", "explain ")
"""How statements begin that tell about a table and show none of its rows."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A comparison of a column with a parameter; ``bind`` is None where its value may not be shown."""

    column: str
    operator: str
    bind: BindParameter[Any] | None


@dataclass(slots=True)
class EntityRead:
    """What a statement reads of one entity.

    Attributes:
        audited: a table of it that records reads.
        entity: the name of its class.
        table: the full name of the table that names its rows.
        key: the columns of its key.
        columns: the attributes that are in the result.
        places: for each FROM that shows whole keys, the positions of their values in a row of the result.
        processors: for each of these positions, what makes a Python value of a raw one, once that is known.
        by_name: whether the statement has another object of the table's name, which may be another database's table.
    """

    audited: AuditedTable
    entity: str
    table: str
    key: tuple[sa.Column[Any], ...]
    columns: dict[str, None] = field(default_factory=dict)
    places: list[tuple[int, ...]] = field(default_factory=list)
    processors: list[list[tuple[int, Any]]] | None = None
    by_name: bool = False

    @property
    def relaxed(self) -> bool:
        """Whether its record need not wait for the disk."""
        return self.audited.options.reads == "relaxed"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a statement reads."""

    entities: tuple[EntityRead, ...]
    criteria: tuple[Criterion, ...]


def plan_of(compiled: Any, trails: Iterable[Trail]) -> Plan | None:
    """Give what a compiled statement reads, or None if that is nothing of a model with ``reads``.

    Args:
        compiled: the statement.
        trails: those that record reads.
    """
    state = compiled.compile_state
    statement = getattr(state, "statement", None) if state is not None else None
    statement = compiled.statement if statement is None else statement
    elements = list(_elements(statement))
    found: dict[str, EntityRead] = {}
    for element in elements:
        if isinstance(element, sa.TableClause):
            _touch(found, element)
            _touch_namesakes(found, element, trails, compiled.dialect)
        elif isinstance(element, TextClause):
            for table in tables_in_text(element.text, trails, compiled.dialect):
                _touch(found, table)
    _follow_columns(found, compiled._result_columns or ())
    if not found:
        return None
    named = any(read.by_name for read in found.values())  # another object's columns don't say their policies
    return Plan(tuple(found.values()), () if named else tuple(_criteria(elements)))


def text_plan(sql: str, trails: Iterable[Trail], dialect: sa.Dialect) -> Plan | None:
    """Give what a textual statement reads: the tables that are named in it, whose rows can't be known."""
    found: dict[str, EntityRead] = {}
    for table in tables_in_text(sql, trails, dialect):
        _touch(found, table)
    return Plan(tuple(found.values()), ()) if found else None


def tables_in_text(sql: str, trails: Iterable[Trail], dialect: sa.Dialect) -> Iterator[sa.Table]:
    """Give the tables with ``reads``, and their histories, whose names stand in a text as words."""
    lowered = sql.lower()
    if lowered.lstrip("( \t\r\n").startswith(_ABOUT_TABLES):
        return
    for trail in trails:
        for audited in trail.audited.values():
            for table in (audited.table, audited.history) if audited.options.reads else ():
                name = table.name.lower()
                if (
                    name in lowered
                    and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", lowered)
                    and speaks_for(dialect, trail, audited.table.fullname)
                ):
                    yield table


def _elements(statement: Any) -> Iterator[Any]:
    yield from visitors.iterate(statement)
    for cte in getattr(statement, "_independent_ctes", ()):
        yield from visitors.iterate(cte.element)
    for part in getattr(statement, "_returning", ()):
        yield from visitors.iterate(part)
    table = getattr(statement, "table", None)
    if table is not None and hasattr(statement, "_returning"):
        yield getattr(table, "_deannotate", lambda: table)()


def _touch(found: dict[str, EntityRead], table: Any) -> EntityRead | None:
    audited = _read_audited(table)
    if audited is None:
        return None
    entity, name, key = identified_by(audited)
    return found.setdefault(name, EntityRead(audited, entity, name, key))


def _touch_namesakes(found: dict[str, EntityRead], table: Any, trails: Iterable[Trail], dialect: sa.Dialect) -> None:
    """Touch what a lightweight ``table()``, or a ``Table`` of another MetaData, may stand for."""
    if isinstance(table, sa.Table) and (is_trail_table(table) or AUDITED in table.info):
        return
    for trail in trails:
        for audited in trail.audited.values():
            for own in (audited.table, audited.history) if audited.options.reads else ():
                if own.name == table.name and same_schema(dialect, own.schema, table.schema):
                    known = len(found)
                    read = _touch(found, own)
                    if read is not None and len(found) > known:
                        read.by_name = True


def _read_audited(table: Any) -> AuditedTable | None:
    """Give the audited side of a table, or history table, whose reads are recorded."""
    info = getattr(table, "info", None)
    audited = info.get(AUDITED) if info else None
    return audited if isinstance(audited, AuditedTable) and audited.options.reads else None


def identified_by(audited: AuditedTable) -> tuple[str, str, tuple[sa.Column[Any], ...]]:
    """Give what names the rows of an audited table: the class, and the full name and key of the table of its root."""
    known: tuple[str, str, tuple[sa.Column[Any], ...]] | None = audited.memo.get(_MEMO)
    if known is None:
        mapper = mapper_for(audited)
        if mapper is None:
            known = (audited.table.fullname, audited.table.fullname, audited.key)
        else:
            root: Any = root_of(mapper)
            known = (mapper.class_.__name__, root.local_table.fullname, tuple(root.primary_key))
        audited.memo[_MEMO] = known
    return known


def mapper_for(audited: AuditedTable) -> Mapper[Any] | None:
    """Give the mapper of an audited table, the one nearest the root."""
    mappers = [
        mapper
        for registry in audited.trail.registries
        for mapper in registry.mappers
        if mapper.local_table is audited.table
    ]
    return next((mapper for mapper in mappers if all(other.isa(mapper) for other in mappers)), None)


# -- result columns ------------------------------------------------------------------------------


def _follow_columns(found: dict[str, EntityRead], entries: Iterable[Any]) -> None:
    """Note which attributes a result shows, and where it shows keys."""
    positions: dict[tuple[int, AuditedTable], dict[str, int]] = {}
    for place, entry in enumerate(entries):
        for element in entry.objects:
            if not isinstance(element, sa.ColumnElement):
                continue
            plain = element.element if isinstance(element, sa.sql.elements.Label) else element
            for column in _table_columns(plain):
                read = _touch(found, column.table)
                audited = _read_audited(column.table)
                if read is None or audited is None:
                    continue
                read.columns[_attribute(audited, column)] = None
                source = getattr(plain, "table", None)
                if source is not None:
                    positions.setdefault((id(source), audited), {}).setdefault(column.key, place)
    for (_source, audited), known in positions.items():
        keys = [column.key for column in audited.key]
        if all(key in known for key in keys):
            read = found[identified_by(audited)[1]]
            at = tuple(known[key] for key in keys)
            if at not in read.places:
                read.places.append(at)


def _table_columns(element: Any) -> list[Any]:
    """Give the table columns that a result column, or those in its expression, come from."""
    parts = [element] if isinstance(element, sa.ColumnClause) else visitors.iterate(element)
    found: dict[int, Any] = {}
    for part in parts:
        if isinstance(part, sa.ColumnClause):
            for base in part.base_columns:
                plain = base._deannotate() if base._annotations else base
                if isinstance(plain, sa.Column) and isinstance(plain.table, sa.Table):
                    found[id(plain)] = plain
    return list(found.values())


def _attribute(audited: AuditedTable, column: sa.Column[Any]) -> str:
    mapper = mapper_for(audited)
    if mapper is not None and column.table is audited.table:
        prop = mapper._columntoproperty.get(column)
        if prop is not None:
            return prop.key
    return column.name


# -- criteria ------------------------------------------------------------------------------------


def _criteria(elements: Iterable[Any]) -> Iterator[Criterion]:
    """Give the comparisons of columns with parameters, in the order of the statement."""
    for element in elements:
        if not isinstance(element, sa.BinaryExpression):
            continue
        columns = [*_table_columns(element.left), *_table_columns(element.right)]
        binds = [side for side in (element.left, element.right) if isinstance(side, BindParameter)]
        if not columns or not binds:
            continue
        hidden = len(columns) > 1 or any(policy_of(column.info, str(column)) for column in columns)
        operator = getattr(element.operator, "__name__", str(element.operator))
        for bind in binds:
            yield Criterion(str(columns[0]), operator, None if hidden else bind)
