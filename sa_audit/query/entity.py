"""What a question is about: an entity, its tables in the history, its key, and its attributes' names.

A joined-inheritance entity has several tables, the root's first; a concrete or single-table one has one.
Imports model, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.sql import operators, visitors

from ..errors import NotAudited
from ..model import AuditedTable, Trail, audited_of, complete, trail_of
from .keytype import check_key

Identity = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One table of a subject.

    Attributes:
        rank: its place in the subject, the root's being 0.
        audited: the table and its history.
        key: the columns that hold the entity's key, in the order of the root's.
    """

    rank: int
    audited: AuditedTable
    key: tuple[sa.Column[Any], ...]

    @property
    def history(self) -> sa.Table:
        """The history table."""
        return self.audited.history

    @property
    def history_key(self) -> tuple[sa.Column[Any], ...]:
        """The key's columns in the history table."""
        return tuple(self.audited.history.c[column.key] for column in self.key)


class Subject:
    """An entity that is asked about: a mapped class with the tables of its hierarchy, or a plain table."""

    def __init__(self, mapper: Mapper[Any] | None, parts: Sequence[Part], mappers: Sequence[Mapper[Any]]) -> None:
        self.mapper = mapper
        self.parts = tuple(parts)
        self.mappers = tuple(mappers)
        self._names: dict[Mapper[Any] | None, dict[sa.Column[Any], str]] = {}
        self._mapped: dict[Mapper[Any] | None, frozenset[sa.Column[Any]]] = {}

    @property
    def trail(self) -> Trail:
        """The trail of the subject's MetaData."""
        return self.parts[0].audited.trail

    @property
    def name(self) -> str:
        """The name of the class, or of the table."""
        return self.mapper.class_.__name__ if self.mapper is not None else self.parts[0].audited.table.fullname

    @property
    def bind_arguments(self) -> dict[str, Any]:
        """What tells a session which of its binds holds the subject."""
        return {"mapper": self.mapper} if self.mapper is not None else {"clause": self.parts[0].audited.table}

    @property
    def key_names(self) -> tuple[str, ...]:
        """The attribute names of the key's columns."""
        names = self.names(self.mapper)
        return tuple(names[column] for column in self.parts[0].key)

    def names(self, mapper: Mapper[Any] | None) -> dict[sa.Column[Any], str]:
        """Give the attribute name of each recorded column, as one mapper of the hierarchy sees it.

        A column that no mapper maps goes by its own name, since its changes are not to be hidden.
        """
        known = self._names.get(mapper)
        if known is None:
            columns = (column.source for part in self.parts for column in part.audited.columns)
            known = self._names[mapper] = {column: self._name(mapper, column) for column in columns}
        return known

    def mapped(self, mapper: Mapper[Any] | None) -> frozenset[sa.Column[Any]]:
        """Give the recorded columns that are attributes of one mapper of the hierarchy; all of a plain table's."""
        known = self._mapped.get(mapper)
        if known is None:
            known = self._mapped[mapper] = frozenset(
                column for column in self.names(mapper) if mapper is None or maps(mapper, column)
            )
        return known

    def _name(self, mapper: Mapper[Any] | None, column: sa.Column[Any]) -> str:
        for candidate in (mapper, *self.mappers) if mapper is not None else self.mappers:
            if maps(candidate, column):
                return candidate.get_property_by_column(column).key
        return column.name

    def mapper_for(self, values: Mapping[sa.Column[Any], Any]) -> Mapper[Any] | None:
        """Give the mapper of the class that a row belongs to, as its discriminator says.

        Args:
            values: the row's recorded values, by column.
        """
        mapper = self.mapper
        if mapper is None or mapper.polymorphic_on is None:
            return mapper
        value = values.get(mapper.polymorphic_on)  # type: ignore[call-overload]
        return mapper.polymorphic_map.get(value, mapper) if value is not None else mapper

    def values(self, mapper: Mapper[Any] | None, state: Mapping[str, Any]) -> dict[sa.Column[Any], Any]:
        """Give a state, keyed by attributes, by the columns that a mapper of the hierarchy has for them."""
        names, mapped = self.names(mapper), self.mapped(mapper)
        return {column: state[name] for column, name in names.items() if column in mapped and name in state}

    def attribute_columns(self, attribute: str) -> set[str]:
        """Give the attribute names that ``attribute`` stands for: itself, or those of a composite's columns.

        Raises:
            NotAudited: if there is none of that name, or its column is excluded.
        """
        known = {name for mapper in self.mappers or (None,) for name in self.names(mapper).values()}
        if attribute in known:
            return {attribute}
        for mapper in self.mappers:
            composite = mapper.composites.get(attribute)
            if composite is not None:
                return {prop.key for prop in composite.props}
        raise NotAudited(f"{self.name} has no recorded attribute {attribute!r}: give one of {', '.join(sorted(known))}")

    def identity(self, key: Any) -> Identity:
        """Give a key that somebody asks for as a tuple in the order of the key's columns.

        Args:
            key: a scalar, a sequence, or a mapping by attribute or column names.

        Raises:
            NotAudited: if it has not the shape of the key, or a value that the column can't have.
        """
        columns, names = self.parts[0].key, self.key_names
        shape = f"{self.name} has the key ({', '.join(names)})"
        if isinstance(key, Mapping):
            values = [
                next((key[name] for name in (attribute, column.key, column.name) if name in key), _MISSING)
                for attribute, column in zip(names, columns, strict=True)
            ]
            if any(value is _MISSING for value in values) or len(key) != len(columns):
                raise NotAudited(f"{shape}: give these names, not {sorted(map(str, key))}")
        elif isinstance(key, tuple | list | sa.Row):
            values = list(key)
        else:
            values = [key]
        if len(values) != len(columns):
            raise NotAudited(f"{shape}: give {len(columns)} value(s), not {key!r}")
        if any(value is None for value in values):
            raise NotAudited(f"{shape}: no row has the key {key!r}, since a part of it is None")
        check_key(shape, columns, values)
        return tuple(values)


