"""Models imported by name, entities found by name, keys read from text."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sa_audit.cli.failure import CantRun, WrongUsage
from sa_audit.cli.models import Models, convert, load_models, parse_key

from . import ledger

SPEC = "tests.cli.ledger:Base"


@pytest.fixture(scope="module")
def models() -> Models:
    """The models of the ledger."""
    return load_models(SPEC)


@pytest.fixture
def module_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for modules of the test's own, which are forgotten after it."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


class TestLoading:
    """``--models module:Base``."""

    def test_base_registry_and_metadata(self) -> None:
        """A base, its registry and its MetaData give the same classes and tables."""
        expected = {
            "Item",
            "Line",
            "Token",
            "Vehicle",
            "Truck",
            "item",
            "order_line",
            "token",
            "vehicle",
            "truck",
            "rate",
        }
        for name in ("Base", "Base.registry", "Base.metadata"):
            found = load_models(f"tests.cli.ledger:{name}")
            assert {entity.name for entity in found.entities} == expected

    def test_module_in_a_directory(self, module_path: Path) -> None:
        """A module is found in the directory that is given, though it is not on sys.path."""
        (module_path / "cli_found_here.py").write_text("from tests.cli.ledger import Base")
        assert load_models("cli_found_here:Base", [module_path]).entity("Item").target is ledger.Item

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("tests.cli.ledger", "give module:Base"),
            (":Base", "give module:Base"),
            ("tests.cli.ledger:", "give module:Base"),
            ("no_such_module_x:Base", "no module 'no_such_module_x'"),
            ("tests.cli.no_such:Base", "no module 'tests.cli.no_such'"),
            ("tests.cli.ledger.deeper:Base", "no module 'tests.cli.ledger.deeper'"),
            ("tests.cli.ledger:Nothing", "has no attribute 'Nothing'"),
            ("tests.cli.ledger:Base.nothing", "has no attribute 'Base.nothing'"),
            ("tests.cli.ledger:nothing", "give a declarative base"),
            ("tests.cli.ledger:bare", "nothing in it is audited"),
        ],
    )
    def test_wrong_spec(self, spec: str, message: str) -> None:
        """Each way to name no models is said, with what was given."""
        with pytest.raises(WrongUsage) as caught:
            load_models(spec)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("import no_such_dependency_x", "needs no_such_dependency_x, which is not installed"),
            ("1 / 0", "raised ZeroDivisionError: division by zero"),
            ("def f(:", "raised SyntaxError"),
            ("import sys; sys.exit(0)", "raised SystemExit"),
        ],
    )
    def test_module_that_fails(self, source: str, message: str, module_path: Path) -> None:
        """A module that raises while it is imported is named with what it raised."""
        name = f"cli_fails_{abs(hash(source))}"
        (module_path / f"{name}.py").write_text(source)
        with pytest.raises(CantRun) as caught:
            load_models(f"{name}:Base", [module_path])
        assert message in str(caught.value)
        assert name in str(caught.value)


class TestNames:
    """MODEL on the command line."""

    @pytest.mark.parametrize(
        ("name", "target"),
        [
            ("Item", ledger.Item),
            ("item", ledger.Item.__table__),
            ("Line", ledger.Line),
            ("tests.cli.ledger.Line", ledger.Line),
            ("order_line", ledger.Line.__table__),
            ("rate", ledger.rate),
            ("Truck", ledger.Truck),
        ],
    )
    def test_found(self, name: str, target: Any, models: Models) -> None:
        """Classes are found by their name, with or without module, and tables by theirs."""
        assert models.entity(name).target is target

    @pytest.mark.parametrize("name", ["Note", "note", "Itm", "item_history", "audit_transaction", ""])
    def test_unknown(self, name: str, models: Models) -> None:
        """What is unknown, or not audited, is refused with the list of what there is."""
        with pytest.raises(WrongUsage, match=r"is no audited model of .*: there are Item, Line, .*order_line, rate"):
            models.entity(name)

    def test_ambiguous(self, module_path: Path) -> None:
        """Two classes of one name need their module's name."""
        declaration = (
            "from sqlalchemy.orm import Mapped, mapped_column\nfrom sa_audit import Audited\n"
            "class Thing(Audited, Base):\n    __tablename__ = '{0}_thing'\n"
            "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        )
        (module_path / "cli_base.py").write_text(
            "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): ..."
        )
        for name in ("cli_one", "cli_two"):
            (module_path / f"{name}.py").write_text("from cli_base import Base\n" + declaration.format(name))
        (module_path / "cli_both.py").write_text("import cli_one, cli_two\nfrom cli_base import Base")
        models = load_models("cli_both:Base", [module_path])
        with pytest.raises(WrongUsage, match=r"several models: give one of cli_\w+\.Thing, cli_\w+\.Thing"):
            models.entity("Thing")
        assert models.entity("cli_two.Thing").target.__module__ == "cli_two"


class TestKeys:
    """KEY on the command line."""

    @pytest.mark.parametrize(
        ("model", "text", "key"),
        [
            ("Item", "42", 42),
            ("Item", "-1", -1),
            ("Item", "id=42", 42),
            ("item", "id=42", 42),
            ("Token", "00000000-0000-0000-0000-000000000007", uuid.UUID(int=7)),
            ("Line", "1,a", (1, "a")),
            ("Line", '1,"a,b"', (1, "a,b")),
            ("Line", "1, a", (1, "a")),
            ("Line", "1,a=b", (1, "a=b")),
            ("Line", "number=a=b,order=1", (1, "a=b")),
            ("Line", "order_id=1,number=", (1, "")),
            ("order_line", "order_id=1,number=x", (1, "x")),
            ("Truck", "7", 7),
            ("rate", "EUR,2026-03-31", ("EUR", dt.date(2026, 3, 31))),
        ],
    )
    def test_read(self, model: str, text: str, key: Any, models: Models) -> None:
        """A key is read by position or name, into the Python types of its columns."""
        found = parse_key(models.entity(model), text)
        assert found == key
        assert type(found) is type(key)

    @pytest.mark.parametrize(
        ("model", "text", "message"),
        [
            ("Item", "abc", "'abc' does not fit Item.id: give a whole number"),
            ("Item", "1_0", "'1_0' does not fit Item.id"),
            ("Item", "9223372036854775808", "a whole number of at most 64 bits"),
            ("Line", "1,\udcff", "is not valid Unicode text, so it is no value of Line.number"),
            ("Item", "", "'' does not fit Item.id"),
            ("Item", "1,2", "'1,2' does not fit Item.id"),
            ("Token", "7", "'7' does not fit Token.id: give a UUID"),
            ("Line", "1", "Line has the key order, number, and '1' has 1 part: give order=...,number=..."),
            ("Line", "1,a,b", "has 3 parts"),
            ("Line", "order=1,nr=a", "'nr' in the key of Line: give each of order, number once"),
            ("Line", "order=1,order=2", "'order' in the key of Line"),
            ("Line", "order=1,a", "'a' in the key of Line"),
            ("Line", "order=1", "the key of Line lacks number"),
            ("rate", "EUR,31.3.2026", "'31.3.2026' does not fit rate.day: give a date such as 2026-03-31"),
        ],
    )
    def test_refused(self, model: str, text: str, message: str, models: Models) -> None:
        """A key that does not fit is refused with its value, its column and the form to give."""
        with pytest.raises(WrongUsage) as caught:
            parse_key(models.entity(model), text)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("column", "text", "value"),
        [
            ("f", "1.5", 1.5),
            ("n", "12.50", Decimal("12.50")),
            ("b", "true", True),
            ("b", "0", False),
            ("u", "00000000-0000-0000-0000-000000000007", uuid.UUID(int=7)),
            ("x", "00ff", b"\x00\xff"),
            ("dt", "2026-03-31T12:00:00", dt.datetime(2026, 3, 31, 12)),
            ("t", "12:30:00", dt.time(12, 30)),
            ("e", "RED", ledger.Colour.RED),
            ("e", "blue", ledger.Colour.BLUE),
            ("s", " x ", " x "),
            ("j", "x", "x"),
            ("null", "x", "x"),
            ("odd", "x", "x"),
        ],
    )
    def test_types(self, column: str, text: str, value: Any) -> None:
        """Each type of column reads its own form; one with no Python type of its own takes the text."""
        found = convert(column, ledger.kinds.c[column], text)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("column", "text", "form"),
        [
            ("f", "x", "a number"),
            ("n", "1,5", "a decimal number"),
            ("b", "yes", "true or false"),
            ("x", "0g", "hexadecimal"),
            ("dt", "today", "a moment"),
            ("t", "noon", "a time"),
            ("e", "green", "one of RED, BLUE"),
        ],
    )
    def test_types_refused(self, column: str, text: str, form: str) -> None:
        """What does not fit a type is refused with the form to give."""
        with pytest.raises(WrongUsage, match=form):
            convert(column, ledger.kinds.c[column], text)
