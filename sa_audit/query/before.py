"""How recorded values come back from each database: rows as they are, before-values from ``audit_before``.

One :class:`Reader` for each database; nothing else in this package asks which database it is.  Before-values are
decoded in SQL on PostgreSQL, where every text can be cast to its column's type, and in Python elsewhere: to what the
driver would have given, and then through the column type's own result processor.
Imports model, ddl, errors, and of query the names, the formers and the texts of MariaDB.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from ..ddl.backend import backend_for
from ..errors import IntegrityFinding, NotAudited
from ..model import AuditedTable, Masked, RecordedColumn
from .formers import column_of, recorded_in
from .mariadb_text import Decoder, mariadb_decoder, unchanged
from .names import ColumnNames, Former, Span


class Reader(ABC):
    """One database's way to read history rows."""

    one_sequence: ClassVar[bool] = True
    missing_table: ClassVar[frozenset[Any]]

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @abstractmethod
    def document(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Give the expression that reads ``audit_before`` as JSON text."""

    def extra_columns(self, audited: AuditedTable, names: ColumnNames) -> dict[str, sa.ColumnElement[Any]]:
        """Give what has to be selected beside the document to decode it, by the name of the column with the values."""
        return {}

    def decoders(self, audited: AuditedTable, names: ColumnNames) -> dict[str, Decoder]:
        """Give what turns a member of the document into its value, by the name of the column that keeps its values."""
        types = {column.name: column.shown_type for column in audited.recorded}
        types |= {former.name: former.type for formers in names.formers.values() for former in formers}
        return {name: self.decoder(type_) for name, type_ in types.items()}

    @abstractmethod
    def decoder(self, type_: TypeEngine[Any]) -> Decoder:
        """Give what turns a member of the document into a value of a type."""

    def before(
        self,
        audited: AuditedTable,
        decoders: dict[str, Decoder],
        members: dict[str, Any],
        extras: Mapping[str, Any],
        kept: Mapping[str, str],
    ) -> dict[str, Any]:
        """Give the before-values of the columns that changed, by the name that the column has now.

        Args:
            audited: the table.
            decoders: what :meth:`decoders` gave.
            members: the document's members, by the column's present name.
            extras: the values of :meth:`extra_columns`, by the name of the column that keeps its values.
            kept: for each column that had other types, the name of the one that the row was recorded in.

        Raises:
            IntegrityFinding: if the document is not one that the library writes.
        """
        found: dict[str, Any] = {}
        for name, value in members.items():
            if value is None or value is True:
                found[name] = Masked if value else None
                continue
            keeper = kept.get(name, name)
            try:
                cast = extras.get(keeper, value)
                found[name] = self._member(decoders.get(keeper, unchanged), cast, value, retyped=name in kept)
            except (ValueError, TypeError, ArithmeticError, LookupError) as error:
                if name not in kept:
                    raise IntegrityFinding(
                        f"the before-value {value!r} of {audited.history.fullname}.{name} is not one of its column's "
                        "type"
                    ) from error
                found[name] = value  # it may have been of the other type: then it is given as it was recorded
        return found

    def _member(self, decoder: Decoder, cast: Any, value: Any, *, retyped: bool) -> Any:
        """Give the value of a member: decoded here, or as the database has cast it."""
        return decoder(value)

    def decoded(self, type_: TypeEngine[Any], text: str) -> Any:
        """Give the value of the text that the database makes of one: of text, a whole number or a date."""
        plain: Any = type_._unwrapped_dialect_impl(self.dialect)
        value: Any = text
        if isinstance(plain, sa.Integer):
            value = int(text)
        elif isinstance(plain, sa.Date):
            value = self.driver_date(text)
        return self.processor(type_)(value)

    def driver_date(self, text: str) -> Any:
        """Give a date as the driver gives it."""
        return dt.date.fromisoformat(text)

    @abstractmethod
    def differs(self, recorded: sa.ColumnElement[Any], present: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Give the bytewise comparison of a recorded and a present value: true where they differ."""

    def same_key(
        self, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any], *, nullable: bool
    ) -> sa.ColumnElement[bool]:
        """Give the comparison of two key columns."""
        return left.is_not_distinct_from(right) if nullable else left == right

    def current(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Give a statement that sees what is committed now, within a transaction whose snapshot may be older."""
        return backend_for(self.dialect).current(statement)

    def column_names(self, connection: Connection, schema: str | None) -> list[tuple[str, str]]:
        """Give (table, column) for all tables of a schema, None for the default one, by one statement."""
        rows = connection.execute(sa.text(self.column_names_sql), {"schema": schema})
        return [(row[0], row[1]) for row in rows]

    column_names_sql: ClassVar[str]

    @abstractmethod
    def error_code(self, error: BaseException | None) -> Any:
        """Give what tells a missing table or column from other errors of the driver."""

    def misses_table(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether a statement failed because a table or column is not there."""
        return self.error_code(error.orig) in self.missing_table

    def processor(self, type_: TypeEngine[Any]) -> Decoder:
        """Give a type's own way from the driver's value to Python's."""
        process = type_.dialect_impl(self.dialect).result_processor(self.dialect, None)
        return process if process is not None else unchanged


class PostgreSQLReader(Reader):
    """PostgreSQL: before-values are cast by the database, so that the driver and the type see what they always see."""

    missing_table = frozenset({"42P01", "42703", "3F000"})
    column_names_sql = (
        "SELECT c.relname, a.attname FROM pg_catalog.pg_class AS c "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
        "JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE n.nspname = coalesce(CAST(:schema AS text), current_schema()) AND c.relkind IN ('r', 'p')"
    )

    def document(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read the document as text, whatever the driver does with JSON."""
        return sa.cast(column, sa.Text)

    def extra_columns(self, audited: AuditedTable, names: ColumnNames) -> dict[str, sa.ColumnElement[Any]]:
        """Give each before-value, cast to its column's type."""
        extras = {}
        for column in audited.recorded:
            spans, formers = names.of(column.name), names.formers.get(column.name, ())
            cast = self._cast(audited, column, spans)
            extras[column.name] = self._in_its_type(audited, column, formers, None, cast)
            for former in formers:
                cast = self._cast_former(audited, former, spans)
                extras[former.name] = self._in_its_type(audited, column, formers, former, cast)
        return extras

    def _cast(self, audited: AuditedTable, column: RecordedColumn, spans: Sequence[Span]) -> sa.ColumnElement[Any]:
        if column.recorded is None:
            raise NotAudited(f"the values of column {column.source} are not recorded")
        return sa.type_coerce(sa.cast(_text(audited.history, spans), column.recorded.type), column.shown_type)

    def _cast_former(self, audited: AuditedTable, former: Former, spans: Sequence[Span]) -> sa.ColumnElement[Any]:
        """Cast to a type that the column had; where the row's value doesn't tell that it was that one, only if it can.

        PostgreSQL asks by itself only from version 16 on; before, such a value is given as it was recorded.
        """
        text, column = _text(audited.history, spans), column_of(former)
        cast = sa.cast(text, former.type)
        if (self.dialect.server_version_info or ()) < (16,):
            return sa.case((column.is_not(None), cast))
        type_ = sa.literal(former.type.compile(self.dialect), sa.Text())
        fits = sa.func.pg_input_is_valid(text, type_, type_=sa.Boolean())
        return sa.case((column.is_not(None), cast), (fits, cast))

    def _in_its_type(
        self,
        audited: AuditedTable,
        column: RecordedColumn,
        formers: Sequence[Former],
        former: Former | None,
        cast: sa.ColumnElement[Any],
    ) -> sa.ColumnElement[Any]:
        """Let a cast be made only in rows that were recorded in that type."""
        if not formers:
            return cast
        history = audited.history
        recorded = recorded_in(history.c[column.source.key], formers, history.c.audit_at, former)
        return sa.type_coerce(sa.case((recorded, cast)), cast.type)

    def decoder(self, type_: TypeEngine[Any]) -> Decoder:
        """Give nothing: the database decodes."""
        return unchanged

    def _member(self, decoder: Decoder, cast: Any, value: Any, *, retyped: bool) -> Any:
        """Take the value that the database has cast, or the member where it is not of the type that it was cast to."""
        return value if cast is None and retyped else cast

    def differs(self, recorded: sa.ColumnElement[Any], present: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Compare as text, bytewise: 1.0 and 1.00 differ, and ``json`` has no equality of its own."""
        left, right = (sa.cast(column, sa.Text).collate("C") for column in (recorded, present))
        return left.is_distinct_from(right)

    def same_key(
        self, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any], *, nullable: bool
    ) -> sa.ColumnElement[bool]:
        """Compare an enum of the live table, which has no operator with the history's text, as text."""
        if isinstance(right.type, sa.Enum):
            right = sa.cast(right, sa.Text)
        return super().same_key(left, right, nullable=nullable)

    def error_code(self, error: BaseException | None) -> Any:
        """Give the SQLSTATE."""
        return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


class SQLiteReader(Reader):
    """SQLite: members are stored values: JSON numbers, text, arrays of one hex string (blob) or two integers (real)."""

    one_sequence = False
    missing_table = frozenset({"no such table", "no such column"})

    def driver_date(self, text: str) -> Any:
        """Take the text that is stored."""
        return text

    def column_names(self, connection: Connection, schema: str | None) -> list[tuple[str, str]]:
        """Ask the catalog of one file; see :meth:`Reader.column_names`."""
        file = self.dialect.identifier_preparer.quote_identifier(schema or "main").replace(":", "\\:")
        sql = (
            f"SELECT m.name, p.name FROM {file}.sqlite_master AS m "
            "JOIN pragma_table_info(m.name, :schema) AS p WHERE m.type = 'table'"
        )
        return [(row[0], row[1]) for row in connection.execute(sa.text(sql), {"schema": schema or "main"})]

    def document(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read the text as it is stored."""
        return sa.type_coerce(column, sa.Text)

    def decoder(self, type_: TypeEngine[Any]) -> Decoder:
        """Take the stored value through the type."""
        return _after(_stored, self.processor(type_))

    def differs(self, recorded: sa.ColumnElement[Any], present: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Compare values and storage classes, under no collation but BINARY."""
        left, right = (sa.type_coerce(column, sa.Text) for column in (recorded, present))
        return sa.or_(left.is_distinct_from(right.collate("BINARY")), sa.func.typeof(left) != sa.func.typeof(right))

    def error_code(self, error: BaseException | None) -> Any:
        """Give the start of the message, SQLite's only word on it."""
        return str(error).partition(":")[0]


class MariaDBReader(Reader):
    """MariaDB: members are text, as ``CAST(... AS CHAR)`` gives it; upper-case hex for binary types."""

    missing_table = frozenset({1146, 1054, 1049})
    column_names_sql = (
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = coalesce(:schema, DATABASE())"
    )

    def document(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read the text as it is stored."""
        return sa.type_coerce(column, sa.Text)

    def decoder(self, type_: TypeEngine[Any]) -> Decoder:
        """Take the text to what the driver would have given, and that through the type."""
        return _after(mariadb_decoder(type_._unwrapped_dialect_impl(self.dialect)), self.processor(type_))

    def differs(self, recorded: sa.ColumnElement[Any], present: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Compare as bytes, and floats as numbers too, since their text is rounded."""
        if isinstance(present.type._unwrapped_dialect_impl(self.dialect), sa.Float):
            zero: sa.ColumnElement[Any] = sa.literal_column("0e0")
            recorded_double, present_double = recorded + zero, present + zero
            return _binary(recorded_double).is_distinct_from(_binary(present_double))
        return _binary(recorded).is_distinct_from(_binary(present))

    def error_code(self, error: BaseException | None) -> Any:
        """Give the server's error number."""
        return error.args[0] if error is not None and error.args else None


def _text(history: sa.Table, spans: Sequence[Span]) -> sa.ColumnElement[Any]:
    """Give the text of a column's member of PostgreSQL's document, whatever the column was called."""
    members = [_member_text(history, span) for span in spans]
    return members[0] if len(members) == 1 else sa.func.coalesce(*members)


def _member_text(history: sa.Table, span: Span) -> sa.ColumnElement[Any]:
    """Give the text of a member of PostgreSQL's document, in the rows of the time when the column was called so.

    A member that is no string stands for NULL or for a masked value, which is nothing of any type.
    """
    name = sa.literal(span.name, sa.Text())
    member = history.c.audit_before.op("->>", return_type=sa.Text())(name)
    kind = sa.func.json_typeof(history.c.audit_before.op("->", return_type=sa.JSON())(name), type_=sa.Text())
    bounds = [kind == sa.literal_column("'string'")]
    bounds += [] if span.since is None else [history.c.audit_at >= span.since]
    bounds += [] if span.until is None else [history.c.audit_at < span.until]
    return sa.case((sa.and_(*bounds), member))


def reader_for(connection: Connection) -> Reader:
    """Give the reader of a connection's database.

    Raises:
        NotAudited: for a database that the library does not know.
    """
    return reader_of(connection.dialect)


def reader_of(dialect: Dialect) -> Reader:
    """Give the reader of a dialect; raises as :func:`reader_for` does."""
    known: dict[str, type[PostgreSQLReader] | type[SQLiteReader] | type[MariaDBReader]] = {
        "postgresql": PostgreSQLReader,
        "sqlite": SQLiteReader,
        "mysql": MariaDBReader,
        "mariadb": MariaDBReader,
    }
    reader = known.get(dialect.name)
    if reader is None:
        raise NotAudited(f"the database {dialect.name!r} holds no trail: ask one on PostgreSQL, MariaDB or SQLite")
    return reader(dialect)


def members_of(text: str | None, audited: AuditedTable) -> dict[str, Any]:
    """Read a document of ``audit_before``.

    Args:
        text: the JSON text, or None for a row without one.
        audited: the table, for the message.

    Raises:
        IntegrityFinding: if it is not a JSON object.
    """
    if text is None:
        return {}
    try:
        members = json.loads(text)
    except ValueError as error:
        raise IntegrityFinding(f"audit_before of {audited.history.fullname} is not JSON: {text[:80]!r}") from error
    if not isinstance(members, dict):
        raise IntegrityFinding(f"audit_before of {audited.history.fullname} is not a JSON object: {text[:80]!r}")
    return members


def _stored(value: Any) -> Any:
    """Read a blob, ``["hex"]``, or a real too far from 1 for SQLite to print, ``[mantissa, exponent]``."""
    if isinstance(value, list):
        return math.ldexp(*value) if len(value) == 2 else bytes.fromhex(value[0])
    return value


def _after(first: Decoder, second: Decoder) -> Decoder:
    return lambda value: second(first(value))


def _binary(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(column, sa.BINARY)
