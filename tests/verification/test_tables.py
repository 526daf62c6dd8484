"""Attacks on tables by DDL, and what must not alarm."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import Signer
from sa_audit.proof.policy import Policy
from tests.verification.models import NOTES, amend, note, write
from tests.verification.sealed import ORIGIN, Sealed
from tests.verification.test_rows import HISTORY, row

pytestmark = pytest.mark.wide_on("mariadb")

ROWS = NOTES + 3


@pytest.mark.parametrize("way", ["names", "again"])
def test_columns_that_are_not_what_they_were(fresh: Sealed, way: str) -> None:
    """Two columns with each other's names; a column dropped and made anew."""
    if way == "names":
        fresh.attack(
            f"ALTER TABLE {HISTORY} RENAME COLUMN label TO aside",
            f"ALTER TABLE {HISTORY} RENAME COLUMN other TO label",
            f"ALTER TABLE {HISTORY} RENAME COLUMN aside TO other",
        )
    else:
        fresh.attack(f"ALTER TABLE {HISTORY} DROP COLUMN label", f"ALTER TABLE {HISTORY} ADD COLUMN label VARCHAR(80)")
    found = fresh.found(continuity=False)
    assert {kind for kind, _table, _row in found} == {"row-changed"}
    assert len(found) == ROWS


def test_a_column_that_is_gone(fresh: Sealed) -> None:
    """It is named, and so is a table that is gone."""
    fresh.attack(f"ALTER TABLE {HISTORY} DROP COLUMN label")
    assert fresh.found() == {("column-missing", HISTORY, None)}
    fresh.attack("DROP TABLE tag_history")
    assert fresh.found() == {("column-missing", HISTORY, None), ("table-missing", "tag_history", None)}


@pytest.mark.only_on("postgresql", "mariadb")
def test_a_column_of_another_type(fresh: Sealed) -> None:
    """A type whose form is another one is reported by name; one value changed on the way is found in its row."""
    fourth = row(fresh, 4)
    if fresh.database.dialect == "postgresql":
        using = f"CASE WHEN audit_id = {fourth} THEN 'forged' ELSE label END"
        fresh.attack(f"ALTER TABLE {HISTORY} ALTER label TYPE varchar(90) USING {using}")
        assert fresh.found() == {("row-changed", HISTORY, fourth)}
        fresh.attack(f"ALTER TABLE {HISTORY} ALTER rate TYPE numeric")
    else:
        fresh.attack(f"ALTER IGNORE TABLE {HISTORY} MODIFY label VARCHAR(90) CHARACTER SET ascii")  # é becomes ?
        assert {kind for kind, _table, _row in fresh.found()} == {"row-changed"}
        fresh.attack(f"ALTER TABLE {HISTORY} MODIFY rate DECIMAL(10, 5)")
    assert ("column-retyped", HISTORY, None) in fresh.found()


@pytest.mark.only_on("mariadb")
def test_tables_that_change_their_names(fresh: Sealed) -> None:
    """A table of the same columns, with other rows, in place of the true one."""
    fresh.attack(
        f"CREATE TABLE forged LIKE {HISTORY}",
        f"INSERT INTO forged SELECT * FROM {HISTORY} WHERE id <> 4",
        f"RENAME TABLE {HISTORY} TO aside, forged TO {HISTORY}",
    )
    assert {(kind, table) for kind, table, _row in fresh.found()} == {("row-missing", HISTORY)}


def test_a_view_in_place_of_a_table(fresh: Sealed) -> None:
    """A view that leaves a row out."""
    fourth = row(fresh, 4)
    with fresh.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {HISTORY} RENAME TO aside")
        connection.exec_driver_sql(f"CREATE VIEW {HISTORY} AS SELECT * FROM aside WHERE audit_id <> {fourth}")
    found = {each for each in fresh.found() if each[1] == HISTORY}
    assert found == {("row-missing", HISTORY, fourth), ("table-replaced", HISTORY, None)}


@pytest.mark.only_on("postgresql", "sqlite")
def test_a_row_that_is_there_twice(fresh: Sealed) -> None:
    """Once nothing keeps ids apart, a second row of one id is found."""
    if fresh.database.dialect == "postgresql":
        with fresh.engine.connect() as connection:
            name = sa.inspect(connection).get_pk_constraint(HISTORY)["name"]
        fresh.attack(f"ALTER TABLE {HISTORY} DROP CONSTRAINT {name}")
        fresh.attack(f"INSERT INTO {HISTORY} SELECT * FROM {HISTORY} WHERE audit_id = {row(fresh, 4)}")
    else:
        fresh.attack(
            f"ALTER TABLE {HISTORY} RENAME TO aside",
            f"CREATE TABLE {HISTORY} AS SELECT * FROM aside UNION ALL SELECT * FROM aside WHERE audit_id = 4",
        )
    assert ("row-duplicated", HISTORY, row(fresh, 4)) in fresh.found()


