"""What UPDATE and DELETE statements are made to do, Core and ORM-enabled, in all their forms.

The condition of a statement is a criterion in SQL; which rows it meets is known beforehand, from the oracle's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tests.property.models import (
    HIERARCHY,
    ROOTS,
    SPAN,
    TABLES,
    Base,
    Book,
    Card,
    Client,
    Item,
    Leaf,
    Line,
    Mark,
    Node,
    Party,
    Person,
    Sheet,
    Tag,
    key_columns,
    table_of,
)
from tests.property.oracle import Draft, Key, Row
from tests.property.statements import mapper_of, named
from tests.property.steps import SMALL, Step
from tests.property.values import settable

SYNCHRONIZE: tuple[Any, ...] = ("auto", "fetch", "evaluate", False)


@dataclass(frozen=True, slots=True)
class Where:
    """A condition in SQL, and the keys of the rows that it meets."""

    criterion: sa.ColumnElement[bool]
    keys: list[Key]


def draw_where(
    step: Step, draft: Draft, table: sa.Table, allowed: Iterable[Key], model: type[Base] | None = None
) -> Where | None:
    """Draw a condition that meets some of the allowed rows and no others; None where there is none.

    With a model, the condition is on its attributes, which SQLAlchemy can evaluate in Python as well.
    """
    rows = draft.rows(table)
    keys = list(allowed)
    if not keys:
        return None
    if set(keys) == set(rows) and table not in HIERARCHY and step.maybe():
        column = step.choose(columns_to_set(table) or list(table.columns))
        wanted = step.maybe()
        met = [key for key in keys if (rows[key][column.key] is None) == wanted]
        operand = seen_by(model, column)
        missing = operand.is_(None) if wanted else operand.is_not(None)
        return Where(sa.and_(own_rows(table, step.base, model), missing), met)
    chosen = step.some(keys, 4)
    return Where(in_keys(table, chosen, model), chosen)


def seen_by(model: type[Base] | None, column: sa.Column[Any]) -> Any:
    """Give a column as a model's attribute, if there is a model."""
    return column if model is None else getattr(model, mapper_of(model).get_property_by_column(column).key)


def columns_to_set(table: sa.Table) -> list[sa.Column[Any]]:
    """Give the columns to set to anything; of single-table inheritance, those that all classes have."""
    return [column for column in settable(table) if table is not table_of(Item) or column.key == "label"]


def own_rows(table: sa.Table, base: int, model: type[Base] | None = None) -> sa.ColumnElement[bool]:
    """Give the criterion for the example's rows, by its own numbers."""
    column = seen_by(model, table.c.sheet_id if table is table_of(Line) else next(iter(table.columns)))
    first: sa.ColumnElement[bool] = column >= base
    return sa.and_(first, column < base + SPAN)


def in_keys(table: sa.Table, keys: list[Key], model: type[Base] | None = None) -> sa.ColumnElement[bool]:
    """Give the criterion for rows of these keys."""
    columns = [seen_by(model, column) for column in key_columns(table)]
    if len(columns) == 1:
        criterion: sa.ColumnElement[bool] = columns[0].in_([key[0] for key in keys])
        return criterion
    return sa.or_(*(sa.and_(*(column == value for column, value in zip(columns, key, strict=True))) for key in keys))


# -- update --------------------------------------------------------------------------------


def update(step: Step) -> None:
    """Update the rows that a condition meets, or that parameters name, to values or by SQL."""
    model = step.choose((Sheet, Tag, Card, Node, Leaf, Mark, Client, Item, Line, Party))
    table = table_of(model)
    draft = step.draft()
    form = step.choose((_update_core, _update_orm, _update_book, _update_many, _update_by_key, _update_mappings))
    if form is _update_book:
        model, table = Book, table_of(Item)
    free = step.free(draft, table)
    allowed = [key for key, row in free.items() if form is not _update_book or row["type"] == "book"]
    if allowed and not (model is Client and form in (_update_by_key, _update_mappings)):
        form(step, draft, model, table, allowed)


