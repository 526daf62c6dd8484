"""Core and ORM-enabled INSERT, UPDATE and DELETE: what they change is read before and recorded after.

Every variant of DML that SQLAlchemy composes arrives here, from ``before_execute``.  A statement changes exactly
the rows that were locked and read: its criteria are narrowed to their keys.  What can't be recorded is refused
before it runs.  Imports model, ddl, and the rest of capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import bulk_persistence
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase

from ..ddl.backend import INTERNAL, Batch, Image, Key, Target
from ..errors import UnauditedWrite
from ..model.history import AuditedTable
from . import bulk, foreign_keys
from .keys import keys_by_equality
from .recording import Recording, admit, lock_writer, read_images, target_of, write

SMALL: Final = 1000
_BULK: Any = getattr(bulk_persistence, "_BulkUDCompileState", None) or bulk_persistence.BulkUDCompileState


@dataclass(slots=True)
class Statement:
    """A DML statement under way: what to execute in its place, and what to do after it."""

    connection: Connection
    recording: Recording
    target: Target
    element: Any
    rows: list[dict[str, Any]]
    options: Any
    flush: int
    after: Callable[[Any], None] | None = None
    reached: list[foreign_keys.Reached] = field(default_factory=list)

    @property
    def audited(self) -> AuditedTable:
        """The audited table."""
        return self.target.audited

    @property
    def many(self) -> bool:
        """Whether the statement runs once for each of several rows of parameters."""
        return len(self.rows) > 1

    def write(self, **batch: Sequence[Any]) -> int:
        """Record a batch under this statement's number."""
        return write(self.connection, self.recording, self.target, Batch(**batch), self.flush)


def begin(
    connection: Connection, audited: AuditedTable, element: Any, rows: list[dict[str, Any]], options: Any
) -> Statement:
    """Admit a statement and give its state."""
    recording = admit(connection, audited)
    return Statement(
        connection, recording, target_of(audited, options), element, rows, options, recording.next_flush()
    )


def refuse_unrecordable(element: UpdateBase, audited: AuditedTable) -> None:
    """Refuse forms of a statement whose changes can't be known.

    Raises:
        UnauditedWrite: naming the form and the way out.
    """
    name = audited.table.fullname
    if element._prefixes:
        words = " ".join(str(prefix[0]) for prefix in element._prefixes)
        raise UnauditedWrite(
            f"{type(element).__name__.lower()} on {name} with the prefix {words!r} can't be recorded: "
            "use on_conflict_do_nothing(), on_conflict_do_update() or on_duplicate_key_update()"
        )
    if isinstance(element, Update | Delete):
        limit = element.kwargs.get("mysql_limit", element.kwargs.get("mariadb_limit"))
        if limit is not None:
            raise UnauditedWrite(
                f"{type(element).__name__.lower()} on {name} with LIMIT can't be recorded, since which rows it takes "
                "is not known: select the keys first"
            )
    for inner in nested_dml(element):
        raise UnauditedWrite(
            f"{type(inner).__name__.lower()} inside another statement on {name} can't be recorded: "
            "execute it as a statement of its own"
        )


def nested_dml(element: Any) -> list[UpdateBase]:
    """Give the INSERTs, UPDATEs and DELETEs inside a statement, such as those in its CTEs."""
    found = [
        inner
        for inner in visitors.iterate(element)
        if inner is not element and isinstance(inner, UpdateBase)
    ]
    for cte in getattr(element, "_independent_ctes", ()):
        found += [inner for inner in visitors.iterate(cte.element) if isinstance(inner, UpdateBase)]
        if isinstance(cte.element, UpdateBase) and cte.element not in found:
            found.append(cte.element)
    return found


# -- update and delete ------------------------------------------------------------


