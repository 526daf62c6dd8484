"""Which database it is, and what an incarnation of it lacks: parts of an incarnation entry.

``docs/format/entries.md``, "Incarnation".  Imports only the room's own parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cbor import Item
from .shapes import are_ranges, is_count, is_id, is_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which database this is, by its own word."""

    system: str
    timeline: int | None = None
    position: str | None = None
    snapshot: str | None = None

    def item(self) -> Item:
        """Give it as an item of an entry."""
        return (self.system, self.timeline, self.position, self.snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What an incarnation lacks of one table: its last row, and the ranges of sealed row ids that are not there."""

    table: int
    last_row: int | None
    lost: tuple[tuple[int, int], ...] = ()

    def item(self) -> Item:
        """Give it as an item of an entry."""
        return (self.table, self.last_row, self.lost)


def cluster_of(item: Any) -> Cluster | None:
    """Read a cluster, or give None if it is none."""
    match item:
        case (str(system), timeline, (str() | None) as position, (str() | None) as snapshot) if (
            timeline is None or is_count(timeline)
        ):
            return Cluster(system=system, timeline=timeline, position=position, snapshot=snapshot)
    return None


def loss_of(item: Any) -> Loss | None:
    """Read a loss, or give None if it is none."""
    match item:
        case (table, last_row, tuple(lost)) if is_table(table) and (last_row is None or is_id(last_row)):
            if are_ranges(lost):
                return Loss(table=table, last_row=last_row, lost=lost)
    return None
