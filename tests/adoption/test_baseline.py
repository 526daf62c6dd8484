"""Rows that stood in a table before its audit are carried into the history in batches, while writers go on."""

from __future__ import annotations

import datetime as dt
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.adoption import Step, baseline
from tests.adoption.models import fill, shop
from tests.databases import Database
from tests.migrate.project import Project, refused

ROWS = 25


@pytest.fixture
def base() -> Any:
    """The shop's models."""
    return shop()


@pytest.fixture
def project(tmp_path: Path, database: Database, engine: sa.Engine, base: Any) -> Project:
    """A project over a shop with rows, whose migration leaves them to the command."""
    fill(engine, base, ROWS)
    project = Project(tmp_path, database.url, base.metadata)
    project.text = project.migrate(audit_baseline="later")
    return project


def _now(engine: sa.Engine) -> dt.datetime:
    """Give the clock that the trail goes by."""
    clocks = {"postgresql": "clock_timestamp() AT TIME ZONE 'UTC'", "mariadb": "UTC_TIMESTAMP(6)"}
    clock = clocks.get(engine.dialect.name.replace("mysql", "mariadb"))
    if clock is None:
        return dt.datetime.now(dt.UTC)
    with engine.connect() as connection:
        now: dt.datetime = connection.execute(sa.text(f"SELECT {clock}")).scalar_one()
        return now.replace(tzinfo=dt.UTC)


def _ops(engine: sa.Engine, base: Any, name: str = "item") -> dict[Any, str]:
    """Give the operations of each key in the order of their ids."""
    history = base.metadata.tables[f"{name}_history"]
    key = history.c.id if name == "item" else history.c.order_id
    found: dict[Any, str] = {}
    with engine.connect() as connection:
        for row in connection.execute(sa.select(key, history.c.audit_op).order_by(history.c.audit_id)):
            found[row[0]] = found.get(row[0], "") + row[1]
    return found


def _unrecorded(engine: sa.Engine, model: Any) -> list[Any]:
    with Session(engine) as session:
        return [(found.kind, found.identity) for found in sa_audit.reconcile(session, model)]


@pytest.mark.every_server
def test_rows_are_carried_in_by_batches(project: Project, base: Any, engine: sa.Engine) -> None:
    """Each row gets one `B`, in entries of a batch each; the state is as stored, and a second run finds nothing."""
    item, line = base.models["Item"], base.models["Line"]
    with Session(engine) as session:
        assert session.execute(sa.select(sa.func.count()).select_from(item)).scalar() == ROWS
    assert "INSERT INTO item_history" not in project.text
    assert "sa-audit baseline" in project.text
    steps: list[Step] = []
    (done,) = baseline(engine, item, actor="release:12", reason="first trail", batch=10, progress=steps.append)
    assert (done.table, done.rows, done.batches) == ("item", ROWS, 3)
    assert [step.rows for step in steps] == [10, 10, 5]
    assert done.longest == max(step.locked for step in steps) > 0
    (lines,) = baseline(engine, line, batch=7)
    assert lines.rows == ROWS
    with Session(engine) as session:
        assert list(sa_audit.reconcile(session, item)) == []
        assert list(sa_audit.reconcile(session, line)) == []
        (change,) = sa_audit.history(session, item, 7)
        assert (change.operation, change.actor) == ("baseline", "release:12")
        assert change.reason == "sa_audit: baseline of item, first trail"
        assert change.state["name"] == "item 7"
        assert change.state["code"] is sa_audit.Masked
    assert baseline(engine, item)[0].rows == 0
    assert set(_ops(engine, base).values()) == {"B"}
    project.check()


@pytest.mark.every_server
def test_the_past_is_refused_until_the_baseline_is_complete(project: Project, base: Any, engine: sa.Engine) -> None:
    """`as_of`, `diff` and `restore` refuse moments at which rows would be missing; `reconcile` yields the rows."""
    item = base.models["Item"]
    assert len(_unrecorded(engine, item)) == ROWS
    with Session(engine) as session:  # recorded by the application meanwhile
        session.get_one(item, 3).name = "changed"
        session.commit()
    during = _now(engine)
    with pytest.raises(sa_audit.InvalidMoment, match=r"baseline of table item was not complete.*sa-audit baseline"):
        _as_of(engine, during, item)
    with Session(engine) as session, pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        sa_audit.diff(session, item, 3, during, during)
    with Session(engine) as session, pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        sa_audit.restore(session, item, 4, during)
    with pytest.raises(RuntimeError, match="killed"):
        baseline(engine, item, batch=10, progress=_kill)
    assert len(_unrecorded(engine, item)) == ROWS - 11
    with pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        _as_of(engine, _now(engine), item)
    baseline(engine, item, batch=10)
    after = _now(engine)
    assert _as_of(engine, after, item) == ROWS
    assert _unrecorded(engine, item) == []
    with pytest.raises(sa_audit.InvalidMoment, match=r"not complete.*it is since .*: give a later moment"):
        _as_of(engine, during, item)


