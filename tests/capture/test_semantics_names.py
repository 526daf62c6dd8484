"""Names: of attributes, columns, tables and schemas, however they are spelled; and schema translation."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions
from sa_audit.query import history
from tests.capture.recorded import check, history_of, ops, rows_of, story

pytestmark = pytest.mark.both_captures

AWKWARD = [
    "order",
    "select",
    "Mixed Case",
    "per%cent",
    "co:lon",
    'quo"te',
    "quo'te",
    "ünï",
    "back\\slash",
    "a.b",
    "(x)",
    "?",
]


def test_attributes_named_like_ours(engine: sa.Engine) -> None:
    """A model's attributes may be called as the library's own words are."""

    class Base(DeclarativeBase):
        pass

    class Odd(Audited, Base):
        __tablename__ = "odd"

        id: Mapped[int] = mapped_column(primary_key=True)
        values: Mapped[str | None] = mapped_column(sa.String(20))
        keys: Mapped[str | None] = mapped_column(sa.String(20))
        history: Mapped[str | None] = mapped_column(sa.String(20))
        items: Mapped[str | None] = mapped_column(sa.String(20))
        metadata_: Mapped[str | None] = mapped_column("metadata", sa.String(20))
        before: Mapped[str | None] = mapped_column(sa.String(20))
        tx: Mapped[str | None] = mapped_column(sa.String(20))
        at: Mapped[str | None] = mapped_column(sa.String(20))
        flush: Mapped[str | None] = mapped_column(sa.String(20))
        b: Mapped[str | None] = mapped_column(sa.String(20))
        o0: Mapped[str | None] = mapped_column(sa.String(20))
        k0: Mapped[str | None] = mapped_column(sa.String(20))

    names = ["values", "keys", "history", "items", "metadata_", "before", "tx", "at", "flush", "b", "o0", "k0"]
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        odd = Odd(id=1, **dict.fromkeys(names, "old"))
        session.add(odd)
        session.commit()
        for name in names:
            setattr(odd, name, f"new {name}")
        session.commit()
        change = history(session, Odd, 1)[-1]
        assert dict(change.diff) == {name: ("old", f"new {name}") for name in names}
        session.delete(odd)
        session.commit()
        assert ops(session, Odd) == "IUD"
    check(engine, Base.metadata)


def test_attribute_names_and_column_keys(engine: sa.Engine) -> None:
    """Attribute name, column key and column name may all differ; the history's column is named as the database's."""

    class Base(DeclarativeBase):
        pass

    class Renamed(Audited, Base):
        __tablename__ = "renamed"

        number: Mapped[int] = mapped_column("the_id", key="id_key", primary_key=True)
        label: Mapped[str | None] = mapped_column("the_label", sa.String(20), key="label_key")

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        renamed = Renamed(number=1, label="a")
        session.add(renamed)
        session.commit()
        renamed.label = "b"
        session.commit()
        renamed.number = 2
        session.commit()
        session.delete(renamed)
        session.commit()
        rows = rows_of(session, Renamed)
        assert [(row.op, row.before, row.values["id_key"], row.values["label_key"]) for row in rows] == [
            ("I", None, 1, "a"),
            ("U", {"the_label": "a"}, 1, "b"),
            ("D", None, 1, "b"),
            ("I", None, 2, "b"),
            ("D", None, 2, "b"),
        ]
        assert {"the_id", "the_label"} <= {column.name for column in history_of(Renamed).columns}
        assert dict(history(session, Renamed, 1)[1].diff) == {"label": ("a", "b")}
    check(engine, Base.metadata)


def test_awkward_column_names(engine: sa.Engine) -> None:
    """Reserved, mixed-case and punctuated column names, of values and of a key."""
    metadata = sa.MetaData()
    names = [name for name in AWKWARD if not (engine.dialect.name == "mariadb" and name == "co:lon")]
    table = sa.Table(
        "Awkward Table",
        metadata,
        sa.Column("Key Column", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String(20), key=f"c{i}") for i, name in enumerate(names)),
    )

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __table__ = table
        __mapper_args__ = {"primary_key": [table.c["Key Column"]]}

    sa_audit.track(Row)
    metadata.create_all(engine)
    attributes = [f"c{i}" for i in range(len(names))]
    with Session(engine) as session:
        row = Row(**{"Key Column": 1, **dict.fromkeys(attributes, "old")})
        session.add(row)
        session.commit()
        for name in attributes:
            setattr(row, name, "new")
        session.commit()
        assert rows_of(session, table)[-1].before == dict.fromkeys(names, "old")
        session.delete(row)
        session.commit()
        assert ops(session, table) == "IUD"
    check(engine, metadata)


@pytest.mark.parametrize("name", ["order", "User Group", "MixedCase", "per%cent", 'quo"te', "quo'te"])
def test_awkward_table_names(engine: sa.Engine, name: str) -> None:
    """Tables whose names need quotes, with their histories, guards and indexes."""
    metadata = sa.MetaData()
    table = sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    sa_audit.track(table)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"id": 1, "n": 1}, {"id": 2, "n": 2}])
        connection.execute(sa.update(table).values(n=5))
        connection.execute(sa.delete(table).where(table.c.id == 1))
    assert ops(engine, table) == "IIUUD"
    check(engine, metadata)


@pytest.mark.parametrize("name", ["audit_id", "audit_tx", "audit_before", "audit_flush"])
def test_reserved_column_names_are_refused(name: str) -> None:
    """A column named like one of the history's own gets a clear error, at once."""
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column(name, sa.Integer))
    with pytest.raises(sa_audit.ConfigurationError, match=name):
        sa_audit.track(table)


