"""``sa-audit prune``: history that is older than its model's retention.  Imports the room's own parts and retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from ..capture.context import context
from ..retention import Pruned
from ..retention import prune as prune_history
from .app import Json, ModelsOption, Url, _opened, _print, app
from .encoding import to_json
from .results import plain
from .sealing import seconds


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was pruned, or would be.

    JSON: ``{"dry_run", "tables": [{"table", "cutoff", "carried", "held", "kept", "asked", "waiting", "erased",
    "partitions"}]}``.
    """

    tables: Sequence[Pruned]
    dry_run: bool

    def to_json(self) -> Any:
        """Give it as JSON values."""
        names = ("table", "cutoff", "carried", "held", "kept", "asked", "waiting", "erased")
        tables = [
            {**{name: to_json(getattr(one, name)) for name in names}, "partitions": list(one.partitions)}
            for one in self.tables
        ]
        return {"dry_run": self.dry_run, "tables": tables}

    def render(self) -> RenderableType:
        """Give it for people."""
        return Group(*(plain(f"{one.table}: {line}") for one in self.tables for line in self._lines(one)))

    def _lines(self, one: Pruned) -> list[str]:
        would = "would be " if self.dry_run else ""
        said = {
            f"{one.carried} rows' last words {would}carried forward": one.carried,
            f"{one.asked} rows recorded before {one.cutoff.isoformat()} {would}asked for"
            + ("" if self.dry_run else ": seal with an anchor, and prune again"): one.asked,
            f"{one.waiting} rows that were asked for wait for the sealer and an anchor": one.waiting,
            f"{one.erased} rows {would}deleted": one.erased,
            f"{one.held} old rows are kept by a hold": one.held,
            f"{one.kept} old rows stay, for what was there at {one.cutoff.isoformat()}": one.kept,
            f"dropped whole: {', '.join(one.partitions)}": len(one.partitions),
        }
        return [line for line, number in said.items() if number] or [
            f"nothing recorded before {one.cutoff.isoformat()} may go"
        ]


@app.command("prune")
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="TIME", help="Wait so long (30s, 5m) for the sealer, and go on.")
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who approves: in the log.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: in the log.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Take away history that is older than its model's retention, in two steps with a sealing between them."""
    said = {name: text for name, text in (("actor", actor), ("reason", reason)) if text is not None}
    with context(**said), _opened(url, models) as place:
        timeout = 0.0 if wait is None else seconds(wait, "--wait")
        done = prune_history(place.engine, dry_run=dry_run, timeout=timeout, metadata=place.models.trail.metadata)
    _print(PruneResult(done, dry_run), json)
