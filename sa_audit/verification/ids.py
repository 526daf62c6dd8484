"""Sets of row ids, as bitmaps: flat in memory however many rows there are, since ids are dense.

Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BITS: Final = 16
SPAN: Final = 1 << BITS
_MASK: Final = SPAN - 1


class IdSet:
    """A set of integers: 8 KiB for each stretch of 65,536 that holds one."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, number: int) -> bool:
        """Put a number in; tell whether it was new."""
        chunk = self._chunks.get(number >> BITS)
        if chunk is None:
            chunk = self._chunks[number >> BITS] = bytearray(SPAN >> 3)
        place, bit = (number & _MASK) >> 3, 1 << (number & 7)
        if chunk[place] & bit:
            return False
        chunk[place] |= bit
        return True

    def add_all(self, numbers: Iterable[int]) -> list[int]:
        """Put numbers in; give the positions of those that were not new."""
        again: list[int] = []
        current, chunk = None, bytearray()
        for position, number in enumerate(numbers):
            key = number >> BITS
            if key != current:
                current, chunk = key, self._chunks.setdefault(key, bytearray(SPAN >> 3))
            place, bit = (number & _MASK) >> 3, 1 << (number & 7)
            if chunk[place] & bit:
                again.append(position)
            chunk[place] |= bit
        return again

    def discard_range(self, first: int, last: int) -> None:
        """Take out the numbers from ``first`` to ``last``, both included."""
        for key in [key for key in self._chunks if first >> BITS <= key <= last >> BITS]:
            chunk, start = self._chunks[key], key << BITS
            low, high = max(first, start) - start, min(last, start + _MASK) - start
            for number in range(low, high + 1):
                chunk[number >> 3] &= ~(1 << (number & 7)) & 0xFF

    def __contains__(self, number: int) -> bool:
        chunk = self._chunks.get(number >> BITS)
        return chunk is not None and bool(chunk[(number & _MASK) >> 3] & 1 << (number & 7))

    def counts(self) -> dict[int, int]:
        """Give how many numbers there are in each stretch, by ``number >> 16``."""
        found = {key: int.from_bytes(chunk, "big").bit_count() for key, chunk in self._chunks.items()}
        return {key: count for key, count in found.items() if count}
