"""What a verification found, and up to where the record is proven.

Imports nothing but standard library, since the classes are exported at the top level.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..proof.checkpoint import Checkpoint

LISTED: Final = 100
"""How many findings of one kind and table are listed; those behind them are counted in one more."""
KINDS: Final[dict[str, str]] = {
    "row-changed": "a row is not the one that was sealed",
    "row-missing": "a sealed row is gone",
    "row-duplicated": "two rows have one id",
    "row-backdated": "a row was put there after everything of its time had been sealed",
    "row-hidden": "a row says that a transaction wrote it which can't have been there yet",
    "row-unreadable": "a row holds what can't be read",
    "row-orphaned": "a row belongs to a transaction, or an entry to a first one, that is not recorded",
    "row-misdated": "a row's moment or transaction id is not that of its transaction, or of its first entry",
    "value-unsealed": "a value stands in a column that the row had not when it was sealed",
    "table-missing": "a sealed table is gone",
    "table-unreadable": "a table can't be read as it was sealed",
    "column-missing": "a sealed column is gone",
    "column-retyped": "a sealed column has another type",
    "table-replaced": "something else stands in the place of a table: a copy, a view, a table without a journal",
    "table-shadowed": "another table of that name stands where a search path may find it first",
    "table-inherited": "a table of the trail is the parent or the child of another one",
    "row-security": "row security may hide rows of the trail, or keep them out",
    "foreign-rule": "a rule may have rows of the trail go elsewhere",
    "foreign-trigger": "a trigger on the trail that is not the library's may drop or change rows",
    "guard-missing": "a guard of the trail is not there",
    "guard-changed": "a guard of the trail is not the library's, or switched off",
    "guard-touched": "a guard was made anew, and is what it was: something else may have been there in between",
    "capture-changed": "what records a table was changed, and no recorded migration accounts for it",
    "continuity": "what a change says was there before is not what was recorded before",
    "log-missing": "there is no signed log, or a table of it is gone",
    "log-cut": "the log is shorter than a signed checkpoint says",
    "log-rewritten": "the log is not the one that an anchor, or a checkpoint that is held, has seen",
    "block-missing": "a block of the log is gone",
    "block-malformed": "a block of the log can't be read",
    "block-changed": "a block of the log is not what its header, or its place, says",
    "leaf-malformed": "a leaf can't be read",
    "leaf-duplicated": "a row has two leaves",
    "schema-unknown": "a leaf names a schema that stands nowhere before it",
    "prune-changed": "a prune in the log is not that of the leaves, or audit_prune does not say what the log says",
    "prune-forged": "audit_prune lets rows go of which no leaf of the log says so",
    "tile-changed": "kept hashes are not those of the leaves",
    "index-changed": "audit_sealed does not say which rows a block holds",
    "fingerprint-changed": "a block's fingerprint is not that of the catalog that the log states",
    "key-event": "the keys of the log come and go in a way that can't be",
    "checkpoint-malformed": "a checkpoint can't be read",
    "checkpoint-unsigned": "a checkpoint has no signature that counts",
    "checkpoint-changed": "a signed checkpoint is not that of the leaves",
    "checkpoint-missing": "a checkpoint is gone",
    "checkpoint-misplaced": "a checkpoint stands there twice, or behind a greater one",
    "anchor-malformed": "an anchor's record can't be read",
    "anchor-unsigned": "an anchored checkpoint has no signature that counts",
    "token-unknown": "a block names, or the database keeps, an anchor's token that no anchor has given",
}
"""The kinds of findings, and what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not fit.

    Args:
        kind: one of :data:`KINDS`.
        table: where, or None.
        row: the id of the row (of a block its number, of a checkpoint its size), or None.
        expected: what had to be there, for people.
        got: what is there.
    """

    kind: str
    table: str | None
    row: int | None
    expected: str
    got: str

    def __str__(self) -> str:
        place = " ".join(str(part) for part in (self.table, self.row) if part is not None)
        return f"{self.kind}{f' {place}' if place else ''}: expected {self.expected}, got {self.got}"

    def as_json(self) -> dict[str, Any]:
        """Give the finding as members of a JSON object."""
        return {
            "kind": self.kind,
            "table": self.table,
            "row": self.row,
            "expected": self.expected,
            "got": self.got,
        }


class Findings:
    """Findings as they come; of a flood of one sort the first are kept, and the others counted."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._counts: Counter[tuple[str, str | None]] = Counter()

    def add(self, kind: str, table: str | None, row: int | None, expected: str, got: str) -> None:
        """Take one finding."""
        self.take([Finding(kind=kind, table=table, row=row, expected=expected, got=got)])

    def take(self, findings: Iterable[Finding]) -> None:
        """Take findings."""
        for finding in findings:
            place = (finding.kind, finding.table)
            self._counts[place] += 1
            if self._counts[place] <= LISTED:
                self._kept.append(finding)

    def count_more(self, kind: str, table: str | None, number: int) -> None:
        """Count findings that nobody has listed."""
        self._counts[kind, table] += number

    def counts(self) -> Counter[tuple[str, str | None]]:
        """Give how many there are of each kind and table."""
        return Counter(self._counts)

    def kept(self) -> tuple[Finding, ...]:
        """Give those that are listed."""
        return tuple(self._kept)

    def merge(self, kept: Iterable[Finding], counts: Counter[tuple[str, str | None]]) -> None:
        """Take what another collection found."""
        listed = list(kept)
        self.take(listed)
        self._counts.update(counts)
        self._counts.subtract(Counter((finding.kind, finding.table) for finding in listed))

    def all(self) -> tuple[Finding, ...]:
        """Give the findings, and one more for each flood."""
        more = [
            Finding(
                kind=kind,
                table=table,
                row=None,
                expected=f"{LISTED} findings of this kind at most are listed",
                got=f"{count - LISTED} more",
            )
            for (kind, table), count in self._counts.items()
            if count > LISTED
        ]
        return (*self._kept, *more)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChange:
    """One object of the catalog that is another one than before; no finding by itself.

    Args:
        block: the number of the block that says so first, or None if it is not sealed yet.
        sealed_at: when that was sealed (UTC), or None.
        object: what it is, and its name.
        before: its definition, shortened, or None if there was none.
        after: the new one, or None if it is gone.
    """

    block: int | None
    sealed_at: dt.datetime | None
    object: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        when = "now" if self.sealed_at is None else f"block {self.block}, {self.sealed_at:%Y-%m-%d %H:%M:%S} UTC"
        return f"{when}: {self.object}: {self.before or 'nothing'} → {self.after or 'nothing'}"

    def as_json(self) -> dict[str, Any]:
        """Give the change as members of a JSON object."""
        return {
            "block": self.block,
            "sealed_at": _iso(self.sealed_at),
            "object": self.object,
            "before": self.before,
            "after": self.after,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was checked, and what was found.

    Args:
        findings: empty if all is as it was sealed.
        checked: how many rows were read and recomputed.
        checkpoint: the last one that is signed and is that of the leaves, or None.
        sealed_until: up to when (UTC) everything is sealed under it.
        anchored_until: up to when everything is sealed under a checkpoint that an anchor keeps; None without anchors.
        unsealed: how many rows are not sealed yet: permissions alone protect them.
        since: the size up to which rows were not read again, or 0.
        since_sealed_until: up to when (UTC) those are sealed, which were last read by whoever verified the checkpoint
            that was given.
        changes: how the catalog has changed, with every sealing and since the last one: guards, columns, owners.
    """

    findings: tuple[Finding, ...]
    checked: int
    checkpoint: Checkpoint | None
    sealed_until: dt.datetime | None
    anchored_until: dt.datetime | None
    unsealed: int
    since: int = 0
    since_sealed_until: dt.datetime | None = None
    changes: tuple[CatalogChange, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Give the report as a JSON object; moments in ISO 8601."""
        return {
            "ok": self.ok,
            "findings": [finding.as_json() for finding in self.findings],
            "checked": self.checked,
            "checkpoint": None if self.checkpoint is None else self.checkpoint.format(),
            "sealed_until": _iso(self.sealed_until),
            "anchored_until": _iso(self.anchored_until),
            "unsealed": self.unsealed,
            "since": self.since,
            "since_sealed_until": _iso(self.since_sealed_until),
            "changes": [change.as_json() for change in self.changes],
        }


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
