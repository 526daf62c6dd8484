"""History follows its table through schema changes, and what was recorded stays as it was."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import AuditOptions, ConfigurationError, Exclude, Mask
from sa_audit.proof import Signer
from tests.databases import Database
from tests.migrate.project import Project, differences

pytestmark = pytest.mark.wide_on("mariadb", "sqlite")


def tables(
    *columns: Any, name: str = "account", options: AuditOptions | None = None, track: bool = True
) -> sa.MetaData:
    """Give a MetaData with one table of these columns beside its key, audited."""
    metadata = sa.MetaData()
    table = sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), *columns)
    if track:
        sa_audit.track(table, options)
    return metadata


def owner(length: int | None = 50) -> sa.Column[Any]:
    """Give a text column."""
    return sa.Column("owner", sa.String(length))


def write(engine: sa.Engine, metadata: sa.MetaData, table: str = "account", **values: Any) -> None:
    """Insert a row, recorded."""
    with engine.begin() as connection, sa_audit.context(actor="alice"):
        connection.execute(sa.insert(metadata.tables[table]).values(**values))


def change(engine: sa.Engine, metadata: sa.MetaData, key: int, table: str = "account", **values: Any) -> None:
    """Update a row, recorded."""
    live = metadata.tables[table]
    with engine.begin() as connection, sa_audit.context(actor="alice"):
        connection.execute(sa.update(live).where(live.c.id == key).values(**values))


def recorded(engine: sa.Engine, *columns: str, table: str = "account_history") -> list[Any]:
    """Give operation and columns of every history row, in order."""
    names = ", ".join(("audit_op", *columns))
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {names} FROM {table} ORDER BY audit_id")]


def columns_of(engine: sa.Engine, table: str = "account_history") -> dict[str, Any]:
    """Give a table's columns as the database has them, without those of every history."""
    with engine.connect() as connection:
        found = sa.inspect(connection).get_columns(table)
    return {column["name"]: column for column in found if not column["name"].startswith("audit_")}


def unrecorded(engine: sa.Engine, metadata: sa.MetaData, table: str = "account") -> list[Any]:
    """Give what the live table and the last recorded states do not agree on."""
    with Session(engine) as session:
        return list(sa_audit.reconcile(session, metadata.tables[table]))


def accounts_of(engine: sa.Engine) -> list[Any]:
    """Give what the trail says about columns: number, name and event."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT table_name, column_id, name, event FROM audit_column ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """A project whose database holds an audited account with one recorded row."""
    made = Project(tmp_path, database.url, tables(owner()))
    made.migrate()
    engine = sa.create_engine(database.url)
    write(engine, made.metadata, id=1, owner="ann")
    engine.dispose()
    return made


def step(project: Project, metadata: sa.MetaData, **x: str) -> str:
    """Change the models and migrate, and go back and forth once."""
    project.metadata = metadata
    text = project.migrate(**x)
    project.downgrade()
    project.upgrade()
    project.check()
    return text


# -- columns ------------------------------------------------------------------------------


@pytest.mark.every_server
def test_an_added_column_is_recorded_from_then_on(project: Project, engine: sa.Engine) -> None:
    """The history gets it nullable and without default, also where the table's is neither."""
    metadata = tables(owner(), sa.Column("branch", sa.String(20)))
    step(project, metadata)
    write(engine, metadata, id=2, owner="bob", branch="Oslo")
    assert recorded(engine, "owner", "branch") == [("I", "ann", None), ("I", "bob", "Oslo")]
    assert ("account", 3, "branch", "create") in accounts_of(engine)
    assert unrecorded(engine, metadata) == []


@pytest.mark.every_server
def test_an_added_column_with_a_default_makes_a_baseline(project: Project, engine: sa.Engine) -> None:
    """Rows that get a value by the migration are recorded with it, as found."""
    metadata = tables(owner(), sa.Column("branch", sa.String(20), nullable=False, server_default="main"))
    project.metadata = metadata
    project.migrate()
    assert recorded(engine, "owner", "branch") == [("I", "ann", None), ("B", "ann", "main")]
    column = columns_of(engine)["branch"]
    assert (column["nullable"], column["default"] in (None, "NULL")) == (True, True)
    assert unrecorded(engine, metadata) == []
    with engine.connect() as connection:
        reasons = connection.exec_driver_sql("SELECT reason FROM audit_transaction ORDER BY id").scalars().all()
    assert reasons == [None, "sa_audit: upgrade, revision 0002", "sa_audit: baseline, revision 0002"]


