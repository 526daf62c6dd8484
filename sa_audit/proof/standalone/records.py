"""Schema descriptors, rows and entries.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from .cbor import decode
from .fault import TREE_LIMIT, need
from .values import Test, check_form, exactly, is_int, is_type

# -- descriptors, rows, entries -----------------------------------------------------------


class Schema:
    """A schema descriptor."""

    def __init__(self, data: bytes) -> None:
        self.digest = hashlib.sha256(data).digest()
        item = decode(data)
        need(
            type(item) is list and len(item) == 7 and item[0] == "sa_audit/schema/v1",
            "is not a descriptor of version 1",
        )
        _label, self.table, role, schema, self.name, columns, key = item
        need(is_int(self.table, 1, 2**31 - 1), "has the table {!r}", self.table)
        need(role in ("transaction", "history", "event", "access", "trail"), "has the role {!r}", role)
        need(type(schema) in (str, type(None)) and type(self.name) is str, "has names that are no text")
        need(type(columns) is list and columns and type(key) is list, "has no columns")
        for column in columns:
            need(
                type(column) is list and [type(x) for x in column] == [int, str, str, str], "has a column {!r}", column
            )
            need(is_type(column[2]), "has the unknown type {!r}", column[2])
        ids, names = [column[0] for column in columns], [column[1] for column in columns]
        need(ids == sorted(set(ids)) and len(set(names)) == len(names), "has columns twice or out of order")
        need(all(is_int(x) and x in ids for x in key) and len(set(key)) == len(key), "has the key {!r}", key)
        self.columns = [(column[1], column[2]) for column in columns]

    @property
    def file(self) -> str:
        """The name of the files of its rows, without ending."""
        return f"rows/{self.table}-{self.digest.hex()[:16]}"

    def row(self, data: bytes) -> list[Any]:
        """Give the values of an encoded row."""
        item = decode(data)
        need(type(item) is list and len(item) == 4 and item[0] == "sa_audit/row/v1", "is not a row of version 1")
        need(item[1] == self.digest, "is a row of another schema")
        need(type(item[2]) is bytes and len(item[2]) in (0, 16), "has a salt of another length")
        need(type(item[3]) is list and len(item[3]) == len(self.columns), "has more or fewer values than columns")
        for index, value in enumerate(item[3]):
            check_form(self.columns[index][1], value)
        values: list[Any] = item[3]
        return values


def some_id(item: Any) -> bool:
    """Tell whether it is a 64-bit integer."""
    return is_int(item, -(2**63), 2**63 - 1)


def some_count(item: Any) -> bool:
    """Tell whether it is a count."""
    return is_int(item, 0, 2**63 - 1)


def some_table(item: Any) -> bool:
    """Tell whether it is a table's number."""
    return is_int(item, 1, 2**31 - 1)


def some_digest(item: Any) -> bool:
    """Tell whether it is 32 bytes."""
    return type(item) is bytes and len(item) == 32


def or_null(fits: Test) -> Test:
    """Give what tells whether an item is null, or fits."""
    return lambda item: item is None or fits(item)


def one_of(*words: str) -> Test:
    """Give what tells whether an item is one of some texts."""
    return lambda item: type(item) is str and item in words


def by_table(item: Any, fits: Test) -> bool:
    """Tell whether it is arrays that begin with a table, ascending, and fit."""
    if type(item) is not list or not all(type(x) is list and x and some_table(x[0]) and fits(x) for x in item):
        return False
    tables = [x[0] for x in item]
    return tables == sorted(set(tables))


def counted(item: Any) -> bool:
    """Tell whether it is pairs of a table and a number."""
    return by_table(item, lambda pair: len(pair) == 2 and some_id(pair[1]))


def horizon(item: Any) -> bool:
    """Tell whether it is what a block says is complete."""
    if type(item) is not list or len(item) != 2:
        return False
    kind, value = item
    return (
        (kind == "snapshot" and type(value) is str)
        or (kind == "epoch" and some_count(value))
        or (kind == "rowid" and counted(value))
    )


def cluster(item: Any) -> bool:
    """Tell whether it says which database it is."""
    texts = or_null(exactly(str))
    return (
        type(item) is list
        and len(item) == 4
        and type(item[0]) is str
        and or_null(some_count)(item[1])
        and texts(item[2])
        and texts(item[3])
    )


def losses(item: Any) -> bool:
    """Tell whether it says what of each table is missing."""
    return by_table(item, lambda x: len(x) == 3 and or_null(some_id)(x[1]) and apart(x[2]))


def apart(item: Any) -> bool:
    """Tell whether it is ranges that ascend and don't touch."""
    if type(item) is not list or not all(type(x) is list and len(x) == 2 and all(map(some_id, x)) for x in item):
        return False
    last = None
    for first, end in item:
        if end < first or (last is not None and first <= last + 1):
            return False
        last = end
    return True


def any_text(item: Any) -> bool:
    """Tell whether it is text."""
    return type(item) is str


def definition(item: Any) -> bool:
    """Tell whether it is the definition of an object of the catalog: text, or the digest of a long one."""
    return some_digest(item) or (type(item) is str and len(item.encode()) <= 32768)


KINDS = {
    1: (some_table, some_id, or_null(some_id), some_digest, some_digest),
    2: (
        *(some_count, some_count, lambda x: is_int(x, 1, 65536), some_count, some_id, horizon, exactly(bool), counted),
        *(or_null(some_digest), or_null(some_digest)),
    ),
    3: (some_table, exactly(bytes)),
    4: (one_of("add", "retire", "revoke"), any_text, some_count, some_id, any_text),
    5: (some_table, some_id, some_id, some_count, some_digest, any_text, any_text, any_text),
    6: (one_of("created", "destroyed"), any_text, or_null(some_digest), or_null(any_text)),
    7: (lambda x: is_int(x, 1, 2**63 - 1), cluster, cluster, losses, any_text, any_text),
    8: (any_text, or_null(any_text), or_null(any_text), any_text, definition),
}


def decode_entry(data: bytes) -> tuple[int, list[Any]]:
    """Read an entry; give its kind and its items."""
    need(len(data) <= 65535, "is longer than an entry may be")
    item = decode(data)
    need(type(item) is list and len(item) >= 2 and is_int(item[0]) and is_int(item[1]), "is not an entry")
    need(item[0] == 1 and item[1] in KINDS, "is an entry of the unknown version {} or kind {}", item[0], item[1])
    kind, items = item[1], item[2:]
    shape = KINDS[kind]
    fits = len(items) == len(shape) and all(shape[i](items[i]) for i in range(len(shape)))
    need(fits, "is not an entry of kind {}: {!r:.200}", kind, items)
    if kind == 2:
        need(items[1] + items[2] < TREE_LIMIT, "is a block beyond the greatest tree")
        need(all(1 <= rows < items[2] for _table, rows in items[7]), "is a block of more rows than leaves")
    if kind == 3:
        need(Schema(items[1]).table == items[0], "is the schema of another table")
    if kind == 5:
        need(items[1] <= items[2], "is a prune that ends before it begins")
    if kind == 6:
        need((items[0] == "created") == (items[2] is not None), "is a person's key with the wrong commitment")
    return kind, items


def check_row(items: Sequence[Any], schema: Schema, data: bytes) -> list[Any]:
    """Refuse a row that is not that of an entry of kind 1; give its values."""
    need(items[3] == schema.digest and items[0] == schema.table, "has another schema than the entry")
    got = hashlib.sha256(data).digest()
    need(got == items[4], "is not the row that was sealed: expected {}, got {}", items[4].hex(), got.hex())
    return schema.row(data)
