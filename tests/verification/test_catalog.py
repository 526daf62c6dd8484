"""Attacks on what keeps the trail: guards, tables that are not what they seem, and what must not alarm of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_audit import Audited, configure, context
from sa_audit.catalog.fingerprint import Expected
from sa_audit.ddl import backend_for
from sa_audit.ddl.postgresql_capture_text import ROW_TRIGGER
from sa_audit.model.history import trail_of
from sa_audit.proof import BlockEntry, Signer, decode_entry
from sa_audit.proof.blocks import unpack_entries
from sa_audit.seal import seal, sealer
from sa_audit.verification import verify
from sa_audit.verification.catalog import Standing, _Judge
from sa_audit.verification.report import Findings
from tests.migrate.models import bank, of
from tests.verification.models import Base, write
from tests.verification.sealed import TOUCHED, Found, Sealed
from tests.verification.test_log import entries_of, put_entries
from tests.verification.test_rows import HISTORY, row

Triple = tuple[str, str | None, int | None]


def admin(sealed: Sealed, *statements: str) -> None:
    """Run statements as somebody who owns the database, each by itself."""
    with sealed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    sealed.engine.dispose()


def guard(sealed: Sealed) -> tuple[str, list[str]]:
    """Give what drops the guard of updates of a history, and what makes it again."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    table = next(each for each in sealed.tables() if each.name == HISTORY)
    with sealed.engine.connect() as connection:
        backend, default = backend_for(connection.dialect), connection.dialect.default_schema_name
    made = next(
        each
        for each in backend.guard_objects(table, trail, {}, default)
        if each.name in ("sa_audit_guard_row", f"{HISTORY}_guard_update")
    )
    return made.drop[0], [text.replace("\\:", ":") for text in made.create]


def hollow(sealed: Sealed) -> list[str]:
    """Give what makes that guard so that it refuses nothing."""
    _drop, make = guard(sealed)
    match sealed.database.dialect:
        case "postgresql":
            return [text.replace("UPDATE OR DELETE", "UPDATE OF audit_flush OR DELETE") for text in make]
        case "sqlite":
            return [text.replace("\nBEGIN", "\nWHEN 0\nBEGIN") for text in make]
        case _:
            return [text.partition("FOR EACH ROW")[0] + "FOR EACH ROW SET @nothing = 1" for text in make]


def last_block(sealed: Sealed) -> int:
    """Give the number of the last block."""
    return sealed.scalar("SELECT max(number) FROM audit_block")


# -- guards --------------------------------------------------------------------------------


def test_guards_over_time(fresh: Sealed) -> None:
    """A guard that is gone, or another one, is named while it is so, and for ever once that was sealed."""
    drop, make = guard(fresh)
    admin(fresh, drop)
    assert fresh.found(touched=True) == {("guard-missing", HISTORY, None)}
    fresh.seal()
    gone: Found = {("guard-missing", HISTORY, last_block(fresh))}
    assert fresh.found(touched=True) == gone
    admin(fresh, *hollow(fresh))
    fresh.seal()
    swapped: Found = {("guard-changed", HISTORY, last_block(fresh))}
    assert fresh.found(touched=True) == gone | swapped
    admin(fresh, drop, *make)
    fresh.seal()
    report = fresh.verify(touched=True)
    assert {(each.kind, each.table, each.row) for each in report.findings} == gone | swapped
    missing, changed = sorted(report.findings, key=lambda each: str(each.row))
    assert f"up to block {changed.row}" in missing.got
    assert f"up to block {last_block(fresh)}" in changed.got
    changes = [change for change in report.changes if change.object.startswith("trigger ")]
    assert [change.block for change in changes] == [missing.row, changed.row, last_block(fresh)]
    assert (changes[0].after, changes[1].before) == (None, None)
    assert changes[0].before == changes[2].after
    assert fresh.verify(since=report.checkpoint, anchored=False, touched=True).findings == ()


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_guard_that_is_swapped_and_put_back_unseen(fresh: Sealed) -> None:
    """With no sealing in between, the database still tells that it was made anew; SQLite tells nothing."""
    drop, make = guard(fresh)
    admin(fresh, drop, *hollow(fresh), drop, *make)
    assert fresh.found(touched=True) == {(TOUCHED, HISTORY, None)}
    fresh.seal()
    block = last_block(fresh)
    write(fresh.engine, 601, 602)
    fresh.seal()
    assert fresh.found(touched=True) == {(TOUCHED, HISTORY, block)}


