"""`sa-audit reads`, and reads and events in `sa-audit log`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner

import sa_audit
from sa_audit import anchors
from sa_audit.cli.app import app
from sa_audit.proof import Policy, Proof, Signer

from .conftest import fill
from .models import Base, Patient


def run(tmp_path: Path, *arguments: str, code: int = 0) -> str:
    """Run a command on a clinic in which alice has read the first chart and recorded an event."""
    url = f"sqlite:///{tmp_path}/clinic.db"
    engine = sa.create_engine(url)
    if not sa.inspect(engine).has_table("patient"):
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            fill(session)
        with sa_audit.context(actor="alice", reason="round"), Session(engine) as session:
            patient = session.get_one(Patient, 1)
            sa_audit.record(session, "chart.printed", target=patient, data={"pages": 3})
            session.commit()
    engine.dispose()
    result = CliRunner().invoke(app, [*arguments, "--url", url, "--models", "tests.access.models:Base"])
    assert result.exit_code == code, result.output
    return result.output


def test_reads_of_a_row(tmp_path: Path) -> None:
    """For people and for machines."""
    text = run(tmp_path, "reads", "Patient", "1")
    assert "Patient 1: 1 read" in text
    assert "alice" in text
    assert "1 row(s) of id, name, pin, ward_id" in text
    (read,) = json.loads(run(tmp_path, "reads", "Patient", "1", "--json"))
    assert (read["rows"], read["transaction"]["reason"], read["operation"]) == ([[1]], "round", "read")
    assert "Patient 2: no read is recorded" in run(tmp_path, "reads", "Patient", "2")


def test_the_proof_of_a_read(tmp_path: Path) -> None:
    """`prove --read` proves that the read showed the row, and names those that did where another is asked for."""
    (read,) = json.loads(run(tmp_path, "reads", "Patient", "1", "--json"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/clinic.db")
    signer = Signer.generate("clinic.example/audit")
    anchor = anchors.open(f"file:{tmp_path}/anchor")
    sa_audit.seal(engine, signer, state=tmp_path / "state", anchors=[anchor], metadata=Base)
    engine.dispose()
    proof = Proof.parse(run(tmp_path, "prove", "Patient", "1", "--read", str(read["audit_id"])))
    proof.check(Policy.of(signer.verifier))
    shown = proof.evidence().check()
    assert shown is not None
    values = dict(zip([column.name for column in shown[0].columns], shown[1].forms, strict=True))
    assert (values["access_id"], values["identity"]) == (read["audit_id"], "[1]")
    refused = run(tmp_path, "prove", "Patient", "1", "--read", "99", code=3)
    assert f"the last that did have the ids {read['audit_id']}" in " ".join(refused.split())
    assert "give one of them" in run(tmp_path, "prove", "Patient", "1", "--read", "1", "--audit-id", "1", code=2)


def test_events_in_the_log(tmp_path: Path) -> None:
    """An event shows its name and data; `--action` shows only those of one name."""
    text = run(tmp_path, "log", "--action", "chart.printed")
    assert "chart.printed (round)" in text
    assert "pages 3" in text
    entries: list[dict[str, Any]] = json.loads(run(tmp_path, "log", "--action", "chart.printed", "--json"))["entries"]
    assert [(entry["action"], entry["data"], entry["identity"]) for entry in entries] == [
        ("chart.printed", {"pages": 3}, [1])
    ]


def test_a_look_by_the_command_line_is_a_read(tmp_path: Path) -> None:
    """`sa-audit show` leaves an entry."""
    run(tmp_path, "show", "Patient", "2")
    entries = json.loads(run(tmp_path, "log", "--operation", "read", "--json"))["entries"]
    assert [entry["statement"] for entry in entries if entry["rows"] == [[2]]] == ["history()"]
