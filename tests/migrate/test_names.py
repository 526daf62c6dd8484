"""Schemas, naming conventions, quoted and long names, several MetaData, and every kind of mapping."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import sa_audit
import sa_audit.migrate
from sa_audit import Audited, AuditOptions, ConfigurationError
from sa_audit.model.log import FIXED
from tests.databases import Database
from tests.migrate.project import Project, differences, holds

pytestmark = pytest.mark.wide

ODD = ["select", "Mixed Case", 'quo"ted', "per%cent", "co:lon", "dollar$", "back\\slash", "it's", "grün", "tab.dot"]


def check(project: Project, engine: sa.Engine, database: Database) -> None:
    """Migrate, go back and forth, and compare with `create_all()`."""
    project.migrate()
    project.downgrade("base")
    project.upgrade()
    project.check()
    assert differences(engine, project.metadata, **project.options) == []


@pytest.mark.parametrize("name", ODD)
def test_odd_names(tmp_path: Path, database: Database, engine: sa.Engine, name: str) -> None:
    """Names that need quotes or escapes, of a table and of a column, migrate like others, and are recorded."""
    if name in ("tab.dot", "back\\slash") and engine.dialect.name in ("mysql", "mariadb"):
        pytest.skip("MariaDB's driver or Alembic can't take this name")
    metadata = sa.MetaData()
    table = sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(name, sa.String(50)),
    )
    sa_audit.track(table)
    project = Project(tmp_path, database.url, metadata)
    check(project, engine, database)
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values({"id": 1, name: "x"}))
    with pytest.raises(sa.exc.DBAPIError, match="sa_audit"):
        project.downgrade("base")
    project.downgrade("base", archive=True)
    project.upgrade()
    project.check()


@pytest.mark.every_server
def test_names_at_the_limit(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """With names as long as a database takes, those of indexes, keys, triggers and archives are shortened by hash."""
    name = "a" * 55
    metadata = sa.MetaData()
    for number in (1, 2):
        table = sa.Table(
            f"{name[:-1]}{number}",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("c" * 63, sa.Integer),
            *([sa.Column("ref", sa.ForeignKey(f"{name[:-1]}1.id"))] if number == 2 else []),
        )
        sa_audit.track(table)
    project = Project(tmp_path, database.url, metadata)
    check(project, engine, database)
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values({"id": 1}))
    project.downgrade("base", archive=True)
    project.upgrade()
    project.check()


CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


@pytest.mark.every_server
def test_naming_conventions(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """The names are those that `create_all()` gives under the same convention."""
    metadata = sa.MetaData(naming_convention=CONVENTION)
    table = sa.Table(
        "account",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.String(9), unique=True, index=True),
        sa.Column("parent", sa.ForeignKey("account.id")),
    )
    sa_audit.track(table)
    project = Project(tmp_path, database.url, metadata)
    check(project, engine, database)
    migrated = holds(engine, metadata)
    engine.dispose()
    database.renew()
    metadata.create_all(engine)
    assert holds(engine, metadata) == migrated


@pytest.mark.needs("schemas")
@pytest.mark.every_server
@pytest.mark.parametrize("include_schemas", [True, False])
def test_a_schema_of_its_own(tmp_path: Path, database: Database, engine: sa.Engine, include_schemas: bool) -> None:
    """The schema of the trail is made by the migration, and compared whether or not Alembic looks at schemas."""
    metadata = sa.MetaData()
    table = sa.Table("account", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.configure(metadata, schema=database.other_schema)
    sa_audit.track(table)
    names = (None, database.other_schema)
    options: dict[str, Any] = {
        "include_schemas": include_schemas,
        "include_name": lambda name, type_, parents: type_ != "schema" or name in names,
    }
    project = Project(tmp_path, database.url, metadata, **options)
    try:
        check(project, engine, database)
        with engine.begin() as connection:
            connection.execute(sa.insert(table).values(id=1))
        with pytest.raises(sa.exc.DBAPIError, match="sa_audit"):
            project.downgrade("base")
        project.downgrade("base", archive=True)
        project.upgrade()
        project.check()
    finally:
        _drop_schema(engine, str(database.other_schema))


@pytest.mark.needs("schemas")
@pytest.mark.every_server
def test_tables_of_one_name_in_two_schemas(
    tmp_path: Path, database: Database, engine: sa.Engine, other_schema: str
) -> None:
    """Each has its own history beside it."""
    metadata = sa.MetaData()
    for schema in (None, other_schema):
        sa_audit.track(sa.Table("account", metadata, sa.Column("id", sa.Integer, primary_key=True), schema=schema))
    options: dict[str, Any] = {
        "include_schemas": True,
        "include_name": lambda name, type_, parents: type_ != "schema" or name in (None, other_schema),
    }
    project = Project(tmp_path, database.url, metadata, **options)
    try:
        check(project, engine, database)
        with engine.begin() as connection:
            for table in list(metadata.tables.values()):
                if table.name == "account":
                    connection.execute(sa.insert(table).values(id=1))
        found = holds(engine, metadata)
        assert {"account_history", f"{other_schema}.account_history"} <= found.keys()
    finally:
        _drop_schema(engine, other_schema)


def _drop_schema(engine: sa.Engine, schema: str) -> None:
    cascade = " CASCADE" if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {schema}{cascade}"))


@pytest.mark.every_server
def test_several_metadata(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Two MetaData share the fixed tables of one schema, each with its own histories."""
    first, second = sa.MetaData(), sa.MetaData()
    tables = []
    for name, metadata in (("a", first), ("b", second)):
        tables.append(sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True)))
        sa_audit.track(tables[-1])
    project = Project(tmp_path, database.url, [first, second])
    text = project.migrate()
    assert text.count("create_table('audit_transaction'") == 1
    project.downgrade("base")
    project.upgrade()
    project.check()
    with engine.begin() as connection:
        for table in tables:
            connection.execute(sa.insert(table).values(id=1))
    with Session(engine) as session:
        assert [len(sa_audit.history(session, table, 1)) for table in tables] == [1, 1]


