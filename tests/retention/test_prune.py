"""`prune`: two steps, nothing lost that is there, and every proof of what stays."""

from __future__ import annotations

import datetime as dt
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Retention
from sa_audit.proof import Checkpoint, Policy, Proof

from .models import WHO, Clinic, audited_of, keep_only
from .models import clinic as declare

CARRIED = [(2, "B", "Bob"), (1, "B", "Ann Lee")]


@pytest.mark.both_captures
@pytest.mark.every_server
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


@pytest.mark.both_captures
def test_life_goes_on_behind_a_prune(clinic: Clinic) -> None:
    """What was carried forward is changed, deleted and pruned again, and each time all of it verifies."""
    clinic.write((1, "Ann"), (2, "Bob"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune_wholly()
    clinic.write((1, "Ann Lee"), (2, None), (3, "Cid"))
    clinic.seal()
    assert clinic.verify().findings == ()
    assert clinic.prune_wholly().erased == 5
    assert clinic.rows() == [(1, "B", "Ann Lee"), (3, "B", "Cid")]
    clinic.seal()
    assert clinic.verify().findings == ()
    with Session(clinic.engine) as session:
        assert list(sa_audit.reconcile(session, clinic.base.patient)) == []


def test_what_is_not_old_stays(clinic: Clinic) -> None:
    """Rows recorded since the cutoff stay, and what they began from; what has not changed since is carried forward."""
    clinic.write((1, "An"), (1, "Ann"), (2, "Bob"))
    since = clinic.now()
    clinic.write((1, "Ann Lee"))
    clinic.seal()
    asked = clinic.prune_at(since)
    assert (asked.carried, asked.kept, asked.asked) == (1, 1, 2)
    assert clinic.rows() == [(1, "U", "Ann"), (1, "U", "Ann Lee"), (2, "B", "Bob")]
    with Session(clinic.engine) as session:
        changes = sa_audit.history(session, clinic.base.patient, 1)
        assert [(change.operation, dict(change.diff)) for change in changes] == [
            ("update", {"name": ("An", "Ann")}),
            ("update", {"name": ("Ann", "Ann Lee")}),
        ]
        (carried,) = sa_audit.history(session, clinic.base.patient, 2)
    assert (carried.operation, carried.actor) == ("baseline", WHO["actor"])
    assert carried.reason == f"sa_audit: carried forward by a prune, {WHO['reason']}"
    assert clinic.verify().findings == ()


def test_nothing_is_due(clinic: Clinic) -> None:
    """Two years are not over: nothing is asked for, and nothing recorded of it."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    before = clinic.rows()
    done = clinic.prune()
    assert (done.carried, done.asked, done.waiting, done.erased) == (0, 0, 0, 0)
    assert clinic.rows() == before
    assert clinic.seal() is None


def test_a_dry_run_changes_nothing(clinic: Clinic) -> None:
    """It says what would be carried forward and asked for, then what waits, then what would be deleted."""
    clinic.write((1, "Ann"), (1, "Ann Lee"), (2, "Bob"))
    clinic.seal()
    keep_only(clinic.base)
    before = clinic.rows()
    (planned,) = sa_audit.prune(clinic.engine, dry_run=True, metadata=clinic.base)
    assert (planned.carried, planned.asked, planned.erased) == (2, 3, 0)
    assert clinic.rows() == before
    assert clinic.seal() is None
    clinic.prune()
    (waiting,) = sa_audit.prune(clinic.engine, dry_run=True, metadata=clinic.base)
    assert waiting.waiting == 3
    clinic.seal()
    (ready,) = sa_audit.prune(clinic.engine, dry_run=True, metadata=clinic.base)
    assert ready.erased == 3
    assert len(clinic.rows()) == 5


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
    prune = clinic.trail.prune
    assert prune is not None
    with clinic.engine.connect() as connection:
        row = connection.execute(prune.select()).one()
    assert (row.approver, row.reason, row.row_count) == (WHO["actor"], WHO["reason"], 2)
    assert row.policy.startswith("keep ")
    assert "legal_hold" in row.policy
    with Session(clinic.engine) as session:
        events = sa_audit.trail(session, base=clinic.base, operation="event").entries
    assert [(event.action, event.actor, event.reason, event.data["rows"]) for event in events] == [
        ("sa_audit.prune", *WHO.values(), 2),
        ("sa_audit.pruned", *WHO.values(), 2),
    ]


def test_entries_events_and_reads_stay(clinic: Clinic) -> None:
    """Who changed something, when and why is known also of a change that was pruned."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    with Session(clinic.engine) as session:
        sa_audit.record(session, "patient.admitted", target=session.get(clinic.base.patient, 1))
        session.commit()
        before = [entry.transaction.id for entry in sa_audit.trail(session, base=clinic.base).entries]
        clinic.seal()
        keep_only(clinic.base)
        clinic.prune_wholly()
        for transaction in before:
            (info,) = sa_audit.transaction(session, transaction).infos
            assert (info.actor, info.reason) in {("nurse", "care"), (None, None)}
        actions = [event.action for event in sa_audit.trail(session, base=clinic.base, operation="event").entries]
    assert "patient.admitted" in actions


def test_without_an_anchor_nothing_goes(clinic: Clinic) -> None:
    """A sealer without anchor grants no prune; nor does the guard let rows go while the anchor lacks the leaf."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    clinic.seal(anchors=[])
    assert clinic.prune().waiting == 2

    def no_anchor(name: str) -> None:
        if name == "noted" and clinic.trail.prune is not None:
            with clinic.engine.connect() as connection:
                if connection.execute(sa.select(clinic.trail.prune.c.leaf)).first() is not None:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clinic.seal(on_step=no_anchor)
    assert clinic.prune().waiting == 2
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        clinic.run(f"DELETE FROM {clinic.history.name} WHERE audit_op = 'I'")
    clinic.seal()
    assert clinic.prune().erased == 2


def test_the_guard_lets_rows_go_only_within_the_range(clinic: Clinic) -> None:
    """By hand as well: a granted row may be deleted, another one not, and none is ever updated."""
    clinic.write((1, "Ann"), (2, "Bob"))
    clinic.seal()
    keep_only(clinic.base)
    clinic.prune()
    clinic.seal()
    for statement in (
        f"DELETE FROM {clinic.history.name} WHERE audit_op = 'B'",
        f"DELETE FROM {clinic.history.name}",
        f"UPDATE {clinic.history.name} SET name = 'Eve'",
        "DELETE FROM audit_prune",
        "UPDATE audit_prune SET last_row = 1000000",
        "DELETE FROM audit_event",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            clinic.run(statement)
    clinic.run(f"DELETE FROM {clinic.history.name} WHERE audit_op = 'I' AND id = 1")
    assert clinic.rows() == [(2, "I", "Bob"), (1, "B", "Ann"), (2, "B", "Bob")]
    assert clinic.prune().erased == 1
    clinic.seal()
    assert clinic.verify().findings == ()


@pytest.mark.needs("concurrent-writers")
def test_a_row_that_somebody_changes_keeps_its_history(clinic: Clinic) -> None:
    """Its last word can't be carried forward now, so it stays; nobody waits, and the next prune takes it."""
    clinic.write((1, "Ann"), (2, "Bob"))
    clinic.seal()
    keep_only(clinic.base)
    with Session(clinic.engine) as session, sa_audit.context(actor="nurse"):
        session.get_one(clinic.base.patient, 1).name = "Ann Lee"
        session.flush()
        first = clinic.prune()
        assert (first.carried, first.asked) == (1, 1)
        session.commit()
    clinic.seal()
    clinic.prune()
    assert [row for row in clinic.rows() if row[0] == 1] == [(1, "I", "Ann"), (1, "U", "Ann Lee")]
    assert clinic.names(clinic.now()) == {1: "Ann Lee", 2: "Bob"}
    clinic.prune_wholly()
    assert sorted(clinic.rows()) == [(1, "B", "Ann Lee"), (2, "B", "Bob")]
    clinic.seal()
    assert clinic.verify().findings == ()


@pytest.mark.needs("concurrent-writers")
def test_waiting_for_the_sealer(clinic: Clinic) -> None:
    """With a timeout, one call goes through both steps once a sealer is at work."""
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(clinic.base)
    stop = threading.Event()

    def service() -> None:
        while not stop.is_set():
            clinic.seal()
            time.sleep(0.1)

    thread = threading.Thread(target=service)
    thread.start()
    try:
        done = clinic.prune(timeout=30)
    finally:
        stop.set()
        thread.join()
    assert (done.carried, done.waiting, done.erased) == (1, 0, 2)


def test_proofs_of_what_stays(clinic: Clinic) -> None:
    """A proof from before, one made now, the growth of the log, and a digest of a carried row all hold."""
    clinic.write((1, "Ann"), (2, "Bob"), (1, "Ann Lee"))
    old = clinic.seal()
    assert isinstance(old, Checkpoint)
    with Session(clinic.engine) as session:
        change = sa_audit.history(session, clinic.base.patient, 1)[0]
        before = sa_audit.prove(session, change, metadata=clinic.base).format()
    keep_only(clinic.base)
    clinic.prune_wholly()
    new = clinic.seal()
    assert isinstance(new, Checkpoint)
    policy = Policy.of(clinic.signer.verifier)
    Proof.parse(before).check(policy)
    sa_audit.prove_consistency(clinic.engine, old, new, metadata=clinic.base).check(policy, old)
    with Session(clinic.engine) as session:
        (kept,) = sa_audit.history(session, clinic.base.patient, 1)
        sa_audit.prove(session, kept, metadata=clinic.base).check(policy)
        with pytest.raises(sa_audit.IntegrityFinding, match="pruned"):
            sa_audit.prove(session, change, metadata=clinic.base)
    assert clinic.verify(since=old).findings == ()


def test_a_truncate_is_pruned_with_what_it_hid(clinic: Clinic) -> None:
    """What a truncate took away is not carried forward."""
    clinic.write((1, "Ann"))
    record_truncate(clinic)
    clinic.write((2, "Bob"))
    clinic.seal()
    keep_only(clinic.base)
    assert clinic.prune_wholly().erased == 3
    assert clinic.rows() == [(2, "B", "Bob")]
    clinic.seal()
    assert clinic.verify().findings == ()


def test_a_truncate_stays_with_what_is_held(clinic: Clinic) -> None:
    """Else a row that was taken away would seem to be there again."""
    clinic.write((1, "Ann"))
    record_truncate(clinic)
    clinic.write((2, "Bob"))
    clinic.seal()
    clinic.hold(1)
    keep_only(clinic.base)
    clinic.prune_wholly()
    assert clinic.rows() == [(1, "I", "Ann"), (None, "T", None), (2, "B", "Bob")]
    assert clinic.names(clinic.now()) == {2: "Bob"}


def record_truncate(clinic: Clinic) -> None:
    """Empty the table, and leave the row that trigger capture leaves of it."""
    with clinic.engine.begin() as connection:
        options = {"sa_audit_internal": True}
        connection.execute(sa.delete(clinic.base.patient.__table__), execution_options=options)
        trail = clinic.trail
        entry = connection.execute(sa.insert(trail.transaction).values(actor="dba"), execution_options=options)
        (key,) = entry.inserted_primary_key or ()
        query = sa.select(trail.transaction.c.id, trail.transaction.c.recorded_at, sa.literal("T")).where(
            trail.transaction.c.id == key
        )
        names = ["audit_tx", "audit_at", "audit_op"]
        connection.execute(
            sa.insert(clinic.history).from_select(names, query, include_defaults=False), execution_options=options
        )


@pytest.mark.parametrize("keep", [dt.timedelta(0), dt.timedelta(days=-1), 730, None])
def test_a_time_that_is_none(keep: Any) -> None:
    """It is refused where it is declared."""
    with pytest.raises(sa_audit.ConfigurationError, match="above zero"):
        Retention(keep=keep)


def test_no_model_has_a_retention(clinic: Clinic) -> None:
    """Then nothing is ever pruned, and the call says so."""
    from dataclasses import replace

    audited = audited_of(clinic.base)
    audited.options = replace(audited.options, retention=None)
    with pytest.raises(sa_audit.ConfigurationError, match="no model has a retention"):
        clinic.prune()


@pytest.mark.needs("schemas")
def test_a_trail_in_a_schema_of_its_own(engine: sa.Engine, other_schema: str, tmp_path: Path) -> None:
    """Guards and ranges name the history with its schema."""
    base = declare(configured=False)
    sa_audit.configure(base, schema=other_schema, testing=True)
    clinic = Clinic(base, engine, tmp_path).create()
    clinic.write((1, "Ann"), (1, "Ann Lee"))
    clinic.seal()
    keep_only(base)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        clinic.run(f"DELETE FROM {other_schema}.{clinic.history.name}")
    assert clinic.prune_wholly().erased == 2
    clinic.seal()
    assert clinic.verify().findings == ()
    assert clinic.names(clinic.now()) == {1: "Ann Lee"}