@pytest.mark.only_on("postgresql")
def test_the_function_of_the_guards(fresh: Sealed) -> None:
    """Swapped for one that refuses nothing: found, and found as well when it was put back before any sealing."""
    name = "sa_audit_guard_v1"
    with fresh.engine.connect() as connection:
        text = connection.scalar(sa.text("SELECT pg_get_functiondef(CAST(:name AS regproc))"), {"name": name})
    swapped = f"CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    admin(fresh, swapped)
    assert fresh.found(touched=True) == {("guard-changed", name, None)}
    changed = row(fresh, 4)
    with fresh.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {HISTORY} SET label = 'x' WHERE audit_id = {changed}")
    admin(fresh, str(text))
    assert fresh.found(touched=True) == {(TOUCHED, name, None), ("row-changed", HISTORY, changed)}
    admin(fresh, f"GRANT EXECUTE ON FUNCTION {name}() TO PUBLIC")
    report = fresh.verify(touched=True)
    assert {each.kind for each in report.findings} == {"row-changed"}  # who may run it was changed, and is told so
    assert [change.object for change in report.changes] == [f"rights public.{name}()"]


ODD: dict[str, tuple[list[str], list[str], set[Triple]]] = {
    "a guard switched off": (
        [f"ALTER TABLE {HISTORY} DISABLE TRIGGER sa_audit_guard_row"],
        [f"ALTER TABLE {HISTORY} ENABLE ALWAYS TRIGGER sa_audit_guard_row"],
        {("guard-changed", HISTORY, None)},
    ),
    "a rule": (
        [f"CREATE RULE silent AS ON INSERT TO {HISTORY} DO INSTEAD NOTHING"],
        [f"DROP RULE silent ON {HISTORY}"],
        {("foreign-rule", HISTORY, None)},
    ),
    "row security": (
        [f"ALTER TABLE {HISTORY} ENABLE ROW LEVEL SECURITY"],
        [f"ALTER TABLE {HISTORY} DISABLE ROW LEVEL SECURITY"],
        {("row-security", HISTORY, None)},
    ),
    "a trigger that keeps rows out": (
        [
            "CREATE FUNCTION silence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            f"CREATE TRIGGER aaa BEFORE INSERT ON {HISTORY} FOR EACH ROW EXECUTE FUNCTION silence()",
        ],
        [f"DROP TRIGGER aaa ON {HISTORY}", "DROP FUNCTION silence()"],
        {("foreign-trigger", HISTORY, None)},
    ),
    "a child": (
        [f"CREATE TABLE child () INHERITS ({HISTORY})"],
        ["DROP TABLE child"],
        {("table-inherited", HISTORY, None)},
    ),
    "a table that a crash empties": (
        [f"ALTER TABLE {HISTORY} SET UNLOGGED"],
        [f"ALTER TABLE {HISTORY} SET LOGGED"],
        {("table-replaced", HISTORY, None)},
    ),
    "a shadow on the search path": (
        ["CREATE SCHEMA shadow", f"CREATE TABLE shadow.{HISTORY} (LIKE {HISTORY})"],
        ["DROP SCHEMA shadow CASCADE"],
        {("table-shadowed", HISTORY, None)},
    ),
}
"""What is done, how it is undone, and what is found meanwhile."""


@pytest.mark.only_on("postgresql")
def test_a_table_that_denies_its_triggers(fresh: Sealed) -> None:
    """A superuser who takes the flag from a table has none of them fire, though each is there as ever."""
    flag = f"UPDATE pg_class SET relhastriggers = %s WHERE oid = CAST('{HISTORY}' AS regclass)"
    fresh.unrecorded(flag % "false")
    assert ("guard-changed", HISTORY, None) in fresh.found()
    fresh.unrecorded(flag % "true")
    assert fresh.found() == set()


@pytest.mark.only_on("postgresql")
def test_tables_that_are_not_what_they_seem(fresh: Sealed) -> None:
    """Each is found by its kind, with all rows as they were sealed; after it, only that a guard was made anew."""
    for name, (done, undone, expected) in ODD.items():
        admin(fresh, *done)
        assert fresh.found() == expected, name
        admin(fresh, *undone)
        assert fresh.found() == set(), name


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_copy_in_place_of_a_table(fresh: Sealed) -> None:
    """All rows and guards are there, but PostgreSQL knows it for another one, and MariaDB its guards as new."""
    like = f"(LIKE {HISTORY} INCLUDING ALL)" if fresh.database.dialect == "postgresql" else f"LIKE {HISTORY}"
    fresh.attack(
        f"CREATE TABLE copy {like}",
        f"INSERT INTO copy SELECT * FROM {HISTORY}",
        f"ALTER TABLE {HISTORY} RENAME TO aside",
        f"ALTER TABLE copy RENAME TO {HISTORY}",
    )
    found = {each for each in fresh.found(touched=True) if each[1] == HISTORY}
    assert found == {("table-replaced" if fresh.database.dialect == "postgresql" else TOUCHED, HISTORY, None)}


