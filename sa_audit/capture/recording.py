"""What is being recorded on one connection: the open entries of its transaction, and the one way to write history.

The state stands in ``Connection.info`` and belongs to one root transaction.  Imports model, ddl, and of capture
the context with its policies, the clock and the protecting.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RootTransaction

from ..ddl.backend import Backend, Batch, Entry, Image, Key, Target, backend_for, note_trail
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import clock
from .context import NOBODY, Context, current_context, require
from .context_policy import claims_alone, claims_of, claims_on, context_persons
from .failing import missing_tables_named
from .keys import refuse_equal_keys
from .person_keys import Entries
from .protecting import protect, require_keys

STATE: Final = "sa_audit.recording"
CHUNK: Final = 5000


@dataclass(slots=True)
class OpenEntry:
    """An entry of this transaction, with the savepoints that it was born inside of and that are still open.

    ``place`` is the schema of its table: trails that share the table share their entries, and one whose schema is
    translated has entries in several.  ``first`` is the transaction's first one in its place.
    """

    place: str | None
    context: Context
    entry: Entry
    savepoints: list[str]
    first: Entry


@dataclass(slots=True)
class Attempt:
    """The changes of one table that a transaction tries, with who tries them: what is left of it if it is rolled back.

    ``rows`` gives the operation by key, as far as it is known.
    """

    target: Target
    context: Context
    rows: dict[Key, str] = field(default_factory=dict)


@dataclass(slots=True)
class Told:
    """What the database was told of who writes, and the savepoints in which that was and that are still open."""

    context: Context
    savepoints: list[str]


@dataclass(frozen=True, slots=True)
class Ahead:
    """A statement of the library in the driver's own form, that has to be executed before the next one.

    ``receive`` is called with the driver's cursor when both have been executed.
    """

    sql: str
    parameters: Any
    receive: Callable[[Any], None]


_operation: contextvars.ContextVar[object | None] = contextvars.ContextVar("sa_audit_operation", default=None)


def begin_operation() -> None:
    """Note that a session begins another operation, so that two bulk operations in a row are two changes."""
    _operation.set(object())


@dataclass(slots=True)
class BulkOperation:
    """A bulk operation of the ORM, whose statements on the tables of one inheritance are one change of its entities."""

    identity: Any
    tables: list[sa.Table]
    flush: int


@dataclass(slots=True)
class Recording:
    """The state of recording on one root transaction.

    ``changed`` says that the transaction holds an audited table's lock, by an INSERT or UPDATE of a flush.
    """

    root: weakref.ref[RootTransaction]
    backend: Backend
    entries: list[OpenEntry] = field(default_factory=list)
    flush: int = 0
    locked: bool = False
    changed: bool = False
    pending: list[Any] = field(default_factory=list)
    ahead: list[Ahead] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    told_to: list[Target] = field(default_factory=list)
    token: str = ""
    bulk: BulkOperation | None = None
    kept: list[Any] = field(default_factory=list)
    attempts: dict[AuditedTable, Attempt] = field(default_factory=dict)
    error: BaseException | None = None

    def tries(self, target: Target, operation: str, keys: Sequence[Key]) -> None:
        """Note that rows are about to be changed, where the model wants to know of attempts."""
        attempt = self.attempts.get(target.audited)
        if attempt is not None:
            attempt.rows.update(dict.fromkeys(keys, operation))

    def next_flush(self) -> int:
        """Give the next number for ``audit_flush``."""
        self.flush += 1
        self.bulk = None
        return self.flush

    def bulk_flush(self, identity: Any, table: sa.Table) -> int:
        """Give the number for a statement of a bulk operation, which goes from table to table and never back."""
        known, identity = self.bulk, (identity, _operation.get())
        if known is None or known.identity != identity or table in known.tables[:-1]:
            self.bulk = known = BulkOperation(identity, [], self.next_flush())
        if table not in known.tables:
            known.tables.append(table)
        return known.flush

    def find(self, place: str | None, context: Context) -> Entry | None:
        """Give the entry of a context in a place, if this transaction has one."""
        for known in self.entries:
            if known.place == place and (known.context is context or known.context == context):
                return known.entry
        return None

    def first_at(self, connection: Connection, target: Target) -> Entry | None:
        """Give the transaction's first entry in the place where a target's entries stand."""
        return self.first(place_of(connection, target))

    def first(self, place: str | None) -> Entry | None:
        """Give the transaction's first entry in a place."""
        return next((known.first for known in self.entries if known.place == place), None)

    def opened(self, entry: OpenEntry) -> None:
        """Keep a new entry, which the database is told of with the next statement, for its triggers to go on from."""
        self.entries.append(entry)
        self.told.clear()

    def rolled_back(self, name: str) -> None:
        """Forget entries that were born inside a savepoint that is gone."""
        self.entries = [known for known in self.entries if name not in known.savepoints]
        if self.backend.told_rolls_back:
            self.told = [known for known in self.told if name not in known.savepoints]
        else:
            self.told.clear()
        self.changed = False  # the locks taken inside it may be gone, too

    def released(self, name: str) -> None:
        """Hand entries of a released savepoint to what encloses it."""
        for savepoints in (known.savepoints for held in (self.entries, self.told) for known in held):
            if name in savepoints:
                savepoints.remove(name)


