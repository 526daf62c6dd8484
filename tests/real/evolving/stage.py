"""One stage of the project: the migration is generated and run, rows are written in three ways, copies are taken.

``python stage.py`` in the project's directory; the environment says which stage, database and accounts.
What it leaves for the next stage is in ``copies.pickle``: for each moment the rows of each table.
"""

from __future__ import annotations

import datetime as dt
import os
import pickle
import sqlite3
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import alembic.config
import bank
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import InvalidMoment
from sa_audit.model import audited_of

STAGE, DIALECT = bank.STAGE, bank.DIALECT
KEPT = Path("copies.pickle")
REVISION = f"{STAGE:04}"
CODE_TO_NUMBER = "length(code)"
Copies = list[tuple[Any, int, dict[str, list[dict[str, Any]]]]]


def migrate() -> None:
    """Generate the revision, put into it what a person has to write by hand, run it, and find nothing left to do."""
    os.environ["SA_AUDIT_URL"] = os.environ["BANK_MIGRATOR_URL"]
    revision = ["revision", "--autogenerate", "-m", "evolve", "--rev-id", REVISION]
    alembic.config.main(revision)
    (file,) = Path("migrations/versions").glob(f"{REVISION}_*.py")
    file.write_text(by_hand(file.read_text()))
    alembic.config.main(["upgrade", "head"])
    alembic.config.main(["check"])


def by_hand(text: str) -> str:
    """Write into a revision what Alembic can't know: how a text becomes a number, a label of an enum, a schema."""
    first = text.index("def upgrade()")
    first = text.index("\n", first) + 1
    if '"""' in text[first : first + 40]:
        first = text.index("\n", first) + 1
    lines = []
    if STAGE == bank.RETYPED and DIALECT == "postgresql":
        assert text.count("type_=sa.Integer(),") == 1
        return text.replace("type_=sa.Integer(),", f"type_=sa.Integer(), postgresql_using='{CODE_TO_NUMBER}',")
    if STAGE == bank.RETYPED:
        lines = [f'op.get_bind().connection.cursor().execute("UPDATE customer SET code = {CODE_TO_NUMBER}")']
    if STAGE == bank.ENUM and DIALECT == "postgresql":
        lines = ["op.execute(\"ALTER TYPE account_kind ADD VALUE 'joint'\")"]
    if STAGE == bank.SCHEMA and DIALECT == "postgresql":
        lines = ['op.execute("CREATE SCHEMA vault")']
    return text[:first] + "".join(f"    {line}\n" for line in lines) + text[first:]


def live_tables() -> dict[str, sa.Table]:
    """Give the models' tables by one name for all stages."""
    tables = {table.name: table for table in bank.Base.metadata.tables.values() if not sa_audit.is_trail_table(table)}
    if "deposit" in tables:
        tables["account"] = tables.pop("deposit")
    return tables


def by_session(engine: sa.Engine) -> None:
    """Add, change and delete objects, a cascade among it."""
    customer, account = bank.Customer, bank.Account
    with sa_audit.context(actor="teller:1", reason=f"stage {STAGE}"), Session(engine) as session:
        session.add(customer(id=100 + STAGE, name=f"name {STAGE}", code=code(STAGE), **mail(f"a{STAGE}@x")))
        session.flush()
        session.add(account(id=100 + STAGE, owner_id=100 + STAGE, balance=Decimal("1.10"), kind="private"))
        if not bank.since(bank.TABLE_DROPPED):
            session.add(bank.Note(id=STAGE, text="é" * STAGE))
        session.commit()
        if STAGE:
            session.get_one(customer, 99 + STAGE).code = code(STAGE + 1)
            session.get_one(account, 99 + STAGE).balance += Decimal("0.01")
            session.commit()
        if STAGE > 2:
            session.delete(session.get_one(account, 97 + STAGE))
            session.flush()
            session.delete(session.get_one(customer, 97 + STAGE))
            session.commit()


def by_core(engine: sa.Engine) -> None:
    """Insert many, change many."""
    tables = live_tables()
    customer, account = tables["customer"], tables["account"]
    with sa_audit.context(actor="batch"), engine.begin() as connection:
        first = 1000 + 10 * STAGE
        rows = [{"id": first + n, "name": "many", "code": code(n), **mail(None)} for n in range(5)]
        connection.execute(sa.insert(customer), rows)
        connection.execute(sa.update(account).values(balance=account.c.balance * 2))
        connection.execute(sa.update(customer).where(customer.c.id > first - 5).values(name="more", code=None))
        connection.execute(sa.insert(tables["tag"]), [{"id": STAGE, "label": f"tag {STAGE}"}])
        if bank.since(bank.ENUM):
            connection.execute(sa.update(account).where(account.c.id == 100 + STAGE).values(kind="joint"))
        if bank.since(bank.SCHEMA) and DIALECT == "postgresql":
            connection.execute(sa.insert(tables["safe"]), [{"id": n, "place": "cellar"} for n in range(3)])
        connection.execute(sa.delete(customer).where(customer.c.id == first))