_MISSING = object()


def maps(mapper: Mapper[Any], column: sa.Column[Any]) -> bool:
    """Tell whether a mapper has an attribute for a column."""
    try:
        mapper.get_property_by_column(column)
    except UnmappedColumnError:
        return False
    return True


def subject_of(entity: Any) -> Subject:
    """Give the subject of a class, mapper, instance or table.

    Raises:
        NotAudited: if it is none of these, or its table is not audited.
    """
    if isinstance(entity, sa.Table):
        return _table_subject(entity)
    mapper = mapper_of(entity)
    complete(mapper.local_table.metadata)  # type: ignore[attr-defined]
    return _mapper_subject(mapper)


def mapper_of(entity: Any) -> Mapper[Any]:
    """Give the mapper of a class, mapper or instance.

    Raises:
        NotAudited: if there is none.
    """
    inspected = sa.inspect(entity, raiseerr=False)
    if isinstance(inspected, InstanceState):
        inspected = inspected.mapper
    if not isinstance(inspected, Mapper) or not isinstance(inspected.local_table, sa.Table):
        raise NotAudited(
            f"{entity!r} is not audited: ask about a mapped class with Audited, an object of one, or an audited Table"
        )
    return inspected


def resolve(entity: Any, key: Any) -> tuple[Subject, Identity]:
    """Give the subject and key of a question about one row.

    Args:
        entity: an instance, with ``key`` None; or a class, mapper or table.
        key: the key of the row, unless an instance is given.

    Raises:
        NotAudited: if there is no history of it, or the key has not its shape.
    """
    state = sa.inspect(entity, raiseerr=False)
    if not isinstance(state, InstanceState):
        subject = subject_of(entity)
        if key is None:
            raise NotAudited(
                f"{subject.name} is a {'table' if subject.mapper is None else 'class'}: "
                f"give the key ({', '.join(subject.key_names)}) of one of its rows as well"
            )
        return subject, subject.identity(key)
    subject = subject_of(state.mapper)
    if key is not None:
        raise NotAudited(f"give an object of {subject.name} or a key of the class, not both: {key!r}")
    if state.identity is None:
        raise NotAudited(f"this {subject.name} has no key yet, so nothing of it is recorded: flush it first")
    return subject, tuple(state.identity)


