"""A sealed trail is attacked as each of its accounts; what came of each attempt is the table in ``docs/attacks.md``.

Every attempt has a database of its own, a copy of one that a migrator made with roles and trigger capture, that an
application filled, and that was sealed and anchored.  What is not refused is looked for by `check`, then by `verify`,
then by `reconcile`.  To write the page anew: ``SA_AUDIT_WRITE_ATTACKS=1 pytest -m slow tests/real/test_attacks.py``.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import anchors
from sa_audit.catalog.drift import check
from sa_audit.model import complete
from sa_audit.proof import Signer
from sa_audit.seal import rebase, seal
from sa_audit.verification import verify
from tests.databases import Database
from tests.migrate.models import bank, of
from tests.migrate.secured import Secured, secure
from tests.real.page import compare
from tests.servers import bundled_postgresql

NOT_FOUND = "**neither refused nor found**"
BEGIN, END = "<!-- attempts -->", "<!-- end of attempts -->"
NOW = "to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"
BOSS = '{"actor": "boss"}'
ROW = "(audit_tx, audit_op, audit_at, audit_flush, id, name)"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Args:
        who: ``application``, ``migrator``, ``auditor`` or ``superuser``.
        what: what is tried, for the table.
        statements: each a transaction of its own, or several in one, separated by semicolons.
        holds: a query that is true where the attempt, though it was not refused, changed nothing that is recorded; its
            text for the table stands beside it.
    """

    who: str
    what: str
    statements: tuple[str, ...]
    holds: tuple[str, str] | None = None


def attempt(who: str, what: str, *statements: str, holds: tuple[str, str] | None = None) -> Attempt:
    """Give an attempt."""
    return Attempt(who, what, statements, holds)


WRITE = "UPDATE customer SET name = 'forged' WHERE id = 1"
LAST = "(SELECT t.{column} FROM audit.audit_transaction t JOIN audit.customer_history h ON h.audit_tx = t.id ORDER BY h.audit_id DESC LIMIT 1)"  # fmt: skip # noqa: E501
NOBODY = (f"SELECT {LAST.format(column='actor')} IS NULL", "recorded, with no actor and the account's name")
NEW_ENTRY = (f"SELECT {LAST.format(column='id')} > 1", "recorded, under an entry of its own")
OWN = "SET ROLE {owner}; "
OFF, ON = "ALTER TABLE {table} DISABLE TRIGGER USER", "ALTER TABLE {table} ENABLE ALWAYS TRIGGER "
HISTORY, GUARD = "audit.customer_history", "sa_audit_guard_row"

