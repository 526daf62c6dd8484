"""What INSERT statements are made to do, Core and ORM-enabled, in all their forms; upserts among them.

What a statement leaves behind is planned from the rows that it is given, and from the oracle's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Mapper

from tests.property.models import (
    Base,
    Card,
    Client,
    Item,
    Leaf,
    Mark,
    Node,
    Party,
    Person,
    Sheet,
    Tag,
    item_tag,
    sheet_tag,
    table_of,
)
from tests.property.oracle import Draft, Row, key_of, left_out
from tests.property.steps import Step

Form = Callable[[Step, Mapper[Any], sa.Table, list[Row]], None]


def mapper_of(model: type[Base]) -> Mapper[Any]:
    """Give a model's mapper."""
    mapper: Mapper[Any] = sa.inspect(model)
    return mapper


def named(mapper: Mapper[Any], table: sa.Table, rows: Sequence[Row]) -> list[Row]:
    """Give rows by attribute names."""
    return [{mapper.get_property_by_column(table.c[name]).key: value for name, value in row.items()} for row in rows]


def insert(step: Step) -> None:
    """Insert rows whose keys are given, in one of many forms."""
    model = step.choose((Sheet, Tag, Card, Client, Node, Leaf, Mark))
    table = table_of(model)
    draft = step.draft()
    rows = new_rows(step, draft, model)
    if not rows:
        return
    form = step.choose(FORMS)
    rows = rows[:1] if form in (_values, _expressions) else rows
    for row in rows:
        draft.insert(table, left_out(table, row) if form in LEAVING_OUT else row)
    form(step, mapper_of(model), table, rows)
    step.accept(draft)


def new_rows(step: Step, draft: Draft, model: type[Base]) -> list[Row]:
    """Draw rows of the same columns under keys that are not there."""
    table = table_of(model)
    names = step.names(table)
    references: Row = {}
    if model in (Leaf, Mark, Node):
        nodes = [key[0] for key in step.free(draft, table_of(Node))]
        choices: list[Any] = nodes if model is Leaf else [None, *nodes]
        if not choices:
            return []
        references = {"parent_id" if model is Node else "node_id": step.choose(choices)}
    version = {"version": 1} if model is Client else {}
    return [{**key, **step.fill(table, names), **references, **version} for key in step.new_keys(draft, table, 3)]


def _values(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(table).values(rows[0]))


