"""The machine: sessions that write at random, interleaved, and after each step are compared with the oracle."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Context
from tests.property import criteria, statements
from tests.property.checks import Auditor, Ground, check_rows, trail_table
from tests.property.flush import Abandoned
from tests.property.flushes import flush_changes, populate
from tests.property.models import ROOTS, TABLES, Tag, table_of
from tests.property.oracle import Entity, Transaction, World
from tests.property.steps import Slot, Step

SESSIONS = 3
CONFLICTS = {"55P03", "40P01", 1205, 1213, 1020}
"""What databases call it when a lock is not to be had, or a deadlock: the transaction is rolled back."""
INSERTS = (
    statements.insert,
    statements.insert,
    statements.insert,
    statements.upsert,
    statements.upsert,
    statements.insert_links,
    statements.insert_persons,
)
UPDATES = (criteria.update, criteria.update, criteria.update, criteria.update_persons, criteria.move)

randoms = st.randoms(use_true_random=True)
slots = st.integers(0, SESSIONS - 1)
texts = st.sampled_from(("ann", "bob"))
who = st.fixed_dictionaries({"actor": texts}, optional={"reason": texts})


def is_conflict(error: DBAPIError) -> bool:
    """Tell whether a statement failed because another transaction stood in its way."""
    original = error.orig
    return bool({getattr(original, "sqlstate", None), *(original.args[:1] if original is not None else ())} & CONFLICTS)


def insert_twice(step: Step) -> None:
    """Update a row and insert it once more inside a savepoint, which takes both back alone."""
    table = table_of(Tag)
    rows = step.free(step.draft(), table)
    if not rows:
        return
    (key,) = step.choose(rows)
    with pytest.raises(IntegrityError), step.session.begin_nested():  # noqa: PT012 - both belong to the savepoint
        step.session.execute(sa.update(Tag).where(Tag.id == key).values(label="never", rank=-1))
        step.session.execute(sa.insert(Tag), [{"id": key, "label": "again"}])


class Machine(RuleBasedStateMachine):
    """Three sessions on one database, with the oracle beside them."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        ground.begin()
        self.ground = ground
        self.world = World()
        self.auditor = Auditor(ground, self.world)
        self.slots = [
            Slot(Session(ground.engine, autoflush=False, expire_on_commit=number > 0)) for number in range(SESSIONS)
        ]
        self.failed = False
        self.looks = 0
        self.world.remember(ground.now())
        self.populate()

    # -- what is done ------------------------------------------------------------------------

    @rule(random=randoms, slot=slots, fields=who)
    def flush(self, random: Random, slot: int, fields: Any) -> None:
        """Change several objects, and flush once."""
        self.step(random, slot, fields, flush_changes)

    @rule(random=randoms, slot=slots, fields=who)
    def insert(self, random: Random, slot: int, fields: Any) -> None:
        """Execute an INSERT or upsert."""
        self.step(random, slot, fields, random.choice(INSERTS))

    @rule(random=randoms, slot=slots, fields=who)
    def update(self, random: Random, slot: int, fields: Any) -> None:
        """Execute an UPDATE."""
        self.step(random, slot, fields, random.choice(UPDATES))

    @rule(random=randoms, slot=slots, fields=who)
    def delete(self, random: Random, slot: int, fields: Any) -> None:
        """Execute a DELETE."""
        self.step(random, slot, fields, criteria.delete)

    @rule(random=randoms, slot=slots)
    def fail(self, random: Random, slot: int) -> None:
        """Fail inside a savepoint."""
        self.step(random, slot, {"actor": "eve"}, insert_twice)

    @rule(slot=slots)
    def savepoint(self, slot: int) -> None:
        """Set a savepoint."""
        chosen = self.chosen(slot)
        if chosen.transaction is None:
            chosen.transaction = Transaction(self.world)
        if len(chosen.savepoints) < 3:
            chosen.savepoints.append(chosen.session.begin_nested())
            chosen.transaction.mark()

    @rule(slot=slots, keep=st.booleans())
    def end_savepoint(self, slot: int, keep: bool) -> None:
        """Release the innermost savepoint of a transaction, or roll back to it."""
        chosen = self.chosen(slot)
        if chosen.transaction is None or not chosen.savepoints:
            return
        self.failed = True
        if keep:
            chosen.savepoints.pop().commit()
            chosen.transaction.release()
        else:
            chosen.savepoints.pop().rollback()
            chosen.transaction.back()
        self.look()
        self.failed = False

    @rule(slot=slots, keep=st.sampled_from((True, True, True, False)))
    def finish(self, slot: int, keep: bool) -> None:
        """Commit a transaction, or roll it back."""
        open_slots = [other for other in self.slots if other.transaction is not None]
        if not open_slots:
            return
        chosen = open_slots[slot % len(open_slots)]
        self.failed = True
        if keep:
            self.commit(chosen)
        else:
            self.roll_back(chosen, "rollback")
        self.look()
        self.failed = False

    # -- how it is done ----------------------------------------------------------------------

    def chosen(self, number: int) -> Slot:
        """Give the slot of this number; where only one can write at a time, the one that does."""
        if "concurrent-writers" not in self.ground.database.capabilities:
            for slot in self.slots:
                if slot.transaction is not None:
                    return slot
        return self.slots[number]

    def step(self, random: Random, number: int, fields: dict[str, str], operation: Callable[[Step], None]) -> None:
        """Do one thing in one session, and compare."""
        self.failed = True
        slot = self.chosen(number)
        if slot.transaction is None:
            slot.transaction = Transaction(self.world)
        slot.drop_strays()
        view = random.choice(("keep", "expire", "expunge"))
        if view == "expire":
            slot.session.expire_all()
        elif view == "expunge":
            slot.session.expunge_all()
        with sa_audit.context(**fields, request_id=f"run {self.ground.base}") as context:
            step = self.plan(slot, slot.transaction, context, random)
            step.whole = view != "keep" and not self.is_behind(slot.transaction)
            try:
                operation(step)
            except Abandoned:
                self.roll_back(slot, "stale")
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                self.roll_back(slot, "conflict")
        self.ground.count("step" if step.changes else "idle step")
        self.after(slot, step)
        self.failed = False

    def plan(self, slot: Slot, transaction: Transaction, context: Context, random: Random) -> Step:
        """Begin a step."""
        return Step(
            random=random,
            session=slot.session,
            transaction=transaction,
            context=context,
            base=self.ground.base,
            taken={entity for other in self.slots if other is not slot for entity in _touched(other)},
            loaded=slot.loaded,
        )

    def populate(self) -> None:
        """Give the example something to change; what this records is looked at with all the rest in the end."""
        slot = self.slots[0]
        transaction = Transaction(self.world)
        with sa_audit.context(actor="ann", request_id=f"run {self.ground.base}") as context:
            populate(self.plan(slot, transaction, context, Random(0)))
        slot.session.commit()
        slot.close()
        transaction.commit()
        self.world.remember(self.ground.now())
        self.settled = len(self.world.log)

    def is_behind(self, transaction: Transaction) -> bool:
        """Tell whether a session reads from a snapshot that is older than what is committed."""
        return self.ground.repeatable and self.world.commits > transaction.began

    def after(self, slot: Slot, step: Step) -> None:
        """Look at what the session itself sees now, and then at the past."""
        writers = [other.transaction for other in self.slots if other.transaction is not None and other.transaction.log]
        for writer in writers:
            writer.alone = writer.alone and len(writers) == 1
        transaction = slot.transaction
        if transaction is not None and not self.is_behind(transaction):
            held = {table: transaction.rows(table) for table in step.tables}
            check_rows(self.ground, slot.session.connection(), step.tables, held)
            entities = dict.fromkeys(change.entity for change in step.changes)
            self.auditor.check_entities(slot.session, entities, transaction.log)
        self.look()

    def roll_back(self, slot: Slot, why: str) -> None:
        """Roll a transaction back."""
        slot.session.rollback()
        slot.close()
        self.ground.count(why)

    def commit(self, slot: Slot) -> None:
        """Commit a transaction, and check what it has left."""
        transaction = slot.transaction
        assert transaction is not None
        before = self.world.tables, len(self.world.log)
        while slot.savepoints:
            slot.savepoints.pop().commit()
        slot.session.commit()
        transaction.commit()
        slot.close()
        self.ground.count("commit")
        if transaction.log and transaction.alone:
            recorded_at = self.newest_entry()
            self.world.remember(recorded_at - dt.timedelta(microseconds=1), before)
            self.world.remember(recorded_at)
        if not any(other.transaction is not None and other.transaction.log for other in self.slots):
            self.world.remember(self.ground.now())
        tables = {table for table, _key in transaction.overlay}
        with Session(self.ground.reader) as session:
            check_rows(self.ground, session.connection(), tables, self.world.tables)
            self.auditor.check_entities(session, dict.fromkeys(change.entity for change in transaction.log))
            self.auditor.check_reconciled(session, dict.fromkeys(ROOTS[table] for table in tables))
            self.auditor.check_totals(session.connection())

    def newest_entry(self) -> dt.datetime:
        """Give the moment of the example's newest entry."""
        entry = trail_table()
        newest = sa.select(sa.func.max(entry.c.recorded_at)).where(entry.c.request_id == f"run {self.ground.base}")
        with self.ground.reader.connect() as connection:
            moment: dt.datetime = connection.execute(newest).scalar_one()
            return moment

    # -- looking back ------------------------------------------------------------------------

    def changed_tables(self) -> list[sa.Table]:
        """Give the tables that the example has changed so far, since it was populated."""
        return list(dict.fromkeys(change.table for change in self.world.log[self.settled :]))

    def look(self) -> None:
        """Look at the past: at the present snapshot, and at another moment or at all of them."""
        snapshot = self.ground.snapshot()
        if snapshot is not None:
            self.world.remember(snapshot)
        self.looks += 1
        moments = self.world.moments
        older = moments if self.ground.thorough else [moments[self.looks * 7 % len(moments)]]
        for moment in older:
            self.auditor.check_past(moment, self.changed_tables())

    def teardown(self) -> None:
        """Commit what is open, and look at everything once more."""
        try:
            if not self.failed:
                for slot in self.slots:
                    if slot.transaction is not None:
                        self.commit(slot)
                self.look_at_all()
        finally:
            for slot in self.slots:
                slot.session.close()

    def look_at_all(self) -> None:
        """Compare all that was ever recorded, and every moment."""
        entities: dict[Entity, None] = dict.fromkeys(change.entity for change in self.world.log)
        moments = self.world.moments
        for number, moment in enumerate(moments):
            whole = self.ground.thorough or number in (1, len(moments) - 1)
            tables = TABLES if whole else self.changed_tables()
            self.auditor.check_past(moment, tables, loader=number if whole else None)
        with Session(self.ground.reader) as session:
            check_rows(self.ground, session.connection(), TABLES, self.world.tables)
            self.auditor.check_entities(session, entities)
            self.auditor.check_reconciled(session, dict.fromkeys(ROOTS.values()))
            self.auditor.check_totals(session.connection())
            pairs = [(one, moments[-1]) for one in moments] if self.ground.thorough else [(moments[1], moments[-1])]
            for one, other in pairs:
                self.auditor.check_difference(session, entities, one, other)
        self.ground.count("example")


def _touched(slot: Slot) -> set[Entity]:
    return slot.transaction.touched if slot.transaction is not None else set()