def before_update(statement: Statement) -> None:
    """Read what an UPDATE will change, and narrow it to that."""
    element: Update = statement.element
    refuse_unrecordable(element, statement.audited)
    _refuse_other_tables(statement)
    if statement.many:
        _before_many_updates(statement)
        return
    lock_writer(statement.connection, statement.recording, statement.target)
    moved = changed_key_columns(statement)
    if moved:
        _before_move(statement, moved)
        return
    criteria = effective_criteria(element)
    images = read_where(statement, criteria, limit=SMALL + 1)
    if len(images) > SMALL:
        bulk.before_update(statement, exists_criterion(statement.audited.table, criteria))
        return
    _reach_update(statement, list(images))
    statement.element = narrowed(element, statement.audited, list(images))

    def after(result: Any) -> None:
        check_count(statement, result, len(images), exact=False)
        statement.write(images=list(images.values()))

    statement.after = after


def _reach_update(statement: Statement, keys: list[Key]) -> None:
    """Follow foreign keys if the UPDATE sets a column that others refer to."""
    referred = {
        element.column.name
        for constraint, _action in foreign_keys.referring(statement.audited.table, "update")
        for element in constraint.elements
    }
    if referred & set_columns(statement):
        statement.reached.append(
            foreign_keys.reach_update(
                statement.connection, statement.recording, statement.audited.table, keys, statement.options
            )
        )


def _before_many_updates(statement: Statement) -> None:
    if changed_key_columns(statement):
        raise UnauditedWrite(
            f"an UPDATE of several rows of parameters that changes the key of {statement.audited.table.fullname} "
            "can't be recorded: execute it row by row"
        )
    lock_writer(statement.connection, statement.recording, statement.target)
    images = images_of_many(statement)
    _reach_update(statement, list(images))

    def after(result: Any) -> None:
        check_count(statement, result, len(images) if _distinct(statement) else None, exact=False)
        statement.write(images=list(images.values()))

    statement.after = after


def _distinct(statement: Statement) -> bool:
    keys = keys_by_equality(statement.audited, statement.element._where_criteria, statement.rows)
    return keys is not None and len(set(keys)) == len(keys)


def images_of_many(statement: Statement) -> dict[Key, Image]:
    """Read the rows of an executemany statement: by key where it names the keys, else by its criteria in turn."""
    criteria = statement.element._where_criteria
    keys = keys_by_equality(statement.audited, criteria, statement.rows)
    if keys is not None:
        unique = list(dict.fromkeys(keys))
        return read_images(statement.connection, statement.recording, statement.target, unique)
    images: dict[Key, Image] = {}
    for start in range(0, len(statement.rows), 200):
        part = [
            sa.and_(*(_with_parameters(criterion, row) for criterion in criteria))
            for row in statement.rows[start : start + 200]
        ]
        images.update(read_where(statement, [sa.or_(*part)]))
    return images


def _with_parameters(criterion: Any, row: dict[str, Any]) -> Any:
    names = {bind.key for bind in visitors.iterate(criterion) if isinstance(bind, sa.BindParameter)}
    return criterion.unique_params({name: value for name, value in row.items() if name in names})


def _before_move(statement: Statement, moved: set[str]) -> None:
    """Record an UPDATE that changes keys: the old identities go, the new ones come."""
    audited = statement.audited
    values = set_values(statement)
    new = [_new_value(statement, values, column) for column in audited.key]
    pairs = read_keys(statement, effective_criteria(statement.element), extra=new)
    width = len(audited.key)
    old = [row[:width] for row in pairs]
    changed = {row[:width]: row[width:] for row in pairs if row[:width] != row[width:]}
    images = read_images(statement.connection, statement.recording, statement.target, old)
    statement.write(deleted=list(changed))
    statement.reached.append(
        foreign_keys.reach_update(statement.connection, statement.recording, audited.table, old, statement.options)
    )
    statement.element = narrowed(statement.element, audited, old)

    def after(result: Any) -> None:
        check_count(statement, result, len(old), exact=True)
        kept = [image for key, image in images.items() if key not in changed]
        statement.write(images=kept, inserted=list(changed.values()))

    statement.after = after


