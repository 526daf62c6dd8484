"""`check --seen`: what was swapped and put back between two runs is named, though nothing differs by now."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from sa_audit import ConfigurationError
from sa_audit.catalog.drift import check
from sa_audit.catalog.touched import touched
from sa_audit.model import Trail, complete
from tests.migrate.models import bank


def made(engine: sa.Engine) -> Trail:
    """Give the trail of the bank, whose tables are made."""
    base = bank()
    base.metadata.create_all(engine)
    trail = complete(base.metadata)
    assert trail is not None
    return trail


BACK_AGAIN = {
    "trigger public.account_history.sa_audit_guard_row": [
        "ALTER TABLE account_history DISABLE TRIGGER sa_audit_guard_row",
        "DELETE FROM account_history",
        "ALTER TABLE account_history ENABLE ALWAYS TRIGGER sa_audit_guard_row",
    ],
    "function public.sa_audit_guard_v1()": [
        "DO $do$ DECLARE former text := pg_get_functiondef('sa_audit_guard_v1'::regproc); BEGIN "
        "CREATE OR REPLACE FUNCTION sa_audit_guard_v1() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NULL; END'; EXECUTE former; END $do$"
    ],
}


@pytest.mark.only_on("postgresql")
@pytest.mark.every_server
def test_what_was_put_back_is_named(engine: sa.Engine, tmp_path: Path) -> None:
    """By its name, until the file is removed; a vacuum is no change, and neither is what comes anew."""
    trail, file = made(engine), tmp_path / "seen"

    def names() -> list[str]:
        with engine.connect() as connection:
            return [one.place for one in touched(connection, trail, file)]

    assert names() == []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("pg_proc", "pg_trigger"):
            connection.exec_driver_sql(f"VACUUM (FULL, FREEZE) {table}")
    assert names() == []
    for name, statements in BACK_AGAIN.items():
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            assert check(connection, trail).drift == ()
        assert names() == [name]
        assert names() == [name]
        file.unlink()
        assert names() == []
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE FUNCTION sa_audit_more() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert names() == []
    assert "sa_audit_more" in file.read_text()


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "objects": {}}', '{"format": 1, "objects": {"a": 1}}'])
def test_another_file_is_refused(engine: sa.Engine, tmp_path: Path, text: str) -> None:
    """It is not overwritten."""
    file = tmp_path / "seen"
    file.write_text(text)
    trail = complete(bank().metadata)
    assert trail is not None
    with engine.connect() as connection, pytest.raises(ConfigurationError, match=str(file)):
        touched(connection, trail, file)
    assert file.read_text() == text


@pytest.mark.only_on("sqlite", "mariadb")
def test_other_databases_don_t_tell(engine: sa.Engine, tmp_path: Path) -> None:
    """The sentence says so, and the file is not made."""
    trail = complete(bank().metadata)
    assert trail is not None
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="does not tell"):
        touched(connection, trail, tmp_path / "seen")
    assert not (tmp_path / "seen").exists()
