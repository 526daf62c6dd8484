"""Flushes: the one that populates an example, and those that change several objects at once.

Each change is planned on the draft at the same time as it is made on the objects.  What an UPDATE will set is read off
the objects' pending attributes, since an object may be older than its row.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import StaleDataError

from tests.property.changes import add, add_object, change, change_key, link, orphan, remove, replace
from tests.property.flush import Abandoned, Flush
from tests.property.models import (
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
    Sheet,
    Tag,
)
from tests.property.oracle import Row
from tests.property.steps import Step, made_by_database


def populate(step: Step) -> None:
    """Add a few objects of each class, so that there is something to change."""
    batches: tuple[tuple[tuple[type[Base], Row], ...], ...] = (
        tuple((model, {}) for model in (Sheet, Sheet, Tag, Tag, Officer, Firm, Node, Client, Client)),
        tuple((model, {"sheet_id": step.base + 1}) for model in (Line, Line, Item, Book, Disc)),
        ((Node, {"parent_id": step.base + 1}), (Card, {}), (Card, {}), (Leaf, {"node_id": step.base + 1})),
        ((Mark, {"node_id": step.base + 1}), (Leaf, {"node_id": step.base + 2}), (Node, {})),
    )
    for batch in batches:
        flush = Flush(step, step.draft())
        for model, references in batch:
            mapper: Mapper[Any] = sa.inspect(model)
            table = mapper.base_mapper.local_table
            assert isinstance(table, sa.Table)
            place = step.base + 1 + len(flush.draft.rows(table))
            key: Row = {"deck": place, "name": "a"} if model is Card else {"id": place}
            add_object(flush, mapper, {} if made_by_database(table) else key, references, {})
        flush.finish()


ANY_VIEW = (add, add, change, change, change)
WHOLE_VIEW = (*ANY_VIEW, change_key, remove, replace, link, link, orphan)
"""These look at related rows, which an older view may miss."""


def flush_changes(step: Step) -> None:
    """Change a few objects, and flush once.

    Raises:
        Abandoned: if an object was older than its row's version, as it had to be found.
    """
    flush = Flush(step, step.draft())
    wanted = step.choose((1, 2, 3, 4))
    for _ in range(4 * wanted):
        before = len(flush.used), len(flush.later)
        step.choose(WHOLE_VIEW if step.whole else ANY_VIEW)(flush)
        wanted -= before != (len(flush.used), len(flush.later))
        if not wanted:
            break
    if flush.stale:
        with pytest.raises(StaleDataError):
            step.session.flush()
        raise Abandoned
    flush.finish()
