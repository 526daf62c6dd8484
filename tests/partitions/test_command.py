"""`sa-audit partitions`: makes what is coming, and moves what came too early, without harm to what was sealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner

import sa_audit
from sa_audit.cli.app import app
from sa_audit.cli.partitions import make_partitions
from sa_audit.model import complete
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.databases import Database

from .declared import Base
from .models import findings, ledger, months, partition, run, use, where


@pytest.fixture
def command(database: Database) -> Callable[..., Any]:
    """Return a function that runs the command, and gives what it printed as JSON."""

    def invoke(*arguments: str, code: int = 0) -> Any:
        url = database.url.render_as_string(hide_password=False)
        given = ["partitions", *arguments, "--url", url, "--models", "tests.partitions.declared:Base", "--json"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if code < 2 else result.output

    return invoke


@pytest.mark.only_on("postgresql")
def test_the_coming_months_are_made_once(engine: sa.Engine, command: Callable[..., Any]) -> None:
    """A dry run says what would be made; then it is made, guarded, and there is nothing left to make."""
    Base.metadata.create_all(engine)
    names = [f"{month:%Y-%m}" for month in months(6)]
    planned = {"table": "booking_history", "made": names[4:], "default": {}, "moved": {}}
    assert command("--months", "6", "--dry-run") == {"dry_run": True, "tables": [planned]}
    assert command("--months", "6") == {"dry_run": False, "tables": [planned]}
    assert command("--months", "6")["tables"] == [{**planned, "made": []}]
    run(engine, f"DROP TRIGGER sa_audit_guard_truncate ON {partition(months(1)[1])}")
    assert findings(engine, Base) == {("unguarded-partition", partition(months(1)[1]))}
    command()
    assert findings(engine, Base) == set()


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_rows_that_came_too_early_are_moved_and_stay_proven(
    engine: sa.Engine, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Their month can't be made before; after the move all rows verify, and a checkpoint shows what it showed."""
    Base.metadata.create_all(engine)
    this, following = months(1)
    run(engine, f"DROP TABLE {partition(this)}", f"DROP TABLE {partition(following)}")
    use(engine, Base)
    signer = Signer.generate("bank.example/audit")

    def sealed() -> Any:
        return seal(engine, signer, state=tmp_path / "state", metadata=Base)

    checkpoint = sealed()
    name = f"{this:%Y-%m}"
    planned = command("--dry-run", code=1)["tables"][0]
    assert (planned["made"], planned["default"]) == ([f"{following:%Y-%m}"], {name: 2})
    done = command(code=1)["tables"][0]
    assert done == planned
    assert set(where(engine)) == {"booking_history_default"}
    assert findings(engine, Base) == {("rows-in-default-partition", "booking_history")}
    moved = command("--move", "--actor", "dba", "--reason", "late")["tables"][0]
    assert moved == {"table": "booking_history", "made": [name], "default": {}, "moved": {name: 2}}
    assert set(where(engine)) == {partition(this)}
    assert findings(engine, Base) == set()
    use(engine, Base, 2)
    sealed()
    report = verify(engine, signer.verifier, metadata=Base)
    assert report.findings == ()
    with sa_audit.as_of(engine, checkpoint) as past:
        assert [one.text for one in past.scalars(sa.select(Base.model))] == ["b"]
    with Session(engine) as session:
        (event,) = sa_audit.trail(session, base=Base, operation="event").entries
    assert (event.actor, event.reason, event.action) == ("dba", "late", "sa_audit.partitioned")
    assert event.data["rows"] == {name: 2}
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        run(engine, f"DELETE FROM {partition(this)}")
    run(engine, f"ALTER TABLE booking_history DETACH PARTITION {partition(this)}")
    assert {each.table for each in verify(engine, signer.verifier, metadata=Base).findings} == {"booking_history"}
    begin, end = (f"'{month:%Y-%m-%d} 00:00:00+00'" for month in (this, following))
    run(engine, f"ALTER TABLE booking_history ATTACH PARTITION {partition(this)} FOR VALUES FROM ({begin}) TO ({end})")
    command()
    told = [(each.kind, each.table) for each in verify(engine, signer.verifier, metadata=Base).findings]
    assert told == [
        ("guard-touched", f"booking_history_{this:%Y_%m}")
    ]  # who took it off may have changed it, and didn't
    assert findings(engine, Base) == set()


