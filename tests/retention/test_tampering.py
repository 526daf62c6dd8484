"""`verify` accepts exactly what an anchored prune allows, and finds whatever else is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.proof import Policy, PruneEntry, check_bundle, decode_entry
from sa_audit.seal import pruning
from sa_audit.testing import unguarded
from sa_audit.verification.bundling import Selection, export_bundle

from .models import Clinic, keep_only

HISTORY = "patient_history"


@pytest.fixture
def granted(clinic: Clinic) -> Clinic:
    """A clinic where a prune is granted and anchored, and its rows still stand; behind them stands a row that stays."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    clinic.seal()
    return clinic


def erase_by_hand(clinic: Clinic, *statements: str) -> None:
    """Delete past the guards."""
    with unguarded(clinic.engine):
        clinic.run(*statements)


def test_what_was_granted_may_be_missing(granted: Clinic) -> None:
    """All of it, or part of it, or none."""
    assert granted.verify().findings == ()
    granted.run(f"DELETE FROM {HISTORY} WHERE id = 2 AND audit_op = 'I'")
    assert granted.verify().findings == ()
    granted.prune()
    assert granted.verify().findings == ()


def test_rows_erased_by_hand(granted: Clinic) -> None:
    """A row beside the range is missed, though others may go."""
    erase_by_hand(granted, f"DELETE FROM {HISTORY} WHERE audit_op = 'B' AND id = 1")
    assert granted.kinds() == {("row-missing", HISTORY)}


def test_a_prune_without_anchor_excuses_nothing(clinic: Clinic) -> None:
    """The leaf is signed, and no anchor has taken it: what is missing is missed."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    anchors = clinic.anchor.path.read_bytes()
    clinic.seal()
    erase_by_hand(clinic, f"DELETE FROM {HISTORY} WHERE audit_op IN ('I', 'U')")
    assert clinic.kinds() == set()
    clinic.anchor.path.write_bytes(anchors)
    assert ("row-missing", HISTORY) in clinic.kinds()


def test_a_forged_row_of_audit_prune(clinic: Clinic) -> None:
    """Whoever may insert it opens the guard, and is found out, as are the rows that went."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    values = "1, {}, 1, 1000, 2, 'x', 'p', 'a', 'r', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00'"
    names = (
        "leaf, table_name, first_row, last_row, row_count, root, policy, approver, reason, request, recorded_before, "
        "whole_since"
    )
    place = f"'public.{HISTORY}'" if clinic.engine.dialect.name == "postgresql" else f"'{HISTORY}'"
    clinic.run(f"INSERT INTO audit_prune ({names}) VALUES ({values.format(place)})")
    with pytest.raises(sa_audit.IntegrityFinding, match="leaf 1 of the log does not"):
        clinic.prune()
    clinic.run(f"DELETE FROM {HISTORY}")
    assert clinic.kinds() == {("prune-forged", "audit_prune"), ("row-missing", HISTORY)}


@pytest.mark.parametrize(
    ("change", "erased"),
    [
        ("last_row = last_row + 1", True),
        ("first_row = first_row - 1", False),
        ("row_count = row_count + 1", False),
        ("approver = 'nobody'", False),
        ("policy = 'keep 1 day'", False),
        ("table_name = 'ward_history'", False),
        ("leaf = leaf + 1", False),
    ],
)
def test_another_range_than_the_leaf_says(granted: Clinic, change: str, erased: bool) -> None:
    """A changed row of audit_prune is found, and what goes by it is missed; and nobody prunes by it."""
    with unguarded(granted.engine):
        granted.run(f"UPDATE audit_prune SET {change}")
    found = {kind for kind, _table in granted.kinds()}
    assert found & {"prune-changed", "prune-forged"}
    assert found <= {"prune-changed", "prune-forged"}
    if erased:
        with pytest.raises(sa_audit.IntegrityFinding, match="of the log does not"):
            granted.prune()
        erase_by_hand(granted, f"DELETE FROM {HISTORY} WHERE audit_op = 'B'")
        assert ("row-missing", HISTORY) in granted.kinds()


def test_a_row_of_audit_prune_that_is_gone(granted: Clinic) -> None:
    """The log has its leaf, and so it is missed."""
    with unguarded(granted.engine):
        granted.run("DELETE FROM audit_prune")
    assert granted.kinds() == {("prune-changed", "audit_prune")}