def recording_on(connection: Connection) -> Recording:
    """Give the recording of a connection's present transaction.

    Raises:
        UnauditedWrite: on a connection in AUTOCOMMIT, where the change and its record would be two transactions.
    """
    root = connection.get_transaction()
    known: Recording | None = connection.info.get(STATE)
    if known is not None and root is not None and known.root() is root:
        return known
    backend = backend_for(connection.dialect)
    if root is None:
        root = connection.begin()  # the statement would begin it by itself, but only after the hooks
    if backend.in_autocommit(connection):
        raise UnauditedWrite(
            "an audited table can't be written in AUTOCOMMIT, where a change could be kept without its record: "
            "use a connection or session with a transaction"
        )
    recording = Recording(weakref.ref(root), backend)
    connection.info[STATE] = recording
    return recording


def present_recording(connection: Connection) -> Recording | None:
    """Give the recording of a connection's present transaction if something was recorded in it."""
    known: Recording | None = connection.info.get(STATE)
    if known is None or known.root() is not connection.get_transaction():
        return None
    return known


def admit(connection: Connection, audited: Any) -> Recording:
    """Refuse a change that may not be made, before it is made.

    Args:
        connection: the connection.
        audited: an audited table, or one whose foreign keys act on audited tables.

    Raises:
        ActorRequired: if the configuration asks for an actor and there is none.
        ReasonRequired: likewise for a reason.
        UnauditedWrite: in AUTOCOMMIT.
    """
    configuration = audited.trail.configuration
    if configuration.require_actor or configuration.require_reason:
        require(current_context(), actor=configuration.require_actor, reason=configuration.require_reason)
    if configuration.context:
        context_persons(audited.trail, current_context())
    if isinstance(audited, AuditedTable):
        require_keys(audited)
    recording = recording_on(connection)
    audited.trail.used = True
    if isinstance(audited, AuditedTable) and audited.options.attempts and audited not in recording.attempts:
        target = target_of(audited, connection.get_execution_options())
        recording.attempts[audited] = Attempt(target, current_context())
    return recording


def lock_writer(connection: Connection, recording: Recording, target: Target) -> None:
    """Take the write lock before reading, on databases that have a single one."""
    if not recording.locked and not recording.backend.locks_rows:
        with missing_tables_named(connection, target):
            recording.backend.lock_writer(connection, target)
    recording.locked = True


def lock_table(connection: Connection, recording: Recording, target: Target) -> None:
    """Before rows are recorded as deleted, take the lock that deleting them takes.

    The transaction's entry is dated when it is written.  Whoever holds all audited tables still and reads the clock
    would otherwise see rows that the past, at his clock, does not.  A transaction that has changed an audited table
    holds such a lock already.
    """
    if not recording.changed and recording.first(place_of(connection, target)) is None:
        recording.backend.lock_table(connection, target)


def place_of(connection: Connection, target: Target) -> str | None:
    """Give the schema in which a target's entries stand on a connection."""
    schema = target.trail.transaction.schema
    return target.schemas.get(schema, schema) or connection.dialect.default_schema_name


def target_of(audited: AuditedTable, options: Any) -> Target:
    """Give an audited table with its schemas as a statement's options translate them.

    Raises:
        UnauditedWrite: if the table moves to another schema and its history stays in one.
    """
    schemas = options.get("schema_translate_map") or {}
    if not schemas:
        return Target(audited)
    table, history = audited.table.schema, audited.history.schema
    if schemas.get(table, table) != table and history != table and schemas.get(history, history) == history:
        raise UnauditedWrite(
            f"schema_translate_map moves {audited.table.fullname} to schema {schemas.get(table)!r}, but its history "
            f"stays in {history!r}, where the rows of several tenants would mix: translate that schema, too"
        )
    return Target(audited, dict(schemas))