def test_history_table_name_of_choice(engine: sa.Engine) -> None:
    """The history's name can be chosen, and takes the records."""

    class Base(DeclarativeBase):
        pass

    class Thing(Audited, Base):
        __tablename__ = "thing"
        __audit__ = AuditOptions(history_table="thing_past")

        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Thing(id=1))
        session.commit()
    assert history_of(Thing).name == "thing_past"
    assert ops(engine, Thing) == "I"


# -- schemas --------------------------------------------------------------------------------


def declare(schema: str | None, trail_schema: str | None = None) -> Any:
    """Declare a base with one class in a schema."""

    class Base(DeclarativeBase):
        pass

    if trail_schema is not None:
        sa_audit.configure(Base, schema=trail_schema)

    class Tenant(Audited, Base):
        __tablename__ = "tenant"
        __table_args__ = {"schema": schema}

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None] = mapped_column(sa.String(20))

    return Tenant


def live(session: Session, entity: Any) -> None:
    """Insert, update and delete one row of a class, each in its own transaction."""
    row = entity(id=1, name="a")
    session.add(row)
    session.commit()
    row.name = "b"
    session.commit()
    session.delete(row)
    session.commit()


def test_a_table_in_a_schema(engine: sa.Engine, other_schema: str) -> None:
    """The history stands in its table's schema; the trail's own tables in the default one."""
    tenant = declare(other_schema)
    tenant.metadata.create_all(engine)
    with Session(engine) as session:
        live(session, tenant)
    assert history_of(tenant).schema == other_schema
    assert story(engine, tenant, "name") == [("I", None, "a"), ("U", {"name": "a"}, "b"), ("D", None, "b")]
    check(engine, tenant.metadata)


def test_the_trail_in_a_schema_of_its_own(engine: sa.Engine, other_schema: str) -> None:
    """With `configure(schema=)` all tables of the trail stand in that schema."""
    tenant = declare(None, trail_schema=other_schema)
    tenant.metadata.create_all(engine)
    with Session(engine) as session:
        live(session, tenant)
    assert history_of(tenant).schema == other_schema
    assert ops(engine, tenant) == "IUD"
    check(engine, tenant.metadata)


