"""The catalog: those that the log states, one after the other, and the one that stands there now.

Imports the room's own parts, proof and catalog.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog import CatalogDatabase
from ..catalog.fingerprint import Expected, expected_objects, read_facts
from ..model.history import Trail
from ..proof.fingerprint import stated
from .log import Log
from .report import CatalogChange, Findings
from .soundness import (
    Difference,
    Facts,
    Problem,
    differences,
    is_of_capture,
    is_replaced,
    is_touched,
    label,
    place_of,
    problems,
    shown,
)
from .stated import StatedCatalog

_QUIET = ("mark", "identity")
"""What is no change for people: it only shows that something was made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A catalog at one time: in the log from a block on, or now, where ``block`` is None."""

    facts: Facts
    block: int | None
    sealed_at: dt.datetime | None
    incarnation: int
    accounted: bool
    new: bool

    def __str__(self) -> str:
        return "now" if self.sealed_at is None else f"block {self.block}, {self.sealed_at:%Y-%m-%d %H:%M:%S} UTC"


def check_catalog(
    connection: Connection, database: CatalogDatabase, trail: Trail, log: Log, findings: Findings, *, since: int
) -> tuple[CatalogChange, ...]:
    """Judge the catalogs of the log and the live one, and compare each with the one before.

    Args:
        connection: in a transaction with pinned settings.
        database: how to read it.
        trail: the trail.
        log: what the first pass gave.
        findings: where findings go.
        since: what was sealed in the leaves before is not judged again.

    Returns:
        What has changed, in order.
    """
    standing = [_sealed(each, since) for each in log.catalogs.all]
    known = [(each.schema, each.name) for each in log.last_schema.values()]
    now = Standing(
        facts=_stated(read_facts(connection, database, trail, known)),
        block=None,
        sealed_at=None,
        incarnation=standing[-1].incarnation if standing else 0,
        accounted=_accounts(connection, database, trail, log),
        new=True,
    )
    expected = expected_objects(connection, trail)
    whole = {(schema, table) for _what, schema, table, _name in expected.guards} | set(known)
    judge = _Judge([*standing, now], expected, findings, whole)
    judge.judge_states()
    return judge.judge_changes()


class _Judge:
    """Judges catalogs that follow each other."""

    def __init__(
        self,
        standing: Sequence[Standing],
        expected: Expected,
        findings: Findings,
        whole: Collection[tuple[str | None, str | None]],
    ) -> None:
        self._standing = standing
        self._expected = expected
        self._findings = findings
        self._whole = whole
        """The tables that are no partitions, by schema and name."""

    def judge_states(self) -> None:
        """Report each problem once, from when to when it was there."""
        begun: dict[Problem, Standing] = {}
        for each in self._standing:
            there = problems(each.facts, self._expected)
            for problem in sorted(begun.keys() - there):
                first = begun.pop(problem)
                if each.new:
                    self._problem(problem, first, f"from {first} up to {each}")
            for problem in there - begun.keys():
                begun[problem] = each
        for problem, first in sorted(begun.items(), key=lambda item: item[0]):
            self._problem(problem, first, "now" if first.block is None else f"from {first} on")

    def _problem(self, problem: Problem, first: Standing, when: str) -> None:
        self._findings.add(problem.kind, problem.place, first.block, problem.expected, f"{problem.got}, {when}")

    def judge_changes(self) -> tuple[CatalogChange, ...]:
        """Report what nothing accounts for; give all that has changed."""
        changes: list[CatalogChange] = []
        for number, (before, after) in enumerate(pairwise(self._standing), 1):
            if not after.new:
                continue
            for difference in differences(before.facts, after.facts):
                self._difference(difference, before, after, number)
                if difference.key[0] not in _QUIET:
                    changes.append(_change(difference, after))
        return tuple(changes)

    def _difference(self, difference: Difference, before: Standing, after: Standing, number: int) -> None:
        if before.incarnation != after.incarnation:
            return  # another database: restored, so that everything in it was made anew
        place, name = place_of(difference.key), label(difference.key)
        if is_replaced(difference):
            if after.accounted and (difference.key[1], difference.key[3]) not in self._whole:
                return  # a partition that a recorded move made anew
            was, got = f"the relation {shown(difference.before)}", f"{shown(difference.after)}, since {after}"
            self._findings.add("table-replaced", place, after.block, was, got)
        elif after.accounted:
            return
        elif is_touched(difference, before.facts, after.facts):
            made = f"{name.removeprefix('mark ')} untouched since {before}"
            self._findings.add("guard-touched", place, after.block, made, f"made anew by {after}")
        elif is_of_capture(difference, after.facts, self._expected) and self._stays_or_returns(difference, number):
            was = f"{name} as it was: {shown(difference.before)}"
            self._findings.add("capture-changed", place, after.block, was, f"{shown(difference.after)}, since {after}")

    def _stays_or_returns(self, difference: Difference, number: int) -> bool:
        """Tell whether a definition is there still, or gave way to the one before it.

        One that another one has followed was a step on the way, of which nothing tells any more what was right.
        """
        for later in self._standing[number + 1 :]:
            if (definition := later.facts.get(difference.key)) != difference.after:
                return definition == difference.before
        return True


def _change(difference: Difference, after: Standing) -> CatalogChange:
    return CatalogChange(
        block=after.block,
        sealed_at=after.sealed_at,
        object=label(difference.key),
        before=None if difference.before is None else shown(difference.before),
        after=None if difference.after is None else shown(difference.after),
    )


def _stated(facts: Facts) -> Facts:
    return {key: stated(definition) for key, definition in facts.items()}


def _sealed(catalog: StatedCatalog, since: int) -> Standing:
    return Standing(
        facts=catalog.facts,
        block=catalog.block,
        sealed_at=_EPOCH + dt.timedelta(microseconds=catalog.sealed_at),
        incarnation=catalog.incarnation,
        accounted=catalog.accounted,
        new=catalog.size > since,
    )


def _accounts(connection: Connection, database: CatalogDatabase, trail: Trail, log: Log) -> bool:
    """Tell whether changes of columns were recorded that are not sealed yet."""
    sealed = sum(
        sum(log.sealed[number].counts().values())
        for number, descriptor in log.last_schema.items()
        if descriptor.role == "trail" and number in log.sealed
    )
    there = connection.scalar(sa.select(sa.func.count()).select_from(trail.column))
    return int(there or 0) > sealed


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
