"""DML that was compiled beforehand goes past the constructs that are recorded, so it is refused."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import sa_audit


@pytest.fixture
def account(engine: sa.Engine) -> sa.Table:
    """An audited table with one row."""
    metadata = sa.MetaData()
    table = sa.Table(
        "account", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("owner", sa.String(20))
    )
    sa_audit.track(table)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"id": 1, "owner": "a"})
    return table


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
def test_compiled_dml_changes_nothing(engine: sa.Engine, account: sa.Table, kind: str) -> None:
    """A compiled statement on an audited table raises, and the table and its history stay as they were."""
    statements: dict[str, sa.sql.dml.UpdateBase] = {
        "insert": sa.insert(account).values(id=2, owner="b"),
        "update": sa.update(account).values(owner="b"),
        "delete": sa.delete(account),
    }
    compiled = statements[kind].compile(engine)
    # SQLAlchemy 2.1 refuses to execute it by itself; 2.0 leaves that to the trail
    with pytest.raises((sa_audit.UnauditedWrite, sa.exc.ObjectNotExecutableError)), engine.begin() as connection:
        connection.execute(compiled)  # type: ignore[call-overload]
    history = account.metadata.tables["account_history"]
    with engine.connect() as connection:
        assert connection.execute(sa.select(account)).all() == [(1, "a")]
        assert connection.execute(sa.select(history.c.audit_op)).scalars().all() == ["I"]