@pytest.mark.parametrize("forge", ["last_row", "count", "root"])
def test_a_leaf_that_is_not_of_its_range(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, forge: str) -> None:
    """Of a sealer that was made to sign another range, number or root; it excuses nothing."""
    original = pruning.PruneEntry

    def forged(**given: Any) -> PruneEntry:
        changes = {"last_row": given["last_row"] + 2, "count": given["count"] + 1, "root": bytes(32)}
        return original(**{**given, forge: changes[forge]})

    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    monkeypatch.setattr(pruning, "PruneEntry", forged)
    clinic.seal()
    monkeypatch.undo()
    erase_by_hand(clinic, f"DELETE FROM {HISTORY} WHERE audit_op IN ('I', 'U')")
    assert clinic.kinds() >= {("prune-changed", "audit_block"), ("row-missing", HISTORY)}


def test_a_pruned_row_that_comes_back_changed(granted: Clinic) -> None:
    """A row under a pruned id is the one that was sealed, or it is found."""
    with granted.engine.connect() as connection:
        row = dict(connection.execute(sa.select(granted.history).limit(1)).mappings().one())
    granted.prune()
    with unguarded(granted.engine), granted.engine.begin() as connection:
        options = {"sa_audit_internal": True}
        connection.execute(sa.insert(granted.history), [{**row, "name": "Eve"}], execution_options=options)
    assert granted.kinds() == {("row-changed", HISTORY)}


@pytest.mark.parametrize(
    "harm",
    [
        f"DELETE FROM {HISTORY} WHERE id = 2 AND audit_op = 'I'",
        f"DELETE FROM {HISTORY} WHERE audit_op = 'B' AND id = 1",
    ],
)
def test_the_sealer_hides_no_hole(clinic: Clinic, harm: str) -> None:
    """A row that was erased by hand before is not covered by a prune, nor does a row go whose last word is gone."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    erase_by_hand(clinic, harm)
    clinic.seal()
    assert clinic.prune().erased == 0
    assert clinic.prune().waiting == 3
    assert ("row-missing", HISTORY) in clinic.kinds() or "audit_op = 'B'" in harm


Forge = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize("harm", ["needed", "young", "all", "overlap", "backwards"])
def test_the_sealer_grants_no_request_that_asks_too_much(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """The one who asks says the ranges, and can't have younger rows go, nor last words, nor any row twice.

    Nor what was there at the cutoff.
    """
    from sa_audit.retention import planning
    from sa_audit.retention import pruning as asking

    clinic.write((1, "Ann"), (1, "Ann Lee"), (1, "Ann Low"))
    since = clinic.now()
    clinic.write((1, "Ann Mo"), (2, "Bob"))
    clinic.seal()
    keep_only(clinic.base, since)
    original = planning.plan

    def asked(*arguments: Any, **options: Any) -> planning.Plan:
        from dataclasses import replace

        found = original(*arguments, **options)
        ((first, last, count),) = found.ranges
        ranges = {
            "needed": ((first, last + 1, count + 1),),
            "young": ((first, last + 2, count + 2),),
            "all": ((first, last + 1000, count + 1000),),
            "overlap": ((first, last, count), (first, last, count)),
            "backwards": ((last, first, count),),
        }
        return replace(found, ranges=ranges[harm])

    monkeypatch.setattr(asking, "plan", asked)
    clinic.prune()
    clinic.seal()
    done = clinic.prune()
    assert (done.erased, done.waiting > 0) == (0, True)
    assert not any(isinstance(entry, PruneEntry) for entry in entries(clinic))


def entries(clinic: Clinic) -> list[Any]:
    """Give the entries of the log."""
    from sa_audit.catalog import blocks

    with clinic.engine.connect() as connection:
        return [decode_entry(entry) for block in blocks(connection, clinic.trail) for entry in block.entries()]


def test_bundles_of_what_stays(granted: Clinic, tmp_path: Path) -> None:
    """Of everything, of one patient, and complete: each verifies with no database, and holds the leaf of the prune."""
    granted.prune()
    granted.seal()
    policy = Policy.of(granted.signer.verifier)
    for number, selection in enumerate(
        (
            Selection(text="everything"),
            Selection(text="patient 1", tables={HISTORY: {"id": 1}}),
            Selection(text="patient 1", tables={HISTORY: {"id": 1}}, complete=True),
        )
    ):
        path = tmp_path / f"bundle{number}.zip"
        export_bundle(granted.engine, path, policy, selection, metadata=granted.base)
        report = check_bundle(path, policy)
        assert report.findings == ()
    with Session(granted.engine) as session:
        assert len(sa_audit.history(session, granted.base.patient, 1)) == 1
