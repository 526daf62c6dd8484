"""Keyed digests of values: HMAC-SHA-256 of the text that the database makes of a value, beside the key's id.

The form is ``hmac-sha256:KEY:DIGEST``, where KEY are the first 8 hexadecimal digits of the SHA-256 of a label and the
key; it tells which key was used, and nothing of it.  Imports model and errors only.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from typing import Any, Final

import sqlalchemy as sa

from ..errors import NotAudited
from ..model import Digest, Digested, audited_of
from .keys import keys_of

_LABEL: Final = b"sa_audit digest v1\x00"
_ID_LABEL: Final = b"sa_audit digest key id v1\x00"


def digest_id(secret: bytes) -> str:
    """Give the id of a digest's key: 8 hexadecimal digits."""
    return hashlib.sha256(_ID_LABEL + secret).hexdigest()[:8]


def keyed_digest(secret: bytes, text: str) -> Digested:
    """Give the digest of a value's text.

    Args:
        secret: the key, 32 bytes.
        text: what the database makes of the value.
    """
    begin, keyed = _begun(secret)
    made = keyed.copy()
    made.update(text.encode("utf-8", "surrogatepass"))
    return Digested(f"{begin}{made.hexdigest()}")


@functools.lru_cache(maxsize=64)
def _begun(secret: bytes) -> tuple[str, hmac.HMAC]:
    """Give what the digests under a key begin with, and their HMAC, to be copied."""
    return f"hmac-sha256:{digest_id(secret)}:", hmac.new(secret, _LABEL, hashlib.sha256)


def digest(column: Any, value: str | int) -> list[Digested]:
    """Give the digests that stand in the history for a value of a column, one for each key, the newest key's first.

    Two rows, also of different columns, held the same value if one of the digests is the same.

    Args:
        column: a column with the policy ``Digest()``, or the attribute that is mapped to it.
        value: text or a whole number, as the column's type stores it; the texts of other types are the database's.

    Raises:
        NotAudited: if the column has another policy, or the value another type.
        UnusableKey: if there is no key.

    Example::

        select(history_class(Card)).where(history_class(Card).number.in_(digest(Card.number, "4111 1111 1111 1111")))
    """
    source = sa.inspect(column).expression if hasattr(column, "__clause_element__") else column
    audited = audited_of(getattr(source, "table", None))
    found = next((one for one in audited.formed if one.name == source.name), None) if audited is not None else None
    if audited is None or found is None or not isinstance(found.policy, Digest):
        raise NotAudited(f"{column} has no digest in the history: give a column with the policy Digest()")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise NotAudited(
            f"a {type(value).__name__} has no text that is the same for all databases: give text or a whole number"
        )
    return [keyed_digest(secret, str(value)) for secret in keys_of(audited).digest_keys]
