"""The cursor of a page: where in the trail it ended, as text that says nothing to its holder.

Imports errors only.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError

FORMAT = 1
MAX_LENGTH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The place of a history row in the trail.

    Attributes:
        at: when it was recorded; aware, UTC.
        source: the full name of the ``audit_transaction`` table.
        transaction: the id of its database transaction's first row there.
        flush: which flush or statement of the transaction.
        audit_id: the row's id.
        table: the full name of its history table, since ids are each table's own on SQLite.
    """

    at: dt.datetime
    source: str
    transaction: int
    flush: int
    audit_id: int
    table: str

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """What orders positions."""
        return (self.at, self.source, self.transaction, self.flush, self.audit_id, self.table)


def format_cursor(position: Position) -> str:
    """Give a position as text."""
    at, *rest = position.sort_key
    text = json.dumps([FORMAT, at.isoformat(), *rest], separators=(",", ":"), ensure_ascii=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: Any) -> Position:
    """Read a position from text.

    Raises:
        ConfigurationError: if it is not what :func:`format_cursor` gave.
    """
    refusal = f"after={text!r} is no cursor: give the next or end of an earlier page as it is"
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise ConfigurationError(refusal)
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        format_, at, source, transaction, flush, audit_id, table = json.loads(decoded)
        position = Position(
            at=dt.datetime.fromisoformat(at),
            source=source,
            transaction=transaction,
            flush=flush,
            audit_id=audit_id,
            table=table,
        )
        if format_ != FORMAT or format_cursor(position) != text or not _typed(position):
            raise ConfigurationError(refusal)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise ConfigurationError(refusal) from error
    return position


def _typed(position: Position) -> bool:
    numbers = (position.transaction, position.flush, position.audit_id)
    texts = (position.source, position.table)
    return (
        position.at.tzinfo is not None
        and all(type(number) is int for number in numbers)
        and all(type(text) is str for text in texts)
    )
