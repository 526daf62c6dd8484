"""Tables that are made once for each worker and then copied, with their guards, functions and first rows."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from sa_audit.ddl.backend import note_trail
from sa_audit.model import complete, trail_of
from tests.databases import Database

Tables = Callable[[sa.Engine, sa.MetaData], None]
"""What the fixture `tables` is: it empties the test's database and makes the tables there."""

_numbers: dict[sa.MetaData, int] = {}
"""A number for each MetaData whose tables are kept; it holds them, so that no other one gets the same identity."""


def stand(database: Database, engine: sa.Engine, metadata: sa.MetaData) -> bool:
    """Empty the database and make the tables of a MetaData, from a copy if there is one.

    The copy is of a database in which `create_all()` made the tables of the same names, by the same configuration and
    the same way of capture; the process then knows of them what it would know after `create_all()`.

    Returns:
        Whether it was a copy.
    """
    trail = complete(metadata) if trail_of(metadata) is not None else None
    made_by = (tuple(metadata.tables), trail and (trail.configuration, trail.captures))
    name = f"{_numbers.setdefault(metadata, len(_numbers))} {made_by}"
    engine.dispose()
    if database.recall(name):
        if trail is not None:
            note_trail(engine.dialect, trail)
        return True
    database.renew()
    metadata.create_all(engine)
    if database.keep is not None:
        engine.dispose()
        database.keep(name)
    return False
