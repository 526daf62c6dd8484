"""The same on MariaDB, which tells no trigger who says what: the table's second part in ``docs/attacks.md``.

The attempts follow one another in one database; each changes a row of its own, and what was there is sealed before.
To write the page anew: ``SA_AUDIT_WRITE_ATTACKS=1 pytest -m slow tests/real/test_attacks_mariadb.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]  # it has no types
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import anchors
from sa_audit.catalog.drift import check
from sa_audit.ddl.mysql_capture_text import TRANSACTION
from sa_audit.model import complete
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.databases import Database
from tests.migrate.models import bank, of
from tests.real.attacked import NOT_FOUND
from tests.real.page import compare

BEGIN, END = "<!-- attempts on MariaDB -->", "<!-- end of attempts on MariaDB -->"
WRITE = "UPDATE customer SET name = 'forged' WHERE id = {row}"
ENTRY = "(SELECT t.{column} FROM audit_transaction t JOIN customer_history h ON h.audit_tx = t.id WHERE h.id = {row} ORDER BY h.audit_id DESC LIMIT 1)"  # fmt: skip # noqa: E501
NOBODY = (f"SELECT {ENTRY} IS NULL".replace("{column}", "actor"), "recorded, with no actor and the account's name")
OWN_ENTRY = (
    f"SELECT {ENTRY} > 1".replace("{column}", "id") + f" AND {ENTRY} IS NULL".replace("{column}", "first_id"),
    "recorded, under an entry of its own",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, as in `test_attacks.py`; ``otherwise`` is what stands where ``holds`` fails."""

    who: str
    what: str
    statements: tuple[str, ...]
    holds: tuple[str, str] | None = None
    otherwise: str = ""


def attempt(
    who: str, what: str, *statements: str, holds: tuple[str, str] | None = None, otherwise: str = ""
) -> Attempt:
    """Give an attempt."""
    return Attempt(who, what, statements, holds, otherwise)


BOSS = '@sa_audit_claims = \'{"actor": "boss"}\', @sa_audit_said_in = ' + TRANSACTION
FORGED = "**stands under the other's entry**"
DATED_BACK = "**stands under an entry of its own, dated back**"
ATTEMPTS = (
    attempt("application", "write a history row", "INSERT INTO customer_history (audit_tx, audit_op) VALUES (1, 'U')"),
    attempt("application", "write an entry", "INSERT INTO audit_transaction (actor) VALUES ('boss')"),
    attempt("application", "change history", "UPDATE customer_history SET name = 'x'"),
    attempt("application", "truncate history", "TRUNCATE customer_history"),
    attempt("application", "truncate the table", "TRUNCATE customer"),
    attempt("application", "drop a trigger", "DROP TRIGGER {trigger}"),
    attempt("application", "leave an actor to the next transaction", f"SET {BOSS}", "COMMIT", WRITE, holds=NOBODY),
    attempt(
        "application",
        "say to be somebody else",
        "SELECT * FROM customer",
        f"SET {BOSS}",
        WRITE,
        holds=(
            f"SELECT {ENTRY} = 'boss'".replace("{column}", "actor"),
            "recorded as said, with the account's name: an actor is what the application says",
        ),
        otherwise=NOBODY[1],
    ),
    attempt(
        "application", "empty settings (`''`)", "SET @sa_audit_claims = '', @sa_audit_entry = ''", WRITE, holds=NOBODY
    ),
    attempt(
        "application",
        "leave an entry to the next statement",
        "SET @sa_audit_entry = 1, @sa_audit_statement = NOW(6)",
        WRITE,
        holds=OWN_ENTRY,
    ),
    attempt("application", "write in AUTOCOMMIT", "SET autocommit = 1", WRITE, holds=NOBODY),
    attempt(
        "application",
        "record under another's entry, with the clock held still",
        "SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) - 1",
        "SET @sa_audit_entry = 1, @sa_audit_statement = NOW(6)",
        WRITE,
        holds=OWN_ENTRY,
        otherwise=FORGED,
    ),
    attempt(
        "application",
        "date a change back, by a further entry of another's older transaction",
        "INSERT INTO branch (id) VALUES ({row})",
        f"SET @sa_audit_first = 1, @sa_audit_first_in = {TRANSACTION}",
        WRITE,
        holds=OWN_ENTRY,
        otherwise=DATED_BACK,
    ),
    attempt(
        "application",
        "the same, of an older transaction of its own",
        "INSERT INTO branch (id) VALUES ({row})",
        f"SET {BOSS}, @sa_audit_first = {{own}}, @sa_audit_first_in = {TRANSACTION}",
        WRITE,
        holds=OWN_ENTRY,
        otherwise=DATED_BACK,
    ),
    attempt(
        "application",
        "the same, of a transaction of its own that has ended since the last sealing",
        WRITE,
        "SET @mine = @sa_audit_entry",
        "COMMIT",
        "INSERT INTO branch (id) VALUES ({row})",
        f"SET {BOSS}, @sa_audit_first = @mine, @sa_audit_first_in = {TRANSACTION}",
        "UPDATE customer SET name = 'forged again' WHERE id = {row}",
        holds=OWN_ENTRY,
        otherwise=DATED_BACK,
    ),
    attempt("root", "change history", "UPDATE customer_history SET name = 'x'"),
    attempt("root", "replace a row of history", "REPLACE INTO customer_history SELECT * FROM customer_history LIMIT 1"),
    attempt("root", "drop a trigger that records", "DROP TRIGGER {trigger}"),
    attempt("root", "truncate the table", "SET foreign_key_checks = 0", "TRUNCATE customer"),
    attempt("root", "truncate history", "TRUNCATE customer_history"),
)


