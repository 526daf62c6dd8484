"""The commands, on each database: what they print for people and for machines, and how they fail."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from typer.testing import Result

from sa_audit.cli import app as app_module
from sa_audit.cli import main
from sa_audit.model import trail_of

from .conftest import MODELS, Ledger
from .ledger import Base, Item


class TestLog:
    """``sa-audit log``."""

    def test_json(self, ledger_database: Ledger) -> None:
        """All changes in one order, with who and why, before and after."""
        found = ledger_database.json("log")
        assert (found["next"], found["withheld"]) == (None, False)
        told = [(entry["entity"], entry["identity"], entry["operation"]) for entry in found["entries"]]
        assert sorted(told[:6]) == sorted(
            [
                ("Item", [1], "insert"),
                ("Item", [2], "insert"),
                ("Line", [7, "a,b"], "insert"),
                ("Token", [str(uuid.UUID(int=7))], "insert"),
                ("Truck", [1], "insert"),
                ("rate", ["EUR", "2026-01-01"], "insert"),
            ]
        )
        assert sorted(told[6:8]) == [("Item", [1], "update"), ("Truck", [1], "update")]
        assert told[8:] == [("Item", [2], "delete"), ("Item", [1], "update")]
        last = found["entries"][-1]
        assert last["diff"] == {"price": {"before": 6, "after": 7}}
        assert last["state"]["pin"] == {"marker": "Masked"}
        assert last["state"]["colour"] == "RED"
        assert "seen" not in last["state"]
        assert set(last) == {
            "audit_id", "entity", "table", "identity", "operation", "recorded_at", "diff", "state", "transaction",
        }  # fmt: skip
        info = last["transaction"]
        assert (info["actor"], info["reason"], info["context"]) == ("clerk:2", None, {"branch": "Oslo"})
        assert info["recorded_at"] == last["recorded_at"]
        assert last["recorded_at"].endswith("+00:00")

    def test_narrowed(self, ledger_database: Ledger) -> None:
        """Each option leaves out what it should."""
        counts = {
            ("--actor", "clerk:2"): 3,
            ("--actor", "nobody"): 0,
            ("--entity", "Item"): 5,
            ("--entity", "rate"): 1,
            ("--operation", "delete"): 1,
            ("--entity", "Item", "--actor", "clerk:1", "--operation", "insert"): 2,
            ("--since", "2000-01-01", "--until", "2000-01-02"): 0,
            ("--since", "2000-01-01"): 10,
        }
        assert {options: len(ledger_database.json("log", *options)["entries"]) for options in counts} == counts

    def test_between_moments(self, ledger_database: Ledger) -> None:
        """Moments with an offset narrow to the microsecond."""
        found = ledger_database.json(
            "log", "--since", ledger_database.moments[1], "--until", ledger_database.moments[2]
        )
        assert {entry["transaction"]["actor"] for entry in found["entries"]} == {"clerk:2"}
        assert len(found["entries"]) == 2

    def test_pages(self, ledger_database: Ledger) -> None:
        """Following the cursor shows each entry once, in the same order."""
        everything = ledger_database.json("log")["entries"]
        pages: list[Any] = []
        after: list[str] = []
        while True:
            page = ledger_database.json("log", "--limit", "3", *after)
            assert len(page["entries"]) <= 3
            pages += page["entries"]
            if page["next"] is None:
                break
            after = ["--after", page["next"]]
        assert pages == everything

    def test_for_people(self, ledger_database: Ledger) -> None:
        """The table has when, who, which row and what; and the cursor, if there is more."""
        text = ledger_database("log", "--limit", "9")
        assert "when (UTC)" in text
        assert "clerk:2" in text
        assert "price 5 → 6" in text
        assert "pin (masked), changed" in text
        assert "more: --after" in text
        assert max(map(len, text.splitlines())) <= 100

    def test_recorded_text_is_only_text(self, ledger_database: Ledger) -> None:
        """Recorded data neither steers the terminal nor is taken for markup."""
        text = ledger_database("log", "--entity", "Item")
        assert "\x1b" not in text
        assert r"saw \u001b[31m[red]" in text

    def test_nothing(self, ledger_database: Ledger) -> None:
        """An empty answer says so."""
        assert "no entry" in ledger_database("log", "--actor", "nobody")


class TestShow:
    """``sa-audit show``."""

    def test_json(self, ledger_database: Ledger) -> None:
        """The history of one row, oldest first."""
        found = ledger_database.json("show", "Item", "1")
        assert [(change["operation"], change["transaction"]["actor"]) for change in found] == [
            ("insert", "clerk:1"),
            ("update", "clerk:2"),
            ("update", "clerk:2"),
        ]
        assert found[1]["diff"]["pin"] == {"before": {"marker": "Masked"}, "after": {"marker": "Masked"}}

    def test_keys(self, ledger_database: Ledger) -> None:
        """Keys of all kinds are found; a deleted row is, too; an unknown one has no changes."""
        operations = {
            ("Item", "id=2"): ["insert", "delete"],
            ("Line", '7,"a,b"'): ["insert"],
            ("Line", 'order=7,"number=a,b"'): ["insert"],
            ("Token", "00000000-0000-0000-0000-000000000007"): ["insert"],
            ("Truck", "1"): ["insert", "update"],
            ("rate", "EUR,2026-01-01"): ["insert"],
            ("Item", "99"): [],
        }
        found = {row: [change["operation"] for change in ledger_database.json("show", *row)] for row in operations}
        assert found == operations

    def test_attribute(self, ledger_database: Ledger) -> None:
        """--attribute leaves out what did not touch it."""
        assert len(ledger_database.json("show", "Item", "1", "--attribute", "pin")) == 2

    def test_for_people(self, ledger_database: Ledger) -> None:
        """A title with the number of changes, and a table."""
        text = ledger_database("show", "Item", "1")
        assert text.startswith("Item 1: 3 changes\n")
        assert "price 6 → 7" in text
        assert "(price rise)" in text
        assert "Item 99: no change is recorded" in ledger_database("show", "Item", "99")


class TestDiff:
    """``sa-audit diff``."""

    def test_json(self, ledger_database: Ledger) -> None:
        """What differs between two moments, then and now."""
        moments = ledger_database.moments
        assert ledger_database.json("diff", "Item", "1", moments[2], moments[4]) == {"price": {"then": 6, "now": 7}}
        assert ledger_database.json("diff", "Item", "1", moments[2], moments[3]) == {}

    def test_for_people(self, ledger_database: Ledger) -> None:
        """A table headed by the two moments, or a sentence."""
        moments = ledger_database.moments
        assert "price" in ledger_database("diff", "Item", "1", moments[2], moments[4])
        assert "nothing differs" in " ".join(ledger_database("diff", "Item", "1", moments[2], moments[3]).split())


class TestAsOf:
    """``sa-audit as-of``."""

    def test_row(self, ledger_database: Ledger) -> None:
        """A row as it was, with markers for what is not recorded."""
        assert ledger_database.json("as-of", ledger_database.moments[1], "Item", "1") == {
            "id": 1,
            "name": "nail",
            "price": 5,
            "pin": {"marker": "Masked"},
            "seen": {"marker": "Excluded"},
            "colour": "RED",
        }

    def test_row_of_a_subclass_and_of_a_table(self, ledger_database: Ledger) -> None:
        """Joined inheritance and plain tables are read like anything else."""
        truck = {"id": 1, "kind": "truck", "wheels": 6, "load": 10}
        assert ledger_database.json("as-of", ledger_database.moments[1], "Truck", "1") == truck
        rate = {"code": "EUR", "day": "2026-01-01", "value": 11}
        assert ledger_database.json("as-of", ledger_database.moments[1], "rate", "EUR,2026-01-01") == rate
        assert ledger_database.json("as-of", ledger_database.moments[1], "rate") == {"rows": [rate], "more": False}

    def test_no_row(self, ledger_database: Ledger) -> None:
        """A row that was not there is null, and a sentence."""
        arguments = ("as-of", ledger_database.moments[3], "Item", "2")
        assert ledger_database.json(*arguments) is None
        assert "there was no such row" in ledger_database(*arguments)

    def test_rows(self, ledger_database: Ledger) -> None:
        """All rows, the deleted one included, as far as --limit, which says if there are more."""
        when = ledger_database.moments[2]
        found = ledger_database.json("as-of", when, "Item")
        assert [row["price"] for row in found["rows"]] == [6, 90]
        assert found["more"] is False
        found = ledger_database.json("as-of", when, "Item", "--limit", "1")
        assert ([row["id"] for row in found["rows"]], found["more"]) == ([1], True)
        assert "there are more" in ledger_database("as-of", when, "Item", "--limit", "1")
        assert "2 rows" in ledger_database("as-of", when, "Item")


class TestRestore:
    """``sa-audit restore``."""

    def test_row(self, ledger_database: Ledger) -> None:
        """The row is what it was, by a change that names who and why."""
        found = ledger_database.json(
            "restore", "Item", "1", ledger_database.moments[1], "--actor", "clerk:9", "--reason", "wrong price"
        )
        assert found["restored"] is True
        assert found["row"]["price"] == 5
        assert found["change"]["diff"]["price"] == {"before": 7, "after": 5}
        last = ledger_database.json("show", "Item", "1")[-1]
        assert last == found["change"]
        assert (last["transaction"]["actor"], last["transaction"]["reason"]) == ("clerk:9", "wrong price")
        with orm.Session(ledger_database.engine) as session:
            assert session.get_one(Item, 1).price == 5

    def test_deleted_row(self, ledger_database: Ledger) -> None:
        """A deleted row comes back."""
        text = ledger_database("restore", "Item", "2", ledger_database.moments[1], "--actor", "clerk:9")
        assert "insert" in text
        with orm.Session(ledger_database.engine) as session:
            assert session.get_one(Item, 2).price == 90

    def test_nothing_to_do(self, ledger_database: Ledger) -> None:
        """A row that is so already gets no change."""
        arguments = ("restore", "Item", "1", ledger_database.moments[4], "--actor", "clerk:9")
        assert ledger_database.json(*arguments)["restored"] is False
        assert "it is so already" in " ".join(ledger_database(*arguments).split())
        assert len(ledger_database.json("show", "Item", "1")) == 3


class TestFailing:
    """Exit code 2 for what can be asked differently, 3 for what can't be run; one sentence on stderr."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["show", "Nothing", "1"], "'Nothing' is no audited model"),
            (["show", "Note", "1"], "'Note' is no audited model"),
            (["show", "Item", "x"], "'x' does not fit Item.id: give a whole number"),
            (["show", "Item"], "Missing argument"),
            (["show", "Item", "1", "--attribute", "prize"], "prize"),
            (["show", "Item", "1", "--since", "yesterday"], "yesterday"),
            (["as-of", "2026-03-31T12:00:00", "Item"], "offset"),
            (["as-of", "2026-02-30", "Item"], "'2026-02-30' is no day"),
            (["as-of", "2999-01-01", "Item"], "2999"),
            (["as-of", "2000-01-01", "Item"], "2000"),
            (["diff", "Item", "1", "soon", "2026-01-01"], "soon"),
            (["log", "--limit", "0"], "--limit"),
            (["log", "--operation", "upsert"], "'upsert': give one of insert, update"),
            (["log", "--after", "nonsense"], "nonsense"),
            (["restore", "Item", "99", "2999-01-01"], "2999"),
            (["nothing"], "nothing"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], message: str, sqlite_url: str, run: Callable[..., Result]) -> None:
        """What is wrong is named; nothing is printed as a result."""
        extra = [] if arguments == ["nothing"] else ["--url", sqlite_url, "--models", MODELS]
        result = run(*arguments, *extra)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.stderr.split())
        assert result.stdout == ""

    def test_no_database(self, tmp_path: Path, run: Callable[..., Result]) -> None:
        """A database that is not there can't be asked."""
        result = run("log", "--url", f"sqlite:///{tmp_path}/none.db", "--models", MODELS)
        assert (result.exit_code, "no database file" in result.stderr) == (3, True)

    def test_no_trail(self, tmp_path: Path, run: Callable[..., Result]) -> None:
        """A database without the trail's tables says which is missing, and what makes it."""
        (tmp_path / "empty.db").touch()
        result = run("log", "--url", f"sqlite:///{tmp_path}/empty.db", "--models", MODELS)
        assert result.exit_code == 3
        assert "has no trail: it lacks the table audit_transaction" in result.stderr
        assert "create_all()" in result.stderr

    def test_no_history_table(self, sqlite_url: str, run: Callable[..., Result]) -> None:
        """A model whose history table is missing can't be asked about."""
        engine = sa.create_engine(sqlite_url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE rate_history")
        engine.dispose()
        result = run("show", "rate", "EUR,2026-01-01", "--url", sqlite_url, "--models", MODELS)
        assert (result.exit_code, "rate_history" in result.stderr) == (3, True)

    def test_no_connection(self, run: Callable[..., Result]) -> None:
        """A server that does not answer is one sentence, without the password."""
        url = "postgresql+psycopg://someone:secret@127.0.0.1:1/none"
        result = run("log", "--url", url, "--models", MODELS)
        assert result.exit_code == 3
        assert result.stderr.startswith("sa-audit: the database said: ")
        assert "secret" not in result.stderr

    def test_no_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]) -> None:
        """With neither options nor project settings, both ways are said."""
        monkeypatch.chdir(tmp_path)
        result = run("log")
        assert (result.exit_code, "--url, SA_AUDIT_URL, or url in [tool.sa_audit]" in result.stderr) == (2, True)

    def test_a_fault_of_the_program(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An error that nobody foresaw shows where it arose, and is never taken for exit code 1, findings."""

        def broken(*_args: Any, **_kwargs: Any) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(app_module, "query_history", broken)
        monkeypatch.setattr(sys, "argv", ["sa-audit", "show", "Item", "1", "--url", sqlite_url, "--models", MODELS])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code, "RuntimeError: unforeseen" in capsys.readouterr().err) == (3, True)

    @pytest.mark.parametrize(("flag", "message"), [("actor", "actor"), ("reason", "reason")])
    def test_restore_without_actor_or_reason(
        self, flag: str, message: str, ledger_database: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the configuration asks for an actor or a reason, so does restore; and nothing is written."""
        given = {"actor": "clerk:9", "reason": "r"}
        given.pop(flag)
        options = [part for name, value in given.items() for part in (f"--{name}", value)]
        trail = trail_of(Base.metadata)
        assert trail is not None
        strict = replace(trail.configuration, require_actor=True, require_reason=True)
        monkeypatch.setattr(trail, "configuration", strict)
        arguments = ("restore", "Item", "1", ledger_database.moments[1])
        text = ledger_database(*arguments, *options, code=2)
        assert f"with no {message}" in text
        assert len(ledger_database.json("show", "Item", "1")) == 3


def test_roles_prints_the_script(ledger_database: Ledger) -> None:
    """The script names the accounts; on SQLite there is nothing to grant, and it says so."""
    text = ledger_database("roles", "--application", "app", "--migrator", "mig")
    expected = {
        "postgresql": [
            "CREATE ROLE sa_audit_owner NOLOGIN",
            "GRANT sa_audit_owner TO mig",
            "GRANT sa_audit_writer TO app",
        ],
        "mariadb": ["CREATE ROLE IF NOT EXISTS sa_audit_writer", "GRANT sa_audit_writer TO 'app'@'%'", "TRUNCATE"],
        "sqlite": ["SQLite has no roles"],
    }
    for part in expected[ledger_database.engine.dialect.name]:
        assert part in text
    assert ("WITH INHERIT TRUE, SET FALSE" in text) == (
        ledger_database.engine.dialect.name == "postgresql"
        and ledger_database.engine.dialect.server_version_info >= (16,)
    )


def test_check_tells_the_level_and_what_lacks(ledger_database: Ledger) -> None:
    """A fresh trail is level 1 without drift; a level that is not reached, or a difference, is exit code 1."""
    found = ledger_database.json("check")
    assert found["level"] == 1
    assert {(finding["drift"], finding["blocks"]) for finding in found["findings"]} == {(False, 2), (False, 3)}
    assert "protection level 1 (append-only)" in ledger_database("check", "--level", "1")
    assert "asked for: 2 (privileged)" in ledger_database("check", "--level", "2", code=1)
    assert "give --vkey FILE and --anchor URI" in ledger_database("check", "--level", "4", code=2)
    on = " ON item_history" if ledger_database.engine.dialect.name == "postgresql" else ""
    name = "sa_audit_guard_row" if on else "item_history_guard_delete"
    with ledger_database.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
    text = ledger_database("check", code=1)
    assert "protection level 0 (recorded)" in text
    assert "missing-guard" in text
