"""What is asked of the trail, and what the answers are compared with: always the oracle, never the trail itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload, lazyload, selectinload, subqueryload

import sa_audit
from sa_audit import Exclude, Excluded, Masked
from sa_audit.model import audited_of, trail_of
from tests.databases import Database
from tests.property.expected import by_entity, expected_blame, expected_diff, expected_history
from tests.property.models import (
    MADE_KEYS,
    SPAN,
    TABLES,
    Base,
    Item,
    Line,
    Party,
    Sheet,
    Tag,
    sheet_tag,
    table_of,
)
from tests.property.oracle import (
    Entity,
    Key,
    Moment,
    Recorded,
    Row,
    Stamp,
    Tables,
    World,
    exact,
    is_masked,
    key_of,
)
from tests.property.steps import within

CLOCKS = {
    "postgresql": sa.select(sa.func.clock_timestamp()),
    "mariadb": sa.select(sa.literal_column("UTC_TIMESTAMP(6)")),
}
"""The clock that the history is recorded by; where there is none, it is the process's own."""
LOADERS = (lazyload, selectinload, joinedload, subqueryload)


@dataclass
class Ground:
    """What the examples of one test stand on.

    Attributes:
        database: the database.
        engine: what the sessions under test write through.
        reader: what the checks read through.
        thorough: whether everything is checked after every step.
        base: the first key of the present example.
        repeatable: whether a transaction reads from one snapshot from its first statement on.
        floors: the highest keys that earlier examples had, of tables whose keys the database makes.
        counts: what happened, by name, over all examples.
    """

    database: Database
    engine: sa.Engine
    reader: sa.Engine
    thorough: bool
    repeatable: bool
    base: int = 0
    floors: dict[sa.Table, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Give the next example keys of its own."""
        self.base += SPAN
        with self.reader.connect() as connection:
            for table in MADE_KEYS:
                histories = sa.select(sa.func.max(history_of(table).c.id))
                self.floors[table] = connection.scalar(histories) or 0

    def count(self, name: str) -> None:
        """Note that something happened."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def now(self) -> dt.datetime:
        """Give the time of the clock that the history is recorded by."""
        clock = CLOCKS.get(self.database.dialect)
        if clock is None:
            return dt.datetime.now(dt.UTC)
        with self.reader.connect() as connection:
            now: dt.datetime = connection.execute(clock).scalar_one()
            return now if now.tzinfo is not None else now.replace(tzinfo=dt.UTC)

    def snapshot(self) -> str | None:
        """Give the text of the present snapshot, where there is such a thing."""
        if "snapshots" not in self.database.capabilities:
            return None
        with self.reader.connect() as connection:
            return connection.execute(sa.select(sa.cast(sa.func.pg_current_snapshot(), sa.Text))).scalar_one()

    def mine(self, table: sa.Table) -> sa.Select[Any]:
        """Give the SELECT of the example's rows of a table."""
        return sa.select(table).where(within(table, self.base, self.floors))


def history_of(table: sa.Table) -> sa.Table:
    """Give a table's history table."""
    audited = audited_of(table)
    assert audited is not None
    return audited.history


def trail_table() -> sa.Table:
    """Give the table of who and why."""
    trail = trail_of(Base.metadata)
    assert trail is not None
    return trail.transaction


def exact_rows(rows: Iterable[tuple[Key, Row]]) -> dict[Any, Any]:
    """Give rows in a form that is equal for the same values of the same types only."""
    return {key: {name: exact(value) for name, value in row.items()} for key, row in rows}


def assert_same(found: Any, expected: Any, what: str) -> None:
    """Fail with what differs, and with nothing else."""
    assert not (lines := differences(found, expected)), f"{what}:\n" + "\n".join(lines)


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Give a line for each place in which nested dicts and sequences differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        lines = []
        for key in {**found, **expected}:
            lines += differences(found.get(key, "nothing"), expected.get(key, "nothing"), f"{path}[{key!r}]")
        return lines
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
        return differences(found, expected, path)
    return [] if found == expected else [f"{path}: found {found!r}, expected {expected!r}"]


def check_rows(ground: Ground, source: Session | sa.Connection, tables: Iterable[sa.Table], held: Tables) -> None:
    """The tables hold what the oracle says: it is the oracle that is checked here."""
    for table in tables:
        rows = [dict(row) for row in source.execute(ground.mine(table)).mappings()]
        found = exact_rows((key_of(table, row), row) for row in rows)
        assert len(found) == len(rows), f"{table.name} holds a row twice"
        assert_same(found, exact_rows(held[table].items()), f"the oracle is wrong about {table.name}")


class Auditor:
    """Asks about one example, and compares."""

    def __init__(self, ground: Ground, world: World) -> None:
        self.ground = ground
        self.world = world
        self.entries: dict[Stamp, int] = {}

    # -- rows of the history -----------------------------------------------------------------

    def check_entities(self, session: Session, entities: Iterable[Entity], more: list[Recorded] | None = None) -> None:
        """`history` and `blame` give what was done to each entity: what is committed, and what this session did."""
        logs = by_entity([*self.world.log, *(more or [])])
        for entity in entities:
            self._check_history(session, entity, logs.get(entity, []), committed=more is None)

    def _check_history(self, session: Session, entity: Entity, log: list[Recorded], *, committed: bool) -> None:
        expected = expected_history(entity, log)
        found = sa_audit.history(session, *entity)
        plans = [_shape(plan, plan.stamp.context.actor, plan.stamp.context.reason) for plan in expected]
        assert_same([_shape(change, change.actor, change.reason) for change in found], plans, f"history of {entity}")
        blamed = sa_audit.blame(session, *entity)
        places = {name: found.index(change) for name, change in blamed.items()}
        assert_same(places, expected_blame(expected), f"blame of {entity}")
        moments = [change.recorded_at for change in found]
        assert all(change.recorded_at == change.transaction.recorded_at for change in found)
        if "concurrent-writers" not in self.ground.database.capabilities:
            assert moments == sorted(moments)
        for change, plan in zip(found, expected, strict=True):
            if committed:
                known = self.entries.setdefault(plan.stamp, change.transaction.id)
                assert known == change.transaction.id, f"{plan.stamp} has two entries"
        if committed:
            assert len(set(self.entries.values())) == len(self.entries), "one entry stands for two"
            self._check_ties(found, [plan.stamp for plan in expected])

    def _check_ties(self, changes: list[Any], stamps: list[Stamp]) -> None:
        """Entries of one database transaction share its moment, and name the first of them."""
        for change, stamp in zip(changes, stamps, strict=True):
            ids = sorted(id_ for other, id_ in self.entries.items() if other.transaction == stamp.transaction)
            first = change.transaction.first_id
            assert first is None or first < change.transaction.id
            assert first is not None or change.transaction.id <= ids[0]

    def check_difference(self, session: Session, entities: Iterable[Entity], one: Moment, other: Moment) -> None:
        """`diff` between two moments gives what the oracle's states differ in."""
        known = by_entity(self.world.log)
        for entity in entities:
            if entity in known:
                expected = expected_diff(entity, self.world.log, one.recorded, other.recorded)
                found = sa_audit.diff(session, *entity, one.when, other.when)
                assert_same(_pairs(found), _pairs(expected), f"diff of {entity} from {one.when} to {other.when}")

    def check_totals(self, connection: sa.Connection) -> None:
        """There are as many history rows and entries as there should be: none of what was rolled back."""
        for table in TABLES:
            history = history_of(table)
            own = within(table, self.ground.base, self.ground.floors, history)
            operations = list(connection.scalars(sa.select(history.c.audit_op).where(own)))
            expected = [change.op for change in self.world.log if change.table is table]
            assert_same(sorted(operations), sorted(expected), f"rows of {history.name}")
        entry = trail_table()
        run = f"run {self.ground.base}"
        entries = connection.scalar(sa.select(sa.func.count()).where(entry.c.request_id == run))
        assert entries == len({change.stamp for change in self.world.log})

    def check_reconciled(self, session: Session, roots: Iterable[Any]) -> None:
        """`reconcile` finds nothing: all that is there was recorded."""
        for root in roots:
            assert list(sa_audit.reconcile(session, root)) == [], root

    # -- the past ----------------------------------------------------------------------------

    def check_past(self, moment: Moment, tables: Iterable[sa.Table] = TABLES, *, loader: int | None = None) -> None:
        """Every table read as of a moment holds what it held; with a loader, objects and what they refer to as well."""
        with sa_audit.as_of(self.ground.reader, moment.when) as past:
            for table in tables:
                rows = [dict(row) for row in past.execute(self.ground.mine(table)).mappings()]
                found = exact_rows((key_of(table, row), row) for row in rows)
                assert len(found) == len(rows), f"{table.name} held a row twice at {moment.when}"
                expected = exact_rows((key, _as_recorded(table, row)) for key, row in moment.tables[table].items())
                assert_same(found, expected, f"{table.name} at {moment.when}")
            if loader is not None:
                self._check_objects(past, moment, LOADERS[loader % len(LOADERS)])

    def _check_objects(self, past: Session, moment: Moment, load: Any) -> None:
        held = moment.tables
        links = held[sheet_tag]
        mine = within(table_of(Sheet), self.ground.base, self.ground.floors)
        for sheet in past.scalars(sa.select(Sheet).where(mine).options(load(Sheet.tags), load(Sheet.lines))).unique():
            row = held[table_of(Sheet)][(sheet.id,)]
            assert exact(sheet.doc) == exact(row["doc"])
            assert {tag.id for tag in sheet.tags} == {tag for owner, tag in links if owner == sheet.id}
            lines = {key[0] for key, line in held[table_of(Line)].items() if line["sheet_id"] == sheet.id}
            assert {line.id for line in sheet.lines} == lines
        for root in (Item, Party):
            table = table_of(root)
            mine = within(table, self.ground.base, self.ground.floors)
            objects: Sequence[Any] = past.scalars(sa.select(root).where(mine)).all()
            found = {obj.id: type(obj).__mapper__.polymorphic_identity for obj in objects}
            assert found == {key[0]: row["type"] for key, row in held[table].items()}
        for tag in past.scalars(sa.select(Tag).where(within(table_of(Tag), self.ground.base, self.ground.floors))):
            assert exact(tag.rank) == exact(held[table_of(Tag)][(tag.id,)]["rank"])


def _as_recorded(table: sa.Table, row: Row) -> Row:
    shown = {}
    for column in table.columns:
        excluded = isinstance(column.info.get("sa_audit"), Exclude)
        shown[column.key] = Excluded if excluded else Masked if is_masked(column) else row[column.key]
    return shown


def _shape(change: Any, actor: str | None, reason: str | None) -> Any:
    state = {name: exact(value) for name, value in change.state.items()}
    what = [change.entity, change.table, change.identity, change.operation, actor, reason]
    return [what, _pairs(change.diff), state]


def _pairs(diff: Any) -> dict[str, Any]:
    return {name: (exact(before), exact(after)) for name, (before, after) in diff.items()}
