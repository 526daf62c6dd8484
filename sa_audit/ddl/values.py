"""What recording passes about: images, batches, entries and targets, and the marks of the library's own statements.

Imports model only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import AuditedTable, Trail
from ..model.types import UTCDateTime

KEY_MOVED: Final = "sa_audit: the key of a person can be wrapped anew, and no more: UPDATE on audit_person_key refused"
KEY_LOST: Final = "sa_audit: a key is destroyed by erase(), which records it: DELETE on audit_person_key refused"

CLAIMS: Final = ("actor", "on_behalf_of", "reason", "request_id", "remote_addr", "context")
MESSAGE: Final = "sa_audit: the trail is append-only"

MARKER: Final = "sa_audit_updated"

SchemaMap = Mapping[str | None, str | None]
Key = tuple[Any, ...]


class Image(NamedTuple):
    """A row before a statement: its key as Python values, and each recorded column as the backend reads it.

    When it is recorded, a column whose values the history doesn't hold has the JSON of its old form instead, or None
    where it did not change; and behind all columns stand the new forms of those.
    """

    key: Key
    values: tuple[Any, ...]


class DriverRead(NamedTuple):
    """A SELECT of images in the driver's own form: its text, its parameters, and what reads them off its cursor."""

    sql: str
    parameters: Any
    images: Callable[[Any], dict[Key, Image]]


class Protected(NamedTuple):
    """What is read back of a row whose history holds other forms of values.

    ``values`` are those of the protected columns, and of those that say whose they are, as an image has them; ``keys``
    the names of the persons' keys, 32 characters each, with the person behind it.
    """

    key: Key
    label: str
    values: Sequence[Any]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one statement of recording writes of one table.

    ``inserted`` and ``deleted`` are keys of rows that stand in the table now, ``images`` rows as they were.
    ``protected`` is the JSON of what the history holds of columns whose values it doesn't, by the labels of the
    inserted and deleted rows: the forms ``n0``, ``n1`` and so on.  Images have such forms with them.
    """

    inserted: Sequence[Key] = ()
    images: Sequence[Image] = ()
    deleted: Sequence[Key] = ()
    protected: str | None = None

    def parts(self, size: int) -> Iterator[Batch]:
        """Give it as a whole, or else, kind by kind, batches of at most so many rows, without a document."""
        if 0 < max(len(self.inserted), len(self.images), len(self.deleted)) <= size:
            yield self
            return
        for start in range(0, len(self.deleted), size):
            yield Batch(deleted=self.deleted[start : start + size])
        for start in range(0, len(self.inserted), size):
            yield Batch(inserted=self.inserted[start : start + size])
        for start in range(0, len(self.images), size):
            yield Batch(images=self.images[start : start + size])

    def keys(self) -> list[Key]:
        """Give the keys of its rows, each once."""
        return list(dict.fromkeys((*self.inserted, *self.deleted, *(image.key for image in self.images))))


@dataclass(frozen=True, slots=True)
class Entry:
    """The row of ``audit_transaction`` that history rows belong to."""

    id: int
    recorded_at: dt.datetime


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """What is written of one read: the columns of ``audit_access`` that say what was read, and the keys as texts."""

    trail: Trail
    values: Mapping[str, Any]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a statement of recording did: its entry (None if nothing had changed), and rows by kind."""

    entry: Entry | None
    inserted: int
    others: int


@dataclass(frozen=True, slots=True)
class Target:
    """An audited table as one connection writes it: with its schemas translated, and the flush it belongs to."""

    audited: AuditedTable
    schemas: SchemaMap = field(default_factory=dict)

    @property
    def trail(self) -> Trail:
        """The trail of the table's MetaData."""
        return self.audited.trail


def claim_parameters() -> list[sa.BindParameter[Any]]:
    """Give the typed parameters of an entry's claims."""
    return [sa.bindparam(name, type_=sa.JSON(none_as_null=True) if name == "context" else sa.Text()) for name in CLAIMS]


def moment_parameter(name: str) -> sa.BindParameter[Any]:
    """Give a typed parameter for a moment."""
    return sa.bindparam(name, type_=UTCDateTime())


def internal(connection: Connection, statement: Any, parameters: Any = None) -> Any:
    """Execute a statement of the library itself, which the hooks let pass."""
    return connection.execute(statement, parameters, execution_options=OWN)


INTERNAL: Final = "sa_audit_internal"
OWN: Final[Mapping[str, Any]] = {INTERNAL: True, "stream_results": False, "yield_per": None}
"""Execution options of the library's own statements, whatever the user set for his."""
