"""``sa-audit import-continuum``: which tables it takes, what it prints, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from typer.testing import Result

from .conftest import MODELS


@pytest.fixture
def url(sqlite_url: str) -> str:
    """A ledger with versions of its lines, in the tables of Continuum's form."""
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        for text in (
            "CREATE TABLE trans (id INTEGER PRIMARY KEY, issued_at DATETIME, user_id INTEGER, remote_addr VARCHAR(50))",
            "CREATE TABLE order_line_log (order_id INTEGER, number VARCHAR(50), text VARCHAR(50), "
            "transaction_id INTEGER, operation_type INTEGER)",
            "INSERT INTO trans VALUES (1, '2020-01-01 10:00:00.000001', 7, NULL), (2, '2020-01-02 10:00:00', 8, 'pc')",
            "INSERT INTO order_line_log VALUES (1, 'a', 'x', 1, 0), (1, 'a', 'y', 2, 1)",
        ):
            connection.exec_driver_sql(text)
        row = sa.text("INSERT INTO order_line (order_id, number, text) VALUES (1, 'a', 'y')")
        connection.execute(row, execution_options={"sa_audit_internal": True})
    engine.dispose()
    return sqlite_url


def test_versions_become_history(url: str, run: Callable[..., Result]) -> None:
    """The result says what was read, written, and since when the past is known; `show` and `as-of` see it."""
    common = ("--url", url, "--models", MODELS)
    naming = ("--version-table", "%s_log", "--transaction-table", "trans")
    result = run("import-continuum", *naming, "--actor", "release:12", "--json", *common)
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    line = {"table": "order_line", "versions": 2, "rows": 2, "since": "2020-01-01T10:00:00.000001+00:00"}
    assert found == {"tables": [line], "left_out": ["item", "rate", "token", "vehicle", "truck"]}
    first, second = json.loads(run("show", "Line", "1,a", "--json", *common).output)
    assert (first["operation"], first["recorded_at"]) == ("insert", "2020-01-01T10:00:00.000001+00:00")
    assert second["diff"] == {"text": {"before": "x", "after": "y"}}
    assert (second["transaction"]["actor"], second["transaction"]["remote_addr"]) == ("8", "pc")
    assert json.loads(run("as-of", "2020-01-01", "Line", "1,a", "--json", *common).output)["text"] == "x"
    told = " ".join(run("import-continuum", *naming, *common).output.split())
    assert "order_line: 0 versions became 0 history rows; its past is known since 2020-01-01" in told
    assert "item: left out, since it has no version table" in told
    assert run("baseline", *common).exit_code == 0


def test_no_versions(url: str, run: Callable[..., Result]) -> None:
    """No version table under that name is wrong usage, and so is a name that can't be one."""
    assert run("import-continuum", "--url", url, "--models", MODELS).exit_code == 2
    result = run("import-continuum", "--version-table", "log", "--url", url, "--models", MODELS)
    assert (result.exit_code, "one %s in it" in result.output) == (2, True)
