"""What is wrong with a catalog, and what has changed from one to the next.

Pure: facts go in, and come out judged.  Guards are the same whatever columns there are, so that those of any time can
be compared with the library's own; what records a table follows its columns, and only its changes are judged.
Imports proof and catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ..catalog.fingerprint import Expected
from ..catalog.live import UNSEEN
from ..proof.fingerprint import FactKey, stated
from ..proof.types import Digest

Facts = Mapping[FactKey, str | Digest]

TABLES: Final = ("table", "partitioned table")
ODD: Final = {
    "rule": ("foreign-rule", "no rule"),
    "policy": ("row-security", "no row security"),
    "inheritance": ("table-inherited", "no child"),
    "parent": ("table-inherited", "no parent"),
    "unguarded-partition": ("guard-missing", "a guarded partition"),
    "uncaptured-partition": ("guard-missing", "a partition that is recorded"),
    "shadowing-table": ("table-shadowed", "no other table of that name"),
}
"""By what should not be there, the kind of the finding, and what is expected."""
_ACTIVE: Final = ("trigger", "function", "procedure")
_HIDDEN: Final = ("trigger", "procedure", "mark")
_SHOWN: Final = 160


class Problem(NamedTuple):
    """One thing that is not as it should be, for as long as it is not."""

    kind: str
    place: str
    expected: str
    got: str


class Difference(NamedTuple):
    """One object that is another one than in the catalog before."""

    key: FactKey
    before: str | Digest | None
    after: str | Digest | None


def label(key: FactKey) -> str:
    """Give an object's name for people."""
    what, schema, table, name = key
    return f"{what} {'.'.join(part for part in (schema, table, name) if part)}"


def place_of(key: FactKey) -> str:
    """Give the table that an object belongs to, or else its own name."""
    return key[2] or key[3]


def shown(definition: str | Digest | None) -> str:
    """Give a definition as far as it fits a line."""
    if definition is None:
        return "nothing"
    if isinstance(definition, bytes):
        return f"sha256:{definition.hex()}"
    line = " ".join(definition.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


# -- one catalog ---------------------------------------------------------------------------


def problems(facts: Facts, expected: Expected) -> set[Problem]:
    """Find what is wrong with a catalog.

    Args:
        facts: of the catalog.
        expected: what a sound one has.
    """
    return {*_odd(facts), *_foreign(facts, expected), *_guards(facts, expected)}


def _odd(facts: Facts) -> Iterator[Problem]:
    for key, definition in facts.items():
        what, place = key[0], place_of(key)
        if what == "table" and definition not in TABLES:
            yield Problem("table-replaced", place, "a table", shown(definition))
        elif what == "engine" and definition != "InnoDB":
            yield Problem("table-replaced", place, "a table of InnoDB", shown(definition))
        elif what in ODD and not (what == "shadowing-table" and definition != "table"):
            kind, nothing = ODD[what]
            yield Problem(kind, place, nothing, label(key))


def _foreign(facts: Facts, expected: Expected) -> Iterator[Problem]:
    """Find triggers on the trail that are not the library's: one that gives no row back silences a history."""
    modelled = {(key[1], key[2]) for key in expected.guards}
    for key, definition in facts.items():
        what, schema, table, name = key
        if what != "trigger" or table is None or ("table", schema, None, table) not in facts:
            continue
        known = key in expected.guards or name in ("sa_audit_closed", f"{table}_guard_closed")
        if not known and ((schema, table) in modelled or not name.startswith(("sa_audit_", f"{table}_guard_"))):
            yield Problem("foreign-trigger", table, "the library's triggers", f"{name}: {shown(definition)}")


def _guards(facts: Facts, expected: Expected) -> Iterator[Problem]:
    for key, accepted in expected.guards.items():
        what, schema, table, _name = key
        if what in _HIDDEN and UNSEEN in facts:
            continue
        if table is not None and facts.get(("table", schema, None, table)) not in TABLES:
            continue  # it is not there, or what stands there instead is said already
        got = facts.get(key)
        if got is None:
            yield Problem("guard-missing", place_of(key), label(key), "nothing")
        elif got not in {stated(definition) for definition in accepted}:
            yield Problem("guard-changed", place_of(key), f"{label(key)} as the library made it", shown(got))


# -- two catalogs --------------------------------------------------------------------------


def differences(before: Facts, after: Facts) -> list[Difference]:
    """Give what differs, by name; what one of them could not see is left out."""
    hidden = _HIDDEN if UNSEEN in before or UNSEEN in after else ()
    found = [
        Difference(key, before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and key[0] not in hidden
    ]
    return sorted(found, key=lambda each: tuple(part or "" for part in each.key))


def is_replaced(difference: Difference) -> bool:
    """Tell whether another relation stands under the name of one."""
    return difference.key[0] == "identity" and None not in (difference.before, difference.after)


def is_touched(difference: Difference, before: Facts, after: Facts) -> bool:
    """Tell whether a guard, or what records, was made anew and is what it was: it was something else in between.

    A change of owner or rights makes it anew as well, and is told as what it is.
    """
    what, schema, table, name = difference.key
    if what != "mark" or None in (difference.before, difference.after):
        return False
    same = [(each, schema, table, name) for each in _ACTIVE]
    same += [("identity", schema, None, str(table)), ("owner", schema, table, name)]
    same += [(each, schema, None, f"{name}()") for each in ("owner", "rights") if table is None]
    return all(before.get(key) == after.get(key) for key in same)


def is_of_capture(difference: Difference, after: Facts, expected: Expected) -> bool:
    """Tell whether it is what records a table that was altered or taken away, and is not what the models ask for."""
    key = difference.key
    what, schema, table, _name = key
    if what not in _ACTIVE or key in expected.guards or difference.before is None:
        return False
    if table is not None and ("table", schema, None, table) in after:
        return False
    wanted = expected.capture.get(key)
    return difference.after != (None if wanted is None else stated(wanted))