def _apply(draft: Draft, table: sa.Table, keys: Iterable[Key], values: Callable[[Row], Row]) -> None:
    rows = draft.rows(table)
    for key in keys:
        draft.update(table, key, values(rows[key]))


def _draw_set(step: Step, table: sa.Table) -> tuple[dict[str, Any], Callable[[Row], Row], bool]:
    """Draw what to set: values for the statement, by column key, the same as a function, and whether they are plain."""
    texts = [c for c in columns_to_set(table) if isinstance(c.type, sa.String) and c.type.length == 200]
    if table is table_of(Sheet) and step.maybe():
        count = table.c["count"]
        return {"count": count + 1}, lambda row: {"count": None if row["count"] is None else row["count"] + 1}, False
    if texts and step.maybe():
        name = step.choose(texts).key
        return {name: table.c[name] + "x"}, lambda row: {name: None if row[name] is None else row[name] + "x"}, False
    drawn = step.values(columns_to_set(table), 2)
    return drawn, lambda _row: drawn, True


def _update_core(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    where = draw_where(step, draft, table, allowed)
    assert where is not None
    values, function, _plain = _draw_set(step, table)
    _apply(draft, table, where.keys, function)
    step.session.execute(sa.update(table).where(where.criterion).values(values))
    step.accept(draft)


def _update_orm(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    where = draw_where(step, draft, table, allowed, model)
    assert where is not None
    values, function, plain = _draw_set(step, table)
    synchronize = step.choose(SYNCHRONIZE if plain else ("auto", "fetch", False))
    _apply(draft, table, where.keys, function)
    statement = sa.update(model).where(where.criterion).values(named(mapper_of(model), table, [values])[0])
    step.session.execute(statement, execution_options={"synchronize_session": synchronize})
    step.accept(draft)


def _update_book(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    """Update a class of single-table inheritance with no condition of its own but the class."""
    if {key for key, row in draft.rows(table).items() if row["type"] == "book"} != set(allowed):
        return
    drawn = step.fill(table, step.choose((["author"], ["label"], ["author", "label"])))
    _apply(draft, table, allowed, lambda _row: drawn)
    statement = sa.update(Book).where(own_rows(table, step.base, Book)).values(drawn)
    step.session.execute(statement, execution_options={"synchronize_session": step.choose(SYNCHRONIZE)})
    step.accept(draft)


def _update_many(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    keys = step.some(allowed, 3, 2)
    names = [column.key for column in step.some(columns_to_set(table), 2)]
    rows = [step.fill(table, names) for _ in keys]
    for key, row in zip(keys, rows, strict=True):
        draft.update(table, key, row)
    columns = key_columns(table)
    statement = sa.update(table).where(*(column == sa.bindparam(f"key_{column.key}") for column in columns))
    statement = statement.values({name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names})
    parameters = [
        {f"key_{c.key}": value for c, value in zip(columns, key, strict=True)} | {f"new_{n}": row[n] for n in names}
        for key, row in zip(keys, rows, strict=True)
    ]
    step.session.connection().execute(statement, parameters)
    step.accept(draft)


def _by_key(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> list[Row]:
    keys = step.some(allowed, 3)
    names = [column.key for column in step.some(columns_to_set(table), 2)]
    found = []
    for key in keys:
        row = step.fill(table, names)
        draft.update(table, key, row)
        found.append({**dict(zip([c.key for c in key_columns(table)], key, strict=True)), **row})
    return named(mapper_of(model), table, found)


def _update_by_key(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    step.session.execute(sa.update(model), _by_key(step, draft, model, table, allowed))
    step.accept(draft)


def _update_mappings(step: Step, draft: Draft, model: type[Base], table: sa.Table, allowed: list[Key]) -> None:
    step.session.bulk_update_mappings(mapper_of(model), _by_key(step, draft, model, table, allowed))
    step.accept(draft)


def update_persons(step: Step) -> None:
    """Update persons by their keys in bulk, in one of the tables of the hierarchy or in both, which is one change."""
    draft = step.draft()
    keys = step.free(draft, table_of(Person))
    if not keys:
        return
    columns = step.some((table_of(Party).c.name, table_of(Person).c.born), 2)
    rows: list[Row] = []
    for key in step.some(keys, 3):
        row = {column: step.value(column) for column in columns}
        for column, value in row.items():
            draft.update(column.table, key, {column.key: value})
        rows.append({"id": key[0], **{column.key: value for column, value in row.items()}})
    step.session.execute(sa.update(Person), rows)
    step.accept(draft)


def move(step: Step) -> None:
    """Change keys by a statement: each to the same distance, or one to a new value."""
    model = step.choose((Tag, Card, Leaf, Mark, Node, Client, Item))
    table = table_of(model)
    draft = step.draft()
    first = key_columns(table)[0]
    distance = step.choose(range(SMALL + 2, SPAN // 2, 7))
    there = draft.rows(table)
    movable = [
        key
        for key, row in step.free(draft, table).items()
        if not any(constraint.onupdate is None for constraint, _key, _row in draft.referring(table, row))
        and (key[0] + distance, *key[1:]) not in there
        and key[0] + distance < step.base + SPAN
        and (ROOTS[table], (key[0] + distance, *key[1:])) not in step.taken
    ]
    if not movable:
        return
    chosen = step.some(movable, 3)
    new: Any = first + distance
    if step.maybe():
        chosen = chosen[:1]
        new = chosen[0][0] + distance
    _apply(draft, table, chosen, lambda row: {first.key: row[first.key] + distance})
    target: Any = step.choose((table, model))
    options = {"synchronize_session": step.choose(("fetch", False))} if target is model else {}
    values = {first.key if target is table else mapper_of(model).get_property_by_column(first).key: new}
    step.session.execute(sa.update(target).where(in_keys(table, chosen)).values(values), execution_options=options)
    step.accept(draft)


# -- delete --------------------------------------------------------------------------------


def delete(step: Step) -> None:
    """Delete the rows that a condition meets, or that parameters name."""
    table = step.choose([table for table in TABLES if table not in HIERARCHY])
    draft = step.draft()
    allowed = [
        key
        for key, row in step.free(draft, table).items()
        if not any(constraint.ondelete is None for constraint, _key, _row in _closure(draft, table, row))
    ]
    root = ROOTS[table]
    model = root if root is not table and step.maybe() else None
    where = draw_where(step, draft, table, allowed, model)
    if where is None:
        return
    for key in where.keys:
        if key in draft.rows(table):
            draft.delete(table, key)
    _execute_delete(step, table, where, model)
    step.accept(draft)


def _closure(draft: Draft, table: sa.Table, row: Row) -> Iterable[tuple[sa.ForeignKeyConstraint, Key, Row]]:
    for constraint, key, referring in draft.referring(table, row):
        yield constraint, key, referring
        if constraint.ondelete == "CASCADE":
            yield from _closure(draft, constraint.table, referring)


def _execute_delete(step: Step, table: sa.Table, where: Where, model: type[Base] | None) -> None:
    if model is not None:
        options = {"synchronize_session": step.choose(SYNCHRONIZE)}
        step.session.execute(sa.delete(model).where(where.criterion), execution_options=options)
    elif where.keys and step.maybe():
        columns = key_columns(table)
        statement = sa.delete(table).where(*(column == sa.bindparam(f"key_{column.key}") for column in columns))
        parameters = [{f"key_{c.key}": v for c, v in zip(columns, key, strict=True)} for key in where.keys]
        step.session.connection().execute(statement, parameters)
    else:
        step.session.execute(sa.delete(table).where(where.criterion))
