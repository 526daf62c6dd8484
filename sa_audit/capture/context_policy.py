"""What is recorded of a context: its keys in the forms that ``configure(context=...)`` asks for.

Who makes a change is known to the process in the clear; what goes to the database is made here, before it is sent.
Imports model, privacy, errors, and of capture the context and the keys of persons.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy.engine import Connection

from ..ddl.backend import Entry, Target
from ..errors import UnauditedWrite, UnusableKey
from ..model import Digest, Encrypt, Exclude, Mask, Masked, Policy, Trail
from ..model.records import MAX_SUBJECT
from ..privacy import keyed_digest
from ..privacy.encryption import context_place, encrypted
from .context import Context, current_context
from .context_value import KNOWN, canonical
from .person_keys import Entries, PersonKeys

Opened = Callable[[Context], Entry]
"""Gives the transaction's entry for a context."""


def claims_of(context: Context) -> dict[str, Any]:
    """Give a context as the columns of an entry, in the clear."""
    return {
        **{name: getattr(context, name) for name in KNOWN},
        "context": None if context.json is None else json.loads(context.json),
    }


def claims_on(
    connection: Connection, target: Target, context: Context, opened: Opened, alone: Callable[[Connection], Entry]
) -> dict[str, Any]:
    """Give what is recorded of a context, as the columns of an entry.

    Args:
        connection: where it is recorded.
        target: a table of the trail whose policies hold.
        context: who and why.
        opened: gives the entry for the context without what is encrypted, under which a new person's key is recorded.
        alone: gives such an entry on a connection of the trail's own.

    Raises:
        UnauditedWrite: if nobody is named whose value an encrypted one is.
        UnusableKey: if there is no key for a value.
    """
    claims, trail = claims_of(context), target.trail
    policies = trail.configuration.context
    if not policies:
        return claims
    extra = claims["context"] or {}
    persons = context_persons(trail, context)
    keys = {}
    if persons:
        made = PersonKeys(connection, trail, target.schemas)
        stripped = without_encrypted(trail, context)
        keys = made.of(list(dict.fromkeys(persons.values())), Entries(lambda: opened(stripped), alone))
    for name, policy in policies.items():
        place = claims if name in KNOWN else extra
        if place.get(name) is None:
            continue
        if isinstance(policy, Exclude):
            _drop(claims, extra, name)
        elif isinstance(policy, Encrypt):
            place[name] = encrypted(keys[persons[name]], context_place(name), _json(name, place[name]))
        else:
            place[name] = _form(trail, policy, name, place[name])
    claims["context"] = extra or None
    return claims


def claims_alone(own: Connection, target: Target) -> dict[str, Any]:
    """Give what is recorded of the present context on a connection of the trail's own: nothing that is encrypted."""
    context = without_encrypted(target.trail, current_context())

    def opened(_stripped: Context) -> Entry:
        raise AssertionError("nothing is encrypted in it")

    return claims_on(own, target, context, opened, lambda _own: opened(context))


def context_persons(trail: Trail, context: Context) -> dict[str, str]:
    """Give whose values the encrypted ones of a context are, by the keys that hold any.

    Raises:
        UnauditedWrite: if nobody is named.
    """
    persons = {}
    for name, policy in trail.configuration.context.items():
        if isinstance(policy, Encrypt) and _value(context, name) is not None:
            person = _value(context, str(policy.subject))
            if isinstance(person, bool) or not isinstance(person, str | int) or not 0 < len(str(person)) <= MAX_SUBJECT:
                raise UnauditedWrite(
                    f"context key {name!r} can't be recorded, since {policy.subject!r}, which says whose it is, is no "
                    f"string of 1 to {MAX_SUBJECT} characters and no whole number: give it in the context as well"
                )
            persons[name] = str(person)
    return persons


def without_encrypted(trail: Trail, context: Context) -> Context:
    """Give a context without the keys that are recorded encrypted."""
    names = {name for name, policy in trail.configuration.context.items() if isinstance(policy, Encrypt)}
    known: dict[str, Any] = dict.fromkeys(names & set(KNOWN))
    return dataclasses.replace(
        context, **known, extra={key: value for key, value in context.extra.items() if key not in names}
    )


def trail_for(trails: Iterable[Trail]) -> Trail | None:
    """Give the one of several trails in a database whose policies hold for what they are told together: who writes."""
    given = list(trails)
    return next((trail for trail in given if trail.configuration.context), given[0] if given else None)


def _value(context: Context, name: str) -> Any:
    return getattr(context, name) if name in KNOWN else context.extra.get(name)


def _drop(claims: dict[str, Any], extra: dict[str, Any], name: str) -> None:
    if name in KNOWN:
        claims[name] = None
    else:
        del extra[name]


def _form(trail: Trail, policy: Policy, name: str, value: Any) -> str:
    if isinstance(policy, Mask):
        return MASKED
    if not isinstance(policy, Digest):
        raise TypeError(f"{policy!r} is no policy of a context key")
    keys = trail.configuration.keys
    if keys is None:
        raise UnusableKey(
            f"context key {name!r} has the policy {policy!r}, and there is no key for it: "
            "sa_audit.configure(base, keys=...) names where keys come from, such as sa_audit.privacy.FileKeys(path)"
        )
    return keyed_digest(keys.digest_keys[0], value if isinstance(value, str) else _json(name, value))


def _json(name: str, value: Any) -> str:
    """Give a value as JSON text, the same for the same value."""
    return canonical({name: value})[len(json.dumps(name, ensure_ascii=False)) + 2 : -1]


MASKED: Final = Masked.value
"""What stands in the place of a masked value."""

__all__ = ["MASKED", "claims_alone", "claims_of", "claims_on", "context_persons", "trail_for", "without_encrypted"]
