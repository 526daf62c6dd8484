"""Entries: the contents of the log's leaves.  ``docs/format/entries.md``, version 1.

Each kind is a frozen class with ``encode()``; :func:`decode_entry` reads any of them.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

from ..errors import MalformedProof, Unencodable
from .cbor import Item, decode, encode, encode_fast
from .clusters import Cluster as Cluster
from .clusters import Loss as Loss
from .clusters import cluster_of, loss_of
from .schema import Descriptor
from .shapes import are_counted, is_count, is_digest, is_horizon, is_id, is_table
from .types import MAX_SIZE, Digest, RowDigest, SchemaDigest

VERSION: Final = 1
MAX_ENTRY: Final = 65_535
"""The most bytes of an entry: what the length prefix of an entry bundle can say."""
MAX_BLOCK: Final = 65_536
"""The most leaves of a block, its header included."""
MAX_DEFINITION: Final = 32_768
"""The most bytes of UTF-8 of a definition that stands in the log itself, and not its digest."""
COMMITMENT_LABEL: Final = b"sa_audit/person-key/v1\x00"


class _Entry:
    """What all kinds share."""

    __slots__ = ()
    kind: ClassVar[int]

    def encode(self) -> bytes:
        """Give the entry as bytes.

        Raises:
            Unencodable: if it is longer than an entry may be, or breaks another rule of its kind.
        """
        data = encode([VERSION, self.kind, *self._items()])
        if len(data) > MAX_ENTRY:
            raise Unencodable(f"the {type(self).__name__} takes {len(data)} bytes, and an entry at most {MAX_ENTRY}")
        try:
            decode_entry(data)
        except MalformedProof as error:
            raise Unencodable(str(error)) from error
        return data

    def _items(self) -> list[Item]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEntry(_Entry):
    """One row of the trail: ``row`` is its id in its table, ``transaction`` that of its ``audit_transaction`` row."""

    kind: ClassVar[int] = 1
    table: int
    row: int
    transaction: int | None
    schema: SchemaDigest
    digest: RowDigest

    def _items(self) -> list[Item]:
        return [self.table, self.row, self.transaction, self.schema, self.digest]

    @staticmethod
    def _read(items: Sequence[Any]) -> RowEntry | None:
        match items:
            case (table, row, transaction, schema, digest) if (
                is_table(table)
                and is_id(row)
                and (transaction is None or is_id(transaction))
                and is_digest(schema)
                and is_digest(digest)
            ):
                return RowEntry(table=table, row=row, transaction=transaction, schema=schema, digest=digest)
        return None


def row_entry(table: int, row: int, transaction: int | None, schema: SchemaDigest, digest: RowDigest) -> bytes:
    """Give the bytes of a :class:`RowEntry`, fast, for many rows: what is given is not looked at."""
    return encode_fast((VERSION, RowEntry.kind, table, row, transaction, schema, digest))


Horizon: TypeAlias = (
    "tuple[Literal['snapshot'], str] | tuple[Literal['epoch'], int] | tuple[Literal['rowid'], tuple[Counted, ...]]"
)
"""What is complete: a snapshot's text, an epoch's number, or the last row of each table."""
Counted: TypeAlias = tuple[int, int]
"""A table, and a row's id or a number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEntry(_Entry):
    """The header of a block, its first leaf; ``sealed_at`` is in microseconds since the epoch."""

    kind: ClassVar[int] = 2
    number: int
    first: int
    count: int
    incarnation: int
    sealed_at: int
    horizon: Horizon
    closes: bool
    tables: tuple[Counted, ...]
    fingerprint: Digest | None = None
    token: Digest | None = None

    def _items(self) -> list[Item]:
        return [
            *(self.number, self.first, self.count, self.incarnation, self.sealed_at),
            *(self.horizon, self.closes, self.tables, self.fingerprint, self.token),
        ]

    @staticmethod
    def _read(items: Sequence[Any]) -> BlockEntry | None:
        match items:
            case (number, first, count, incarnation, sealed_at, horizon, bool(closes), tables, fingerprint, token) if (
                all(is_count(item) for item in (number, first, incarnation))
                and is_id(sealed_at)
                and is_count(count)
                and 1 <= count <= MAX_BLOCK
                and first + count <= MAX_SIZE
                and is_horizon(horizon)
                and are_counted(tables)
                and all(1 <= rows < count for _table, rows in tables)
                and all(item is None or is_digest(item) for item in (fingerprint, token))
            ):
                return BlockEntry(
                    number=number,
                    first=first,
                    count=count,
                    incarnation=incarnation,
                    sealed_at=sealed_at,
                    horizon=horizon,
                    closes=closes,
                    tables=tables,
                    fingerprint=fingerprint,
                    token=token,
                )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaEntry(_Entry):
    """A schema descriptor, encoded."""

    kind: ClassVar[int] = 3
    table: int
    descriptor: bytes

    def _items(self) -> list[Item]:
        return [self.table, self.descriptor]

    @staticmethod
    def of(descriptor: Descriptor) -> SchemaEntry:
        """Give the entry of a descriptor."""
        return SchemaEntry(table=descriptor.table, descriptor=descriptor.encode())

    @staticmethod
    def _read(items: Sequence[Any]) -> SchemaEntry | None:
        match items:
            case (table, bytes(descriptor)) if is_table(table):
                if Descriptor.decode(descriptor).table == table:
                    return SchemaEntry(table=table, descriptor=descriptor)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry(_Entry):
    """A key of the log comes, goes, or is revoked; ``moment`` is in microseconds since the epoch."""

    kind: ClassVar[int] = 4
    event: str
    verifier: str
    size: int
    moment: int
    reason: str

    def _items(self) -> list[Item]:
        return [self.event, self.verifier, self.size, self.moment, self.reason]

    @staticmethod
    def _read(items: Sequence[Any]) -> KeyEntry | None:
        match items:
            case (("add" | "retire" | "revoke") as event, str(verifier), size, moment, str(reason)) if is_count(
                size
            ) and is_id(moment):
                return KeyEntry(event=event, verifier=verifier, size=size, moment=moment, reason=reason)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneEntry(_Entry):
    """Rows that may be missing from now on: ``first_row`` to ``last_row``, both included."""

    kind: ClassVar[int] = 5
    table: int
    first_row: int
    last_row: int
    count: int
    root: Digest
    policy: str
    approver: str
    reason: str

    def _items(self) -> list[Item]:
        return [
            *(self.table, self.first_row, self.last_row, self.count, self.root),
            *(self.policy, self.approver, self.reason),
        ]

    @staticmethod
    def _read(items: Sequence[Any]) -> PruneEntry | None:
        match items:
            case (table, first_row, last_row, count, root, str(policy), str(approver), str(reason)) if (
                is_table(table)
                and is_id(first_row)
                and is_id(last_row)
                and first_row <= last_row
                and is_count(count)
                and is_digest(root)
            ):
                return PruneEntry(
                    table=table,
                    first_row=first_row,
                    last_row=last_row,
                    count=count,
                    root=root,
                    policy=policy,
                    approver=approver,
                    reason=reason,
                )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonKeyEntry(_Entry):
    """A person's key was created, with what it is bound to, or destroyed."""

    kind: ClassVar[int] = 6
    event: str
    key: str
    commitment: Digest | None
    reason: str | None = None

    def _items(self) -> list[Item]:
        return [self.event, self.key, self.commitment, self.reason]

    @staticmethod
    def _read(items: Sequence[Any]) -> PersonKeyEntry | None:
        match items:
            case ("created", str(key), commitment, (str() | None) as reason) if is_digest(commitment):
                return PersonKeyEntry(event="created", key=key, commitment=commitment, reason=reason)
            case ("destroyed", str(key), None, (str() | None) as reason):
                return PersonKeyEntry(event="destroyed", key=key, commitment=None, reason=reason)
        return None


