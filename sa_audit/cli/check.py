"""``sa-audit check``: the protection level of the live database, and what stands in its way.

Imports catalog and model; for level 4 also what verifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Group, RenderableType

from ..catalog import by_itself
from ..catalog.drift import check
from ..catalog.level import Finding, Report
from ..catalog.touched import touched
from ..model import Trail
from .failure import WrongUsage
from .results import grid, plain

LEVELS = ("recorded", "append-only", "privileged", "complete", "evident")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the check found.

    JSON: ``{"level", "findings": [{"kind", "place", "message", "expected", "got", "blocks", "drift"}]}``.
    """

    report: Report
    wanted: int | None

    @property
    def passed(self) -> bool:
        """Whether nothing differs, and the level is the one that was asked for."""
        return not self.report.drift and (self.wanted is None or self.report.level >= self.wanted)

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"level": self.report.level, "findings": [asdict(finding) for finding in self.report.findings]}

    def render(self) -> RenderableType:
        """Give it for people."""
        level = self.report.level
        parts: list[RenderableType] = [plain(f"protection level {level} ({LEVELS[level]})", style="bold")]
        if self.wanted is not None and level < self.wanted:
            parts.append(plain(f"asked for: {self.wanted} ({LEVELS[self.wanted]})", style="red"))
        lacking = [finding for finding in self.report.findings if not finding.drift]
        for title, findings in (("differences", list(self.report.drift)), ("for a higher level", lacking)):
            if findings:
                parts += [plain(""), plain(title), _table(findings)]
        return Group(*parts)


def run_check(
    engine: sa.Engine,
    trail: Trail,
    wanted: int | None,
    vkey: Path | None = None,
    anchors: Sequence[str] = (),
    seen: Path | None = None,
) -> CheckResult:
    """Check a database.

    Args:
        engine: to the database; an account that sees the catalog, such as a member of the owner's role.
        trail: the models' trail.
        wanted: the level that is asked for, or None.
        vkey: the log's verifier key, or a policy; then everything is verified as well.
        anchors: URIs of what keeps checkpoints.
        seen: the file of what the run before saw of functions and triggers, or None.

    Raises:
        WrongUsage: for level 4 without key or anchor, and for anchors without a key.
    """
    if vkey is None and (wanted == 4 or anchors):
        raise WrongUsage("level 4 is told by verifying with key and anchor: give --vkey FILE and --anchor URI")
    if wanted == 4 and not anchors:
        raise WrongUsage("level 4 needs what keeps checkpoints outside of the database: give --anchor URI")
    with by_itself(engine).connect() as connection:
        report = check(connection, trail)
        if seen is not None:
            report = Report((*report.findings, *touched(connection, trail, seen)))
    if vkey is None:
        return CheckResult(report, wanted)
    found = tuple(_verified(engine, trail, vkey, anchors))
    return CheckResult(Report(report.findings + found, evident=not found), wanted)


def _verified(engine: sa.Engine, trail: Trail, vkey: Path, anchors: Sequence[str]) -> Iterator[Finding]:
    """Verify the trail, and give what keeps it from being evident."""
    from .verify import verify_trail

    report = verify_trail(engine, trail.metadata, vkey, anchors, None, 1, quiet=True).report
    for one in report.findings:
        place = one.table if one.row is None else f"{one.table} {one.row}"
        yield Finding(
            kind=one.kind,
            place=place or "log",
            message="the record is not what was sealed: see sa-audit verify",
            expected=one.expected,
            got=one.got,
            blocks=4,
        )
    if report.anchored_until is None:
        yield Finding(
            kind="not-anchored",
            place="log",
            message="no checkpoint that holds is kept outside of the database: seal with --anchor, and give it here",
            blocks=4,
            drift=False,
        )


def _table(findings: list[Finding]) -> RenderableType:
    table = grid("finding", "where", "what")
    for finding in findings:
        what = plain(finding.message)
        if finding.expected is not None or finding.got is not None:
            what.append(f"\nexpected {finding.expected or '-'}, got {finding.got or '-'}", style="dim")
        table.add_row(plain(finding.kind), plain(finding.place), what)
    return table
