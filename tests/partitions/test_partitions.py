"""History by month on PostgreSQL: recorded, read, guarded and checked like any other, and no write is ever stopped."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, ConfigurationError
from sa_audit.testing import unguarded
from tests.databases import Database

from .models import findings, findings_on, ledger, months, partition, run, use, where


@pytest.fixture(params=["session", "trigger"])
def base(request: pytest.FixtureRequest, engine: sa.Engine) -> Any:
    """The models, with their tables."""
    made = ledger(testing=True, capture=request.param)
    made.metadata.create_all(engine)
    return made


@pytest.mark.only_on("postgresql")
def test_the_history_by_month_is_written_and_read_as_any_other(engine: sa.Engine, base: Any) -> None:
    """This month's partition takes the rows; all questions are answered, and a restore works."""
    use(engine, base)
    assert set(where(engine)) == {partition(months(0)[0])}
    assert findings(engine, base) == set()
    with engine.connect() as connection:
        moment = connection.scalar(sa.text("SELECT clock_timestamp()"))
    with sa_audit.context(actor="eve"), Session(engine) as session:
        session.delete(session.get_one(base.model, 1))
        session.commit()
        assert [change.operation for change in sa_audit.history(session, base.model, 1)] == [
            *("insert", "update", "delete")
        ]
        page = sa_audit.trail(session, base=base)
        assert [entry.actor for entry in page.entries] == ["clerk", "clerk", "eve"]
        assert list(sa_audit.reconcile(session, base.model)) == []
        sa_audit.restore(session, base.model, 1, moment)
        session.commit()
    with sa_audit.as_of(engine, moment) as past:
        assert past.get_one(base.model, 1).text == "b"
    with Session(engine) as session:
        assert session.get_one(base.model, 1).text == "b"


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_each_partition_is_append_only(engine: sa.Engine, base: Any) -> None:
    """Nothing goes past the guards by naming a partition, also under `session_replication_role`, nor after fixtures."""
    use(engine, base)
    names = ["booking_history", partition(months(0)[0]), "booking_history_default"]
    with unguarded(engine):
        run(engine, "DELETE FROM booking_history WHERE audit_op = 'U'")
    assert findings(engine, base) == set()
    for name in names:
        for statement in (f"TRUNCATE {name}", f"DELETE FROM {name}", f"UPDATE {name} SET audit_op = 'X'"):
            if name.endswith("default") and not statement.startswith("TRUNCATE"):
                continue  # it holds no row that a row's guard could keep
            with pytest.raises(sa.exc.DBAPIError, match="append-only"):
                run(engine, "SET session_replication_role = replica", statement)
        at = "'1999-01-01'" if name.endswith("default") else "recorded_at"
        with pytest.raises(sa.exc.DBAPIError, match="does not belong to the current transaction"):
            run(
                engine,
                f"INSERT INTO {name} (audit_tx, audit_op, audit_at, id) SELECT id, 'I', {at}, 9 FROM audit_transaction",
            )


@pytest.mark.only_on("postgresql")
def test_a_missing_partition_stops_no_write(engine: sa.Engine, base: Any) -> None:
    """The default partition takes what has no month, and check says so, as it does of months to come."""
    run(engine, f"DROP TABLE {partition(months(0)[0])}", f"DROP TABLE {partition(months(1)[1])}")
    assert findings(engine, base) == {("missing-partition", "booking_history")}
    use(engine, base)
    assert set(where(engine)) == {"booking_history_default"}
    assert findings(engine, base) == {
        ("missing-partition", "booking_history"),
        ("rows-in-default-partition", "booking_history"),
    }


SPOILED = {
    "a statement's guard is gone": (
        "unguarded-partition",
        ["DROP TRIGGER sa_audit_guard_truncate ON {part}"],
    ),
    "a guard is off": ("unguarded-partition", ["ALTER TABLE {part} DISABLE TRIGGER sa_audit_guard_truncate"]),
    "a guard is an ordinary one": ("unguarded-partition", ["ALTER TABLE {part} ENABLE TRIGGER sa_audit_guard_row"]),
    "a partition by hand": (
        "unguarded-partition",
        ["CREATE TABLE part PARTITION OF booking_history FOR VALUES FROM ('1999-01-01') TO ('1999-02-01')"],
    ),
    "a right": ("partition-rights", ["GRANT SELECT ON {part} TO PUBLIC"]),
    "detached": ("detached-partition", ["ALTER TABLE booking_history DETACH PARTITION {part}"]),
    "no default": ("altered-partitions", ["DROP TABLE booking_history_default"]),
    "no partitions": (
        "not-partitioned",
        ["ALTER TABLE booking_history RENAME TO aside", "CREATE TABLE booking_history (LIKE aside)"],
    ),
}


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_what_is_spoiled_is_named(engine: sa.Engine) -> None:
    """Each is a finding of its kind."""
    base = ledger(testing=True)
    base.metadata.create_all(engine)
    for name, (wanted, statements) in SPOILED.items():
        with engine.connect() as connection, connection.begin() as transaction:
            for statement in statements:
                connection.exec_driver_sql(statement.format(part=partition(months(0)[0])))
            found = {kind for kind, _place in findings_on(connection, base)}
            transaction.rollback()
        assert wanted in found, name
    assert findings(engine, base) == set()


def test_on_other_databases_it_is_a_plain_table(engine: sa.Engine, database: Database) -> None:
    """The option changes nothing for what records and reads."""
    base = ledger(testing=True)
    base.metadata.create_all(engine)
    use(engine, base)
    with Session(engine) as session:
        assert len(sa_audit.history(session, base.model, 1)) == 2
    assert findings(engine, base) == set()


@pytest.mark.only_on("postgresql")
def test_long_and_odd_names(engine: sa.Engine) -> None:
    """Names are cut by a hash where they would be too long, and quoted where they have to be."""
    base = ledger(partition="month")
    long, odd = "x" * 55, 'O"dd %s:n'
    for name in (long, odd):
        table = sa.Table(name, base.metadata, sa.Column("id", sa.Integer, primary_key=True))
        sa_audit.track(table)
    base.metadata.create_all(engine)
    for name in (long, odd):
        with engine.begin() as connection:
            connection.execute(sa.insert(base.metadata.tables[name]).values(id=1))
    assert findings(engine, base) == set()


@pytest.mark.parametrize("partition", ["year", "", 1, True])
def test_another_period_is_refused(partition: Any) -> None:
    """The error names the value."""
    with pytest.raises(ConfigurationError, match=f"partition={partition!r}"):
        AuditOptions(partition=partition)
    with pytest.raises(ConfigurationError, match=f"partition={partition!r}"):
        ledger(partition=partition)


def test_the_configuration_is_inherited_and_comes_in_time() -> None:
    """`configure(partition=)` holds for all models, also those that were declared before, and not once in use."""
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table)
    sa_audit.configure(metadata, partition="month")
    assert metadata.tables["t_history"].dialect_options["postgresql"]["partition_by"] == "RANGE (audit_at)"
    other = sa.MetaData()
    sa_audit.track(sa.Table("t", other, sa.Column("id", sa.Integer, primary_key=True)))
    engine = sa.create_engine("sqlite://")
    other.create_all(engine)
    with pytest.raises(ConfigurationError, match=r"partition='month'.*too late"):
        sa_audit.configure(other, partition="month")
    engine.dispose()
