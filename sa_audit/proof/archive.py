"""The zip file of a bundle, opened and read with care: nothing but the declared error, and no more than it may hold.

``docs/format/bundle.md``, "manifest.json".  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

from ..errors import MalformedProof
from .cbor import ARRAY, BYTES, UNSIGNED
from .types import MAX_SIZE

FORMAT: Final = "sa_audit/bundle/v1"
MANIFEST: Final = "manifest.json"
MAX_MANIFEST: Final = 64 * 1024 * 1024
MAX_FILES: Final = 1_000_000
MAX_ROW: Final = 256 * 1024 * 1024
"""The most bytes of one row in a bundle."""
CHUNK: Final = 1 << 20
_NAME: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_ZIP_ERRORS: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError),
    *(OverflowError, IndexError, KeyError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself; ``files`` gives size and SHA-256 of each but the manifest, by name."""

    origin: str
    size: int
    root: str
    selection: str
    ranges: tuple[tuple[int, int], ...]
    files: Mapping[str, tuple[int, str]]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever reading a zip file may raise into the declared error.

    Raises:
        MalformedProof: naming what was read.
    """
    try:
        yield
    except _ZIP_ERRORS as error:
        raise MalformedProof(f"{what} of the bundle can't be read: {type(error).__name__}, {error}") from error


class Archive:
    """A bundle that is open for reading.

    Args:
        file: the zip file, open in binary mode, that can be sought in.

    Raises:
        MalformedProof: if it is not a zip file, or its names, its members or its manifest break a rule of the format.
    """

    def __init__(self, file: IO[bytes]) -> None:
        with reading("the zip file"):
            self._zip = zipfile.ZipFile(file)
        self._members = self._checked_members()
        self.manifest = _manifest(self.read(MANIFEST, MAX_MANIFEST))

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if len(members) >= MAX_FILES:
                raise MalformedProof(f"the bundle has more than {MAX_FILES} files")
            if _NAME.fullmatch(info.filename) is None or info.filename in members:
                raise MalformedProof(f"the bundle has the file {info.filename!r:.120}, twice or of a name not allowed")
            if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise MalformedProof(f"{info.filename} of the bundle is encrypted, or neither stored nor deflated")
            members[info.filename] = info
        if MANIFEST not in members:
            raise MalformedProof(f"the bundle has no {MANIFEST}")
        return members

    @property
    def names(self) -> list[str]:
        """The names of all files but the manifest, in order."""
        return sorted(name for name in self._members if name != MANIFEST)

    def size(self, name: str) -> int:
        """Give the size that the zip file claims for a file; no more than that is read."""
        return self._members[name].file_size

    def read(self, name: str, limit: int) -> bytes:
        """Give a whole file.

        Raises:
            MalformedProof: if there is none, it is longer than the limit, or it can't be read.
        """
        if name not in self._members:
            raise MalformedProof(f"the bundle has no {name}")
        if self.size(name) > limit:
            raise MalformedProof(f"{name} of the bundle is longer than {limit} bytes")
        with reading(name), self._zip.open(self._members[name]) as member:
            return member.read(limit + 1)

    def digest(self, name: str) -> tuple[int, str]:
        """Give the size and SHA-256 of a file, as it is.

        Raises:
            MalformedProof: if it can't be read.
        """
        size, digest = 0, hashlib.sha256()
        with reading(name), self._zip.open(self._members[name]) as member:
            while chunk := member.read(CHUNK):
                size += len(chunk)
                digest.update(chunk)
        return size, digest.hexdigest()

    def stream(self, name: str) -> Stream:
        """Open a file to be read piece by piece.

        Raises:
            MalformedProof: if there is none, or it can't be opened.
        """
        if name not in self._members:
            raise MalformedProof(f"the bundle has no {name}")
        with reading(name):
            return Stream(name, self._zip.open(self._members[name]))


class Stream:
    """A file of a bundle, read from front to back; memory holds one piece of it."""

    def __init__(self, name: str, member: IO[bytes]) -> None:
        self.name = name
        self._member = member

    def close(self) -> None:
        """Close it."""
        self._member.close()

    def take(self, size: int) -> bytes:
        """Give the next bytes: as many, or what is left.

        Raises:
            MalformedProof: if they can't be read.
        """
        with reading(self.name):
            return self._member.read(size)

    def pairs(self, limit: int) -> Iterator[tuple[int, bytes]]:
        """Yield the arrays ``[index, bytes]`` of a CBOR sequence.

        Args:
            limit: the most bytes of one.

        Raises:
            MalformedProof: if something else stands there, or the indexes don't ascend.
        """
        last = -1
        while first := self.take(1):
            if first[0] != ARRAY << 5 | 2:
                raise MalformedProof(f"{self.name} of the bundle is not a sequence of arrays of two")
            index, size = self._argument(UNSIGNED), self._argument(BYTES)
            if not last < index <= MAX_SIZE or size > limit:
                raise MalformedProof(f"{self.name} of the bundle has index {index} behind {last}, or {size} bytes")
            data = self.take(size)
            if len(data) != size:
                raise MalformedProof(f"{self.name} of the bundle ends amid index {index}")
            yield index, data
            last = index

    def _argument(self, major: int) -> int:
        """Read the head of an item of a kind (RFC 8949, section 3)."""
        first = self.take(1)
        info = first[0] & 31 if first else 31
        if not first or first[0] >> 5 != major or info > 27:
            raise MalformedProof(f"{self.name} of the bundle has something else than an index and bytes")
        if info < 24:
            return info
        width = 1 << (info - 24)
        raw = self.take(width)
        value = int.from_bytes(raw, "big")
        if len(raw) != width or value < 24 or (width > 1 and value >> (width * 4) == 0):
            raise MalformedProof(f"{self.name} of the bundle has a number in another form than its one")
        return value


# -- the manifest ------------------------------------------------------------------------


def _manifest(data: bytes) -> Manifest:
    try:
        content = json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise MalformedProof(f"{MANIFEST} of the bundle is not JSON: {error}") from error
    expected = {"format": str, "origin": str, "size": int, "root": str, "selection": str, "ranges": list, "files": list}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MalformedProof(f"{MANIFEST} of the bundle is not of the format {FORMAT!r}: use a later version")
    if {name: type(value) for name, value in content.items()} != expected:
        raise MalformedProof(f"{MANIFEST} of the bundle has other members than {', '.join(expected)}")
    return Manifest(
        origin=content["origin"],
        size=content["size"],
        root=content["root"],
        selection=content["selection"],
        ranges=_ranges(content["ranges"], content["size"]),
        files=_files(content["files"]),
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _ranges(items: list[Any], size: int) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    last = -1
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not all(type(number) is int for number in item):
            raise MalformedProof(f"{MANIFEST} of the bundle has the range {item!r:.80}")
        first, end = item
        if not last < first < end <= size:
            raise MalformedProof(f"{MANIFEST} of the bundle has the range {item!r:.80}, out of order or of the tree")
        ranges.append((first, end))
        last = end
    return tuple(ranges)


def _files(items: list[Any]) -> dict[str, tuple[int, str]]:
    files: dict[str, tuple[int, str]] = {}
    last = ""
    for item in items:
        types = {name: type(value) for name, value in item.items()} if isinstance(item, dict) else {}
        if types != {"name": str, "size": int, "sha256": str} or _DIGEST.fullmatch(item["sha256"]) is None:
            raise MalformedProof(f"{MANIFEST} of the bundle lists {item!r:.120}")
        if item["name"] <= last:
            raise MalformedProof(f"{MANIFEST} of the bundle lists {item['name']!r:.120} out of order")
        last = item["name"]
        files[last] = (item["size"], item["sha256"])
    return files