def test_schema_translation_takes_the_history_along(engine: sa.Engine, other_schema: str) -> None:
    """Rows of a tenant's schema are recorded in the tenant's history, by the session's translate map."""
    tenant = declare(None)
    translated = engine.execution_options(schema_translate_map={None: other_schema})
    tenant.metadata.create_all(engine)
    tenant.metadata.create_all(translated)
    with Session(translated) as session:
        live(session, tenant)
    with Session(engine) as session:
        session.add(tenant(id=5, name="default"))
        session.commit()
    assert story(translated, tenant, "id") == [("I", None, 1), ("U", {"name": "a"}, 1), ("D", None, 1)]
    assert story(engine, tenant, "id") == [("I", None, 5)]


def test_schema_translation_of_a_statement(engine: sa.Engine, other_schema: str) -> None:
    """A translate map given with one Core statement reaches the history, too."""
    table = declare(None).__table__
    options = {"schema_translate_map": {None: other_schema}}
    table.metadata.create_all(engine)
    table.metadata.create_all(engine.execution_options(**options))
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"id": 1, "name": "a"}, execution_options=options)
        connection.execute(sa.update(table).values(name="b"), execution_options=options)
        connection.execute(sa.delete(table), execution_options=options)
    assert ops(engine.execution_options(**options), table) == "IUD"
    assert ops(engine, table) == ""


def test_two_tenants_in_one_transaction(engine: sa.Engine, other_schema: str) -> None:
    """Statements of one transaction that write several tenants' rows are recorded with each, under entries there."""
    table = declare(None).__table__
    options = {"schema_translate_map": {None: other_schema}}
    table.metadata.create_all(engine)
    table.metadata.create_all(engine.execution_options(**options))
    with sa_audit.context(actor="alice"), engine.begin() as connection:
        connection.execute(sa.insert(table), {"id": 1, "name": "a"}, execution_options=options)
        connection.execute(sa.insert(table), {"id": 2, "name": "a"})
        connection.execute(sa.update(table).values(name="b"), execution_options=options)
        with sa_audit.context(actor="bob"):
            connection.execute(sa.update(table).values(name="c"))
    for bind, key, actors in ((engine.execution_options(**options), 1, "alice alice"), (engine, 2, "alice bob")):
        rows = rows_of(bind, table)
        assert [(row.op, row.values["id"]) for row in rows] == [("I", key), ("U", key)]
        assert " ".join(row.actor or "" for row in rows) == actors


def test_schema_translation_away_from_a_fixed_history_is_refused(engine: sa.Engine, other_schema: str) -> None:
    """One fixed history under tenants' translate maps would mix their rows, so the write is refused."""
    tenant = declare("tenant", trail_schema=other_schema)
    default = engine.dialect.default_schema_name
    with Session(engine.execution_options(schema_translate_map={"tenant": default})) as session:
        session.add(tenant(id=1))
        with pytest.raises(sa_audit.UnauditedWrite, match=r"schema_translate_map moves tenant\.tenant"):
            session.flush()


def attach(engine: sa.Engine, path: str) -> None:
    """Have every connection attach a second SQLite file."""

    @sa.event.listens_for(engine, "connect")
    def attach(driver: Any, _record: Any) -> None:
        driver.execute("ATTACH DATABASE ? AS attached", [path])


@pytest.mark.only_on("sqlite")
def test_an_attached_database(engine: sa.Engine, tmp_path: Any) -> None:
    """A table in an attached SQLite file is recorded there, with all of the trail."""
    attach(engine, str(tmp_path / "attached.db"))
    tenant = declare("attached", trail_schema="attached")
    tenant.metadata.create_all(engine)
    with Session(engine) as session:
        live(session, tenant)
    assert ops(engine, tenant) == "IUD"
    check(engine, tenant.metadata)


@pytest.mark.session_capture("SQLite's triggers can't write into another database")
@pytest.mark.only_on("sqlite")
def test_an_attached_database_with_the_trail_elsewhere(engine: sa.Engine, tmp_path: Any) -> None:
    """A SQLite trigger can't look into another file, so there the write is refused, and not kept."""
    attach(engine, str(tmp_path / "attached.db"))
    tenant = declare("attached")
    tenant.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(tenant(id=1))
        with pytest.raises((sa_audit.AuditError, sa.exc.OperationalError)):
            session.commit()
        session.rollback()
        assert session.scalars(sa.select(tenant.id)).all() == []
