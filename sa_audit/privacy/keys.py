"""Where the keys come from: a provider, which wraps the keys of persons and has those of digests.

A key-encryption key never leaves its provider.  The local ones read it from a file or an environment variable: lines
``NAME:BASE64`` of 32 random bytes each, the newest first, such as ``head -c32 /dev/urandom | base64`` makes.
Imports model, errors and cryptography only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from ..errors import UnusableKey
from ..model import AuditedTable

KEY_SIZE: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NONCE_SIZE: Final = 12


class KeyProvider(Protocol):
    """What has the keys: a file, an environment variable, or a key management service."""

    @property
    def current(self) -> str:
        """The name of the key-encryption key that wraps new keys, at most 255 characters."""

    @property
    def digest_keys(self) -> Sequence[bytes]:
        """The secrets of keyed digests, 32 bytes each, the one for new digests first."""

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt a key under the current key-encryption key, bound to a context.

        Raises:
            UnusableKey: if it can't be done.
        """

    def unwrap(self, wrapped: bytes, key: str, context: Mapping[str, str]) -> bytes:
        """Decrypt what :meth:`wrap` gave.

        Args:
            wrapped: the encrypted key.
            key: the name of the key-encryption key.
            context: as it was wrapped with.

        Raises:
            UnusableKey: if there is no key of that name, or the text is not what it wrapped in that context.
        """


class KeyRing:
    """Key-encryption keys in memory.

    Args:
        keys: 32 bytes for each name, the newest first.
        where: where they are from, for messages.

    Raises:
        UnusableKey: if there is none, or one has another name or size.
    """

    def __init__(self, keys: Mapping[str, bytes], where: str = "the key ring") -> None:
        if not keys:
            raise UnusableKey(f"{where} holds no key: give at least one line NAME:BASE64 of 32 random bytes")
        for name, secret in keys.items():
            if not _NAME.fullmatch(name):
                raise UnusableKey(f"{where} names a key {name!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
            if len(secret) != KEY_SIZE:
                raise UnusableKey(f"key {name!r} of {where} has {len(secret)} bytes: it takes {KEY_SIZE} random ones")
        self._keys = dict(keys)
        self._ciphers: dict[str, Any] = {}
        self._where = where
        self._digest_keys = [_derived(secret, b"sa_audit digest key v1") for secret in keys.values()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self._keys)} from {self._where}>"

    @property
    def current(self) -> str:
        """The name of the newest key."""
        return next(iter(self._keys))

    @property
    def digest_keys(self) -> Sequence[bytes]:
        """A secret derived from each key."""
        return self._digest_keys

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt a key by AES-256-GCM; see :meth:`KeyProvider.wrap`."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + bytes(self._cipher(self.current).encrypt(nonce, secret, _bound(context)))

    def unwrap(self, wrapped: bytes, key: str, context: Mapping[str, str]) -> bytes:
        """Decrypt it again; see :meth:`KeyProvider.unwrap`."""
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._cipher(key).decrypt(wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:], _bound(context)))
        except (InvalidTag, ValueError):
            raise UnusableKey(
                f"a key that {key!r} of {self._where} shall have wrapped, for {dict(context)!r}, can't be unwrapped: "
                "it was changed or moved, or the key-encryption key is another one of that name"
            ) from None

    def _cipher(self, name: str) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if name not in self._keys:
            raise UnusableKey(f"{self._where} has no key {name!r}, only {', '.join(self._keys)}: give it, too")
        if name not in self._ciphers:
            self._ciphers[name] = AESGCM(_derived(self._keys[name], b"sa_audit wrapping key v1"))
        return self._ciphers[name]


class FileKeys(KeyRing):
    """Key-encryption keys from a file.

    Args:
        path: a file that only its owner may read.

    Raises:
        UnusableKey: if it can't be read, others may read it, or it is not in the format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        where = f"the key file {os.fspath(path)}"
        try:
            mode = Path(path).stat().st_mode
            text = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableKey(f"{where} can't be read ({error}): give another one") from None
        if os.name == "posix" and mode & 0o077:
            raise UnusableKey(f"{where} can be read by others (mode {mode & 0o777:o}): chmod 600 it")
        super().__init__(_parse(text, where), where)


class EnvironmentKeys(KeyRing):
    """Key-encryption keys from an environment variable, one a line or separated by commas.

    Args:
        name: the variable's name.

    Raises:
        UnusableKey: if it is not set, or not in the format.
    """

    def __init__(self, name: str = "SA_AUDIT_KEYS") -> None:
        where = f"the environment variable {name}"
        text = os.environ.get(name)
        if not text:
            raise UnusableKey(f"{where} is not set: set it to NAME:BASE64 of 32 random bytes")
        super().__init__(_parse(text.replace(",", "\n"), where), where)


def keys_of(audited: AuditedTable) -> KeyProvider:
    """Give the provider that the models of a table are configured with.

    Raises:
        UnusableKey: if there is none.
    """
    keys: KeyProvider | None = audited.trail.configuration.keys
    if keys is None:
        column = audited.formed[0]
        raise UnusableKey(
            f"column {column.source} has the policy {column.policy!r}, and there is no key for it: "
            "sa_audit.configure(base, keys=...) names where keys come from, such as sa_audit.privacy.FileKeys(path)"
        )
    return keys


def _parse(text: str, where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.strip().partition(":")
        try:
            secret = base64.b64decode(value, validate=True)
        except binascii.Error:
            colon, secret = "", b""
        if not colon or name in keys:  # never the line itself, which may be a key
            raise UnusableKey(f"line {number} of {where} is not NAME:BASE64 with a name of its own")
        keys[name] = secret
    return keys


def _derived(secret: bytes, label: bytes) -> bytes:
    """Derive a key for one use (HKDF-Expand of RFC 5869, one block; the secret is random already)."""
    return hmac.new(secret, label + b"\x01", hashlib.sha256).digest()


def _bound(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()
