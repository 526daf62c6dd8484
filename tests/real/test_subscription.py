"""A database that is fed by logical replication: what it may do with the trail is the last part of ``docs/attacks.md``.

Run on a server of its own, with ``wal_level = logical``.
To write the page anew: ``SA_AUDIT_WRITE_ATTACKS=1 pytest -m slow tests/real/test_subscription.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import anchors
from sa_audit.ddl.postgresql_capture_text import ROW_TRIGGER, TRUNCATE_TRIGGER
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.migrate.models import bank, of
from tests.real.page import compare
from tests.real.test_attacks import run
from tests.servers import Unavailable, shared, start_postgresql

BEGIN, END = "<!-- subscriptions -->", "<!-- end of subscriptions -->"
DATA = "customer, account, branch, member"
CAPTURE = "customer", "account", "member"
PATIENCE = 60.0


class Pair:
    """A publisher with trigger capture, and a subscriber whose tables come from the publisher's dump."""

    def __init__(self, server: str, directory: Path, number: int, tables: str, *, captures: bool) -> None:
        self.server, self.directory, self.number = sa.make_url(server), directory / str(number), number
        self.directory.mkdir()
        self.urls = [self.server.set(database=f"{word}_{number}") for word in ("publisher", "subscriber")]
        with psycopg.connect(self.text(self.server), autocommit=True) as connection:
            for url in self.urls:
                connection.execute(f"CREATE DATABASE {url.database}".encode())
        self.publisher, self.subscriber = (
            sa.create_engine(url.set(drivername="postgresql+psycopg")) for url in self.urls
        )
        self.base = bank()
        sa_audit.configure(self.base, capture="trigger")
        self.base.metadata.create_all(self.publisher)
        self.signer = Signer.generate("bank.example/audit")
        file = self.directory / "schema"
        assert run("pg_dump", "-Fc", "--schema-only", "-f", str(file), self.text(self.urls[0])).returncode == 0
        assert run("pg_restore", "-d", self.text(self.urls[1]), str(file)).returncode == 0
        if not captures:
            with self.subscriber.begin() as connection:
                for table in CAPTURE:
                    for trigger in (ROW_TRIGGER, TRUNCATE_TRIGGER):
                        connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "{trigger}" ON {table}')
        self.subscribe(tables)

    def text(self, url: sa.URL) -> str:
        """Give a URL for libpq."""
        return url.set(drivername="postgresql").render_as_string(hide_password=False)

    def subscribe(self, tables: str) -> None:
        """Make publication, slot (the server's own can't make one for itself) and subscription."""
        with psycopg.connect(self.text(self.urls[0]), autocommit=True) as connection:
            connection.execute(f"CREATE PUBLICATION p FOR {tables}".encode())
            connection.execute(f"SELECT pg_create_logical_replication_slot('s_{self.number}', 'pgoutput')".encode())
        with psycopg.connect(self.text(self.urls[1]), autocommit=True) as connection:
            connection.execute(
                f"CREATE SUBSCRIPTION s CONNECTION '{self.text(self.urls[0])}' PUBLICATION p "
                f"WITH (create_slot = false, slot_name = 's_{self.number}')".encode()
            )

    def write(self) -> None:
        """Write on the publisher, once the subscriber has copied what there is, and seal there."""
        assert self.wait("SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")
        customer = of(self.base, "Customer")
        with sa_audit.context(actor="teller"), Session(self.publisher) as session:
            session.add(customer(id=1, name="a"))
            session.commit()
            session.get_one(customer, 1).name = "b"
            session.commit()
        keep = [anchors.open(f"file:{self.directory / 'anchor'}")]
        seal(self.publisher, self.signer, state=self.directory / "state", anchors=keep, metadata=self.base)

    def value(self, query: str) -> Any:
        """Ask the subscriber."""
        with self.subscriber.connect() as connection:
            return connection.exec_driver_sql(query).scalar()

    def wait(self, query: str) -> bool:
        """Wait until something is true on the subscriber."""
        end = time.monotonic() + PATIENCE
        while not self.value(query):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def close(self) -> None:
        """End the subscription, so that it keeps no log back, and the connections."""
        with psycopg.connect(self.text(self.urls[1]), autocommit=True) as connection:
            connection.execute(b"ALTER SUBSCRIPTION s DISABLE")
            connection.execute(b"ALTER SUBSCRIPTION s SET (slot_name = NONE)")
            connection.execute(b"DROP SUBSCRIPTION s")
        self.publisher.dispose()
        self.subscriber.dispose()


def both(pair: Pair) -> str:
    """Judge a subscriber that captures, and receives the history as well."""
    assert pair.wait("SELECT apply_error_count > 0 FROM pg_stat_subscription_stats")
    assert pair.value("SELECT count(*) FROM customer") == 0
    return "refused: the subscription stops, since both give the same `audit_id`; nothing arrives"


def received(pair: Pair) -> str:
    """Judge a subscriber that receives all, and captures nothing."""
    assert pair.wait("SELECT count(*) = 1 FROM customer WHERE name = 'b'")
    assert pair.wait("SELECT count(*) = 2 FROM customer_history")
    with pair.publisher.connect() as connection:
        notes = connection.exec_driver_sql("SELECT count(*) FROM audit_checkpoint").scalar_one()
    assert pair.wait(f"SELECT count(*) = {notes} FROM audit_checkpoint")
    keep = [anchors.open(f"file:{pair.directory / 'anchor'}")]
    report = verify(pair.subscriber, pair.signer.verifier, anchors=keep, metadata=pair.base)
    kinds = sorted({finding.kind for finding in report.findings})
    assert report.checked > 0
    assert not {"row-changed", "row-missing", "leaf-missing", "continuity"} & set(kinds)
    return "every row holds; that it is another database, `verify` says: " + ", ".join(f"`{kind}`" for kind in kinds)


def captured(pair: Pair) -> str:
    """Judge a subscriber that receives the data alone, and captures it."""
    assert pair.wait("SELECT count(*) = 2 FROM customer_history")
    assert pair.value("SELECT count(*) FROM audit_transaction WHERE actor IS NOT NULL") == 0
    return "recorded there by its own triggers, with no actor and the subscription's owner as the account"


CASES: list[tuple[str, str, bool, Callable[[Pair], str]]] = [
    ("data and trail, into a database whose triggers record", "ALL TABLES", True, both),
    ("data and trail, into a database without capture triggers", "ALL TABLES", False, received),
    ("the data alone, into a database whose triggers record", f"TABLE {DATA}", True, captured),
]


@pytest.mark.slow
def test_the_page_says_what_a_subscriber_may_do(tmp_path: Path) -> None:
    """It receives the history or records it, and never both."""
    try:
        server = shared("postgresql-logical", partial(start_postgresql, 18, wal_level="logical"))
    except Unavailable as error:
        pytest.skip(str(error))
    rows = []
    for number, (what, tables, captures, judge) in enumerate(CASES):
        pair = Pair(server, tmp_path, number, tables, captures=captures)
        try:
            pair.write()
            rows.append(f"| {what} | {judge(pair)} |")
        finally:
            pair.close()
    table = "\n".join(["| a subscription of | result |", "| --- | --- |", *rows])
    compare(table, BEGIN, END)