@pytest.mark.only_on("postgresql")
def test_a_partition_that_a_copy_replaces_is_found(
    engine: sa.Engine, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Rows and guards are the same, and no move was recorded."""
    Base.metadata.create_all(engine)
    use(engine, Base)
    signer = Signer.generate("bank.example/audit")
    seal(engine, signer, state=tmp_path / "state", metadata=Base)
    this, following = months(1)
    part = partition(this)
    begin, end = (f"'{month:%Y-%m-%d} 00:00:00+00'" for month in (this, following))
    run(
        engine,
        f"ALTER TABLE booking_history DETACH PARTITION {part}",
        f"ALTER TABLE {part} RENAME TO former",
        f"CREATE TABLE {part} (LIKE former INCLUDING DEFAULTS)",
        f"INSERT INTO {part} SELECT * FROM former",
        f"ALTER TABLE booking_history ATTACH PARTITION {part} FOR VALUES FROM ({begin}) TO ({end})",
        "DROP TABLE former",
    )
    command()
    told = {(each.kind, each.table) for each in verify(engine, signer.verifier, metadata=Base).findings}
    assert told == {("table-replaced", part)}


@pytest.mark.only_on("postgresql")
def test_a_copy_that_differs_changes_nothing(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are only dropped where others hold the very same; otherwise everything stays as it was."""
    base = ledger(testing=True)
    base.metadata.create_all(engine)
    run(engine, f"DROP TABLE {partition(months(0)[0])}")
    use(engine, base)
    numbers = iter(range(10))
    monkeypatch.setattr("sa_audit.cli.moving._digest", lambda *_given: (next(numbers), None))
    trail = complete(base.metadata)
    assert trail is not None
    with pytest.raises(sa_audit.AuditError, match="nothing was changed"):
        make_partitions(engine, trail, move=True)
    assert set(where(engine)) == {"booking_history_default"}
    with Session(engine) as session:
        assert len(sa_audit.history(session, base.model, 1)) == 2


@pytest.mark.only_on("postgresql")
def test_writers_are_not_held_up(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Months are made beside an open writer, who goes on; who reads all of the history is not waited for long."""
    base = ledger()
    base.metadata.create_all(engine)
    trail = complete(base.metadata)
    assert trail is not None
    monkeypatch.setattr("sa_audit.cli.partitions.PATIENCE", 300)
    with Session(engine) as session:
        session.add(base.model(id=1, text="a"))
        session.flush()
        assert list(make_partitions(engine, trail, months=4).tables[0].made) == months(4)[4:]
        session.get_one(base.model, 1).text = "b"
        session.commit()
        sa_audit.history(session, base.model, 1)
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            make_partitions(engine, trail, months=5)
    assert list(make_partitions(engine, trail, months=5).tables[0].made) == months(5)[5:]


@pytest.mark.only_on("postgresql")
def test_a_plain_table_is_refused(engine: sa.Engine, command: Callable[..., Any]) -> None:
    """What can't have partitions is named."""
    Base.metadata.create_all(engine)
    run(engine, "DROP TABLE booking_history", "CREATE TABLE booking_history (id int)")
    assert "booking_history is a plain table" in command(code=3)


@pytest.mark.only_on("sqlite", "mariadb")
def test_another_database_is_refused(engine: sa.Engine, command: Callable[..., Any]) -> None:
    """The sentence says which one keeps histories by month."""
    Base.metadata.create_all(engine)
    assert "only PostgreSQL keeps histories by month" in command(code=3)


@pytest.mark.only_on("postgresql")
def test_models_without_partitions_are_told_so(engine: sa.Engine) -> None:
    """There is nothing to make, and the way to it is named."""
    metadata = sa.MetaData()
    sa_audit.track(sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    trail = complete(metadata)
    assert trail is not None
    with pytest.raises(sa_audit.AuditError, match="partition='month'"):
        make_partitions(engine, trail)