def test_a_second_metadata_comes_later(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """What the first has made is not made again, and not dropped by the second's downgrade."""
    first, second = sa.MetaData(), sa.MetaData()
    table = sa.Table("a", first, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(table)
    project = Project(tmp_path, database.url, [first, second])
    project.migrate()
    sa_audit.track(sa.Table("b", second, sa.Column("id", sa.Integer, primary_key=True)))
    text = project.migrate()
    assert "audit_transaction'" not in text
    project.downgrade()
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(id=1))


def test_a_translated_connection_is_refused(engine: sa.Engine) -> None:
    """The text of guards can't follow a schema_translate_map."""
    metadata = sa.MetaData()
    sa_audit.track(sa.Table("a", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    translated = engine.execution_options(schema_translate_map={None: "tenant"})
    with pytest.raises(ConfigurationError, match="schema_translate_map"):
        differences(translated, metadata)


# -- mappings -----------------------------------------------------------------------------


def zoo() -> Any:
    """Give a base with inheritance of each kind, a renamed attribute, an association table and many types."""

    class Base(DeclarativeBase):
        pass

    tag = sa.Table(
        "animal_tag",
        Base.metadata,
        sa.Column("animal_id", sa.ForeignKey("animal.id"), primary_key=True),
        sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
    )

    class Tag(Audited, Base):
        __tablename__ = "tag"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Animal(Audited, Base):
        __tablename__ = "animal"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column("type", sa.String(20))
        called: Mapped[str] = mapped_column("name", sa.String(40))
        tags: Mapped[list[Tag]] = relationship(secondary="animal_tag")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Dog(Animal):
        __tablename__ = "dog"
        id: Mapped[int] = mapped_column(sa.ForeignKey("animal.id"), primary_key=True)
        weight: Mapped[Decimal | None] = mapped_column(sa.Numeric(6, 3))
        __mapper_args__ = {"polymorphic_identity": "dog"}

    class Cat(Animal):
        lives: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "cat"}

    class Thing(Audited, Base):
        __tablename__ = "thing"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        part: Mapped[int] = mapped_column(primary_key=True)
        big: Mapped[int | None] = mapped_column(sa.BigInteger)
        number: Mapped[float | None]
        double: Mapped[float | None] = mapped_column(sa.Double)
        day: Mapped[dt.date | None]
        hour: Mapped[dt.time | None]
        span: Mapped[dt.timedelta | None]
        at: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
        blob: Mapped[bytes | None]
        text: Mapped[str | None] = mapped_column(sa.Text)
        state: Mapped[str | None] = mapped_column(sa.Enum("new", "old", name="state"))
        twice: Mapped[int | None] = mapped_column(sa.Computed("part * 2", persisted=True))
        pickled: Mapped[Any] = mapped_column(sa.PickleType, nullable=True)
        cased: Mapped[str | None] = mapped_column(sa.CHAR(3))

    Base.models = {"Dog": Dog, "Cat": Cat, "Tag": Tag, "Thing": Thing, "tag": tag}  # type: ignore[attr-defined] # kept
    return Base


@pytest.mark.every_server
def test_every_kind_of_mapping(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Inheritance, an association table named by a string, many types: as by `create_all()`, and recorded."""
    base = zoo()
    project = Project(tmp_path, database.url, base.metadata)
    project.migrate()
    migrated = holds(engine, base.metadata)
    _use_zoo(engine, base)
    engine.dispose()
    database.renew()
    base.metadata.create_all(engine)
    assert holds(engine, base.metadata) == migrated


def _use_zoo(engine: sa.Engine, base: Any) -> None:
    models = base.models
    with sa_audit.context(actor="keeper"), Session(engine) as session:
        dog = models["Dog"](id=1, called="rex", weight=Decimal("12.500"), tags=[models["Tag"](id=7)])
        thing = models["Thing"](
            id=uuid.UUID(int=5), part=2, state="new", number=0.1, day=dt.date(2026, 1, 2), cased="ab"
        )
        session.add_all([dog, models["Cat"](id=2, called="tom", lives=9), thing])
        session.commit()
        (change,) = sa_audit.history(session, dog)
        assert (change.state["called"], change.state["weight"]) == ("rex", Decimal("12.500"))
        for name in ("Dog", "Cat", "Tag", "Thing"):
            assert list(sa_audit.reconcile(session, models[name])) == []
        rows = session.execute(sa.text("SELECT twice, state FROM thing_history")).all()
        assert [tuple(row) for row in rows] == [(4, "new")]


@pytest.mark.every_server
def test_the_baseline_of_a_joined_entity_is_one_change(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """All that a revision finds stands under one entry, so an entity of two tables is found as one."""
    base = zoo()
    with engine.begin() as connection:
        for name in ("tag", "animal", "dog"):
            connection.execute(sa.schema.CreateTable(base.metadata.tables[name]))
        connection.execute(sa.text("INSERT INTO animal (id, type, name) VALUES (1, 'dog', 'rex')"))
    project = Project(tmp_path, database.url, base.metadata)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO dog (id, weight) VALUES (1, 12.5)")
    project.migrate()
    with Session(engine) as session:
        (change,) = sa_audit.history(session, base.models["Dog"], 1)
        assert (change.operation, change.state["called"]) == ("baseline", "rex")


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_types_of_postgresql(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Arrays, native enums, ranges, JSONB, INET and identity columns; the enum is text in the history."""
    from sqlalchemy.dialects import postgresql as pg

    metadata = sa.MetaData()
    state = pg.ENUM("new", "old", name="state")
    table = sa.Table(
        "thing",
        metadata,
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("states", sa.ARRAY(state)),
        sa.Column("state", state),
        sa.Column("numbers", pg.ARRAY(sa.Integer, dimensions=2)),
        sa.Column("data", pg.JSONB),
        sa.Column("span", pg.INT4RANGE),
        sa.Column("address", pg.INET),
        sa.Column("bits", pg.BIT(5)),
        sa.Column("stored", sa.Integer, sa.Computed("1 + 1", persisted=True)),
        sa.Column("words", pg.TSVECTOR),
        sa.Column("long", pg.INTERVAL(fields="DAY TO SECOND")),
        sa.Column("at", pg.TIMESTAMP(timezone=True, precision=3)),
    )
    sa_audit.track(table)
    project = Project(tmp_path, database.url, metadata)
    project.migrate()
    migrated = holds(engine, metadata)
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(states=["new"], state="old", numbers=[[1]], data={"a": 1}))
        assert connection.execute(sa.text("SELECT state, states, stored FROM thing_history")).one() == (
            "old",
            ["new"],
            2,
        )
    engine.dispose()
    database.renew()
    metadata.create_all(engine)
    assert holds(engine, metadata) == migrated


@pytest.mark.only_on("mariadb")
def test_types_of_mariadb(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Types that no general one can say, among them texts longer than TEXT, migrate, and are recorded."""
    metadata = sa.MetaData()
    table = sa.Table(
        "particular",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("long", mysql.LONGTEXT),
        sa.Column("medium", mysql.MEDIUMTEXT),
        sa.Column("tiny", mysql.TINYTEXT),
        sa.Column("blob", mysql.MEDIUMBLOB),
        sa.Column("some", mysql.SET("a", "b")),
        sa.Column("unsigned", mysql.BIGINT(unsigned=True)),
    )
    sa_audit.track(table)
    check(Project(tmp_path, database.url, metadata), engine, database)
    row = {"long": "ü" * 40_000, "medium": "m", "tiny": "t", "blob": b"b", "some": {"a", "b"}, "unsigned": 2**64 - 1}
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, **row))
    with Session(engine) as session:
        (change,) = sa_audit.history(session, table, 1)
    assert change.state == {"id": 1, **row}


@pytest.mark.only_on("postgresql")
def test_a_value_more_in_an_enum_needs_nothing(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """The history holds text, so its column stays when the database's enum changes."""

    def models(*values: str) -> sa.MetaData:
        metadata = sa.MetaData()
        column = sa.Column("state", sa.Enum(*values, name="state"))
        sa_audit.track(sa.Table("thing", metadata, sa.Column("id", sa.Integer, primary_key=True), column))
        return metadata

    project = Project(tmp_path, database.url, models("new"))
    project.migrate()
    project.add("op.execute(\"ALTER TYPE state ADD VALUE 'old'\")")
    project.upgrade()
    project.metadata = models("new", "old")
    project.check()


def test_filters_are_honoured(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """A table that the environment leaves out gets no history; a filter on the trail's tables changes nothing."""
    metadata = sa.MetaData()
    for name in ("mine", "theirs"):
        sa_audit.track(sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True)))

    def include(item: Any, name: str, type_: str, reflected: bool, compare_to: Any) -> bool:
        return type_ != "table" or not (name == "theirs" or sa_audit.is_trail_table(item))

    project = Project(tmp_path, database.url, metadata, include_object=include)
    project.migrate()
    with engine.connect() as connection:
        names = set(sa.inspect(connection).get_table_names()) - {"audit_epoch", "alembic_version"}
    assert names == {"mine", "mine_history", "audit_event", *FIXED}


@pytest.mark.parametrize("by", ["object", "name"])
def test_another_environment_leaves_the_trail_alone(
    tmp_path: Path, database: Database, engine: sa.Engine, by: str
) -> None:
    """One that knows nothing of the library drops no trail with the filters, and asks its own filter for the rest."""
    audited = sa.MetaData()
    sa_audit.track(sa.Table("mine", audited, sa.Column("id", sa.Integer, primary_key=True)))
    audited.create_all(engine)
    asked: list[str | None] = []

    def own_object(item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
        asked.append(name)
        return name != "mine"

    def own_name(name: str | None, type_: str, parents: Any) -> bool:
        asked.append(name)
        return name != "mine"

    other = sa.MetaData()
    sa.Table("theirs", other, sa.Column("id", sa.Integer, primary_key=True))
    plain = {"autogenerate_plugins": ["alembic.autogenerate.*", "~sa_audit"]}
    dropped = [found[1].name for found in differences(engine, other, **plain) if found[0] == "remove_table"]
    assert {"audit_transaction", "audit_column", "mine_history"} <= set(dropped)
    if by == "object":
        options: dict[str, Any] = {"include_object": sa_audit.migrate.include_object(own_object)}
    else:
        options = {"include_name": sa_audit.migrate.include_name(audited, own_name)}
    found = [each for each in differences(engine, other, **plain, **options) if each[0] == "remove_table"]
    assert [each[1].name for each in found if each[1].name != "audit_epoch"] == []
    assert "mine" in asked
    assert not {"mine_history", "audit_transaction"} & set(asked)


def test_options_of_history(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """A history of another name and without foreign-key indexes is made so."""
    metadata = sa.MetaData()
    columns = [sa.Column("id", sa.Integer, primary_key=True), sa.Column("parent", sa.ForeignKey("node.id"))]
    table = sa.Table("node", metadata, *columns)
    sa_audit.track(table, AuditOptions(history_table="node_past", fk_indexes=False))
    project = Project(tmp_path, database.url, metadata)
    check(project, engine, database)
    assert len(holds(engine, metadata)["node_past"][2]) == 2