def key_commitment(secret: bytes, key: str) -> Digest:
    """Give what binds a person's key to its name: HMAC-SHA256, 32 bytes.

    Args:
        secret: the key's bytes.
        key: the text that names it.
    """
    return Digest(hmac.new(secret, COMMITMENT_LABEL + key.encode(), hashlib.sha256).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class IncarnationEntry(_Entry):
    """The database is another one than before: restored, or a promoted standby."""

    kind: ClassVar[int] = 7
    number: int
    old: Cluster
    new: Cluster
    tables: tuple[Loss, ...]
    reason: str
    operator: str

    def _items(self) -> list[Item]:
        tables: list[Item] = [loss.item() for loss in self.tables]
        return [self.number, self.old.item(), self.new.item(), tables, self.reason, self.operator]

    @staticmethod
    def _read(items: Sequence[Any]) -> IncarnationEntry | None:
        match items:
            case (number, old, new, tuple(tables), str(reason), str(operator)) if is_count(number) and number >= 1:
                clusters = (cluster_of(old), cluster_of(new))
                losses = tuple(loss for loss in map(loss_of, tables) if loss is not None)
                ascending = all(first.table < then.table for first, then in itertools.pairwise(losses))
                if None not in clusters and len(losses) == len(tables) and ascending:
                    return IncarnationEntry(
                        number=number,
                        old=clusters[0],  # type: ignore[arg-type]  # None is excluded just above
                        new=clusters[1],  # type: ignore[arg-type]  # likewise
                        tables=losses,
                        reason=reason,
                        operator=operator,
                    )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry(_Entry):
    """A fact of the catalog when it was sealed: what an object is, and how it is defined.

    ``definition`` is its text, or the SHA-256 of one that has more than :data:`MAX_DEFINITION` bytes of UTF-8.
    """

    kind: ClassVar[int] = 8
    what: str
    schema: str | None
    table: str | None
    name: str
    definition: str | Digest

    def _items(self) -> list[Item]:
        return [self.what, self.schema, self.table, self.name, self.definition]

    @staticmethod
    def _read(items: Sequence[Any]) -> CatalogEntry | None:
        match items:
            case (str(what), (str() | None) as schema, (str() | None) as table, str(name), definition) if is_digest(
                definition
            ) or (isinstance(definition, str) and len(definition.encode()) <= MAX_DEFINITION):
                return CatalogEntry(what=what, schema=schema, table=table, name=name, definition=definition)
        return None


Entry: TypeAlias = (
    RowEntry | BlockEntry | SchemaEntry | KeyEntry | PruneEntry | PersonKeyEntry | IncarnationEntry | CatalogEntry
)
KINDS: Final[dict[int, type[Entry]]] = {entry.kind: entry for entry in get_args(Entry)}


def decode_entry(data: bytes) -> Entry:
    """Read an entry of any kind.

    Raises:
        MalformedProof: if it is not an entry of this version, or too long.
    """
    if len(data) > MAX_ENTRY:
        raise MalformedProof(f"the entry has {len(data)} bytes, and an entry at most {MAX_ENTRY}")
    match decode(data, what="entry"):
        case (version, kind, *items) if type(version) is int and type(kind) is int:
            pass
        case _:
            raise MalformedProof("the entry is not an array of a version, a kind and items")
    if version != VERSION:
        raise MalformedProof(f"the entry has version {version}, and this library knows {VERSION}: use a later one")
    if kind not in KINDS:
        raise MalformedProof(f"the entry is of the unknown kind {kind}: use a later version of the library")
    entry = KINDS[kind]._read(tuple(items))
    if entry is None:
        raise MalformedProof(f"the entry is not a {KINDS[kind].__name__}: {items!r:.200}")
    return entry
