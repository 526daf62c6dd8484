"""A sealed trail that is attacked: what an attempt is, and what comes of it.

Every attempt has a database of its own, a copy of one that a migrator made with roles and trigger capture, that an
application filled, and that was sealed and anchored.  What is not refused is looked for by `check`, then by `verify`,
then by `reconcile`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import anchors
from sa_audit.catalog.drift import check
from sa_audit.model import complete
from sa_audit.model.history import iter_audited
from sa_audit.proof import Signer
from sa_audit.seal import rebase, seal
from sa_audit.verification import verify
from tests.databases import Database
from tests.migrate.models import of
from tests.migrate.secured import Secured

NOT_FOUND = "**neither refused nor found**"
HISTORY = "audit.customer_history"


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


class Attacked:
    """The database that is copied for every attempt, and what judges a copy.

    Args:
        secured: the project, with nothing migrated yet.
        database: where it is.
        directory: for the sealer's state and the anchor.
        prepared: what the migrator runs once it has migrated.
    """

    def __init__(self, secured: Secured, database: Database, directory: Path, prepared: tuple[str, ...] = ()) -> None:
        self.secured = secured
        self.url = database.url
        self.directory = directory
        self.prepared = prepared
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
        with secured.migrator.begin() as connection:
            for statement in self.prepared:
                connection.exec_driver_sql(statement)
        secured.grant_data()
        secured.run(
            f'CREATE ROLE "{self.auditor}" LOGIN IN ROLE "{secured.roles.reader}"',
            *(
                f'GRANT SELECT ON {audited.table.fullname} TO "{self.auditor}"'
                for audited in iter_audited(secured.base.metadata)
            ),
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