def _new_value(statement: Statement, values: dict[str, Any], column: sa.Column[Any]) -> Any:
    if column.key not in values:
        return column
    value = values[column.key]
    if isinstance(value, sa.sql.functions.FunctionElement) or (
        hasattr(value, "__clause_element__") or isinstance(value, sa.ClauseElement)
    ):
        functions = [part for part in visitors.iterate(value) if isinstance(part, sa.sql.functions.FunctionElement)]
        if functions:
            raise UnauditedWrite(
                f"the new key of {statement.audited.table.fullname} is made by a SQL function ({functions[0]}), whose "
                "value is not known before it is written: select the new keys first"
            )
        return value
    return sa.bindparam(None, value, type_=column.type, unique=True)


def before_delete(statement: Statement) -> None:
    """Copy what a DELETE will remove into the history, and narrow it to that."""
    element: Delete = statement.element
    refuse_unrecordable(element, statement.audited)
    lock_writer(statement.connection, statement.recording, statement.target)
    if statement.many:
        keys = list(images_of_many(statement))
        exact = False
    else:
        criteria = effective_criteria(element)
        keys = read_keys(statement, criteria, limit=SMALL + 1)
        if len(keys) > SMALL:
            bulk.before_delete(statement, exists_criterion(statement.audited.table, criteria))
            return
        statement.element = narrowed(element, statement.audited, keys)
        exact = True
    if keys:
        statement.write(deleted=keys)
    statement.reached.append(
        foreign_keys.reach_delete(
            statement.connection, statement.recording, statement.audited.table, keys, statement.options, statement.flush
        )
    )
    statement.after = lambda result: check_count(statement, result, len(keys), exact=exact or _distinct(statement))


def finish(statement: Statement, result: Any) -> None:
    """Record what the statement did, and what it made the database do."""
    if statement.after is not None:
        statement.after(result)
    for reached in statement.reached:
        foreign_keys.settle(statement.connection, statement.recording, reached, statement.flush)


# -- criteria -----------------------------------------------------------------------


def effective_criteria(element: Any) -> tuple[Any, ...]:
    """Give a statement's criteria with those that the ORM adds when it compiles it (inheritance, loader criteria)."""
    criteria: tuple[Any, ...] = tuple(element._where_criteria)
    subject = element._propagate_attrs.get("plugin_subject")
    if element._propagate_attrs.get("compile_state_plugin") != "orm" or subject is None:
        return criteria
    if "_emit_update_table" in element._annotations:
        return criteria
    attributes: dict[Any, Any] = {}
    for option in element._with_options:
        if isinstance(option, LoaderCriteriaOption):
            option.get_global_criteria(attributes)
    return criteria + tuple(_BULK._adjust_for_extra_criteria(attributes, subject))


def exists_criterion(table: sa.Table, criteria: Sequence[Any]) -> Any:
    """Give criteria as one condition on rows of ``table``, whatever other tables they name."""
    if not criteria:
        return sa.true()
    condition = sa.and_(*criteria)
    others = [entry for entry in condition._from_objects if not _same_table(entry, table)]
    if not others:
        return condition
    return sa.select(sa.literal(1)).select_from(*others).where(condition).correlate(table).exists()


def _same_table(entry: Any, table: sa.Table) -> bool:
    return entry is table or getattr(entry, "_deannotate", lambda: entry)() is table


def read_where(statement: Statement, criteria: Sequence[Any], limit: int | None = None) -> dict[Key, Image]:
    """Read and lock the rows that criteria choose, as images by key."""
    audited, backend = statement.audited, statement.recording.backend
    name = backend.table_name(audited.table, statement.target.schemas).replace("\\:", ":")
    images = [
        sa.literal_column(text.replace("\\:", ":")).label(f"o{i}")
        for i, text in enumerate(backend.image_columns(audited, name))
    ]
    rows = _read(statement, [*audited.key, *images], criteria, limit)
    width = len(audited.key)
    return {row[:width]: Image(row[:width], row[width:]) for row in rows}


def read_keys(
    statement: Statement, criteria: Sequence[Any], limit: int | None = None, extra: Sequence[Any] = ()
) -> list[Key]:
    """Read and lock the rows that criteria choose, as keys with further expressions behind them."""
    return _read(statement, [*statement.audited.key, *extra], criteria, limit)


