"""A sealed trail with partitions is attacked by ATTACH, DETACH and the like; the result is in ``docs/attacks.md``.

The audited table has partitions of its own, and its history is kept by month.  To write the page anew:
``SA_AUDIT_WRITE_ATTACKS=1 pytest -m slow tests/real/test_attacks_partitions.py``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_audit import Audited, AuditOptions
from sa_audit.catalog.partitions import coming
from tests.databases import Database
from tests.migrate.secured import secure
from tests.real.attacked import HISTORY, Attacked, attempt
from tests.real.page import compare

BEGIN, END = "<!-- attempts on partitions -->", "<!-- end of attempts on partitions -->"
THIS, NEXT = coming(dt.datetime.now(dt.UTC), 1)
MONTH = f"customer_history_{THIS:%Y_%m}"
PART = f"audit.{MONTH}"
BOUNDS = f"FOR VALUES FROM ('{THIS.isoformat()}') TO ('{NEXT.isoformat()}')"
LOW = "FOR VALUES FROM (0) TO (100)"
DETACH, ATTACH = "ALTER TABLE customer DETACH PARTITION customer_low", "ALTER TABLE customer ATTACH PARTITION"
OWN = "SET ROLE {owner}; "
WRITE = "UPDATE {table} SET name = 'forged' WHERE id = 1"
BACK = "UPDATE {table} SET name = 'other 1' WHERE id = 1"
RECORDED = (
    f"SELECT name = 'forged' FROM {HISTORY} WHERE id = 1 ORDER BY audit_id DESC LIMIT 1",
    "recorded, as a change of the table",
)
OTHER = "CREATE TABLE other (id int PRIMARY KEY, name varchar(50) NOT NULL)"

ATTEMPTS = (
    attempt("application", "detach a partition of the audited table", DETACH),
    attempt(
        "application",
        "attach a table of one's own to the audited table",
        f"CREATE SCHEMA mine; CREATE TABLE mine.other (id int PRIMARY KEY, name varchar(50) NOT NULL); "
        f"{ATTACH} mine.other FOR VALUES FROM (100) TO (200)",
    ),
    attempt("application", "write a partition by its own name", WRITE.format(table="customer_low")),
    attempt("application", "truncate a partition of the audited table", "TRUNCATE customer_low"),
    attempt("application", "detach a month of the history", f"ALTER TABLE {HISTORY} DETACH PARTITION {PART}"),
    attempt(
        "application",
        "attach a table of one's own to the history",
        f"CREATE SCHEMA mine; CREATE TABLE mine.forged (LIKE {HISTORY}); "
        f"ALTER TABLE {HISTORY} ATTACH PARTITION mine.forged FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')",
    ),
    attempt("application", "change a month of the history by its own name", f"UPDATE {PART} SET name = 'x'"),
    attempt(
        "application",
        "make a partition of the history",
        f"SELECT audit.sa_audit_partitions_v1('{HISTORY}', 'customer_history', 3)",
    ),
    attempt(
        "migrator",
        "write a partition of the audited table by its own name",
        WRITE.format(table="customer_low"),
        holds=RECORDED,
    ),
    attempt("migrator", "truncate a partition of the audited table by its own name", "TRUNCATE customer_low"),
    attempt("migrator", "detach a partition of the audited table", DETACH),
    attempt(
        "migrator",
        "attach a table with rows to the audited table",
        f"{OTHER}; INSERT INTO other VALUES (150, 'forged'); {ATTACH} other FOR VALUES FROM (100) TO (200)",
    ),
    attempt(
        "migrator",
        "detach a partition, write it, attach it again",
        DETACH,
        WRITE.format(table="customer_low"),
        f"{ATTACH} customer_low {LOW}",
    ),
    attempt(
        "migrator",
        "detach a partition, write it, write back, attach it again",
        DETACH,
        f"{WRITE.format(table='customer_low')}; {BACK.format(table='customer_low')}",
        f"{ATTACH} customer_low {LOW}",
    ),
    attempt(
        "migrator",
        "put a copy in a partition's place",
        f"{DETACH}; {OTHER}; INSERT INTO other SELECT * FROM customer_low; "
        f"UPDATE other SET name = 'forged' WHERE id = 1; {ATTACH} other {LOW}",
    ),
    attempt(
        "migrator",
        "switch capture off on a partition, write it, switch it on again",
        'ALTER TABLE customer_low DISABLE TRIGGER "AA_sa_audit_capture"',
        WRITE.format(table="customer"),
        'ALTER TABLE customer_low ENABLE ALWAYS TRIGGER "AA_sa_audit_capture"',
    ),
    attempt(
        "migrator",
        "switch capture off on a partition, write it, write back, switch it on again",
        'ALTER TABLE customer_low DISABLE TRIGGER "AA_sa_audit_capture"',
        f"{WRITE.format(table='customer')}; {BACK.format(table='customer')}",
        'ALTER TABLE customer_low ENABLE ALWAYS TRIGGER "AA_sa_audit_capture"',
    ),
    attempt("migrator", "switch capture off on a partition", "ALTER TABLE customer_low DISABLE TRIGGER USER"),
    attempt("migrator", "change a month of the history by its own name", OWN + f"UPDATE {PART} SET name = 'x'"),
    attempt("migrator", "truncate a month of the history", OWN + f"TRUNCATE {PART}"),
    attempt("migrator", "drop a month of the history", OWN + f"DROP TABLE {PART}"),
    attempt("migrator", "detach a month of the history", OWN + f"ALTER TABLE {HISTORY} DETACH PARTITION {PART}"),
    attempt(
        "migrator",
        "detach a month of the history, change it, attach it again",
        OWN + f"ALTER TABLE {HISTORY} DETACH PARTITION {PART}",
        f"UPDATE {PART} SET name = 'x' WHERE id = 2",
        f"ALTER TABLE {HISTORY} ATTACH PARTITION {PART} {BOUNDS}",
    ),
    attempt(
        "migrator",
        "put a changed copy in a month's place, guarded like it",
        OWN
        + f"CREATE TABLE audit.copy (LIKE {HISTORY} INCLUDING ALL); INSERT INTO audit.copy SELECT * FROM {HISTORY}; "
        f"UPDATE audit.copy SET name = 'x' WHERE id = 2; DROP TABLE {PART}; "
        f"ALTER TABLE audit.copy RENAME TO {MONTH}; "
        f"ALTER TABLE {HISTORY} ATTACH PARTITION {PART} {BOUNDS}",
        f"SELECT audit.sa_audit_partitions_v1('{HISTORY}', 'customer_history', 3)",
    ),
    attempt(
        "migrator",
        "attach a table with forged rows to the history",
        OWN
        + f"CREATE TABLE audit.forged (LIKE {HISTORY} INCLUDING ALL); INSERT INTO audit.forged SELECT * FROM {HISTORY} "
        f"WHERE id = 1; UPDATE audit.forged SET audit_at = '2001-01-15', name = 'forged', audit_id = -audit_id; "
        f"ALTER TABLE {HISTORY} ATTACH PARTITION audit.forged FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')",
    ),
)


def parted() -> Any:
    """Give the base of a model whose table has partitions, and whose history is kept by month."""

    class Base(DeclarativeBase):
        pass

    class Customer(Audited, Base):
        __tablename__ = "customer"
        __table_args__ = {"postgresql_partition_by": "RANGE (id)"}
        __audit__ = AuditOptions(partition="month")

        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(sa.String(50))

    Base.models = {"Customer": Customer}  # type: ignore[attr-defined] # kept alive
    return Base


@pytest.fixture
def attacked(
    tmp_path: Path, database: Database, engine: sa.Engine, connect_as: Callable[[sa.URL], sa.Engine]
) -> Iterator[Attacked]:
    """The database, filled and sealed; its copies are dropped at the end."""
    secured = secure(tmp_path, database, engine, connect_as, parted(), schema="audit", capture="trigger")
    target = Attacked(secured, database, tmp_path, prepared=(f"CREATE TABLE customer_low PARTITION OF customer {LOW}",))
    target.names["month"] = MONTH
    target.fill()
    yield target
    target.drop()


@pytest.mark.slow
@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
def test_the_page_says_what_came_of_each_attempt(attacked: Attacked) -> None:
    """Refused, or found, or recorded as what it is, or not: the manual's table is what was measured."""
    rows = [(each.who, each.what, attacked.result(each)) for each in ATTEMPTS]
    table = "\n".join(
        [
            "| who | tries to | result |",
            "| --- | --- | --- |",
            *(f"| {who} | {what} | {result} |" for who, what, result in rows),
        ]
    )
    compare(table, BEGIN, END)
