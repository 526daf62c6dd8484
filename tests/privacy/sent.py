"""What the library sends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event


@contextmanager
def own_statements(engine: sa.Engine) -> Iterator[list[Any]]:
    """Keep the statements that name a table of the trail, with their parameters."""
    sent: list[Any] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if re.search(r"\b(audit_\w+|\w+_history)\b", statement):
            sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", keep)
