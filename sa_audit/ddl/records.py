"""How events and reads are written: rows of the trail that no trigger makes.

The columns that only the database writes are left to it, so that an account needs no right to write them.
Imports model and SQLAlchemy only.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import Trail
from .spelling import Spelling
from .values import Entry, internal


class Records(Spelling):
    """One database's way to write events and reads."""

    texts_source: ClassVar[str]
    """The FROM clause that gives the texts of a JSON array, the parameter ``texts``, as ``v.t``."""

    def insert_event(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> None:
        """Write an event: the columns of ``audit_event`` that say what happened."""
        internal(connection, *_insertion(trail.event, entry, values))

    def insert_keys(
        self,
        connection: Connection,
        trail: Trail,
        entry: Entry,
        rows: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> None:
        """Write keys of persons, wrapped, and that they were made; of persons who have none yet.

        Args:
            connection: where.
            trail: whose.
            entry: of the transaction.
            rows: ``name``, ``subject``, ``wrapped``, ``wrapped_by`` and ``commitment`` of each.
            options: execution options.
        """
        keys: Any = trail.person_key
        made = [{column.name: row[column.name] for column in keys.c} for row in rows]
        self.insert_wrapped(connection, trail, made, options)
        self.insert_created(connection, trail, entry, rows)

    def insert_wrapped(
        self, connection: Connection, trail: Trail, made: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> None:
        """Write keys of persons, wrapped, but for persons who have one."""
        keys: Any = trail.person_key
        connection.execute(self.insert_absent(keys, "subject"), made, execution_options=options)

    def insert_created(
        self, connection: Connection, trail: Trail, entry: Entry, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write that keys were made, of those that are there; by one statement."""
        table, keys = self._key_tables(trail)
        name: Any = sa.literal_column("substr(v.t, 1, 32)")
        commitment: Any = sa.literal_column("substr(v.t, 33)")
        fixed = {"audit_tx": entry.id, "audit_at": entry.recorded_at, "event": "created"}
        source = sa.text(self.texts_source).bindparams(sa.bindparam("texts", type_=sa.Text()))
        there = sa.exists().where(keys.c.name == name)
        query = sa.select(*_typed(table, fixed), name, commitment).select_from(source).where(there)
        statement = sa.insert(table).from_select([*fixed, "name", "commitment"], query, include_defaults=False)
        texts = json.dumps([f"{row['name']}{row['commitment']}" for row in rows])
        internal(connection, statement, {**_named(fixed), "texts": texts})

    def _key_tables(self, trail: Trail) -> tuple[Any, Any]:
        return trail.key, trail.person_key

    def insert_key(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> None:
        """Write what became of a person's key: the columns of ``audit_key`` that say so."""
        table: Any = trail.key
        internal(connection, *_insertion(table, entry, values))

    @abstractmethod
    def insert_absent(self, table: sa.Table, column: str) -> Any:
        """Give the INSERT of a row that does nothing where another one has its value of a unique column."""

    def insert_access(self, connection: Connection, trail: Trail, entry: Entry, values: Mapping[str, Any]) -> int:
        """Write an entry of a read: the columns of ``audit_access`` that say what was read; give its id."""
        table: Any = trail.access
        statement, parameters = _insertion(table, entry, values)
        return int(internal(connection, statement.returning(table.c.audit_id), parameters).scalar_one())

    def insert_access_rows(
        self, connection: Connection, trail: Trail, entry: Entry, access: int, table: str, texts: Sequence[str]
    ) -> None:
        """Write the rows that a read showed.

        Args:
            connection: where.
            trail: whose.
            entry: of the transaction.
            access: the id of the read's entry.
            table: the full name of the table read.
            texts: the keys of the rows as text, at least one.
        """
        rows: Any = trail.access_row
        fixed = {"audit_tx": entry.id, "audit_at": entry.recorded_at, "access_id": access, "table_name": table}
        source = sa.text(self.texts_source).bindparams(sa.bindparam("texts", type_=sa.Text()))
        query = sa.select(*_typed(rows, fixed), sa.literal_column("v.t")).select_from(source)
        statement = sa.insert(rows).from_select([*fixed, "identity"], query, include_defaults=False)
        internal(connection, statement, {**_named(fixed), "texts": json.dumps(list(texts), ensure_ascii=False)})


def _insertion(table: sa.Table, entry: Entry, values: Mapping[str, Any]) -> tuple[sa.Insert, dict[str, Any]]:
    """Give the INSERT of one row and its parameters; one of ``VALUES`` would name the id, which is the database's."""
    row = {"audit_tx": entry.id, "audit_at": entry.recorded_at, **values}
    query = sa.select(*_typed(table, row))
    return sa.insert(table).from_select(list(row), query, include_defaults=False), _named(row)


def _typed(table: sa.Table, names: Mapping[str, Any]) -> list[sa.BindParameter[Any]]:
    return [sa.bindparam(f"the_{name}", type_=table.c[name].type) for name in names]


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"the_{name}": value for name, value in values.items()}
