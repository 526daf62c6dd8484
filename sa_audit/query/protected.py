"""Present values beside what the history holds in their place: compared as digests, never shown.

Imports model, ddl, privacy, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.backend import backend_for
from ..errors import UnusableKey
from ..model import AuditedTable, Digested, RecordedColumn
from ..privacy import digest_id, keyed_digest, keys_of
from .rows import Source


class Protected:
    """The comparison of the rows of one table that are there with their recorded state.

    Args:
        connection: to the database.
        audited: the table.
    """

    def __init__(self, connection: Connection, audited: AuditedTable) -> None:
        self._audited = audited
        self._backend = backend_for(connection.dialect)
        self._places = [place for place, column in enumerate(audited.recorded) if column.protected]
        self._secrets = {digest_id(key): key for key in keys_of(audited).digest_keys} if self._places else {}

    def differs(
        self, source: Source, recorded: sa.ColumnElement[Any], column: RecordedColumn
    ) -> sa.ColumnElement[bool]:
        """Give the database's comparison; it can't make one of values that it has in two forms."""
        return sa.true() if column.protected else source.reader.differs(recorded, column.source)

    def present(self, column: RecordedColumn) -> sa.ColumnElement[Any]:
        """Give the present value, or the text that a digest is made of."""
        if not column.protected:
            return column.source
        name = self._backend.table_name(self._audited.table, {})
        texts = self._backend.staged_columns(self._audited, name)
        return sa.literal_column(texts[self._audited.columns.index(column)].replace("\\:", ":"))

    def compared(
        self, recorded: Sequence[Any], present: Sequence[Any], flags: Sequence[Any]
    ) -> tuple[list[Any], list[bool]]:
        """Give the present values, digested where the recorded ones are, and whether each differs from those.

        Raises:
            UnusableKey: if the provider no longer has the key of a recorded digest.
        """
        values, differs = list(present), [bool(flag) for flag in flags]
        for place in self._places:
            text = self._backend.protected_text(present[place])
            values[place] = None if text is None else self._digest(recorded[place], text)
            differs[place] = values[place] != recorded[place]
        return values, differs

    def _digest(self, recorded: Digested | None, text: str) -> Digested:
        """Make a digest under the key of the recorded one, or else the newest."""
        if recorded is None or recorded.count(":") != 2:
            return keyed_digest(next(iter(self._secrets.values())), text)
        name = recorded.split(":")[1]
        if name not in self._secrets:
            raise UnusableKey(
                f"{self._audited.history.fullname} holds digests under key {name}, and there are only "
                f"{', '.join(self._secrets)}: keep that key with the provider"
            )
        return keyed_digest(self._secrets[name], text)