def root_of(mapper: Mapper[Any]) -> Mapper[Any]:
    """Give the mapper at the root of an inheritance that shares rows: joined or single-table, not concrete."""
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def subjects_of(trail: Trail, tables: Iterable[AuditedTable]) -> list[Subject]:
    """Give one subject for each entity whose history stands in these tables.

    Args:
        trail: the trail of the tables.
        tables: the audited tables.
    """
    mappers = mappers_by_table(trail.metadata)
    subjects: list[Subject] = []
    seen: set[sa.Table] = set()
    for audited in tables:
        if audited.table in seen:
            continue
        mapper = mappers.get(audited.table)
        subject = _table_subject(audited.table) if mapper is None else _mapper_subject(root_of(mapper))
        seen.update(part.audited.table for part in subject.parts)
        subjects.append(subject)
    return subjects


def mappers_by_table(metadata: sa.MetaData) -> dict[sa.Table, Mapper[Any]]:
    """Give the mapper of each mapped audited table of a MetaData, the one nearest the root if there are several."""
    found: dict[sa.Table, Mapper[Any]] = {}
    for registry in list(orm.mapperlib._all_registries()):
        for mapper in list(registry.mappers):
            table = mapper.local_table
            if isinstance(table, sa.Table) and table.metadata is metadata and audited_of(table) is not None:
                other = found.get(table)
                if other is None or other.isa(mapper):
                    found[table] = mapper
    return found


def _table_subject(table: sa.Table) -> Subject:
    complete(table.metadata)
    audited = audited_of(table)
    if audited is None:
        raise _not_audited(table, table.fullname)
    return Subject(None, [Part(0, audited, audited.key)], ())


def _mapper_subject(mapper: Mapper[Any]) -> Subject:
    root = root_of(mapper)
    mappers = [*_ancestors(mapper), *_descendants(mapper)]
    if audited_of(root.local_table) is None:
        raise _not_audited(root.local_table, mapper.class_.__name__)
    parts: dict[Any, Part] = {}
    keys: dict[Any, tuple[sa.Column[Any], ...]] = {root: _root_key(root)}
    for entry in mappers:
        if entry is not root:
            keys[entry] = _derived_key(entry, keys[entry.inherits])
        audited = audited_of(entry.local_table)
        if audited is not None and audited.table not in parts:
            parts[audited.table] = Part(len(parts), audited, keys[entry])
    return Subject(mapper, list(parts.values()), mappers)


def _ancestors(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """Give the mappers from the root to this one."""
    path = [mapper]
    while path[0].inherits is not None and not path[0].concrete:
        path.insert(0, path[0].inherits)
    return path


def _descendants(mapper: Mapper[Any]) -> Iterator[Mapper[Any]]:
    for entry in mapper.self_and_descendants:
        if entry.inherits is mapper and not entry.concrete and entry is not mapper:
            yield entry
            yield from _descendants(entry)


def _root_key(root: Mapper[Any]) -> tuple[sa.Column[Any], ...]:
    audited = audited_of(root.local_table)
    recorded = {column.source for column in audited.recorded} if audited is not None else set()
    key = tuple(column for column in root.primary_key if isinstance(column, sa.Column))
    return key if audited is None or recorded.issuperset(root.primary_key) else audited.key


def _derived_key(mapper: Mapper[Any], parent: tuple[sa.Column[Any], ...]) -> tuple[sa.Column[Any], ...]:
    """Follow the inheriting join from the parent table's key to this table's columns."""
    if mapper.inherit_condition is None:
        return parent
    equal: dict[Any, sa.Column[Any]] = {}
    for element in visitors.iterate(mapper.inherit_condition):
        if isinstance(element, sa.BinaryExpression) and element.operator is operators.eq:
            left, right = element.left, element.right
            pairs = ((left, right), (right, left))
            equal |= {one: c for one, c in pairs if isinstance(c, sa.Column) and c.table is mapper.local_table}
    try:
        return tuple(equal[column] for column in parent)
    except KeyError as error:
        raise NotAudited(
            f"the join between {mapper.class_.__name__} and its parent does not compare the key column {error.args[0]}"
        ) from error


def _not_audited(table: Any, name: str) -> NotAudited:
    if isinstance(table, sa.Table) and trail_of(table.metadata) is not None and "audit_id" in table.c:
        return NotAudited(f"{name} is a table of the trail itself: ask about the model that it records")
    return NotAudited(f"{name} is not audited: add Audited to its model, or call sa_audit.track()")
