"""Schema descriptors of the live tables: each column with an id that it keeps for ever.

``docs/format/canonical.md``, "Schema descriptor".  Imports the room's own parts, model and proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..proof.schema import OWN_COLUMNS, Column, Descriptor
from .database import CatalogDatabase, LiveColumn
from .tables import SealedTable

SALT: Final = "audit_salt"
_ASIDE: Final = re.compile(r"(?s)(.+)_(until|since)_[^_]+")
"""How a migration names a column that keeps the values of a former type."""


def describe(
    database: CatalogDatabase,
    connection: Connection,
    sealed: SealedTable,
    *,
    number: int,
    previous: Descriptor | None = None,
) -> Descriptor | None:
    """Describe a table as it stands now; a column that the previous descriptor knows keeps its id.

    Args:
        database: how to read it.
        connection: to it.
        sealed: the table.
        number: the table's number in the log.
        previous: its last descriptor in the log, if there is one.

    Returns:
        The descriptor, or None if there is no such table.
    """
    schema = database.schema(connection, sealed.table)
    live = [column for column in database.columns(connection, schema, sealed.table.name) if column.name != SALT]
    if not live:
        return None
    former = {column.name: column.id for column in previous.columns} if previous is not None else {}
    own, named = own_ids(sealed)
    named |= _accounted(connection, sealed)
    ids = column_ids([column.name for column in live], own, named, former)
    columns = sorted((_column(ids[column.name], column) for column in live), key=lambda column: column.id)
    return Descriptor(
        table=number,
        role=sealed.role,
        schema=None if schema is None else str(schema),
        name=str(sealed.table.name),
        columns=tuple(columns),
        key=_key(sealed, ids),
    )


def own_ids(sealed: SealedTable) -> tuple[dict[str, int], dict[str, int]]:
    """Give the ids of the trail's own columns: those that every history has, and those that a fixed table begins with.

    A column that comes to a fixed table later gets the next free number, wherever it stands.
    """
    if sealed.role == "history":
        return dict(OWN_COLUMNS), {}
    names = [column.name for column in sealed.table.columns if column.name != SALT]
    return {}, {name: number for number, name in enumerate(names, 1)}


def column_ids(
    live: Iterable[str], own: Mapping[str, int], accounted: Mapping[str, int], former: Mapping[str, int]
) -> dict[str, int]:
    """Give each column its id: its own, that of the account of columns, the former one, or a new one.

    A column that a migration has put aside, to keep the values of a former type, takes its id along; the column that
    is used from then on gets another.

    Args:
        live: the columns that are there.
        own: the trail's own columns.
        accounted: the present names in ``audit_column``.
        former: the names in the last descriptor.
    """
    names = list(live)
    ids = {name: own[name] for name in names if name in own}
    rest = [name for name in names if name not in own]
    for name in rest:
        if name in former and not _moved(name, names, former):
            ids[name] = former[name]
    for name in rest:
        aside = _ASIDE.fullmatch(name)
        if name not in ids and aside is not None and (known := former.get(aside[1])) is not None:
            _take(ids, name, known)
    for name in rest:
        back = next((old for old in former if (m := _ASIDE.fullmatch(old)) and m[1] == name and old not in names), None)
        if name not in ids and back is not None:
            _take(ids, name, former[back])
    for name in rest:
        if name not in ids and (number := accounted.get(name)) is not None:
            _take(ids, name, number)
    highest = max([0, *ids.values(), *former.values(), *accounted.values()])
    for name in rest:
        if name not in ids:
            highest += 1
            ids[name] = highest
    return ids


def _moved(name: str, names: list[str], former: Mapping[str, int]) -> bool:
    """Tell whether the column of a name has been put aside since, and another one has the name now."""
    return any((m := _ASIDE.fullmatch(other)) and m[1] == name and other not in former for other in names)


def _take(ids: dict[str, int], name: str, number: int) -> None:
    if number not in ids.values():
        ids[name] = number


def _accounted(connection: Connection, sealed: SealedTable) -> dict[str, int]:
    """Give the present name of each column with its id, as ``audit_column`` says."""
    if sealed.audited is None:
        return {}
    account = sealed.audited.trail.column
    statement = (
        sa.select(account.c.column_id, account.c.name)
        .where(account.c.table_name == sealed.audited.table.fullname)
        .order_by(account.c.id)
    )
    now = {row.column_id: row.name for row in connection.execute(statement)}  # the last row of each id counts
    return {name: number for number, name in now.items()}


def _column(number: int, live: LiveColumn) -> Column:
    return Column(id=number, name=live.name, type=live.type, sql_type=live.sql_type)


def _key(sealed: SealedTable, ids: Mapping[str, int]) -> tuple[int, ...]:
    if sealed.audited is None:
        return ()
    names = [column.name for column in sealed.audited.key]
    return tuple(ids[name] for name in names) if all(name in ids for name in names) else ()
