"""The object-store anchor: each checkpoint is an object under an S3 object lock, told by its version.

A lock holds *versions*: on the same name another version, or a mark that it is deleted, may still be laid on top.  So
the oldest version of a name counts, its id is in the token, and a version without a lock does not count.
Needs the extra ``s3``.  Imports only proof, errors and s3fs.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import aiohttp
import botocore.exceptions
import fsspec.asyn
import fsspec.exceptions
import s3fs

from ..errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof
from ..proof import Checkpoint
from ..proof.note import MAX_NOTE
from .anchor import Anchored, Prove, require_continued
from .kept import CHECKPOINT, stem
from .uri import TIMEOUT, with_options

FORMAT: Final = "sa_audit/object-token/v1"
COMPLIANCE: Final = "COMPLIANCE"
RETENTION_DAYS: Final = 3653
"""Days for which a checkpoint is locked if nothing else is said: ten years."""
TRIES: Final = 3
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME: Final = re.compile(r"[0-9]{20}-[0-9a-f]{16}\.checkpoint")
_ERRORS: Final = (
    *(OSError, aiohttp.ClientError, fsspec.exceptions.FSTimeoutError),
    *(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    key: str
    id: str
    count: int


class ObjectAnchor:
    """A bucket with object lock, in S3 or what speaks its protocol.

    Args:
        bucket: its name; object lock has to be on.
        prefix: what the names of the objects begin with, without the slash behind it.
        endpoint: the service's URL; Amazon's, or what the environment says, if not given.
        days: how long each checkpoint is locked, in compliance mode, which nobody can lift.
        timeout: seconds for each answer.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint: str | None = None,
        days: int = RETENTION_DAYS,
        timeout: float = TIMEOUT,
    ) -> None:
        if _BUCKET.fullmatch(bucket) is None:
            raise ConfigurationError(f"{bucket!r} can't be the name of a bucket")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint = endpoint
        self._days = days
        limits = {"connect_timeout": timeout, "read_timeout": timeout, "retries": {"total_max_attempts": TRIES}}
        self._fs: Any = s3fs.S3FileSystem(
            endpoint_url=endpoint, config_kwargs=limits, skip_instance_cache=True, use_listings_cache=False
        )

    def __repr__(self) -> str:
        return f"<ObjectAnchor {self.uri}>"

    @property
    def uri(self) -> str:
        """``s3://BUCKET/PREFIX?days=N&endpoint=URL``."""
        return with_options(f"s3://{self.bucket}/{self.prefix}", days=self._days, endpoint=self.endpoint)

    def put(self, checkpoint: Checkpoint, *, prove: Prove | None = None) -> Anchored:
        """Write a signed checkpoint as a locked object; see :meth:`.anchor.Anchor.put`.

        Two writers, or a crash, may lay two versions of the same checkpoint: the older one counts.
        """
        last = self.latest()
        require_continued(None if last is None else last.checkpoint, checkpoint)
        if last is not None and last.checkpoint.text == checkpoint.text:
            return last
        self._call(
            "put_object",
            Key=self._key(checkpoint),
            Body=checkpoint.format().encode(),
            ContentType="text/plain; charset=utf-8",
            ChecksumAlgorithm="SHA256",
            ObjectLockMode=COMPLIANCE,
            ObjectLockRetainUntilDate=dt.datetime.now(dt.UTC) + dt.timedelta(days=self._days),
        )
        kept = self.latest()
        if kept is None or kept.checkpoint.text != checkpoint.text:
            raise IntegrityFinding(
                f"{self.uri} took the checkpoint of size {checkpoint.size}, and gives "
                f"{'none' if kept is None else f'one of size {kept.checkpoint.size}'}: is something else writing there?"
            )
        return kept

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, by size, the oldest version of each; see :meth:`.anchor.Anchor.read`."""
        last = None
        for version in self._versions():
            anchored = self._load(version.key, version.id)
            require_continued(last, anchored.checkpoint)
            yield anchored
            last = anchored.checkpoint

    def latest(self) -> Anchored | None:
        """Give what was kept last, or None; the names are listed, and one object is read."""
        versions = list(self._versions())
        return self._load(versions[-1].key, versions[-1].id) if versions else None

    def verify(self, anchored: Anchored) -> dt.datetime:
        """Refuse a token whose version of the object is not there, not locked, or another checkpoint.

        Raises:
            AnchorUnavailable: if the store can't be asked.
        """
        try:
            said = json.loads(anchored.token)
            bucket, key, version = said["bucket"], said["key"], said["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedProof(f"the token {anchored.token!r:.80} is none of an object store: {error}") from error
        if said.get("format") != FORMAT or bucket != self.bucket or not str(key).startswith(self._start):
            raise IntegrityFinding(f"the token is for {bucket}/{key}: expected one below {self.bucket}/{self._start}")
        kept = self._load(str(key), str(version))
        if kept.token != anchored.token or kept.checkpoint.text != anchored.checkpoint.text:
            raise IntegrityFinding(f"{self.bucket}/{key} holds another checkpoint, or its token differs")
        return cast("dt.datetime", kept.at)

    @property
    def _start(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _key(self, checkpoint: Checkpoint) -> str:
        return f"{self._start}{stem(checkpoint)}{CHECKPOINT}"

    def _versions(self) -> Iterator[_Version]:
        """Yield the oldest version of each name, by name, whether or not something was laid on top of it."""
        oldest: dict[str, _Version] = {}
        marks: dict[str, Any] = {}
        while True:
            page = self._call("list_object_versions", Prefix=self._start, **marks)
            for each in page.get("Versions", ()):  # the newest of each name first
                count = oldest[each["Key"]].count + 1 if each["Key"] in oldest else 1
                oldest[each["Key"]] = _Version(key=each["Key"], id=each["VersionId"], count=count)
            if not page.get("IsTruncated"):
                break
            marks = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        for key in sorted(oldest):
            if _NAME.fullmatch(key.removeprefix(self._start)) is None:
                raise MalformedProof(f"{self.bucket}/{key} is nothing that an anchor keeps: give it another prefix")
            yield oldest[key]

    def _load(self, key: str, version: str) -> Anchored:
        """Read one version, and refuse one that is not locked."""
        found = self._call("get_object", Key=key, VersionId=version)
        until = found.get("ObjectLockRetainUntilDate")
        if found.get("ObjectLockMode") != COMPLIANCE or until is None:
            raise IntegrityFinding(
                f"the version {version} of {self.bucket}/{key} is not locked in compliance mode: it may have been put "
                "there in place of another"
            )
        checkpoint = Checkpoint.parse(self._body(found, key))
        if self._key(checkpoint) != key:
            raise MalformedProof(f"{self.bucket}/{key} holds the checkpoint {stem(checkpoint)}")
        said = {"format": FORMAT, "bucket": self.bucket, "key": key, "version": version}
        token = (json.dumps(said | {"until": _text(until)}, sort_keys=True) + "\n").encode()
        return Anchored(checkpoint=checkpoint, token=token, at=found["LastModified"].astimezone(dt.UTC))

    def _body(self, found: Mapping[str, Any], key: str) -> bytes:
        if found["ContentLength"] > MAX_NOTE:
            raise MalformedProof(f"{self.bucket}/{key} is too long for a checkpoint")
        try:
            body: bytes = fsspec.asyn.sync(self._fs.loop, _whole, found["Body"])
        except _ERRORS as error:
            raise self._unavailable("get_object", error) from error
        return body

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return self._fs.call_s3(method, Bucket=self.bucket, **arguments)
        except _ERRORS as error:
            raise self._unavailable(method, error) from error

    def _unavailable(self, method: str, error: Exception) -> AnchorUnavailable:
        return AnchorUnavailable(f"{self.uri} can't be used ({method}): {str(error) or type(error).__name__}")


async def _whole(stream: Any) -> Any:
    """Read the body of an answer, and close it."""
    async with stream:
        return await stream.read()


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