def _kill(step: Step) -> None:
    raise RuntimeError("killed")


def _as_of(engine: sa.Engine, when: Any, model: Any) -> int:
    with sa_audit.as_of(engine, when) as past:
        return len(past.scalars(sa.select(model)).all())


@pytest.mark.needs("snapshots")
def test_a_snapshot_is_refused_until_then(project: Project, base: Any, engine: sa.Engine) -> None:
    """What a snapshot saw is told from the notes that it could see."""
    item = base.models["Item"]
    snapshot = sa.text("SELECT CAST(pg_current_snapshot() AS text)")
    with engine.connect() as connection:
        before = connection.scalar(snapshot)
    baseline(engine, item)
    with engine.connect() as connection:
        after = connection.scalar(snapshot)
    with pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        _as_of(engine, before, item)
    assert _as_of(engine, after, item) == ROWS


@pytest.mark.every_server
def test_rows_with_history_are_left_out(project: Project, base: Any, engine: sa.Engine) -> None:
    """A row that was recorded before the run gets no baseline: changed, new, gone, or come again."""
    item = base.models["Item"]
    with Session(engine) as session:
        session.get_one(item, 1).name = "changed"
        session.delete(session.get_one(item, 2))
        session.delete(session.get_one(item, 3))
        session.add(item(id=100, name="new", price=1))
        session.flush()
        session.add(item(id=3, name="again", price=1))
        session.commit()
    assert baseline(engine, item)[0].rows == ROWS - 3
    ops = _ops(engine, base)
    assert {key: ops[key] for key in (1, 2, 3, 100)} == {1: "U", 2: "D", 3: "DI", 100: "I"}
    assert _unrecorded(engine, item) == []


def test_tables_that_the_database_records(tmp_path: Path, database: Database, engine: sa.Engine, base: Any) -> None:
    """Trigger capture makes no difference: what it recorded is left out, and the rest carried in."""
    item = base.models["Item"]
    sa_audit.configure(base, capture="trigger")
    fill(engine, base, ROWS)
    Project(tmp_path, database.url, base.metadata).migrate(audit_baseline="later")
    with closing(engine.raw_connection()) as raw:
        raw.cursor().execute("UPDATE item SET name = 'by hand' WHERE id = 4")
        raw.commit()
    assert baseline(engine, item, batch=10)[0].rows == ROWS - 1
    ops = _ops(engine, base)
    assert (ops.pop(4), set(ops.values())) == ("U", {"B"})
    assert _unrecorded(engine, item) == []
    assert _as_of(engine, _now(engine), item) == ROWS


@pytest.mark.needs("concurrent-writers")
def test_a_row_that_is_held_is_left_for_later(project: Project, base: Any, engine: sa.Engine) -> None:
    """What an open transaction holds is not waited for; it gets a baseline only if it has no history in the end."""
    item = base.models["Item"]
    with Session(engine) as session, closing(engine.raw_connection()) as raw:
        session.get_one(item, 5).name = "changed"
        session.flush()
        raw.cursor().execute("UPDATE item SET name = 'past the trail' WHERE id = 6")
        start = time.monotonic()
        with pytest.raises(sa_audit.Conflict, match=r"2 rows of item, such as \(5,\), were held"):
            baseline(engine, item, patience=0.3)
        assert time.monotonic() - start < 5
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.extend(baseline(engine, item)))
        thread.start()
        time.sleep(0.3)
        raw.commit()
        session.commit()
        thread.join()
    assert done[0].rows == 1
    ops = _ops(engine, base)
    assert (ops[5], ops[6]) == ("U", "B")
    assert _unrecorded(engine, item) == []
    with Session(engine) as session:
        assert sa_audit.history(session, item, 6)[0].state["name"] == "past the trail"


@pytest.mark.needs("concurrent-writers")
def test_writers_go_on_meanwhile(project: Project, base: Any, engine: sa.Engine) -> None:
    """Under four writers every row's last record is its state, and no baseline follows a change."""
    item = base.models["Item"]
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                with Session(engine) as session:
                    found = session.get(item, 1 + (turn * (number + 3)) % ROWS)
                    if found is None:
                        session.add(item(id=1000 * number + turn, name="new", price=1))
                    elif turn % 7 == 0:
                        session.delete(found)
                    else:
                        found.price += 1
                    session.commit()
            except (sa.orm.exc.StaleDataError, sa.exc.SAWarning, sa_audit.UnauditedWrite):
                continue  # another writer came first
            except BaseException as error:  # noqa: BLE001 (told to the test)
                failures.append(error)
                return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    baseline(engine, item, batch=3, progress=lambda step: time.sleep(0.02))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert _unrecorded(engine, item) == []
    assert all("B" not in ops[1:] for ops in _ops(engine, base).values())


