"""Values that the history holds in another form, made in Python: the database never has a key.

Before rows are recorded, the values of such columns are read as they are stored, locked, and what the history shall
hold of them goes back with the statement that writes it, as one document by the rows' labels.  No value goes along.
Imports model, ddl, privacy, errors, and of capture the keys of persons.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection

from ..ddl.backend import Backend, Batch, Image, Key, Protected, Target
from ..errors import UnauditedWrite
from ..model import AuditedTable, RecordedColumn
from ..model.records import MAX_SUBJECT
from ..privacy import keyed_digest, keys_of
from ..privacy.encryption import PersonKey, Place, encrypted
from .person_keys import NAME, Entries, PersonKeys

State: TypeAlias = dict[RecordedColumn, str | None]
"""Texts of a row's protected columns, and of those that say whose values they are."""


def require_keys(audited: AuditedTable) -> None:
    """Make sure that there is a key, before anything is written.

    Raises:
        UnusableKey: if there is none.
    """
    if audited.formed:
        keys_of(audited)
        for column in audited.encrypted:
            audited.subject_of(column)


def protect(
    connection: Connection, backend: Backend, target: Target, batch: Batch, entries: Entries
) -> Iterator[Batch]:
    """Give a batch in parts, each with the document of what the history shall hold, and images of nothing else.

    Rows are read, and keys of persons looked up, once for all parts.

    Args:
        connection: the connection.
        backend: the database.
        target: the table.
        batch: what is to be recorded.
        entries: gives the entry under which a person's key is recorded, if one is to be made.
    """
    audited = target.audited
    if not audited.protected:
        yield batch
        return
    old = {image.key: backend.image_values(image) for image in batch.images}
    keys = batch.keys()
    rows: dict[Key, list[_Row]] = {}
    read = backend.read_protected(connection, target, keys)
    for one in read:
        row = _Row(one.label, _state(audited, backend, one.values), _old(audited, backend, old.get(one.key)))
        rows.setdefault(one.key, []).append(row)
    forms = _Forms(connection, target, [row for found in rows.values() for row in found], _named(read), entries)
    known = frozenset(keys)
    others = [row for key, found in rows.items() if key not in known for row in found]  # known by another value
    if others and not rows.keys() >= old.keys():
        raise UnauditedWrite(
            f"rows of {audited.table.fullname} have other keys after a change than before it, as {others[0].label}, so "
            "their encrypted or digested values can't be recorded: let no trigger change keys"
        )
    images = [Image(key, backend.image_of(forms.image(values, rows.get(key)))) for key, values in old.items()]
    batch = Batch(batch.inserted, images, batch.deleted)
    for part in batch.parts(backend.protected_chunk) if batch.inserted or batch.deleted else [batch]:
        own = [row for key in (*part.inserted, *part.deleted) for row in rows.get(key, ())]
        yield dataclasses.replace(part, protected=forms.document([*own, *others]) if own or others else None)


def protected_rows(
    connection: Connection, backend: Backend, target: Target, keys: Sequence[Key], entries: Entries
) -> str:
    """Give the document for rows that are recorded as they stand."""
    read = backend.read_protected(connection, target, keys)
    rows = [_Row(one.label, _state(target.audited, backend, one.values), None) for one in read]
    return _Forms(connection, target, rows, _named(read), entries).document(rows)


def _named(read: Sequence[Protected]) -> dict[str, str]:
    """Give the names of the keys that persons have, as they were read with the rows."""
    return {text[NAME:]: text[:NAME] for one in read for text in one.keys}


@dataclass(slots=True)
class _Row:
    """A row's state, and that before the change, if there was one."""

    label: str
    now: State = field(repr=False)
    old: State | None = field(repr=False)

    def states(self) -> list[State]:
        """Give both, or the one that there is."""
        return [self.now] if self.old is None else [self.now, self.old]


def _state(audited: AuditedTable, backend: Backend, values: Sequence[Any]) -> State:
    return dict(zip(audited.protected_reads, map(backend.protected_text, values), strict=True))


def _old(audited: AuditedTable, backend: Backend, values: Sequence[Any] | None) -> State | None:
    if values is None:
        return None
    places = {column: place for place, column in enumerate(audited.columns)}
    return _state(audited, backend, [values[places[column]] for column in audited.protected_reads])


class _Forms:
    """What the history holds of the values of some rows."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        rows: Sequence[_Row],
        named: Mapping[str, str],
        entries: Entries,
    ) -> None:
        self.audited = target.audited
        self._protected = {column: self.audited.columns.index(column) for column in self.audited.protected}
        digests = any(column.digested for column in self._protected)
        self._digest_key = keys_of(self.audited).digest_keys[0] if digests else b""
        encrypted_here = (column for column in self.audited.protected if column.encrypted)
        self._subjects = {column: self.audited.subject_of(column) for column in encrypted_here}
        self._keys: dict[str, PersonKey] = {}
        if self._subjects:
            persons = dict.fromkeys(
                self._person(column, state)
                for row in rows
                for state in row.states()
                for column in self._subjects
                if state[column] is not None
            )
            keys = PersonKeys(connection, target.trail, target.schemas)
            self._keys = keys.of(list(persons), entries, named) if persons else {}

    def document(self, rows: Sequence[_Row]) -> str:
        """Give the document of some of the rows, by their labels."""
        return json.dumps({row.label: self.members(row) for row in rows})

    def members(self, row: _Row) -> dict[str, str | None]:
        """Give for the column at each place the form of its value, ``n0``, ``n1`` and so on."""
        return {f"n{place}": form for place, form in enumerate(self._new(row))}

    def image(self, values: Sequence[Any], rows: Sequence[_Row] | None) -> list[Any]:
        """Give the values with which an image is recorded; see :class:`Image`.

        Args:
            values: those that were read.
            rows: the row as it is now; nothing if there is none.
        """
        bare = [None if column.protected else value for column, value in zip(self.audited.columns, values, strict=True)]
        if not rows or rows[0].old is None:
            return [*bare, *(None for _column in self._protected)]
        row, old = rows[0], rows[0].old
        for column, place in self._protected.items():
            if old[column] != row.now[column]:
                bare[place] = json.dumps(self._form(column, row.label, old))
        return [*bare, *self._new(row)]

    def _new(self, row: _Row) -> list[str | None]:
        return [self._form(column, row.label, row.now) for column in self._protected]

    def _form(self, column: RecordedColumn, label: str, state: State) -> str | None:
        text = state[column]
        if text is None:
            return None
        if column.digested:
            return keyed_digest(self._digest_key, text)
        key = self._keys[self._person(column, state)]
        return encrypted(key, Place(self.audited.table.fullname, column.name, label), text)

    def _person(self, column: RecordedColumn, state: State) -> str:
        subject = self._subjects[column]
        return named_person(column, subject, state[subject])


def named_person(column: RecordedColumn, subject: RecordedColumn, person: str | None) -> str:
    """Give whose value one of an encrypted column is.

    Raises:
        UnauditedWrite: if nobody is named, or by too many characters.
    """
    if person is None:
        raise UnauditedWrite(
            f"a value of {column.source} can't be recorded, since {subject.source}, which says whose it is, is "
            "NULL: set it, or leave the value out"
        )
    if len(person) > MAX_SUBJECT:
        raise UnauditedWrite(
            f"a value of {column.source} can't be recorded, since {subject.source}, which says whose it is, has "
            f"{len(person)} characters: at most {MAX_SUBJECT} name a person"
        )
    return person