ATTEMPTS = (
    attempt("application", "write a history row", f"INSERT INTO {HISTORY} {ROW} VALUES (1, 'U', now(), 1, 1, 'x')"),
    attempt("application", "write an entry", "INSERT INTO audit.audit_transaction (actor) VALUES ('boss')"),
    attempt("application", "change history", f"UPDATE {HISTORY} SET name = 'x'"),
    attempt("application", "delete history", f"DELETE FROM {HISTORY}"),
    attempt("application", "truncate history", f"TRUNCATE {HISTORY}"),
    attempt(
        "application", "open an entry by the library's own function", "SELECT audit.sa_audit_entry_v1(false, false)"
    ),
    attempt(
        "application",
        "record under another transaction's entry (`sa_audit.entry`)",
        f"SELECT set_config('sa_audit.entry', '1', true); {WRITE}",
        holds=NEW_ENTRY,
    ),
    attempt(
        "application",
        "leave an entry to the next transaction",
        "SELECT set_config('sa_audit.entry', '1', false)",
        WRITE,
        holds=NEW_ENTRY,
    ),
    attempt(
        "application",
        "say to be somebody else",
        "SELECT audit.sa_audit_context_v1('" + BOSS + "'); " + WRITE,
        holds=(
            f"SELECT {LAST.format(column='actor')} = 'boss' AND {LAST.format(column='db_user')} = '{{application}}'",
            "recorded as said, with the account's name: an actor is what the application says",
        ),
    ),
    attempt(
        "application",
        "leave an actor to the next transaction",
        "SELECT set_config('sa_audit.claims', " + NOW + " || '" + BOSS + "', false)",
        WRITE,
        holds=NOBODY,
    ),
    attempt(
        "application",
        "empty settings (`''`)",
        "SELECT set_config('sa_audit.claims', '', false), set_config('sa_audit.entry', '', false)",
        WRITE,
        holds=NOBODY,
    ),
    attempt(
        "application",
        "settings that are no JSON, no number",
        "SELECT set_config('sa_audit.claims', "
        + NOW
        + " || 'x', true), set_config('sa_audit.entry', 'x', true); "
        + WRITE,
    ),
    attempt(
        "application",
        "date a change back",
        'SELECT audit.sa_audit_context_v1(\'{"recorded_at": "2020-01-01", "db_user": "root"}\'); ' + WRITE,
        holds=(
            f"SELECT {LAST.format(column='recorded_at')} > '2021-01-01' AND {LAST.format(column='db_user')} <> 'root'",
            "recorded at its own moment, with the account's name",
        ),
    ),
    attempt("application", "write in AUTOCOMMIT", "AUTOCOMMIT", WRITE, holds=NOBODY),
    attempt(
        "application",
        "attach the capture function to a table of one's own",
        "CREATE SCHEMA mine; CREATE TABLE mine.customer (id int, name text); CREATE TRIGGER t AFTER INSERT ON "
        "mine.customer FOR EACH ROW EXECUTE FUNCTION audit.sa_audit_capture_customer_history()",
    ),
    attempt(
        "application",
        "the same, with a temporary table of the audited one's name",
        "CREATE TEMP TABLE customer (id int, name text); CREATE TRIGGER t AFTER INSERT ON pg_temp.customer "
        "FOR EACH ROW EXECUTE FUNCTION audit.sa_audit_capture_customer_history()",
    ),
    attempt(
        "application",
        "hide the trail behind temporary tables and a search path",
        f"CREATE TEMP TABLE customer_history (id int); CREATE TEMP TABLE audit_transaction (id int); "
        f"SET search_path = pg_temp, public, audit; {WRITE}",
        holds=NOBODY,
    ),
    attempt("application", "switch triggers off for the session", f"SET session_replication_role = replica; {WRITE}"),
    attempt("application", "switch triggers off for the table", "ALTER TABLE customer DISABLE TRIGGER ALL"),
    attempt("application", "truncate the table", "TRUNCATE customer"),
    attempt("application", "become the owner", "SET ROLE {owner}"),
    attempt("application", "set the sequence back", "SELECT setval('audit.audit_id_seq', 1)"),
    attempt(
        "application",
        "undo a change in a savepoint",
        f"SAVEPOINT s; {WRITE}; ROLLBACK TO s; UPDATE customer SET name = 'kept' WHERE id = 1",
        holds=(
            f"SELECT count(*) = 1 FROM {HISTORY} WHERE audit_op = 'U' AND name IN ('kept', 'forged')",
            "what stayed is recorded",
        ),
    ),
    attempt("auditor", "write a history row", f"INSERT INTO {HISTORY} {ROW} VALUES (1, 'U', now(), 1, 1, 'x')"),
    attempt("auditor", "change history", f"UPDATE {HISTORY} SET name = 'x'"),
    attempt("auditor", "write the audited table", WRITE),
    attempt("auditor", "become the owner", "SET ROLE {owner}"),
    attempt("migrator", "change history", OWN + f"UPDATE {HISTORY} SET name = 'x'"),
    attempt("migrator", "truncate history", OWN + f"TRUNCATE {HISTORY} CASCADE"),
    attempt(
        "migrator",
        "write a history row of another's entry",
        OWN + f"INSERT INTO {HISTORY} {ROW} SELECT id, 'U', recorded_at, 1, 1, 'x' "
        "FROM audit.audit_transaction WHERE id = 1",
    ),
    attempt(
        "migrator",
        "write an entry of one's own, dated back",
        OWN + "INSERT INTO audit.audit_transaction (actor, recorded_at) VALUES ('boss', '2020-01-01')",
        holds=(
            "SELECT recorded_at > '2021-01-01' AND db_user = '{migrator}' FROM audit.audit_transaction "
            "ORDER BY id DESC LIMIT 1",
            "dated now, with the account's name, and sealed as such",
        ),
    ),
    attempt(
        "migrator",
        "write an invented change, in one's own name",
        OWN + f"WITH e AS (INSERT INTO audit.audit_transaction (actor) VALUES ('boss') RETURNING id, recorded_at) "
        f"INSERT INTO {HISTORY} {ROW} SELECT id, 'U', recorded_at, 1, 1, 'x' FROM e",
    ),
    attempt("migrator", "drop a guard", OWN + f"DROP TRIGGER {GUARD} ON {HISTORY}"),
    attempt(
        "migrator",
        "lift the guards, change history, put them back",
        f"{OWN}{OFF.format(table=HISTORY)}",
        f"{OWN}UPDATE {HISTORY} SET name = 'x' WHERE id = 2",
        f"{OWN}{{enable}}",
    ),
    attempt(
        "migrator",
        "lift the guards, delete the last change, put them back",
        f"{OWN}{OFF.format(table=HISTORY)}",
        f"{OWN}DELETE FROM {HISTORY} WHERE audit_id = (SELECT max(audit_id) FROM {HISTORY})",
        f"{OWN}{{enable}}",
    ),
    attempt(
        "migrator",
        "rewrite history by a change of type",
        OWN + f"ALTER TABLE {HISTORY} ALTER COLUMN name TYPE varchar(50) USING 'x'",
    ),
    attempt("migrator", "drop a history", OWN + f"DROP TABLE {HISTORY}"),
    attempt(
        "migrator", "silence a history by a rule", OWN + f"CREATE RULE r AS ON INSERT TO {HISTORY} DO INSTEAD NOTHING"
    ),
    attempt(
        "migrator",
        "silence a history by row security",
        OWN + f"ALTER TABLE {HISTORY} ENABLE ROW LEVEL SECURITY; ALTER TABLE {HISTORY} FORCE ROW LEVEL SECURITY",
    ),
    attempt(
        "migrator",
        "silence a history by a trigger",
        OWN + "CREATE FUNCTION audit.silent() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        f"CREATE TRIGGER silent BEFORE INSERT ON {HISTORY} FOR EACH ROW EXECUTE FUNCTION audit.silent()",
    ),
    attempt("migrator", "drop the capture trigger", 'DROP TRIGGER "AA_sa_audit_capture" ON customer'),
    attempt(
        "migrator",
        "switch capture off, write, switch it on again",
        'ALTER TABLE customer DISABLE TRIGGER "AA_sa_audit_capture"',
        WRITE,
        'ALTER TABLE customer ENABLE ALWAYS TRIGGER "AA_sa_audit_capture"',
    ),
    attempt(
        "migrator",
        "switch capture off, write, write back, switch it on again",
        'ALTER TABLE customer DISABLE TRIGGER "AA_sa_audit_capture"',
        WRITE,
        "UPDATE customer SET name = 'other 1' WHERE id = 1",
        'ALTER TABLE customer ENABLE ALWAYS TRIGGER "AA_sa_audit_capture"',
    ),
    attempt(
        "migrator",
        "replace the capture function, write, put it back",
        OWN + "CREATE OR REPLACE FUNCTION audit.sa_audit_capture_customer_history() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        "RESET ROLE; " + WRITE,
        OWN + "{function}",
    ),
    attempt(
        "migrator",
        "replace the capture function",
        OWN + "CREATE OR REPLACE FUNCTION audit.sa_audit_capture_customer_history() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
    ),
    attempt("migrator", "switch capture on again by ENABLE TRIGGER USER", "ALTER TABLE customer ENABLE TRIGGER USER"),
    attempt(
        "migrator", "give the application a right on history", OWN + 'GRANT INSERT ON {history} TO "{application}"'
    ),
    attempt("migrator", "make the application a member of the owner", 'GRANT {owner} TO "{application}"'),
    attempt(
        "migrator",
        "rewrite rows by a change of the table's type",
        "ALTER TABLE customer ALTER COLUMN name TYPE varchar(50) USING 'x'",
    ),
    attempt(
        "superuser",
        "switch triggers off for the session, change history",
        f"SET session_replication_role = replica; UPDATE {HISTORY} SET name = 'x'",
    ),
    attempt(
        "superuser",
        "switch triggers off for the session, write the table",
        f"SET session_replication_role = replica; {WRITE}",
        holds=NOBODY,
    ),
    attempt(
        "superuser",
        "lift the guards, change an entry's actor, put them back",
        OFF.format(table="audit.audit_transaction"),
        "UPDATE audit.audit_transaction SET actor = 'x' WHERE id = 1",
        "{enable_transaction}",
    ),
    attempt(
        "superuser",
        "cut the log's end off, with its rows",
        OFF.format(table="audit.audit_block"),
        OFF.format(table="audit.audit_checkpoint"),
        OFF.format(table="audit.audit_sealed"),
        "DELETE FROM audit.audit_sealed WHERE block = (SELECT max(number) FROM audit.audit_block); "
        "DELETE FROM audit.audit_checkpoint WHERE size > (SELECT max(first_leaf) FROM audit.audit_block); "
        "DELETE FROM audit.audit_block WHERE number = (SELECT max(number) FROM audit.audit_block)",
        "{enable_log}",
    ),
)


