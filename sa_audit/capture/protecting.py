"""Values that the history holds in another form, made in Python: the database never has a key.

Before rows are recorded, the values of such columns are read as they are stored, locked, and what the history shall
hold of them goes back with the statement that writes it, as one document by the rows' labels.  No value goes along.
Imports model, ddl, privacy, errors, and of capture the keys of persons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection

from ..ddl.backend import Backend, Batch, Image, Key, Target
from ..errors import UnauditedWrite
from ..model import AuditedTable, RecordedColumn
from ..model.records import MAX_SUBJECT
from ..privacy import keyed_digest, keys_of
from ..privacy.encryption import PersonKey, Place, encrypted
from .person_keys import Entries, PersonKeys

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


def protect(connection: Connection, backend: Backend, target: Target, batch: Batch, entries: Entries) -> Batch:
    """Give a batch with the document of what the history shall hold, and with images that hold nothing else.

    Args:
        connection: the connection.
        backend: the database.
        target: the table.
        batch: what is to be recorded.
        entries: gives the entry under which a person's key is recorded, if one is to be made.
    """
    audited = target.audited
    if not audited.protected:
        return batch
    old = {image.key: backend.image_values(image) for image in batch.images}
    keys = list(dict.fromkeys((*batch.inserted, *batch.deleted, *old)))
    rows = [
        _Row(label, _state(audited, backend, values), _old(audited, backend, old.get(key)))
        for key, label, values in backend.read_protected(connection, target, keys)
    ]
    images = [Image(image.key, backend.image_of(_bare(audited, old[image.key]))) for image in batch.images]
    return Batch(batch.inserted, images, batch.deleted, _document(connection, target, rows, entries))


def protected_rows(
    connection: Connection, backend: Backend, target: Target, keys: Sequence[Key], entries: Entries
) -> str:
    """Give the document for rows that are recorded as they stand."""
    protected = protect(connection, backend, target, Batch(inserted=keys), entries).protected
    return protected if protected is not None else "{}"


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


def _document(connection: Connection, target: Target, rows: Sequence[_Row], entries: Entries) -> str:
    forms = _Forms(connection, target, rows, entries)
    return json.dumps({row.label: forms.members(row) for row in rows})


class _Forms:
    """What the history holds of the values of some rows."""

    def __init__(self, connection: Connection, target: Target, rows: Sequence[_Row], entries: Entries) -> None:
        self.audited = target.audited
        digests = any(column.digested for column in self.audited.protected)
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
            self._keys = keys.of(list(persons), entries) if persons else {}

    def members(self, row: _Row) -> dict[str, str | None]:
        """Give for the column at each place its new form, ``n``, and, where it changed, the old one as JSON, ``b``."""
        members: dict[str, str | None] = {}
        for place, column in enumerate(self.audited.protected):
            members[f"n{place}"] = self._form(column, row.label, row.now)
            if row.old is not None and row.old[column] != row.now[column]:
                members[f"b{place}"] = json.dumps(self._form(column, row.label, row.old))
        return members

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


def _bare(audited: AuditedTable, values: Sequence[Any]) -> list[Any]:
    return [None if column.protected else value for column, value in zip(audited.columns, values, strict=True)]
