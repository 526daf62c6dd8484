"""Present values beside what the history holds in their place: compared as digests, or by the tags of encrypted ones.

Imports model, ddl, privacy, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ..capture.person_keys import PersonKeys
from ..ddl.backend import backend_for
from ..errors import UnusableKey
from ..model import AuditedTable, Digested, Encrypted, Erased, RecordedColumn
from ..model.stored import COMPARED
from ..privacy import digest_id, keyed_digest, keys_of
from ..privacy.encryption import is_encrypted, key_name, tag, tag_of
from .decrypting import opened, row_label
from .rows import Source


class Protected:
    """The comparison of the rows of one table that are there with their recorded state.

    Args:
        source: where both stand.
        audited: the table.
    """

    def __init__(self, source: Source, audited: AuditedTable) -> None:
        self._audited = audited
        self._backend = backend_for(source.connection.dialect)
        self._reader = source.reader
        self._places = [(place, column) for place, column in enumerate(audited.recorded) if column.formed]
        digests = any(column.digested for _place, column in self._places)
        self._digest_keys = {digest_id(key): key for key in keys_of(audited).digest_keys} if digests else {}
        self._secrets = PersonKeys(source.connection, audited.trail).load() if audited.encrypted else None
        self.labels = [row_label(source.connection.dialect, audited, audited.table)] if audited.encrypted else []

    def differs(
        self, source: Source, recorded: sa.ColumnElement[Any], column: RecordedColumn
    ) -> sa.ColumnElement[bool]:
        """Give the database's comparison; it can't make one of values that it has in two forms."""
        if column.stored:
            return source.reader.differs(_told_apart(recorded, column), _told_apart(column.source, column))
        return sa.true() if column.protected else source.reader.differs(recorded, column.source)

    def present(self, column: RecordedColumn) -> sa.ColumnElement[Any]:
        """Give the present value, or the text of one that the history holds in another form."""
        if not column.protected:
            return sa.type_coerce(column.source, column.shown_type) if column.stored else column.source
        texts = self._backend.staged_columns(self._audited, self._backend.quote(self._audited.table.name))
        return sa.literal_column(texts[self._audited.columns.index(column)].replace("\\:", ":"))

    def compared(
        self, recorded: Sequence[Any], present: Sequence[Any], flags: Sequence[Any]
    ) -> tuple[list[Any], list[Any], list[bool]]:
        """Give recorded and present values in one form, and whether they differ.

        Present values are digested where the recorded ones are; encrypted ones are decrypted.  Those of a person whose
        key was destroyed can't be compared, and don't count as different.

        Raises:
            UnusableKey: if the provider no longer has the key of a recorded digest.
        """
        before, now, differs = list(recorded), list(present[: len(recorded)]), [bool(flag) for flag in flags]
        for place, column in self._places:
            if column.stored:
                if differs[place] and column.encrypted:
                    before[place], now[place] = (self._opened(column, row[place]) for row in (before, now))
                continue
            text = self._backend.protected_text(now[place])
            if column.encrypted:
                self._compare_encrypted(place, column, text, str(present[-1]), (before, now, differs))
                continue
            now[place] = None if text is None else self._digest(before[place], text)
            differs[place] = now[place] != before[place]
        return before, now, differs

    def _opened(self, column: RecordedColumn, value: str | None) -> Any:
        """Give what is encrypted; what went in past the triggers may be anything, and is given as it stands."""
        if value is None or self._secrets is None or not is_encrypted(value):
            return None if value is None else str(value)
        return opened(self._audited, column, "", value, self._secrets.open(key_name(value)), self._reader)

    def _compare_encrypted(
        self,
        place: int,
        column: RecordedColumn,
        text: str | None,
        label: str,
        row: tuple[list[Any], list[Any], list[bool]],
    ) -> None:
        before, now, differs = row
        value = before[place]
        now[place] = None if text is None else self._reader.decoded(column.declared, text)
        if not isinstance(value, Encrypted) or self._secrets is None:
            differs[place] = value is not None or text is not None
            return
        key = self._secrets.open(key_name(value))
        differs[place] = key is not None and (text is None or tag(value) != tag_of(key, label, text))
        before[place] = opened(self._audited, column, label, value, key, self._reader) if differs[place] else Erased

    def _digest(self, recorded: Digested | None, text: str) -> Digested:
        """Make a digest under the key of the recorded one, or else the newest."""
        if recorded is None or recorded.count(":") != 2:
            return keyed_digest(next(iter(self._digest_keys.values())), text)
        name = recorded.split(":")[1]
        if name not in self._digest_keys:
            raise UnusableKey(
                f"{self._audited.history.fullname} holds digests under key {name}, and there are only "
                f"{', '.join(self._digest_keys)}: keep that key with the provider"
            )
        return keyed_digest(self._digest_keys[name], text)


def _told_apart(value: sa.ColumnElement[Any], column: RecordedColumn) -> sa.ColumnElement[Any]:
    """Give the part of a form that tells values apart: a ciphertext differs each time."""
    text = sa.type_coerce(value, sa.Text())
    return sa.func.substr(text, 1, COMPARED, type_=sa.Text()) if column.encrypted else text