class Attacked:
    """The database, its accounts, and what judges it."""

    def __init__(self, database: Database, engine: sa.Engine, directory: Path) -> None:
        self.url, self.engine, self.directory = database.url, engine, directory
        self.account = f"{database.role_prefix}app"[:32]
        self.signer = Signer.generate("bank.example/audit")
        self.base = bank()
        sa_audit.configure(self.base, capture="trigger")
        self.base.metadata.create_all(engine)
        self.known: set[Any] = set()
        customer = of(self.base, "Customer")
        with sa_audit.context(actor="teller"), Session(engine) as session:
            session.add_all([customer(id=number, name=f"name {number}") for number in range(1, len(ATTEMPTS) + 1)])
            session.commit()
        with engine.begin() as connection:
            self.trigger = connection.exec_driver_sql(
                "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() "
                "AND event_object_table = 'customer' AND event_manipulation = 'UPDATE' AND action_timing = 'AFTER'"
            ).scalar_one()
            connection.exec_driver_sql(f"CREATE OR REPLACE USER '{self.account}'@'%%'")
            for table in ("customer", "branch", "account"):
                connection.exec_driver_sql(
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{self.url.database}`.{table} TO '{self.account}'@'%%'"
                )

    def seal(self) -> None:
        """Seal what there is, and anchor it."""
        seal(self.engine, self.signer, state=self.directory / "state", anchors=self.anchors, metadata=self.base)

    @property
    def anchors(self) -> list[Any]:
        """The anchor, opened anew."""
        return [anchors.open(f"file:{self.directory / 'anchor'}")]

    def result(self, row: int, each: Attempt) -> str:
        """Make an attempt, and give what came of it."""
        self.seal()
        with self.engine.connect() as known:
            last = "SELECT max(id) FROM audit_transaction WHERE db_user LIKE %s"
            own = known.exec_driver_sql(last, (f"{self.account}@%",)).scalar()
        user = self.account if each.who == "application" else self.url.username
        connection = pymysql.connect(
            host=self.url.host,
            port=self.url.port,
            user=user,
            password=self.url.password or "",
            database=self.url.database,
        )
        try:
            for statement in each.statements:
                filled = statement.replace("{row}", str(row)).replace("{trigger}", f"`{self.trigger}`")
                filled = filled.replace("{own}", str(own))
                with connection.cursor() as cursor:
                    cursor.execute(filled)
            connection.commit()
        except pymysql.MySQLError as error:
            return "refused: " + str(error.args[1]).replace(self.account, "application").replace(
                str(self.url.database), "bank"
            ).partition("@")[0].replace("|", "\\|")
        finally:
            connection.close()
        return self.found(row, each)

    def found(self, row: int, each: Attempt) -> str:
        """Give what finds it."""
        with self.engine.connect() as connection:
            trail = complete(self.base.metadata)
            assert trail is not None
            kinds = sorted({finding.kind for finding in check(connection, trail).drift} - self.known)
        if kinds:
            self.known |= set(kinds)
            self.seal()
            self.known |= self.verified()  # it stays so, and the next attempt has nothing to do with it
            return "found by `check`: " + ", ".join(f"`{kind}`" for kind in kinds)
        self.seal()
        found = self.verified() - self.known
        self.known |= found
        stands = ""
        if each.holds is not None:
            with self.engine.connect() as connection:
                held = connection.exec_driver_sql(each.holds[0].replace("{row}", str(row))).scalar()
            stands = each.holds[1] if held else each.otherwise
            assert stands, each
        if found:
            kinds = sorted({str(kind) for kind, _table, _row in found})
            return ", ".join(filter(None, [stands, "found by `verify`: " + ", ".join(f"`{kind}`" for kind in kinds)]))
        with Session(self.engine) as session:
            if not stands and list(sa_audit.reconcile(session, of(self.base, "Customer"))):
                return "found by `reconcile()`"
        return f"{stands}, {NOT_FOUND}" if stands in (FORGED, DATED_BACK) else stands or NOT_FOUND

    def verified(self) -> set[Any]:
        """Give what `verify` finds, by kind, table and row."""
        report = verify(self.engine, self.signer.verifier, anchors=self.anchors, metadata=self.base)
        return {(finding.kind, finding.table, finding.row) for finding in report.findings}

    def drop(self) -> None:
        """Drop the account."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP USER IF EXISTS '{self.account}'@'%%'")


@pytest.fixture
def attacked(tmp_path: Path, database: Database, engine: sa.Engine) -> Iterator[Attacked]:
    """The database, filled."""
    target = Attacked(database, engine, tmp_path)
    yield target
    target.drop()


@pytest.mark.slow
@pytest.mark.only_on("mariadb")
def test_the_page_says_what_came_of_each_attempt(attacked: Attacked) -> None:
    """Refused, or found, or recorded as what it is, or not: the manual's table is what was measured."""
    rows = [(each.who, each.what, attacked.result(row, each)) for row, each in enumerate(ATTEMPTS, 1)]
    head = ["| who | tries to | result |", "| --- | --- | --- |"]
    table = "\n".join([*head, *(f"| {who} | {what} | {result} |" for who, what, result in rows)])
    compare(table, BEGIN, END)
