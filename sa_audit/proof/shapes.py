"""What the items of an entry look like, each as one question.  Imports only the room's own parts."""

from __future__ import annotations

import itertools
from typing import Any

from .schema import MAX_TABLE
from .types import DIGEST_SIZE, MAX_SIZE


def is_id(item: Any) -> bool:
    """Tell whether it is a signed 64-bit integer."""
    return type(item) is int and -(1 << 63) <= item < 1 << 63


def is_count(item: Any) -> bool:
    """Tell whether it is a number from 0 to 2**63 - 1."""
    return type(item) is int and 0 <= item <= MAX_SIZE


def is_table(item: Any) -> bool:
    """Tell whether it is a table's number."""
    return type(item) is int and 1 <= item <= MAX_TABLE


def is_digest(item: Any) -> bool:
    """Tell whether it is 32 bytes."""
    return type(item) is bytes and len(item) == DIGEST_SIZE


def are_counted(item: Any) -> bool:
    """Tell whether it is pairs of a table and an id, by ascending table."""
    if not isinstance(item, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in item):
        return False
    tables = [table for table, _count in item]
    if not all(is_table(table) and is_id(count) for table, count in item):
        return False
    return all(first < then for first, then in itertools.pairwise(tables))


def is_horizon(item: Any) -> bool:
    """Tell whether it is a horizon: a snapshot, an epoch, or the last row of each table."""
    match item:
        case ("snapshot", str()):
            return True
        case ("epoch", epoch):
            return is_count(epoch)
        case ("rowid", rows):
            return are_counted(rows)
        case _:
            return False


def are_ranges(item: tuple[Any, ...]) -> bool:
    """Tell whether it is ranges of ids, both ends included, ascending and apart."""
    if not all(isinstance(pair, tuple) and len(pair) == 2 and all(map(is_id, pair)) for pair in item):
        return False
    apart = all(first[1] + 1 < then[0] for first, then in itertools.pairwise(item))
    return apart and all(first <= last for first, last in item)
