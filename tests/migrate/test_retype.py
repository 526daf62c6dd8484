"""A column gets a type that its recorded values don't fit: what was recorded is still answered, as it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import InvalidMoment, Mask, NotAudited
from tests.databases import Database
from tests.migrate.project import Project
from tests.migrate.test_follow import change, tables, write


def text() -> sa.MetaData:
    """Give a table whose ``ref`` is text."""
    return tables(sa.Column("ref", sa.String(20)))


def number(name: str = "ref") -> sa.MetaData:
    """Give the same one, whose ``ref`` is a number."""
    info = {"sa_audit.renamed_from": "ref"} if name != "ref" else {}
    return tables(sa.Column(name, sa.Integer, info=info))


@pytest.fixture
def now(engine: sa.Engine) -> Callable[[], dt.datetime]:
    """Return what asks the clock that moments are recorded by."""
    ask = {"postgresql": "SELECT clock_timestamp()", "mysql": "SELECT UTC_TIMESTAMP(6)"}

    def clock() -> dt.datetime:
        dialect = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
        if dialect not in ask:
            return dt.datetime.now(dt.UTC)
        with engine.connect() as connection:
            found: dt.datetime = connection.exec_driver_sql(ask[dialect]).scalar_one()
        return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found

    return clock


@pytest.fixture
def retyped(tmp_path: Path, database: Database, engine: sa.Engine, now: Any) -> tuple[Project, list[dt.datetime]]:
    """A project whose text became a number after a few changes; and a moment after each of these."""
    before = text()
    project = Project(tmp_path, database.url, before, compare_type=True)
    project.migrate()
    moments = []
    steps: list[tuple[int, dict[str, Any]]] = [
        (1, {"ref": "ninety"}),
        (1, {"ref": "12"}),
        (1, {"ref": None}),
        (1, {"ref": "abc"}),
        (2, {"ref": "gone"}),
    ]
    for place, (key, values) in enumerate(steps):
        if place in (0, 4):
            write(engine, before, id=key, **values)
        else:
            change(engine, before, key, **values)
        moments.append(now())
    with engine.begin() as connection, sa_audit.context(actor="alice"):
        table = before.tables["account"]
        connection.execute(sa.delete(table).where(table.c.id == 2))
    moments.append(now())
    retype(project, engine, number())
    moments.append(now())
    change(engine, project.metadata, 1, ref=7)
    moments.append(now())
    change(engine, project.metadata, 1, ref=None)
    change(engine, project.metadata, 1, ref=8)
    moments.append(now())
    return project, moments


def retype(project: Project, engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Change the type by a generated revision, into which the conversion is written by hand."""
    project.metadata = metadata
    project.revision()
    (file,) = project.directory.glob("versions/0002_*.py")
    written = file.read_text()
    if engine.dialect.name == "postgresql":
        mark = "type_=sa.Integer(),"
        assert written.count(mark) == 1
        written = written.replace(mark, f"{mark} postgresql_using='length(ref)',")
        file.write_text(written)
    else:  # the values are made to fit by a statement of its own, which is recorded by nobody
        place = written.index("def upgrade():") + len("def upgrade():\n")
        statement = 'op.get_bind().connection.cursor().execute("UPDATE account SET ref = length(ref)")'
        file.write_text(f"{written[:place]}    {statement}\n{written[place:]}")
    project.upgrade()
    project.check()


CHANGES = [
    (None, "ninety"),
    ("ninety", "12"),
    ("12", None),
    (None, "abc"),
    ("abc", 3),
    (3, 7),
    (7, None),
    (None, 8),
]


@pytest.mark.every_server
def test_history_gives_what_was_recorded(retyped: tuple[Project, list[dt.datetime]], engine: sa.Engine) -> None:
    """Values and before-values are of the type that they were recorded in; so are the trail's, diff's and blame's."""
    project, moments = retyped
    table = project.metadata.tables["account"]
    with Session(engine) as session:
        changes = sa_audit.history(session, table, 1)
        assert [each.diff["ref"] for each in changes] == CHANGES
        assert [each.state["ref"] for each in changes] == [after for _before, after in CHANGES]
        assert [each.former for each in changes] == [
            *[frozenset({"ref"}) if after is not None else frozenset() for _before, after in CHANGES[:4]],
            *[frozenset()] * 4,
        ]
        page = sa_audit.trail(session, base=project.metadata)
        shown = [each.diff["ref"] for each in page.entries if each.identity == (1,)]
        assert shown == [*CHANGES[:4], (None, 3), *CHANGES[5:]]  # which shows a baseline without the row before it
        assert sa_audit.diff(session, table, 1, moments[0], moments[-1]) == {"ref": ("ninety", 8)}
        assert sa_audit.blame(session, table, 1)["ref"].audit_id == changes[-1].audit_id
        gone = sa_audit.history(session, table, 2)
        assert [each.diff["ref"] for each in gone] == [(None, "gone"), ("gone", None)]


