"""How the rows of each sealed schema are read from the database as it stands now.

``docs/format/canonical.md``, "Row": a verifier finds the present column for each id of the row's descriptor.
Imports model, proof and catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase, LiveColumn, RowReader, SealedTable, describe, sealed_tables
from ..catalog.describe import SALT
from ..model.history import Trail
from ..proof.schema import Descriptor
from .log import Log
from .report import Findings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to read the rows of one descriptor.

    Args:
        descriptor: as it was sealed.
        place: the present schema and name of its table.
        names: the present names of its columns by id.
        salted: whether the table has ``audit_salt``.
        extras: the present columns that the descriptor lacks, which have to be NULL.
    """

    descriptor: Descriptor
    place: tuple[str | None, str]
    names: Mapping[int, str] = field(default_factory=dict)
    salted: bool = True
    extras: tuple[str, ...] = ()

    def reader(self, database: CatalogDatabase) -> RowReader:
        """Give what reads the rows."""
        reader = RowReader(database, self.descriptor, names=self.names, salted=self.salted)
        reader.table = database.name_of(*self.place)
        return reader


@dataclass(frozen=True, kw_only=True)
class LiveTable:
    """A table of the trail as it stands: where, which columns, and its number in the log, if it has one."""

    place: tuple[str | None, str]
    columns: tuple[LiveColumn, ...]
    number: int | None
    sealed: SealedTable | None
    descriptor: Descriptor | None = None

    @property
    def id_column(self) -> str:
        """The column that identifies a row."""
        return "audit_id" if any(column.name == "audit_id" for column in self.columns) else "id"

    @property
    def txid_column(self) -> str | None:
        """The column of the database's own transaction id, if there is one."""
        names = {column.name for column in self.columns}
        return next((name for name in ("audit_txid", "db_txid") if name in names), None)


def live_tables(database: CatalogDatabase, connection: Connection, trail: Trail, log: Log) -> list[LiveTable]:
    """Give the tables of the trail that stand there: those that the models know, and those that the log knows."""
    found: dict[tuple[str | None, str], LiveTable] = {}
    numbers = {(each.schema, each.name): number for number, each in log.last_schema.items()}
    for sealed in sealed_tables(trail):
        place = (database.schema(connection, sealed.table), str(sealed.table.name))
        columns = tuple(database.columns(connection, *place))
        if columns:
            number = numbers.get(place)
            previous = log.last_schema[number] if number is not None else None
            now = (
                describe(database, connection, sealed, number=number, previous=previous) if number is not None else None
            )
            found[place] = LiveTable(place=place, columns=columns, number=number, sealed=sealed, descriptor=now)
    for place, number in numbers.items():
        columns = tuple(database.columns(connection, *place))
        if place not in found and columns:
            found[place] = LiveTable(place=place, columns=columns, number=number, sealed=None)
    return list(found.values())


def plans(log: Log, live: list[LiveTable], findings: Findings) -> dict[bytes, Plan]:
    """Give a plan for each sealed schema by its digest; what can't be read is a finding, and has none."""
    by_number = {table.number: table for table in live if table.number is not None}
    made: dict[bytes, Plan] = {}
    for digest, descriptor in log.schemas.items():
        table = by_number.get(descriptor.table)
        if table is None:
            findings.add("table-missing", descriptor.name, None, f"table {descriptor.name}", "none")
            continue
        plan = plan_for(descriptor, table, findings)
        if plan is not None:
            made[digest] = plan
    return made


def plan_for(descriptor: Descriptor, table: LiveTable, findings: Findings) -> Plan | None:
    """Give the plan of one descriptor, or None, with findings that say why."""
    present = {column.name: column for column in table.columns}
    ids = {column.id: column.name for column in (table.descriptor or descriptor).columns}
    names = {column.id: ids[column.id] for column in descriptor.columns if ids.get(column.id) in present}
    readable = True
    for column in descriptor.columns:
        name = names.get(column.id)
        if name is None:
            findings.add("column-missing", descriptor.name, None, f"column {column.name}", "none")
            readable = False
        elif present[name].type != column.type:
            got = f"{present[name].type} ({present[name].sql_type})"
            findings.add(
                "column-retyped", descriptor.name, None, f"column {name} of {column.type} ({column.sql_type})", got
            )
            readable = False
    if not readable:
        return None
    extras = [name for name in present if name != SALT and name not in names.values()]
    return Plan(
        descriptor=descriptor, place=table.place, names=names, salted=SALT in present, extras=tuple(sorted(extras))
    )
