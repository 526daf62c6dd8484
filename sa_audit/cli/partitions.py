"""``sa-audit partitions``: the coming months' partitions of histories by month.

Imported by app, whose options and ways to open and print it uses.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.console import Group, RenderableType

from ..capture.context import context
from ..catalog.partitions import PartitionedHistory, coming, read_partitions
from ..ddl import backend_for
from ..ddl.events import run
from ..ddl.postgresql import PostgreSQL
from ..ddl.postgresql_partitions import AHEAD
from ..model import Trail
from .app import Json, ModelsOption, Url, _opened, _print, app
from .failure import FINDINGS, CantRun, WrongUsage
from .moving import move_early
from .results import plain

PATIENCE = 5000
"""How long to wait for a lock, in milliseconds: whoever reads the default partition meanwhile waits behind it."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was done for one history; months are by their starts, in UTC.

    Args:
        table: the history.
        made: the months that got a partition.
        early: how many rows of which month stand in the default partition.
        moved: how many rows of which month were moved out of it.
    """

    table: str
    made: Sequence[dt.datetime]
    early: Mapping[dt.datetime, int]
    moved: Mapping[dt.datetime, int]


@dataclass(frozen=True, slots=True)
class PartitionsResult:
    """What was made, or would be.

    JSON: ``{"dry_run", "tables": [{"table", "made": [month, ...], "default": {month: rows},
    "moved": {month: rows}}]}``.
    """

    tables: Sequence[Made]
    dry_run: bool

    def to_json(self) -> Any:
        """Give it as JSON values."""
        tables = [
            {
                "table": one.table,
                "made": [_month(month) for month in one.made],
                "default": {_month(month): number for month, number in one.early.items()},
                "moved": {_month(month): number for month, number in one.moved.items()},
            }
            for one in self.tables
        ]
        return {"dry_run": self.dry_run, "tables": tables}

    def render(self) -> RenderableType:
        """Give it for people."""
        return Group(*(plain(line) for one in self.tables for line in self._lines(one)))

    def _lines(self, one: Made) -> list[str]:
        verb = "would be made" if self.dry_run else "made"
        names = ", ".join(map(_month, one.made))
        lines = [f"{one.table}: {verb} {names}" if names else f"{one.table}: nothing to make"]
        lines += [
            f"{one.table}: {number} rows of {_month(month)} moved out of the default partition"
            for month, number in one.moved.items()
        ]
        lines += [
            f"{one.table}: {number} rows of {_month(month)} stand in the default partition, so that month can't have "
            "one: move them by --move"
            for month, number in one.early.items()
        ]
        return lines


def _month(month: dt.datetime) -> str:
    return f"{month:%Y-%m}"


def make_partitions(
    engine: sa.Engine, trail: Trail, *, months: int = AHEAD, move: bool = False, dry_run: bool = False
) -> PartitionsResult:
    """Make the partitions of the present month and of those that follow, and guard all there are.

    Each history has a transaction of its own.

    Args:
        engine: to PostgreSQL, as a member of the owner's role.
        trail: the models' trail.
        months: how many months ahead of the present one.
        move: move rows out of default partitions, which locks each history meanwhile.
        dry_run: only say what would be made.

    Raises:
        WrongUsage: if no model asks for partitions.
        CantRun: on another database, or where a history is a plain table.
    """
    backend = backend_for(engine.dialect)
    if not isinstance(backend, PostgreSQL):
        raise CantRun(f"only PostgreSQL keeps histories by month: on {backend.name} they are plain tables")
    if not any(audited.partitioned for audited in trail.audited.values()):
        raise WrongUsage("no model asks for a history by month: give AuditOptions(partition='month')")
    with engine.connect() as connection:
        histories = read_partitions(connection, trail)
    for history in histories:
        if history.partitions is None:
            raise CantRun(f"{history.audited.history.fullname} is a plain table, so it can't have partitions")
    wanted = coming(dt.datetime.now(dt.UTC), months)
    if dry_run:
        return PartitionsResult([_planned(history, wanted, move=move) for history in histories], dry_run=True)
    done = [_make(engine, backend, history, wanted, move=move) for history in histories]
    return PartitionsResult(done, dry_run=False)


def _planned(history: PartitionedHistory, wanted: Sequence[dt.datetime], *, move: bool) -> Made:
    missing = history.missing(wanted)
    name = history.audited.history.fullname
    if move:
        return Made(name, sorted({*missing, *history.early}), {}, history.early)
    return Made(name, [month for month in missing if month not in history.early], history.early, {})


def _make(
    engine: sa.Engine, backend: PostgreSQL, history: PartitionedHistory, wanted: Sequence[dt.datetime], *, move: bool
) -> Made:
    audited = history.audited
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PATIENCE}")
        default = connection.dialect.default_schema_name
        moved = move_early(connection, backend, history) if move else {}
        run(connection, [backend.make_partitions(audited, {}, default, len(wanted) - 1)])
        after = next(one for one in read_partitions(connection, audited.trail) if one.audited is audited)
    months = sorted({*wanted, *moved})
    still = set(after.missing(months))
    made = [month for month in history.missing(months) if month not in still]
    return Made(audited.history.fullname, made, after.early, moved)


@app.command("partitions")
def partitions(
    months: Annotated[
        int, typer.Option("--months", metavar="N", min=0, max=1200, help="How many months ahead of the present one.")
    ] = AHEAD,
    move: Annotated[
        bool, typer.Option("--move", help="Move rows out of default partitions; the history is locked meanwhile.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who moves rows: recorded.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: recorded.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Make the coming months' partitions of histories by month (PostgreSQL), and guard all there are.

    As a member of the owner's role, say once a week.  Exit code 1 while rows stand in a default partition.
    """
    said = {name: text for name, text in (("actor", actor), ("reason", reason)) if text is not None}
    with context(**said), _opened(url, models) as place:
        result = make_partitions(place.engine, place.models.trail, months=months, move=move, dry_run=dry_run)
    _print(result, json)
    if any(one.early for one in result.tables):
        raise typer.Exit(FINDINGS)
