"""``check``: what is, compared with what should be; the same for all databases.

What should be comes from the trail objects of ddl and from the models.  Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.backend import backend_for
from ..ddl.privileges import trail_tables
from ..model.history import Trail
from .level import Finding, Report
from .live import CatalogReader, Live, reader_for

REMEDY = "write a revision by alembic revision --autogenerate, and find out who changed it"


def check(connection: Connection, trail: Trail) -> Report:
    """Compare the live database with what the models and the library's own texts say.

    Nothing is written.  What a reading role may not see in the catalog is not judged; run it as the owner or a DBA.

    Args:
        connection: to the database.
        trail: the trail, complete.
    """
    reader = reader_for(connection.dialect)
    tables = trail_tables(trail)
    places = {reader.place(table): table for table in tables}
    data = {reader.place(table) for table in trail.audited}
    live = reader.read(connection, places, data)
    findings = [*_tables(reader, live, tables), *_columns(reader, live, trail)]
    standing = [table for table in tables if _stands(reader, live, table)]
    expected = reader.expected(trail, tables)
    findings += [*_objects(reader, live, expected), *_foreign(reader, live, standing, expected)]
    findings += _before_ours(reader, live, expected)
    findings += [*live.findings, *reader.partitions(connection, trail), *reader.rights(connection, trail, standing)]
    findings += [*_configuration(trail), *_relaxed(connection, trail)]
    return Report(tuple(findings))


def _stands(reader: CatalogReader, live: Live, table: sa.Table) -> bool:
    found = live.tables.get(reader.place(table))
    return found is not None and found.form in ("table", "partitioned table", "unlogged table")


def _tables(reader: CatalogReader, live: Live, tables: list[sa.Table]) -> Iterator[Finding]:
    for table in tables:
        found = live.tables.get(reader.place(table))
        if found is None:
            yield Finding(
                kind="missing-table",
                place=table.fullname,
                message=f"the table is not there: {REMEDY}",
                expected="table",
            )
            continue
        if found.form not in ("table", "partitioned table"):
            yield Finding(
                kind="replaced-table",
                place=table.fullname,
                message=f"a {found.form} stands in the place of the table: what is recorded there may be lost",
                expected="table",
                got=found.form,
            )
        for name in sorted({column.name for column in table.columns} - found.columns):
            yield Finding(
                kind="missing-column", place=f"{table.fullname}.{name}", message=f"the column is not there: {REMEDY}"
            )


def _columns(reader: CatalogReader, live: Live, trail: Trail) -> Iterator[Finding]:
    """Find columns of the live audited tables that no model has, whose changes nobody records."""
    for table in trail.audited:
        found = live.tables.get(reader.place(table))
        if found is None:
            yield Finding(
                kind="missing-audited-table",
                place=table.fullname,
                message="the audited table is not there",
                blocks=None,
            )
            continue
        for name in sorted(found.columns - {column.name for column in table.columns}):
            yield Finding(
                kind="unknown-column",
                place=f"{table.fullname}.{name}",
                message="the audited table has a column that the model has not, so its changes are not recorded",
                blocks=1,
            )


def _objects(reader: CatalogReader, live: Live, expected: list[TrailObject]) -> Iterator[Finding]:
    for entry in expected:
        if not entry.definition:
            continue
        got = live.objects.get(key(reader, entry))
        kind = "guard" if entry.kind == "trigger" else entry.kind
        if got is None:
            yield Finding(kind=f"missing-{kind}", place=entry.label, message=f"it is not there: {REMEDY}")
        elif got != entry.definition:
            yield Finding(
                kind=f"altered-{kind}",
                place=entry.label,
                message=f"it is not what the library made: {REMEDY}",
                expected=digest(entry.definition),
                got=digest(got),
            )


def _foreign(
    reader: CatalogReader, live: Live, tables: list[sa.Table], expected: list[TrailObject]
) -> Iterator[Finding]:
    """Find triggers on the trail that are not the library's: one that returns NULL silences a history."""
    places = {reader.place(table) for table in tables}
    known = {key(reader, entry) for entry in expected}
    for found in live.objects:
        kind, schema, table, name = found
        if kind == "trigger" and found not in known and (schema, str(table)) in places and name != "sa_audit_closed":
            yield Finding(
                kind="foreign-trigger",
                place=".".join(part for part in (schema, table, name) if part),
                message="a trigger on the trail that is not the library's: it may drop or change rows; drop it",
            )


def _before_ours(reader: CatalogReader, live: Live, expected: list[TrailObject]) -> Iterator[Finding]:
    """Find AFTER triggers that fire before the capture trigger, on PostgreSQL by their names."""
    ours = {key(reader, entry): entry for entry in expected if entry.kind == "trigger" and "capture" in entry.name}
    for found, definition in live.objects.items():
        kind, schema, table, name = found
        if kind != "trigger" or found in ours or not reader.fires_after(definition):
            continue
        later = [place for place in ours if place[1:3] == (schema, table) and name < place[3]]
        if later and not name.startswith("sa_audit_"):
            yield Finding(
                kind="trigger-before-capture",
                place=f"{schema}.{table}.{name}",
                message="it fires before the capture trigger, so its own changes are recorded first: rename it",
                blocks=3,
            )


def _configuration(trail: Trail) -> Iterator[Finding]:
    configuration = trail.configuration
    by_session = [audited.table.fullname for audited in trail.audited.values() if not audited.by_trigger]
    if by_session and configuration.text_dml == "allow":
        yield Finding(
            kind="text-dml",
            place="configure(text_dml='allow')",
            message="textual INSERT, UPDATE and DELETE through SQLAlchemy pass unrecorded: take the setting out",
            drift=False,
        )
    if by_session:
        yield Finding(
            kind="session-capture",
            place=", ".join(sorted(by_session)[:3])
            + (f" and {len(by_session) - 3} more" if len(by_session) > 3 else ""),
            message="recorded by sessions: raw SQL, psql, bulk loads and cascades outside of them are not",
            blocks=3,
            drift=False,
        )


def _relaxed(connection: Connection, trail: Trail) -> Iterator[Finding]:
    """Name the models whose reads are recorded without waiting for the disk, where the database can do that."""
    names = [audited.table.fullname for audited in trail.audited.values() if audited.options.reads == "relaxed"]
    if names and backend_for(connection.dialect).relaxed_setting is not None:
        yield Finding(
            kind="relaxed-reads",
            place=", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
            message="their reads are recorded without waiting for the disk: a crash of the server can lose the last "
            "fraction of a second; reads=True waits",
            blocks=None,
            drift=False,
        )


def key(reader: CatalogReader, entry: TrailObject) -> tuple[str, str | None, str | None, str]:
    """Give what tells an object from the others, expected or live."""
    return entry.kind, reader.schema(entry.schema), entry.table, entry.name


def digest(definition: str) -> str:
    """Give a definition as it is shown: itself while it is short, else its SHA-256."""
    if len(definition) <= 120 and "\n" not in definition:
        return definition
    return "sha256:" + hashlib.sha256(definition.encode()).hexdigest()