@pytest.mark.only_on("sqlite")
def test_a_trigger_that_keeps_rows_out_of_sqlite(fresh: Sealed) -> None:
    """One that is not the library's, and a guard whose text was edited in the schema itself."""
    admin(fresh, f"CREATE TRIGGER quiet BEFORE INSERT ON {HISTORY} BEGIN SELECT RAISE(IGNORE); END")
    assert fresh.found() == {("foreign-trigger", HISTORY, None)}
    admin(
        fresh,
        "DROP TRIGGER quiet",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'RAISE(ABORT', 'max(1, 2); SELECT coalesce(NULL') "
        f"WHERE name = '{HISTORY}_guard_update'",
    )
    assert fresh.found() == {("guard-changed", HISTORY, None)}
    fresh.seal()
    assert fresh.found() == {("guard-changed", HISTORY, last_block(fresh))}


# -- the log of it -------------------------------------------------------------------------


def test_a_fact_that_is_edited(sealed: Sealed) -> None:
    """The header has another fingerprint, and the root is another one."""
    entries = entries_of(sealed, 1)
    fact = next(i for i, entry in enumerate(entries) if entry.startswith(b"\x87\x01\x08") and b"note_history" in entry)
    put_entries(sealed, 1, [*entries[:fact], entries[fact][:-1] + b"?", *entries[fact + 1 :]])
    assert {"fingerprint-changed", "checkpoint-changed"} <= sealed.kinds(anchored=False)


