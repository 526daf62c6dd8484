"""Whether a change says that before it was what was recorded before it: one SELECT, compared by the database.

One class for each database, chosen by name; values are compared in the text that the recording makes of them.
Imports ddl and model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from sqlalchemy.engine import Dialect

from ..ddl.backend import backend_for
from ..ddl.mysql import MariaDB
from ..ddl.postgresql import PostgreSQL
from ..ddl.sqlite_types import json_form
from ..model.audited import AuditedTable, RecordedColumn

ORDER, VALUES = "order", "values"

DIGEST_KEY, DIGEST = len("hmac-sha256:") + 8, len("hmac-sha256:") + 8 + 1 + 64
ENCRYPTED_KEY, ENCRYPTED_TAG = len("aes-256-gcm:") + 32, len("aes-256-gcm:") + 32 + 1 + 32
"""How many characters of a protected form name its key, and how many tell values under that key apart."""


class ContinuityDatabase(ABC):
    """One database's comparison of a history row ``h`` with the one before it of the same key, ``p``."""

    def __init__(self, dialect: Dialect) -> None:
        self.spelling = backend_for(dialect)

    @abstractmethod
    def before_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Give SQL that is true where the member of ``h.audit_before`` is there, and is not the value of ``p``."""

    @abstractmethod
    def value_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Give SQL that is true where the values of ``h`` and ``p`` differ."""

    def exactly(self, column: str) -> str:
        """Give SQL that tells values of a key apart which the database's collation holds equal."""
        return column

    def path(self, column: RecordedColumn) -> str:
        """Give the JSON path of a column's member, as a SQL literal."""
        return "'$.\"" + column.name.replace("'", "''") + "\"'"

    def statement(self, audited: AuditedTable, history: str, account: str) -> str:
        """Give the SELECT of the rows that don't continue the one before: their id, that one's, and what is wrong.

        Args:
            audited: the table; one without primary key can't be compared, since its rows can't be told apart.
            history: the quoted name of its history.
            account: the quoted name of ``audit_column``.
        """
        quote = self.spelling.quote
        key = ", ".join(self.exactly(f"k.{quote(column.name)}") for column in audited.key)
        columns = [column for column in audited.recorded if '"' not in column.name and "\\" not in column.name]
        own = {column.name for column in audited.key}
        changed = [
            f"({self._before_differs(audited, column)} AND {self._known(column, audited, account)})"
            for column in columns
            if column.name not in own
        ]
        deleted = [
            f"({self._value_differs(audited, column)} AND {self._known(column, audited, account)})"
            for column in columns
            if column.name not in own
        ]
        values = (
            f"(h.audit_op = 'U' AND ({' OR '.join(changed) or '1 = 0'}))"
            f" OR (h.audit_op = 'D' AND ({' OR '.join(deleted) or '1 = 0'}))"
        )
        order = "(p.audit_op = 'D' AND h.audit_op IN ('U', 'D')) OR (p.audit_op <> 'D' AND h.audit_op = 'I')"
        emptied = (
            f"SELECT 1 FROM {history} AS t WHERE t.audit_op = 'T'"
            " AND t.audit_id > p.audit_id AND t.audit_id < h.audit_id"
        )
        return (
            f"SELECT h.audit_id, p.audit_id, CASE WHEN {order} THEN '{ORDER}' ELSE '{VALUES}' END"
            f" FROM (SELECT k.audit_id, lag(k.audit_id) OVER (PARTITION BY {key} ORDER BY k.audit_id) AS previous"
            f" FROM {history} AS k WHERE k.audit_op <> 'T') AS o"
            f" JOIN {history} AS h ON h.audit_id = o.audit_id JOIN {history} AS p ON p.audit_id = o.previous"
            f" WHERE h.audit_op IN ('I', 'U', 'D') AND ({order} OR (p.audit_op <> 'D' AND ({values})))"
            f" AND NOT EXISTS ({emptied}) ORDER BY h.audit_id LIMIT :limit"
        )

    def _before_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        if not column.formed:
            return self.before_differs(audited, column)
        there, before = self.member(column)
        return f"({there} AND {self._forms_differ(column, before)})"

    def _value_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        if not column.formed:
            return self.value_differs(audited, column)
        return self._forms_differ(column, f"h.{self.spelling.quote(column.name)}")

    def _forms_differ(self, column: RecordedColumn, value: str) -> str:
        """Compare forms made under one key; those under two keys can't be compared, nor what was recorded before."""
        key, whole = (ENCRYPTED_KEY, ENCRYPTED_TAG) if column.encrypted else (DIGEST_KEY, DIGEST)
        other = f"p.{self.spelling.quote(column.name)}"
        keys, wholes = ([f"substr({text}, 1, {length})" for text in (value, other)] for length in (key, whole))
        return f"(({value} IS NULL) <> ({other} IS NULL) OR ({keys[0]} = {keys[1]} AND {wholes[0]} <> {wholes[1]}))"

    @abstractmethod
    def member(self, column: RecordedColumn) -> tuple[str, str]:
        """Give SQL that is true where the member of ``h.audit_before`` is there, and its text."""

    def _known(self, column: RecordedColumn, audited: AuditedTable, account: str) -> str:
        """Give SQL that is true where the column was recorded under its name when ``p`` was."""
        table, name = (text.replace("'", "''").replace(":", "\\:") for text in (audited.table.fullname, column.name))
        since = f"SELECT max(a.recorded_at) FROM {account} AS a WHERE a.table_name = '{table}' AND a.name = '{name}'"
        return f"p.audit_at >= ({since})"

    def exact_number(self, column: RecordedColumn) -> bool:
        """Tell whether a column holds exact numbers, whose text changes when their scale is widened."""
        type_ = self.spelling.database_type(column.source.type)
        return type_.__visit_name__.lower() in ("numeric", "decimal")

    def _image(self, audited: AuditedTable, column: RecordedColumn, alias: str) -> str:
        staged = self.spelling
        if not isinstance(staged, (PostgreSQL, MariaDB)):
            return json_form(f"{alias}.{self.spelling.quote(column.name)}")
        images = staged.staged_columns(audited, alias)
        return images[audited.columns.index(column)]


