"""The process clock, for databases whose own clock is coarser than a microsecond (SQLite).

Imports nothing of the library.
"""

from __future__ import annotations

import contextvars
import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_source: contextvars.ContextVar[Callable[[], dt.datetime] | None] = contextvars.ContextVar(
    "sa_audit_clock", default=None
)


def now() -> dt.datetime:
    """Give the present moment, aware, in UTC."""
    source = _source.get()
    return dt.datetime.now(dt.UTC) if source is None else source()


@contextmanager
def simulated(source: Callable[[], dt.datetime]) -> Iterator[None]:
    """Take the time from ``source`` in this context: for demonstrations on SQLite, and said so where it is used."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
