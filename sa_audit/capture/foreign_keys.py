"""What the database does by itself when a row that others refer to is deleted or moved.

The rows that a foreign key's action will reach are read before the statement, recursively, and recorded as the
statement's own.  Imports model, ddl and recording.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import OWN, Batch, Image, Key, Target
from ..errors import UnauditedWrite
from ..model.history import AuditedTable, audited_of
from .recording import Recording, read_images, target_of, write

_REFERRING = "sa_audit.referring"


@dataclass(slots=True)
class Reached:
    """Rows of other tables that a statement reaches through foreign keys: images to compare, keys to be gone."""

    images: dict[AuditedTable, tuple[Target, dict[Key, Image]]] = field(default_factory=dict)
    gone: list[tuple[Target, list[Key]]] = field(default_factory=list)

    def keep(self, target: Target, images: dict[Key, Image]) -> None:
        """Keep rows as they were, each once, however many foreign keys lead to it."""
        known = self.images.setdefault(target.audited, (target, {}))[1]
        for key, image in images.items():
            known.setdefault(key, image)

    def leave_out(self, audited: AuditedTable, keys: Iterable[Key]) -> None:
        """Leave out rows that the statement itself records."""
        if audited in self.images:
            known = self.images[audited][1]
            for key in keys:
                known.pop(key, None)


def session_audited(table: sa.Table) -> AuditedTable | None:
    """Give the audited side of a table that the session records; what a trigger records is left to it."""
    audited = audited_of(table)
    return None if audited is None or audited.by_trigger else audited


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
        words = " ".join(((constraint.ondelete if event == "delete" else constraint.onupdate) or "").upper().split())
        for action in ("CASCADE", "SET NULL", "SET DEFAULT"):
            if words.startswith(action):
                yield constraint, action


def refers(table: sa.Table, changed: Collection[str]) -> bool:
    """Tell whether a foreign key with an ON UPDATE action refers to one of these columns, by database name."""
    return any(
        element.column.name in changed
        for constraint, _action in referring(table, "update")
        for element in constraint.elements
    )


def closure(table: sa.Table) -> set[sa.Table]:
    """Give the tables that foreign keys' actions can reach when rows of ``table`` are deleted or moved."""
    found: set[sa.Table] = set()
    waiting = [table]
    while waiting:
        parent = waiting.pop()
        for event in ("delete", "update"):
            children = {constraint.table for constraint, _action in referring(parent, event)}
            waiting += children - found
            found |= children
    return found


def reach_delete(
    connection: Connection, recording: Recording, table: sa.Table, keys: Sequence[Key], options: Any, flush: int
) -> Reached:
    """Read, lock and record what deleting rows of ``table`` will do to other tables.

    Rows that will go are recorded now; rows that will lose their reference are recorded by :func:`settle`.
    """
    search = _Search(connection, recording, options, flush)
    if keys and any(True for _ in referring(table, "delete")) and recording.backend.cascades(connection):
        search.delete(table, list(keys))
    return search.reached


def reach_update(
    connection: Connection,
    recording: Recording,
    table: sa.Table,
    keys: Sequence[Key],
    options: Any,
    changed: Collection[str] | None = None,
) -> Reached:
    """Read and lock what changing columns of rows of ``table`` will do to other tables.

    Args:
        connection: the connection of the statement.
        recording: its recording.
        table: the table that is updated.
        keys: of the rows that are updated.
        options: the statement's execution options.
        changed: database names of the columns that are set; None: the key.

    Raises:
        UnauditedWrite: if it would change the key of an audited row.
    """
    search = _Search(connection, recording, options, 0)
    columns = {column.name for column in _key_of(table)} if changed is None else set(changed)
    if keys and refers(table, columns) and recording.backend.cascades(connection):
        search.change(table, list(keys), columns)
    return search.reached