@pytest.mark.every_server
def test_a_dropped_column_stays_in_the_history(project: Project, engine: sa.Engine) -> None:
    """What was recorded of it is still there, and further changes are recorded without it."""
    metadata = tables()
    step(project, metadata)
    write(engine, metadata, id=2)
    assert recorded(engine, "id", "owner") == [("I", 1, "ann"), ("I", 2, None)]
    assert accounts_of(engine)[-1] == ("account", 2, "owner", "drop")


def test_a_column_that_comes_back_makes_a_baseline(project: Project, engine: sa.Engine) -> None:
    """Its old values are not taken for the new ones."""
    project.metadata = tables()
    project.migrate()
    project.metadata = tables(owner())
    project.migrate()
    assert recorded(engine, "owner") == [("I", "ann"), ("B", None)]
    assert unrecorded(engine, project.metadata) == []


@pytest.mark.every_server
@pytest.mark.parametrize("by", ["model", "command"])
def test_a_renamed_column_keeps_its_values(project: Project, engine: sa.Engine, by: str) -> None:
    """Data and history are renamed alike, told by the model or by the command line, and the way back is known."""
    info = {"sa_audit.renamed_from": "owner"} if by == "model" else {}
    metadata = tables(sa.Column("holder", sa.String(50), info=info))
    text = step(project, metadata, **({} if by == "model" else {"audit_rename": "account.owner:holder"}))
    assert "drop_column" not in text
    assert "add_column" not in text
    change(engine, metadata, 1, holder="bob")
    assert recorded(engine, "holder") == [("I", "ann"), ("U", "bob")]
    assert ("account", 2, "holder", "rename") in accounts_of(engine)
    assert unrecorded(engine, metadata) == []


