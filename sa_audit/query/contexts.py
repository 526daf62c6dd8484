"""Who and why, as it is read: context keys decrypted, and markers where the trail does not hold the value.

Imports model, privacy, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from ..capture.context_policy import MASKED
from ..capture.context_value import KNOWN
from ..capture.person_keys import PersonKeys
from ..model import Digest, Digested, Encrypt, Erased, Mask, Masked, Trail
from ..privacy.encryption import PREFIX, context_place, decrypted, key_name

if TYPE_CHECKING:
    from ..model import Policy
    from ..privacy.encryption import PersonKey


class Contexts:
    """Reads what was recorded of contexts on one connection; keys are asked for once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys: dict[str, PersonKey | None] = {}

    def shown(self, trail: Trail, fields: dict[str, Any]) -> dict[str, Any]:
        """Give the fields of an entry with their values, or markers.

        Raises:
            IntegrityFinding: if an encrypted value does not open, or its key is gone and was not destroyed.
            UnusableKey: if its key can't be unwrapped.
        """
        policies = trail.configuration.context
        if not policies:
            return fields
        extra = dict(fields["context"] or {})
        for name, policy in policies.items():
            place = fields if name in KNOWN else extra
            if isinstance(place.get(name), str):
                place[name] = self._value(trail, policy, name, place[name])
        return {**fields, "context": extra or fields["context"]}

    def _value(self, trail: Trail, policy: Policy, name: str, text: str) -> Any:
        """Give a value; what was recorded before the policy was declared is as it was recorded."""
        if isinstance(policy, Mask) and text == MASKED:
            return Masked
        if isinstance(policy, Digest):
            return Digested(text)
        if not isinstance(policy, Encrypt) or not text.startswith(PREFIX):
            return text
        key = self._key(trail, key_name(text))
        return Erased if key is None else json.loads(decrypted(key, [context_place(name)], text))

    def _key(self, trail: Trail, name: str) -> PersonKey | None:
        if name not in self._keys:
            self._keys |= PersonKeys(self._connection, trail).named([name])
        return self._keys[name]