class Attacked:
    """The database that is copied for every attempt, and what judges a copy."""

    def __init__(self, secured: Secured, database: Database, directory: Path) -> None:
        self.secured = secured
        self.url = database.url
        self.directory = directory
        self.auditor = f"{database.role_prefix}aud"
        self.signer = Signer.generate("bank.example/audit")
        self.names = {
            "owner": f'"{secured.roles.owner}"',
            "application": secured.names[0],
            "migrator": secured.names[1],
            "history": HISTORY,
        }

    def fill(self) -> None:
        """Migrate, write as the application, seal and anchor."""
        secured = self.secured
        secured.project.migrate()
        secured.grant_data()
        secured.run(
            f'CREATE ROLE "{self.auditor}" LOGIN IN ROLE "{secured.roles.reader}"',
            *(f'GRANT SELECT ON {name} TO "{self.auditor}"' for name in ("customer", "account")),
        )
        self.close()
        self.copy("empty", self.url.database)
        customer = of(secured.base, "Customer")
        for number in range(1, 5):
            with sa_audit.context(actor=f"teller:{number}"), Session(secured.application) as session:
                session.add(customer(id=number, name=f"name {number}"))
                session.commit()
                session.get_one(customer, number).name = f"other {number}"
                session.commit()
            if number % 2 == 0:
                self.seal()
        self.enable = self.enabling("customer_history")
        with secured.engine.connect() as connection:
            self.function = connection.exec_driver_sql(
                "SELECT pg_get_functiondef('audit.sa_audit_capture_customer_history()'::regprocedure)"
            ).scalar_one()
        self.enable_transaction = self.enabling("audit_transaction")
        self.enable_log = "; ".join(self.enabling(name) for name in ("audit_block", "audit_checkpoint", "audit_sealed"))
        self.close()

    def enabling(self, table: str) -> str:
        """Give what switches a table's triggers on again, each as it was."""
        words = {"A": "ENABLE ALWAYS", "O": "ENABLE"}
        with self.secured.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT tgname, tgenabled::text FROM pg_trigger "
                f"WHERE tgrelid = 'audit.{table}'::regclass AND NOT tgisinternal"
            ).all()
        return "; ".join(f'ALTER TABLE audit.{table} {words[state]} TRIGGER "{name}"' for name, state in found)

    def seal(self) -> None:
        """Seal what there is, and anchor it."""
        seal(
            self.secured.engine,
            self.signer,
            state=self.directory / "state",
            anchors=[anchors.open(f"file:{self.directory / 'anchor'}")],
            metadata=self.secured.base,
        )

    def close(self) -> None:
        """Close all connections, so that the database can be copied."""
        for engine in (self.secured.engine, self.secured.application, self.secured.migrator):
            engine.dispose()

    def name(self, kind: str) -> str:
        """Give the name of a copy."""
        return f"{self.url.database}_{kind}"

    def copy(self, kind: str, template: str | None) -> sa.URL:
        """Make a copy of a database, in place of an earlier one of that name; no template: an empty one."""
        with psycopg.connect(self.text("postgres", self.url), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{self.name(kind)}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{self.name(kind)}" TEMPLATE "{template or "template0"}"'.encode())
            grant = f'GRANT CREATE ON DATABASE "{self.name(kind)}" TO "{self.secured.names[0]}"'
            connection.execute(grant.encode())
        return self.url.set(database=self.name(kind))

    def drop(self) -> None:
        """Drop all copies."""
        with psycopg.connect(self.text("postgres", self.url), autocommit=True) as connection:
            for kind in ("empty", "x"):
                connection.execute(f'DROP DATABASE IF EXISTS "{self.name(kind)}" WITH (FORCE)'.encode())

    def text(self, database: str | None, url: sa.URL, account: str | None = None) -> str:
        """Give a URL for libpq."""
        url = url.set(drivername="postgresql", database=database or url.database, username=account or url.username)
        return url.render_as_string(hide_password=False)

    def result(self, each: Attempt) -> str:
        """Make an attempt on a copy, and give what came of it."""
        url = self.copy("x", self.url.database)
        accounts = {
            "application": self.secured.names[0],
            "migrator": self.secured.names[1],
            "auditor": self.auditor,
            "superuser": self.url.username,
        }
        enabling = {
            "enable": self.enable,
            "enable_transaction": self.enable_transaction,
            "enable_log": self.enable_log,
            "function": self.function,
        }
        with psycopg.connect(self.text(None, url, accounts[each.who])) as connection:
            try:
                for statement in each.statements:
                    if statement == "AUTOCOMMIT":
                        connection.autocommit = True
                        continue
                    connection.execute(filled(statement, {**self.names, **enabling}).encode())
                    connection.commit()
            except psycopg.Error as error:
                return f"refused: {told(error, self.names)}"
        return self.found(url, each.holds)

    def found(self, url: sa.URL, holds: tuple[str, str] | None = None) -> str:
        """Give what `check`, `verify` and `reconcile` find, the first of them that finds anything."""
        engine = sa.create_engine(url)
        try:
            trail = complete(self.secured.base.metadata)
            assert trail is not None
            with engine.connect() as connection:
                kinds = sorted({finding.kind for finding in check(connection, trail).drift})
            if kinds:
                return "found by `check`: " + ", ".join(f"`{kind}`" for kind in kinds)
            report = verify(
                engine,
                self.signer.verifier,
                anchors=[anchors.open(f"file:{self.directory / 'anchor'}")],
                metadata=self.secured.base,
            )
            if not report.ok:
                return "found by `verify`: " + ", ".join(
                    f"`{kind}`" for kind in sorted({f.kind for f in report.findings})
                )
            with Session(engine) as session:
                if list(sa_audit.reconcile(session, of(self.secured.base, "Customer"))):
                    return "found by `reconcile()`"
            if holds is None:
                return NOT_FOUND
            with engine.connect() as connection:
                assert connection.exec_driver_sql(filled(holds[0], self.names)).scalar() is True, holds
            return holds[1]
        finally:
            engine.dispose()

    def rebased(self, url: sa.URL) -> str:
        """Say that it is rightly another database, seal, and give what `verify` finds then; on copies of the files."""
        own = Path(shutil.copytree(self.directory, self.directory.parent / "rebased"))
        keep = [anchors.open(f"file:{own / 'anchor'}")]
        engine, base = sa.create_engine(url), self.secured.base
        try:
            rebase(engine, state=own / "state", operator="dba", reason="restored", metadata=base)
            seal(engine, self.signer, state=own / "state", anchors=keep, metadata=base)
            report = verify(engine, self.signer.verifier, anchors=keep, metadata=base)
        finally:
            engine.dispose()
        kinds = sorted({finding.kind for finding in report.findings})
        return ", ".join(f"`{kind}`" for kind in kinds) or "every proof holds"


def filled(text: str, values: dict[str, str]) -> str:
    """Put names into a statement."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def told(error: psycopg.Error, names: dict[str, str]) -> str:
    """Give the first line of a database's refusal, with no name of this run."""
    text = str(error).splitlines()[0]
    for name, value in names.items():
        text = text.replace(value.strip('"'), name)
    return text.replace("|", "\\|")


# -- dumps ------------------------------------------------------------------------------------------------------------

PROGRAMS = bundled_postgresql(18)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs."""
    assert PROGRAMS is not None
    return subprocess.run([str(PROGRAMS / program), *arguments], capture_output=True, text=True, check=False)


def dumps(attacked: Attacked) -> Iterator[tuple[str, str]]:
    """Restore a dump in each way, and give what came of it."""
    file = attacked.directory / "dump"
    source = attacked.text(None, attacked.url)
    done = run("pg_dump", "-Fc", "-f", str(file), source)
    assert done.returncode == 0, done.stderr
    ways: list[tuple[str, str | None, list[str]]] = [
        ("dump and restore into a new database", None, []),
        ("restore the data alone into a migrated database", attacked.name("empty"), ["--data-only"]),
        (
            "the same with `--disable-triggers`",
            attacked.name("empty"),
            ["--data-only", "--disable-triggers"],
        ),
    ]
    for what, template, options in ways:
        url = attacked.copy("x", template)
        if template:  # a restore meets what the migration wrote there
            options += ["--exclude-schema=nothing"]
        restored = run("pg_restore", *options, "-d", attacked.text(None, url), str(file))
        errors = [line for line in restored.stderr.splitlines() if "ERROR" in line]
        result = attacked.found(url, ("SELECT true", "whole: every proof holds"))
        if not template:
            result += f"; after `rebase` {attacked.rebased(url)}"
        if errors:
            first = told(psycopg.Error(errors[0].partition("ERROR:")[2].strip()), attacked.names)
            result = f"{len(errors)} errors, the first of them `{first}`; {result}"
        yield what, result


@pytest.fixture
def attacked(
    tmp_path: Path, database: Database, engine: sa.Engine, connect_as: Callable[[sa.URL], sa.Engine]
) -> Iterator[Attacked]:
    """The database, filled and sealed; its copies are dropped at the end."""
    secured = secure(tmp_path, database, engine, connect_as, bank(), schema="audit", capture="trigger")
    target = Attacked(secured, database, tmp_path)
    target.fill()
    yield target
    target.drop()


@pytest.mark.slow
@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_the_page_says_what_came_of_each_attempt(attacked: Attacked) -> None:
    """Refused, or found, or recorded as what it is: the manual's table is what was measured."""
    rows = [(each.who, each.what, attacked.result(each)) for each in ATTEMPTS]
    rows += [("superuser", what, result) for what, result in dumps(attacked)]
    table = "\n".join(
        [
            "| who | tries to | result |",
            "| --- | --- | --- |",
            *(f"| {who} | {what} | {result} |" for who, what, result in rows),
        ]
    )
    compare(table, BEGIN, END)
