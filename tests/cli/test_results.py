"""What the results say to people in the less usual cases, and which exit code an error has."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from sa_audit import errors
from sa_audit.cli.failure import CantRun, WrongUsage, exit_code, sentence
from sa_audit.cli.results import HistoryResult, LogResult, Result, RowResult, RowsResult, change_json
from sa_audit.query.change import Change, Operation, Page, TransactionInfo

AT = dt.datetime(2026, 3, 31, 12, tzinfo=dt.UTC)


def told(result: Result, width: int = 80) -> str:
    """Give what people see."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(result.render())
    return capture.get()


def change(operation: Operation, diff: Mapping[str, Any], **info: Any) -> Change:
    """Give a change with no more than is needed."""
    said = dict.fromkeys(("actor", "on_behalf_of", "reason", "request_id", "remote_addr", "context", "db_user"))
    transaction = TransactionInfo(id=1, recorded_at=AT, **{**said, **info})
    return Change(
        entity="Item",
        table="item",
        identity=(1, b"\xff"),
        operation=operation,
        diff=diff,
        state={},
        recorded_at=AT,
        transaction=transaction,
        audit_id=7,
    )


def test_for_whom_somebody_acted() -> None:
    """The actor's principal stands below the actor; nobody is called so."""
    text = told(HistoryResult("Item 1", [change("update", {"n": (1, 2)}, actor="clerk:1", on_behalf_of="owner:2")]))
    assert "clerk:1" in text
    assert "for owner:2" in text
    assert text.startswith("Item 1: 1 change\n")
    assert "nobody named" in told(HistoryResult("Item 1", [change("update", {"n": (1, 2)})]))


def test_deletes_and_truncates() -> None:
    """A delete shows what was there; a truncate has no row."""
    text = told(LogResult(Page(entries=[change("delete", {"n": (5, None)}), change("truncate", {})])))
    assert "n 5" in text
    assert "truncate" in text
    assert "Item 1,ff" in text


def test_held_back_entries() -> None:
    """That newer entries are held back is said to people and machines."""
    result = LogResult(Page(entries=[], withheld=True))
    assert "newer entries are held back" in told(result)
    assert result.to_json() == {"entries": [], "next": None, "withheld": True}


def test_row_and_no_rows() -> None:
    """One row is a table of its attributes; no rows are a sentence."""
    assert told(RowResult("Item 1 as of then", {"name": "x", "n": None})).splitlines()[2].split() == ["name", '"x"']
    assert told(RowsResult("Item as of then", [], [], False)).strip() == "Item as of then: 0 rows"


def test_long_values_are_cut_in_lists_only() -> None:
    """A list cuts a long value visibly; the history of one row shows it whole."""
    long = change("update", {"n": ("x" * 100, "y" * 100)})
    assert "…" in told(LogResult(Page(entries=[long])), width=300)
    assert "y" * 100 in told(HistoryResult("Item 1", [long]), width=300)


def test_json_holds_everything() -> None:
    """A change's JSON has all there is to know, whatever people are shown."""
    found = change_json(change("update", {"n": (b"\x00", None)}, context={"branch": "Oslo"}))
    assert found["identity"] == [1, "ff"]
    assert found["diff"] == {"n": {"before": "00", "after": None}}
    assert found["transaction"] == {
        "id": 1,
        "recorded_at": "2026-03-31T12:00:00+00:00",
        "actor": None,
        "on_behalf_of": None,
        "reason": None,
        "request_id": None,
        "remote_addr": None,
        "context": {"branch": "Oslo"},
        "db_user": None,
        "first_id": None,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongUsage("x"), 2),
        (CantRun("x"), 3),
        (errors.NotAudited("x"), 2),
        (errors.InvalidMoment("x"), 2),
        (errors.ActorRequired("x"), 2),
        (errors.ReasonRequired("x"), 2),
        (errors.ConfigurationError("x"), 2),
        (errors.CaptureMissing("x"), 3),
        (errors.Conflict("x"), 3),
        (errors.UnauditedWrite("x"), 3),
        (OperationalError("SELECT secret", {}, Exception("down")), 3),
        (sa.exc.ArgumentError("x"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_codes(error: Exception, code: int) -> None:
    """2 for what the user can ask differently, 3 for what can't be run here."""
    assert exit_code(error) == code


def test_sentences() -> None:
    """A database's error is its own words, without the statement and its values; ours is the message."""
    assert sentence(OperationalError("SELECT 'secret'", {}, Exception("down\n"))) == "the database said: down"
    assert sentence(OperationalError("SELECT 1", {}, KeyError())) == "the database said: KeyError"
    assert sentence(SQLAlchemyError("odd", code="e3q8")) == "odd"
    assert sentence(WrongUsage("x")) == "x"
