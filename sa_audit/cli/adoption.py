"""``baseline`` and ``import-continuum``: carry rows, and the history that another tool wrote, into the history.

Imported by app, whose options and ways to open and print it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType

from ..adoption import BATCH, PATIENCE, TRANSACTIONS, Baselined, Imported, Naming, Step
from ..adoption import baseline as carry_in
from ..adoption import import_continuum as import_versions
from ..model import AuditedTable
from ..query.entity import subject_of
from .app import Json, ModelsOption, Url, _opened, _print, app
from .encoding import to_json
from .models import Models
from .results import plain


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """What was carried in.

    JSON: ``{"tables": [{"table", "rows", "batches", "longest": seconds}], "left_out": [table without key, ...]}``.
    """

    tables: Sequence[Baselined]
    left_out: Sequence[str]

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"tables": [asdict(done) for done in self.tables], "left_out": list(self.left_out)}

    def render(self) -> RenderableType:
        """Give it for people."""
        lines = [
            f"{done.table}: {done.rows} rows carried in"
            + (f", in {done.batches} transactions of {done.longest:.3f} s at the most" if done.rows else "")
            for done in self.tables
        ]
        lines += [f"{name}: left out, since it has no primary key; the migration records it" for name in self.left_out]
        return Group(*map(plain, lines))


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was carried over.

    JSON: ``{"tables": [{"table", "versions", "rows", "since": moment or null}], "left_out": [table, ...]}``.
    """

    tables: Sequence[Imported]
    left_out: Sequence[str]

    def to_json(self) -> Any:
        """Give it as JSON values."""
        tables = [
            {"table": done.table, "versions": done.versions, "rows": done.rows, "since": to_json(done.since)}
            for done in self.tables
        ]
        return {"tables": tables, "left_out": list(self.left_out)}

    def render(self) -> RenderableType:
        """Give it for people."""
        lines = [
            f"{done.table}: {done.versions} versions became {done.rows} history rows; its past is "
            + (f"known since {done.since.isoformat()}" if done.since else "not known, since rows have no version")
            for done in self.tables
        ]
        lines += [f"{name}: left out, since it has no version table" for name in self.left_out]
        return Group(*map(plain, [*lines, "now run sa-audit baseline, for rows that have no version"]))


@app.command("baseline")
def baseline(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Classes or tables; otherwise all.")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=10_000, help="The most rows in a transaction.")
    ] = BATCH,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=0, help="How long to wait for rows that others hold.")
    ] = PATIENCE,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who carries them in: recorded.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: recorded.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Record the rows that stand in tables without history, in batches.

    Writers go on meanwhile.  It can be killed, and run again.
    """
    with _opened(url, models) as place, _progress(json) as progress:
        tables = _chosen(place.models, names or [])
        keyed = [audited for audited in tables if audited.table.primary_key.columns]
        done = [
            entry
            for audited in keyed
            for entry in carry_in(
                place.engine,
                audited.table,
                actor=actor,
                reason=reason,
                batch=batch,
                patience=patience,
                progress=progress,
            )
        ]
    left_out = [audited.table.fullname for audited in tables if audited not in keyed]
    _print(BaselineResult(done, left_out), json)


@app.command("import-continuum")
def import_continuum(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Classes or tables; otherwise all.")
    ] = None,
    version_table: Annotated[
        str, typer.Option("--version-table", metavar="PATTERN", help="How version tables are called.")
    ] = Naming().version_table,
    transaction_table: Annotated[
        str, typer.Option("--transaction-table", metavar="NAME", help="The table of transactions.")
    ] = Naming().transaction_table,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=10_000, help="Transactions carried over at once.")
    ] = TRANSACTIONS,
    actor: Annotated[
        str | None, typer.Option("--actor", metavar="NAME", help="Who imports: kept in the context.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: kept in the context.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Carry the version tables of SQLAlchemy-Continuum over as history.

    Before anything else is recorded, as the owner of the trail.  It can be killed, and run again.
    """
    with _opened(url, models) as place:
        tables = _chosen(place.models, names or [])
        done = import_versions(
            place.engine,
            tables,
            naming=Naming(version_table=version_table, transaction_table=transaction_table),
            actor=actor,
            reason=reason,
            transactions=batch,
        )
    known = {entry.table for entry in done}
    left_out = [audited.table.fullname for audited in tables if audited.table.fullname not in known]
    _print(ImportResult(done, left_out), json)


def _chosen(models: Models, names: Sequence[str]) -> list[AuditedTable]:
    """Give the audited tables of some models, each once and after those that it refers to; all without names."""
    wanted = {part.audited.table for name in names for part in subject_of(models.entity(name).target).parts}
    order = [table for table in models.trail.metadata.sorted_tables if table in models.trail.audited]
    return [models.trail.audited[table] for table in order if not names or table in wanted]


@contextmanager
def _progress(json: bool) -> Iterator[Callable[[Step], None] | None]:
    """Show how many rows are carried in, on a terminal."""
    console = Console(stderr=True)
    if json or not console.is_terminal:
        yield None
        return
    counts: dict[str, int] = {}
    with console.status("looking for rows without history") as status:

        def show(step: Step) -> None:
            counts[step.table] = counts.get(step.table, 0) + step.rows
            status.update(f"{step.table}: {counts[step.table]} rows carried in")

        yield show
