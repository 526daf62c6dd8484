"""Tables that are copied are those that `create_all()` makes: nothing is missing in them, and nothing left in them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions
from sa_audit.ddl.backend import noted_trails
from sa_audit.model import trail_of
from tests.capture.recorded import check, ops
from tests.databases import Database
from tests.standing import stand

pytestmark = [pytest.mark.both_captures(always=True), pytest.mark.only_on("sqlite", "postgresql")]


class Base(DeclarativeBase):
    pass


class Owner(Audited, Base):
    __tablename__ = "standing_owner"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(40), index=True)


class House(Audited, Base):
    __tablename__ = "standing_house"
    __audit__ = AuditOptions(reads=True)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int | None] = mapped_column(sa.ForeignKey("standing_owner.id"))


CATALOGS = {
    "sqlite": ("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid",),
    "postgresql": (
        "SELECT oid::regclass::text, relkind::text, relowner::regrole::text, relacl::text, reloptions::text"
        " FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        "SELECT attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attacl::text,"
        " attidentity::text, attgenerated::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = attrelid AND d.adnum = attnum"
        " WHERE attrelid::regclass::text ~ '^(standing|audit)' ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
        "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
        " WHERE indrelid::regclass::text !~ '^pg_' ORDER BY 1",
        "SELECT pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
        "SELECT pg_get_functiondef(oid), proowner::regrole::text, proacl::text FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
        "SELECT nspname, nspacl::text, nspowner::regrole::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1",
        "SELECT sequencename, start_value, increment_by, last_value FROM pg_sequences ORDER BY 1",
    ),
}


def catalog(engine: sa.Engine) -> list[Any]:
    """Give all that the database says of its tables, guards and functions, and the columns that the trail noted."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    plain = (sa.Integer, sa.String)
    noted = [column for column in trail.column.columns if isinstance(column.type, plain)]  # when it was is another time
    statement = sa.select(*noted).order_by(*trail.column.primary_key)
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(text).all() for text in CATALOGS[engine.dialect.name]]
        return [*found, connection.execute(statement).all()]


def write(engine: sa.Engine) -> None:
    """Have two rows recorded."""
    with sa_audit.context(actor="ann"), Session(engine) as session:
        session.add(Owner(id=1, name="bob"))
        session.flush()
        session.add(House(id=1, owner=1))
        session.commit()


def test_a_copy_is_what_create_all_makes(database: Database, engine: sa.Engine) -> None:
    """Every table, column, constraint, index, trigger, function, right and sequence is the same, and what is noted."""
    stand(database, engine, Base.metadata)
    write(engine)
    assert stand(database, engine, Base.metadata)
    copied = catalog(engine)
    engine.dispose()
    database.renew()
    Base.metadata.create_all(engine)
    made = catalog(engine)
    assert all(made)
    assert copied == made


def test_a_copy_records_as_the_first_did(database: Database, engine: sa.Engine) -> None:
    """What was written before is gone, what is written now is recorded, and the guards hold."""
    stand(database, engine, Base.metadata)
    write(engine)
    assert stand(database, engine, Base.metadata)
    assert ops(engine, Owner) == ""
    assert trail_of(Base.metadata) in noted_trails(engine.dialect)
    write(engine)
    check(engine, Base.metadata)
    assert (ops(engine, Owner), ops(engine, House)) == ("I", "I")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.delete(sa_audit.history_class(Owner).__table__))


def test_another_way_of_capture_has_other_tables(database: Database, engine: sa.Engine, capture: str) -> None:
    """Tables whose history the session writes are not taken for those whose history triggers write."""
    stand(database, engine, Base.metadata)
    with engine.connect() as connection:
        trigger = [row for row in connection.exec_driver_sql(CATALOGS_OF_TRIGGERS[engine.dialect.name]) if row[0]]
    assert bool(trigger) == (capture == "trigger")


CATALOGS_OF_TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'standing_owner'",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'standing_owner'::regclass",
}
