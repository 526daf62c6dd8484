"""What one flush is made to do to each object: add, change, move, delete, replace, link.

Each change is planned on the draft at the same time as it is made on the objects.  What an UPDATE will set is read off
the objects' pending attributes, since an object may be older than its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from tests.property.flush import Flush, attributes, draw_columns
from tests.property.models import (
    HIERARCHY,
    ROOTS,
    Base,
    Book,
    Card,
    Client,
    Disc,
    Firm,
    Item,
    Leaf,
    Line,
    Mark,
    Node,
    Officer,
    Party,
    Person,
    Sheet,
    Tag,
    item_tag,
    sheet_tag,
    table_of,
)
from tests.property.oracle import Draft, Key, Row, left_out
from tests.property.steps import Step, made_by_database

MODELS: tuple[type[Base], ...] = (
    Sheet, Line, Tag, Item, Book, Disc, Card, Party, Person, Officer, Firm, Node, Leaf, Mark, Client,
)  # fmt: skip


def add(flush: Flush) -> None:
    """Add an object of any class."""
    step = flush.step
    mapper: Mapper[Any] = sa.inspect(step.choose(MODELS))
    table = mapper.base_mapper.local_table
    assert isinstance(table, sa.Table)
    references = draw_references(flush, mapper.class_)
    if references is None:
        return
    keys = [{}] if made_by_database(table) else step.new_keys(flush.draft, table, 1)
    if not keys or (ROOTS[table], tuple(keys[0].values())) in flush.used:
        return
    add_object(flush, mapper, keys[0], references, draw_columns(step, mapper, 5))


def add_object(flush: Flush, mapper: Mapper[Any], key: Row, references: Row, values: dict[sa.Column[Any], Any]) -> None:
    """Add an object with these values; the key is empty where the database makes it."""
    table = mapper.base_mapper.local_table
    assert isinstance(table, sa.Table)
    if key:
        flush.forget(mapper, tuple(key.values()))
        flush.use(table, tuple(key.values()))
    obj = mapper.class_(**key, **references, **attributes(mapper, values))
    flush.step.session.add(obj)
    flush.step.loaded.append(obj)

    def plan() -> None:
        identity = key or {"id": obj.id}
        for part in mapper.tables:
            assert isinstance(part, sa.Table)
            own = {column.key: value for column, value in values.items() if column.table is part}
            more: Row = {"type": mapper.polymorphic_identity} if "type" in part.c else {}
            more |= {"version": 1} if "version" in part.c else {}
            flush.draft.insert(part, {**identity, **references, **left_out(part, own), **more})

    if key:
        plan()
    else:
        flush.later.append(plan)


def draw_references(flush: Flush, model: type[Base]) -> Row | None:
    """Draw the foreign keys of a new row; None where it needs a row that is not there."""
    name, target, needed = _REFERENCES.get(model, ("", model, False))
    if not name:
        return {}
    parents = flush.parents(target)
    if needed:
        return {name: flush.step.choose(parents)} if parents else None
    return {name: flush.step.choose([None, *parents])}


_REFERENCES: dict[type[Base], tuple[str, type[Base], bool]] = {
    Line: ("sheet_id", Sheet, True),
    Item: ("sheet_id", Sheet, False),
    Book: ("sheet_id", Sheet, False),
    Disc: ("sheet_id", Sheet, False),
    Node: ("parent_id", Node, False),
    Leaf: ("node_id", Node, True),
    Mark: ("node_id", Node, False),
}


def change(flush: Flush) -> None:
    """Set attributes of an object: to values, to SQL, in place, or by a merge."""
    step = flush.step
    model = step.choose((Sheet, Line, Tag, Item, Card, Party, Node, Leaf, Mark, Client))
    free = flush.free(model)
    if not free:
        return
    key = step.choose(free)
    obj = flush.load(model, key)
    if obj is None:
        return
    flush.use(table_of(model), key)
    mapper: Mapper[Any] = sa.inspect(type(obj))
    drawn = attributes(mapper, draw_columns(step, mapper, 3, 1))
    if model in _REFERENCES and step.maybe():
        name, target, needed = _REFERENCES[model]
        parents = [parent for parent in flush.parents(target) if model is not Node or parent < key[0]]
        choices: list[Any] = parents if needed else [None, *parents]
        drawn |= {name: step.choose(choices)} if choices else {}
    if model not in (Client, Party, Item) and step.maybe() and step.maybe():
        identity = dict(zip([mapper.get_property_by_column(c).key for c in mapper.primary_key], key, strict=True))
        obj = step.session.merge(mapper.class_(**identity, **drawn))
    else:
        for name, value in drawn.items():
            setattr(obj, name, value)
    expressions: Row = {}
    if isinstance(obj, Sheet):
        expressions = _touch_sheet(step, obj, flush.draft.rows(table_of(Sheet))[key])
    plan_pending(flush, obj, key, expressions)


def _touch_sheet(step: Step, sheet: Sheet, row: Row) -> Row:
    """Change the document in place, and the count by SQL; give what the SQL will have made."""
    if sheet.doc is not None and step.maybe():
        sheet.doc["seen"] = step.choose((1, True, "x"))
    if not step.maybe():
        return {}
    sheet.count = Sheet.count + 1
    return {"count": None if row["count"] is None else row["count"] + 1}


def plan_pending(flush: Flush, obj: Any, key: Key, expressions: Row) -> None:
    """Plan the UPDATE of what is pending on an object."""
    state = sa.inspect(obj)
    pending: dict[sa.Table, Row] = {}
    for prop in state.mapper.column_attrs:
        history = state.attrs[prop.key].history
        column = prop.columns[0]
        if history.has_changes():
            value = plain(history.added[0]) if history.added else None
            pending.setdefault(column.table, {})[column.key] = expressions.get(prop.key, value)
    if not pending:
        return
    if isinstance(obj, Client):
        row = flush.draft.rows(table_of(Client))[key]
        flush.stale = flush.stale or obj.version != row["version"]
        pending[table_of(Client)]["version"] = obj.version + 1
    for table, values in pending.items():
        flush.draft.update(table, key, values)


def plain(value: Any) -> Any:
    """Give a value that stays as it is when the object is changed in place."""
    return deepcopy(dict(value)) if isinstance(value, Mapping) else value


def change_key(flush: Flush) -> None:
    """Give an object another key."""
    step = flush.step
    model = step.choose((Tag, Card, Leaf, Mark, Node, Client, Item))
    table = table_of(model)
    movable = {key: row for key, row in flush.free(model).items() if not _is_referred(flush.draft, table, row)}
    keys = step.new_keys(flush.draft, table, 1)
    if not movable or not keys or (ROOTS[table], tuple(keys[0].values())) in flush.used:
        return
    key = step.choose(movable)
    followers = [(c.table, other) for c, other, _row in flush.draft.referring(table, movable[key])]
    obj = None if flush.hold(followers) else flush.load(model, key)
    if obj is None:
        return
    flush.use(table, key)
    flush.use(table, tuple(keys[0].values()))
    flush.forget(sa.inspect(type(obj)), tuple(keys[0].values()))
    for name, value in keys[0].items():
        setattr(obj, name, value)
    plan_pending(flush, obj, key, {})


def _is_referred(draft: Draft, table: sa.Table, row: Row) -> bool:
    """Tell whether other rows refer to a row without following its key."""
    return any(constraint.onupdate is None for constraint, _key, _row in draft.referring(table, row))


def remove(flush: Flush) -> None:
    """Delete an object, with what the unit of work deletes or empties along with it."""
    step = flush.step
    model = step.choose((Sheet, Line, Tag, Item, Card, Party, Node, Leaf, Mark, Client))
    table = table_of(model)
    free = flush.free(model)
    if not free:
        return
    key = step.choose(free)
    related = related_rows(flush.draft, table, key)
    obj = None if flush.hold(affected_rows(flush.draft, table, key)) else flush.load(model, key)
    if obj is None:
        return
    if isinstance(obj, Client) and obj.version != free[key]["version"]:
        flush.stale = True
    step.session.delete(obj)
    flush.use(table, key)
    for part, others in related.items():
        for other in others:
            if part is table_of(Item):
                flush.draft.update(part, other, {"sheet_id": None})
            else:
                flush.draft.delete(part, other)
    for part in reversed([part for part in sa.inspect(type(obj)).tables if isinstance(part, sa.Table)]):
        flush.draft.delete(part, key)


def related_rows(draft: Draft, table: sa.Table, key: Key) -> dict[sa.Table, list[Key]]:
    """Give the rows that the unit of work takes care of when it deletes a row: they have no action in the database."""
    found: dict[sa.Table, list[Key]] = {}
    for constraint, other, _row in draft.referring(table, draft.rows(table)[key]):
        if constraint.ondelete is None and constraint.table in (table_of(Line), table_of(Item), sheet_tag, item_tag):
            found.setdefault(constraint.table, []).append(other)
    return found


def affected_rows(draft: Draft, table: sa.Table, key: Key) -> list[tuple[sa.Table, Key]]:
    """Give the rows that refer to a row, and those that go with them."""
    found: list[tuple[sa.Table, Key]] = []
    for constraint, other, _row in draft.referring(table, draft.rows(table)[key]):
        if constraint.table in HIERARCHY:
            continue
        found.append((constraint.table, other))
        if constraint.ondelete == "CASCADE":
            found += affected_rows(draft, constraint.table, other)
    return found


def replace(flush: Flush) -> None:
    """Delete an object and add another under its key, which the unit of work makes an UPDATE."""
    step = flush.step
    model = step.choose((Card, Client, Leaf, Mark))
    free = flush.free(model)
    if not free:
        return
    key = step.choose(free)
    obj = flush.load(model, key)
    if obj is None:
        return
    mapper: Mapper[Any] = sa.inspect(model)
    table = table_of(model)
    flush.use(table, key)
    references = draw_references(flush, model)
    if references is None:
        return
    drawn = draw_columns(step, mapper, 3)
    identity: Row = {str(column.key): value for column, value in zip(mapper.primary_key, key, strict=True)}
    if isinstance(obj, Client):
        flush.stale = flush.stale or obj.version != free[key]["version"]
    version = {"version": obj.version + 1} if isinstance(obj, Client) else {}
    step.session.delete(obj)
    step.session.add(model(**identity, **references, **attributes(mapper, drawn)))
    values = {**references, **{column.key: value for column, value in drawn.items()}, **version}
    if values:
        flush.draft.update(table, key, values)


def link(flush: Flush) -> None:
    """Add or remove a link of a sheet or item to a tag, or a line of a sheet."""
    step = flush.step
    model, secondary = step.choose(((Sheet, sheet_tag), (Item, item_tag)))
    owners, tags = flush.free(model), flush.free(Tag)
    before = step.transaction.rows
    pairs = [(o[0], t[0]) for o in owners for t in tags if o in before(table_of(model)) and t in before(table_of(Tag))]
    pairs = [pair for pair in pairs if (secondary, pair) not in step.taken | flush.used]
    if not pairs:
        return
    pair = step.choose(pairs)
    owner, tag = flush.load(model, (pair[0],)), flush.load(Tag, (pair[1],))
    if owner is None or tag is None:
        return
    flush.use(secondary, pair)
    if pair in flush.draft.rows(secondary):
        owner.tags.remove(tag)
        flush.draft.delete(secondary, pair)
    else:
        owner.tags.append(tag)
        flush.draft.insert(secondary, dict(zip(secondary.c.keys(), pair, strict=True)))
    flush.use(table_of(model), (pair[0],))
    flush.use(table_of(Tag), (pair[1],))


def orphan(flush: Flush) -> None:
    """Take a line from its sheet, which deletes it."""
    step = flush.step
    lines = flush.free(Line)
    sheets = flush.free(Sheet)
    owned = {key: row for key, row in lines.items() if (row["sheet_id"],) in sheets}
    if not owned:
        return
    key = step.choose(owned)
    sheet, line = flush.load(Sheet, (owned[key]["sheet_id"],)), flush.load(Line, key)
    if sheet is None or line is None:
        return
    sheet.lines.remove(line)
    flush.use(table_of(Line), key)
    flush.use(table_of(Sheet), (owned[key]["sheet_id"],))
    flush.draft.delete(table_of(Line), key)