def _expressions(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    keys = {column.key for column in table.primary_key}
    given = {name: value if name in keys else sa.literal(value, table.c[name].type) for name, value in rows[0].items()}
    step.session.execute(sa.insert(table).values(given))


def _many(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(table), rows)


def _multiple(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(table).values(rows))


def _select(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    selects = [sa.select(*(sa.literal(value, table.c[name].type) for name, value in row.items())) for row in rows]
    source = sa.select(sa.union_all(*selects).subquery()) if len(selects) > 1 else selects[0]
    step.session.execute(sa.insert(table).from_select(list(rows[0]), source))


def _orm(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(mapper.class_), named(mapper, table, rows))


def _orm_multiple(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(mapper.class_).values(named(mapper, table, rows)))


def _returning(step: Step, _mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    """Ask for something else than the key."""
    column = list(table.c)[-1]
    result = step.session.execute(sa.insert(table).returning(column), rows)
    assert result.keys() == [column.key]
    assert len(result.all()) == len(rows)


def _orm_returning(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    statement = sa.insert(mapper.class_).returning(mapper.class_)
    objects = step.session.scalars(statement, named(mapper, table, rows)).all()
    assert {tuple(mapper.primary_key_from_instance(obj)) for obj in objects} == {key_of(table, row) for row in rows}


def _bulk(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.bulk_insert_mappings(mapper, named(mapper, table, rows))


def _objects(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.bulk_save_objects([mapper.class_(**row) for row in named(mapper, table, rows)])


FORMS: tuple[Form, ...] = (
    _values, _expressions, _many, _multiple, _select, _orm, _orm_multiple, _returning, _orm_returning, _bulk, _objects,
)  # fmt: skip


LEAVING_OUT: tuple[Form, ...] = (_orm, _orm_returning, _bulk, _objects)
"""Forms that leave None out where the database has a default."""


def insert_persons(step: Step) -> None:
    """Insert persons in bulk, which is one change of each: a statement for each table, keys made by the database."""
    people = [Person(**step.fill(table_of(Party), ["name"]), **step.fill(table_of(Person), ["born"])) for _ in range(2)]
    step.session.bulk_save_objects(people, return_defaults=True)
    draft = step.draft()
    for one in people:
        draft.insert(table_of(Party), {"id": one.id, "type": "person", "name": one.name})
        draft.insert(table_of(Person), {"id": one.id, "born": one.born})
    step.accept(draft)


def insert_links(step: Step) -> None:
    """Insert rows of an association without any object."""
    table, owner = step.choose(((sheet_tag, Sheet), (item_tag, Item)))
    draft = step.draft()
    there = draft.rows(table)
    pairs = [
        (one[0], tag[0])
        for one in step.free(draft, table_of(owner))
        for tag in step.free(draft, table_of(Tag))
        if (one[0], tag[0]) not in there and (table, (one[0], tag[0])) not in step.taken
    ]
    if not pairs:
        return
    rows = [dict(zip(table.c.keys(), pair, strict=True)) for pair in step.some(pairs)]
    for row in rows:
        draft.insert(table, row)
    step.choose((_values_each, _many, _multiple))(step, mapper_of(owner), table, rows)
    step.accept(draft)


def _values_each(step: Step, mapper: Mapper[Any], table: sa.Table, rows: list[Row]) -> None:
    step.session.execute(sa.insert(table), rows)


# -- upserts -------------------------------------------------------------------------------


def upsert(step: Step) -> None:
    """Insert rows some of which are there: those are updated, or left as they are."""
    model = step.choose((Sheet, Tag, Card, Client))
    table = table_of(model)
    draft = step.draft()
    rows = new_rows(step, draft, model)
    there = step.free(draft, table)
    if rows and there:
        names = [name for name in rows[0] if name not in table.primary_key.columns]
        keys = [column.key for column in table.primary_key]
        for key in step.some(there, 2):
            fresh = {name: rows[0][name] if name == "version" else step.fill(table, [name])[name] for name in names}
            rows.append({**dict(zip(keys, key, strict=True)), **fresh})
    if not rows:
        return
    keys = [column.key for column in table.primary_key]
    updated = [name for name in rows[0] if name not in keys and name != "version"]
    does_update = bool(updated) and (step.maybe() or step.session.get_bind().dialect.name not in _NOTHING)
    for row in rows:
        key = key_of(table, row)
        if key not in there:
            draft.insert(table, row)
        elif does_update:
            draft.update(table, key, {name: row[name] for name in updated}, by_sqlalchemy=False)
    statement = _upsert(step, table, keys, updated if does_update else [])
    if statement is None:
        return
    if step.maybe():
        step.session.execute(statement.values(rows))
    else:
        step.session.execute(statement, rows)
    step.accept(draft)


_INSERTS: Mapping[str, Callable[..., Any]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
    "mariadb": mysql.insert,
}
_NOTHING = ("postgresql", "sqlite")
"""Where there is ON CONFLICT DO NOTHING; elsewhere it is ON DUPLICATE KEY UPDATE."""


def _upsert(step: Step, table: sa.Table, keys: list[str], updated: list[str]) -> Any:
    name = step.session.get_bind().dialect.name
    statement = _INSERTS[name](table)
    if name not in _NOTHING:
        return statement.on_duplicate_key_update({n: statement.inserted[n] for n in updated}) if updated else None
    if not updated:
        return statement.on_conflict_do_nothing(index_elements=[table.c[key] for key in keys])
    return statement.on_conflict_do_update(
        index_elements=[table.c[key] for key in keys], set_={n: statement.excluded[n] for n in updated}
    )
