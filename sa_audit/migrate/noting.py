"""A migration that touches a trail that is in use says so in the trail, as its first or, downwards, its last step.

Imports script, steps, text, model and Alembic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from alembic.operations import ops

from ..model.history import Trail
from .script import Script
from .steps import ExecuteText, Remark, Step, TrailOperation
from .text import section

CHANGED: Final = "sa_audit.changed"
_SILENT: Final = ("note", "possible_rename", "baseline", "later_baseline")
"""What leaves an account of its own, or changes nothing."""


class NoteMigration(TrailOperation):
    """The event that a revision has changed the trail, or undone that.

    Args:
        script: the database's.
        trail: the trail, whose tables of entries and events stand already.
        changes: what is done, a line each.
        downwards: whether it is undone.
    """

    def __init__(self, script: Script, trail: Trail, changes: Sequence[str], *, downwards: bool = False) -> None:
        self.script = script
        self.trail = trail
        self.changes = tuple(changes)
        self.downwards = downwards

    def steps(self, revision: str | None) -> Iterator[Step]:
        """Write the entry and the event, unless nothing was ever recorded."""
        yield Remark((section("that the trail is changed, recorded where it is in use"),))
        what = "downgrade" if self.downwards else "upgrade"
        data = {"revision": revision, "direction": what, "changes": list(self.changes)}
        reason = f"sa_audit: {what}" + (f", revision {revision}" if revision else "")
        text = json.dumps(data, ensure_ascii=False)
        yield from map(ExecuteText, self.script.noted(self.trail, CHANGED, reason, text))

    def reverse(self) -> NoteMigration:
        """Give the event of the way back."""
        return NoteMigration(self.script, self.trail, self.changes, downwards=not self.downwards)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Name the changes."""
        return ("sa_audit", "changed", *self.changes)


def changes_of(operations: Iterable[ops.MigrateOperation]) -> list[str]:
    """Give what operations of the library do to a trail, a line each."""
    found = []
    for operation in operations:
        if isinstance(operation, TrailOperation):
            _library, kind, *rest = operation.to_diff_tuple()
            if kind not in _SILENT:
                names = rest[:1] if kind == "replace" else rest
                found.append(" ".join([str(kind), *(name for name in names if isinstance(name, str))]))
    return found
