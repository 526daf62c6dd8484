"""Column policies: what the history holds of one column.

A policy stands in the column's ``info``: ``mapped_column(info={"sa_audit": Mask()})``.  Markers stand in for
values that the history does not hold.  Imports only errors.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigurationError
from .names import is_name

POLICY_KEY: Final = "sa_audit"


class Marker(enum.Enum):
    """A value that the history does not hold, or no longer can show."""

    MASKED = "Masked"
    EXCLUDED = "Excluded"
    ERASED = "Erased"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


Masked: Final = Marker.MASKED
Excluded: Final = Marker.EXCLUDED
Erased: Final = Marker.ERASED


@dataclass(frozen=True, slots=True)
class Policy:
    """The root of the column policies; not used by itself."""


@dataclass(frozen=True, slots=True)
class Exclude(Policy):
    """Keep the column out of the history; a change of it alone records nothing."""


@dataclass(frozen=True, slots=True)
class Mask(Policy):
    """Record that the column changed, never a value of it."""


@dataclass(frozen=True, slots=True)
class Digest(Policy):
    """Record a keyed digest (HMAC-SHA-256) of the value: equality can be shown, the value can't.

    The key comes from the :class:`~sa_audit.KeyProvider` that ``configure(keys=...)`` names; the database never has
    it, so that of a table which triggers record the column itself holds the digest.  NULL stays NULL.
    """


class Digested(str):
    """What the history holds of a value under :class:`Digest`: ``hmac-sha256:KEY:DIGEST``, in hexadecimal digits."""

    __slots__ = ()


class Encrypted(str):
    """What the history holds of a value under :class:`Encrypt`: ``aes-256-gcm:KEY:TAG:CIPHERTEXT``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Encrypt(Policy):
    """Record the value encrypted (AES-256-GCM) under the key of the person that it is about.

    Destroying the key, by :func:`sa_audit.erase`, makes every recorded value of the person unreadable, while the
    record and its proofs stay.  The column holds text, whole numbers or dates; in a table that triggers record it holds
    the ciphertext itself, and the application goes on with the values.  NULL stays NULL.

    Args:
        subject: the column of the same table that says whose value it is, by its name in the database; None: that of
            ``AuditOptions(subject=...)``.

    Raises:
        ConfigurationError: for a subject that is no name.
    """

    subject: str | None = None

    def __post_init__(self) -> None:
        if self.subject is not None and not is_name(self.subject):
            raise ConfigurationError(f"Encrypt(subject={self.subject!r}): give the name of a column")


def policy_of(info: dict[Any, Any], where: str) -> Policy | None:
    """Give the policy that a column's ``info`` names, or None.

    Args:
        info: the column's ``info``.
        where: the column's name, for the message.

    Raises:
        ConfigurationError: if what stands there is no policy.
    """
    policy = info.get(POLICY_KEY)
    if policy is None or isinstance(policy, Policy):
        return policy
    raise ConfigurationError(
        f"info[{POLICY_KEY!r}] of column {where} is {policy!r}: give an instance of a policy, such as sa_audit.Mask()"
    )
