"""``sa-audit baseline``: which tables it takes, what it prints, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import Result

from tests.databases import Database

from . import ledger
from .conftest import MODELS


@pytest.fixture
def baseline(database: Database, engine: sa.Engine, run: Callable[..., Result]) -> Callable[..., Result]:
    """Return the command, on a ledger that has rows which nobody recorded."""
    ledger.Base.metadata.create_all(engine)
    item, line = ledger.Item.__table__, ledger.Line.__table__
    unseen = {"sa_audit_internal": True}
    with engine.begin() as connection:
        rows: list[dict[str, Any]] = [{"id": i, "name": "nail", "price": i, "colour": "RED"} for i in range(1, 6)]
        connection.execute(sa.insert(item), rows, execution_options=unseen)
        connection.execute(sa.insert(line), [{"order_id": 1, "number": "a"}], execution_options=unseen)
    url = database.url.render_as_string(hide_password=False)

    def invoke(*arguments: str, models: str = MODELS) -> Result:
        return run("baseline", *arguments, "--url", url, "--models", models)

    return invoke


def test_all_tables(baseline: Callable[..., Result]) -> None:
    """Without names every audited table is taken, and says what was done."""
    result = baseline("--batch", "2", "--actor", "release:12", "--json")
    assert result.exit_code == 0, result.output
    tables = {table["table"]: table for table in json.loads(result.output)["tables"]}
    assert set(tables) == {"item", "order_line", "token", "vehicle", "truck", "rate"}
    assert (tables["item"]["rows"], tables["item"]["batches"]) == (5, 3)
    assert tables["order_line"]["rows"] == 1
    assert tables["token"] == {"table": "token", "rows": 0, "batches": 0, "longest": 0.0}


def test_one_model(baseline: Callable[..., Result], engine: sa.Engine) -> None:
    """A name takes the tables of that model only; the entry says who and why."""
    result = baseline("Item", "--actor", "release:12", "--reason", "first trail")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("item: 5 rows carried in, in 1 transactions of ")
    entries = ledger.Base.metadata.tables["audit_transaction"]
    with engine.connect() as connection:
        (entry,) = connection.execute(sa.select(entries.c.actor, entries.c.reason)).all()
    assert tuple(entry) == ("release:12", "sa_audit: baseline of item, first trail")


def test_wrong_usage(baseline: Callable[..., Result]) -> None:
    """An unknown model, and a batch of nothing."""
    assert baseline("Nobody").exit_code == 2
    assert baseline("--batch", "0").exit_code == 2


def test_rows_that_others_hold(baseline: Callable[..., Result], database: Database, engine: sa.Engine) -> None:
    """What stays locked is a conflict, with exit code 3, and the rest is carried in."""
    if "concurrent-writers" not in database.capabilities:
        pytest.skip("one writer at a time")
    with engine.connect() as connection:
        update = sa.text("UPDATE item SET price = 0 WHERE id = 4")
        connection.execute(update, execution_options={"sa_audit_internal": True})
        result = baseline("Item", "--patience", "0.2")
    assert result.exit_code == 3
    assert "1 rows of item, such as (4,), were held" in result.output
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(sa.table("item_history"))) == 4