def write(connection: Connection, recording: Recording, target: Target, batch: Batch, flush: int) -> int:
    """Write the history rows of a batch, in chunks; give the number of rows other than inserts.

    Raises:
        UnauditedWrite: if a row that was inserted can't be found.
        CaptureMissing: if the database has no trail.
    """
    others = 0
    if recording.attempts:
        recording.tries(target, "insert", batch.inserted)
        recording.tries(target, "update", [image.key for image in batch.images])
        recording.tries(target, "delete", batch.deleted)
    if not target.audited.table.primary_key.columns:
        for keys in (batch.inserted, batch.deleted, [image.key for image in batch.images]):
            refuse_equal_keys(target.audited, len(keys) - len(set(keys)))
    with missing_tables_named(connection, target):
        if batch.deleted:
            lock_table(connection, recording, target)
        entries = entries_of(connection, recording, target)
        for part in batch.parts(CHUNK):
            for protected in protect(connection, recording.backend, target, part, entries):
                others += _write_part(connection, recording, target, protected, flush)
    return others


def _write_part(connection: Connection, recording: Recording, target: Target, batch: Batch, flush: int) -> int:
    place, context = place_of(connection, target), current_context()
    entry = recording.find(place, context)
    claims = claims_of(NOBODY) if entry is not None else claims_here(connection, recording, target, context)
    first = recording.first(place) or _told_first(connection, recording, target)
    recorded = recording.backend.record(
        connection,
        target,
        batch,
        flush=flush,
        entry=entry,
        claims=claims,
        first=first,
        now=clock.now(),
    )
    if recorded.entry is not None and entry is None:
        opened = OpenEntry(place, context, recorded.entry, open_savepoints(connection), first or recorded.entry)
        recording.opened(opened)
    if recorded.entry is not None:
        note_trail(connection.dialect, target.trail)
    refuse_equal_keys(target.audited, recorded.others - len(batch.images) - len(batch.deleted))
    if recorded.inserted != len(batch.inserted):
        raise UnauditedWrite(
            f"{len(batch.inserted)} rows were inserted into {target.audited.table.fullname}, but {recorded.inserted} "
            f"were found to record: {recording.backend.other_key(target.audited, batch.inserted)}"
        )
    return recorded.others


def make_entry(connection: Connection, recording: Recording, target: Target, context: Context | None = None) -> Entry:
    """Give the transaction's entry for a context, by default the present one; made now if there is none."""
    place, context = place_of(connection, target), context if context is not None else current_context()
    entry = recording.find(place, context)
    if entry is None:
        with missing_tables_named(connection, target):
            claims = claims_here(connection, recording, target, context)
            first = recording.first(place) or _told_first(connection, recording, target)
            entry = recording.backend.insert_entry(connection, target, claims, first, clock.now())
        recording.opened(OpenEntry(place, context, entry, open_savepoints(connection), first or entry))
    note_trail(connection.dialect, target.trail)
    return entry


def claims_here(connection: Connection, recording: Recording, target: Target, context: Context) -> dict[str, Any]:
    """Give what is recorded of a context in this transaction."""

    def opened(stripped: Context) -> Entry:
        return make_entry(connection, recording, target, stripped)

    return claims_on(connection, target, context, opened, lambda own: entry_alone(own, target))


def entry_alone(own: Connection, target: Target) -> Entry:
    """Make an entry on a connection of the trail's own, without what is encrypted in the present context."""
    return backend_for(own.dialect).insert_entry(own, target, claims_alone(own, target), None, clock.now())


def entries_of(connection: Connection, recording: Recording, target: Target) -> Entries:
    """Give what gives the entries under which keys of persons are recorded."""
    return Entries(lambda: make_entry(connection, recording, target), lambda own: entry_alone(own, target))


def _told_first(connection: Connection, recording: Recording, target: Target) -> Entry | None:
    """Give the transaction's first entry where a trigger has opened it, of a table that triggers record."""
    if not recording.told_to:
        return None
    return recording.backend.told_first(connection, target, recording.token)


def open_savepoints(connection: Connection) -> list[str]:
    """Give the names of the open savepoints, innermost first."""
    names: list[str] = []
    nested: Any = connection.get_nested_transaction()
    while nested is not None:
        names.append(nested._savepoint)
        nested = nested._previous_nested
    return names


def read_images(connection: Connection, recording: Recording, target: Target, keys: Sequence[Key]) -> dict[Key, Image]:
    """Read rows as they stand, locked until the transaction ends, in chunks of the backend's size."""
    backend, width = recording.backend, len(target.audited.key)
    images: dict[Key, Image] = {}
    recording.tries(target, "change", keys)
    with missing_tables_named(connection, target):
        for start in range(0, len(keys), backend.chunk):
            rows = backend.read_images(connection, target, keys[start : start + backend.chunk])
            chunk = {row[:width]: Image(row[:width], row[width:]) for row in rows}
            refuse_equal_keys(target.audited, len(rows) - len(chunk))
            images |= chunk
    return images
