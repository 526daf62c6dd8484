"""What the database does by itself when a row that others refer to is deleted or moved.

The rows that a foreign key's action will reach are read before the statement, recursively, and recorded as the
statement's own.  Imports model, ddl and recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import INTERNAL, Batch, Image, Key, Target
from ..errors import UnauditedWrite
from ..model.history import audited_of
from .recording import Recording, read_images, target_of, write

_REFERRING = "sa_audit.referring"


@dataclass(slots=True)
class Reached:
    """Rows of other tables that a statement reaches through foreign keys: images to compare, keys to be gone."""

    images: list[tuple[Target, dict[Key, Image]]] = field(default_factory=list)
    gone: list[tuple[Target, list[Key]]] = field(default_factory=list)


def referring(table: sa.Table, event: str) -> Iterator[tuple[sa.ForeignKeyConstraint, str]]:
    """Iterate over the foreign keys to a table with an action on ``"delete"`` or ``"update"``."""
    cache = table.metadata.info.get(_REFERRING)
    if cache is None or cache[0] != len(table.metadata.tables):
        found: dict[sa.Table, list[sa.ForeignKeyConstraint]] = {}
        for other in table.metadata.tables.values():
            for constraint in other.foreign_key_constraints:
                if constraint.ondelete or constraint.onupdate:
                    found.setdefault(constraint.referred_table, []).append(constraint)
        cache = table.metadata.info[_REFERRING] = (len(table.metadata.tables), found)
    for constraint in cache[1].get(table, ()):
        action = (constraint.ondelete if event == "delete" else constraint.onupdate) or ""
        if action.upper() in ("CASCADE", "SET NULL", "SET DEFAULT"):
            yield constraint, action.upper()


def reach_delete(
    connection: Connection, recording: Recording, table: sa.Table, keys: Sequence[Key], options: Any, flush: int
) -> Reached:
    """Read, lock and record what deleting rows of ``table`` will do to other tables.

    Rows that will go are recorded now; rows that will lose their reference are recorded by :func:`settle`.
    """
    reached = Reached()
    if keys and any(True for _ in referring(table, "delete")) and recording.backend.cascades(connection):
        _reach(connection, recording, table, list(keys), options, flush, reached, {})
    return reached


def _reach(
    connection: Connection,
    recording: Recording,
    table: sa.Table,
    keys: list[Key],
    options: Any,
    flush: int,
    reached: Reached,
    seen: dict[sa.Table, set[Key]],
) -> None:
    seen.setdefault(table, set()).update(keys)
    for constraint, action in referring(table, "delete"):
        child = constraint.table
        found = child_keys(connection, constraint, table, keys, options)
        fresh = [key for key in found if key not in seen.get(child, set())]
        if not fresh:
            continue
        audited = audited_of(child)
        if action == "CASCADE":
            if audited is not None:
                target = target_of(audited, options)
                write(connection, recording, target, Batch(deleted=fresh), flush)
                reached.gone.append((target, fresh))
            _reach(connection, recording, child, fresh, options, flush, reached, seen)
        elif audited is not None:
            target = target_of(audited, options)
            reached.images.append((target, read_images(connection, recording, target, fresh)))


def reach_update(
    connection: Connection, recording: Recording, table: sa.Table, keys: Sequence[Key], options: Any
) -> Reached:
    """Read and lock what changing the referred columns of rows of ``table`` will do to other tables.

    Raises:
        UnauditedWrite: if it would change the key of an audited row.
    """
    reached = Reached()
    if not keys or not any(True for _ in referring(table, "update")) or not recording.backend.cascades(connection):
        return reached
    for constraint, action in referring(table, "update"):
        audited = audited_of(constraint.table)
        if audited is None:
            continue
        found = child_keys(connection, constraint, table, list(keys), options)
        if not found:
            continue
        if action == "CASCADE" and {c.name for c in constraint.columns} & {c.name for c in audited.key}:
            raise UnauditedWrite(
                f"changing the key of {table.fullname} would change the keys of {len(found)} rows of "
                f"{audited.table.fullname} by ON UPDATE CASCADE, which can't be recorded: insert rows under the new "
                "key and delete the old ones"
            )
        target = target_of(audited, options)
        reached.images.append((target, read_images(connection, recording, target, found)))
    return reached


def child_keys(
    connection: Connection, constraint: sa.ForeignKeyConstraint, parent: sa.Table, keys: list[Key], options: Any
) -> list[Key]:
    """Give the keys of the rows that refer to the given rows of ``parent``, locked."""
    child = constraint.table
    own = tuple(child.primary_key.columns) or tuple(c for c in child.columns if c.foreign_keys)
    other = parent.alias()
    parent_key = [other.c[column.key] for column in _key_of(parent)]
    join = sa.and_(
        *(element.parent == other.c[element.column.key] for element in constraint.elements),
    )
    found: list[Key] = []
    for start in range(0, len(keys), 1000):
        part = keys[start : start + 1000]
        chosen = (
            parent_key[0].in_([key[0] for key in part])
            if len(parent_key) == 1
            else sa.tuple_(*parent_key).in_([tuple(key) for key in part])
        )
        statement = (
            sa.select(*own).where(sa.exists().where(join, chosen)).order_by(*own).with_for_update(of=child)
        )
        execution = {INTERNAL: True, "schema_translate_map": options.get("schema_translate_map")}
        found += [tuple(row) for row in connection.execute(statement, execution_options=execution)]
    return found


def _key_of(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    return tuple(table.primary_key.columns) or tuple(column for column in table.columns if column.foreign_keys)


def settle(connection: Connection, recording: Recording, reached: Reached, flush: int) -> None:
    """After the statement: record what changed, and make sure that what was recorded as gone is gone.

    Raises:
        UnauditedWrite: if the database did not act as the foreign keys of the model say.
    """
    for target, images in reached.images:
        write(connection, recording, target, Batch(images=list(images.values())), flush)
    for target, keys in reached.gone:
        left = read_images(connection, recording, target, keys)
        if left:
            raise UnauditedWrite(
                f"{len(left)} rows of {target.audited.table.fullname} were to be deleted by ON DELETE CASCADE and are "
                "still there: the database's foreign key is not the one of the model"
            )
