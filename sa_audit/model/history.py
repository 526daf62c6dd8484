"""The trail of a MetaData: its configuration, fixed tables and audited tables.

The trail of a MetaData stands in ``metadata.info``, the audited table's part in ``Table.info``; nothing is
global.  Imports only the model's own parts, errors and SQLAlchemy.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from ..errors import ConfigurationError, NotAudited
from .audited import AUDITED, RESERVED, AuditedTable, RecordedColumn
from .configuration import AuditOptions, Configuration
from .log import FIXED, clear_the_way, prune_table
from .records import access_row_table, access_table, event_table, key_table, person_key_table
from .tables import TRAIL_TABLE, history_sequence
from .types import plain_type

TRAIL: Final = "sa_audit.trail"


class Trail:
    """The trail of one MetaData: its configuration, fixed tables and audited tables."""

    def __init__(self, metadata: sa.MetaData, configuration: Configuration) -> None:
        self.metadata = metadata
        self.configuration = configuration
        self.audited: dict[sa.Table, AuditedTable] = {}
        self.pending: list[tuple[AuditedTable, sa.Column[Any], sa.Column[Any]]] = []
        self.registries: weakref.WeakSet[orm.registry] = weakref.WeakSet()
        self.memo: dict[Any, Any] = {}
        """What is worked out once, such as statements on its tables."""
        self.used = False
        self.configured = False
        self.captures = False
        """Whether triggers write the history of any of its tables."""
        self.serial = next(_serials)
        self._make_tables()

    def captured(self) -> list[AuditedTable]:
        """Give the audited tables whose history is written by triggers."""
        return [audited for audited in list(self.audited.values()) if audited.by_trigger]

    def _note_captures(self, captures: bool) -> None:
        self.captures = captures
        (capturing.add if captures else capturing.discard)(self)

    @property
    def captures_all(self) -> bool:
        """Whether triggers write the history of all of its tables, so that the application writes none of it."""
        return bool(self.audited) and len(self.captured()) == len(self.audited)

    def _make_tables(self) -> None:
        schema = self.configuration.schema or self.metadata.schema
        self.sequence = history_sequence(self.metadata, schema)
        clear_the_way(self.metadata, schema)
        made = {name: make(self.metadata, schema) for name, make in FIXED.items()}
        self.fixed = tuple(made.values())
        for table in self.fixed:
            table.info[TRAIL] = self
        self.transaction, self.column = made["audit_transaction"], made["audit_column"]
        self.block, self.sealed, self.checkpoint = (
            made[name] for name in ("audit_block", "audit_sealed", "audit_checkpoint")
        )
        self.event = self._record_table(event_table)
        self.access: sa.Table | None = None
        self.access_row: sa.Table | None = None
        self.key: sa.Table | None = None
        self.person_key: sa.Table | None = None
        self.secrets: Any = None
        self.prune: sa.Table | None = None

    def _record_table(self, make: Callable[[sa.MetaData, str | None, sa.Sequence], sa.Table]) -> sa.Table:
        table = make(self.metadata, self.transaction.schema, self.sequence)
        table.add_is_dependent_on(self.transaction)  # whose guards it shares
        table.info[TRAIL] = self
        return table

    @property
    def records(self) -> list[sa.Table]:
        """The tables of what is not a change: events, and reads where a model records them."""
        return [table for table in (self.event, self.access, self.access_row, self.key) if table is not None]

    @property
    def secrets_tables(self) -> list[sa.Table]:
        """The table of wrapped keys, whose rows are not sealed, if there is one."""
        return [self.person_key] if self.person_key is not None else []

    def watch_reads(self) -> None:
        """Make the tables of reads, once a model records them."""
        if self.access is None:
            self.access = self._record_table(access_table)
            self.access_row = self._record_table(access_row_table)
            reading.add(self)

    def watch_keys(self) -> None:
        """Make the tables of the keys of persons, once a model encrypts or there is a provider of keys."""
        if self.key is None:
            self.key = self._record_table(key_table)
            self.person_key = person_key_table(self.metadata, self.transaction.schema)
            self.person_key.info[TRAIL] = self
            self.person_key.add_is_dependent_on(self.key)  # which its guards look into

    def watch_prunes(self) -> None:
        """Make the table of what may be pruned, once a model has a retention."""
        if self.prune is None:
            self.prune = prune_table(self.metadata, self.transaction.schema)
            self.prune.add_is_dependent_on(self.transaction)  # whose guards it shares
            self.prune.info[TRAIL] = self
            self.fixed = (*self.fixed, self.prune)

    def track(
        self, table: sa.Table, options: AuditOptions | None = None, key: tuple[sa.Column[Any], ...] = ()
    ) -> AuditedTable:
        """Audit a table; the same call again gives the same.

        Args:
            table: the table.
            options: how it is recorded.
            key: the columns that a mapper takes for the primary key of a table that has none.

        Raises:
            ConfigurationError: for a trail table, a table with no key, or other options than before.
        """
        if options is not None and not isinstance(options, AuditOptions):
            raise ConfigurationError(f"{options!r}, given for {table.fullname}: give an instance of AuditOptions")
        if TRAIL_TABLE in table.info:
            raise ConfigurationError(f"{table.fullname} is a table of the trail itself, and is not audited")
        known = self.audited.get(table)
        if known is not None:
            if options is not None and options != known.options:
                raise ConfigurationError(f"{table.fullname} is audited already, with {known.options!r}")
            return known
        audited = AuditedTable(self, table, options or AuditOptions(), key)
        self.audited[table] = audited
        if audited.options.reads:
            self.watch_reads()
        if audited.options.retention is not None:
            self.watch_prunes()
        if audited.options.attempts and audited.by_trigger:
            raise ConfigurationError(
                f"{table.fullname} is recorded by triggers, whose work a rollback undoes, so "
                "AuditOptions(attempts=True) would see nothing of it: use capture='session' for it, or leave it out"
            )
        if audited.by_trigger:
            self._note_captures(True)
        table.info = {**table.info, AUDITED: audited}
        return audited

    def settle(self) -> None:
        """Give recorded foreign-key columns their type, once the column that they refer to is known."""
        for entry in list(self.pending):
            audited, source, shadow = entry
            if not isinstance(source.type, sa.types.NullType):
                shadow.type = plain_type(source.type)
                self.pending.remove(entry)
                audited.memo.clear()
        for audited in self.audited.values():
            audited.index_foreign_keys()

    def refuse_untyped(self) -> None:
        """Refuse to make history tables while the type of a recorded column is not known.

        Raises:
            ConfigurationError: naming the column.
        """
        for audited, source, _shadow in self.pending:
            raise ConfigurationError(
                f"column {audited.table.fullname}.{source.name} has no type that is known, so it can't be recorded: "
                "give it one, declare the table that its foreign key refers to, or keep it out with Exclude()"
            )

    def reconfigure(self, configuration: Configuration) -> None:
        """Take a configuration, once; a schema rebuilds the tables, unless they are in use.

        Raises:
            ConfigurationError: if there is another one already, or the schema comes after the tables were used.
        """
        if self.configured and configuration != self.configuration:
            raise ConfigurationError(
                f"configure() was called before, with {self.configuration!r}, and the second call would undo it: "
                "call it once for each MetaData, with everything that shall hold"
            )
        names = [name for name in ("schema", "partition") if _differs(configuration, self.configuration, name)]
        moved = bool(names)
        if moved and self.used:
            given = ", ".join(f"{name}={getattr(configuration, name)!r}" for name in names)
            raise ConfigurationError(
                f"configure({given}) comes too late: the history tables are in use; "
                "call it before the tables are created, mapped or written"
            )
        self.configuration, self.configured = configuration, True
        self._note_captures(bool(self.captured()))
        for audited in self.audited.values():
            audited.check_capture()
        if moved:
            self._move()
        if configuration.keys is not None:
            self.watch_keys()

    def _move(self) -> None:
        """Make all tables of the trail anew."""
        tracked = [(audited.table, audited.options, audited.history) for audited in self.audited.values()]
        for _table, _options, history in tracked:
            self.metadata.remove(history)
        for table in (*self.fixed, *self.records):
            self.metadata.remove(table)
        for table in self.secrets_tables:
            self.metadata.remove(table)
        self.metadata._sequences.pop(self.sequence._key, None)
        self.audited.clear()
        self.pending.clear()
        self._make_tables()
        for table, options, _history in tracked:
            self.track(table, options)


def _differs(given: Configuration, known: Configuration, name: str) -> bool:
    return bool(getattr(given, name) != getattr(known, name))


class TrailSet(dict[int, "weakref.ref[Trail]"]):
    """Trails, held weakly; whether there is any is asked at each statement, which takes a WeakSet ten times as long."""

    def add(self, trail: Trail) -> None:
        """Take a trail in, until nobody else holds it."""
        serial = trail.serial
        self[serial] = weakref.ref(trail, lambda _: self.pop(serial, None))

    def discard(self, trail: Trail) -> None:
        """Leave a trail out."""
        self.pop(trail.serial, None)

    def trails(self) -> list[Trail]:
        """Give those that are still held, in the order in which they came."""
        return [trail for held in list(self.values()) if (trail := held()) is not None]


_trails: Final = TrailSet()
capturing: Final = TrailSet()
"""The trails with tables whose history triggers write; while there is none, nobody is told who writes."""
reading: Final = TrailSet()
"""The trails that record reads; while there is none, no statement is looked at."""
_serials = itertools.count()


def known_trails() -> list[Trail]:
    """Give the trails of this process.

    A textual statement names tables but no MetaData, so they have to be found without one; held weakly.
    """
    return _trails.trails()


def trail_of(metadata: sa.MetaData) -> Trail | None:
    """Give the trail of a MetaData, or None if nothing of it is audited."""
    return metadata.info.get(TRAIL)


def ensure_trail(metadata: sa.MetaData) -> Trail:
    """Give the trail of a MetaData, made now if there is none."""
    trail = trail_of(metadata)
    if trail is None:
        trail = metadata.info[TRAIL] = Trail(metadata, Configuration())
        _trails.add(trail)
    return trail


def audited_of(table: Any) -> AuditedTable | None:
    """Give the audited side of a table, or None.

    Annotated forms count as their original.  A copy in another MetaData (``Table.to_metadata()``) took the mark
    along with ``Table.info``; it is audited in its own MetaData from here on.
    """
    info = getattr(table, "info", None)
    if not info or TRAIL_TABLE in info:
        return None
    audited: AuditedTable | None = info.get(AUDITED)
    if audited is None or audited.table is table:
        return audited
    original = table._deannotate() if isinstance(table, sa.Table) else table
    if original is audited.table or not isinstance(original, sa.Table):
        return audited
    return ensure_trail(original.metadata).track(original, audited.options)


def require_audited(table: sa.Table) -> AuditedTable:
    """Give the audited side of a table.

    Raises:
        NotAudited: if it has none.
    """
    audited = audited_of(table)
    if audited is None:
        raise NotAudited(f"table {table.fullname} is not audited: add Audited to its model, or call sa_audit.track()")
    return audited


def is_trail_table(table: sa.Table) -> bool:
    """Tell whether a table belongs to the trail: a history table or one of the fixed ones."""
    return TRAIL_TABLE in table.info


def iter_audited(metadata: sa.MetaData) -> Iterator[AuditedTable]:
    """Iterate over the audited tables of a MetaData."""
    trail = trail_of(metadata)
    return iter(list(trail.audited.values())) if trail is not None else iter(())


__all__ = [
    "AUDITED",
    "RESERVED",
    "TRAIL",
    "AuditedTable",
    "RecordedColumn",
    "Trail",
    "TrailSet",
    "audited_of",
    "capturing",
    "ensure_trail",
    "is_trail_table",
    "iter_audited",
    "known_trails",
    "reading",
    "require_audited",
    "trail_of",
]
