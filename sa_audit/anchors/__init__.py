"""Anchors: places outside of the database that keep checkpoints, so that a rewritten log can be told from the true one.

>>> import tempfile
>>> from sa_audit import anchors
>>> anchor = anchors.open(f"file:{tempfile.mkdtemp()}/anchors")
>>> anchor.uri.startswith("file:/")
True
>>> anchor.latest() is None
True
"""

from __future__ import annotations

from ..errors import ConfigurationError
from .anchor import Anchor, Anchored, Prove
from .file import FileAnchor
from .uri import parse_uri
from .witness import WitnessAnchor

__all__ = ["Anchor", "Anchored", "FileAnchor", "Prove", "WitnessAnchor", "open"]

FORMS = "file:PATH, rfc3161+https://HOST/PATH?ca=FILE, witness+https://HOST/PATH?vkey=FILE, s3://BUCKET/PREFIX"
MOST_DAYS = 36_525


def open(uri: str) -> Anchor:
    """Give the anchor that a URI names.

    Args:
        uri: ``file:PATH``, ``rfc3161+https://HOST/PATH?ca=FILE``, ``witness+https://HOST/PATH?vkey=FILE`` or
            ``s3://BUCKET/PREFIX``, with further options behind: ``timeout=SECONDS`` for all but files; ``keep=DIR`` for
            ``rfc3161`` and ``witness``; ``days=N`` and ``endpoint=URL`` for ``s3``.  In the options, ``%26`` stands for
            ``&``, ``%2B`` for a plus, and ``%25`` for ``%``.

    Raises:
        ConfigurationError: if there is no such anchor, an option can't be meant, or the anchor needs an extra that is
            not installed.
    """
    scheme, separator, rest = uri.partition(":")
    if separator and rest:
        if scheme == "file":
            return _file(uri, rest)
        if scheme in ("rfc3161+http", "rfc3161+https"):
            return _timestamp(uri)
        if scheme in ("witness+http", "witness+https"):
            return _witness(uri)
        if scheme == "s3":
            return _store(uri)
    raise ConfigurationError(f"there is no anchor {uri!r}: give {FORMS}")


def _file(uri: str, rest: str) -> Anchor:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if path.startswith("//"):
        raise ConfigurationError(f"the anchor {uri!r} names a host: give file:PATH of a file that is mounted here")
    return FileAnchor(path)


def _timestamp(uri: str) -> Anchor:
    place = parse_uri(uri, "rfc3161+", "ca", "keep", "timeout")
    try:
        from .timestamp import TimestampAnchor
    except ModuleNotFoundError as error:
        raise _lacks(uri, "timestamp", error, "rfc3161_client") from error
    return TimestampAnchor(place.url, ca=place.path("ca"), keep=place.options.get("keep"), timeout=place.timeout)


def _witness(uri: str) -> Anchor:
    place = parse_uri(uri, "witness+", "vkey", "keep", "timeout")
    return WitnessAnchor(place.url, vkey=place.path("vkey"), keep=place.options.get("keep"), timeout=place.timeout)


def _store(uri: str) -> Anchor:
    place = parse_uri(uri, "", "days", "endpoint", "timeout")
    try:
        from .store import RETENTION_DAYS, ObjectAnchor
    except ModuleNotFoundError as error:
        raise _lacks(uri, "s3", error, "s3fs", "fsspec", "botocore", "aiohttp") from error
    bucket, _, prefix = place.url.removeprefix("s3://").partition("/")
    days = place.number("days", RETENTION_DAYS, MOST_DAYS)
    if days != int(days):
        raise ConfigurationError(f"the anchor {uri!r} has days={days:g}: give whole days")
    return ObjectAnchor(bucket, prefix, endpoint=place.options.get("endpoint"), days=int(days), timeout=place.timeout)


def _lacks(uri: str, extra: str, error: ModuleNotFoundError, *packages: str) -> Exception:
    """Say which extra is missing, if that is what is."""
    if error.name not in packages:
        return error
    return ConfigurationError(f"the anchor {uri!r} needs {error.name}: pip install 'sa-audit[{extra}]'")
