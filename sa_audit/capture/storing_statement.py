"""One statement whose values are to be encrypted: what it sets, whose that is, and where the forms go in it.

Imports model, ddl, privacy, errors, and of capture the persons' keys, the recording, the statement and the upserts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import Insert

from ..errors import UnauditedWrite
from ..model.history import RecordedColumn
from ..model.policy import Encrypted, Marker
from ..model.stored import StoredEncrypted, person_text
from ..privacy.encryption import PersonKey, stored_form
from . import statement as dml
from .person_keys import PersonKeys
from .protecting import named_person
from .recording import entries_of
from .upserts import key_of

MISSING: Final = object()
Row = dict[str, Any]


class Writing:
    """A statement whose values are to be encrypted."""

    def __init__(self, job: dml.Statement, columns: Sequence[RecordedColumn]) -> None:
        self.job = job
        self.audited = job.audited
        self.columns = list(columns)
        self.subjects = {column: job.audited.subject_of(column) for column in columns}
        self.dialect = job.connection.dialect
        self.mapper = job.element._propagate_attrs.get("plugin_subject")
        self.sets = {self.key_of(name): value for name, value in set_pairs(job.element)}

    @property
    def label(self) -> str:
        """What the statement is, for messages."""
        return f"{self.job.element.__visit_name__} on {self.audited.table.fullname}"

    def key_of(self, name: Any) -> str:
        """Give the key of the column that a name means."""
        return key_of(name, self.audited.table, self.mapper)

    def value(self, column: RecordedColumn, row: Row) -> Any:
        """Give what a column is set to in one execution.

        Raises:
            UnauditedWrite: for a SQL expression, whose value is not known.
        """
        key = column.source.key
        if key in row and not self.binds(key):
            return row[key]
        if key not in self.sets:
            return MISSING
        value = self.sets[key]
        if hasattr(value, "__clause_element__"):
            value = value.__clause_element__()
        if isinstance(value, sa.sql.elements.Null):
            return None
        if isinstance(value, sa.BindParameter):
            return row.get(value.key, value.effective_value)
        if isinstance(value, sa.ClauseElement):
            raise UnauditedWrite(
                f"{self.label} sets {column.name!r} to a SQL expression, and what is not known before it is written "
                "can't be encrypted: select the value first"
            )
        return value

    def binds(self, name: str) -> bool:
        """Tell whether a parameter's name is that of a parameter of the criteria, and not of a column."""
        if isinstance(self.job.element, Insert):
            return False
        return any(
            isinstance(each, sa.BindParameter) and each.key == name and not each.unique
            for criterion in self.job.element._where_criteria
            for each in visitors.iterate(criterion)
        )

    def person(self, column: RecordedColumn, value: Any) -> str:
        """Give the name of the person whom a column names."""
        subject = self.subjects[column]
        told = None if value is None else person_text(subject.source, value, self.dialect)
        return named_person(column, subject, told)

    def text(self, column: RecordedColumn, value: Any) -> str | None:
        """Give the text of a value.

        Raises:
            UnauditedWrite: for one that can't be encrypted.
        """
        if value is None:
            return None
        if isinstance(value, Encrypted | Marker):
            raise UnauditedWrite(
                f"{self.label} sets {column.name!r} to {value if isinstance(value, Marker) else 'ciphertext'}: "
                "give the value itself"
            )
        return cast(StoredEncrypted, column.source.type).text_of(value, self.dialect)

    def keys(self, persons: Iterable[str]) -> dict[str, PersonKey]:
        """Give the keys of persons."""
        wanted = list(dict.fromkeys(persons))
        if not wanted:
            return {}
        job = self.job
        found = PersonKeys(job.connection, job.target.trail, job.target.schemas)
        return found.of(wanted, entries_of(job.connection, job.recording, job.target))

    def encrypt(self, wanted: Sequence[tuple[RecordedColumn, str | None, str | None]]) -> list[Encrypted | None]:
        """Encrypt texts, each of a column and a person."""
        keys = self.keys(person for _column, person, text in wanted if text is not None and person is not None)
        return [
            None if text is None or person is None else stored_form(keys[person], self.audited, column, text)
            for column, person, text in wanted
        ]

    def place(self, forms: Sequence[Mapping[RecordedColumn, Any]]) -> None:
        """Put forms in the place of values: one mapping for each execution."""
        rows = [dict(row) for row in self.job.rows]
        inside: dict[str, Any] = {}
        gone = set()
        for column in dict.fromkeys(column for made in forms for column in made):
            key, name = str(column.source.key), self._parameter(column)
            if len(rows) < 2 and name == key and not (rows and (key in rows[0] or key not in self.sets)):
                inside[key] = forms[0][column]
                continue
            if name == key:
                gone.add(key)
            for row, made in zip(rows, forms, strict=True):
                if column in made:  # else SQLAlchemy says that a row lacks it
                    row[name] = made[column]
        self.job.rows = rows
        if inside or gone & self.sets.keys():
            self.job.element = self._setting(inside, gone)

    def _setting(self, inside: Mapping[str, Any], gone: set[str]) -> Any:
        """Give the statement with forms in it, and without what its parameters set now."""
        element, columns = self.job.element, self.audited.table.c
        made = element._generate()
        bound = {key: sa.bindparam(None, value, type_=columns[key].type, unique=True) for key, value in inside.items()}
        pairs = [
            (name, bound.pop(key, value))
            for name, value in set_pairs(element)
            if (key := self.key_of(name)) not in gone
        ]
        pairs += [(columns[key], value) for key, value in bound.items()]
        if getattr(element, "_ordered_values", None):
            made._ordered_values = pairs
        else:
            made._values = sa.util.immutabledict(pairs)
        return made

    def _parameter(self, column: RecordedColumn) -> str:
        """Give the name of the parameter by which a column is set: its own, or that of the statement's."""
        value = self.sets.get(column.source.key)
        rows = self.job.rows
        if not isinstance(value, sa.BindParameter) or not rows or value.key not in rows[0]:
            return str(column.source.key)
        binds = (each for each in visitors.iterate(self.job.element) if isinstance(each, sa.BindParameter))
        if sum(1 for each in binds if each.key == value.key) > 1:
            raise UnauditedWrite(
                f"{self.label} uses the parameter {value.key!r} for {column.name!r} and for something else, and for "
                "the column it is encrypted: give it another name there"
            )
        return str(value.key)


def set_pairs(element: Any) -> list[tuple[Any, Any]]:
    """Give what a statement sets by itself, besides its parameters: names with values."""
    pairs = list((element._values or {}).items())
    return [*pairs, *(getattr(element, "_ordered_values", None) or ())]