@pytest.mark.only_on("sqlite")
def test_a_log_from_before_there_were_fingerprints(fresh: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its headers have none; it verifies, and the catalog stands in the log from the next sealing on."""
    with monkeypatch.context() as former:
        former.setattr(sealer, "catalog_runs", lambda *_: (None, []))
        (fresh.directory / "state").unlink()
        (fresh.directory / "anchor").unlink()
        fresh.attack("DELETE FROM audit_block", "DELETE FROM audit_sealed", "DELETE FROM audit_checkpoint")
        fresh.seal()
    assert fresh.found(touched=True) == set()
    write(fresh.engine, 601, 602)
    fresh.seal()
    assert fresh.found(touched=True) == set()
    with fresh.engine.connect() as connection:
        blocks = connection.scalars(sa.text("SELECT entries FROM audit_block ORDER BY number")).all()
    headers = [decode_entry(unpack_entries(bytes(data))[0]) for data in blocks]
    closing = [each.fingerprint is not None for each in headers if isinstance(each, BlockEntry) and each.closes]
    assert closing == [False, True]


# -- what must not alarm -------------------------------------------------------------------


def test_a_catalog_that_stays_is_said_once(sealed: Sealed) -> None:
    """Further sealings have the same fingerprint, and no further facts."""
    write(sealed.engine, 601, 602)
    sealed.seal()
    data = [entries_of(sealed, number) for number in range(last_block(sealed) + 1)]
    said = [
        number for number, entries in enumerate(data) if any(entry.startswith(b"\x87\x01\x08") for entry in entries)
    ]
    headers = [decode_entry(entries[0]) for entries in data]
    prints = {each.fingerprint for each in headers if isinstance(each, BlockEntry) and each.closes}
    assert None not in prints
    assert len(prints) == len(said)


@pytest.mark.only_on("sqlite", "postgresql")
def test_columns_that_change_are_told_and_no_finding(fresh: Sealed) -> None:
    """Whether their values are as sealed is the other passes' word."""
    admin(fresh, f"ALTER TABLE {HISTORY} ADD COLUMN extra INTEGER")
    report = fresh.verify(touched=True)
    assert report.findings == ()
    assert {change.object for change in report.changes} - {f"text {HISTORY}"} in (
        {f"column {HISTORY}.extra"},
        {f"column public.{HISTORY}.extra"},
    )
    fresh.seal()
    assert fresh.verify(touched=True).findings == ()
    assert {change.block for change in fresh.verify().changes} == {last_block(fresh)}


@pytest.mark.only_on("postgresql")
def test_the_upkeep_of_a_database(fresh: Sealed) -> None:
    """VACUUM FULL, FREEZE and REINDEX of the history and of the catalog itself make nothing anew."""
    tables = (HISTORY, "pg_proc", "pg_trigger", "pg_class", "pg_attribute")
    admin(fresh, *(f"VACUUM (FULL, FREEZE, ANALYZE) {table}" for table in tables), f"REINDEX TABLE {HISTORY}")
    assert fresh.verify(touched=True).findings == ()
    assert fresh.verify().changes == ()


# -- judged by facts alone -----------------------------------------------------------------

CAPTURE = ("function", "public", None, "sa_audit_capture_note_history")
GUARD = ("function", "public", None, "sa_audit_guard_v1")


def judged(*versions: tuple[str | None, dict[str, Any]]) -> list[Triple]:
    """Give what is found of a capture function that had one definition after the other."""
    standing = []
    for number, (definition, given) in enumerate(versions):
        facts: dict[Any, Any] = {GUARD: "guard", ("mark", *GUARD[1:]): "1", ("mark", *CAPTURE[1:]): str(number)}
        if definition is not None:
            facts[CAPTURE] = definition
        last = number == len(versions) - 1
        options = {"accounted": False, "incarnation": 0, **given}
        standing.append(
            Standing(
                facts=facts,
                block=None if last else number,
                sealed_at=None if last else dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                new=True,
                **options,
            )
        )
    findings = Findings()
    expected = Expected(guards={GUARD: frozenset({"guard"})}, capture={CAPTURE: "true"})
    judge = _Judge(standing, expected, findings, whole={(None, "account_history")})
    judge.judge_states()
    judge.judge_changes()
    return [(each.kind, each.table, each.row) for each in findings.all()]


NAME = CAPTURE[3]


def test_what_records_a_table_and_changes() -> None:
    """A change that no recorded migration accounts for is found while it stands, and when it was put back."""
    plain: dict[str, Any] = {}
    accounted = {"accounted": True}
    assert judged(("true", plain), ("false", plain)) == [("capture-changed", NAME, None)]
    assert judged(("true", plain), ("false", plain), ("true", plain)) == [("capture-changed", NAME, 1)]
    assert judged(("true", plain), (None, plain)) == [("capture-changed", NAME, None)]
    assert judged(("old", plain), ("true", plain)) == []
    assert judged(("oldest", plain), ("old", accounted), ("true", accounted)) == []
    assert judged(("oldest", plain), ("old", plain), ("true", accounted)) == []
    assert judged(("true", plain), ("true", plain)) == [("guard-touched", NAME, None)]
    assert judged(("true", plain), ("true", accounted)) == []
    assert judged(("true", plain), ("false", {"incarnation": 1})) == []


@pytest.mark.only_on("postgresql")
def test_capture_that_was_switched_off_for_a_while(engine: sa.Engine, tmp_path: Path) -> None:
    """What was written and written back meanwhile is nowhere, but that there was such a while is found."""
    base = bank()
    configure(base, capture="trigger")
    base.metadata.create_all(engine)
    customer, signer = of(base, "Customer"), Signer.generate("bank.example/audit")
    with context(actor="teller"), Session(engine) as session:
        session.add(customer(id=1, name="a"))
        session.commit()
    seal(engine, signer, state=tmp_path / "state", metadata=base)
    assert verify(engine, signer.verifier, metadata=base).findings == ()
    with engine.begin() as connection:
        for statement in (
            f'ALTER TABLE customer DISABLE TRIGGER "{ROW_TRIGGER}"',
            "UPDATE customer SET name = 'b'",
            "UPDATE customer SET name = 'a'",
            f'ALTER TABLE customer ENABLE ALWAYS TRIGGER "{ROW_TRIGGER}"',
        ):
            connection.exec_driver_sql(statement)
    found = verify(engine, signer.verifier, metadata=base).findings
    assert [(each.kind, each.table) for each in found] == [("guard-touched", "customer")]


@pytest.mark.only_on("postgresql")
def test_capture_that_was_switched_off_on_a_partition(engine: sa.Engine, tmp_path: Path) -> None:
    """A partition is switched off and on like a table; that one comes, goes or is vacuumed is no finding."""

    class Base(DeclarativeBase):
        pass

    configure(Base, capture="trigger")

    class Reading(Audited, Base):
        __tablename__ = "reading"
        __table_args__ = {"postgresql_partition_by": "RANGE (id)"}
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    signer = Signer.generate("bank.example/audit")
    off, on = (f'ALTER TABLE low {word} TRIGGER "{ROW_TRIGGER}"' for word in ("DISABLE", "ENABLE ALWAYS"))

    def found(*statements: str) -> list[tuple[str, str | None]]:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        findings = verify(engine, signer.verifier, metadata=Base).findings
        seal(engine, signer, state=tmp_path / "state", metadata=Base)
        return [(each.kind, each.table) for each in findings]

    part = "PARTITION OF reading FOR VALUES FROM"
    seal(engine, signer, state=tmp_path / "state", metadata=Base)
    assert found(f"CREATE TABLE low {part} (0) TO (10)", f"CREATE TABLE high {part} (10) TO (20)") == []
    assert found("VACUUM FULL pg_trigger", "VACUUM FREEZE pg_trigger", "VACUUM FULL reading") == []
    assert found("ALTER TABLE reading DETACH PARTITION high", "DROP TABLE high") == []
    assert found(off, on) == [("guard-touched", "low")]
    assert found() == [("guard-touched", "low")]
    assert set(found(off)) == {("guard-touched", "low"), ("guard-missing", "reading"), ("capture-changed", "low")}
