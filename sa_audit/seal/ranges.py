"""Sets of ids as ascending ranges, both ends included, that don't touch.  Imports nothing."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def merged(ranges: tuple[Range, ...], ids: Iterable[int]) -> tuple[Range, ...]:
    """Give ranges with further ids in them.

    Args:
        ranges: the ranges.
        ids: in ascending order.
    """
    runs: list[Range] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return joined([*ranges, *runs]) if ranges else tuple(runs)


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Give ranges in order, those that meet or touch as one."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


def without(ranges: tuple[Range, ...], others: tuple[Range, ...]) -> tuple[Range, ...]:
    """Give what of some ranges is in none of the others."""
    result: list[Range] = []
    position = 0
    for first, last in ranges:
        start = first
        while position < len(others) and others[position][1] < start:
            position += 1
        following = position
        while following < len(others) and others[following][0] <= last:
            if others[following][0] > start:
                result.append((start, others[following][0] - 1))
            start = others[following][1] + 1
            following += 1
        if start <= last:
            result.append((start, last))
    return tuple(result)
