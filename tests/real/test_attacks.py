"""A sealed trail is attacked as each of its accounts; what came of each attempt is the table in ``docs/attacks.md``.

Every attempt has a database of its own, a copy of one that a migrator made with roles and trigger capture, that an
application filled, and that was sealed and anchored.  What is not refused is looked for by `check`, then by `verify`,
then by `reconcile`.  To write the page anew: ``SA_AUDIT_WRITE_ATTACKS=1 pytest -m slow tests/real/test_attacks.py``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.databases import Database
from tests.migrate.models import bank
from tests.migrate.secured import secure
from tests.real.attacked import HISTORY, Attacked, attempt, told
from tests.real.page import compare
from tests.servers import bundled_postgresql

BEGIN, END = "<!-- attempts -->", "<!-- end of attempts -->"
NOW = "to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"
BOSS = '{"actor": "boss"}'
ROW = "(audit_tx, audit_op, audit_at, audit_flush, id, name)"

WRITE = "UPDATE customer SET name = 'forged' WHERE id = 1"
LAST = "(SELECT t.{column} FROM audit.audit_transaction t JOIN audit.customer_history h ON h.audit_tx = t.id ORDER BY h.audit_id DESC LIMIT 1)"  # fmt: skip # noqa: E501
NOBODY = (f"SELECT {LAST.format(column='actor')} IS NULL", "recorded, with no actor and the account's name")
NEW_ENTRY = (f"SELECT {LAST.format(column='id')} > 1", "recorded, under an entry of its own")
OWN = "SET ROLE {owner}; "
OFF, ON = "ALTER TABLE {table} DISABLE TRIGGER USER", "ALTER TABLE {table} ENABLE ALWAYS TRIGGER "
GUARD = "sa_audit_guard_row"

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
