"""Findings about the live database, and the protection level that they leave.

Level 0: changes made through SQLAlchemy are recorded or refused.  1: guards make the trail append-only.  2: the
application could not change it even without them.  3: the database records, whoever writes.  4: sealed and anchored.
Imports nothing of the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HIGHEST_OF_THE_CATALOG: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be, or that a level lacks.

    Args:
        kind: a short name, such as ``missing-guard``.
        place: the object.
        message: what is so, and what to do.
        expected: what should be, or None.
        got: what is, or None.
        blocks: the lowest level that is not reached because of it, or None for a remark.
        drift: whether the database differs from what migration or ``create_all()`` make, which always is a finding;
            otherwise it only says what the next level lacks.
    """

    kind: str
    place: str
    message: str
    expected: str | None = None
    got: str | None = None
    blocks: int | None = 1
    drift: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """What :func:`sa_audit.catalog.drift.check` found, and whether a verifier found the trail sealed and anchored."""

    findings: tuple[Finding, ...]
    evident: bool = False

    @property
    def level(self) -> int:
        """The protection level: 0 to 3 as the catalog shows, 4 where a verifier has found the trail evident."""
        return protection_level(self.findings, evident=self.evident)

    @property
    def drift(self) -> tuple[Finding, ...]:
        """The findings that are differences."""
        return tuple(finding for finding in self.findings if finding.drift)


def protection_level(findings: Iterable[Finding], *, evident: bool = False) -> int:
    """Give the level that findings leave; levels are cumulative.

    Args:
        findings: of the catalog.
        evident: whether a verifier, given key and anchor, found the trail sealed and anchored.
    """
    blocked = [finding.blocks for finding in findings if finding.blocks is not None]
    highest = HIGHEST_OF_THE_CATALOG + int(evident)
    return max(0, min([highest, *(level - 1 for level in blocked)]))
