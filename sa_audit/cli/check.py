"""``sa-audit check``: the protection level of the live database, and what stands in its way.

Imports catalog and model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from rich.console import Group, RenderableType

from ..catalog.drift import check
from ..catalog.level import Finding, Report
from ..model import Trail
from .failure import CantRun
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


def run_check(engine: sa.Engine, trail: Trail, wanted: int | None) -> CheckResult:
    """Check a database.

    Args:
        engine: to the database; an account that sees the catalog, such as a member of the owner's role.
        trail: the models' trail.
        wanted: the level that is asked for, or None.

    Raises:
        CantRun: for level 4, which only a verifier with key and anchor can tell.
    """
    if wanted == 4:
        raise CantRun("level 4 is told by the verifier, which needs key and anchor: it is not in this release of check")
    with engine.connect() as connection:
        return CheckResult(check(connection, trail), wanted)


def _table(findings: list[Finding]) -> RenderableType:
    table = grid("finding", "where", "what")
    for finding in findings:
        what = plain(finding.message)
        if finding.expected is not None or finding.got is not None:
            what.append(f"\nexpected {finding.expected or '-'}, got {finding.got or '-'}", style="dim")
        table.add_row(plain(finding.kind), plain(finding.place), what)
    return table