@pytest.mark.every_server
def test_a_renamed_column_takes_its_index_and_key_along(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Whatever is named by the column is dropped before it gets its new name, and made after it, back and forth."""

    def models(name: str, info: dict[str, str]) -> sa.MetaData:
        mail = sa.Column(name, sa.String(40), index=True, info=info)
        number = sa.Column("number", sa.Integer)
        metadata = tables(mail, number)
        metadata.tables["account"].append_constraint(sa.UniqueConstraint("number", name, name=f"uq_{name}"))
        return metadata

    project = Project(tmp_path, database.url, models("email", {}))
    project.migrate()
    write(engine, project.metadata, id=1, email="a@example.org", number=1)
    metadata = models("mail", {"sa_audit.renamed_from": "email"})
    step(project, metadata)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        indexes = {index["name"]: index["column_names"] for index in inspector.get_indexes("account")}
        keys = {key["name"]: key["column_names"] for key in inspector.get_unique_constraints("account")}
    assert indexes["ix_account_mail"] == ["mail"]
    assert keys == {"uq_mail": ["number", "mail"]}
    assert not {"ix_account_email", "uq_email"} & (indexes.keys() | keys.keys())
    assert recorded(engine, "mail") == [("I", "a@example.org")]
    assert unrecorded(engine, metadata) == []


def test_a_renamed_column_that_changes_too_is_changed(project: Project, engine: sa.Engine) -> None:
    """A rename with a wider type and NOT NULL is all done in one revision."""
    column = sa.Column("holder", sa.String(80), nullable=False, info={"sa_audit.renamed_from": "owner"})
    step(project, tables(column))
    live, history = columns_of(engine, "account")["holder"], columns_of(engine)["holder"]
    assert (live["type"].length, live["nullable"], history["nullable"]) == (80, False, True)


def test_a_hint_that_names_nothing_is_refused(project: Project) -> None:
    """A misspelt hint on the command line is an error that names it."""
    project.metadata = tables(sa.Column("other", sa.String(50)))
    with pytest.raises(ConfigurationError, match=r"account\.ownr:holder names no column"):
        project.revision(audit_rename="account.ownr:holder")
    with pytest.raises(ConfigurationError, match="give the former name and the new one"):
        project.revision(audit_rename="account.owner")


def test_a_drop_and_an_addition_are_remarked(project: Project) -> None:
    """Where one column goes and another comes, the file says how to have a rename."""
    project.metadata = tables(sa.Column("holder", sa.String(50)))
    text = project.migrate()
    assert "# alembic -x audit_rename=account.owner:holder revision --autogenerate" in text.replace("#   ", "# ")


@pytest.mark.every_server
def test_a_wider_type_is_taken_over_in_place(project: Project, engine: sa.Engine) -> None:
    """No recorded value changes, so the history's column gets the type."""
    metadata = tables(owner(80))
    text = step(project, metadata)
    change(engine, metadata, 1, owner="b" * 80)
    assert recorded(engine, "owner") == [("I", "ann"), ("U", "b" * 80)]
    assert "until" not in text


def test_a_narrower_type_changes_nothing_in_the_history(project: Project, engine: sa.Engine) -> None:
    """The history holds what it held."""
    step(project, tables(owner(10)))
    type_ = columns_of(engine)["owner"]["type"]
    assert type_.length == 50


@pytest.mark.every_server
def test_another_type_leaves_the_recorded_values_alone(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Values that would be converted stay in a column of their own, and the rows get a baseline in the new one."""
    before = tables(sa.Column("balance", sa.Numeric(12, 2), index=True))
    project = Project(tmp_path, database.url, before)
    project.migrate()
    write(engine, before, id=1, balance=Decimal("5.25"))
    after = tables(sa.Column("balance", sa.Text().with_variant(sa.String(40), "mysql", "mariadb"), index=True))
    project.metadata = after
    project.migrate()
    assert [(op, Decimal(str(value))) for op, value in recorded(engine, "balance_until_0002")[:1]] == [
        ("I", Decimal("5.25"))
    ]
    rows = recorded(engine, "balance", "balance_until_0002")
    assert [(op, old) for op, _new, old in rows][1:] == [("B", None)]
    assert unrecorded(engine, after) == []
    change(engine, after, 1, balance="six")
    assert recorded(engine, "balance")[-1] == ("U", "six")


def test_another_type_can_be_undone_and_done_again(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """On the way back the former column is taken again, and what came later is kept."""
    before = tables(sa.Column("ref", sa.Integer))
    project = Project(tmp_path, database.url, before)
    project.migrate()
    after = tables(sa.Column("ref", sa.Numeric(12, 2)))
    step(project, after)
    assert columns_of(engine).keys() == {"id", "ref", "ref_until_0002", "ref_since_0002"}
    write(engine, after, id=1, ref=Decimal("1.50"))
    assert recorded(engine, "ref", "ref_until_0002") == [("I", Decimal("1.50"), None)]


# -- policies -----------------------------------------------------------------------------


def test_a_lifted_policy_makes_a_column_with_a_baseline(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """A column that was excluded or masked is recorded from now on, beginning with what stands there."""
    excluded = sa.Column("owner", sa.String(50), info={"sa_audit": Exclude()})
    before = tables(excluded, sa.Column("pin", sa.String(9), info={"sa_audit": Mask()}))
    project = Project(tmp_path, database.url, before)
    project.migrate()
    write(engine, before, id=1, owner="ann", pin="1")
    assert "owner" not in columns_of(engine)
    after = tables(owner(), sa.Column("pin", sa.String(9)))
    step(project, after)
    assert recorded(engine, "owner", "pin")[:2] == [("I", None, None), ("B", "ann", "1")]
    assert unrecorded(engine, after) == []


def test_a_new_policy_leaves_the_history_as_it_is(project: Project, engine: sa.Engine) -> None:
    """Values that were recorded stay; no value is recorded any more, and nothing is left to migrate."""
    metadata = tables(sa.Column("owner", sa.String(50), info={"sa_audit": Mask()}))
    project.metadata = metadata
    project.check()
    change(engine, metadata, 1, owner="bob")
    assert recorded(engine, "owner") == [("I", "ann"), ("U", None)]


# -- tables -------------------------------------------------------------------------------


@pytest.mark.every_server
@pytest.mark.parametrize("by", ["model", "command"])
def test_a_renamed_table_keeps_its_history(project: Project, engine: sa.Engine, by: str) -> None:
    """Table and history are renamed with their guards, indexes and keys, and the trail knows both names."""
    options = AuditOptions(renamed_from="account") if by == "model" else None
    metadata = tables(owner(), sa.Column("more", sa.Integer), name="konto", options=options)
    text = step(project, metadata, **({} if by == "model" else {"audit_rename": "account:konto"}))
    assert "create_table(" not in text
    assert "drop_table(" not in text
    change(engine, metadata, 1, "konto", owner="bob")
    assert recorded(engine, "owner", table="konto_history") == [("I", "ann"), ("U", "bob")]
    assert unrecorded(engine, metadata, "konto") == []
    assert ("konto", 2, "owner", "create") in accounts_of(engine)
    with pytest.raises(sa.exc.DBAPIError, match="sa_audit"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM konto_history")
    with engine.connect() as connection:
        names = {index["name"] for index in sa.inspect(connection).get_indexes("konto_history")}
    if engine.dialect.name in ("sqlite", "postgresql"):  # elsewhere names are the table's own
        assert names == {"ix_konto_history_row", "ix_konto_history_audit_tx"}


def test_a_renamed_table_can_keep_the_history_s_name(project: Project, engine: sa.Engine) -> None:
    """`history_table` holds the history where it is."""
    options = AuditOptions(renamed_from="account", history_table="account_history")
    metadata = tables(owner(), name="konto", options=options)
    step(project, metadata)
    change(engine, metadata, 1, "konto", owner="bob")
    assert recorded(engine, "owner") == [("I", "ann"), ("U", "bob")]


@pytest.mark.every_server
def test_a_renamed_table_takes_references_along(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """Foreign keys to a renamed table follow it by themselves, so the migration leaves them alone."""

    def models(name: str, former: str | None) -> sa.MetaData:
        metadata = tables(owner(), name=name, options=AuditOptions(renamed_from=former))
        reference = sa.Column("account_id", sa.ForeignKey(f"{name}.id", name="fk_entry_account"))
        sa_audit.track(sa.Table("entry", metadata, sa.Column("id", sa.Integer, primary_key=True), reference))
        return metadata

    project = Project(tmp_path, database.url, models("account", None))
    project.migrate()
    text = step(project, models("konto", "account"))
    assert "foreign_key" not in text
    write(engine, project.metadata, "konto", id=1, owner="ann")
    write(engine, project.metadata, "entry", id=1, account_id=1)
    assert recorded(engine, "account_id", table="entry_history") == [("I", 1)]


@pytest.mark.every_server
def test_a_dropped_table_leaves_its_history(project: Project, engine: sa.Engine) -> None:
    """The model goes with its table, and what was recorded stays, guarded."""
    metadata = tables(name="other")
    step(project, metadata)
    assert recorded(engine, "owner") == [("I", "ann")]
    with pytest.raises(sa.exc.DBAPIError, match="sa_audit"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_history")
    with engine.connect() as connection:
        assert not sa.inspect(connection).has_table("account")


@pytest.mark.parametrize("others", [True, False])
def test_an_untracked_table_leaves_its_history(project: Project, engine: sa.Engine, others: bool) -> None:
    """A model that no longer is audited, even the last one, keeps its history; nothing is left to migrate."""
    metadata = tables(owner(), track=False)
    if others:
        sa_audit.track(sa.Table("other", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    project.metadata = metadata
    text = project.migrate()
    assert "account_history" not in text
    assert recorded(engine, "owner") == [("I", "ann")]


@pytest.mark.every_server
def test_a_table_with_rows_is_tracked_with_a_baseline(tmp_path: Path, database: Database, engine: sa.Engine) -> None:
    """What stands there is recorded as found, so that the past and reconcile() know it from then on."""
    plain = tables(owner(), track=False)
    project = Project(tmp_path, database.url, plain)
    project.migrate()
    with engine.begin() as connection:
        connection.execute(sa.insert(plain.tables["account"]), [{"id": 1, "owner": "ann"}, {"id": 2, "owner": "b'ob"}])
    metadata = tables(owner())
    project.metadata = metadata
    project.migrate()
    assert recorded(engine, "id", "owner") == [("B", 1, "ann"), ("B", 2, "b'ob")]
    assert unrecorded(engine, metadata) == []
    with Session(engine) as session:
        (found,) = sa_audit.history(session, metadata.tables["account"], 2)
    assert (found.operation, found.state["owner"]) == ("baseline", "b'ob")
    project.downgrade()  # nothing but the baseline was recorded
    project.upgrade()
    assert recorded(engine, "id") == [("B", 1), ("B", 2)]


def test_a_downgrade_of_one_table_keeps_the_others(project: Project, engine: sa.Engine) -> None:
    """Only what the revision made goes."""
    metadata = tables(owner())
    sa_audit.track(sa.Table("other", metadata, sa.Column("id", sa.Integer, primary_key=True)))
    step(project, metadata)
    project.downgrade()
    write(engine, tables(owner()), id=2, owner="bob")
    assert recorded(engine, "owner") == [("I", "ann"), ("I", "bob")]


@pytest.mark.only_on("sqlite")
def test_a_recreated_table_is_still_recorded(project: Project, engine: sa.Engine) -> None:
    """A batch that copies the table leaves the guards of its history standing."""
    metadata = tables(sa.Column("owner", sa.String(50), nullable=False), sa.CheckConstraint("id > 0", name="positive"))
    text = step(project, metadata)
    assert "batch_alter_table" in text
    write(engine, metadata, id=2, owner="bob")
    assert recorded(engine, "owner") == [("I", "ann"), ("I", "bob")]
    with pytest.raises(sa.exc.DBAPIError, match="sa_audit"), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_history")


@pytest.mark.only_on("sqlite")
def test_guards_that_a_batch_dropped_come_back(project: Project, engine: sa.Engine) -> None:
    """Whoever recreates a history by hand finds its guards missing in `alembic check`, and mended by a revision."""
    project.add('with op.batch_alter_table("account_history", recreate="always") as batch_op:\n    pass')
    project.upgrade()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE account_history SET owner = 'ann'")
    text = project.migrate()
    assert text.count("CREATE TRIGGER") == 4
    with pytest.raises(sa.exc.DBAPIError, match="sa_audit"), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE account_history SET owner = 'forged'")


# -- before-values of renamed columns -----------------------------------------------------


@pytest.mark.every_server
def test_before_values_are_shown_under_today_s_name(project: Project, engine: sa.Engine) -> None:
    """What was recorded before a rename, and after, and after a second one; and it can be reverted."""
    write(engine, project.metadata, id=2, owner="eve")
    for key, owner in ((1, "bob"), (2, "fay")):
        change(engine, project.metadata, key, owner=owner)
    project.metadata = tables(sa.Column("holder", sa.String(50), info={"sa_audit.renamed_from": "owner"}))
    project.migrate()
    change(engine, project.metadata, 1, holder="cid")
    now = tables(sa.Column("keeper", sa.String(50), info={"sa_audit.renamed_from": "holder"}))
    project.metadata = now
    project.migrate()
    change(engine, now, 1, keeper="dan")
    table = now.tables["account"]
    with Session(engine) as session:
        changes = sa_audit.history(session, table, 1)
        assert [each.diff.get("keeper") for each in changes] == [
            (None, "ann"),
            ("ann", "bob"),
            ("bob", "cid"),
            ("cid", "dan"),
        ]
        assert [set(each.diff) - {"id"} for each in changes] == [{"keeper"}] * 4
        assert [each.audit_id for each in sa_audit.history(session, table, 1, attribute="keeper")] == [
            each.audit_id for each in changes
        ]
        page = sa_audit.trail(session, base=now)
        assert [each.diff for each in page.entries if each.identity == (1,)] == [each.diff for each in changes]
    with Session(engine) as session, sa_audit.context(actor="alice"):
        other = sa_audit.history(session, table, 2)[-1]
        sa_audit.revert(session, other.transaction.id, base=now)
        session.commit()
        assert session.execute(sa.select(table.c.keeper).where(table.c.id == 2)).scalar_one() == "eve"


@pytest.mark.every_server
def test_a_name_that_another_column_has_now_is_told_apart(project: Project, engine: sa.Engine) -> None:
    """A column is renamed, and another of another type takes its name: each before-value goes to its own."""
    change(engine, project.metadata, 1, owner="bob")
    holder = sa.Column("holder", sa.String(50), info={"sa_audit.renamed_from": "owner"})
    project.metadata = tables(holder)
    project.migrate()
    now = tables(sa.Column("holder", sa.String(50)), sa.Column("owner", sa.Integer))
    project.metadata = now
    project.migrate()
    change(engine, now, 1, holder="cid", owner=7)
    change(engine, now, 1, owner=8)
    with Session(engine) as session:
        changes = sa_audit.history(session, now.tables["account"], 1)
    assert [{name: pair for name, pair in each.diff.items() if name != "id"} for each in changes][1:] == [
        {"holder": ("ann", "bob")},
        {"holder": ("bob", "cid"), "owner": (None, 7)},
        {"owner": (7, 8)},
    ]


def test_a_rename_taken_back_shows_the_old_name(project: Project, engine: sa.Engine) -> None:
    """Also for what was recorded in between."""
    old = project.metadata
    project.metadata = tables(sa.Column("holder", sa.String(50), info={"sa_audit.renamed_from": "owner"}))
    project.migrate()
    change(engine, project.metadata, 1, holder="bob")
    project.downgrade()
    change(engine, old, 1, owner="cid")
    with Session(engine) as session:
        changes = sa_audit.history(session, old.tables["account"], 1)
    assert [each.diff["owner"] for each in changes] == [(None, "ann"), ("ann", "bob"), ("bob", "cid")]


# -- the salt of entries -----------------------------------------------------------------


@pytest.mark.only_on("sqlite")
def test_entries_from_before_there_was_a_salt(engine: sa.Engine, database: Database, tmp_path: Path) -> None:
    """They keep none, and the digests that were sealed; later ones have one; every connection knows it at once."""
    metadata = tables(owner())
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_transaction DROP COLUMN audit_salt")
    write(engine, metadata, id=1, owner="ann")
    signer, state = Signer.generate("bank.example/audit"), tmp_path / "state"
    sa_audit.seal(engine, signer, state=state, metadata=metadata)
    with engine.connect() as other:
        other.exec_driver_sql("SELECT count(*) FROM audit_transaction")  # it has read the schema
        other.rollback()
        project = Project(tmp_path, database.url, metadata)
        text = project.migrate()
        assert "writable_schema" in text
        with sa_audit.context(actor="alice"):
            other.execute(sa.insert(metadata.tables["account"]).values(id=2, owner="bob"))
        other.commit()
    with engine.connect() as connection:
        salts = connection.exec_driver_sql("SELECT audit_salt FROM audit_transaction ORDER BY id").scalars().all()
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert salts[:2] == [None, None]  # the second one says that the revision begins
    assert len(salts[2]) == 16
    assert differences(engine, metadata) == []
    sa_audit.seal(engine, signer, state=state, metadata=metadata)
    report = sa_audit.verify(engine, signer.verifier, metadata=metadata)
    assert (report.findings, report.unsealed) == ((), 0)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_transaction_guard_update")
        connection.exec_driver_sql("UPDATE audit_transaction SET audit_salt = randomblob(16) WHERE id = 1")
        connection.commit()
    kinds = {each.kind for each in sa_audit.verify(engine, signer.verifier, metadata=metadata).findings}
    assert kinds == {"row-changed", "guard-missing"}


@pytest.mark.parametrize("way", ["session", "trigger"])
def test_a_migration_is_no_attack_on_the_catalog(
    way: str, engine: sa.Engine, database: Database, tmp_path: Path
) -> None:
    """What records a table follows a new column and a renamed one; verify tells so and finds nothing, ever after."""
    options = AuditOptions(capture=way)
    metadata = tables(owner(), options=options)
    project = Project(tmp_path, database.url, metadata)
    project.migrate()
    signer, state = Signer.generate("bank.example/audit"), tmp_path / "state"
    write(engine, metadata, id=1, owner="ann")
    sa_audit.seal(engine, signer, state=state, metadata=metadata)
    for number, columns in enumerate(
        (
            [owner(), sa.Column("balance", sa.Integer)],
            [
                sa.Column("holder", sa.String(50), info={"sa_audit.renamed_from": "owner"}),
                sa.Column("balance", sa.Integer),
            ],
        )
    ):
        engine.dispose()
        metadata = project.metadata = tables(*columns, options=options)
        project.migrate()
        report = sa_audit.verify(engine, signer.verifier, metadata=metadata)
        assert report.findings == ()
        assert report.changes != ()
        write(engine, metadata, id=2 + number, balance=7)
        sa_audit.seal(engine, signer, state=state, metadata=metadata)
        report = sa_audit.verify(engine, signer.verifier, metadata=metadata)
        assert (report.findings, report.unsealed) == ((), 0)
        assert None not in {change.block for change in report.changes}
