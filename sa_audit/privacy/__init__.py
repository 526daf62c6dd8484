"""Values that the history holds in another form: digests, and the keys for them.

>>> import secrets
>>> from sa_audit.privacy import KeyRing
>>> len(KeyRing({"2026": secrets.token_bytes(32)}).digest_keys)
1
"""

from .digest import digest, digest_id, keyed_digest
from .keys import EnvironmentKeys, FileKeys, KeyProvider, KeyRing, keys_of

__all__ = [
    "EnvironmentKeys",
    "FileKeys",
    "KeyProvider",
    "KeyRing",
    "digest",
    "digest_id",
    "keyed_digest",
    "keys_of",
]