def _read(statement: Statement, columns: Sequence[Any], criteria: Sequence[Any], limit: int | None) -> list[Key]:
    audited = statement.audited
    query = (
        sa.select(*(column.label(f"c{i}") for i, column in enumerate(columns)))
        .select_from(audited.table)
        .where(exists_criterion(audited.table, criteria))
        .order_by(*audited.key)
    )
    for cte in statement.element._independent_ctes:
        query = query.add_cte(cte)
    if limit is not None:
        query = query.limit(limit)
    if statement.recording.backend.locks_rows:
        query = query.with_for_update(of=audited.table, key_share=isinstance(statement.element, Update))
    parameters = statement.rows[0] if len(statement.rows) == 1 else {}
    options = {INTERNAL: True, "schema_translate_map": statement.options.get("schema_translate_map")}
    result = statement.connection.execute(query, parameters, execution_options=options)
    return [tuple(row) for row in result]


def narrowed(element: Any, audited: AuditedTable, keys: Sequence[Key]) -> Any:
    """Narrow a statement to the rows of the given keys."""
    if len(audited.key) == 1:
        return element.where(audited.key[0].in_([key[0] for key in keys]))
    return element.where(sa.tuple_(*audited.key).in_([tuple(key) for key in keys]))


# -- values ---------------------------------------------------------------------------


def set_values(statement: Statement) -> dict[str, Any]:
    """Give what an UPDATE sets, by column key; parameters of a single execution included."""
    element, table = statement.element, statement.audited.table
    values: dict[Any, Any] = dict(element._values or {})
    values.update(dict(getattr(element, "_ordered_values", None) or ()))
    result: dict[str, Any] = {}
    mapper = element._propagate_attrs.get("plugin_subject")
    for name, value in values.items():
        column = _column_of(name, table, mapper)
        result[column.key if column is not None else str(name)] = value
    bound = {bind.key for bind in visitors.iterate(element) if isinstance(bind, sa.BindParameter)}
    for name, value in (statement.rows[0] if statement.rows else {}).items():
        column = _column_of(name, table, mapper)
        if column is not None and name not in bound:
            result[column.key] = value
    return result


def _column_of(name: Any, table: sa.Table, mapper: Any) -> sa.Column[Any] | None:
    if not isinstance(name, str):
        name = getattr(name, "key", str(name)) if not hasattr(name, "__clause_element__") else name.key
    if mapper is not None:
        attribute = sa.inspect(mapper).mapper.column_attrs.get(name)
        if attribute is not None:
            return next((column for column in attribute.columns if column.table is table), None)
    return table.c.get(name)


def set_columns(statement: Statement) -> set[str]:
    """Give the database names of the columns that an UPDATE sets."""
    table = statement.audited.table
    return {table.c[key].name for key in set_values(statement) if key in table.c}


def changed_key_columns(statement: Statement) -> set[str]:
    """Give the key columns that an UPDATE sets to something else than the value it looks them up by."""
    keys = {column.key for column in statement.audited.key}
    return keys & set(set_values(statement))


def _refuse_other_tables(statement: Statement) -> None:
    """Refuse MariaDB's UPDATE that sets columns of several tables."""
    table = statement.audited.table
    for name in statement.element._values or {}:
        other = getattr(name, "table", None)
        if isinstance(other, sa.Table) and not _same_table(other, table):
            raise UnauditedWrite(
                f"an UPDATE of {table.fullname} that sets columns of {other.fullname} as well can't be recorded: "
                "update each table by a statement of its own"
            )


def check_count(statement: Statement, result: Any, expected: int | None, *, exact: bool) -> None:
    """Refuse a statement that changed other rows than were read.

    Raises:
        UnauditedWrite: if the database says so; the transaction is rolled back.
    """
    count = result.rowcount
    if expected is None or count < 0 or result.returns_rows:
        return
    if count > expected or (exact and count != expected):
        raise UnauditedWrite(
            f"{count} rows of {statement.audited.table.fullname} were changed, but {expected} were read and locked: "
            "another transaction came in between, or the criteria give different answers each time; try again, "
            "or select the keys first"
        )


__all__ = ["Insert", "Statement", "before_delete", "before_update", "begin", "finish", "nested_dml"]