@dataclass(slots=True)
class _Search:
    """The way along the foreign keys from the rows of one statement."""

    connection: Connection
    recording: Recording
    options: Any
    flush: int
    reached: Reached = field(default_factory=Reached)
    deleted: dict[sa.Table, set[Key]] = field(default_factory=dict)
    changed: dict[sa.ForeignKeyConstraint, set[Key]] = field(default_factory=dict)

    def delete(self, table: sa.Table, keys: list[Key]) -> None:
        """Follow the foreign keys to rows that are deleted."""
        self.deleted.setdefault(table, set()).update(keys)
        for constraint, action in referring(table, "delete"):
            child = constraint.table
            found = child_keys(self.connection, constraint, table, keys, self.options)
            gone = self.deleted.get(child, set())
            fresh = [key for key in found if key not in gone]
            if fresh and action == "CASCADE":
                self._record_deleted(child, fresh)
                self.delete(child, fresh)
            elif fresh:
                self._set(constraint, action, fresh)

    def change(self, table: sa.Table, keys: list[Key], columns: set[str]) -> None:
        """Follow the foreign keys to columns that change."""
        for constraint, action in referring(table, "update"):
            if not any(element.column.name in columns for element in constraint.elements):
                continue
            found = child_keys(self.connection, constraint, table, keys, self.options)
            if found:
                self._set(constraint, action, found)

    def _record_deleted(self, table: sa.Table, keys: list[Key]) -> None:
        audited = session_audited(table)
        if audited is not None:
            target = target_of(audited, self.options)
            write(self.connection, self.recording, target, Batch(deleted=keys), self.flush)
            self.reached.gone.append((target, keys))

    def _set(self, constraint: sa.ForeignKeyConstraint, action: str, keys: list[Key]) -> None:
        """Read rows whose foreign key will be changed, and follow what refers to that in turn."""
        known = self.changed.setdefault(constraint, set())
        fresh = [key for key in keys if key not in known]
        if not fresh:
            return
        known.update(fresh)
        columns = {column.name for column in constraint.columns}
        audited = session_audited(constraint.table)
        if audited is not None:
            if columns & {column.name for column in audited.key}:
                raise UnauditedWrite(
                    f"the change would set the keys of {len(fresh)} rows of {audited.table.fullname} through their "
                    f"foreign key ({action}), which can't be recorded: insert rows under the new key and delete the "
                    "old ones"
                )
            target = target_of(audited, self.options)
            self.reached.keep(target, read_images(self.connection, self.recording, target, fresh))
        self.change(constraint.table, fresh, columns)


def child_keys(
    connection: Connection, constraint: sa.ForeignKeyConstraint, parent: sa.Table, keys: list[Key], options: Any
) -> list[Key]:
    """Give the keys of the rows that refer to the given rows of ``parent``, locked."""
    child = constraint.table
    own = _key_of(child)
    found: list[Key] = []
    for start in range(0, len(keys), 1000):
        chosen = _refers_to(constraint, parent, keys[start : start + 1000])
        statement = sa.select(*own).where(chosen).order_by(*own).with_for_update(of=child)
        execution = {**OWN, "schema_translate_map": options.get("schema_translate_map")}
        found += [tuple(row) for row in connection.execute(statement, execution_options=execution)]
    return found


def _refers_to(constraint: sa.ForeignKeyConstraint, parent: sa.Table, keys: list[Key]) -> Any:
    """Give the condition that a row refers to one of the given rows of ``parent``."""
    by_referred = {element.column: element.parent for element in constraint.elements}
    key = _key_of(parent)
    if set(by_referred) == set(key):
        return _any_of([by_referred[column] for column in key], keys)
    other = parent.alias()
    join = (element.parent == other.c[element.column.key] for element in constraint.elements)
    return sa.exists().where(*join, _any_of([other.c[column.key] for column in key], keys))


def _any_of(columns: Sequence[Any], keys: list[Key]) -> Any:
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return sa.tuple_(*columns).in_([tuple(key) for key in keys])


def _key_of(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    return tuple(table.primary_key.columns) or tuple(column for column in table.columns if column.foreign_keys)


def settle(connection: Connection, recording: Recording, reached: Reached, flush: int) -> None:
    """After the statement: record what changed, and make sure that what was recorded as gone is gone.

    Raises:
        UnauditedWrite: if the database did not act as the foreign keys of the model say.
    """
    for target, images in reached.images.values():
        if images:
            write(connection, recording, target, Batch(images=list(images.values())), flush)
    for target, keys in reached.gone:
        left = read_images(connection, recording, target, keys)
        if left:
            raise UnauditedWrite(
                f"{len(left)} rows of {target.audited.table.fullname} were to be deleted by ON DELETE CASCADE and are "
                "still there: the database's foreign key is not the one of the model"
            )