@pytest.mark.needs("concurrent-writers")
@pytest.mark.only_on("postgresql")
def test_a_lost_connection_leaves_whole_batches(project: Project, base: Any, engine: sa.Engine) -> None:
    """When the server ends the session within a batch, what was committed stands, and the next run does the rest."""
    item = base.models["Item"]

    def cut(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("INSERT INTO item_history") and len(steps) == 1:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    steps: list[Step] = []
    sa.event.listen(engine, "before_cursor_execute", cut)
    with pytest.raises(sa.exc.OperationalError):
        baseline(engine, item, batch=10, progress=steps.append)
    sa.event.remove(engine, "before_cursor_execute", cut)
    assert len(_ops(engine, base)) == 10
    assert baseline(engine, item, batch=10)[0].rows == ROWS - 10
    assert set(_ops(engine, base).values()) == {"B"}


def test_a_table_made_by_create_all(base: Any, engine: sa.Engine) -> None:
    """Without a migration the run itself notes the beginning; the past is refused from there to the end."""
    item = base.models["Item"]
    fill(engine, base, ROWS)
    base.metadata.create_all(engine)
    with pytest.raises(RuntimeError, match="killed"):
        baseline(engine, item, batch=10, progress=_kill)
    with pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        _as_of(engine, _now(engine), item)
    baseline(engine, item)
    assert _as_of(engine, _now(engine), item) == ROWS


def test_rows_past_the_trail_do_not_close_the_past(base: Any, engine: sa.Engine) -> None:
    """A baseline of a few rows in a table with history takes no moment away."""
    item = base.models["Item"]
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(item(id=1, name="a", price=1))
        session.commit()
    with closing(engine.raw_connection()) as raw:
        raw.cursor().execute("INSERT INTO item (id, name, price, kind) VALUES (2, 'raw', 1, 'OPEN')")
        raw.commit()
    between = _now(engine)
    assert baseline(engine, item)[0].rows == 1
    assert _as_of(engine, between, item) == 1


def test_the_migration_can_be_undone_until_something_is_recorded(
    project: Project, base: Any, engine: sa.Engine
) -> None:
    """The batches are baselines, so a downgrade drops them; a new upgrade leaves the past closed again."""
    item = base.models["Item"]
    baseline(engine, item)
    project.downgrade("base")
    project.upgrade()
    with pytest.raises(sa_audit.InvalidMoment, match="not complete"):
        _as_of(engine, _now(engine), item)
    baseline(engine, item)
    assert _as_of(engine, _now(engine), item) == ROWS
    with Session(engine) as session:
        session.get_one(item, 1).name = "changed"
        session.commit()
    with refused():
        project.downgrade("base")


class TestRefusals:
    """What can't be carried in is refused before anything is written."""

    def test_no_history(self, base: Any, engine: sa.Engine) -> None:
        """A database without the trail."""
        fill(engine, base, 1)
        with pytest.raises(sa_audit.CaptureMissing, match="lacks item_history"):
            baseline(engine, base.models["Item"])

    def test_no_actor(self, base: Any, engine: sa.Engine) -> None:
        """No actor where the configuration requires one."""
        sa_audit.configure(base, require_actor=True)
        base.metadata.create_all(engine)
        with pytest.raises(sa_audit.ActorRequired, match="baseline of item needs an actor"):
            baseline(engine, base.models["Item"])

    def test_bad_batch(self, base: Any, engine: sa.Engine) -> None:
        """A batch of nothing."""
        with pytest.raises(sa_audit.ConfigurationError, match="batch=0"):
            baseline(engine, base.models["Item"], batch=0)

    def test_bad_option(self, tmp_path: Path, database: Database, engine: sa.Engine, base: Any) -> None:
        """Another word than now and later."""
        fill(engine, base, 1)
        with pytest.raises(sa_audit.ConfigurationError, match="audit_baseline=never: give now or later"):
            Project(tmp_path, database.url, base.metadata).revision(audit_baseline="never")


def test_a_table_without_key_is_recorded_by_the_migration(
    tmp_path: Path, database: Database, engine: sa.Engine
) -> None:
    """Rows without primary key can't be told apart batch by batch."""
    metadata = sa.MetaData()
    parent = sa.Table("parent", metadata, sa.Column("id", sa.Integer, primary_key=True))
    pair = sa.Table("pair", metadata, sa.Column("parent_id", sa.ForeignKey("parent.id"), nullable=False))
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(parent), [{"id": 1}])
        connection.execute(sa.insert(pair), [{"parent_id": 1}, {"parent_id": 1}])
    sa_audit.track(pair)
    sa_audit.track(parent)
    Project(tmp_path, database.url, metadata).migrate(audit_baseline="later")
    assert _unrecorded(engine, pair) == []
    assert len(_unrecorded(engine, parent)) == 1
    with pytest.raises(sa_audit.ConfigurationError, match="pair has no primary key"):
        baseline(engine, pair)
