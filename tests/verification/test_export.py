"""`sa-audit export`: bundles that their own program accepts, and plain lines."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sa_audit.cli.app import app
from sa_audit.cli.failure import CantRun
from sa_audit.cli.parquet import write_table
from sa_audit.proof import Policy, check_bundle
from tests.verification.models import NOTES
from tests.verification.sealed import Sealed
from tests.verification.test_rows import HISTORY

Run = Callable[..., Result]


@pytest.fixture
def export(sealed: Sealed, tmp_path: Path) -> Run:
    """Return a function that exports by the command."""
    (tmp_path / "log.vkey").write_text(f"{sealed.signer.verifier}\n")
    url = sealed.database.url.render_as_string(hide_password=False)

    def invoke(*arguments: str) -> Result:
        place = ("--url", url, "--models", "tests.verification.models:Base")
        result = CliRunner().invoke(app, ["export", *arguments, *place])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.mark.parametrize(
    ("asked", "rows", "complete"),
    [
        ((), NOTES * 2 + 3 + 6 + 11, False),
        (("Note",), NOTES + 3 + 6, False),
        (("Note", "1"), 2 + 2, False),
        (("Note", "1", "--complete"), 2 + 2, True),
    ],
)
def test_a_bundle(
    export: Run, sealed: Sealed, tmp_path: Path, asked: tuple[str, ...], rows: int, complete: bool
) -> None:
    """Of everything, of a model, of one row: its rows and those of their transactions, and each is proven."""
    path = tmp_path / "bundle.zip"
    result = export(*asked, "--bundle", str(path), "--vkey", str(tmp_path / "log.vkey"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"bundle": str(path), "rows": rows}
    report = check_bundle(path, Policy.of(sealed.signer.verifier))
    assert report.findings == ()
    assert report.rows == rows
    assert bool(report.ranges) == complete


@pytest.mark.only_on("sqlite")
def test_the_program_of_the_bundle(export: Run, sealed: Sealed, tmp_path: Path) -> None:
    """It accepts the bundle with the true key, and tells what an edit of it changed."""
    path = tmp_path / "bundle.zip"
    export("Note", "--bundle", str(path), "--vkey", str(tmp_path / "log.vkey"))
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verify.py"))
        assert "anchors/token-1" in archive.namelist()
    key = str(sealed.signer.verifier)
    program = [sys.executable, str(tmp_path / "verify.py"), str(path), "--key", key]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_bundle_of_an_edited_trail(export: Run, sealed: Sealed, tmp_path: Path) -> None:
    """Is not written."""
    sealed.attack(f"UPDATE {HISTORY} SET label = 'x' WHERE id = 2")
    path = tmp_path / "bundle.zip"
    result = export("Note", "--bundle", str(path), "--vkey", str(tmp_path / "log.vkey"))
    assert result.exit_code != 0
    assert not path.exists()


def test_lines(export: Run) -> None:
    """JSON or CSV, one change a line, oldest first."""
    lines = [json.loads(line) for line in export().output.splitlines()]
    assert len(lines) == 2 * NOTES + 3
    assert {line["entity"] for line in lines} == {"Note", "Tag"}
    (first, second) = (json.loads(line) for line in export("Note", "1").output.splitlines())
    assert (first["operation"], second["operation"]) == ("insert", "update")
    table = list(csv.DictReader(io.StringIO(export("Tag", "--format", "csv").output)))
    assert len(table) == NOTES
    assert (table[0]["actor"], table[0]["entity"], json.loads(table[0]["identity"])) == ("alice", "Tag", [1])


def test_parquet(export: Run) -> None:
    """The rows of the CSV, each column in its type; an independent reader reads them."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, which reads and writes Parquet, is not installed")
    table = parquet.read_table(io.BytesIO(export("--format", "parquet").stdout_bytes))
    lines = list(csv.DictReader(io.StringIO(export("--format", "csv").output)))
    assert table.num_rows == len(lines) == 2 * NOTES + 3
    types = {field.name: str(field.type) for field in table.schema}
    assert (types.pop("audit_id"), types.pop("recorded_at")) == ("int64", "timestamp[us, tz=UTC]")
    assert set(types.values()) == {"string"}
    for row, line in zip(table.to_pylist(), lines, strict=True):
        assert row.pop("recorded_at") == dt.datetime.fromisoformat(line.pop("recorded_at"))
        assert {name: "" if value is None else str(value) for name, value in row.items()} == line


@pytest.mark.only_on("sqlite")
def test_parquet_of_nothing_and_in_groups(export: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with no rows is one; many rows are written some at a time."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, which reads and writes Parquet, is not installed")
    assert parquet.read_table(io.BytesIO(export("Note", "999", "--format", "parquet").stdout_bytes)).num_rows == 0
    monkeypatch.setattr("sa_audit.cli.parquet.GROUP", 10)
    written = parquet.ParquetFile(io.BytesIO(export("--format", "parquet").stdout_bytes))
    assert written.metadata.num_rows == 2 * NOTES + 3
    assert written.num_row_groups == (2 * NOTES + 3 + 9) // 10


def test_parquet_through_a_pipe() -> None:
    """What can't be sought in is written as well."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, which reads and writes Parquet, is not installed")
    reading, writing = os.pipe()
    rows = [{"audit_id": 1, "recorded_at": "2026-01-01T00:00:00+01:00", "actor": None}]
    with os.fdopen(writing, "wb") as out:
        write_table(rows, ("audit_id", "recorded_at", "actor"), out)
    with os.fdopen(reading, "rb") as kept:
        table = parquet.read_table(io.BytesIO(kept.read()))
    moment = dt.datetime(2025, 12, 31, 23, tzinfo=dt.UTC)
    assert table.to_pylist() == [{"audit_id": 1, "recorded_at": moment, "actor": None}]


def test_parquet_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CantRun, match=r"sa-audit\[parquet\]"):
        write_table([], ("audit_id",), io.BytesIO())


@pytest.mark.only_on("sqlite")
def test_what_can_not_be_meant(export: Run, tmp_path: Path) -> None:
    """Exit code 2: no key, an unknown form, a file that is there."""
    (tmp_path / "there.zip").write_text("")
    assert export("--bundle", str(tmp_path / "b.zip")).exit_code == 2
    assert export("--format", "parchment").exit_code == 2
    there = export("--bundle", str(tmp_path / "there.zip"), "--vkey", str(tmp_path / "log.vkey"))
    assert there.exit_code == 2
