"""The privilege section of a migration: the application records as a role that owns nothing, and can change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import CaptureMissing, ConfigurationError, Roles
from sa_audit.ddl.privileges import privileges_for, securables, trail_tables
from sa_audit.migrate.script import script_for
from tests.databases import Database
from tests.migrate.models import bank, of, use
from tests.migrate.secured import Secured, roles_of, script, secure


@pytest.fixture(params=["audit"])
def secured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    engine: sa.Engine,
    connect_as: Callable[[sa.URL], sa.Engine],
) -> Secured:
    """The bank with roles, its trail beside the data or in a schema of its own, migrated by the migrator."""
    made = secure(tmp_path, database, engine, connect_as, bank(), schema=request.param)
    made.project.migrate()
    made.grant_data()
    return made


FORGERIES = {
    "UPDATE {trail}audit_transaction SET actor = 'x'": "permission denied",
    "UPDATE {trail}account_history SET balance = 0": "permission denied",
    "DELETE FROM {trail}account_history": "permission denied",
    "TRUNCATE {trail}account_history": "permission denied",
    "TRUNCATE {trail}audit_transaction": "permission denied",
    "DELETE FROM {trail}audit_column": "permission denied",
    "INSERT INTO {trail}audit_column (table_name, column_id, name, type, event) VALUES ('a', 1, 'b', 'c', 'd')": (
        "permission denied"
    ),
    "DROP TABLE {trail}account_history": "must be owner",
    "ALTER TABLE {trail}account_history DISABLE TRIGGER ALL": "must be owner",
    "CREATE TRIGGER t BEFORE INSERT ON {trail}account_history EXECUTE FUNCTION {trail}sa_audit_guard_v1()": (
        "permission denied"
    ),
    "CREATE TABLE x (id bigint REFERENCES {trail}audit_transaction)": "permission denied",
    "INSERT INTO {trail}audit_transaction (recorded_at) VALUES ('2020-01-01')": "permission denied",
    "INSERT INTO {trail}audit_transaction (db_user) VALUES ('root')": "permission denied",
    "INSERT INTO {trail}audit_transaction (id) VALUES (-1)": "permission denied",
    "INSERT INTO {trail}account_history (audit_id, audit_tx, audit_op, audit_at) VALUES (-1, 1, 'I', now())": (
        "permission denied"
    ),
    "INSERT INTO {trail}account_history (audit_txid, audit_tx, audit_op, audit_at) VALUES (1, 1, 'I', now())": (
        "permission denied"
    ),
    "INSERT INTO {trail}account_history (audit_tx, audit_op, audit_at, audit_flush, id) "
    "SELECT id, 'I', recorded_at, 1, 9 FROM {trail}audit_transaction": "does not belong to the current transaction",
    "INSERT INTO {trail}account_history (audit_tx, audit_op, audit_at, audit_flush, id) "
    "VALUES (1, 'I', '2020-01-01', 1, 9)": "does not belong to the current transaction",
    "SELECT setval('{trail}audit_id_seq', 1)": "permission denied",
    "ALTER SEQUENCE {trail}audit_id_seq RESTART": "must be owner",
    "SET session_replication_role = replica": "permission denied",
    "SET ROLE {owner}": "permission denied",
    "CREATE OR REPLACE FUNCTION {trail}sa_audit_guard_v1() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'": "",
    "SELECT pg_get_functiondef(0), {trail}sa_audit_guard_v1()": "permission denied",
}


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_a_role_that_owns_nothing_records_everything_and_changes_nothing(secured: Secured) -> None:
    """Unit of work, Core, upsert and many rows are recorded; what would change or forge the trail is refused."""
    engine, base = secured.application, secured.base
    use(engine, base)
    customer, account = of(base, "Customer"), of(base, "Account")
    with sa_audit.context(actor="teller:2", reason="second"), Session(engine) as session:
        assert session.scalar(sa.text("SELECT session_user")) == secured.names[0]
        session.get_one(account, 1).balance += 1
        session.flush()
        session.execute(sa.update(account).values(balance=account.balance + 1))
        session.execute(
            upsert(customer).values(id=1, name="b").on_conflict_do_update(index_elements=["id"], set_={"name": "c"})
        )
        session.execute(sa.insert(customer), [{"id": number, "name": "n"} for number in range(2, 1300)])
        session.execute(sa.update(customer).where(customer.id > 1).values(name="m"))
        with sa_audit.context(reason="third"):
            session.execute(sa.delete(customer).where(customer.id > 1))
        session.delete(session.get_one(account, 1))
        session.commit()
    with secured.engine.connect() as connection:
        histories = [sa_audit.history_class(model).__table__ for model in (account, customer)]
        counts = [
            {
                op: connection.scalar(sa.select(sa.func.count()).where(table.c.audit_op == op).select_from(table))
                for op in "IUD"
            }
            for table in histories
        ]
        users = set(connection.scalars(sa.select(base.metadata.tables[_trail(base) + "audit_transaction"].c.db_user)))
    assert counts == [{"I": 1, "U": 3, "D": 1}, {"I": 1299, "U": 1299, "D": 1298}]
    assert users == {secured.names[0]}
    with Session(engine) as session:
        assert [change.actor for change in sa_audit.history(session, account, 1)] == ["teller:1"] * 2 + ["teller:2"] * 3
    for statement, message in FORGERIES.items():
        with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(statement.format(trail=_trail(base), owner=secured.roles.owner))
        assert message in str(caught.value), statement


def _trail(base: Any) -> str:
    schema = sa_audit.model.trail_of(base.metadata).transaction.schema
    return f"{schema}." if schema else ""


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_a_column_of_another_type_gets_its_rights(secured: Secured) -> None:
    """The application records in the new column, and after a downgrade in the former one again."""
    customer = of(secured.base, "Customer")
    code, kept = customer.__table__.c.code, sa_audit.history_class(customer).__table__.c.code
    former, code.type, kept.type = code.type, sa.LargeBinary(), sa.LargeBinary()
    secured.project.options["compare_type"] = lambda _c, column, *_rest: True if column.name == "code" else None
    text = secured.project.revision()
    (file,) = secured.project.directory.glob("versions/0002_*.py")
    file.write_text(text.replace("type_=sa.LargeBinary(),", "type_=sa.LargeBinary(), postgresql_using='code::bytea',"))
    secured.project.upgrade()
    assert text.count("GRANT") == 1
    with secured.application.begin() as connection:
        connection.execute(sa.insert(code.table), [{"id": 1, "name": "a", "code": b"\0"}])
    code.type = kept.type = former
    text = file.read_text()
    file.write_text(
        text.replace("existing_type=sa.LargeBinary(),\n               type_=", "postgresql_using='code::text', type_=")
    )
    secured.project.downgrade()
    with secured.application.connect() as connection:
        asked = "SELECT has_column_privilege('audit.customer_history', 'code', 'INSERT')"
        assert connection.exec_driver_sql(asked).scalar() is True


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_a_new_column_and_a_new_table_get_their_rights(secured: Secured) -> None:
    """A later revision grants what it adds, and the application records it; then there is nothing left to do."""
    base = secured.base
    table = of(base, "Customer").__table__
    table.append_column(sa.Column("nick", sa.String(20)))
    extra = sa.Table("extra", base.metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa_audit.track(extra)
    text = secured.project.migrate()
    assert text.count("OWNER TO") == 2
    secured.grant_data()
    with secured.application.begin() as connection:
        connection.execute(sa.insert(table).values(id=1, name="a", nick="n"))
        connection.execute(sa.insert(extra).values(id=1))
    with secured.engine.connect() as connection:
        assert connection.scalar(sa.text(f"SELECT nick FROM {_trail(base)}customer_history")) == "n"


SPOILED = {
    "a grant on a table": 'GRANT UPDATE ON {history} TO "{app}"',
    "a grant on a column": 'GRANT UPDATE (balance) ON {history} TO "{app}"',
    "a grant to everybody": "GRANT DELETE ON {history} TO PUBLIC",
    "the server's columns": 'GRANT INSERT (audit_id) ON {history} TO "{app}"',
    "ownership of the table": 'ALTER TABLE {history} OWNER TO "{app}"',
    "membership in the owner": 'GRANT "{owner}" TO "{app}"',
    "the right to write everything": 'GRANT pg_write_all_data TO "{app}"',
    "the sequence": 'GRANT UPDATE ON SEQUENCE {trail}audit_id_seq TO "{app}"',
    "an account without inheritance": 'ALTER ROLE "{app}" NOINHERIT; GRANT "{owner}" TO "{app}"',
}


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_the_assertion_names_who_could_change_history(secured: Secured) -> None:
    """Each way to a right that is too much makes the closing block raise, and it names the role."""
    trail = sa_audit.model.trail_of(secured.base.metadata)
    privileges = privileges_for(secured.engine.dialect)
    script = script_for(secured.engine.dialect)
    entries = securables(privileges, trail_tables(trail), script.shared_objects(trail), secured.roles, "public")
    (assertion,) = privileges.assertion(entries, secured.roles)
    names = {"app": secured.names[0], "owner": secured.roles.owner, "trail": _trail(secured.base)}
    names["history"] = f"{names['trail'] or 'public.'}account_history"
    with secured.engine.connect() as connection:
        connection.exec_driver_sql(assertion.replace("%", "%%"))
        connection.rollback()
        for statement in SPOILED.values():
            connection.exec_driver_sql(statement.format(**names))
            with pytest.raises(sa.exc.DBAPIError, match=f"could be changed by: .*{secured.names[0]}: "):
                connection.exec_driver_sql(assertion.replace("%", "%%"))
            connection.rollback()


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_rights_that_default_privileges_gave_are_taken(
    tmp_path: Path, database: Database, engine: sa.Engine, connect_as: Callable[[sa.URL], sa.Engine]
) -> None:
    """Default privileges of the migrator, which give the application everything, don't reach the trail."""
    made = secure(tmp_path, database, engine, connect_as, bank())
    app, mig = made.names
    made.run(
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{mig}" GRANT ALL ON TABLES TO "{app}"',
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{mig}" GRANT ALL ON SEQUENCES TO "{app}"',
    )
    made.project.migrate()
    use(made.application, made.base)
    with pytest.raises(sa.exc.DBAPIError, match="permission denied"), made.application.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_history")


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_roles_can_come_later_and_go_again(
    tmp_path: Path, database: Database, engine: sa.Engine, connect_as: Callable[[sa.URL], sa.Engine]
) -> None:
    """A trail without roles gets them by a revision, whose downgrade gives everything back to its former owner."""
    base, again = bank(), bank()
    made = secure(tmp_path, database, engine, connect_as, again)
    made.project.metadata = base.metadata
    made.project.migrate()
    made.project.metadata = again.metadata
    text = made.project.migrate()
    assert "sa_audit_guard_v1() OWNER TO" in text
    made.grant_data()
    use(made.application, again)
    made.project.downgrade()
    with made.engine.connect() as connection:
        owners = connection.scalars(sa.text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"))
        assert set(owners) == {made.names[1]}
    with pytest.raises(CaptureMissing), made.application.begin() as connection:
        connection.execute(sa.insert(of(again, "Customer")).values(id=2, name="b"))
    made.project.upgrade()
    made.project.check()


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_the_sql_of_a_migration_needs_no_database(secured: Secured) -> None:
    """The section is frozen: it is printed whole with ``--sql``."""
    text = secured.project.sql()
    assert "could be changed by" in text
    assert f"OWNER TO {secured.roles.owner}" in text


@pytest.mark.parametrize(
    "roles",
    [{"owner": ""}, {"owner": "x" * 64}, {"owner": "a", "writer": "a"}, {"reader": "a\0b"}],
)
def test_unusable_names_are_refused(roles: Any) -> None:
    """The error names what is wrong."""
    with pytest.raises(ConfigurationError, match="Roles"):
        Roles(**roles)


@pytest.mark.only_on("mariadb")
@pytest.mark.needs("roles")
def test_the_grants_for_mariadb_are_right(
    database: Database, engine: sa.Engine, connect_as: Callable[[sa.URL], sa.Engine]
) -> None:
    """With the printed grants alone, an account records everything and can change nothing."""
    base, name = bank(), f"{database.role_prefix}app"
    sa_audit.configure(base, roles=roles_of(database))
    base.metadata.create_all(engine)
    lines = script(engine, base.metadata, roles_of(database), name, None).splitlines()
    data = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO '{name}'@'%'" for table in ("customer", "account")]
    default = f"SET DEFAULT ROLE {roles_of(database).writer} FOR '{name}'@'%'"
    grants = [line.rstrip(";") for line in lines if line and not line.startswith("--")]
    with engine.begin() as connection:
        for text in (f"CREATE USER '{name}'@'%' IDENTIFIED BY 'secret'", *data, *grants, default):
            connection.exec_driver_sql(text.replace("%", "%%"))
    application = connect_as(database.url.set(username=name, password="secret"))
    use(application, base)
    with sa_audit.context(actor="teller:2"), Session(application) as session:
        account = session.get_one(of(base, "Account"), 1)
        sa_audit.record(session, "account.closed", target=account)
        session.delete(account)
        session.commit()
        sa_audit.record(session, "bell.rung", base=base, durable=True)
    with engine.connect() as connection:
        assert list(connection.scalars(sa.text("SELECT durable FROM audit_event ORDER BY audit_id"))) == [0, 1]
        ops = list(connection.scalars(sa.text("SELECT audit_op FROM account_history ORDER BY audit_id")))
    assert ops == ["I", "U", "D"]
    for statement in (
        "INSERT INTO audit_event (audit_id, audit_tx, audit_at, action, durable) VALUES (9, 1, '2020-01-01', 'x', 0)",
        "DELETE FROM audit_event",
        "TRUNCATE account_history",
        "DELETE FROM account_history",
        "INSERT INTO audit_transaction (db_user) VALUES ('root')",
        "INSERT INTO account_history (audit_id, audit_tx, audit_op, audit_at) VALUES (1, 1, 'I', '2020-01-01')",
        "DROP TRIGGER account_history_guard_delete",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="denied"), application.begin() as connection:
            connection.exec_driver_sql(statement)