class PostgreSQLContinuity(ContinuityDatabase):
    """PostgreSQL."""

    def member(self, column: RecordedColumn) -> tuple[str, str]:
        """Look into the JSON."""
        name = "'" + column.name.replace("'", "''").replace(":", "\\:") + "'"
        return f"h.audit_before -> {name} IS NOT NULL", f"(h.audit_before ->> {name})"

    def before_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare texts, bytewise."""
        name = "'" + column.name.replace("'", "''").replace(":", "\\:") + "'"
        if self.exact_number(column):
            value = f"p.{self.spelling.quote(column.name)}"
            return (
                f"(h.audit_before -> {name} IS NOT NULL"
                f" AND CAST(h.audit_before ->> {name} AS numeric) IS DISTINCT FROM CAST({value} AS numeric))"
            )
        image = self._image(audited, column, "p")
        return (
            f"(h.audit_before -> {name} IS NOT NULL"
            f' AND (h.audit_before ->> {name}) COLLATE "C" IS DISTINCT FROM ({image}) COLLATE "C")'
        )

    def value_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare texts, bytewise."""
        before, after = (self._image(audited, column, alias) for alias in ("p", "h"))
        return f'(({before}) COLLATE "C" IS DISTINCT FROM ({after}) COLLATE "C")'


class MariaDBContinuity(ContinuityDatabase):
    """MariaDB."""

    def member(self, column: RecordedColumn) -> tuple[str, str]:
        """Look into the JSON."""
        path = self.path(column).replace(":", "\\:")
        return f"JSON_EXISTS(h.audit_before, {path})", f"JSON_VALUE(h.audit_before, {path})"

    def exactly(self, column: str) -> str:
        """Compare bytes."""
        return f"BINARY {column}"

    def before_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare bytes."""
        path = self.path(column).replace(":", "\\:")
        if self.exact_number(column):
            old, value = (
                f"CAST({text} AS DECIMAL(65, 30))"
                for text in (f"JSON_VALUE(h.audit_before, {path})", f"p.{self.spelling.quote(column.name)}")
            )
            return f"(JSON_EXISTS(h.audit_before, {path}) AND NOT ({old} <=> {value}))"
        image = self._image(audited, column, "p")
        return (
            f"(JSON_EXISTS(h.audit_before, {path})"
            f" AND NOT (BINARY JSON_VALUE(h.audit_before, {path}) <=> BINARY {image}))"
        )

    def value_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare bytes."""
        before, after = (self._image(audited, column, alias) for alias in ("p", "h"))
        return f"(NOT (BINARY {before} <=> BINARY {after}))"


class SQLiteContinuity(ContinuityDatabase):
    """SQLite."""

    def member(self, column: RecordedColumn) -> tuple[str, str]:
        """Look into the JSON."""
        path = self.path(column).replace(":", "\\:")
        return f"json_type(h.audit_before, {path}) IS NOT NULL", f"json_extract(h.audit_before, {path})"

    def before_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare the JSON of the stored value."""
        path = self.path(column).replace(":", "\\:")
        image = self._image(audited, column, "p")
        return (
            f"(json_type(h.audit_before, {path}) IS NOT NULL"
            f" AND json_extract(h.audit_before, {path}, {path}) <> '[' || {image} || ',' || {image} || ']')"
        )

    def value_differs(self, audited: AuditedTable, column: RecordedColumn) -> str:
        """Compare values and storage classes."""
        before, after = (f"{alias}.{self.spelling.quote(column.name)}" for alias in ("p", "h"))
        return f"({before} IS NOT {after} OR typeof({before}) <> typeof({after}))"


def continuity_for(dialect: Dialect) -> ContinuityDatabase:
    """Give the class for a dialect that the library knows."""
    known: dict[str, type[ContinuityDatabase]] = {
        "postgresql": PostgreSQLContinuity,
        "mysql": MariaDBContinuity,
        "mariadb": MariaDBContinuity,
        "sqlite": SQLiteContinuity,
    }
    return known[dialect.name](dialect)