def by_hand_on_the_server(engine: sa.Engine) -> None:
    """Write as psql does: a connection of the driver alone, which says nobody's name."""
    column = "mail" if bank.since(bank.RENAMED) else "email"
    statements = [
        f"INSERT INTO customer (id, name, code, {column}) VALUES ({5000 + STAGE}, 'raw', {STAGE}, 'raw@x')",
        f"UPDATE customer SET code = code + 1, {column} = NULL WHERE id = {100 + STAGE}",
        "UPDATE deposit SET balance = balance + 0.5 WHERE id > 100",
        f"DELETE FROM customer WHERE id = {1000 + 10 * STAGE + 1}",
    ]
    raw = engine.raw_connection()
    try:
        driver = raw.driver_connection
        cursor = driver.cursor()
        if isinstance(driver, sqlite3.Connection):
            cursor.execute("PRAGMA foreign_keys = ON")
        for statement in statements:
            cursor.execute(statement)
        if DIALECT == "postgresql":
            with cursor.copy("COPY customer (id, name, code) FROM STDIN") as copy:
                for n in range(3):
                    copy.write_row((6000 + 10 * STAGE + n, "copied", n))
        driver.commit()
    finally:
        raw.close()


def code(number: int) -> Any:
    """Give a code of the type that the column has: a text, later a number."""
    return number if bank.since(bank.RETYPED) else f"{number:03}"


def mail(address: str | None) -> dict[str, Any]:
    """Give the address under the name that the column has."""
    return {"mail" if bank.since(bank.RENAMED) else "email": address}


def copies(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of all tables."""
    with engine.connect() as connection:
        return {
            name: [dict(row) for row in connection.execute(sa.select(table).order_by(table.c.id)).mappings()]
            for name, table in live_tables().items()
        }


def now(engine: sa.Engine) -> dt.datetime:
    """Ask the clock that moments are recorded by."""
    if DIALECT == "sqlite":
        moment = dt.datetime.now(dt.UTC)
        time.sleep(0.002)  # a program that says nobody's name is dated to the millisecond, which may begin before
        return moment
    ask = "SELECT clock_timestamp()" if DIALECT == "postgresql" else "SELECT UTC_TIMESTAMP(6)"
    with engine.connect() as connection:
        found: dt.datetime = connection.exec_driver_sql(ask).scalar_one()
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def compare(engine: sa.Engine, kept: Copies) -> int:
    """Compare the past with every copy, by the models of now; give the number of rows that were compared."""
    compared = 0
    for moment, stage, tables in kept:
        with sa_audit.as_of(engine, moment) as past:
            for name, table in live_tables().items():
                if audited_of(table) is not None:
                    compared += compare_table(past, table, name, stage, tables.get(name))
    return compared


def compare_table(past: Session, table: sa.Table, name: str, stage: int, rows: Any) -> int:
    """Compare one table; a moment before it was tracked is refused."""
    statement = sa.select(table).order_by(table.c.id)
    if rows is None or (name == "tag" and stage < bank.TRACKED):
        try:
            past.execute(statement)
        except InvalidMoment:
            return 0
        raise AssertionError(f"{name} at stage {stage} was answered, and was not tracked then")
    found = [dict(row) for row in past.execute(statement).mappings()]
    expected = [{column.name: expected_value(row, column) for column in table.columns} for row in rows]
    differing = [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]]
    assert found == expected, (name, stage, STAGE, differing[:3])
    return len(found)


def expected_value(row: dict[str, Any], column: sa.Column[Any]) -> Any:
    """Give what the past should show of a column: the copy's value, under its name of then."""
    if "sa_audit" in column.info:
        return sa_audit.Masked
    if column.name == "mail" and "mail" not in row:
        return row["email"]
    return row.get(column.name)


def check_histories(engine: sa.Engine) -> None:
    """Read every customer's history: it ends with the present row, and nothing else went past the trail."""
    customer = live_tables()["customer"]
    with Session(engine) as session:
        for row in session.execute(sa.select(customer)).mappings().all():
            last = sa_audit.history(session, customer, row["id"])[-1]
            shown = {name: value for name, value in row.items() if "sa_audit" not in customer.c[name].info}
            assert {name: last.state[name] for name in shown} == shown, (last, shown)
        for table in live_tables().values():
            if audited_of(table) is not None:
                assert list(sa_audit.reconcile(session, table)) == [], table.name


def main() -> None:
    """Run the stage."""
    kept: Copies = pickle.loads(KEPT.read_bytes()) if KEPT.exists() else []
    migrate()
    engine = sa.create_engine(os.environ["BANK_APPLICATION_URL"])
    if grants := os.environ.get("BANK_GRANTS"):
        grant(os.environ["BANK_MIGRATOR_SYNC_URL"], grants)
    for write in (by_session, by_core, *([by_hand_on_the_server] if bank.since(bank.TRIGGERS) else [])):
        write(engine)
        kept.append((now(engine), STAGE, copies(engine)))
    KEPT.write_bytes(pickle.dumps(kept))
    print("compared", compare(engine, kept))
    check_histories(engine)
    engine.dispose()


def grant(url: str, application: str) -> None:
    """Let the application work on the audited tables, as the owner of the data does."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in live_tables().values():
            if table.schema:
                connection.exec_driver_sql(f'GRANT USAGE ON SCHEMA {table.schema} TO "{application}"')
            connection.exec_driver_sql(f'GRANT SELECT, INSERT, UPDATE, DELETE ON {table.fullname} TO "{application}"')
    engine.dispose()


if __name__ == "__main__":
    main()