def test_a_value_in_a_column_that_came_later(fresh: Sealed) -> None:
    """An added column alarms nobody, but for a value in a row that was sealed without it."""
    fresh.attack(f"ALTER TABLE {HISTORY} ADD COLUMN extra INTEGER")
    assert fresh.found() == set()
    write(fresh.engine, 201, 202)
    fresh.seal()
    assert fresh.found() == set()
    fresh.attack(f"UPDATE {HISTORY} SET extra = 5 WHERE audit_id = {row(fresh, 4)}")
    assert fresh.found() == {("value-unsealed", HISTORY, row(fresh, 4))}


# -- what must not alarm -----------------------------------------------------------------


def test_rollbacks_and_what_is_not_sealed_yet(sealed: Sealed) -> None:
    """Gaps in ids are no finding; rows that wait are counted."""
    for _turn in range(2):
        with sa_audit.context(actor="carol"), Session(sealed.engine) as session:
            session.add(note(301))
            session.flush()
            session.rollback()
    amend(sealed.engine, 2)
    report = sealed.verify()
    assert (report.findings, report.unsealed) == ((), 2)
    sealed.seal()
    report = sealed.verify()
    assert (report.findings, report.unsealed) == ((), 0)


@pytest.mark.needs("concurrent-writers")
def test_a_transaction_open_across_sealings(sealed: Sealed) -> None:
    """Its rows have lower ids than those of others that were sealed before."""
    with sa_audit.context(actor="late"), Session(sealed.engine) as late:
        late.add(note(401))
        late.flush()
        for number in range(3, 6):
            amend(sealed.engine, number)
            sealed.seal()
            assert sealed.found() == set()
        late.commit()
    sealed.seal()
    report = sealed.verify()
    assert (report.findings, report.unsealed) == ((), 0)


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("two-phase")
def test_prepared_and_elsewhere_across_ten_sealings(sealed: Sealed) -> None:
    """A transaction that is prepared, and a writer in another database, hold nobody up and alarm nobody."""
    elsewhere = sa.create_engine(sealed.database.url.set(database="postgres"))
    with sa_audit.context(actor="late"), Session(sealed.engine, twophase=True) as late, elsewhere.connect() as other:
        other.exec_driver_sql("SELECT pg_current_xact_id()")
        late.add(note(402))
        late.prepare()
        for number in range(10):
            amend(sealed.engine, 1 + number)
            sealed.seal()
        report = sealed.verify()
        assert (report.findings, report.unsealed) == ((), 0)  # the prepared rows are nobody's yet
        late.commit()
        other.rollback()
    elsewhere.dispose()
    assert sealed.verify().unsealed == 2
    sealed.seal()
    report = sealed.verify()
    assert (report.findings, report.unsealed) == ((), 0)


@pytest.mark.only_on("postgresql")
def test_a_rewritten_table_and_a_wider_scale(fresh: Sealed) -> None:
    """VACUUM FULL, and more digits behind the point."""
    fresh.attack(f"ALTER TABLE {HISTORY} ALTER amount TYPE numeric(20, 8)")
    with fresh.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM FULL {HISTORY}")
    assert fresh.found() == set()


def test_keys_that_rotate(sealed: Sealed) -> None:
    """By overlap: a reader who has both keys, or the one that signs, sees no break."""
    second = Signer.generate(ORIGIN)
    amend(sealed.engine, 7)
    sealed.seal(signer=[sealed.signer, second])
    amend(sealed.engine, 8)
    sealed.seal(signer=[second])
    both = Policy.of(sealed.signer.verifier, second.verifier)
    report = sealed.verify(policy=both)
    assert report.findings == ()
    assert report.checkpoint is not None
    assert {line.key_id for line in report.checkpoint.signatures} == {second.verifier.key_id}


def test_more_workers(sealed: Sealed) -> None:
    """Two processes find what one finds."""
    sealed.attack(f"DELETE FROM {HISTORY} WHERE audit_id = {row(sealed, 6)}")
    one, two = sealed.verify(), sealed.verify(workers=2)
    assert one == two


def test_more_processes(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log is long enough for processes of their own, they find what one finds, in rows and changes."""
    write(sealed.engine, 501, 510)
    sealed.seal()
    sealed.attack(f"DELETE FROM {HISTORY} WHERE audit_id = {row(sealed, 6)}")
    one = sealed.verify()
    for module in ("log", "operations"):
        monkeypatch.setattr(f"sa_audit.verification.{module}.GROUP", 5)
    two = sealed.verify(workers=2)
    assert one.findings
    assert one == two


def test_since_a_checkpoint(sealed: Sealed) -> None:
    """Rows of older leaves are not read again, and the log has to be that of the checkpoint."""
    before = sealed.verify()
    held = before.checkpoint
    write(sealed.engine, 501, 510)
    sealed.seal()
    everything = sealed.verify()
    newer = sealed.verify(anchored=False, since=held)
    assert newer.findings == ()
    assert everything.checked - newer.checked == before.checked
    assert newer.since == (held.size if held else 0)
