"""``verify``: checks the whole record, with progress on a terminal.

Imports verification, proof, anchors and rich only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import anchors as anchor_places
from ..errors import UnusableKey
from ..proof.checkpoint import Checkpoint
from ..proof.policy import Policy
from ..verification import Report, verify
from .failure import WrongUsage
from .results import grid, plain

SHOWN: Final = 20
"""How many changes of the catalog are printed."""
PHASES: Final = {"log": "the log", "rows": "the rows", "tables": "what no leaf speaks of", "continuity": "changes"}


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A report.  JSON: ``{"ok", "findings": [finding, ...], "checked", "checkpoint", "sealed_until", ...}``."""

    report: Report

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return self.report.as_json()

    def render(self) -> RenderableType:
        """Give it for people."""
        report = self.report
        parts: list[RenderableType] = []
        if report.findings:
            table = grid("finding", "table", "row", "expected", "got")
            for found in report.findings:
                row = "" if found.row is None else str(found.row)
                table.add_row(
                    *(plain(text) for text in (found.kind, found.table or "", row, found.expected, found.got))
                )
            parts.append(table)
        if report.changes:
            parts.append(plain(f"the catalog has changed ({len(report.changes)} objects):"))
            parts += [plain(f"  {change}") for change in report.changes[:SHOWN]]
            if len(report.changes) > SHOWN:
                parts.append(plain(f"  and {len(report.changes) - SHOWN} more: see --json"))
        count = len(report.findings)
        parts.append(plain(f"{report.checked} rows read, {'no finding' if not count else f'{count} finding(s)'}"))
        if report.since_sealed_until is not None:
            parts.append(
                plain(
                    f"the first {report.since} leaves, sealed up to {report.since_sealed_until:%Y-%m-%d %H:%M:%S} UTC, "
                    "were followed and their rows not read again: whoever verified that checkpoint read them last"
                )
            )
        parts.append(plain(self._until()))
        return Group(*parts)

    def _until(self) -> str:
        report = self.report
        if report.sealed_until is None:
            return f"nothing is sealed under a checkpoint that holds; {report.unsealed} rows are not sealed"
        rest = f"{report.unsealed} newer rows are protected by permissions only"
        sealed = f"sealed up to {report.sealed_until:%Y-%m-%d %H:%M:%S} UTC"
        if report.anchored_until is not None:
            return f"{sealed}, anchored up to {report.anchored_until:%Y-%m-%d %H:%M:%S} UTC; {rest}"
        return f"{sealed}, and not anchored, so that an older or rewritten log would not be noticed; {rest}"


def verify_trail(
    engine: sa.Engine,
    metadata: sa.MetaData,
    vkey: Path,
    uris: Sequence[str],
    since: Path | None,
    workers: int,
    *,
    quiet: bool,
) -> VerifyResult:
    """Verify with what the command line names.

    Raises:
        WrongUsage: if a file can't be read.
        UnusableKey: if ``vkey`` holds no verifier key and no policy.
    """
    if not vkey.is_file():
        raise UnusableKey(f"there is no verifier key {vkey}: give the file that keygen made")
    policy = Policy.load(vkey)
    held = None if since is None else _checkpoint(since)
    places = [anchor_places.open(uri) for uri in uris]
    with _progress(quiet=quiet) as progress:
        report = verify(
            engine, policy, anchors=places, since=held, workers=workers, progress=progress, metadata=metadata
        )
    return VerifyResult(report)


def _checkpoint(path: Path) -> Checkpoint:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WrongUsage(f"--since {path}: {error.strerror or error}") from error
    return Checkpoint.parse(data)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show how far it is, on standard error and only on a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        tasks = {phase: shown.add_task(text, total=None, visible=False) for phase, text in PHASES.items()}

        def update(phase: str, done: int, total: int | None) -> None:
            shown.update(tasks[phase], completed=done, total=total, visible=True)

        yield update