@pytest.mark.every_server
def test_the_past_shows_what_was_there(retyped: tuple[Project, list[dt.datetime]], engine: sa.Engine) -> None:
    """A moment before the change of type gives the values of then, which can be shown and not be compared."""
    project, moments = retyped
    table = project.metadata.tables["account"]
    seen = []
    for moment in moments:
        with sa_audit.as_of(engine, moment) as past:
            seen.append([tuple(row) for row in past.execute(sa.select(table).order_by(table.c.id))])
            assert past.scalars(sa.select(table.c.id).order_by(table.c.id)).all() == [row[0] for row in seen[-1]]
    assert seen == [
        [(1, "ninety")],
        [(1, "12")],
        [(1, None)],
        [(1, "abc")],
        [(1, "abc"), (2, "gone")],
        [(1, "abc")],
        [(1, 3)],
        [(1, 7)],
        [(1, 8)],
    ]
    with sa_audit.as_of(engine, moments[0]) as past, pytest.raises(NotAudited, match="another type"):
        past.execute(sa.select(table.c.id).where(table.c.ref == 3))
    with sa_audit.as_of(engine, moments[7]) as past:
        assert past.scalar(sa.select(table.c.id).where(table.c.ref == 7)) == 1
    with Session(engine) as session, sa_audit.as_of(session, moments[1]) as past:
        held = sa.select(table).subquery()
        assert past.scalar(sa.select(held.c.ref)) == "12"


def test_a_value_of_the_other_type_is_not_written_back(
    retyped: tuple[Project, list[dt.datetime]], engine: sa.Engine
) -> None:
    """Neither restore() nor revert() guesses what it is today."""
    project, moments = retyped
    table = project.metadata.tables["account"]
    with Session(engine) as session, sa_audit.context(actor="alice"):
        with pytest.raises(NotAudited, match="its column ref had another type"):
            sa_audit.restore(session, table, 1, moments[0])
        deleted = sa_audit.history(session, table, 2)[-1]
        with pytest.raises(NotAudited, match="its column ref had another type"):
            sa_audit.revert(session, deleted.transaction.id, base=project.metadata)
        assert sa_audit.restore(session, table, 1, moments[7])["ref"] == 7


@pytest.mark.slow
def test_a_second_name_and_a_second_type(
    retyped: tuple[Project, list[dt.datetime]], engine: sa.Engine, now: Any
) -> None:
    """A column that is renamed after it was retyped, and retyped again, is followed through all of it."""
    project, moments = retyped
    project.metadata = number("mark")
    project.migrate()
    project.metadata = tables(sa.Column("mark", sa.Float))
    project.migrate()
    change(engine, project.metadata, 1, mark=0.5)
    table = project.metadata.tables["account"]
    with Session(engine) as session:
        found = [each.diff["mark"] for each in sa_audit.history(session, table, 1) if "mark" in each.diff]
    assert found == [*CHANGES, (8, 0.5)] or found == [*CHANGES, (8.0, 0.5)]
    for moment, value in zip([*moments, now()], ["ninety", "12", None, "abc", "abc", "abc", 3, 7, 8, 0.5], strict=True):
        with sa_audit.as_of(engine, moment) as past:
            assert past.scalar(sa.select(table.c.mark).where(table.c.id == 1)) == value


@pytest.mark.slow
def test_a_change_of_type_taken_back(retyped: tuple[Project, list[dt.datetime]], engine: sa.Engine) -> None:
    """After a downgrade, the values of the newer type are those of another type."""
    project, _moments = retyped
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite's values keep the storage class that they were written in")
    project.downgrade()
    table = text().tables["account"]
    with Session(engine) as session:
        found = [each.state["ref"] for each in sa_audit.history(session, table, 1)]
    assert found[:4] == ["ninety", "12", None, "abc"]
    assert found[4:8] == [3, 7, None, 8]


@pytest.mark.filterwarnings("ignore:autoincrement and existing_autoincrement:UserWarning")  # Alembic's, of its own text
def test_a_key_of_another_type_is_refused(tmp_path: Path, database: Database, engine: sa.Engine, now: Any) -> None:
    """The rows of a moment at which the key was of another type can't be found by it, so none are shown."""

    def keyed(type_: Any) -> sa.MetaData:
        metadata = sa.MetaData()
        sa_audit.track(sa.Table("entry", metadata, sa.Column("code", type_, primary_key=True, autoincrement=False)))
        return metadata

    project = Project(tmp_path, database.url, keyed(sa.String(20)), compare_type=True)
    project.migrate()
    write(engine, project.metadata, "entry", code="12")
    moment = now()
    project.metadata = keyed(sa.Numeric(8, 2))
    text = project.revision()
    if engine.dialect.name == "postgresql":
        (file,) = project.directory.glob("versions/0002_*.py")
        mark = "type_=sa.Numeric(precision=8, scale=2),"
        file.write_text(text.replace(mark, f"{mark} postgresql_using='code::numeric',"))
    project.upgrade()
    table = project.metadata.tables["entry"]
    with sa_audit.as_of(engine, moment) as past, pytest.raises(InvalidMoment, match="key code of table entry"):
        past.execute(sa.select(table)).all()
    with sa_audit.as_of(engine, now()) as past:
        assert len(past.execute(sa.select(table)).all()) == 1
    with Session(engine) as session:
        assert list(sa_audit.reconcile(session, table)) == []


def test_a_lifted_mask_over_another_type(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """What was masked stays so, also in a column whose type can't be read from it."""
    before = tables(sa.Column("pin", sa.Integer, info={"sa_audit": Mask()}))
    project = Project(tmp_path, database.url, before)
    project.migrate()
    write(engine, before, id=1, pin=1)
    change(engine, before, 1, pin=2)
    project.metadata = tables(sa.Column("pin", sa.Integer))
    project.migrate()
    change(engine, project.metadata, 1, pin=3)
    with Session(engine) as session:
        found = [each.diff.get("pin") for each in sa_audit.history(session, project.metadata.tables["account"], 1)]
    assert found == [(None, None), (sa_audit.Masked, None), (None, 2), (2, 3)]
