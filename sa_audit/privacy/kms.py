"""Keys from AWS KMS: the key-encryption key never leaves it.  Needs the extra ``kms`` (boto3).

Imports the room's own parts and errors only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..errors import UnusableKey

_DIGEST_LABEL: Final = b"sa_audit digest key v1"


class AWSKeys:
    """A provider whose keys are in AWS KMS.

    Each key of a person is one call to wrap and, when it is not in memory, one to unwrap; what wrapped keys are bound
    to goes along as the encryption context, which AWS logs, and says nothing of the person.

    Args:
        key_id: the symmetric key that wraps: its id, ARN or alias.
        mac_keys: the HMAC keys (``HMAC_256``) of digests, the one for new digests first; needed for ``Digest`` columns.
        client: a client of boto3 for KMS; None: one of the environment's default session.
        cache_seconds: for how long an unwrapped key stays in memory.

    Raises:
        UnusableKey: if the key is not there, or KMS can't be asked.
    """

    def __init__(
        self, key_id: str, *, mac_keys: Sequence[str] = (), client: Any = None, cache_seconds: float = 300.0
    ) -> None:
        if client is None:
            import boto3

            client = boto3.client("kms")
        self._client = client
        self._mac_keys = tuple(mac_keys)
        self._digest_keys: list[bytes] | None = None
        self.cache_seconds = cache_seconds
        self._current: str = self._call("describe_key", KeyId=key_id)["KeyMetadata"]["Arn"]

    def __repr__(self) -> str:
        return f"<AWSKeys {self._current}>"

    @property
    def current(self) -> str:
        """The ARN of the key, also where an alias was given, so that it is known again when the alias moves on."""
        return self._current

    @property
    def digest_keys(self) -> Sequence[bytes]:
        """A secret that KMS makes of each HMAC key; asked for once."""
        if not self._mac_keys:
            raise UnusableKey("AWSKeys has no HMAC key, and Digest() columns need one: AWSKeys(..., mac_keys=[KEY])")
        if self._digest_keys is None:
            self._digest_keys = [self._digest_key(key) for key in self._mac_keys]
        return self._digest_keys

    def _digest_key(self, key: str) -> bytes:
        answer = self._call("generate_mac", KeyId=key, Message=_DIGEST_LABEL, MacAlgorithm="HMAC_SHA_256")
        return bytes(answer["Mac"])

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        """Have KMS encrypt a key; see :meth:`KeyProvider.wrap`."""
        answer = self._call("encrypt", KeyId=self._current, Plaintext=secret, EncryptionContext=dict(context))
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, key: str, context: Mapping[str, str]) -> bytes:
        """Have KMS decrypt it again; see :meth:`KeyProvider.unwrap`."""
        answer = self._call("decrypt", KeyId=key, CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return bytes(answer["Plaintext"])

    def _call(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise UnusableKey(f"KMS refuses {operation} with key {arguments['KeyId']!r}: {error}") from None
