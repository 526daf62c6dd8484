"""The sealer's own role: it reads the trail and inserts into the log's tables, and can do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sa_audit
from sa_audit.proof import CatalogEntry, Checkpoint, Signer
from sa_audit.seal.sealer import Sealer
from tests.databases import Database

from .bank import Base, Log, add, present

Seal = Callable[..., Checkpoint | None]
READ = ("audit_transaction", "audit_column", "audit_event", "account_sealed_history", "branch_sealed_history")
LOG = ("audit_block", "audit_sealed", "audit_checkpoint")


@pytest.mark.only_on("postgresql")
@pytest.mark.needs("roles")
@pytest.mark.every_server
def test_a_role_on_postgresql(
    database: Database, bank: sa.Engine, make_engine: Callable[..., sa.Engine], signer: Signer, state: Path
) -> None:
    """The grants of docs/operations.md are enough, and let nothing else pass."""
    role = f"{database.role_prefix}sealer"
    with bank.begin() as connection:
        for statement in (
            f'CREATE ROLE "{role}" NOLOGIN',
            f'GRANT USAGE ON SCHEMA public TO "{role}"',
            f'GRANT SELECT ON {", ".join((*READ, *LOG))} TO "{role}"',
            f'GRANT INSERT ON {", ".join(LOG)} TO "{role}"',
            f'GRANT pg_read_all_stats TO "{role}"',
        ):
            connection.exec_driver_sql(statement)
    restricted = make_engine()

    @sa.event.listens_for(restricted, "connect")
    def become(driver: Any, _record: Any) -> None:
        with driver.cursor() as cursor:
            cursor.execute(f'SET ROLE "{role}"')
        driver.commit()

    seals(bank, Sealer(restricted, signer, state=state, metadata=Base))
    for statement in (
        "DELETE FROM audit_block",
        "UPDATE audit_checkpoint SET note = ''",
        "INSERT INTO account_sealed_history (audit_tx) VALUES (1)",
        "SELECT * FROM account_sealed",
    ):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), restricted.begin() as connection:
            connection.exec_driver_sql(statement)


@pytest.mark.only_on("mariadb")
@pytest.mark.needs("roles")
def test_a_user_on_mariadb(
    database: Database, bank: sa.Engine, make_engine: Callable[..., sa.Engine], signer: Signer, state: Path
) -> None:
    """It may close epochs as well."""
    user, schema = f"{database.role_prefix}sealer", database.url.database
    with bank.begin() as connection:
        for statement in (
            f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'",
            *(f"GRANT SELECT ON `{schema}`.{table} TO '{user}'@'%'" for table in READ),
            *(f"GRANT SELECT, INSERT ON `{schema}`.{table} TO '{user}'@'%'" for table in LOG),
            f"GRANT SELECT, INSERT, UPDATE ON `{schema}`.audit_epoch TO '{user}'@'%'",
        ):
            connection.execute(sa.text(statement))
    url = database.url.set(username=user, password="secret")
    restricted = sa.create_engine(url)
    try:
        seals(bank, Sealer(restricted, signer, state=state, metadata=Base))
        (unseen,) = [fact for fact in Log(bank).of(CatalogEntry) if fact.what == "unseen"]
        assert unseen.name == "triggers"
        for engine in (restricted, bank):  # one that sees no trigger either, and one that does
            assert sa_audit.verify(engine, signer.verifier, metadata=Base).findings == ()
        with bank.begin() as connection:
            connection.execute(sa.text("DROP TRIGGER audit_block_guard_update"))
        (finding,) = sa_audit.verify(bank, signer.verifier, metadata=Base).findings
        assert (finding.kind, finding.table) == ("guard-missing", "audit_block")
    finally:
        restricted.dispose()


def seals(bank: sa.Engine, sealer: Sealer) -> None:
    """Seal twice, and look at the window."""
    for key in (1, 2):
        add(bank, key)
        assert sealer.window().rows > 0
        assert sealer.seal() is not None
        assert sealer.window().rows == 0
    assert Log(bank).rows() == present(bank)
