"""Schema descriptors: what the columns of a table's rows are.  ``docs/format/canonical.md``, version 1.

Imports only the room's own parts and errors.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass
from typing import Final

from ..errors import MalformedProof, Unencodable
from .cbor import Item, decode, encode
from .types import SchemaDigest

LABEL: Final = "sa_audit/schema/v1"
ROLES: Final = ("transaction", "history", "event", "access", "trail")
MAX_TABLE: Final = (1 << 31) - 1
OWN_COLUMNS: Final = {
    "audit_id": -1,
    "audit_tx": -2,
    "audit_txid": -3,
    "audit_op": -4,
    "audit_at": -5,
    "audit_before": -6,
    "audit_flush": -7,
}
"""The column ids of a history table's own columns."""

ELEMENT_TYPES: Final = frozenset(
    (
        *("int", "decimal", "float64", "float32", "bool", "text", "enum", "json", "bytes", "uuid", "bits", "instant"),
        *("datetime", "date", "time", "timetz", "duration", "interval", "encrypted", "printed"),
    )
)


def element_type(type_: str) -> str | None:
    """Give the type of an array's elements, or None for the type of anything else."""
    return type_[:-2] if type_.endswith("[]") else None


def is_type(name: str) -> bool:
    """Tell whether this version of the format has a type of that name."""
    return (element_type(name) or name) in ELEMENT_TYPES or name == "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its id for ever, its name now, the type of its form, and what the database calls that type."""

    id: int
    name: str
    type: str
    sql_type: str


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What the columns of a table's rows are.

    Args:
        table: the table's number in its log, from 1 on.
        role: one of :data:`ROLES`.
        schema: the schema that it stands in, or None.
        name: its name.
        columns: by ascending id, without ``audit_salt``.
        key: the ids of the columns that identify the audited row.

    Raises:
        Unencodable: if it breaks a rule of the format.
    """

    table: int
    role: str
    schema: str | None
    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise Unencodable(f"the descriptor of table {self.name!r} {problem}")

    def _problem(self) -> str | None:
        ids = [column.id for column in self.columns]
        if not 1 <= self.table <= MAX_TABLE:
            return f"has the number {self.table}, and numbers go from 1 to {MAX_TABLE}"
        if self.role not in ROLES:
            return f"has the role {self.role!r}: give one of {', '.join(ROLES)}"
        if not self.columns or any(first >= second for first, second in itertools.pairwise(ids)):
            return f"needs columns by ascending id, each id once, and has {ids}"
        if len({column.name for column in self.columns}) != len(ids):
            return "has two columns of one name"
        unknown = [column.type for column in self.columns if not is_type(column.type)]
        if unknown:
            return f"has a column of the unknown type {unknown[0]!r}"
        if not set(self.key) <= set(ids) or len(set(self.key)) != len(self.key):
            return f"has the key {self.key}, which is not of its columns {ids}, each once"
        return None

    def encode(self) -> bytes:
        """Give the descriptor as bytes."""
        return self._encoded

    @property
    def digest(self) -> SchemaDigest:
        """The schema digest, 32 bytes."""
        return self._digest

    @functools.cached_property
    def _encoded(self) -> bytes:
        columns: list[Item] = [[column.id, column.name, column.type, column.sql_type] for column in self.columns]
        return encode([LABEL, self.table, self.role, self.schema, self.name, columns, list(self.key)])

    @functools.cached_property
    def _digest(self) -> SchemaDigest:
        return SchemaDigest(hashlib.sha256(self._encoded).digest())

    @classmethod
    def decode(cls, data: bytes) -> Descriptor:
        """Read a descriptor.

        Raises:
            MalformedProof: if it is not an encoded descriptor of this version.
        """
        match decode(data, what="schema descriptor"):
            case (label, int(table), str(role), (str() | None) as schema, str(name), tuple(columns), tuple(key)) if (
                label == LABEL and type(table) is int and all(type(id_) is int for id_ in key)
            ):
                pass
            case _:
                raise MalformedProof(f"the schema descriptor is not of the form {LABEL!r}")
        ids = tuple(id_ for id_ in key if isinstance(id_, int))
        try:
            return cls(
                table=table,
                role=role,
                schema=schema,
                name=name,
                columns=tuple(_column(column) for column in columns),
                key=ids,
            )
        except Unencodable as error:
            raise MalformedProof(str(error)) from error


def _column(item: Item) -> Column:
    match item:
        case (int(id_), str(name), str(type_), str(sql_type)) if type(id_) is int:
            return Column(id=id_, name=name, type=type_, sql_type=sql_type)
        case _:
            raise MalformedProof(f"{item!r:.80} is not a column of a schema descriptor")
