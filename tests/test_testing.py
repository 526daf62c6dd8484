"""`sa_audit.testing.unguarded`: fixtures may clear the trail, where somebody said that this is a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.testing import unguarded
from tests.capture.recorded import check, entries_of, history_of, ops, trail_at

pytestmark = pytest.mark.wide_on("mariadb")


def declare(*, testing: bool) -> Any:
    """Declare a base with one audited class."""

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, testing=testing)

    class Fixture(Audited, Base):
        __tablename__ = "fixture_row"

        id: Mapped[int] = mapped_column(primary_key=True)

    return Fixture


def filled(engine: sa.Engine, *, testing: bool = True) -> Any:
    """Give a class with one recorded row."""
    entity = declare(testing=testing)
    entity.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(entity(id=1))
        session.commit()
    return entity


def guarded(engine: sa.Engine, entity: Any) -> bool:
    """Tell whether the database refuses to delete from every table of the trail."""
    for table in (history_of(entity), trail_at(entity).transaction):
        connection = engine.raw_connection()
        try:
            connection.cursor().execute(f"DELETE FROM {table.name}")
        except engine.dialect.loaded_dbapi.Error:
            continue
        else:
            return False
        finally:
            connection.rollback()
            connection.close()
    return True


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SA_AUDIT_TESTING", raising=False)


def test_drop_all(engine: sa.Engine) -> None:
    """Inside, a trail with history can be dropped, and made again."""
    entity = filled(engine)
    with unguarded(engine):
        entity.metadata.drop_all(engine)
    assert not sa.inspect(engine).has_table("fixture_row_history")
    entity.metadata.create_all(engine)
    assert guarded_after_a_row(engine, entity)


def guarded_after_a_row(engine: sa.Engine, entity: Any) -> bool:
    """Record a row, and tell whether it is guarded."""
    with Session(engine) as session:
        session.add(entity(id=1))
        session.commit()
    return guarded(engine, entity)


def test_delete(engine: sa.Engine) -> None:
    """Inside, the trail's rows can be deleted; afterwards the guards are there again, and the history goes on."""
    entity = filled(engine)
    with unguarded(engine), engine.begin() as connection:
        connection.execute(sa.delete(history_of(entity)))
        connection.execute(sa.delete(trail_at(entity).transaction))
        connection.execute(sa.delete(entity.__table__))
        connection.execute(sa.delete(history_of(entity)))
        connection.execute(sa.delete(trail_at(entity).transaction))
    assert (ops(engine, entity), entries_of(engine, entity)) == ("", [])
    assert guarded_after_a_row(engine, entity)
    check(engine, entity.metadata)


@pytest.mark.needs("truncate")
def test_truncate(engine: sa.Engine) -> None:
    """Inside, TRUNCATE works as well."""
    entity = filled(engine)
    with unguarded(engine), engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE TABLE fixture_row_history"))
    assert ops(engine, entity) == ""
    assert guarded_after_a_row_with_key_2(engine, entity)


def guarded_after_a_row_with_key_2(engine: sa.Engine, entity: Any) -> bool:
    """Record a second row, and tell whether it is guarded."""
    with Session(engine) as session:
        session.add(entity(id=2))
        session.commit()
    return guarded(engine, entity)


def test_the_guards_come_back_after_an_error(engine: sa.Engine) -> None:
    """An exception inside does not leave the trail open."""
    entity = filled(engine)
    with pytest.raises(ZeroDivisionError), unguarded(engine):  # noqa: PT012 (what the block does before it fails is the test)
        assert not guarded(engine, entity)
        raise ZeroDivisionError
    assert guarded(engine, entity)
    with pytest.raises(sa_audit.AuditError, match="not dropped"):
        entity.metadata.drop_all(engine)


def test_recording_goes_on_inside(engine: sa.Engine) -> None:
    """Lifting the guards does not stop the recording."""
    entity = filled(engine)
    with unguarded(engine), Session(engine) as session:
        session.add(entity(id=2))
        session.commit()
    assert ops(engine, entity) == "II"
    check(engine, entity.metadata)


def test_refused_without_the_word(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without configuration or environment it is refused, and the guards stay."""
    entity, other = filled(engine, testing=False), declare(testing=True)
    assert trail_at(other).configuration.testing  # another trail's word does not count, though it names the same tables
    with (
        pytest.raises(sa_audit.ConfigurationError, match=r"SA_AUDIT_TESTING=1.* that of fixture_row"),
        unguarded(engine),
    ):
        pytest.fail("it was let in")
    assert guarded(engine, entity)
    monkeypatch.setenv("SA_AUDIT_TESTING", "0")
    with pytest.raises(sa_audit.ConfigurationError), unguarded(engine):
        pytest.fail("it was let in")
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    with unguarded(engine):
        assert not guarded(engine, entity)
    assert guarded(engine, entity)


def test_an_empty_database(engine: sa.Engine) -> None:
    """Where no trail is there yet, a fixture may clear what is not there, and make it."""
    entity = declare(testing=True)
    with unguarded(engine):
        entity.metadata.drop_all(engine)
        entity.metadata.create_all(engine)
    assert guarded_after_a_row(engine, entity)


class Real(DeclarativeBase):
    pass


class Kept(Audited, Real):
    __tablename__ = "kept_row"

    id: Mapped[int] = mapped_column(primary_key=True)


def real_row(engine: sa.Engine) -> None:
    """Record a row in a trail that is no test's."""
    Real.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Kept(id=1))
        session.commit()


def test_only_the_trail_that_is_a_test(engine: sa.Engine) -> None:
    """Another trail in the same database stays guarded if nobody said that it is a test's, shared tables included."""
    entity = filled(engine)
    real_row(engine)
    with unguarded(engine):
        assert guarded(engine, Kept)
        with pytest.raises(sa_audit.TrailNotEmpty, match="kept_row_history"):
            Real.metadata.drop_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.delete(history_of(entity)))
    assert guarded(engine, Kept)
    assert ops(engine, Kept) == "I"


@pytest.mark.only_on("sqlite")
def test_only_the_engine_that_is_a_test(engine: sa.Engine, tmp_path: Path) -> None:
    """The same models' tables in another database stay as they are."""
    entity = filled(engine)
    other = sa.create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    entity.metadata.create_all(other)
    with Session(other) as session:
        session.add(entity(id=1))
        session.commit()
    with unguarded(engine):
        assert guarded(other, entity)
        with pytest.raises(sa_audit.TrailNotEmpty):
            entity.metadata.drop_all(other)
        entity.metadata.drop_all(engine)
    other.dispose()
