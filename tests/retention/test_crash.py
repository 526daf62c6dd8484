"""Broken off between any two steps: the next run goes on, nothing is lost, nothing goes twice or too early."""

from __future__ import annotations

from typing import Any

import pytest

from sa_audit.retention import carrying, erasing, pruning

from .models import Clinic, keep_only


class Killed(BaseException):
    """What nothing in the library catches."""


@pytest.fixture
def patients(clinic: Clinic) -> Clinic:
    """A clinic with six patients whose history is old."""
    clinic.write(*((key, f"p{key}") for key in range(1, 7)), *((key, f"q{key}") for key in range(1, 4)), (6, None))
    clinic.seal()
    keep_only(clinic.base)
    return clinic


def check(clinic: Clinic) -> None:
    """Go on to the end, and see that all is as if nothing had happened."""
    for _ in range(4):
        clinic.seal()
        clinic.prune()
        clinic.seal()
        assert clinic.verify().findings == ()
        if len(clinic.rows()) == 5 and {row[1] for row in clinic.rows()} == {"B"}:
            break
    assert sorted(row[::2] for row in clinic.rows()) == [(1, "q1"), (2, "q2"), (3, "q3"), (4, "p4"), (5, "p5")]
    assert clinic.names(clinic.now()) == {1: "q1", 2: "q2", 3: "q3", 4: "p4", 5: "p5"}


def dies(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, *, before: bool) -> None:
    """Have a function end the process at its so-manieth call, before its work or behind it."""
    original, calls = getattr(owner, name), [0]

    def once(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and before:
            raise Killed(name)
        found = original(*arguments, **options)
        if calls[0] == call:
            raise Killed(name)
        return found

    monkeypatch.setattr(owner, name, once)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (carrying.Carrying, "_carry", 1),
        (carrying.Carrying, "_carry", 2),
        (carrying.Carrying, "_copy", 2),
        (pruning._Run, "_ask", 1),
    ],
)
def test_while_asking(
    patients: Clinic, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, before: bool
) -> None:
    """Between the batches that are carried forward, within one, and around the request."""
    monkeypatch.setattr(carrying.Carrying.__init__, "__defaults__", (2,))
    dies(monkeypatch, owner, name, call, before=before)
    with pytest.raises(Killed):
        patients.prune()
    monkeypatch.undo()
    monkeypatch.setattr("sa_audit.catalog.horizon.DRAIN", 0.05)
    assert patients.verify().findings == ()
    check(patients)


@pytest.mark.parametrize(
    "step", ["written", "pending", "committed", "taken", "signed", "noted", "anchored", "remembered"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_while_sealing(patients: Clinic, step: str, times: int) -> None:
    """At each step of the rows' round, and of that of the prune."""
    patients.prune()
    left = [times]

    def on_step(name: str) -> None:
        left[0] -= name == step
        if not left[0]:
            raise Killed(step)

    with pytest.raises(Killed):
        patients.seal(on_step=on_step)
    patients.prune()
    assert len(patients.rows()) in (5, 15)
    check(patients)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("name", "call"), [("_delete", 1), ("_delete", 2), ("_tell", 2)])
def test_while_erasing(patients: Clinic, monkeypatch: pytest.MonkeyPatch, name: str, call: int, before: bool) -> None:
    """Between the batches that are deleted, and within one."""
    patients.prune()
    patients.seal()
    dies(monkeypatch, erasing.Erasing, name, call, before=before)
    with pytest.raises(Killed):
        patients.prune(batch=3)
    monkeypatch.undo()
    monkeypatch.setattr("sa_audit.catalog.horizon.DRAIN", 0.05)
    assert 5 < len(patients.rows()) <= 15
    assert patients.verify().findings == ()
    check(patients)
