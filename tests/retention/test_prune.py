"""`prune`: two steps, nothing lost that is there, and every proof of what stays."""

from __future__ import annotations

import pytest

import sa_audit

from .models import WHO, Clinic, keep_only

CARRIED = [(2, "B", "Bob"), (1, "B", "Ann Lee")]


@pytest.mark.both_captures
def test_rows_go_in_two_steps(clinic: Clinic) -> None:
    """The first call carries forward and asks; rows go only once the log says so, and an anchor has taken it."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"), (3, "Cid"), (3, None))
    clinic.seal()
    keep_only(clinic.base)
    before = clinic.rows()
    first = clinic.prune()
    assert (first.table, first.carried, first.asked, first.erased) == ("patient", 2, 5, 0)
    assert clinic.rows() == before + CARRIED
    second = clinic.prune()
    assert (second.carried, second.asked, second.waiting, second.erased) == (0, 0, 5, 0)
    assert clinic.rows() == before + CARRIED
    clinic.seal()
    assert clinic.rows() == before + CARRIED
    third = clinic.prune()
    assert third.erased == 5
    assert clinic.rows() == CARRIED
    clinic.seal()
    assert clinic.verify().findings == ()
    assert clinic.names(clinic.now()) == {1: "Ann Lee", 2: "Bob"}


def test_who_prunes_says_so(clinic: Clinic) -> None:
    """Approver and reason stand in the log for ever, so there is no prune without; and events tell of both steps."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    with pytest.raises(sa_audit.ActorRequired):
        sa_audit.prune(clinic.engine, metadata=clinic.base)
    with pytest.raises(sa_audit.ReasonRequired), sa_audit.context(actor="archivist"):
        sa_audit.prune(clinic.engine, metadata=clinic.base)
    clinic.prune_wholly()
    with clinic.engine.connect() as connection:
        prune = clinic.trail.prune
        assert prune is not None
        row = connection.execute(prune.select()).one()
    assert (row.approver, row.reason) == (WHO["actor"], WHO["reason"])
